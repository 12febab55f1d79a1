"""Two processes on one store, both writing, both reading: nothing is lost, and no version is ever seen in halves."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from ragline.storage.sqlite import SqliteStore
from tests.store_documents import SCOPE, all_changes, document, put

ROOT = Path(__file__).parents[2]
ROUNDS = 150


async def replace_again_and_again(store: SqliteStore, name: str) -> None:
    """Replaces a document that both write, with more or fewer chunks each time, and adds one of its own."""
    for number in range(ROUNDS):
        tag = f"{name}{number}"
        shared = document("shared", *(f"{tag} {part}" for part in range(1 + number % 7)))
        await put(store, SCOPE, shared, document(f"own {tag}", tag))


async def look_until(store: SqliteStore, done: asyncio.Event) -> int:
    """Reads the shared document as search and citation do; returns how many versions were seen."""
    seen = set()
    rows: list[int] = []
    while not done.is_set():
        chunks = await store.chunks(SCOPE, "shared")
        tags = {chunk.text.split()[0] for chunk in chunks}
        assert len(tags) <= 1
        assert [chunk.text.split()[1] for chunk in chunks] == [str(part) for part in range(len(chunks))]
        versions = {chunk.document_version for chunk in chunks}
        assert len(versions) <= 1
        seen |= versions
        fetched = await store.fetch(SCOPE, rows)
        assert len(fetched) in (0, len(rows))  # rows of one version live and die together
        rows = [chunk.row for chunk in chunks]
        text = await store.text(SCOPE, "shared")
        assert text is None or len({line.split()[0] for line in text[0].splitlines() if line}) == 1
    return len(seen)


async def work(folder: Path, name: str) -> int:
    """Writes and reads at the same time; returns how many versions of the shared document it saw."""
    store = await SqliteStore.open(folder, busy_timeout_s=120)
    done = asyncio.Event()
    looking = asyncio.create_task(look_until(store, done))
    await replace_again_and_again(store, name)
    done.set()
    seen = await looking
    await store.close()
    return seen


async def test_processes_that_write_and_read_one_store_lose_nothing_and_see_no_half_version(tmp_path: Path) -> None:
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.crash.test_store_processes",
        str(tmp_path),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}"},
    )
    try:
        seen = await asyncio.wait_for(work(tmp_path, "here"), 120)
        assert await asyncio.wait_for(child.wait(), 120) == 0
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    assert seen > 10

    store = await SqliteStore.open(tmp_path, busy_timeout_s=120)
    head = await store.head(SCOPE)
    assert head.lsn == 2 * ROUNDS
    ids = {stored.id for stored in await store.documents(SCOPE)}
    assert ids == {"shared"} | {f"own {name}{number}" for name in ("here", "there") for number in range(ROUNDS)}
    assert next(stored.version for stored in await store.documents(SCOPE, ids=["shared"])) == 2 * ROUNDS
    fed = [row for page in await all_changes(store, 0, head.lsn, model="m1") for row in page.rows.tolist()]
    assert fed == (await store.rows(SCOPE, list(ids))).tolist()
    assert await store.check() == []
    await store.close()


if __name__ == "__main__":
    assert asyncio.run(work(Path(sys.argv[1]), "there")) > 10
