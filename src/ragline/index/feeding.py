"""From the store into the views of one scope: one step at a time, by whoever makes sure of that.

Each step ends with `ScopeViews.publish`: until then searches see the views as they stood before.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from ragline.concurrency.workers import Workers
from ragline.errors import ConflictError, CorruptionError, RaglineError
from ragline.index.lexical import LexicalIndex
from ragline.index.views import ScopeViews
from ragline.storage.base import Changes, Head, Store
from ragline.types import Int64, Scope

log = logging.getLogger("ragline.index")

DELETED_SHARE = 0.1
"""Above this share of deleted documents the lexical index is rebuilt: its statistics count them."""


class Feeder:
    """Feeds views from a store.

    Every step may raise ConflictError where the store has moved on meanwhile (a collection deleted, tombstones
    pruned): the next step starts from the new head.

    Args:
        workers: One thread: views are changed one at a time.
    """

    def __init__(self, store: Store, workers: Workers) -> None:
        self._store = store
        self._workers = workers

    async def advance(self, views: ScopeViews) -> None:
        """For the indexer: brings the lexical index on disk to the head and commits it, then all views."""
        index = await self._workers.run(views.open_writer)
        head = await self._store.head(views.scope)
        try:
            if not head.oldest_lsn <= index.lsn <= head.lsn or index.deleted_fraction > DELETED_SHARE:  # ahead: of a store before a restore
                await self._renew_lexical(views, head)
            elif index.lsn < head.lsn:
                await self._feed_lexical(index, views.scope, head)
        except CorruptionError:
            await self._workers.run(views.close_lexical)  # opened again, and so checked, at the next step
            raise
        await self._feed_memory(views, head, head.lsn)

    async def follow(self, views: ScopeViews) -> None:
        """For other processes: brings the views to where the indexer has brought the lexical index."""
        upto = await self._workers.run(views.look_at_lexical)
        await self._feed_memory(views, await self._store.head(views.scope), upto)

    async def remake(self, views: ScopeViews) -> None:
        """Makes vectors and attributes again from the store, at the LSN where they stand."""
        await self._remake_memory(views, await self._store.head(views.scope), views.lsn)

    async def rebuild(self, views: ScopeViews) -> None:
        """For the indexer: makes all views again from the store, at its head."""
        await self._workers.run(views.open_writer)
        head = await self._store.head(views.scope)
        await self._renew_lexical(views, head)
        await self._remake_memory(views, head, head.lsn)

    async def save(self, views: ScopeViews) -> None:
        """Writes vectors and attributes to disk, then forgets tombstones that no snapshot of the last two needs.

        A snapshot only saves time at the next start: where it cannot be written, the engine goes on without.
        """
        if views.lsn <= 0:
            return
        before = views.snapshot_lsn
        try:
            await self._workers.run(views.save)
            if before:
                await self._store.prune(views.scope, before)
        except RaglineError as failure:
            log.error("no snapshot of %s was written; the next start replays the log: %s", views.scope, failure.message)

    async def _feed_lexical(self, index: LexicalIndex, scope: Scope, head: Head) -> None:
        async for page in self._store.changes(scope, index.lsn, head.lsn, with_passages=True):
            await self._workers.run(index.apply, page.removed, page.rows, page.passages)
        await self._workers.run(index.commit, head.lsn)

    async def _renew_lexical(self, views: ScopeViews, head: Head) -> None:
        """A new generation beside the old one, which goes on answering until the views are published."""
        generation = await self._workers.run(views.begin_generation)
        try:
            await self._feed_lexical(generation, views.scope, head)
        except BaseException:
            await self._workers.run(generation.close)
            raise
        await self._workers.run(views.adopt_generation, generation)

    async def _feed_memory(self, views: ScopeViews, head: Head, upto: int) -> None:
        """Brings vectors and attributes to `upto` and publishes all views at it; from the store where they are damaged."""
        try:
            staged = views if views.lsn >= 0 else await self._workers.run(views.load, head)
            if upto > staged.lsn and (staged.model != head.model or staged.lsn < head.oldest_lsn):
                await self._remake_memory(views, head, upto)
                return
            pages = []
            if upto > staged.lsn:
                async for page in self._store.changes(views.scope, staged.lsn, upto, model=head.model):
                    if staged is views:
                        pages.append(page)
                    else:  # nobody searches it yet
                        await self._workers.run(staged.apply, page)
            await self._publish(views, staged, pages, max(upto, staged.lsn))
        except CorruptionError:
            await self._remake_memory(views, head, upto)

    async def _remake_memory(self, views: ScopeViews, head: Head, upto: int) -> None:
        staged = views.blank(head.model)
        upto = max(upto, 0)
        async for page in self._store.changes(views.scope, 0, upto, model=head.model):
            await self._workers.run(staged.apply, page)
        staged.disown_snapshot()
        await self._publish(views, staged, [], upto)

    async def _publish(self, views: ScopeViews, staged: ScopeViews, pages: Sequence[Changes], upto: int) -> None:
        """Lets searches see `staged` with `pages`, and learns which rows have died since: the pages lack them."""
        gone: Int64 | None = np.empty(0, np.int64)
        now = await self._store.head(views.scope)
        if now.lsn > upto:
            try:
                gone = (await anext(self._store.changes(views.scope, upto, now.lsn))).removed
            except ConflictError:  # pruned by now
                gone = None
        await self._workers.run(views.publish, staged, pages, upto, gone)
