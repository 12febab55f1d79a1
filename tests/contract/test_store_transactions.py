"""All or nothing, alone or together: what every store promises of transactions, and of its life."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from ragline.errors import BackendError
from ragline.storage.base import FileState, Store
from ragline.types import Scope
from tests.store_documents import EMBEDDER, SCOPE, document, put


async def test_a_failed_transaction_leaves_nothing_behind(store: Store) -> None:
    await put(store, SCOPE, document("a", "one"))
    head = await store.head(SCOPE)
    with pytest.raises(ZeroDivisionError):
        async with store.transaction() as transaction:
            await transaction.delete(SCOPE, ["a"])
            await transaction.put(SCOPE, [document("b")], model="m1", embedder=EMBEDDER)
            await transaction.put_files(SCOPE, {"file:///b": FileState("s", "b")})
            raise ZeroDivisionError
    assert [stored.id for stored in await store.documents(SCOPE)] == ["a"]
    assert await store.files(SCOPE, ["file:///b"]) == {}
    assert await store.head(SCOPE) == head
    await put(store, SCOPE, document("c", "three"))
    assert (await store.head(SCOPE)).lsn == head.lsn + 1


async def test_a_transaction_takes_one_lsn_for_each_scope_that_it_changed(store: Store) -> None:
    elsewhere, untouched = Scope("acme", "elsewhere"), Scope("acme", "untouched")
    for scope in (SCOPE, elsewhere, untouched):
        await put(store, scope, document("a"))
    async with store.transaction() as transaction:
        await transaction.put(SCOPE, [document("b")], model="m1", embedder=EMBEDDER)
        await transaction.put(SCOPE, [document("c")], model="m1", embedder=EMBEDDER)
        await transaction.delete(SCOPE, ["a"])
        await transaction.delete(elsewhere, ["a"])
        await transaction.put(untouched, [document("a")], model="m1", embedder=EMBEDDER)
        await transaction.put_files(untouched, {"file:///x": FileState("s", None)})
    assert [(await store.head(scope)).lsn for scope in (SCOPE, elsewhere, untouched)] == [2, 2, 1]
    assert {stored.lsn for stored in await store.documents(SCOPE)} == {2}


async def test_nothing_is_seen_before_the_commit(store: Store, other: Store) -> None:
    async with store.transaction() as transaction:
        await transaction.put(SCOPE, [document("a")], model="m1", embedder=EMBEDDER)
        for reader in (store, other):
            assert await reader.documents(SCOPE) == []
            assert (await reader.head(SCOPE)).lsn == 0
    for reader in (store, other):
        assert len(await reader.documents(SCOPE)) == 1
        assert (await reader.head(SCOPE)).lsn == 1


async def test_of_transactions_at_the_same_time_each_stands_or_falls_alone(store: Store) -> None:
    async def write(number: int) -> None:
        async with store.transaction() as transaction:
            await transaction.put(SCOPE, [document(f"{number:03}")], model="m1", embedder=EMBEDDER)
            if number % 3 == 0:
                raise ValueError(number)

    results = await asyncio.gather(*(write(number) for number in range(200)), return_exceptions=True)
    assert [isinstance(result, ValueError) for result in results] == [number % 3 == 0 for number in range(200)]
    stored = await store.documents(SCOPE)
    assert [found.id for found in stored] == [f"{number:03}" for number in range(200) if number % 3]
    assert sorted(found.lsn for found in stored) == list(range(1, len(stored) + 1))


async def test_a_cancelled_transaction_rolls_back_wherever_it_was_and_others_go_on(store: Store) -> None:
    generator = random.Random(7)

    async def write(number: int) -> str:
        async with store.transaction() as transaction:
            await transaction.put(SCOPE, [document(f"{number:03}")], model="m1", embedder=EMBEDDER)
            await asyncio.sleep(generator.random() / 1000)
            await transaction.put(SCOPE, [document(f"{number:03}+")], model="m1", embedder=EMBEDDER)
        return f"{number:03}"

    tasks = [asyncio.create_task(write(number)) for number in range(60)]
    for _ in tasks:
        await asyncio.sleep(generator.random() / 500)
        if generator.random() < 0.5:
            generator.choice(tasks).cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    acknowledged = {result for result in results if isinstance(result, str)}
    assert 0 < len(acknowledged) < 60
    await put(store, SCOPE, document("last", "the writer still works"))

    stored = {found.id for found in await store.documents(SCOPE)} - {"last"}
    assert {id for id in stored if "+" not in id} == {id.removesuffix("+") for id in stored if "+" in id}
    assert acknowledged <= stored
    assert (await store.head(SCOPE)).lsn == len(stored) // 2 + 1


async def test_a_transaction_within_a_transaction_is_refused_instead_of_waiting_for_itself(store: Store) -> None:
    async with store.transaction() as outer:
        with pytest.raises(RuntimeError, match="in a transaction already"):
            async with store.transaction():
                pass
        await outer.put(SCOPE, [document("a")], model="m1", embedder=EMBEDDER)
    with pytest.raises(RuntimeError, match="has ended"):
        await outer.delete(SCOPE, ["a"])
    assert len(await store.documents(SCOPE)) == 1


async def test_two_stores_of_one_folder_write_without_losing_anything(store: Store, other: Store) -> None:
    async def write(writer: Store, name: str) -> None:
        for number in range(25):
            await put(writer, SCOPE, document(f"{name}{number}", f"{name} {number}"), document("shared", f"{name} {number}"))

    await asyncio.gather(write(store, "a"), write(other, "b"))
    assert (await store.head(SCOPE)) == (await other.head(SCOPE))
    stored = await other.documents(SCOPE)
    assert len(stored) == 51
    assert next(found.version for found in stored if found.id == "shared") == 50 == (await store.head(SCOPE)).lsn


async def test_head_and_changed_notice_the_commits_of_others_each_on_its_own(store: Store, other: Store) -> None:
    assert not await store.changed(0)
    assert (await store.head(SCOPE)).lsn == 0
    for number in range(1, 4):
        await put(other, SCOPE, document("a", str(number)))
        assert (await store.head(SCOPE)).lsn == 2 * number - 1
        assert await store.changed(5)
        assert not await store.changed(0)
        assert (await store.head(SCOPE)).lsn == 2 * number - 1
        await put(store, SCOPE, document("b", str(number)))
        assert await store.changed(5)
        assert (await store.head(SCOPE)).lsn == 2 * number
        assert not await store.changed(0)


async def test_waiting_for_a_change_ends_with_the_change_and_leaves_the_loop_free(store: Store, other: Store) -> None:
    waiting = asyncio.create_task(store.changed(60))
    await asyncio.sleep(0)
    await put(other, SCOPE, document("a", "one"))
    assert await asyncio.wait_for(waiting, 30)


async def test_an_unchanged_put_wakes_nobody(store: Store, other: Store) -> None:
    await put(store, SCOPE, document("a", "one"))
    assert await other.changed(5)
    await put(store, SCOPE, document("a", "one"))
    assert not await other.changed(0.05)


async def test_a_store_opened_again_holds_what_was_committed(open_store: Callable[[Path], Awaitable[Store]], tmp_path: Path) -> None:
    first = await open_store(tmp_path)
    await put(first, SCOPE, document("a", "one"))
    head, incarnation = await first.head(SCOPE), first.incarnation
    await first.close()
    second = await open_store(tmp_path)
    assert (await second.head(SCOPE), second.incarnation) == (head, incarnation)
    assert [chunk.text for chunk in await second.chunks(SCOPE, "a")] == ["one"]
    await second.close()


async def test_closing_waits_for_transactions_under_way_and_twice_is_harmless(store: Store, other: Store) -> None:
    begun = asyncio.Event()

    async def write() -> None:
        async with store.transaction() as transaction:
            begun.set()
            await asyncio.sleep(0.05)
            await transaction.put(SCOPE, [document("a")], model="m1", embedder=EMBEDDER)

    task = asyncio.create_task(write())
    await begun.wait()
    await store.close()
    await task
    await store.close()
    assert len(await other.documents(SCOPE)) == 1
    for use in (store.head(SCOPE), store.documents(SCOPE), store.changed(0), put(store, SCOPE, document("b"))):
        with pytest.raises(BackendError, match="closed"):
            await use
