"""What an engine holds open: the store, its views, models, threads and parser processes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager

from ragline.concurrency.workers import Workers
from ragline.embedding.base import Embedder
from ragline.embedding.onnx_runtime import OnnxEmbedder
from ragline.errors import BackendError, ModelMismatchError
from ragline.generation.base import Generator
from ragline.generation.extractive import ExtractiveGenerator
from ragline.index.follower import Follower
from ragline.reading.reader import FileReader
from ragline.settings import EmbeddingSettings, Settings
from ragline.storage.base import Head, Store
from ragline.storage.sqlite import SqliteStore
from ragline.types import Scope

INGEST_NICENESS = 10
"""Ingest and indexing threads give way to questions by this much, where the system can."""


class Resources:
    """Opened once, shared by an engine and the tenants' engines made from it.

    Attributes:
        question_workers: One thread a core; a local search is one job on one of them.
        bulk_workers: Low priority, for chunking, hashing and embedding while ingesting.
    """

    store: Store
    follower: Follower
    question_workers: Workers
    bulk_workers: Workers
    reader: FileReader

    def __init__(
        self, settings: Settings, announce: Callable[[str], None], embedder: Embedder | None = None, generator: Generator | None = None
    ) -> None:
        self.settings = settings
        self._announce = announce
        self.own_embedder = embedder
        self._own_generator = generator
        self._held: AsyncExitStack | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._users = 0
        self._unused = asyncio.Event()
        self._embedders: dict[tuple[str, str], Embedder] = {}
        self._opening = asyncio.Lock()

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
            self.follower = Follower(self.store, data_dir / "views", self.settings.index, index_workers)
            await self.follower.start()
            held.push_async_callback(self.follower.close)
            self._held, self._loop = held.pop_all(), asyncio.get_running_loop()

    async def close(self) -> None:
        """Waits for what is under way, then closes everything, last opened first. Twice is harmless."""
        if self._held is None:
            return
        self._check_loop()
        held, self._held = self._held, None
        try:
            while self._users:
                self._unused.clear()
                await self._unused.wait()
        finally:
            for part in (*self._embedders.values(), self.own_embedder, self._own_generator):
                if part is not None:
                    held.push_async_callback(part.close)
            self._embedders = {}
            await held.aclose()

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keeps everything open while it lasts.

        Raises:
            BackendError: It was not opened, or is being closed, or was opened in another event loop.
        """
        if self._held is None:
            raise BackendError("the engine is not open", hint="use it within `async with Engine.open(...)`")
        self._check_loop()
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            if not self._users:
                self._unused.set()

    def _check_loop(self) -> None:
        if asyncio.get_running_loop() is not self._loop:
            raise BackendError(
                "the engine was opened in another event loop",
                hint="open and use it within one `asyncio.run`; `ragline.open` gives an engine for many threads",
            )

    async def embedder_for(self, scope: Scope) -> Embedder:
        """The embedder of a collection; for an empty one, the one that the settings name.

        Settings that name no model and no precision of their own follow the collection's.

        Raises:
            ModelMismatchError: The settings name another model than the collection's.
        """
        head = await self.store.head(scope)
        embedder = self.own_embedder or await self.open_embedder(_follow_collection(self.settings.embedding, head))
        if head.model and embedder.fingerprint != head.model:
            stored = " ".join(value for key, value in head.embedder.items() if key in ("model", "precision"))
            raise ModelMismatchError(
                f"the collection {scope.collection!r} was embedded with {stored or 'another model'}, not with {embedder.name}",
                hint=f"leave embedding.model unset to go on with it, or switch with `ragline reindex --model {embedder.name}`",
            )
        return embedder

    async def open_embedder(self, settings: EmbeddingSettings) -> Embedder:
        """The embedder that these settings name, opened once."""
        key = (settings.model, settings.precision)
        async with self._opening:
            if key not in self._embedders:
                self._embedders[key] = await self.question_workers.run(
                    OnnxEmbedder.open,
                    settings,
                    self.settings.model_cache_dir(),
                    self._announce,
                    question_workers=self.question_workers,
                    bulk_workers=self.bulk_workers,
                )
        return self._embedders[key]

    async def generator_for(self, scopes: Sequence[Scope]) -> Generator:
        """The generator that the settings name, for evidence from these collections."""
        if self._own_generator is not None:
            return self._own_generator
        embedder = await self.embedder_for(scopes[0])
        return ExtractiveGenerator(embedder, max_sentences=self.settings.generation.max_sentences, workers=self.question_workers)


def _follow_collection(settings: EmbeddingSettings, head: Head) -> EmbeddingSettings:
    followed: dict[str, str] = {}
    if head.model and "model" not in settings.model_fields_set:
        followed["model"] = head.embedder["model"]
    if head.model and settings.precision == "auto":
        followed["precision"] = head.embedder["precision"]
    return settings.model_copy(update=followed)


def _cores() -> int:
    """The cores this process may use, which in a container can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
