"""Transactions of one job each: they go to the writing thread together, and stand or fall alone."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import apsw
import pytest

from ragline.errors import BackendError, ConflictError
from ragline.storage.sqlite import SqliteStore
from ragline.storage.sqlite.store import FILE_NAME
from tests.store_documents import SCOPE, document, put


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = await SqliteStore.open(tmp_path / "data", busy_timeout_s=0.5)
    opened._writer.connection.execute("CREATE TABLE notes (text TEXT UNIQUE)")
    yield opened
    await opened.close()


def note(connection: apsw.Connection, text: str) -> str:
    connection.execute("INSERT INTO notes VALUES (?)", (text,))
    return text.upper()


def refused(connection: apsw.Connection, text: str) -> str:
    note(connection, text)
    raise ConflictError("not this one")


def filling(connection: apsw.Connection, count: int) -> None:
    connection.executemany("INSERT INTO notes VALUES (?)", ((os.urandom(1000).hex(),) for _ in range(count)))


async def notes(store: SqliteStore) -> set[str]:
    return {str(text) for (text,) in await store.read(lambda connection: connection.execute("SELECT text FROM notes").fetchall())}


async def test_those_that_wait_together_go_to_the_thread_together(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    writer, went, commits = store._writer, 0, 0
    on_thread = writer.on_thread

    async def counted(*args: object) -> object:
        nonlocal went
        went += 1
        return await on_thread(*args)  # type: ignore[arg-type]

    def committed() -> bool:
        nonlocal commits
        commits += 1
        return False

    monkeypatch.setattr(writer, "on_thread", counted)
    writer.connection.set_commit_hook(committed)
    told = await asyncio.gather(*(store.write(note, f"note {number}") for number in range(40)))
    writer.connection.set_commit_hook(None)
    assert told == [f"NOTE {number}" for number in range(40)]
    assert went <= 3 and commits <= 3
    assert len(await notes(store)) == 40


async def test_one_that_fails_takes_no_other_along(store: SqliteStore) -> None:
    jobs = [store.write(note, "1"), store.write(refused, "2"), store.write(note, "1"), store.write(note, "3")]
    first, second, third, fourth = await asyncio.gather(*jobs, return_exceptions=True)
    assert (first, fourth) == ("1", "3")
    assert isinstance(second, ConflictError) and second.message == "not this one"
    assert isinstance(third, BackendError), "the note was there already"
    assert await notes(store) == {"1", "3"}


async def test_a_commit_that_fails_is_told_to_each(store: SqliteStore) -> None:
    store._writer.connection.set_commit_hook(lambda: True)
    told = await asyncio.gather(*(store.write(note, f"{number}") for number in range(10)), return_exceptions=True)
    store._writer.connection.set_commit_hook(None)
    assert all(isinstance(each, BackendError) for each in told) and len({id(each) for each in told}) == 10
    assert await notes(store) == set()
    assert await store.write(note, "after") == "AFTER"


async def test_where_sqlite_rolls_all_back_nobody_is_told_that_it_is_kept(store: SqliteStore) -> None:
    connection = store._writer.connection
    pages = connection.execute("PRAGMA page_count").get
    connection.execute(f"PRAGMA max_page_count = {pages + 20}")
    jobs = [
        *(store.write(note, f"{number}") for number in range(5)),
        store.write(filling, 500),
        *(store.write(note, f"{n}") for n in (5, 6)),
    ]
    told = await asyncio.gather(*jobs, return_exceptions=True)
    assert isinstance(told[5], BackendError) and "full" in told[5].message
    assert await notes(store) == {each for each in told if isinstance(each, str)}
    connection.execute("PRAGMA max_page_count = 1073741823")
    assert await store.write(note, "after") == "AFTER"


async def test_who_leaves_before_its_turn_writes_nothing_and_after_it_changes_nothing(store: SqliteStore) -> None:
    async with store._writer.turn():
        left = asyncio.create_task(store.write(note, "left"))
        stayed = asyncio.create_task(store.write(note, "stayed"))
        await asyncio.sleep(0)
        left.cancel()
        await asyncio.sleep(0)
    assert await stayed == "STAYED"
    assert left.cancelled() and await notes(store) == {"stayed"}


async def test_they_keep_their_place_among_transactions_of_several_steps(store: SqliteStore) -> None:
    told: list[str] = []

    async def several(text: str) -> None:
        async with store._writer.turn() as turn:
            await turn.run(note, store._writer.connection, text)
            await turn.run(told.append, text)

    def one(connection: apsw.Connection, text: str) -> None:
        note(connection, text)
        told.append(text)

    await asyncio.gather(several("1"), store.write(one, "2"), store.write(one, "3"), several("4"), store.write(one, "5"), several("6"))
    assert told == ["1", "2", "3", "4", "5", "6"] and await notes(store) == set(told)


async def test_a_store_locked_for_too_long_says_so_to_everyone_who_waits(store: SqliteStore, tmp_path: Path) -> None:
    other = apsw.Connection(str(tmp_path / "data" / FILE_NAME))
    other.execute("BEGIN IMMEDIATE")
    loop = asyncio.get_running_loop()
    began = loop.time()
    told = await asyncio.gather(
        *(store.write(note, f"{number}") for number in range(100)), put(store, SCOPE, document("a")), return_exceptions=True
    )
    assert all(isinstance(each, BackendError) and "another process" in each.message for each in told)
    assert loop.time() - began < 5, "they have waited together, not one after the other"
    other.execute("ROLLBACK")
    other.close()
    assert await store.write(note, "after") == "AFTER"


async def test_within_a_transaction_another_is_refused(store: SqliteStore) -> None:
    async with store._writer.turn():
        with pytest.raises(RuntimeError, match="already"):
            await store.write(note, "1")
    await store.close()
    with pytest.raises(BackendError, match="closed"):
        await store.write(note, "2")
