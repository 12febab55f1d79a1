"""The engine for blocking code: the same methods without `await`, on a loop thread of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from ragline.concurrency.loop_thread import LoopThread
from ragline.embedding.base import Embedder
from ragline.engine import Engine
from ragline.engine.jobs import EngineJobs
from ragline.engine.sources import Source
from ragline.errors import RaglineError
from ragline.generation.base import Generator
from ragline.observe.performance import PerformanceMonitor
from ragline.retrieval.hybrid import Mode
from ragline.settings import Settings
from ragline.storage.base import CollectionInfo, StoredChunk, StoredDocument
from ragline.storage.jobs import Job, JobState
from ragline.types import (
    Answer,
    Document,
    Effort,
    Embeddings,
    Finding,
    IngestProgress,
    IngestReport,
    ReindexReport,
    SearchResult,
    Status,
    StreamEvent,
    Turn,
    Upload,
)

T = TypeVar("T")


def open(
    data_dir: str | Path | None = None,
    *,
    settings: Settings | None = None,
    embedder: Embedder | None = None,
    generator: Generator | None = None,
    announce: Callable[[str], None] | None = None,
) -> SyncEngine:
    """Opens an engine for blocking code; arguments and errors are those of `Engine.open`.

    Examples:
        with ragline.open("./data") as engine:
            engine.ingest("docs/")
            print(engine.ask("how do I rotate keys?").text)
    """
    engine = Engine.open(data_dir, settings=settings, embedder=embedder, generator=generator, announce=announce)
    loop = LoopThread("the engine", hint="use it within `with ragline.open(...)`")
    try:
        loop.run(engine.__aenter__())
    except BaseException:
        loop.close(engine.close)
        raise
    return SyncEngine(engine, loop)


class SyncEngine:
    """An open engine for blocking code; may be used from many threads. See `Engine` for each method.

    A call interrupted by Ctrl-C is cancelled in the engine and waited for: the store stays consistent.
    """

    def __init__(self, engine: Engine, loop: LoopThread, *, owner: bool = True) -> None:
        self._engine = engine
        self._loop = loop
        self._owner = owner

    def __enter__(self) -> SyncEngine:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """As `Engine.close`; every thread that closes it waits until it is closed."""
        if self._owner:
            self._loop.close(self._engine.close)

    @property
    def settings(self) -> Settings:
        """As `Engine.settings`."""
        return self._engine.settings

    @property
    def monitor(self) -> PerformanceMonitor:
        """As `Engine.monitor`, which may be looked at from any thread."""
        return self._engine.monitor

    @property
    def jobs(self) -> SyncJobs:
        """As `Engine.jobs`."""
        return SyncJobs(self._engine.jobs, self._loop)

    def tenant(self, name: str) -> SyncEngine:
        """As `Engine.tenant`."""
        return SyncEngine(self._engine.tenant(name), self._loop, owner=False)

    def lighter(self, effort: Effort) -> SyncEngine:
        """As `Engine.lighter`."""
        return SyncEngine(self._engine.lighter(effort), self._loop, owner=False)

    def ingest(
        self,
        sources: Source | Iterable[Source],
        *,
        collection: str | None = None,
        prune: bool = False,
        retry_failed: bool = True,
        progress: Callable[[IngestProgress], None] | None = None,
    ) -> IngestReport:
        """As `Engine.ingest`; `progress` is called on the engine's thread."""
        return self._loop.run(
            self._engine.ingest(sources, collection=collection, prune=prune, retry_failed=retry_failed, progress=progress)
        )

    def search(
        self,
        question: str,
        *,
        top_k: int | None = None,
        filter: Mapping[str, Any] | None = None,
        collections: str | Sequence[str] | None = None,
        documents: Sequence[str] | None = None,
        mode: Mode | None = None,
        effort: Effort | None = None,
    ) -> SearchResult:
        """As `Engine.search`."""
        return self._loop.run(
            self._engine.search(
                question, top_k=top_k, filter=filter, collections=collections, documents=documents, mode=mode, effort=effort
            )
        )

    def ask(
        self,
        question: str,
        *,
        top_k: int | None = None,
        filter: Mapping[str, Any] | None = None,
        collections: str | Sequence[str] | None = None,
        documents: Sequence[str] | None = None,
        effort: Effort | None = None,
        history: Iterable[Turn] = (),
    ) -> Answer:
        """As `Engine.ask`."""
        return self._loop.run(
            self._engine.ask(
                question, top_k=top_k, filter=filter, collections=collections, documents=documents, effort=effort, history=history
            )
        )

    def search_many(
        self,
        questions: Sequence[str],
        *,
        max_concurrent: int | None = None,
        top_k: int | None = None,
        filter: Mapping[str, Any] | None = None,
        collections: str | Sequence[str] | None = None,
        documents: Sequence[str] | None = None,
        mode: Mode | None = None,
        effort: Effort | None = None,
    ) -> list[SearchResult | RaglineError]:
        """As `Engine.search_many`."""
        return self._loop.run(
            self._engine.search_many(
                questions,
                max_concurrent=max_concurrent,
                top_k=top_k,
                filter=filter,
                collections=collections,
                documents=documents,
                mode=mode,
                effort=effort,
            )
        )

    def ask_many(
        self,
        questions: Sequence[str],
        *,
        max_concurrent: int | None = None,
        top_k: int | None = None,
        filter: Mapping[str, Any] | None = None,
        collections: str | Sequence[str] | None = None,
        documents: Sequence[str] | None = None,
        effort: Effort | None = None,
    ) -> list[Answer | RaglineError]:
        """As `Engine.ask_many`."""
        return self._loop.run(
            self._engine.ask_many(
                questions,
                max_concurrent=max_concurrent,
                top_k=top_k,
                filter=filter,
                collections=collections,
                documents=documents,
                effort=effort,
            )
        )

    def stream(
        self,
        question: str,
        *,
        top_k: int | None = None,
        filter: Mapping[str, Any] | None = None,
        collections: str | Sequence[str] | None = None,
        documents: Sequence[str] | None = None,
        effort: Effort | None = None,
        history: Iterable[Turn] = (),
    ) -> Iterator[StreamEvent]:
        """As `Engine.stream`; closing the iterator ends the work."""
        events = self._engine.stream(
            question, top_k=top_k, filter=filter, collections=collections, documents=documents, effort=effort, history=history
        )
        return self._loop.iterate(events)

    def embed(self, texts: Sequence[str], *, model: str | None = None, collection: str | None = None) -> Embeddings:
        """As `Engine.embed`."""
        return self._loop.run(self._engine.embed(texts, model=model, collection=collection))

    def documents(self, *, collection: str | None = None, after: str = "", limit: int | None = None) -> Sequence[StoredDocument]:
        """As `Engine.documents`."""
        return self._loop.run(self._engine.documents(collection=collection, after=after, limit=limit))

    def document(self, document_id: str, *, collection: str | None = None) -> StoredDocument:
        """As `Engine.document`."""
        return self._loop.run(self._engine.document(document_id, collection=collection))

    def text(self, document_id: str, *, collection: str | None = None) -> str:
        """As `Engine.text`."""
        return self._loop.run(self._engine.text(document_id, collection=collection))

    def chunks(self, document_id: str, *, collection: str | None = None) -> Sequence[StoredChunk]:
        """As `Engine.chunks`."""
        return self._loop.run(self._engine.chunks(document_id, collection=collection))

    def delete(self, document_ids: str | Sequence[str], *, collection: str | None = None) -> Sequence[str]:
        """As `Engine.delete`."""
        return self._loop.run(self._engine.delete(document_ids, collection=collection))

    def collections(self) -> Sequence[CollectionInfo]:
        """As `Engine.collections`."""
        return self._loop.run(self._engine.collections())

    def create_collection(self, name: str) -> bool:
        """As `Engine.create_collection`."""
        return self._loop.run(self._engine.create_collection(name))

    def delete_collection(self, name: str) -> bool:
        """As `Engine.delete_collection`."""
        return self._loop.run(self._engine.delete_collection(name))

    def reindex(
        self,
        *,
        collection: str | None = None,
        model: str | None = None,
        precision: str | None = None,
        progress: Callable[[IngestProgress], None] | None = None,
    ) -> ReindexReport:
        """As `Engine.reindex`; `progress` is called on the engine's thread."""
        return self._loop.run(self._engine.reindex(collection=collection, model=model, precision=precision, progress=progress))

    def status(self) -> Status:
        """As `Engine.status`."""
        return self._loop.run(self._engine.status())

    def doctor(self, *, verify: bool = False) -> Sequence[Finding]:
        """As `Engine.doctor`."""
        return self._loop.run(self._engine.doctor(verify=verify))

    def stats(self) -> dict[str, Any]:
        """As `Engine.stats`."""
        return self._loop.run(self._engine.stats())

    def process_stats(self, *, times: bool = True) -> dict[str, Any]:
        """As `Engine.process_stats`."""
        return self._loop.run(self._engine.process_stats(times=times))

    def warm_up(self) -> None:
        """As `Engine.warm_up`."""
        self._loop.run(self._engine.warm_up())

    def clear_cache(self, *, collection: str | None = None) -> None:
        """As `Engine.clear_cache`."""
        return self._loop.run(self._engine.clear_cache(collection=collection))


class SyncJobs:
    """The jobs of an engine for blocking code. See `EngineJobs` for each method."""

    def __init__(self, jobs: EngineJobs, loop: LoopThread) -> None:
        self._jobs = jobs
        self._loop = loop

    def start(self) -> None:
        """As `EngineJobs.start`."""
        self._loop.run(_called(self._jobs.start))

    def submit(
        self, sources: Document | Upload | Iterable[Document | Upload], *, collection: str | None = None, idempotency_key: str | None = None
    ) -> Job:
        """As `EngineJobs.submit`."""
        return self._loop.run(self._jobs.submit(sources, collection=collection, idempotency_key=idempotency_key))

    def get(self, job_id: str) -> Job:
        """As `EngineJobs.get`."""
        return self._loop.run(self._jobs.get(job_id))

    def list(self, *, state: JobState | None = None, after: str = "", limit: int = 100) -> Sequence[Job]:
        """As `EngineJobs.list`."""
        return self._loop.run(self._jobs.list(state=state, after=after, limit=limit))

    def cancel(self, job_id: str) -> Job:
        """As `EngineJobs.cancel`."""
        return self._loop.run(self._jobs.cancel(job_id))

    def retry(self, job_id: str) -> Job:
        """As `EngineJobs.retry`."""
        return self._loop.run(self._jobs.retry(job_id))

    def updates(self, job_id: str) -> Iterator[Job]:
        """As `EngineJobs.updates`."""
        return self._loop.iterate(self._jobs.updates(job_id))

    def wait(self, job_id: str) -> Job:
        """As `EngineJobs.wait`."""
        return self._loop.run(self._jobs.wait(job_id))


async def _called(act: Callable[[], T]) -> T:
    return act()
