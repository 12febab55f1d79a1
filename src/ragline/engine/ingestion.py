"""From sources to committed documents: three stages, each at most one batch ahead of the next."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ragline.chunking.chunker import Chunker
from ragline.concurrency.workers import Workers
from ragline.embedding.base import Embedder
from ragline.errors import InputError, MissingVectorsError, ReadError
from ragline.reading.base import FoundFile, ReadText
from ragline.reading.documents import read_text
from ragline.reading.reader import FileReader
from ragline.reading.walk import find_files
from ragline.storage.base import DocumentWrite, FileState, Store, StoredDocument
from ragline.storage.encoding import check_document, metadata_to_json
from ragline.types import Chunk, Document, FailedSource, Float16, IngestProgress, IngestReport, Scope, SkippedSource

BATCH_SOURCES = 64
BATCH_BYTES = 4 * 1024**2
"""A batch ends at either bound: it is read, embedded and committed together, so it bounds memory and commit time."""

EMBED_AT_ONCE = 512
"""Chunks embedded between two reports of progress."""

Source = str | Path | Document
Outcome = DocumentWrite | StoredDocument
"""A version to write, or the stored one where nothing changed."""


@dataclass(slots=True)
class Batch:
    """Sources on their way: found, then read and chunked, then embedded."""

    sources: list[FoundFile | Document] = field(default_factory=list)
    writes: list[DocumentWrite] = field(default_factory=list)
    files: dict[str, FileState] = field(default_factory=dict)
    hashes: list[bytes] = field(default_factory=list)
    vectors: Float16 = field(default_factory=lambda: np.empty((0, 0), np.float16))


class Ingestion:
    """One ingest into one scope. Make one for each; `run` it once.

    Args:
        exclude: Folders that are not entered: the store's own.
        retry_failed: Whether to read files again that gave an error last time and have not changed.
        progress: Called on the event loop after each step; must be quick.
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
        hidden: bool,
        max_file_bytes: int,
        exclude: Sequence[Path] = (),
        retry_failed: bool = True,
        progress: Callable[[IngestProgress], None] | None = None,
    ) -> None:
        self._scope = scope
        self._store = store
        self._embedder = embedder
        self._chunker = chunker
        self._reader = reader
        self._workers = workers
        self._hidden = hidden
        self._max_file_bytes = max_file_bytes
        self._exclude = exclude
        self._retry_failed = retry_failed
        self._progress = progress
        self._outcomes = {"added": 0, "replaced": 0, "unchanged": 0}
        self._skipped: list[SkippedSource] = []
        self._failed: list[FailedSource] = []
        self._document_ids: list[str] = []
        self._chunks = 0
        self._embedded = 0
        self._done = 0
        self._total: int | None = None
        self._started = time.perf_counter()
        self._pruned = 0
        self._found_uris: set[str] = set()
        self._folders: set[str] = set()

    async def run(self, sources: Iterable[Source], *, prune: bool = False) -> IngestReport:
        """Ingests everything, in order; with `prune`, then deletes documents whose file is gone from a folder given.

        An error of the store ends it; what was committed before stays.
        """
        found = await self._find(sources)
        read: asyncio.Queue[Batch | None] = asyncio.Queue(1)
        embedded: asyncio.Queue[Batch | None] = asyncio.Queue(1)
        try:
            async with asyncio.TaskGroup() as stages:
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

    async def _find(self, sources: Iterable[Source]) -> Iterator[FoundFile | Document]:
        """Looks paths up first, so that progress knows its end; documents come as their iterable gives them."""
        try:
            sources = iter(sources)
        except TypeError as failure:
            raise _not_a_source(sources) from failure
        paths: list[str | Path] = []
        rest: Iterator[Source] = iter(())
        for source in sources:
            if not isinstance(source, str | Path):
                rest = itertools.chain([source], sources)
                break
            paths.append(source)
        files = await self._workers.run(self._walk, paths)
        if paths and not isinstance(rest, itertools.chain):
            self._total = len(files)
        return itertools.chain(files, self._mixed(rest))

    def _mixed(self, sources: Iterator[Source]) -> Iterator[FoundFile | Document]:
        for source in sources:
            if isinstance(source, Document):
                yield source
            elif isinstance(source, str | Path):
                yield from self._walk([source])
            else:
                raise _not_a_source(source)

    def _walk(self, paths: Sequence[str | Path]) -> list[FoundFile]:
        files = []
        self._folders.update(Path(os.path.realpath(path)).as_uri() for path in paths if os.path.isdir(path))
        for entry in find_files(paths, hidden=self._hidden, exclude=self._exclude):
            if isinstance(entry, FoundFile):
                if entry.uri not in self._found_uris:
                    self._found_uris.add(entry.uri)
                    files.append(entry)
            elif isinstance(entry, SkippedSource):
                self._skipped.append(entry)
            else:
                self._failed.append(entry)
        return files

    async def _read_stage(self, found: Iterator[FoundFile | Document], out: asyncio.Queue[Batch | None]) -> None:
        while (batch := await self._workers.run(_next_batch, found)) is not None:
            await self._read(batch)
            await out.put(batch)
        await out.put(None)

    async def _read(self, batch: Batch) -> None:
        """Turns sources into chunked documents; those that have not changed are counted and left out."""
        files = [source for source in batch.sources if isinstance(source, FoundFile)]
        states = await self._store.files(self._scope, [file.uri for file in files]) if files else {}
        ids = [_document_id(source) for source in batch.sources]
        known = {document.id: document for document in await self._store.documents(self._scope, ids=ids)}
        results = await asyncio.gather(
            *(self._read_one(source, id, known.get(id), states, batch.files) for source, id in zip(batch.sources, ids, strict=True))
        )
        fresh = [result for result in results if isinstance(result, DocumentWrite)]
        batch.writes = await self._workers.run(self._chunk, fresh)
        self._document_ids += [id for id, result in zip(ids, results, strict=True) if result is not None]

    async def _read_one(
        self,
        source: FoundFile | Document,
        id: str,
        known: StoredDocument | None,
        states: Mapping[str, FileState],
        files: dict[str, FileState],
    ) -> Outcome | None:
        """A document to write, the stored one where nothing changed, or None where there is no text."""
        try:
            if isinstance(source, Document):
                result = await self._workers.run(_prepare_document, source, id, known)
            else:
                result = await self._read_file(source, id, known, states.get(source.uri))
                if source.uri not in states or states[source.uri] != FileState(source.signature, id):
                    files[source.uri] = FileState(source.signature, id)
        except (ReadError, InputError) as failure:
            name = source.source if isinstance(source, FoundFile) else source.source or source.id or "text"
            self._failed.append(FailedSource(name or id, failure.message, failure.hint))
            if isinstance(source, FoundFile):
                files[source.uri] = FileState(source.signature, None, failure.message, failure.hint)
            self._step(name or id)
            return None
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
        if not 0 < _size(file.path) <= self._max_file_bytes:
            await self._reader.read(file.path)  # says what is wrong with it; hashing it could take for ever
        content_hash = await self._workers.run(_hash_file, file)
        if known is not None and known.content_hash == content_hash:
            return known
        return await self._workers.run(_document_write, id, await self._reader.read(file.path), content_hash, file.source, {})

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
        if not batch.writes and not batch.files:
            return
        async with self._store.transaction() as transaction:
            if batch.hashes:
                await transaction.put_vectors(self._scope.tenant, self._embedder.fingerprint, batch.hashes, batch.vectors)
            outcomes = await transaction.put(
                self._scope, batch.writes, model=self._embedder.fingerprint, embedder=self._embedder.description
            )
            if batch.files:
                await transaction.put_files(self._scope, batch.files)
        for write, outcome in zip(batch.writes, outcomes, strict=True):
            self._outcomes[outcome] += 1
            if outcome != "unchanged":
                self._chunks += len(write.chunks)
            self._step(write.source or write.id)

    async def _prune(self) -> None:
        gone = {
            state.document_id
            for folder in self._folders
            for uri, state in (await self._store.files_under(self._scope, folder + "/")).items()
            if state.document_id is not None and uri not in self._found_uris
        }
        if gone:
            async with self._store.transaction() as transaction:
                self._pruned = len(await transaction.delete(self._scope, sorted(gone)))

    def _step(self, current: str) -> None:
        self._done += 1
        self._report_progress(current)

    def _report_progress(self, current: str = "") -> None:
        if self._progress is not None:
            seconds = time.perf_counter() - self._started
            self._progress(IngestProgress(self._done, self._total, max(self._embedded, self._chunks), seconds, current))


def passage_hash(chunk: Chunk) -> bytes:
    """The key of a passage's vector: 16 bytes of BLAKE2b of what is embedded."""
    return hashlib.blake2b(chunk.passage.encode("utf-8"), digest_size=16).digest()


def file_document_id(uri: str) -> str:
    """The identity of a file's or page's document: a hash of its absolute URI."""
    return hashlib.blake2b(uri.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def _document_id(source: FoundFile | Document) -> str:
    if isinstance(source, FoundFile):
        return file_document_id(source.uri)
    if source.id is not None:
        return source.id
    return hashlib.blake2b(source.text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _next_batch(found: Iterator[FoundFile | Document]) -> Batch | None:
    batch, size = Batch(), 0
    for source in found:
        batch.sources.append(source)
        size += len(source.text) if isinstance(source, Document) else _size(source.path)
        if len(batch.sources) >= BATCH_SOURCES or size >= BATCH_BYTES:
            break
    return batch if batch.sources else None


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:
        return 0  # reading it will say what is wrong


def _hash_file(file: FoundFile) -> bytes:
    try:
        with open(file.path, "rb") as content:
            return hashlib.file_digest(content, lambda: hashlib.blake2b(b"file", digest_size=16)).digest()
    except OSError as failure:
        raise ReadError(
            f"it cannot be read: {failure.strerror or failure}", hint="check that it exists and that you may read it"
        ) from failure


def _prepare_document(document: Document, id: str, known: StoredDocument | None) -> Outcome:
    metadata_to_json(id, document.metadata)  # refuses what is not JSON
    metadata = json.dumps(dict(document.metadata), sort_keys=True, ensure_ascii=False)
    digest = hashlib.blake2b(b"text", digest_size=16)
    for part in (document.text, document.source or "", metadata):
        content = part.encode("utf-8", "surrogatepass")
        digest.update(len(content).to_bytes(8, "big") + content)
    if known is not None and known.content_hash == digest.digest():
        return known
    return _document_write(id, read_text(document.text, document.source), digest.digest(), document.source, dict(document.metadata))


def _document_write(id: str, read: ReadText, content_hash: bytes, source: str | None, metadata: dict[str, object]) -> DocumentWrite:
    """The document to write; what the store would refuse is refused here, where it does not take others with it."""
    write = DocumentWrite(id, read.text, content_hash, source, {**read.metadata, **metadata}, read.layout, read.media_type)
    check_document(write)
    metadata_to_json(id, write.metadata)
    return write


def _not_a_source(value: object) -> InputError:
    return InputError(f"{type(value).__name__} cannot be ingested", hint="give paths, or ragline.Document(text=...)")
