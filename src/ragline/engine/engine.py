"""The engine: ingest, search, ask. Composition only; each step lives in the part that it is about."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from ragline.embedding.base import Embedder
from ragline.engine.embedding import embed_texts, embedder_named
from ragline.engine.health import check_health, read_status
from ragline.engine.ids import id_list
from ragline.engine.ingestion import new_ingestion
from ragline.engine.jobs import EngineJobs
from ragline.engine.measuring import Measured
from ragline.engine.opened import while_open
from ragline.engine.questions import Questions
from ragline.engine.reindexing import Reindexing
from ragline.engine.resources import Resources
from ragline.engine.sources import Source
from ragline.engine.stats import process_stats, tenant_stats
from ragline.engine.warming import warm_up
from ragline.errors import InputError, NotFoundError, SettingsError
from ragline.generation.base import Generator
from ragline.settings import Settings, load_settings
from ragline.storage.base import CollectionInfo, Store, StoredChunk, StoredDocument
from ragline.types import (
    Document,
    Effort,
    Embeddings,
    Finding,
    IngestProgress,
    IngestReport,
    ReindexReport,
    Scope,
    Status,
    Upload,
)


class Engine(Questions):
    """A retrieval engine over one data folder, for one tenant.

    Examples:
        async with Engine.open("./data") as engine:
            await engine.ingest("docs/")
            answer = await engine.ask("how do I rotate keys?")
            print(answer.text, [citation.source for citation in answer.citations])

    Several engines, in one process or many, may share a data folder. Every method may be called from many
    tasks at once; all of them raise `RaglineError` and its kinds for what can go wrong, and nothing else on
    purpose.
    """

    @classmethod
    def open(
        cls,
        data_dir: str | Path | None = None,
        *,
        settings: Settings | None = None,
        embedder: Embedder | None = None,
        generator: Generator | None = None,
        announce: Callable[[str], None] | None = None,
    ) -> Engine:
        """An engine that opens on `async with` and closes at its end.

        Args:
            data_dir: Where the store and its views live; made if missing. Goes before `settings.data_dir`.
            settings: All settings. Unset, they come from `RAGLINE_*` variables, `.env` and `ragline.toml`, as on the
                command line.
            embedder: Your own, instead of the one that the settings name; the engine closes it.
            generator: Your own, instead of the one that the settings name; the engine closes it.
            announce: Called with a sentence before something slow and rare, such as fetching a model.

        Raises:
            SettingsError: A setting that does not exist, or a value that it cannot take; `settings` that are none.
        """
        settings = load_settings().settings if settings is None else settings
        if not isinstance(settings, Settings):
            raise SettingsError(
                f"settings= takes ragline.Settings, not {type(settings).__name__}",
                hint='give ragline.load_settings(overrides={"retrieval.top_k": 3}).settings, or ragline.Settings(retrieval={"top_k": 3})',
            )
        if data_dir is not None:
            settings = settings.model_copy(update={"data_dir": Path(data_dir)})
        return cls(Resources(settings, announce or (lambda _: None), embedder, generator), settings.tenant)

    async def __aenter__(self) -> Engine:
        await self._resources.open()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        """Finishes what is under way and lets go of everything. Twice is harmless; a tenant's engine closes nothing."""
        if self._owner:
            await self._resources.close()

    @property
    def store(self) -> Store:
        """The store below, for what stands beside documents: keys and the audit. The engine closes it."""
        with self._resources.in_use():
            return self._resources.store

    @property
    def jobs(self) -> EngineJobs:
        """Uploads that outlive the call: accepted durably, ingested in the background."""
        return EngineJobs(self._resources, self._tenant)

    def tenant(self, name: str) -> Engine:
        """The same engine for another tenant: it shares everything and sees nothing of this one's documents.

        It lives as long as the engine it came from.
        """
        return Engine(self._resources, Scope(name).tenant, asking=self._asking, effort=self._effort, owner=False)

    def lighter(self, effort: Effort) -> Engine:
        """The same engine, whose searches and answers cost no more than this unless they are told otherwise.

        It lives as long as the engine it came from.
        """
        return Engine(self._resources, self._tenant, asking=self._asking, effort=effort, owner=False)

    @while_open
    async def ingest(
        self,
        sources: Source | Iterable[Source],
        *,
        collection: str | None = None,
        prune: bool = False,
        retry_failed: bool = True,
        progress: Callable[[IngestProgress], None] | None = None,
    ) -> IngestReport:
        """Reads, chunks, embeds and stores sources; returns when they can be searched.

        Same bytes again are no work; a page that its server calls unchanged is one request. A source that gives no text is
        reported and does not stop the others.
        Each document is replaced whole or not at all; cancelling keeps what was committed.

        Args:
            sources: A path (file, folder or glob), a URL (a string that begins with http:// or https://), a `Document`, an
                `Upload`, or an iterable of them. What URLs may lead to is in the settings under `web`.
            prune: Also delete documents whose file stood in a folder given and is gone.
            retry_failed: Whether to try files and pages again that gave no text last time and have not changed.
            progress: Called on the event loop as work goes on; must be quick.

        Raises:
            ModelMismatchError: The collection was embedded with another model.
            BackendError: The store cannot be written; what was committed before stays.
        """
        if isinstance(sources, str | Path | Document | Upload):
            sources = [sources]
        scope = self._scope(collection)
        resources = self._resources
        ingestion = await new_ingestion(resources, scope, retry_failed=retry_failed, progress=progress)
        with Measured(self.monitor, "ingest") as record:
            report = await ingestion.run(sources, prune=prune)
            record.mark("documents")
            views, head = await resources.follower.views(scope, wait_s=resources.settings.index.wait_s)
            record.mark("views")
        return replace(report, lag=max(0, head.lsn - views.lsn))

    @while_open
    async def embed(self, texts: Sequence[str], *, model: str | None = None, collection: str | None = None) -> Embeddings:
        """Texts as vectors, as questions are embedded; a text longer than the model's window is refused.

        Args:
            model: A model that a collection of this tenant was embedded with; unset takes the collection's.

        Raises:
            NotFoundError: No collection uses this model. None is opened for its name.
        """
        if isinstance(texts, str):
            raise InputError("texts is one text", hint="pass a list of them")
        embedder = await embedder_named(self._resources, self._scope(collection), model)
        return await embed_texts(self._resources, embedder, texts)

    @while_open
    async def documents(self, *, collection: str | None = None, after: str = "", limit: int | None = None) -> Sequence[StoredDocument]:
        """Documents by id ascending: at most `limit` after the id `after`."""
        if limit is not None and not 0 <= limit <= sys.maxsize:
            raise InputError(f"limit is {limit}", hint="use a number from 0 up, or leave it out for all")
        return await self._resources.store.documents(self._scope(collection), after_id=after, limit=limit)

    @while_open
    async def document(self, document_id: str, *, collection: str | None = None) -> StoredDocument:
        """One document. Raises NotFoundError where there is none of this id."""
        found = await self._resources.store.documents(self._scope(collection), ids=id_list([document_id]))
        if not found:
            raise _no_document(document_id)
        return found[0]

    @while_open
    async def text(self, document_id: str, *, collection: str | None = None) -> str:
        """A document's text, as citations count it. Raises NotFoundError where there is none of this id."""
        (id,) = id_list([document_id])
        stored = await self._resources.store.text(self._scope(collection), id)
        if stored is None:
            raise _no_document(id)
        return stored[0]

    @while_open
    async def chunks(self, document_id: str, *, collection: str | None = None) -> Sequence[StoredChunk]:
        """A document's chunks in order. Raises NotFoundError where there is none of this id."""
        await self.document(document_id, collection=collection)
        return await self._resources.store.chunks(self._scope(collection), document_id)

    @while_open
    async def delete(self, document_ids: str | Sequence[str], *, collection: str | None = None) -> Sequence[str]:
        """Deletes documents with everything made from them, and uploads of them that are not done; returns the ids that were there."""
        ids = id_list(document_ids)
        scope = self._scope(collection)
        with Measured(self.monitor, "delete") as record:
            async with self._resources.store.transaction() as transaction:
                deleted = await transaction.delete(scope, ids)
            record.mark("documents")
            if deleted:
                await self._resources.follower.views(scope, wait_s=self.settings.index.wait_s)
                record.mark("views")
        return deleted

    @while_open
    async def collections(self) -> Sequence[CollectionInfo]:
        """This tenant's collections by name."""
        return await self._resources.store.collections(self._tenant)

    @while_open
    async def create_collection(self, name: str) -> bool:
        """Makes an empty collection for the model that the settings name; False where there is one. `ingest` does so by itself."""
        scope = Scope(self._tenant, name)
        embedder = await self._resources.embedder_for(scope)
        async with self._resources.store.transaction() as transaction:
            return await transaction.create_scope(scope, model=embedder.fingerprint, embedder=embedder.description)

    @while_open
    async def delete_collection(self, name: str) -> bool:
        """Deletes a collection with all its documents, and uploads into it that are not done; False where there was none."""
        async with self._resources.store.transaction() as transaction:
            return await transaction.delete_scope(Scope(self._tenant, name))

    @while_open
    async def reindex(
        self,
        *,
        collection: str | None = None,
        model: str | None = None,
        precision: str | None = None,
        progress: Callable[[IngestProgress], None] | None = None,
    ) -> ReindexReport:
        """Chunks every stored document again with the settings in force and rebuilds the views.

        With `model` or `precision` the passages are embedded with that beside the old vectors, which go on
        answering; all switch at one LSN. Passages whose text did not change are not embedded again.
        """
        with Measured(self.monitor, "reindex"):
            return await Reindexing(self._resources, self._scope(collection)).run(model=model, precision=precision, progress=progress)

    @while_open
    async def status(self) -> Status:
        """What the data folder holds for this tenant, and how far its views are."""
        return await read_status(self._resources, self._tenant)

    @while_open
    async def doctor(self, *, verify: bool = False) -> Sequence[Finding]:
        """Looks for what is wrong or could be better; `verify` also reads every file of store and views."""
        return await check_health(self._resources, self._tenant, verify=verify)

    async def stats(self) -> dict[str, Any]:
        """What this tenant searched and asked since the engine was opened, and how often that was known already: plain data.

        `searches` counts by "hit", "shared" (joined one under way) and "miss"; `answers` by the steps of `Answer.cache`, with
        "shared", and "stale_prevented": an answer was kept back because its evidence had changed.
        """
        return tenant_stats(self._asking, self._tenant)

    @while_open
    async def process_stats(self, *, times: bool = True) -> dict[str, Any]:
        """What this process has done for all tenants, as plain data for its operator: caches, batches, queues, memory.

        Args:
            times: Whether the times of operations and their stages are told too.
        """
        return await process_stats(self._resources, self._asking, times=times)

    @while_open
    async def warm_up(self) -> None:
        """Loads models and views now that the first question would otherwise wait for, of all tenants.

        Raises:
            SettingsError: With these settings nothing could be answered, such as a model that is not there.
            MissingExtraError: They want an extra that is not installed.
        """
        await warm_up(self._resources, self._scope(None))

    @while_open
    async def clear_cache(self, *, collection: str | None = None) -> None:
        """Forgets what was computed before for this tenant, or for one collection of it. What is stored stays."""
        scopes = [self._scope(collection)]
        if collection is None:
            scopes += [Scope(self._tenant, info.name) for info in await self._resources.store.collections(self._tenant)]
        await self._asking.clear(scopes)
        if collection is None:
            for cache in (self._resources.vectors, self._resources.responses):
                if cache is not None:
                    await cache.clear(Scope(self._tenant))


def _no_document(document_id: str) -> NotFoundError:
    return NotFoundError(f"there is no document {document_id!r}", hint="`ragline documents list` shows those there are")
