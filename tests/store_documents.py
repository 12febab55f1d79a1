"""Documents with chunks and vectors for tests of stores: one chunk for each paragraph, a vector made from its hash."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ragline.storage.base import Changes, DocumentWrite, PutOutcome, Store
from ragline.types import Chunk, Float16, Layout, Scope

DIMENSION = 8
EMBEDDER = {"model": "test", "precision": "fp32"}
SCOPE = Scope("acme", "handbook")


def document(
    id: str, *paragraphs: str, metadata: Mapping[str, Any] | None = None, source: str | None = None, layout: Layout | None = None
) -> DocumentWrite:
    """A document version whose content hash covers paragraphs, source and metadata."""
    chunks, position = [], 0
    for number, paragraph in enumerate(paragraphs):
        chunks.append(Chunk(paragraph, position, position + len(paragraph), heading="Heading" if number % 2 else "", page=number + 1))
        position += len(paragraph) + 2
    return DocumentWrite(
        id=id,
        text="\n\n".join(paragraphs),
        content_hash=hashlib.blake2b(repr((paragraphs, source, metadata)).encode("utf-8", "surrogatepass")).digest(),
        source=source,
        metadata=metadata or {},
        layout=layout or Layout(),
        chunks=chunks,
        passage_hashes=[passage_hash(chunk.passage) for chunk in chunks],
    )


def passage_hash(passage: str) -> bytes:
    """The key of a passage's vector."""
    return hashlib.blake2b(passage.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def vectors_of(hashes: Sequence[bytes], model: str = "m1") -> Float16:
    """`(n, 8)` unit vectors, each a function of model and hash."""
    vectors = np.empty((len(hashes), DIMENSION), np.float16)
    for at, key in enumerate(hashes):
        seed = int.from_bytes(hashlib.blake2b(model.encode() + key, digest_size=8).digest(), "big")
        vector = np.random.default_rng(seed).standard_normal(DIMENSION)
        vectors[at] = vector / np.linalg.norm(vector)
    return vectors


async def put(store: Store, scope: Scope, *documents: DocumentWrite, model: str = "m1") -> Sequence[PutOutcome]:
    """Stores documents and the vectors of their chunks in one transaction."""
    hashes = [key for document in documents for key in document.passage_hashes]
    async with store.transaction() as transaction:
        await transaction.put_vectors(scope.tenant, model, hashes, vectors_of(hashes, model))
        return await transaction.put(scope, documents, model=model, embedder=EMBEDDER)


async def delete(store: Store, scope: Scope, *ids: str) -> Sequence[str]:
    """Deletes documents in a transaction of their own."""
    async with store.transaction() as transaction:
        return await transaction.delete(scope, ids)


async def all_changes(store: Store, after: int, upto: int, **options: Any) -> list[Changes]:
    """The feed of `SCOPE`, page by page."""
    return [page async for page in store.changes(SCOPE, after, upto, **options)]


async def live_rows(store: Store) -> list[int]:
    """Every live row of `SCOPE`, ascending."""
    return [int(row) for row in await store.rows(SCOPE, [stored.id for stored in await store.documents(SCOPE)])]
