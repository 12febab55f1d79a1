"""From sources to committed documents: three stages, each at most one batch ahead of the next."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ragline.chunking.chunker import Chunker
from ragline.concurrency.workers import Workers
from ragline.embedding.base import Embedder
from ragline.engine.batches import BATCH_BYTES, Batch, Ledger, Met, next_sources, settled, shown_source, size_of
from ragline.engine.sources import Found, Source, Sources
from ragline.engine.versions import (
    Outcome,
    document_id,
    file_document_id,
    hash_file,
    new_version,
    page_version,
    passage_hash,
    text_version,
    upload_hash,
)
from ragline.errors import InputError, MissingVectorsError, ReadError
from ragline.reading.base import FoundFile
from ragline.reading.reader import FileReader
from ragline.reading.walk import is_gone
from ragline.reading.web.base import FoundPage, KnownPages, Page, PageState
from ragline.storage.base import DocumentWrite, FileState, Store, StoredDocument
from ragline.types import Document, FailedSource, IngestProgress, IngestReport, Scope, SkippedSource, Upload

if TYPE_CHECKING:  # the HTTP client is loaded for the first URL
    from ragline.engine.resources import Resources
    from ragline.reading.web.visit import Visit

EMBED_AT_ONCE = 512
"""Chunks embedded between two reports of progress."""

PAGES_AT_ONCE = 16
"""A batch of pages ends at this many: they come slowly, and what came is to be kept."""


class Ingestion:
    """One ingest into one scope. Make one for each; `run` it once.

    Args:
        visit: Opens the way to the web, when the first URL is met.
        follows: Whether a URL can lead to more pages than itself.
        exclude: Folders that are not entered: the store's own.
        retry_failed: Whether to read files and pages again that gave an error last time and have not changed.
        progress: Called on the event loop after each step; must be quick.
        ledger: Told what became of each source, also of those that failed or had not changed.
    """

    def __init__(
        self,
        scope: Scope,
        store: Store,
        embedder: Embedder,
        chunker: Chunker,
        reader: FileReader,
        workers: Workers,
        *,
        visit: Callable[[KnownPages], Visit],
        follows: bool,
        hidden: bool,
        max_file_bytes: int,
        exclude: Sequence[Path] = (),
        retry_failed: bool = True,
        progress: Callable[[IngestProgress], None] | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        self._ledger = ledger
        self._scope = scope
        self._store = store
        self._embedder = embedder
        self._chunker = chunker
        self._reader = reader
        self._workers = workers
        self._visit = visit
        self._follows = follows
        self._max_file_bytes = max_file_bytes
        self._retry_failed = retry_failed
        self._progress = progress
        self._sources = Sources(workers, hidden=hidden, exclude=exclude)
        self._skipped = self._sources.skipped
        self._failed = self._sources.failed
        self._outcomes = {"added": 0, "replaced": 0, "unchanged": 0}
        self._document_ids: list[str] = []
        self._chunks = 0
        self._embedded = 0
        self._done = 0
        self._started = time.perf_counter()
        self._met: set[str] = set()
        self._pruned = 0
        self._held = AsyncExitStack()
        self._web: Visit | None = None

    async def run(self, sources: Iterable[Source], *, prune: bool = False) -> IngestReport:
        """Ingests everything, in order; with `prune`, then deletes documents whose file is gone from a folder given.

        An error of the store ends it; what was committed before stays.
        """
        found = await self._sources.find(sources)
        read: asyncio.Queue[Batch | None] = asyncio.Queue(1)
        embedded: asyncio.Queue[Batch | None] = asyncio.Queue(1)
        try:
            async with self._held, asyncio.TaskGroup() as stages:
                stages.create_task(self._read_stage(found, read))
                stages.create_task(self._embed_stage(read, embedded))
                stages.create_task(self._commit_stage(embedded))
        except* Exception as failures:
            raise failures.exceptions[0] from None
        if prune:
            await self._prune()
        return IngestReport(
            **self._outcomes,
            skipped=tuple(self._skipped),
            failed=tuple(self._failed),
            chunks=self._chunks,
            seconds=time.perf_counter() - self._started,
            pruned=self._pruned,
            document_ids=tuple(dict.fromkeys(self._document_ids)),
        )

    async def _read_stage(self, found: Iterator[Found], out: asyncio.Queue[Batch | None]) -> None:
        while (sources := await self._workers.run(next_sources, found)) is not None:
            for of_web, group in itertools.groupby(sources, lambda source: isinstance(source, FoundPage)):
                if of_web:
                    await self._read_pages([source for source in group if isinstance(source, FoundPage)], out)
                else:
                    batch = Batch([source for source in group if not isinstance(source, FoundPage)])
                    await self._read(batch)
                    await out.put(batch)
        await out.put(None)

    async def _read_pages(self, found: Sequence[FoundPage], out: asyncio.Queue[Batch | None]) -> None:
        if self._web is None:
            self._web = await self._held.enter_async_context(self._visit(self._known_pages))
        pages: list[Page] = []
        async with aclosing(self._web.pages(found)) as met:
            async for entry in met:
                if isinstance(entry, SkippedSource):
                    self._skipped.append(entry)
                elif isinstance(entry, FailedSource):
                    self._failed.append(entry)
                    self._step(entry.source)
                else:
                    pages.append(entry)
                if len(pages) >= PAGES_AT_ONCE or sum(page.size for page in pages) >= BATCH_BYTES:
                    await self._read_page_batch(self._web, pages, out)
                    pages = []
        if pages:
            await self._read_page_batch(self._web, pages, out)

    async def _read_page_batch(self, web: Visit, pages: Sequence[Page], out: asyncio.Queue[Batch | None]) -> None:
        batch = Batch(list(pages))
        await self._read(batch)
        for page in pages:
            web.release(page)
        await out.put(batch)

    async def _known_pages(self, uris: Sequence[str]) -> Mapping[str, str]:
        """The signatures of pages whose document is still there, or whose failure is not to be tried again."""
        states = await self._store.files(self._scope, uris)
        ids = [state.document_id for state in states.values() if state.document_id is not None]
        there = {document.id for document in await self._store.documents(self._scope, ids=ids)} if ids else set()
        return {
            uri: state.signature
            for uri, state in states.items()
            if (state.document_id in there if state.document_id is not None else not self._retry_failed)
        }

    async def _read(self, batch: Batch) -> None:
        """Turns sources into chunked documents; those that have not changed are counted and left out."""
        uris = [source.uri for source in batch.sources if isinstance(source, FoundFile | Page)]
        states = await self._store.files(self._scope, uris) if uris else {}
        ids = await self._workers.run(lambda: [self._identity(source) for source in batch.sources])
        known = {document.id: document for document in await self._store.documents(self._scope, ids=ids)}
        before = [self._before(source, id, known) for source, id in zip(batch.sources, ids, strict=True)]
        results = await asyncio.gather(
            *(
                self._read_one(source, id, stored, states, batch.files)
                for source, id, stored in zip(batch.sources, ids, before, strict=True)
            )
        )
        fresh = [result for result in results if isinstance(result, DocumentWrite)]
        batch.writes = await self._workers.run(self._chunk, fresh)
        chunked = iter(batch.writes)
        batch.results = [next(chunked) if isinstance(result, DocumentWrite) else result for result in results]
        self._document_ids += [id for id, result in zip(ids, results, strict=True) if not isinstance(result, FailedSource)]

    def _before(self, source: Met, id: str, known: Mapping[str, StoredDocument]) -> StoredDocument | None:
        """The stored version that a source is compared with; none where an earlier source may replace it first: the store decides then."""
        is_first = id not in self._met
        self._met.add(id)
        return known.get(id) if is_first or isinstance(source, Page) else None  # a page's address is met once

    def _identity(self, source: Met) -> str:
        """The id of a source's document; "" where it cannot be read or is too large, which reading it will say."""
        try:
            too_large = isinstance(source, Upload) and source.path is not None and size_of(source.path) > self._max_file_bytes
            return "" if too_large and source.id is None else document_id(source)  # type: ignore[union-attr]
        except ReadError:
            return ""

    async def _read_one(
        self,
        source: Met,
        id: str,
        known: StoredDocument | None,
        states: Mapping[str, FileState],
        files: dict[str, FileState],
    ) -> Outcome | FailedSource:
        """A document to write, the stored one where nothing changed, or why there is no text."""
        try:
            if isinstance(source, Document):
                result = await self._workers.run(text_version, source, id, known)
            elif isinstance(source, Upload):
                result = await self._read_upload(source, id, known)
            else:
                state = states.get(source.uri)
                read = self._read_page if isinstance(source, Page) else self._read_file
                result = await read(source, id, known, state)  # type: ignore[arg-type]
                if state != FileState(source.signature, id):
                    files[source.uri] = FileState(source.signature, id)
            if not isinstance(source, Document):
                # Members of an archive and attachments of a mail that give no text do not keep the rest from being read.
                unread = result.metadata.get("unread", ())
                self._skipped += [SkippedSource(shown_source(source), str(member)) for member in unread]
        except (ReadError, InputError) as failure:
            failed = FailedSource(shown_source(source) or id, failure.message, failure.hint)
            self._failed.append(failed)
            if isinstance(source, FoundFile | Page):
                files[source.uri] = FileState(source.signature, None, failure.message, failure.hint)
            self._step(failed.source)
            return failed
        if isinstance(result, StoredDocument):
            self._outcomes["unchanged"] += 1
            self._step(result.source or id)
        return result

    async def _read_file(self, file: FoundFile, id: str, known: StoredDocument | None, state: FileState | None) -> Outcome:
        if state is not None and state.signature == file.signature:
            if state.document_id == id and known is not None:
                return known
            if state.document_id is None and not self._retry_failed:
                raise ReadError(state.error, hint=state.hint)
        if not 0 < size_of(file.path) <= self._max_file_bytes:
            await self._reader.read(file.path)  # says what is wrong with it; hashing it could take for ever
        content_hash = await self._workers.run(hash_file, file)
        if known is not None and known.content_hash == content_hash:
            return known
        return await self._workers.run(new_version, id, await self._reader.read(file.path), content_hash, file.source, {})

    async def _read_upload(self, upload: Upload, id: str, known: StoredDocument | None) -> Outcome:
        name, path = upload.shown_name, str(upload.path)
        if upload.path is not None and not 0 < size_of(path) <= self._max_file_bytes:
            await self._reader.read(path)  # as for a file
        content_hash = await self._workers.run(upload_hash, upload, id)
        if known is not None and known.content_hash == content_hash:
            return known
        read = await (self._reader.read(path) if upload.content is None else self._reader.read_content(upload.content, name))
        return await self._workers.run(new_version, id, read, content_hash, upload.source or name, dict(upload.metadata))

    async def _read_page(self, page: Page, id: str, known: StoredDocument | None, state: FileState | None) -> Outcome:
        before = PageState.from_text(state.signature) if state is not None else None
        if state is not None and before is not None and before.digest == page.state.digest:
            if state.document_id == id and known is not None and before.url == page.state.url:
                return known
            if state.document_id is None and not self._retry_failed:
                raise ReadError(state.error, hint=state.hint)
        if page.path is None:
            raise ReadError("its document was deleted while the server was asked whether it has changed", hint="ingest it again")
        return await self._workers.run(page_version, page, id, known, await self._reader.read(page.path))

    def _chunk(self, writes: Sequence[DocumentWrite]) -> list[DocumentWrite]:
        chunked = []
        for write in writes:
            chunks = self._chunker.chunk(write.text, write.layout)
            hashes = [passage_hash(chunk) for chunk in chunks]
            chunked.append(replace(write, chunks=chunks, passage_hashes=hashes))
        return chunked

    async def _embed_stage(self, read: asyncio.Queue[Batch | None], out: asyncio.Queue[Batch | None]) -> None:
        while (batch := await read.get()) is not None:
            await self._embed(batch, afresh=False)
            await out.put(batch)
        await out.put(None)

    async def _embed(self, batch: Batch, *, afresh: bool) -> None:
        """Embeds the passages that the store holds no vector of (or all, `afresh`)."""
        missing = {hash: chunk for write in batch.writes for hash, chunk in zip(write.passage_hashes, write.chunks, strict=True)}
        if missing and not afresh:
            for hash in await self._store.vectors(self._scope.tenant, self._embedder.fingerprint, list(missing)):
                del missing[hash]
        chunks = list(missing.values())
        parts = [np.empty((0, self._embedder.dimension), np.float16)]
        for start in range(0, len(chunks), EMBED_AT_ONCE):
            part = chunks[start : start + EMBED_AT_ONCE]
            parts.append((await self._embedder.embed_passages(part)).astype(np.float16))
            self._embedded += len(part)
            self._report_progress()
        batch.hashes, batch.vectors = list(missing), np.concatenate(parts)

    async def _commit_stage(self, embedded: asyncio.Queue[Batch | None]) -> None:
        while (batch := await embedded.get()) is not None:
            try:
                await self._commit(batch)
            except MissingVectorsError:
                # Another process pruned a vector between our look and our commit: bring them all.
                await self._embed(batch, afresh=True)
                await self._commit(batch)

    async def _commit(self, batch: Batch) -> None:
        if not batch.writes and not batch.files and self._ledger is None:
            return
        async with self._store.transaction() as transaction:
            wanted = list(zip(batch.sources, batch.results, strict=True))
            if self._ledger is not None:
                still = await self._ledger.wanted(transaction, batch.sources)
                wanted = [each for each, is_wanted in zip(wanted, still, strict=True) if is_wanted]
            writes = [result for _, result in wanted if isinstance(result, DocumentWrite)]
            if batch.hashes:
                await transaction.put_vectors(self._scope.tenant, self._embedder.fingerprint, batch.hashes, batch.vectors)
            outcomes = await transaction.put(self._scope, writes, model=self._embedder.fingerprint, embedder=self._embedder.description)
            if batch.files:
                await transaction.put_files(self._scope, batch.files)
            if self._ledger is not None:
                await self._ledger.settle(transaction, settled(wanted, outcomes))
        for write, outcome in zip(writes, outcomes, strict=True):
            self._outcomes[outcome] += 1
            if outcome != "unchanged":
                self._chunks += len(write.chunks)
            self._step(write.source or write.id)

    async def _prune(self) -> None:
        """Deletes what was read from files that are gone, also where the file gave an error last."""
        missed = {
            uri: state.document_id or file_document_id(uri)
            for folder in self._sources.folders
            for uri, state in (await self._store.files_under(self._scope, folder + "/")).items()
            if uri not in self._sources.uris
        }
        # What was not met can be there all the same: hidden, of a type that only is read when it is named, behind a folder
        # that cannot be read now.
        gone = await self._workers.run(lambda: sorted(id for uri, id in missed.items() if is_gone(uri)))
        if gone:
            async with self._store.transaction() as transaction:
                self._pruned = len(await transaction.delete(self._scope, gone))

    def _total(self) -> int | None:
        """How many sources there are; None while a site may still have more."""
        return None if self._web is not None and self._follows else self._sources.total

    def _step(self, current: str) -> None:
        self._done += 1
        self._report_progress(current)

    def _report_progress(self, current: str = "") -> None:
        if self._progress is not None:
            seconds = time.perf_counter() - self._started
            self._progress(IngestProgress(self._done, self._total(), max(self._embedded, self._chunks), seconds, current))


async def new_ingestion(
    resources: Resources,
    scope: Scope,
    *,
    retry_failed: bool = True,
    progress: Callable[[IngestProgress], None] | None = None,
    ledger: Ledger | None = None,
) -> Ingestion:
    """An ingest into one scope, with what the engine holds and by its settings."""
    embedder = await resources.embedder_for(scope)
    chunking, data_dir = resources.settings.chunking, resources.settings.data_dir
    return Ingestion(
        scope,
        resources.store,
        embedder,
        Chunker(embedder.tokenizer, max_tokens=min(chunking.max_tokens, embedder.max_tokens), overlap_tokens=chunking.overlap_tokens),
        resources.reader,
        resources.bulk_workers,
        visit=resources.visit_web,
        follows=resources.settings.web.depth > 0 or resources.settings.web.sitemap,
        hidden=resources.settings.reading.hidden,
        max_file_bytes=resources.settings.reading.max_file_bytes,
        exclude=[data_dir, data_dir / "views", data_dir / "uploads"],  # what stands in it also where documents stand beside it
        retry_failed=retry_failed,
        progress=progress,
        ledger=ledger,
    )
