"""Keeps the views of every scope in step with the store.

In every process, a scope's vectors and attributes live in memory, loaded from a snapshot and fed from the
store's changes. One process per store, the indexer, holds a lock that dies with it; it alone writes the
lexical index and the snapshots. The others reload the lexical index and feed their memory to the same LSN.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ragline.concurrency.locks import ProcessLock, ReadWriteLock
from ragline.concurrency.workers import Workers
from ragline.errors import CorruptionError, RaglineError
from ragline.index.attributes import AttributeIndex
from ragline.index.lexical import LexicalIndex
from ragline.index.snapshot import load_snapshot, save_snapshot
from ragline.index.vectors import VectorIndex
from ragline.settings import IndexSettings
from ragline.storage.base import Changes, Head, Store
from ragline.types import Scope

log = logging.getLogger("ragline.index")

DELETED_SHARE = 0.1
"""Above this share of deleted documents the lexical index is rebuilt: its statistics count them."""

SNAPSHOT_ROWS = 10_000
"""Changed rows after which a snapshot is worth its writing; a tenth of the collection where that is more."""

CLOSING_SNAPSHOT_ROWS = 512
"""Changed rows below which replaying the log at the next start is cheaper than a snapshot now."""


class ScopeViews:
    """The views of one scope in this process. Search under `reading()`; only the follower writes.

    Attributes:
        lsn: The log position all views stand at; -1 until they are loaded.
        epoch: Rises when results may change without a new LSN (retraining, a new lexical generation).
        model: Fingerprint of the vectors' model; "" while the scope is empty.
        dense: None while there is no vector.
        lexical: None while no indexer has written one.
    """

    def __init__(self, scope: Scope, folder: Path) -> None:
        self.scope = scope
        self.folder = folder
        self.lsn = -1
        self.epoch = 0
        self.model = ""
        self.dense: VectorIndex | None = None
        self.attributes = AttributeIndex()
        self.lexical: LexicalIndex | None = None
        self.writable = False
        self.changed_rows = 0
        self.snapshot_lsn = 0
        self.advancing: asyncio.Task[None] | None = None
        self._lock = ReadWriteLock()

    def at(self, head: Head) -> bool:
        """Whether all views stand at this head or beyond."""
        return self.lsn >= head.lsn and self.model == head.model and self.lexical is not None

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Keeps the views as they are while a search runs; from a worker thread."""
        with self._lock.reading():
            yield

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Waits for searches to end and keeps new ones out; from a worker thread."""
        with self._lock.writing():
            yield


class Follower:
    """Owns the views of all scopes, the indexer's lock, and the task that follows the store.

    Args:
        folder: Where views are kept, one folder for each scope's number.
        workers: One low-priority thread: views are changed one at a time.
    """

    def __init__(self, store: Store, folder: Path, settings: IndexSettings, workers: Workers) -> None:
        self._store = store
        self._folder = folder
        self._settings = settings
        self._workers = workers
        self._lock = ProcessLock(folder / "indexer.lock")
        self._resident: OrderedDict[Scope, ScopeViews] = OrderedDict()
        self._indexed: dict[Scope, int] = {}
        self._task: asyncio.Task[None] | None = None

    @property
    def is_indexer(self) -> bool:
        """Whether this process writes the views."""
        return self._lock.held

    async def start(self) -> None:
        """Takes the indexer's lock if it is free and begins to follow."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock.acquire()
        self._task = asyncio.create_task(self._follow(), name="ragline-follower")

    async def close(self) -> None:
        """Stops following, writes snapshots worth writing, gives the lock back. Twice is harmless."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        while self._resident:
            _, views = self._resident.popitem()
            await self._let_go(views)
        self._lock.release()

    async def views(self, scope: Scope, *, wait_s: float) -> tuple[ScopeViews, Head]:
        """The scope's views at the store's head, or as near as they get within `wait_s`; and that head.

        The first call for a scope loads its views, and waits for that up to `index.wait_s`.
        """
        head = await self._store.head(scope)
        if not head.scope_id:
            return _empty_views(scope, self._folder), head
        views = self._resident.get(scope)
        if views is None:
            views = self._resident.setdefault(scope, ScopeViews(scope, self._folder / str(head.scope_id)))
            await self._evict()
        self._resident.move_to_end(scope)
        if not views.at(head):
            await self.reach(views, head, wait_s if views.lsn >= 0 else max(wait_s, self._settings.wait_s))
        return views, head

    async def reach(self, views: ScopeViews, head: Head, timeout_s: float) -> None:
        """Advances views until they stand at `head` or `timeout_s` has passed.

        Raises:
            RaglineError: The views were never loaded, and cannot be.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while not views.at(head):
            step = views.advancing
            if step is None or step.done():
                step = views.advancing = asyncio.create_task(self._advance(views))
            left = deadline - loop.time()
            if left <= 0:
                return
            await asyncio.wait({step}, timeout=left)
            if not step.done():
                return
            failure = step.exception()
            if isinstance(failure, RaglineError):
                if views.lsn < 0:
                    raise failure
                log.error("views of %s stay behind: %s", views.scope, failure.message)
                return
            if failure is not None:
                raise failure
            if not views.at(head):  # another process writes the lexical index: it needs a moment
                await asyncio.sleep(0.002)

    async def mend(self, views: ScopeViews, epoch: int) -> None:
        """Makes vectors and attributes again from the store after a search met damage in them at `epoch`."""
        while views.epoch == epoch:
            if views.advancing is not None and not views.advancing.done():
                await asyncio.wait({views.advancing})
                continue
            log.warning("the vectors of %s are damaged on disk and are made again from the store", views.scope)
            step = views.advancing = asyncio.create_task(self._mend(views))
            await step

    async def rebuild(self, scope: Scope) -> ScopeViews:
        """Makes all views of a scope anew from the store; in a process that is not the indexer, those in memory."""
        views, head = await self.views(scope, wait_s=self._settings.wait_s)
        while views.advancing is not None and not views.advancing.done():
            await asyncio.wait({views.advancing})
        step = views.advancing = asyncio.create_task(self._rebuild(views, head))
        await step
        return views

    async def _rebuild(self, views: ScopeViews, head: Head) -> None:
        if self._lock.acquire():
            await self._rebuild_lexical(views, head)
            await self._rebuild_memory(views, head, head.lsn)
            await self._snapshot(views)
        else:
            await self._rebuild_memory(views, head, views.lsn)

    async def _mend(self, views: ScopeViews) -> None:
        await self._rebuild_memory(views, await self._store.head(views.scope), views.lsn)
        if self._lock.held:
            await self._snapshot(views)

    async def _follow(self) -> None:
        """Advances views whenever any process has committed; the indexer does so for every scope."""
        scanned = False
        while True:
            try:
                moved = await self._store.changed(0.5)
                indexer = self._lock.acquire()
                if indexer and (moved or not scanned):
                    await self._index_all()
                    scanned = True
                elif moved:
                    for scope in list(self._resident):
                        await self.views(scope, wait_s=self._settings.wait_s)
            except RaglineError as failure:
                log.error("following the store failed and is tried again: %s", failure.message)
                await asyncio.sleep(0.5)

    async def _index_all(self) -> None:
        for scope, head in (await self._store.heads()).items():
            if head.lsn > self._indexed.get(scope, 0):
                views, _ = await self.views(scope, wait_s=self._settings.wait_s)
                self._indexed[scope] = views.lsn

    async def _advance(self, views: ScopeViews) -> None:
        """One step towards the head; called for one scope by one task at a time."""
        head = await self._store.head(views.scope)
        if self._lock.acquire():
            await self._write_lexical(views, head)
            upto = head.lsn
        else:
            upto = await self._workers.run(self._look_at_lexical, views)
        try:
            await self._advance_memory(views, head, min(upto, head.lsn))
        except CorruptionError:
            await self._rebuild_memory(views, head, min(upto, head.lsn))
        if self._lock.held and views.changed_rows >= max(SNAPSHOT_ROWS, len(views.attributes) // 10):
            await self._try_snapshot(views)

    async def _write_lexical(self, views: ScopeViews, head: Head) -> None:
        """Brings the lexical index on disk to the head and commits it; its searcher moves later, with the rest."""
        if views.lexical is None or not views.writable:
            opened = await self._workers.run(self._open_lexical, views, True)
            views.lexical, views.writable = opened, True
        index = views.lexical
        assert index is not None
        try:
            if index.lsn < head.oldest_lsn or index.deleted_fraction > DELETED_SHARE:
                await self._rebuild_lexical(views, head)
            elif index.lsn < head.lsn:
                await self._feed_lexical(index, views.scope, head)
        except CorruptionError:
            await self._workers.run(_close_lexical, views)  # opened again, and so checked, at the next step
            raise

    async def _feed_lexical(self, index: LexicalIndex, scope: Scope, head: Head) -> None:
        async for page in self._store.changes(scope, index.lsn, head.lsn, with_passages=True):
            await self._workers.run(index.apply, page.removed, page.rows, page.passages)
        await self._workers.run(index.commit, head.lsn)

    async def _rebuild_lexical(self, views: ScopeViews, head: Head) -> None:
        """A new generation beside the old one, which goes on answering until the switch."""
        old = views.lexical
        assert old is not None
        new = await self._workers.run(old.begin_generation)
        await self._feed_lexical(new, views.scope, head)
        await self._workers.run(self._switch_lexical, views, old, new)

    def _switch_lexical(self, views: ScopeViews, old: LexicalIndex, new: LexicalIndex) -> None:
        old.publish_generation(new)
        with views.writing():
            new.reload()
            views.lexical = new
            views.epoch += 1

    def _open_lexical(self, views: ScopeViews, writable: bool) -> LexicalIndex | None:
        return LexicalIndex.open(
            views.folder / "lexical", incarnation=self._store.incarnation, language=self._settings.language, writable=writable
        )

    def _look_at_lexical(self, views: ScopeViews) -> int:
        """For a process that is not the indexer: reads what the indexer has committed; its LSN. Searches do not move."""
        if views.lexical is None:
            views.lexical = self._open_lexical(views, False)
        else:
            views.lexical.prepare()
        return views.lexical.lsn if views.lexical is not None else -1

    async def _advance_memory(self, views: ScopeViews, head: Head, upto: int) -> None:
        """Brings vectors and attributes to `upto` and publishes all views at it, under the exclusive lock."""
        held = views if views.lsn >= 0 else await self._workers.run(self._load_snapshot, views, head)
        if held.lsn < head.oldest_lsn or held.model != head.model:
            await self._rebuild_memory(views, head, upto)
            return
        pages = []
        if upto > held.lsn:
            pages = [page async for page in self._store.changes(views.scope, held.lsn, upto, model=head.model)]
        await self._workers.run(self._publish, views, held, pages, max(upto, held.lsn))

    async def _rebuild_memory(self, views: ScopeViews, head: Head, upto: int) -> None:
        fresh = ScopeViews(views.scope, views.folder)
        fresh.model, fresh.epoch = head.model, views.epoch + 1
        async for page in self._store.changes(views.scope, 0, max(upto, 0), model=head.model):
            await self._workers.run(self._apply_page, fresh, page)
        fresh.changed_rows += SNAPSHOT_ROWS  # the snapshot on disk is of no more use
        await self._workers.run(self._publish, views, fresh, [], max(upto, 0))

    def _load_snapshot(self, views: ScopeViews, head: Head) -> ScopeViews:
        """The views as the snapshot on disk has them, not yet published; at LSN 0 where there is none to be used."""
        held = ScopeViews(views.scope, views.folder)
        held.lsn, held.model = 0, head.model
        loaded = load_snapshot(
            views.folder / "memory",
            incarnation=self._store.incarnation,
            model=head.model,
            exact_below=self._settings.exact_below,
            rerank=self._settings.rerank,
        )
        if loaded is not None and loaded[0] <= head.lsn:
            held.lsn, held.dense, held.attributes = loaded
            held.snapshot_lsn = held.lsn
        return held

    def _publish(self, views: ScopeViews, held: ScopeViews, pages: list[Changes], upto: int) -> None:
        """Applies what is left to apply, and lets searches see all views at one LSN."""
        if held is not views:  # nobody searches it yet
            for page in pages:
                self._apply_page(held, page)
            pages = []
        with views.writing():
            for page in pages:
                self._apply_page(views, page)
            if held is not views:
                views.dense, views.attributes, views.model = held.dense, held.attributes, held.model
                views.changed_rows, views.snapshot_lsn = held.changed_rows, held.snapshot_lsn
                views.epoch = max(views.epoch, held.epoch)
            moved = views.lexical is not None and views.lexical.reload()
            views.epoch += moved and views.lsn == upto  # the same content in other segments: ties and scores may differ
            views.lsn = upto

    def _apply_page(self, views: ScopeViews, page: Changes) -> None:
        if views.dense is None and page.vectors.size:
            views.dense = VectorIndex(page.vectors.shape[1], exact_below=self._settings.exact_below, rerank=self._settings.rerank)
        if views.dense is not None:
            trained = views.dense.trainings
            vectors = page.vectors if page.vectors.size else np.empty((0, views.dense.dimension), np.float16)
            views.dense.apply(page.removed, page.rows, vectors)
            views.epoch += views.dense.trainings != trained
        views.attributes.apply(page.removed, page.rows, page.metadata)
        views.changed_rows += len(page.removed) + len(page.rows)

    async def _try_snapshot(self, views: ScopeViews) -> None:
        """A snapshot only saves time at the next start: where it cannot be written, the engine goes on without."""
        try:
            await self._snapshot(views)
        except RaglineError as failure:
            log.error("no snapshot of %s was written; the next start replays the log: %s", views.scope, failure.message)

    async def _snapshot(self, views: ScopeViews) -> None:
        """Writes memory to disk, then forgets tombstones that no snapshot of the last two needs."""
        if views.lsn <= 0:
            return
        before = views.snapshot_lsn
        await self._workers.run(self._save, views)
        if before:
            await self._store.prune(views.scope, before)

    def _save(self, views: ScopeViews) -> None:
        save_snapshot(
            views.folder / "memory",
            lsn=views.lsn,
            incarnation=self._store.incarnation,
            model=views.model,
            vectors=views.dense,
            attributes=views.attributes,
        )
        views.snapshot_lsn = views.lsn
        views.changed_rows = 0

    async def _evict(self) -> None:
        """Lets the least recently used scopes go. Searches that still hold one finish on it."""
        for scope in list(self._resident)[: max(0, len(self._resident) - self._settings.resident_scopes)]:
            views = self._resident[scope]
            if views.advancing is None or views.advancing.done():
                del self._resident[scope]
                await self._let_go(views)

    async def _let_go(self, views: ScopeViews) -> None:
        if views.advancing is not None and not views.advancing.done():
            await asyncio.wait({views.advancing})
        if self._lock.held and views.changed_rows >= CLOSING_SNAPSHOT_ROWS:
            await self._try_snapshot(views)
        await self._workers.run(_close_lexical, views)


def _empty_views(scope: Scope, folder: Path) -> ScopeViews:
    views = ScopeViews(scope, folder)
    views.lsn = 0
    return views


def _close_lexical(views: ScopeViews) -> None:
    if views.lexical is not None:
        views.lexical.close()
        views.writable = False
