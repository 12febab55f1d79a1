"""What an engine holds open: the store, its views, models, threads and parser processes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING

from ragline.caching.base import Cache
from ragline.caching.memory import MemoryCache
from ragline.concurrency.circuit import Circuit
from ragline.concurrency.workers import Workers
from ragline.embedding.base import Embedder
from ragline.embedding.batch_embedder import BatchEmbedder
from ragline.embedding.description import in_words, mismatch
from ragline.embedding.guarded import GuardedEmbedder
from ragline.embedding.opening import followed, open_embedder
from ragline.engine.versions import passage_hash
from ragline.errors import (
    BackendError,
    DeadlineError,
    InputError,
    MissingExtraError,
    ModelMismatchError,
    NotFoundError,
    OverloadedError,
    SettingsError,
)
from ragline.generation.base import Generator
from ragline.generation.extractive import ExtractiveGenerator
from ragline.generation.passages import KeptPieces, TakesApart, take_apart
from ragline.index.follower import Follower
from ragline.index.simd import lower_simd_level
from ragline.jobs.runner import JobRunner
from ragline.jobs.uploads import Uploads
from ragline.observe.performance import PerformanceMonitor
from ragline.reading.parsing.formats import safe_suffixes
from ragline.reading.reader import FileReader
from ragline.reading.web.base import KnownPages
from ragline.retrieval.reranking.base import Reranker
from ragline.settings import EmbeddingSettings, Settings
from ragline.storage.base import Head, Store
from ragline.storage.sqlite import SqliteStore
from ragline.types import Chunk, Float16, Scope

if TYPE_CHECKING:
    from ragline.generation.chat import ChatGenerator
    from ragline.reading.web.visit import Visit

CIRCUIT_FAILURES = 5
CIRCUIT_REST_S = 10.0
"""After so many failed calls in a row a server is left alone for so long at a time, until a trial succeeds."""

_in_use: ContextVar[object | None] = ContextVar("ragline_in_use", default=None)
"""The resources that the call is already under way with."""

INGEST_NICENESS = 10
"""Ingest and indexing threads give way to questions by this much, where the system can."""


_UPLOAD_THREADS = 4
"""They wait for the disk most of the time."""


class Resources:
    """Opened once, shared by an engine and the tenants' engines made from it.

    Attributes:
        monitor: What was measured of the requests.
        responses: What language models wrote, by tenant and whole prompt; None where nothing is kept.
        vectors: Of what was embedded before, by tenant, model and text; None where nothing is kept.
        pieces: Of chunks taken apart for quoting, by tenant; none where nothing is kept.
        question_workers: One thread a core; a local search is one job on one of them.
        bulk_workers: Low priority, for chunking, hashing and embedding while ingesting.
        job_runner: Works on accepted uploads, once it was started; stopped before all else.
    """

    store: Store
    follower: Follower
    question_workers: Workers
    bulk_workers: Workers
    reader: FileReader
    uploads: Uploads

    def __init__(
        self, settings: Settings, announce: Callable[[str], None], embedder: Embedder | None = None, generator: Generator | None = None
    ) -> None:
        self.settings = settings
        self._announce = announce
        self.own_embedder = embedder
        self.own_generator = generator
        self.job_runner: JobRunner | None = None
        self._held: AsyncExitStack | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing = False
        self._closed = asyncio.Event()
        self._users = 0
        self._unused = asyncio.Event()
        self._embedders: dict[str, BatchEmbedder] = {}
        self._matched: dict[str, BatchEmbedder] = {}
        self._own: BatchEmbedder | None = None
        self._generators: dict[str, ChatGenerator] = {}
        self._reranker: Reranker | None = None
        self._circuits: dict[str, Circuit] = {}
        self._opening = asyncio.Lock()
        cache = settings.cache
        self.vectors: MemoryCache[bytes] | None = None
        self.responses: MemoryCache[str] | None = None
        if cache.enabled:
            self.vectors = MemoryCache(cache.items, max_bytes=cache.max_bytes, size_of=len)
            self.responses = MemoryCache(cache.items, max_bytes=cache.max_bytes, size_of=lambda text: 4 * len(text))
        self.pieces = KeptPieces(cache.items, max_bytes=cache.max_bytes)
        told = settings.monitoring
        self.monitor = PerformanceMonitor(enabled=told.enabled, track_latency=told.track_latency, track_memory=told.track_memory)

    async def open(self) -> None:
        """Opens store and views; models and parsers follow when first needed. Twice is harmless."""
        if self._held is not None:
            return
        data_dir = self.settings.data_dir
        try:
            data_dir = data_dir.absolute()  # it stays where it is when the program changes its working folder
            data_dir.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as failure:
            reason = failure.strerror if isinstance(failure, OSError) and failure.strerror else failure
            raise BackendError(
                f"the data folder {data_dir} cannot be made: {reason}",
                hint="choose a folder that can be written, on a disk with room, with --data-dir or RAGLINE_DATA_DIR",
            ) from failure
        self.settings = self.settings.model_copy(update={"data_dir": data_dir})
        cores = _cores()
        async with AsyncExitStack() as held:
            self.question_workers = Workers("ragline-question", cores)
            held.callback(self.question_workers.close)
            self.bulk_workers = Workers("ragline-bulk", self.settings.embedding.threads or cores, nice=INGEST_NICENESS)
            held.callback(self.bulk_workers.close)
            index_workers = Workers("ragline-index", 1, nice=INGEST_NICENESS)
            held.callback(index_workers.close)
            self.store = await SqliteStore.open(data_dir, busy_timeout_s=self.settings.storage.busy_timeout_s)
            held.push_async_callback(self.store.close)
            self.reader = FileReader(self.settings.reading)
            held.push_async_callback(self.reader.close)
            if self.settings.index.simd == "lower":
                lower_simd_level()
            self.follower = Follower(self.store, data_dir / "views", self.settings.index, index_workers)
            await self.follower.start()
            held.push_async_callback(self.follower.close)
            if self.settings.monitoring.report_interval_s is not None:
                await held.enter_async_context(self.monitor.reporting(self.settings.monitoring.report_interval_s))
            if self.own_embedder is not None:
                self._own = self._shared(self.own_embedder)
            # Threads of their own: who uploads does not wait for what is being embedded.
            upload_workers = Workers("ragline-upload", _UPLOAD_THREADS)
            held.callback(upload_workers.close)
            self.uploads = Uploads(data_dir / "uploads", safe_suffixes, upload_workers, longest_s=self.settings.server.upload_timeout_s)
            self._held, self._loop, self._closing = held.pop_all(), asyncio.get_running_loop(), False
            self._closed.clear()

    async def close(self) -> None:
        """Waits for what is under way, then closes everything, last opened first. Twice is harmless: each waits for the end."""
        if self._closing:
            self._check_loop()
            await self._closed.wait()
            return
        if self._held is None:
            return
        self._check_loop()
        self._closing = True
        try:
            if self.job_runner is not None:
                await self.job_runner.stop()
                self.job_runner = None
            while self._users:
                self._unused.clear()
                await self._unused.wait()
        finally:
            held, self._held = self._held, None
            for part in (*self._embedders.values(), *self._generators.values(), self._reranker, self._own, self.own_generator):
                if part is not None:
                    held.push_async_callback(part.close)
            self._embedders, self._matched, self._own, self._generators, self._reranker = {}, {}, None, {}, None
            try:
                await held.aclose()
            finally:
                self._closing = False
                self._closed.set()

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keeps everything open while it lasts. What it is used for may use it again, also while it is being closed.

        Raises:
            BackendError: It was not opened, or is being closed, or was opened in another event loop.
        """
        outside = _in_use.get()
        if self._held is None or (self._closing and not (self._users and outside is self)):
            raise BackendError("the engine is not open", hint="use it within `async with Engine.open(...)`")
        self._check_loop()
        self._users += 1
        _in_use.set(self)
        try:
            yield
        finally:
            _in_use.set(outside)
            self._users -= 1
            if not self._users:
                self._unused.set()

    def _check_loop(self) -> None:
        if asyncio.get_running_loop() is not self._loop:
            raise BackendError(
                "the engine was opened in another event loop",
                hint="open and use it within one `asyncio.run`; `ragline.open` gives an engine for many threads",
            )

    async def embedder_for(self, scope: Scope) -> BatchEmbedder:
        """The embedder of a collection; for an empty one, the one that the settings name.

        Tenants share its batches and nothing else: what was embedded for one is not known for another.
        Settings that name no model and no precision of their own follow the collection's.

        Raises:
            ModelMismatchError: The settings name another model than the collection's.
            SettingsError: There is no such model, or none that can be used.
        """
        head = await self.store.head(scope)
        embedder = self._matched.get(head.model)
        if embedder is None:
            embedder = self._own or await self._embedder_of(head)
            if head.model and embedder.fingerprint != head.model:
                if self._own is None:
                    raise mismatch(scope, head.embedder, embedder, self.settings.embedding)
                stored, own = in_words(head.embedder), in_words(embedder.description)
                raise ModelMismatchError(
                    f"the collection {scope.collection!r} was embedded with {stored}, not with {own}",
                    hint="open the engine with that embedder to go on with it, or switch with `engine.reindex()`",
                )
            self._matched[embedder.fingerprint] = embedder
        return embedder.for_tenant(scope.tenant, partial(self._stored, scope.tenant, embedder.fingerprint))

    async def _embedder_of(self, head: Head) -> BatchEmbedder:
        try:
            return await self.open_embedder(followed(self.settings.embedding, head.embedder))
        except (SettingsError, MissingExtraError):
            raise
        except (NotFoundError, InputError) as failure:  # there is no such model, or none that can be used: no fault of who asks
            raise SettingsError(failure.message, hint=failure.hint) from failure

    async def open_embedder(self, settings: EmbeddingSettings) -> BatchEmbedder:
        """The embedder that these settings name, opened once."""
        key = settings.model_dump_json()  # secrets masked: two keys for one model open one embedder
        async with self._opening:
            if key not in self._embedders:
                opened = await self.question_workers.run(
                    open_embedder,
                    settings,
                    self.settings.model_cache_dir(),
                    self._announce,
                    pool=self.settings.pool,
                    question_workers=self.question_workers,
                    bulk_workers=self.bulk_workers,
                )
                if not opened.is_local:
                    opened = GuardedEmbedder(opened, self.circuit("the embedding server"))
                self._embedders[key] = self._shared(opened)
        return self._embedders[key]

    @property
    def embedders(self) -> Sequence[BatchEmbedder]:
        """Those that are open."""
        return [*self._embedders.values(), *([self._own] if self._own is not None else [])]

    def _shared(self, embedder: Embedder) -> BatchEmbedder:
        """The embedder, for many callers: they share its batches, and its vectors are kept in memory."""
        if isinstance(embedder, BatchEmbedder):
            return embedder
        told = self.settings.embedding
        return BatchEmbedder(
            embedder,
            batch_size=told.batch_texts,
            max_wait_s=told.batch_wait_s,
            max_batch_tokens=told.batch_tokens,
            concurrency=None if embedder.is_local else told.parallel_requests,
            cache=self.vectors,
            cache_items=0,
            workers=self.question_workers,
        )

    async def _stored(self, tenant: str, model: str, passages: Sequence[str]) -> list[Float16 | None]:
        """The vectors of passages that the store holds: those of a tenant's documents."""
        hashes = [passage_hash(Chunk(passage, 0, len(passage))) for passage in passages]
        found = await self.store.vectors(tenant, model, hashes)
        return [found.get(hash) for hash in hashes]

    def visit_web(self, known: KnownPages) -> Visit:
        """A way to the web for one ingest; it ends with its `async with`."""
        from ragline.reading.web.visit import Visit  # with it comes the HTTP client

        return Visit(self.settings.web, self.reader, known)

    async def generator_for(self, scopes: Sequence[Scope]) -> Generator:
        """The generator that the settings name, for evidence from these collections.

        Raises:
            SettingsError: It lacks a setting.
            MissingExtraError: Its extra is not installed.
        """
        if self.own_generator is not None:
            return self.own_generator
        generation = self.settings.generation
        if generation.generator == "extractive":
            return await self._extractive(scopes[0])
        extractive = await self.extractive_for(scopes)
        if extractive is not None:  # one for all tenants: it remembers nothing for any
            extractive = self._quoting((await self.embedder_for(scopes[0])).wrapped)
        async with self._opening:
            key = extractive.fingerprint if extractive is not None else ""
            if key not in self._generators:
                workers = self.question_workers
                circuit = self.circuit("the language model's server")
                self._generators[key] = await workers.run(open_chat_generator, self.settings, extractive, workers, circuit, self.responses)
        return self._generators[key].for_tenant(scopes[0].tenant)

    async def extractive_for(self, scopes: Sequence[Scope]) -> ExtractiveGenerator | None:
        """A generator that quotes, for evidence from these collections; None where their embedder is a server that fails."""
        try:
            return await self._extractive(scopes[0])
        except (BackendError, DeadlineError, OverloadedError):
            return None

    def takes_apart(self, tenant: str) -> TakesApart:
        """What takes a tenant's chunks apart into sentences, and keeps them where anything is kept."""
        return self.pieces.of(tenant) if self.settings.cache.enabled else take_apart

    async def _extractive(self, scope: Scope) -> ExtractiveGenerator:
        return self._quoting(await self.embedder_for(scope), self.takes_apart(scope.tenant))

    def _quoting(self, embedder: Embedder, take_apart: TakesApart = take_apart) -> ExtractiveGenerator:
        return ExtractiveGenerator(
            embedder, max_sentences=self.settings.generation.max_sentences, workers=self.question_workers, take_apart=take_apart
        )

    async def reranker(self) -> Reranker | None:
        """The reranker that the settings name, opened once; None for none."""
        if self.settings.rerank.reranker == "none" or self._reranker is not None:
            return self._reranker
        async with self._opening:
            if self._reranker is None:
                from ragline.retrieval.reranking.guarded import GuardedReranker
                from ragline.retrieval.reranking.opening import open_reranker

                reranker = await self.question_workers.run(
                    open_reranker,
                    self.settings.rerank,
                    self.settings.pool,
                    self.settings.model_cache_dir(),
                    self._announce,
                    workers=self.question_workers,
                )
                if reranker is not None and not reranker.is_local:
                    reranker = GuardedReranker(reranker, self.circuit("the rerank server"))
                self._reranker = reranker
        return self._reranker

    def circuit(self, name: str) -> Circuit:
        """The circuit before a server."""
        return self._circuits.setdefault(name, Circuit(CIRCUIT_FAILURES, CIRCUIT_REST_S, name=name))

    def circuits(self) -> Mapping[str, bool]:
        """The servers asked so far, and whether each is left alone because it failed again and again."""
        return {name: circuit.open for name, circuit in self._circuits.items()}


def open_chat_generator(
    settings: Settings,
    fallback: Generator | None,
    workers: Workers,
    circuit: Circuit | None = None,
    responses: Cache[str] | None = None,
) -> ChatGenerator:
    """The generator with a language model that the settings name; see `generation.opening.open_generator`."""
    # Imported here, on a worker: the language models' clients take long to import.
    from ragline.embedding.estimated_tokenizer import EstimatedTokenizer
    from ragline.generation.opening import open_generator

    return open_generator(
        settings.generation,
        settings.pool,
        count_tokens=EstimatedTokenizer().count,
        fallback=fallback,
        workers=workers,
        circuit=circuit,
        responses=responses,
        responses_ttl_s=settings.cache.ttl_s,
    )


def _cores() -> int:
    """The cores this process may use, which in a container can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
