"""The views of many scopes in many processes: let go while used, closed, killed, stopped, given another model."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import signal
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from ragline.concurrency.locks import ProcessLock
from ragline.engine import Engine, reindexing
from ragline.errors import BackendError, ModelMismatchError
from ragline.retrieval.hybrid import Mode
from ragline.types import Document, Scope
from tests.crash.follower_peer import SETTINGS, text_of
from tests.embedders import HashEmbedder
from tests.engines import engine, rows_of_views

ROOT = Path(__file__).parents[2]


def document(id: str, words: str = "") -> Document:
    return Document(text=f"common {id} {words}", id=id)


async def ids_of(opened: Engine, mode: Any = "dense") -> set[str]:
    return {hit.document_id for hit in await opened.search("common", top_k=1000, mode=mode)}


async def eventually(holds: Callable[[], Any], tries: int = 3000) -> None:
    for _ in range(tries):
        if await holds() if asyncio.iscoroutinefunction(holds) else holds():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it never came to hold")


# One process


async def test_views_let_go_while_they_are_searched_and_written_lose_nothing(tmp_path: Path) -> None:
    async with engine(tmp_path, index={"resident_scopes": 1}) as opened:
        tenants = [opened.tenant(f"tenant{number}") for number in range(5)]
        written = [0] * len(tenants)

        async def write(number: int) -> None:
            for count in range(1, 11):
                assert (await tenants[number].ingest(document(f"d{count}"))).lag == 0
                written[number] = count

        async def read(seed: int) -> None:
            chance = random.Random(seed)
            while min(written) < 10:
                number = chance.randrange(len(tenants))
                before = written[number]
                found = await tenants[number].search("common", top_k=100, mode=chance.choice(["dense", "lexical"]))
                assert found.lag > 0 or len(found) >= before

        async def leave() -> None:
            while min(written) < 10:
                for tenant in tenants:
                    search = asyncio.create_task(tenant.search("common"))
                    await asyncio.sleep(0.003)
                    search.cancel()

        await asyncio.gather(leave(), *(write(number) for number in range(len(tenants))), *(read(seed) for seed in range(6)))
        for tenant in tenants:
            assert len(await ids_of(tenant, "dense")) == len(await ids_of(tenant, "lexical")) == 10


async def test_closing_while_searches_and_ingests_run_ends_them_cleanly(tmp_path: Path) -> None:
    for attempt in range(6):
        folder = tmp_path / str(attempt)
        opened = engine(folder)
        await opened.__aenter__()
        await opened.ingest([document(f"d{number}") for number in range(10)])

        async def search(opened: Engine = opened) -> None:
            while True:
                await opened.search("common")

        async def ingest(opened: Engine = opened) -> None:
            for number in range(1_000_000):
                await opened.ingest(document(f"more{number}"))

        tasks = [asyncio.create_task(work()) for work in (search, search, search, ingest, ingest)]
        await asyncio.sleep(0.01 * attempt)
        tasks[0].cancel()
        await opened.close()
        await asyncio.wait(tasks)
        for task in tasks[1:]:
            assert not task.cancelled() and isinstance(task.exception(), BackendError), task
        assert asyncio.all_tasks() == {asyncio.current_task()}
        lock = ProcessLock(folder / "views" / "indexer.lock")
        assert lock.acquire(), "a closed engine kept the indexer's lock"
        lock.release()


async def test_a_follower_that_meets_an_unexpected_error_says_so_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with engine(tmp_path) as indexer, engine(tmp_path) as writer:
        heads, failed = indexer._resources.store.heads, asyncio.Event()

        async def fail_once() -> Any:
            if not failed.is_set():
                failed.set()
                raise RuntimeError("nobody expected this")
            return await heads()

        monkeypatch.setattr(indexer._resources.store, "heads", fail_once)
        with caplog.at_level(logging.ERROR):
            assert (await writer.ingest(document("a"))).lag == 0
        assert failed.is_set() and "nobody expected this" in caplog.text


async def test_a_scope_whose_views_cannot_be_written_does_not_hold_up_the_others(tmp_path: Path) -> None:
    async with engine(tmp_path) as indexer, engine(tmp_path, index={"wait_s": 1.0}) as writer:
        bad, good = writer.tenant("a-bad"), writer.tenant("b-good")
        await good.ingest(document("first"))
        number = (await writer._resources.store.head(Scope("b-good", "default"))).scope_id + 1
        (tmp_path / "views" / str(number)).write_text("a file where a folder should be")
        with pytest.raises(BackendError):  # what was committed stands
            await bad.ingest(document("x"))
        assert [stored.id for stored in await bad.documents()] == ["x"]
        assert (await good.ingest(document("second"))).lag == 0
        assert (await indexer.status()).indexer == "this process"


async def test_who_leaves_does_not_stop_a_step_that_others_wait_for(tmp_path: Path) -> None:
    async with engine(tmp_path) as opened:
        await opened.ingest([document(f"d{number}") for number in range(200)])
        follower = opened._resources.follower
        for attempt in range(10):
            rebuilding = asyncio.create_task(follower.rebuild(Scope()))
            others = [asyncio.create_task(opened.ingest(document("again", str(number)))) for number in range(3)]
            await asyncio.sleep(0.004 * attempt)
            rebuilding.cancel()
            assert [report.lag for report in await asyncio.gather(*others)] == [0, 0, 0]


async def test_a_document_replaced_while_it_was_fed_is_seen_old_or_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with engine(tmp_path) as indexer, engine(tmp_path, index={"wait_s": 0.0}) as other:
        await indexer.ingest(document("warm"))
        store, changes = indexer._resources.store, indexer._resources.store.changes
        searches: list[asyncio.Task[Any]] = []

        async def overtaken(scope: Scope, after: int, upto: int, **kwargs: Any) -> AsyncIterator[Any]:
            if kwargs.get("model") and not searches:  # the step has read the head; now another process replaces the document
                searches.extend(asyncio.create_task(indexer.search("common", mode=mode)) for mode in ("dense", "lexical", "hybrid"))
                await asyncio.sleep(0)
                await other.ingest(document("x", "new"))
            async for page in changes(scope, after, upto, **kwargs):
                yield page

        monkeypatch.setattr(store, "changes", overtaken)
        await indexer.ingest(document("x", "old"))
        for found in await asyncio.gather(*searches):
            assert found.lag > 0 or "x" in {hit.document_id for hit in found}
        assert len(searches) == 3


async def test_a_question_never_meets_the_vectors_of_another_model(tmp_path: Path) -> None:
    """Two engines switch a collection to and fro between models of different dimensions while both search."""
    async with (
        engine(tmp_path, embedder=HashEmbedder(64, name="a")) as left,
        engine(tmp_path, embedder=HashEmbedder(32, name="b")) as right,
    ):
        await left.ingest([document(f"d{number}", f"word{number}") for number in range(30)])
        outcomes: dict[str, int] = defaultdict(int)
        done = False

        async def switch() -> None:
            nonlocal done
            for engine in (right, left) * 6:
                await engine.reindex()
            done = True

        async def search(opened: Engine, seed: int) -> None:
            chance = random.Random(seed)
            while not done:
                number = chance.randrange(30)
                try:
                    found = await opened.search(f"word{number}", top_k=3, mode=chance.choice(["dense", "hybrid"]))
                except ModelMismatchError:
                    outcomes["refused"] += 1
                    await asyncio.sleep(0.001)
                    continue
                outcomes["answered"] += 1
                assert found.lag > 0 or found[0].document_id == f"d{number}"

        await asyncio.gather(switch(), *(search(opened, seed) for seed, opened in enumerate((left, right, left, right))))
        assert min(outcomes["answered"], outcomes["refused"]) > 10
        assert len(await ids_of(left)) == 30


async def test_a_reindex_ends_though_documents_keep_coming(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with engine(tmp_path) as opened:
        await opened.ingest([document(f"d{number}", "long text " * 30) for number in range(50)])
    monkeypatch.setattr(reindexing, "ATTEMPTS", 0)  # as if documents had come in between every time
    async with engine(tmp_path, chunking={"max_tokens": 30}) as opened:
        report, *_ = await asyncio.gather(opened.reindex(), *(opened.ingest(document(f"new{number}")) for number in range(20)))
        assert report.chunks > 100
        held = await rows_of_views(opened)
        assert {id for id, _, _ in held["store"]} >= {f"new{number}" for number in range(20)}
        assert len(await opened.chunks("d0")) > 1


async def test_views_of_a_deleted_collection_leave_the_disk_and_a_new_one_starts_afresh(tmp_path: Path) -> None:
    async with engine(tmp_path) as opened, engine(tmp_path) as reader:
        await opened.ingest([document("a"), document("b")])
        assert await ids_of(reader) == {"a", "b"}
        await opened.delete_collection("default")
        assert await ids_of(opened) == await ids_of(reader) == set()
        await eventually(lambda: [path.name for path in (tmp_path / "views").iterdir()] == ["indexer.lock"])
        await opened.ingest(document("c"))
        for mode in ("dense", "lexical"):
            assert await ids_of(opened, mode) == await ids_of(reader, mode) == {"c"}


async def test_a_scope_that_holds_nothing_but_files_that_failed_is_empty(tmp_path: Path) -> None:
    (tmp_path / "empty.md").touch()
    async with engine(tmp_path / "data") as opened, engine(tmp_path / "data") as reader:
        assert len((await opened.ingest(tmp_path / "empty.md")).failed) == 1
        for each in (opened, reader):
            found = await each.search("anything")
            assert (len(found), found.lag, found.degraded) == (0, 0, ())


# Several processes


class Peer:
    """Another process on the store; see `follower_peer`. What it says is kept as it comes."""

    def __init__(self, folder: Path, name: str, seed: int, heard: Callable[[str, list[Any]], None]) -> None:
        self.indexes = False
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.follower_peer", str(folder), name, str(seed)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._heard = heard
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.endswith("\n"):  # a torn line was never said
                said = json.loads(line)
                self.indexes |= said in (["indexer"], ["ready", True])
                self._heard(self.name, said)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._thread.join()
        assert self.process.stdout is not None
        self.process.stdout.close()


class Ledger:
    """What the processes have been told is done, against what they see."""

    def __init__(self) -> None:
        self.possible: dict[str, set[str | None]] = defaultdict(lambda: {None})
        self.acknowledged = self.checked = self.ready = 0
        self.faults: list[str] = []
        self._lock = threading.Lock()

    def hear(self, name: str, said: list[Any]) -> None:
        with self._lock:
            match said:
                case ["begin", changes]:
                    for id, tag in changes.items():
                        self.possible[id] = self.possible[id] | {tag}
                case ["done", changes]:
                    self.acknowledged += 1
                    self.possible.update({id: {tag} for id, tag in changes.items()})
                case ["seen", ids]:
                    self.checked += 1
                    own = {id: tags for id, tags in self.possible.items() if id.startswith(f"{name}-")}
                    missing = {id for id, tags in own.items() if None not in tags} - set(ids)
                    ghosts = {id for id, tags in own.items() if tags == {None}} & set(ids)
                    if missing or ghosts:
                        self.faults.append(f"{name} missed {missing} and met {ghosts}, which were deleted")
                case ["ready", _]:
                    self.ready += 1


@pytest.fixture
def peers() -> Iterator[dict[str, Peer]]:
    running: dict[str, Peer] = {}
    yield running
    for peer in running.values():
        peer.kill()


async def prove_kills(folder: Path, peers: dict[str, Peer], kills: int, first_seed: int) -> None:
    chance = random.Random(first_seed)
    ledger = Ledger()
    names = ("left", "middle", "right")
    for seed, name in enumerate(names, start=first_seed):
        peers[name] = Peer(folder, name, seed, ledger.hear)
    for seed in range(first_seed + len(names), first_seed + len(names) + kills):

        def reached(mark: int = ledger.acknowledged + chance.randint(1, 40)) -> bool:
            return ledger.acknowledged >= mark and any(peer.indexes for peer in peers.values())

        await eventually(reached)
        indexers = [name for name, peer in peers.items() if peer.indexes]
        name = chance.choice(indexers) if chance.random() < 0.7 else chance.choice(names)
        assert peers[name].process.poll() is None, f"{name} died by itself"
        await asyncio.to_thread(peers[name].kill)
        peers[name] = Peer(folder, name, seed, ledger.hear)
    for peer in peers.values():
        await asyncio.to_thread(peer.kill)
    peers.clear()
    assert not ledger.faults
    assert ledger.acknowledged > kills and ledger.checked > kills
    async with engine(folder, **SETTINGS) as opened:
        stored = {document.id: document for document in await opened.documents()}
        assert set(stored) <= set(ledger.possible)
        for id, tags in ledger.possible.items():
            tag = stored[id].metadata["tag"] if id in stored else None
            assert tag in tags, f"{id} is {tag}, not one of {tags}"
            assert tag is None or await opened.text(id) == text_of(id, str(tag))
        held = await rows_of_views(opened)
        assert held["dense"] == held["lexical"] == held["store"]


async def test_three_processes_write_while_the_indexer_is_killed_again_and_again(tmp_path: Path, peers: dict[str, Peer]) -> None:
    await prove_kills(tmp_path, peers, kills=8, first_seed=1)


@pytest.mark.soak
async def test_three_processes_write_through_two_hundred_kills(tmp_path: Path, peers: dict[str, Peer]) -> None:
    await prove_kills(tmp_path, peers, kills=200, first_seed=1000)


async def test_a_reader_whose_indexer_is_stopped_states_its_lag_and_serves_nothing_deleted(tmp_path: Path, peers: dict[str, Peer]) -> None:
    ledger = Ledger()
    peers["indexer"] = Peer(tmp_path, "indexer", 1, ledger.hear)
    await eventually(lambda: ledger.ready)
    async with engine(tmp_path, index={"wait_s": 0.3, "exact_below": 100}, chunking={"max_tokens": 48}) as reader:
        await eventually(lambda: ledger.checked > 3)
        own = reader.tenant("own")
        await eventually_current(own, [document(f"d{number}") for number in range(10)])
        peers["indexer"].process.send_signal(signal.SIGSTOP)
        try:
            assert (await own.ingest(document("new"))).lag == 1
            await own.delete("d3")
            for mode in get_args(Mode):
                found = await own.search("common d3 new", top_k=50, mode=mode)
                assert found.lag > 0 and "d3" not in {hit.document_id for hit in found}
        finally:
            peers["indexer"].process.send_signal(signal.SIGCONT)
        expected = {f"d{number}" for number in range(10)} - {"d3"} | {"new"}

        async def caught_up() -> bool:
            found = await own.search("common", top_k=50, mode="lexical")
            return found.lag == 0 and {hit.document_id for hit in found} == expected

        await eventually(caught_up)


async def eventually_current(opened: Engine, documents: list[Document]) -> None:
    await opened.ingest(documents)

    async def current() -> bool:
        return (await opened.search("common")).lag == 0

    await eventually(current)
