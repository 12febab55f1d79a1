"""A writing process is killed at random points: what it acknowledged is there once and whole, the rest whole or not at all."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ragline.storage.base import DocumentWrite
from ragline.storage.sqlite import SqliteStore
from tests.store_documents import SCOPE, all_changes, delete, document, put

ROOT = Path(__file__).parents[2]
TASKS = 4

State = dict[str, str]
"""The tag of the version that stands under each id."""


def version(id: str, tag: str) -> DocumentWrite:
    """The document version that a tag stands for, the same in every process."""
    generator = random.Random(f"{id}/{tag}")
    return document(id, *(f"{id} {tag} {part} " + "word " * generator.randint(1, 300) for part in range(generator.randint(1, 12))))


async def write_until_killed(folder: Path, log: Path, seed: int) -> None:
    """Puts, replaces and deletes; every step is in the log before it begins, and again when it was acknowledged."""
    store = await SqliteStore.open(folder)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    async def work(task: int) -> None:
        generator = random.Random(f"{seed}/{task}")
        for step in range(1_000_000):
            ids = [f"{task}-{generator.randint(0, 30)}" for _ in range(generator.randint(1, 5))]
            ids = list(dict.fromkeys(ids))
            tag = "" if generator.random() < 0.3 else f"{seed}.{step}"
            os.write(descriptor, f"begin {task} {tag or '-'} {' '.join(ids)}\n".encode())
            if tag:
                await put(store, SCOPE, *(version(id, tag) for id in ids))
            else:
                await delete(store, SCOPE, *ids)
            os.write(descriptor, f"done {task}\n".encode())

    await asyncio.gather(*(work(task) for task in range(TASKS)))


def kill_a_writer(folder: Path, log: Path, seed: int) -> None:
    log.touch()
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.crash.test_store_kill", str(folder), str(log), str(seed)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}"},
    )
    try:
        while not log.stat().st_size:
            assert child.poll() is None
            time.sleep(0.01)
        time.sleep(random.Random(seed).uniform(0.0, 0.5))
    finally:
        child.kill()
        child.wait()


def replay(log: Path, states: list[State]) -> list[State]:
    """Applies the acknowledged steps to the state of each task; returns what the steps under way would have made."""
    pending: list[tuple[str, list[str]] | None] = [None] * TASKS
    for line in log.read_text().splitlines():
        kind, task, *rest = line.split()
        if kind == "begin":
            pending[int(task)] = (rest[0], rest[1:])
        elif (step := pending[int(task)]) is not None:
            states[int(task)] = applied(states[int(task)], *step)
            pending[int(task)] = None
    return [applied(state, *step) if step else state for state, step in zip(states, pending, strict=True)]


def applied(state: State, tag: str, ids: list[str]) -> State:
    kept = {id: known for id, known in state.items() if id not in ids}
    return kept if tag == "-" else {**kept, **dict.fromkeys(ids, tag)}


async def found_in(store: SqliteStore, known_tags: dict[str, set[str]]) -> State:
    """The tag of each document, all of whose parts must be of that one version."""
    found: State = {}
    for stored in await store.documents(SCOPE):
        text = await store.text(SCOPE, stored.id)
        assert text is not None
        tag = text[0].split()[1]
        assert tag in known_tags[stored.id]
        whole = version(stored.id, tag)
        assert text[0] == whole.text
        chunks = await store.chunks(SCOPE, stored.id)
        assert [chunk.text for chunk in chunks] == [chunk.text for chunk in whole.chunks]
        assert [chunk.row for chunk in chunks] == (await store.rows(SCOPE, [stored.id])).tolist()
        found[stored.id] = tag
    return found


async def verify(folder: Path, states: list[State], possible: list[State]) -> None:
    store = await SqliteStore.open(folder)
    assert await store.check() == []
    tags: dict[str, set[str]] = {}
    for state in (*states, *possible):
        for id, tag in state.items():
            tags.setdefault(id, set()).add(tag)
    found = await found_in(store, tags)
    for task in range(TASKS):
        of_task = {id: tag for id, tag in found.items() if id.startswith(f"{task}-")}
        assert of_task in (states[task], possible[task])
        states[task] = of_task

    head = await store.head(SCOPE)
    pages = await all_changes(store, 0, head.lsn, model="m1")
    fed = [row for page in pages for row in page.rows.tolist()]
    assert fed == (await store.rows(SCOPE, list(found))).tolist()
    await store.close()


async def kill_repeatedly(folder: Path, kills: int) -> None:
    states: list[State] = [{} for _ in range(TASKS)]
    for seed in range(kills):
        log = folder / f"log{seed}"
        await asyncio.to_thread(kill_a_writer, folder / "data", log, seed)
        possible = replay(log, states)
        await verify(folder / "data", states, possible)
    assert any(states)


async def test_what_a_killed_process_acknowledged_is_there_once_and_whole(tmp_path: Path) -> None:
    await kill_repeatedly(tmp_path, 15)


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_what_a_killed_process_acknowledged_is_there_once_and_whole_500_times(tmp_path: Path) -> None:
    await kill_repeatedly(tmp_path, 500)


if __name__ == "__main__":
    asyncio.run(write_until_killed(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])))
