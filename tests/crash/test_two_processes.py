"""Several processes on one store, all writing, all reading; the indexer killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ragline.types import Document
from tests.engines import engine, rows_of_views

ROOT = Path(__file__).parents[2]


class Peer:
    """A second process; see `engine_peer`."""

    def __init__(self, folder: Path, name: str, documents: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.engine_peer", str(folder), name, str(documents)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def line(self) -> list[str]:
        assert self.process.stdout is not None
        said = self.process.stdout.readline().split()
        assert said, "the process ended early"
        return said

    def finish(self) -> list[str]:
        rest, _ = self.process.communicate("go\n", timeout=120)
        assert self.process.returncode == 0
        return rest.split("\n")[-2].split()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def peers() -> list[Peer]:
    return []


@pytest.fixture(autouse=True)
def no_process_stays(peers: list[Peer]) -> object:
    yield
    for peer in peers:
        if peer.process.poll() is None:
            peer.kill()


async def test_two_processes_write_and_each_sees_everything(tmp_path: Path, peers: list[Peer]) -> None:
    count = 25
    peers += [Peer(tmp_path, name, count) for name in ("left", "right")]
    for peer in peers:
        assert peer.line()[0] == "ready"
    for peer in peers:
        for number in range(count):
            said = peer.line()
            assert said == ["wrote", str(number), "0", "True"], said
    for peer in peers:
        assert peer.finish() == ["done", str(2 * count), str(2 * count), "0"]
    async with engine(tmp_path) as opened:
        held = await rows_of_views(opened)
        assert held["dense"] == held["lexical"] == held["store"] and len(held["store"]) == 2 * count


async def test_when_the_indexer_is_killed_the_other_takes_over(tmp_path: Path, peers: list[Peer]) -> None:
    indexer = Peer(tmp_path, "first", 1000)
    peers.append(indexer)
    assert indexer.line() == ["ready", "this", "process"]
    assert indexer.line()[0] == "wrote"
    async with engine(tmp_path) as opened:
        assert (await opened.status()).indexer == "another process"
        await opened.ingest(Document(text="common second before", id="before"))
        assert (await opened.search("second before", mode="lexical"))[0].document_id == "before"
        indexer.kill()
        report = await opened.ingest(Document(text="common second after", id="after"))
        assert report.lag == 0
        assert (await opened.status()).indexer == "this process"
        assert (await opened.search("second after", mode="lexical"))[0].document_id == "after"
        held = await rows_of_views(opened)
        assert held["dense"] == held["lexical"] == held["store"]


async def test_a_text_deleted_by_another_process_is_never_served(tmp_path: Path) -> None:
    async with engine(tmp_path) as reader, engine(tmp_path) as writer:
        for number in range(20):
            await writer.ingest(Document(text=f"common secret{number}", id="x"))
            assert (await reader.search("common"))[0].text == f"common secret{number}"
            await writer.delete("x")
            for mode in ("dense", "lexical", "hybrid"):
                assert len(await reader.search(f"secret{number}", mode=mode)) == 0
