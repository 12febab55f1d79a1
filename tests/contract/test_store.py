"""What every store does with documents, whatever it is made of."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ragline.errors import InputError, MissingVectorsError, ModelMismatchError
from ragline.storage.base import DocumentWrite, FileState, Head, Store
from ragline.types import Chunk, Heading, Layout, Scope
from tests.store_documents import DIMENSION, EMBEDDER, SCOPE, all_changes, delete, document, live_rows, passage_hash, put, vectors_of


async def test_a_new_scope_has_an_empty_head(store: Store) -> None:
    assert await store.head(SCOPE) == Head()
    assert await store.documents(SCOPE) == []
    assert await store.fetch(SCOPE, [1, 2]) == []
    assert [len(page.rows) for page in await all_changes(store, 0, 0, model="m1")] == [0]


async def test_put_says_what_became_of_each_document_and_moves_the_lsn_only_for_changes(store: Store) -> None:
    assert await put(store, SCOPE, document("a", "one"), document("b", "two")) == ["added", "added"]
    head = await store.head(SCOPE)
    assert (head.lsn, head.model, head.embedder) == (1, "m1", EMBEDDER)

    assert await put(store, SCOPE, document("a", "one"), document("b", "two")) == ["unchanged", "unchanged"]
    assert await store.head(SCOPE) == head

    assert await put(store, SCOPE, document("a", "one"), document("b", "changed")) == ["unchanged", "replaced"]
    assert (await store.head(SCOPE)).lsn == 2
    stored = {found.id: found for found in await store.documents(SCOPE)}
    assert (stored["a"].version, stored["a"].lsn) == (1, 1)
    assert (stored["b"].version, stored["b"].lsn) == (2, 2)


async def test_text_layout_and_fields_come_back_as_they_were_given(store: Store) -> None:
    layout = Layout(headings=(Heading(0, 4, 1, "Übersicht"), Heading(7, 9, 2, "")), pages=(0, 12))
    metadata = {"lang": "de", "year": 2020, "rate": 0.5, "tags": ["a", None, True], "nested": {"x": -1}, "": "empty key"}
    written = document("kb/1 'ü' 🎉", "Schlüssel 🔑 tauschen.", "Ende.", metadata=metadata, source="https://kb/1", layout=layout)
    await put(store, SCOPE, written)

    assert await store.text(SCOPE, written.id) == (written.text, layout)
    (stored,) = await store.documents(SCOPE)
    assert (stored.id, stored.source, stored.metadata, stored.media_type) == (written.id, "https://kb/1", metadata, "text/plain")
    assert (stored.content_hash, stored.characters, stored.chunk_count) == (written.content_hash, len(written.text), 2)
    chunks = await store.chunks(SCOPE, written.id)
    assert (
        [chunk.text for chunk in chunks]
        == [written.text[chunk.start : chunk.end] for chunk in chunks]
        == ["Schlüssel 🔑 tauschen.", "Ende."]
    )
    assert [(chunk.ordinal, chunk.heading, chunk.page, chunk.document_version) for chunk in chunks] == [(0, "", 1, 1), (1, "Heading", 2, 1)]
    assert all((chunk.source, chunk.metadata, chunk.document_id) == ("https://kb/1", metadata, written.id) for chunk in chunks)


async def test_a_replaced_document_is_seen_in_its_new_version_only(store: Store) -> None:
    await put(store, SCOPE, document("a", "old one", "old two", "old three"))
    old_rows = await live_rows(store)
    await put(store, SCOPE, document("a", "new one", "new two"))

    assert [chunk.text for chunk in await store.chunks(SCOPE, "a")] == ["new one", "new two"]
    assert await store.fetch(SCOPE, old_rows) == []
    new_rows = await live_rows(store)
    assert min(new_rows) > max(old_rows)
    text = await store.text(SCOPE, "a")
    assert text is not None and text[0] == "new one\n\nnew two"


async def test_of_two_versions_of_a_document_in_one_call_the_last_stays(store: Store) -> None:
    outcomes = await put(store, SCOPE, document("a", "first"), document("b", "other"), document("a", "second"), document("a", "second"))
    assert outcomes == ["added", "added", "replaced", "unchanged"]
    assert [chunk.text for chunk in await store.chunks(SCOPE, "a")] == ["second"]
    assert len(await live_rows(store)) == 2
    assert (await store.documents(SCOPE, ids=["a"]))[0].version == 2


async def test_a_document_without_chunks_is_stored(store: Store) -> None:
    assert await put(store, SCOPE, document("empty"), document("full", "text")) == ["added", "added"]
    assert await store.chunks(SCOPE, "empty") == []
    assert await store.text(SCOPE, "empty") == ("", Layout())
    assert await delete(store, SCOPE, "empty") == ["empty"]


async def test_thousands_of_documents_are_put_and_deleted_in_one_call(store: Store) -> None:
    documents = [document(f"{number:05}", f"text {number}") for number in range(5000)]
    assert await put(store, SCOPE, *documents) == ["added"] * 5000
    assert len(await live_rows(store)) == 5000
    assert len(await delete(store, SCOPE, *(written.id for written in documents))) == 5000
    assert await store.documents(SCOPE) == []
    assert (await store.head(SCOPE)).lsn == 2


async def test_a_version_number_never_comes_to_mean_another_text(store: Store) -> None:
    await put(store, SCOPE, document("a", "one"))
    await put(store, SCOPE, document("a", "two"))
    await delete(store, SCOPE, "a")
    await put(store, SCOPE, document("a", "three"), document("fresh", "x"))
    assert (await store.documents(SCOPE, ids=["a"]))[0].version == 3

    async with store.transaction() as transaction:
        await transaction.delete_scope(SCOPE)
    await put(store, SCOPE, document("a", "four"))
    assert (await store.documents(SCOPE))[0].version == 4


async def test_another_model_than_the_scopes_is_refused(store: Store) -> None:
    await put(store, SCOPE, document("a", "one"))
    with pytest.raises(ModelMismatchError, match="m1"):
        await put(store, SCOPE, document("b", "two"), model="m2")
    assert [stored.id for stored in await store.documents(SCOPE)] == ["a"]
    await put(store, Scope("acme", "elsewhere"), document("b", "two"), model="m2")


async def test_a_transaction_goes_on_after_a_refused_call(store: Store) -> None:
    written = document("a", "one")
    async with store.transaction() as transaction:
        with pytest.raises(MissingVectorsError, match="'a'"):
            await transaction.put(SCOPE, [document("known"), written], model="m1", embedder=EMBEDDER)
        with pytest.raises(InputError):
            await transaction.put(SCOPE, [document("", "x")], model="m1", embedder=EMBEDDER)
        await transaction.put_vectors("acme", "m1", written.passage_hashes, vectors_of(written.passage_hashes))
        assert await transaction.put(SCOPE, [written], model="m1", embedder=EMBEDDER) == ["added"]
    assert [stored.id for stored in await store.documents(SCOPE)] == ["a"]
    assert (await store.head(SCOPE)).lsn == 1


async def test_vectors_of_another_tenant_or_model_do_not_count(store: Store) -> None:
    written = document("a", "one")
    for tenant, model in (("acme", "m2"), ("rival", "m1")):
        async with store.transaction() as transaction:
            await transaction.put_vectors(tenant, model, written.passage_hashes, vectors_of(written.passage_hashes))
    with pytest.raises(MissingVectorsError):
        async with store.transaction() as transaction:
            await transaction.put(SCOPE, [written], model="m1", embedder=EMBEDDER)
    assert await store.vectors("acme", "m1", written.passage_hashes) == {}
    (usage,) = (await store.vector_usage("rival")).items()
    assert usage == ("m1", (1, 2 * vectors_of(written.passage_hashes).shape[1])) and await store.vector_usage("nobody") == {}


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(float("nan"), id="nan"),
        pytest.param([1, {"deep": float("-inf")}], id="infinity"),
        pytest.param({1: "x"}, id="key"),
        pytest.param({"x"}, id="set"),
        pytest.param(b"x", id="bytes"),
        pytest.param(object(), id="object"),
        pytest.param("half \ud800", id="surrogate"),
        pytest.param([["nul \0"]], id="nul"),
        pytest.param(10**1000, id="huge"),
        pytest.param(np.int64(1), id="numpy"),
    ],
)
async def test_metadata_that_is_not_json_is_refused_by_its_key(store: Store, value: object) -> None:
    with pytest.raises(InputError, match="'colour'") as raised:
        await put(store, SCOPE, document("a", "one", metadata={"fine": 1, "colour": value}))
    assert raised.value.hint
    assert await store.documents(SCOPE) == []


async def test_metadata_nested_without_end_is_refused(store: Store) -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    written = DocumentWrite("a", "one", b"hash", metadata={"colour": value})
    with pytest.raises(InputError, match="'colour'"):
        await put(store, SCOPE, written)


@pytest.mark.parametrize("bad", ["nul \0", "half \ud800"], ids=["nul", "surrogate"])
async def test_characters_that_cannot_be_stored_are_refused_and_never_found(store: Store, bad: str) -> None:
    await put(store, SCOPE, document("nul ", "one", source="half "))
    for written in (
        document(bad, "one"),
        document("a", "one", source=bad),
        document("a", bad),
        document("a", "one", metadata={bad: 1}),
        document("a", "one", layout=Layout(headings=(Heading(0, 1, 1, bad),))),
    ):
        with pytest.raises(InputError) as raised:
            await put(store, SCOPE, written)
        assert raised.value.hint
    with pytest.raises(InputError):
        async with store.transaction() as transaction:
            await transaction.put_files(SCOPE, {bad: FileState("s", None)})

    assert await delete(store, SCOPE, bad) == []
    assert await store.documents(SCOPE, ids=[bad]) == []
    assert await store.documents(SCOPE, source_prefix=bad) == []
    assert await store.text(SCOPE, bad) is None
    assert await store.chunks(SCOPE, bad) == []
    assert len(await store.rows(SCOPE, [bad])) == 0
    assert await store.files(SCOPE, [bad]) == {}
    assert await store.files_under(SCOPE, bad) == {}
    assert len(await store.documents(SCOPE)) == 1


@pytest.mark.parametrize("span", [(1, 4), (-3, 3), (0, 99), (3, 0)])
async def test_a_chunk_that_does_not_stand_at_its_span_is_refused(store: Store, span: tuple[int, int]) -> None:
    text = "one two"
    chunk = Chunk("one", *span)
    written = DocumentWrite("a", text, b"hash", chunks=[chunk], passage_hashes=[passage_hash("one")])
    with pytest.raises(InputError, match="chunk 0"):
        await put(store, SCOPE, written)


async def test_vectors_that_do_not_fit_are_refused(store: Store) -> None:
    keys = [b"a" * 16, b"b" * 16]
    bad: list[Any] = [
        np.zeros((1, DIMENSION), np.float16),
        np.zeros((2, DIMENSION), np.float32),
        np.zeros(2, np.float16),
        np.full((2, DIMENSION), np.nan, np.float16),
    ]
    for vectors in bad:
        with pytest.raises(InputError):
            async with store.transaction() as transaction:
                await transaction.put_vectors("acme", "m1", keys, vectors)
    async with store.transaction() as transaction:
        await transaction.put_vectors("acme", "m1", keys, np.zeros((2, DIMENSION), np.float16))
        with pytest.raises(InputError, match="dimensions"):
            await transaction.put_vectors("acme", "m1", [b"c" * 16], np.zeros((1, DIMENSION + 1), np.float16))
