"""The blocking facade has what the engine has, and behaves."""

from __future__ import annotations

import inspect
import threading
from pathlib import Path

import pytest

import ragline
from ragline.engine import Engine
from ragline.engine.jobs import EngineJobs
from ragline.errors import BackendError, InputError
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
