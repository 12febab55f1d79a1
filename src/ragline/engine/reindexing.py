"""Another model or other chunk settings for a collection that goes on answering meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ragline.chunking.chunker import Chunker
from ragline.embedding.base import Embedder
from ragline.embedding.opening import followed
from ragline.engine.ingestion import EMBED_AT_ONCE
from ragline.engine.resources import Resources
from ragline.engine.versions import passage_hash
from ragline.errors import ConflictError, InputError, MissingVectorsError, NotFoundError
from ragline.settings import EmbeddingSettings
from ragline.storage.base import DocumentWrite, Head, StoredChunk, StoredDocument, Transaction
from ragline.types import Chunk, IngestProgress, ReindexReport, Scope

ATTEMPTS = 5
"""How often preparing is resumed because documents changed meanwhile; then nobody else writes while the rest is prepared."""


DOCUMENTS_AT_ONCE = 64
"""Documents cut and embedded together, and their vectors stored with one wait for the disk."""


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
            await self._switch_alone(embedder, progress)
        await self._resources.follower.rebuild(self._scope)
        await self._resources.follower.views(self._scope, wait_s=self._resources.settings.index.wait_s)
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
        if own is not None:
            if model not in (None, own.name):
                raise InputError(
                    f"this engine embeds with {own.name}, and could not search what {model} has embedded",
                    hint="open it with another embedder=, or without one, to switch the model",
                )
            return own
        if model is None and precision is None:
            return await self._resources.embedder_for(self._scope)
        wanted = self._resources.settings.embedding.model_dump(exclude_unset=True)
        wanted |= {key: value for key, value in (("model", model), ("precision", precision)) if value is not None}
        try:
            settings = EmbeddingSettings(**wanted)
        except ValueError as failure:
            raise InputError(
                f"{model!r} in {precision!r} cannot be a model and its precision", hint="see `ragline reindex --help`"
            ) from failure
        if model is None:
            settings = followed(settings, (await self._store.head(self._scope)).embedder)
        return await self._resources.open_embedder(settings)

    async def _prepare(
        self, embedder: Embedder, progress: Callable[[IngestProgress], None] | None, transaction: Transaction | None = None
    ) -> Head:
        """Cuts and embeds every document that was not prepared yet or has changed since; the head it saw."""
        head = await self._store.head(self._scope)
        chunking = self._resources.settings.chunking
        chunker = Chunker(
            embedder.tokenizer, max_tokens=min(chunking.max_tokens, embedder.max_tokens), overlap_tokens=chunking.overlap_tokens
        )
        documents = await self._store.documents(self._scope)
        for gone in self._prepared.keys() - {document.id for document in documents}:
            del self._prepared[gone]
        for start in range(0, len(documents), DOCUMENTS_AT_ONCE):
            batch = documents[start : start + DOCUMENTS_AT_ONCE]
            stale = [document for document in batch if not self._is_prepared(document)]
            await self._prepare_batch(stale, chunker, embedder, transaction, same_model=head.model == embedder.fingerprint)
            if progress is not None:
                seconds = time.perf_counter() - self._started
                current = batch[-1].source or batch[-1].id
                progress(IngestProgress(start + len(batch), len(documents), self._embedded, seconds, current))
        return head

    def _is_prepared(self, document: StoredDocument) -> bool:
        known = self._prepared.get(document.id)
        return known is not None and known.version == document.version

    async def _prepare_batch(
        self,
        documents: Sequence[StoredDocument],
        chunker: Chunker,
        embedder: Embedder,
        transaction: Transaction | None,
        *,
        same_model: bool,
    ) -> None:
        cut: list[tuple[StoredDocument, list[Chunk], list[bytes]]] = []
        for document in documents:
            stored = await self._store.text(self._scope, document.id)
            if stored is None:
                continue  # deleted meanwhile: the next round does not list it
            chunks = await self._resources.bulk_workers.run(chunker.chunk, *stored)
            cut.append((document, chunks, [passage_hash(chunk) for chunk in chunks]))
        await self._embed(
            embedder, {hash: chunk for _, chunks, hashes in cut for hash, chunk in zip(hashes, chunks, strict=True)}, transaction
        )
        for document, chunks, hashes in cut:
            changed = not same_model or _spans(await self._store.chunks(self._scope, document.id)) != _spans(chunks)
            kept = [replace(chunk, token_ids=None) for chunk in chunks]  # they are embedded: all documents are held until the switch
            write = DocumentWrite(document.id, "", document.content_hash, chunks=kept, passage_hashes=hashes)
            self._prepared[document.id] = Prepared(document.version, write, changed)

    async def _embed(self, embedder: Embedder, missing: dict[bytes, Chunk], transaction: Transaction | None) -> None:
        """Stores the vectors of passages as they come, so that a reindex cut short goes on where it was."""
        for hash in await self._store.vectors(self._scope.tenant, embedder.fingerprint, list(missing)):
            del missing[hash]
        hashes = list(missing)
        for start in range(0, len(hashes), EMBED_AT_ONCE):
            part = hashes[start : start + EMBED_AT_ONCE]
            vectors = (await embedder.embed_passages([missing[hash] for hash in part])).astype(np.float16)
            if transaction is not None:
                await transaction.put_vectors(self._scope.tenant, embedder.fingerprint, part, vectors)
            else:
                async with self._store.transaction() as own:
                    await own.put_vectors(self._scope.tenant, embedder.fingerprint, part, vectors)
            self._embedded += len(part)

    async def _switch(self, embedder: Embedder, head: Head) -> bool:
        """Switches where nothing has changed since `head`; whether it did, or need not."""
        if head.model == embedder.fingerprint and not any(document.changed for document in self._prepared.values()):
            return True
        try:
            async with self._store.transaction() as transaction:
                return await self._swap(transaction, embedder, head)
        except MissingVectorsError:
            self._prepared.clear()  # pruned meanwhile by another process: embed what is missing again
            return False

    async def _switch_alone(self, embedder: Embedder, progress: Callable[[IngestProgress], None] | None) -> None:
        """Prepares what is left and switches in one transaction: everyone else's writes wait."""
        async with self._store.transaction() as transaction:
            head = await self._prepare(embedder, progress, transaction)
            try:
                switched = await self._swap(transaction, embedder, head)
            except MissingVectorsError:
                self._prepared.clear()
                head = await self._prepare(embedder, progress, transaction)
                switched = await self._swap(transaction, embedder, head)
            if not switched:
                raise ConflictError("the collection changed while it was reindexed", hint="reindex it again")

    async def _swap(self, transaction: Transaction, embedder: Embedder, head: Head) -> bool:
        return await transaction.swap_model(
            self._scope,
            [document.write for document in self._prepared.values()],
            expected_lsn=head.lsn,
            model=embedder.fingerprint,
            embedder=embedder.description,
        )


def _spans(chunks: Sequence[Chunk | StoredChunk]) -> list[tuple[int, int, str, int | None]]:
    return [(chunk.start, chunk.end, chunk.heading, chunk.page) for chunk in chunks]
