"""The blocking facade has what the engine has, and behaves."""

from __future__ import annotations

import inspect
import threading
from pathlib import Path

import pytest

import ragline
from ragline.engine import Engine
from ragline.engine.jobs import EngineJobs
from ragline.errors import BackendError, InputError, SettingsError
from ragline.sync import SyncEngine, SyncJobs
from ragline.types import Document
from tests.engines import sync_engine

ASYNC_ONLY = {"open", "store"}


def _public(cls: type) -> dict[str, object]:
    return {name: member for name, member in inspect.getmembers(cls) if not name.startswith("_")}


def test_the_facade_has_every_method_with_the_same_parameters() -> None:
    engine, facade = _public(Engine), _public(SyncEngine)
    assert set(engine) - ASYNC_ONLY == set(facade)
    for name in set(facade) - {"settings", "monitor", "jobs"}:
        ours, theirs = inspect.signature(facade[name]), inspect.signature(engine[name])  # type: ignore[arg-type]
        assert list(ours.parameters.values()) == list(theirs.parameters.values()), name


def test_the_jobs_of_the_facade_have_every_method_with_the_same_parameters() -> None:
    jobs, facade = _public(EngineJobs), _public(SyncJobs)
    assert set(jobs) - {"accept", "must_have_room", "receive"} == set(facade)
    for name in facade:
        ours, theirs = inspect.signature(facade[name]), inspect.signature(jobs[name])  # type: ignore[arg-type]
        assert list(ours.parameters.values()) == list(theirs.parameters.values()), name


def test_open_takes_what_the_engine_takes() -> None:
    assert list(inspect.signature(ragline.open).parameters.values()) == list(inspect.signature(Engine.open).parameters.values())


def test_blocking_code_ingests_asks_and_streams(tmp_path: Path) -> None:
    with sync_engine(tmp_path) as engine:
        engine.ingest([Document(text="The ferry will leave at nine.", id="a")])
        assert "nine" in engine.ask("when does the ferry leave?").text
        assert next(event.kind for event in engine.stream("when does the ferry leave?")) == "hits"
        assert len(engine.tenant("other").search("ferry")) == 0
        with pytest.raises(InputError):
            engine.search("")


def test_a_stream_left_early_ends_its_work(tmp_path: Path) -> None:
    with sync_engine(tmp_path) as engine:
        engine.ingest(Document(text="The ferry will leave at nine.", id="a"))
        stream = engine.stream("when does the ferry leave?")
        assert next(stream).kind == "hits"
        stream.close()  # type: ignore[attr-defined]
        assert engine.ask("when does the ferry leave?").found


def test_many_threads_may_share_one_engine(tmp_path: Path) -> None:
    with sync_engine(tmp_path) as engine:
        engine.ingest([Document(text=f"common word {n}", id=str(n)) for n in range(20)])
        found: list[int] = []
        threads = [threading.Thread(target=lambda: found.append(len(engine.search("common", top_k=20)))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [20] * 8


def test_a_closed_engine_says_so(tmp_path: Path) -> None:
    engine = sync_engine(tmp_path)
    engine.close()
    engine.close()
    with pytest.raises(BackendError, match="closed"):
        engine.search("x")
    with pytest.raises(BackendError, match="closed"):
        next(iter(engine.stream("x")))


def test_calls_beside_the_closing_end_and_so_does_everybody_who_closes(tmp_path: Path) -> None:
    def call(engine: SyncEngine, ended: list[str]) -> None:
        try:
            while True:
                engine.status()
        except BackendError as error:
            ended.append(error.message)

    def close(engine: SyncEngine, closed: list[bool]) -> None:
        engine.close()
        closed.append(True)

    for attempt in range(5):
        engine = sync_engine(tmp_path / str(attempt))
        engine.status()
        ended: list[str] = []
        closed: list[bool] = []
        threads = [threading.Thread(target=call, args=(engine, ended), daemon=True) for _ in range(4)]
        threads += [threading.Thread(target=close, args=(engine, closed), daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert len(closed) == 4 and len(ended) == 4 and set(ended) <= {"the engine is closed", "the engine is not open"}


def test_a_callback_that_ends_the_program_ends_the_call(tmp_path: Path) -> None:
    def ends(_: object) -> None:
        raise SystemExit(3)

    with sync_engine(tmp_path) as engine:
        with pytest.raises(SystemExit):
            engine.ingest(Document(text="The ferry will leave at nine.", id="a"), progress=ends)
        engine.status()  # which still answers


def test_an_engine_that_does_not_open_leaves_no_thread_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    before = set(threading.enumerate())
    with pytest.raises(BackendError, match="cannot be made"):
        sync_engine(tmp_path / "file" / "data")
    monkeypatch.setenv("RAGLINE_RETRIEVAL__TOP_K", "none")
    with pytest.raises(SettingsError):
        ragline.open(tmp_path / "data")
    assert set(threading.enumerate()) <= before
