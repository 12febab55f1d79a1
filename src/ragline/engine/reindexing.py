"""Another model or other chunk settings for a collection that goes on answering meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ragline.chunking.chunker import Chunker
from ragline.embedding.base import Embedder
from ragline.engine.ingestion import EMBED_AT_ONCE, passage_hash
from ragline.engine.resources import Resources
from ragline.errors import ConflictError, MissingVectorsError, NotFoundError
from ragline.settings import EmbeddingSettings
from ragline.storage.base import DocumentWrite, Head, StoredChunk, StoredDocument
from ragline.types import Chunk, IngestProgress, ReindexReport, Scope

ATTEMPTS = 20
"""How often preparing is resumed because documents changed meanwhile; each time only those are prepared."""


@dataclass(slots=True)
class Prepared:
    """A stored document cut for the new model."""

    version: int
    write: DocumentWrite
    changed: bool


class Reindexing:
    """One reindex of one collection."""

    def __init__(self, resources: Resources, scope: Scope) -> None:
        self._resources = resources
        self._store = resources.store
        self._scope = scope
        self._prepared: dict[str, Prepared] = {}
        self._embedded = 0
        self._started = time.perf_counter()

    async def run(self, *, model: str | None, precision: str | None, progress: Callable[[IngestProgress], None] | None) -> ReindexReport:
        """Prepares beside the old rows, switches at one LSN, rebuilds the views."""
        if not (await self._store.head(self._scope)).model:
            raise NotFoundError(
                f"there is no collection {self._scope.collection!r}", hint="`ragline collections list` shows those there are"
            )
        embedder = await self._target(model, precision)
        for _ in range(ATTEMPTS):
            head = await self._prepare(embedder, progress)
            if await self._switch(embedder, head):
                break
        else:
            raise ConflictError("the collection kept changing while it was reindexed", hint="reindex when fewer documents come in")
        await self._resources.follower.rebuild(self._scope)
        return ReindexReport(
            documents=len(self._prepared),
            chunks=sum(len(document.write.chunks) for document in self._prepared.values()),
            embedded=self._embedded,
            seconds=time.perf_counter() - self._started,
            model=embedder.name,
            lsn=(await self._store.head(self._scope)).lsn,
        )

    async def _target(self, model: str | None, precision: str | None) -> Embedder:
        """The embedder to switch to: the one named, else the engine's own, else the collection's."""
        own = self._resources.own_embedder
        if own is not None and model in (None, own.name):
            return own
        if model is None and precision is None:
            return await self._resources.embedder_for(self._scope)
        wanted = self._resources.settings.embedding.model_dump(exclude_unset=True)
        wanted |= {key: value for key, value in (("model", model), ("precision", precision)) if value is not None}
        head = await self._store.head(self._scope)
        if "model" not in wanted and head.model:
            wanted["model"] = head.embedder["model"]
        return await self._resources.open_embedder(EmbeddingSettings(**wanted))

    async def _prepare(self, embedder: Embedder, progress: Callable[[IngestProgress], None] | None) -> Head:
        """Cuts and embeds every document that was not prepared yet or has changed since; the head it saw."""
        head = await self._store.head(self._scope)
        chunking = self._resources.settings.chunking
        chunker = Chunker(
            embedder.tokenizer, max_tokens=min(chunking.max_tokens, embedder.max_tokens), overlap_tokens=chunking.overlap_tokens
        )
        documents = await self._store.documents(self._scope)
        for gone in self._prepared.keys() - {document.id for document in documents}:
            del self._prepared[gone]
        for done, document in enumerate(documents, start=1):
            known = self._prepared.get(document.id)
            if known is None or known.version != document.version:
                await self._prepare_document(document, chunker, embedder, same_model=head.model == embedder.fingerprint)
            if progress is not None:
                seconds = time.perf_counter() - self._started
                progress(IngestProgress(done, len(documents), self._embedded, seconds, document.source or document.id))
        return head

    async def _prepare_document(self, document: StoredDocument, chunker: Chunker, embedder: Embedder, *, same_model: bool) -> None:
        stored = await self._store.text(self._scope, document.id)
        if stored is None:
            return  # deleted meanwhile: the next round does not list it
        text, layout = stored
        chunks = await self._resources.bulk_workers.run(chunker.chunk, text, layout)
        hashes = [passage_hash(chunk) for chunk in chunks]
        await self._embed(embedder, dict(zip(hashes, chunks, strict=True)))
        changed = not same_model or _spans(await self._store.chunks(self._scope, document.id)) != _spans(chunks)
        write = DocumentWrite(document.id, "", document.content_hash, chunks=chunks, passage_hashes=hashes)
        self._prepared[document.id] = Prepared(document.version, write, changed)

    async def _embed(self, embedder: Embedder, missing: dict[bytes, Chunk]) -> None:
        """Stores the vectors of passages as they come, so that a reindex cut short goes on where it was."""
        for hash in await self._store.vectors(self._scope.tenant, embedder.fingerprint, list(missing)):
            del missing[hash]
        hashes = list(missing)
        for start in range(0, len(hashes), EMBED_AT_ONCE):
            part = hashes[start : start + EMBED_AT_ONCE]
            vectors = (await embedder.embed_passages([missing[hash] for hash in part])).astype(np.float16)
            async with self._store.transaction() as transaction:
                await transaction.put_vectors(self._scope.tenant, embedder.fingerprint, part, vectors)
            self._embedded += len(part)

    async def _switch(self, embedder: Embedder, head: Head) -> bool:
        if head.model == embedder.fingerprint and not any(document.changed for document in self._prepared.values()):
            return True
        try:
            async with self._store.transaction() as transaction:
                return await transaction.swap_model(
                    self._scope,
                    [document.write for document in self._prepared.values()],
                    expected_lsn=head.lsn,
                    model=embedder.fingerprint,
                    embedder=embedder.description,
                )
        except MissingVectorsError:
            self._prepared.clear()  # pruned meanwhile by another process: embed what is missing again
            return False


def _spans(chunks: Sequence[Chunk | StoredChunk]) -> list[tuple[int, int, str, int | None]]:
    return [(chunk.start, chunk.end, chunk.heading, chunk.page) for chunk in chunks]
