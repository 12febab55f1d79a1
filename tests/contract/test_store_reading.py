"""What every store answers, and the feed that views live on."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from ragline.concurrency.workers import Workers, drive
from ragline.errors import ConflictError
from ragline.storage.base import Span, Store
from ragline.types import Scope
from tests.store_documents import SCOPE, all_changes, delete, document, live_rows, passage_hash, put, vectors_of


async def test_fetch_gives_live_chunks_in_the_order_asked(store: Store) -> None:
    await put(store, SCOPE, document("a", "one", "two"), document("b", "three"))
    rows = await live_rows(store)
    await delete(store, SCOPE, "b")
    assert [chunk.text for chunk in await store.fetch(SCOPE, [rows[1], rows[2], rows[0], 999])] == ["two", "one"]
    assert [chunk.row for chunk in await store.fetch(SCOPE, rows)] == rows[:2]
    assert await store.fetch(SCOPE, []) == []


async def test_slices_are_of_the_version_named_in_the_order_asked(store: Store) -> None:
    await put(store, SCOPE, document("a", "öne", "twô 😀"), document("b", "three"))
    (a, b) = await store.documents(SCOPE)
    spans = [Span("a", a.version, 3, 9), Span("b", b.version, 0, 2), Span("a", a.version, 0, 3), Span("a", a.version, 4, 4)]
    assert await store.slices(SCOPE, spans) == ["\n\ntwô ", "th", "öne", ""]
    assert await store.slices(SCOPE, [Span("b", b.version, 2, 99)]) == ["ree"]
    strangers = [Span("a", a.version + 1, 0, 3), Span("nowhere", 1, 0, 3), Span("half \ud800", 1, 0, 3)]
    assert await store.slices(SCOPE, strangers) == [None] * 3
    assert await store.slices(Scope("rival", "handbook"), spans) == [None] * 4
    assert await store.slices(SCOPE, []) == []
    await put(store, SCOPE, document("a", "new"))
    await delete(store, SCOPE, "b")
    assert await store.slices(SCOPE, spans[:2]) == [None, None]


async def test_no_row_number_reaches_into_another_scope(store: Store) -> None:
    scopes = [Scope("acme", "one"), Scope("acme", "two"), Scope("rival", "one")]
    for scope in scopes:
        await put(store, scope, document("a", f"secret of {scope}"))
    wild = [0, -1, 1, 2, *(sign * (1 << bits) + step for bits in (31, 32, 40, 41, 62) for sign in (1, -1) for step in (-1, 0, 1))]
    for scope in scopes:
        assert [chunk.text for chunk in await store.fetch(scope, wild)] == [f"secret of {scope}"]
        assert [stored.id for stored in await store.documents(scope)] == ["a"]
    assert await store.fetch(Scope("rival", "two"), wild) == []


async def test_documents_are_paged_by_id_and_found_by_prefix_of_their_source(store: Store) -> None:
    written = [document(id, id, source=source) for id, source in (("B", "x/1"), ("a", "x/%"), ("é", "X/2"), ("c_", None), ("cc", "x/_y"))]
    await put(store, SCOPE, *written)

    async def ids(**options: Any) -> list[str]:
        return [stored.id for stored in await store.documents(SCOPE, **options)]

    assert await ids() == ["B", "a", "c_", "cc", "é"]
    assert await ids(limit=2) == ["B", "a"]
    assert await ids(limit=2, after_id="a") == ["c_", "cc"]
    assert await ids(limit=0) == []
    assert await ids(ids=["cc", "nowhere", "a", "cc"]) == ["a", "cc"]
    assert await ids(ids=["cc", "a"], after_id="a", limit=1) == ["cc"]
    assert await ids(ids=[]) == []
    assert await ids(source_prefix="x/") == ["B", "a", "cc"]
    assert await ids(source_prefix="x/%") == ["a"]
    assert await ids(source_prefix="x/_") == ["cc"]
    assert await ids(ids=["B", "é"], source_prefix="x") == ["B"]


async def test_rows_of_documents_are_those_of_their_chunks(store: Store) -> None:
    await put(store, SCOPE, document("a", "1", "2"), document("b", "3"), document("c", "4", "5"))
    for ids in (["a"], ["c", "a", "a"], ["b", "nowhere"], []):
        rows = await store.rows(SCOPE, ids)
        assert rows.dtype == np.int64
        chunks = [chunk.row for id in set(ids) for chunk in await store.chunks(SCOPE, id)]
        assert rows.tolist() == sorted(chunks)


async def test_a_coroutine_of_reads_never_suspends_on_a_worker_thread(store: Store, other: Store) -> None:
    async def look() -> list[Any]:
        head = await store.head(SCOPE)
        rows = [row async for page in store.changes(SCOPE, 0, head.lsn, page_rows=2, model=head.model) for row in page.rows]
        chunks = await store.fetch(SCOPE, rows)
        text = await store.text(SCOPE, "a")
        return [head.lsn, [chunk.text for chunk in chunks], text and text[0], len(await store.documents(SCOPE)), await store.changed(0)]

    workers = Workers("test", 2)
    try:
        assert await workers.run(lambda: drive(look())) == [0, [], None, 0, False]
        await put(other, SCOPE, document("a", "one", "two", "three"))
        assert await workers.run(lambda: drive(look())) == [1, ["one", "two", "three"], "one\n\ntwo\n\nthree", 1, True]
    finally:
        workers.close()


async def test_removals_come_with_the_first_page_and_rows_ascend_over_all_pages(store: Store) -> None:
    await put(store, SCOPE, document("a", *"abcdefg"), document("b", "x", "y"))
    old_rows = await live_rows(store)
    await put(store, SCOPE, document("a", *"hijklmno"))
    await delete(store, SCOPE, "b")

    pages = await all_changes(store, 1, 3, page_rows=3, model="m1", with_passages=True)
    assert [len(page.rows) for page in pages] == [3, 3, 2]
    assert pages[0].removed.tolist() == old_rows
    assert all(len(page.removed) == 0 for page in pages[1:])
    rows = np.concatenate([page.rows for page in pages])
    assert rows.dtype == np.int64 and rows.tolist() == await live_rows(store)
    passages = [passage for page in pages for passage in page.passages]
    assert passages == [f"Heading\n{letter}" if number % 2 else letter for number, letter in enumerate("hijklmno")]
    vectors = np.concatenate([page.vectors for page in pages])
    np.testing.assert_array_equal(vectors, vectors_of([passage_hash(passage) for passage in passages]))
    assert {id for page in pages for id in page.document_ids} == {"a"}


async def test_vectors_and_passages_come_only_when_asked_for(store: Store) -> None:
    await put(store, SCOPE, document("a", "one", metadata={"k": 1}))
    (page,) = await all_changes(store, 0, 1)
    assert page.vectors.shape == (0, 0) and page.vectors.dtype == np.float16
    assert not page.passages
    assert list(page.metadata) == [{"k": 1}]
    (empty,) = await all_changes(store, 1, 1, model="m1")
    assert (len(empty.rows), len(empty.vectors), len(empty.removed)) == (0, 0, 0)


async def test_the_feed_stops_at_the_lsn_asked_for(store: Store) -> None:
    for number in range(1, 8):
        await put(store, SCOPE, document(f"{number}", *(f"{number} {part}" for part in range(number))))
    for after in range(8):
        for upto in range(after, 8):
            pages = await all_changes(store, after, upto)
            assert [id for page in pages for id in page.document_ids] == [
                str(number) for number in range(after + 1, upto + 1) for _ in range(number)
            ]


class FollowedView:
    """A view that remembers what the feed told it: document id and passage of each row."""

    def __init__(self, store: Store, generator: random.Random) -> None:
        self.rows: dict[int, tuple[str, str]] = {}
        self._store = store
        self._generator = generator
        self._lsn = 0

    async def catch_up(self) -> None:
        head = await self._store.head(SCOPE)
        if 0 < self._lsn < head.oldest_lsn:
            self.rows.clear()
            self._lsn = 0
        page_rows = self._generator.choice((1, 2, 7, 100))
        for page in await all_changes(self._store, self._lsn, head.lsn, model="m1", with_passages=True, page_rows=page_rows):
            for row in page.removed.tolist():
                self.rows.pop(row, None)
            self.rows.update(zip(page.rows.tolist(), zip(page.document_ids, page.passages, strict=True), strict=True))
        self._lsn = head.lsn


async def change_something(store: Store, model: dict[str, tuple[str, ...]], generator: random.Random) -> None:
    names = generator.sample("abcdefghij", generator.randint(1, 3))
    chance = generator.random()
    if chance < 0.6:
        versions = {name: tuple(str(generator.random()) for _ in range(generator.randint(0, 4))) for name in names}
        await put(store, SCOPE, *(document(name, *texts) for name, texts in versions.items()))
        model.update(versions)
    elif chance < 0.9:
        assert set(await delete(store, SCOPE, *names)) == set(names) & model.keys()
        for name in names:
            model.pop(name, None)
    elif chance < 0.93:
        async with store.transaction() as transaction:
            await transaction.delete_scope(SCOPE)
        model.clear()
    else:
        await store.prune(SCOPE, generator.randint(0, (await store.head(SCOPE)).lsn))


@pytest.mark.parametrize("seed", [20, 21, 22])
async def test_views_that_follow_the_feed_equal_the_store_whatever_the_steps(store: Store, seed: int) -> None:
    generator = random.Random(seed)
    model: dict[str, tuple[str, ...]] = {}
    prompt, slow, slower = (FollowedView(store, generator) for _ in range(3))
    for _ in range(80):
        await change_something(store, model, generator)
        await prompt.catch_up()
        for view, chance in ((slow, 0.3), (slower, 0.1)):
            if generator.random() < chance:
                await view.catch_up()
        expected = [(name, text) for name, texts in model.items() for text in texts]
        assert sorted((name, text.removeprefix("Heading\n")) for name, text in prompt.rows.values()) == sorted(expected)
    await slow.catch_up()
    await slower.catch_up()
    assert prompt.rows == slow.rows == slower.rows
    assert sorted(prompt.rows) == await live_rows(store)
    assert await store.check() == []


async def test_a_view_from_before_the_oldest_lsn_is_told_to_rebuild(store: Store) -> None:
    for number in range(4):
        await put(store, SCOPE, document("a", str(number)))
    await store.prune(SCOPE, 2)
    assert (await store.head(SCOPE)).oldest_lsn == 2
    with pytest.raises(ConflictError, match="LSN 1"):
        await all_changes(store, 1, 4)
    (since,) = await all_changes(store, 2, 4)
    assert len(since.removed) == 2
    (rebuilt,) = await all_changes(store, 0, 4)
    assert rebuilt.rows.tolist() == await live_rows(store)
    await store.prune(SCOPE, 99)
    assert (await store.head(SCOPE)).oldest_lsn == 4


async def test_a_feed_without_the_vectors_of_the_model_asked_for_is_a_conflict(store: Store) -> None:
    written = document("a", "one", "two")
    await put(store, SCOPE, written)
    with pytest.raises(ConflictError, match="m2"):
        await all_changes(store, 0, 1, model="m2")
    async with store.transaction() as transaction:
        await transaction.put_vectors("acme", "m2", written.passage_hashes[:1], vectors_of(written.passage_hashes[:1], "m2"))
    with pytest.raises(ConflictError, match="m2"):
        await all_changes(store, 0, 1, model="m2")
    async with store.transaction() as transaction:
        await transaction.put_vectors("acme", "m2", written.passage_hashes, vectors_of(written.passage_hashes, "m2"))
    (page,) = await all_changes(store, 0, 1, model="m2")
    np.testing.assert_array_equal(page.vectors, vectors_of(written.passage_hashes, "m2"))


async def test_known_vectors_are_kept(store: Store) -> None:
    key = b"k" * 16
    first, second = vectors_of([key], "x"), vectors_of([key], "y")
    for vectors in (first, second):
        async with store.transaction() as transaction:
            await transaction.put_vectors("acme", "m1", [key], vectors)
    found = await store.vectors("acme", "m1", [key, b"\0" * 16, key])
    assert list(found) == [key]
    np.testing.assert_array_equal(found[key], first[0])
    assert await store.vectors("acme", "m1", []) == {}
