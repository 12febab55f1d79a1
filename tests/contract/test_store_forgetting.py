"""What every store does when things are deleted, replaced by another model, or pruned; and what it knows of files."""

from __future__ import annotations

import numpy as np
import pytest

from ragline.errors import ConflictError, InputError, NotFoundError
from ragline.storage.base import DocumentWrite, FileState, Store
from ragline.types import Scope
from tests.store_documents import EMBEDDER, SCOPE, all_changes, delete, document, live_rows, passage_hash, put, vectors_of


async def test_delete_names_the_documents_that_were_there(store: Store) -> None:
    await put(store, SCOPE, document("a", "one"), document("b", "two"), document("c", "three"))
    assert await delete(store, SCOPE, "c", "nowhere", "a", "c") == ["c", "a"]
    assert await delete(store, SCOPE, "c") == []
    assert await delete(store, Scope("acme", "nowhere"), "b") == []
    assert [stored.id for stored in await store.documents(SCOPE)] == ["b"]
    assert (await store.head(SCOPE)).lsn == 2
    assert await store.text(SCOPE, "a") is None


async def test_a_deleted_documents_file_is_unknown_again(store: Store) -> None:
    await put(store, SCOPE, document("a", "one"), document("b", "two"))
    async with store.transaction() as transaction:
        await transaction.put_files(SCOPE, {"file:///a": FileState("1", "a"), "file:///b": FileState("1", "b")})
    await delete(store, SCOPE, "a")
    assert set(await store.files(SCOPE, ["file:///a", "file:///b"])) == {"file:///b"}


async def test_a_deleted_collection_is_gone_and_its_log_goes_on_if_it_is_made_again(store: Store) -> None:
    await put(store, SCOPE, document("a", "one", "two"))
    await put(store, SCOPE, document("b", "three"))
    async with store.transaction() as transaction:
        await transaction.put_files(SCOPE, {"file:///a": FileState("1", "a")})
    rows = await live_rows(store)
    before = await store.head(SCOPE)

    async with store.transaction() as transaction:
        assert await transaction.delete_scope(SCOPE)
    async with store.transaction() as transaction:
        assert not await transaction.delete_scope(SCOPE)
        assert not await transaction.delete_scope(Scope("acme", "nowhere"))

    after = await store.head(SCOPE)
    assert (after.lsn, after.oldest_lsn, after.model, after.embedder) == (before.lsn + 1, before.lsn + 1, "", {})
    assert await store.collections("acme") == []
    assert await store.heads() == {SCOPE: after}
    assert await store.files(SCOPE, ["file:///a"]) == {}
    assert await store.documents(SCOPE) == []
    assert await store.fetch(SCOPE, rows) == []
    with pytest.raises(ConflictError):
        await all_changes(store, before.lsn, after.lsn)
    assert [len(page.rows) for page in await all_changes(store, 0, after.lsn)] == [0]

    await put(store, SCOPE, document("a", "again"), model="m2")
    again = await store.head(SCOPE)
    assert (again.lsn, again.model) == (after.lsn + 1, "m2")
    assert min(await live_rows(store)) > max(rows)
    assert [info.name for info in await store.collections("acme")] == ["handbook"]


async def test_what_is_known_of_files_comes_back_and_moves_no_lsn(store: Store) -> None:
    states = {
        "file:///docs/a.md": FileState("10-1", "a"),
        "file:///docs/b_.pdf": FileState("20-2", None, "encrypted", "remove the password"),
        "file:///docs%/c.md": FileState("", "c"),
        "file:///docs": FileState("", None),
        "file:///docs/\U0010ffff": FileState("", None),
    }
    async with store.transaction() as transaction:
        await transaction.put_files(SCOPE, states)
    assert await store.files(SCOPE, [*states, "file:///nowhere"]) == states
    assert (await store.head(SCOPE)).lsn == 0
    assert await store.collections("acme") == []
    assert set(await store.files_under(SCOPE, "file:///docs/")) == {"file:///docs/a.md", "file:///docs/b_.pdf", "file:///docs/\U0010ffff"}
    assert set(await store.files_under(SCOPE, "file:///docs%")) == {"file:///docs%/c.md"}
    assert await store.files_under(SCOPE, "") == states

    async with store.transaction() as transaction:
        await transaction.put_files(SCOPE, {"file:///docs/a.md": FileState("11-3", None, "gone")})
    assert (await store.files(SCOPE, ["file:///docs/a.md"]))["file:///docs/a.md"] == FileState("11-3", None, "gone")


async def test_collections_are_those_of_the_tenant_with_their_sizes(store: Store) -> None:
    await put(store, SCOPE, document("a", "one", "two"), document("b", "three"))
    await put(store, Scope("acme", "Zoo"), document("a", "one"), model="m2")
    await put(store, Scope("rival", "handbook"), document("a", "one"))
    infos = await store.collections("acme")
    assert [(info.name, info.documents, info.chunks, info.lsn, info.model) for info in infos] == [
        ("Zoo", 1, 1, 1, "m2"),
        ("handbook", 2, 3, 1, "m1"),
    ]
    assert infos[1].embedder == EMBEDDER
    heads = await store.heads()
    assert set(heads) == {SCOPE, Scope("acme", "Zoo"), Scope("rival", "handbook")}
    assert len({head.scope_id for head in heads.values()}) == 3
    assert heads[SCOPE] == await store.head(SCOPE)


async def test_a_change_of_model_replaces_all_chunks_at_one_lsn(store: Store) -> None:
    await put(store, SCOPE, document("a", "one", "two", metadata={"k": 1}), document("b", "three"))
    old_rows = await live_rows(store)
    cut_anew = [document("b", "three"), document("a", "one\n\ntwo")]
    hashes = [key for written in cut_anew for key in written.passage_hashes]

    async def swap(documents: list[DocumentWrite], expected_lsn: int) -> bool:
        async with store.transaction() as transaction:
            await transaction.put_vectors("acme", "m2", hashes, vectors_of(hashes, "m2"))
            return await transaction.swap_model(SCOPE, documents, expected_lsn=expected_lsn, model="m2", embedder={"model": "two"})

    async with store.transaction() as transaction:
        with pytest.raises(NotFoundError, match="nowhere"):
            await transaction.swap_model(Scope("acme", "nowhere"), [], expected_lsn=0, model="m2", embedder={})
    assert not await swap(cut_anew, 0)
    with pytest.raises(InputError):
        await swap(cut_anew[:1], 1)
    assert (await store.head(SCOPE)).model == "m1"

    assert await swap(cut_anew, 1)
    head = await store.head(SCOPE)
    assert (head.lsn, head.model, head.embedder) == (2, "m2", {"model": "two"})
    stored = {found.id: found for found in await store.documents(SCOPE)}
    assert [(found.version, found.lsn) for found in stored.values()] == [(2, 2), (2, 2)]
    assert stored["a"].metadata == {"k": 1} and stored["a"].chunk_count == 1
    text = await store.text(SCOPE, "a")
    assert text is not None and text[0] == "one\n\ntwo"
    (page,) = await all_changes(store, 1, 2, model="m2")
    assert page.removed.tolist() == old_rows
    assert list(page.document_ids) == ["b", "a"]
    np.testing.assert_array_equal(page.vectors, vectors_of(hashes, "m2"))
    await store.prune(SCOPE, 2)
    assert await store.vectors("acme", "m1", [passage_hash("one")]) == {}
    assert await store.check() == []


async def test_pruning_drops_the_vectors_that_no_chunk_of_the_tenant_uses(store: Store) -> None:
    elsewhere = Scope("acme", "elsewhere")
    await put(store, SCOPE, document("a", "shared", "lone"))
    await put(store, elsewhere, document("a", "shared"))
    await put(store, Scope("rival", "handbook"), document("a", "of a rival"))
    async with store.transaction() as transaction:
        for tenant in ("acme", "rival"):
            await transaction.put_vectors(tenant, "m9", [b"9" * 16], vectors_of([b"9" * 16]))
    hashes = [passage_hash(passage) for passage in ("shared", "Heading\nlone")]
    assert set(await store.vectors("acme", "m1", hashes)) == set(hashes)

    await delete(store, SCOPE, "a")
    await store.prune(elsewhere, 0)
    assert set(await store.vectors("acme", "m1", hashes)) == {hashes[0]}
    assert await store.vectors("acme", "m9", [b"9" * 16]) == {}
    assert await store.vectors("rival", "m9", [b"9" * 16]) != {}

    await delete(store, elsewhere, "a")
    await store.prune(elsewhere, 0)
    assert await store.vectors("acme", "m1", hashes) == {}
    assert len(await store.vectors("rival", "m1", [passage_hash("of a rival")])) == 1


async def test_pruning_that_finds_nothing_wakes_nobody(store: Store, other: Store) -> None:
    await put(store, SCOPE, document("a", "one"))
    await put(store, SCOPE, document("a", "two"))
    await store.prune(SCOPE, 1)
    assert await other.changed(5)
    for before in (0, 1):
        await store.prune(SCOPE, before)
    await store.prune(Scope("acme", "nowhere"), 5)
    assert not await other.changed(0.05)
