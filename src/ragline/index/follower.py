"""Keeps the views of every scope in step with the store.

In every process, a scope's vectors and attributes live in memory, loaded from a snapshot and fed from the
store's changes. One process per store, the indexer, holds a lock that dies with it; it alone writes the
lexical index and the snapshots. The others reload the lexical index and feed their memory to the same LSN.

All work on one scope goes in steps, one at a time, each a task of its own: whoever waits for a step may leave without
stopping it for the others.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections import OrderedDict
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from ragline.concurrency.locks import ProcessLock
from ragline.concurrency.workers import Workers
from ragline.errors import BackendError, ConflictError, RaglineError
from ragline.index.feeding import Feeder
from ragline.index.lexical import LexicalIndex
from ragline.index.views import ScopeViews
from ragline.settings import IndexSettings
from ragline.storage.base import Head, Store
from ragline.types import Scope

log = logging.getLogger("ragline.index")

CLOSING_SNAPSHOT_ROWS = 512
"""Changed rows below which replaying the log at the next start is cheaper than a snapshot now."""

OPEN_WRITERS = 8
"""Lexical indexes that keep their writer between commits: each costs six threads and some megabytes."""

FOLLOW_S = 0.5
"""How long the follower waits for a commit before it looks whether the indexer lives, or tries again what failed."""

LONGEST_FOLLOW_S = 4.0
"""The same, after trying what failed, or lags behind a busy indexer, has not helped for a while."""

LONGEST_PAUSE_S = 0.05
"""Between two looks at a lexical index that another process writes; the first comes after 2 ms."""


class Residence:
    """A scope's views in this process, and the work on them that is under way."""

    def __init__(self, views: ScopeViews) -> None:
        self.views = views
        self.step: asyncio.Task[None] | None = None
        self.saving: asyncio.Task[None] | None = None

    @property
    def idle(self) -> bool:
        """Whether no step is under way."""
        return self.step is None or self.step.done()


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
        self._feeder = Feeder(store, workers)
        self._lock = ProcessLock(folder / "indexer.lock")
        self._resident: OrderedDict[Scope, Residence] = OrderedDict()
        self._leaving: dict[Scope, asyncio.Task[None]] = {}
        self._writing: OrderedDict[Scope, Residence] = OrderedDict()
        self._indexed: dict[Scope, int] = {}
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def is_indexer(self) -> bool:
        """Whether this process writes the views."""
        return self._lock.held

    async def lags(self) -> dict[Scope, int]:
        """How many LSNs the views of each collection in memory are behind the store."""
        return {
            scope: max(0, (await self._store.head(scope)).lsn - max(residence.views.lsn, 0))
            for scope, residence in list(self._resident.items())
        }

    async def start(self) -> None:
        """Takes the indexer's lock if it is free and begins to follow.

        Raises:
            BackendError: The folder of the views cannot be written.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as failure:
            raise self._unwritable(failure) from failure
        self._become_indexer()
        self._task = asyncio.create_task(self._follow(), name="ragline-follower")

    async def close(self) -> None:
        """Stops following, writes snapshots worth writing, gives the lock back. Twice is harmless."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
            self._task = None
        for scope in list(self._resident):
            self._retire(scope)
        while self._leaving:
            await asyncio.wait(set(self._leaving.values()))
        self._lock.release()

    async def views(self, scope: Scope, *, wait_s: float) -> tuple[ScopeViews, Head]:
        """The scope's views at the store's head, or as near as they get within `wait_s`; and that head.

        The first call for a scope loads its views, and waits for that up to `index.wait_s`.

        Raises:
            RaglineError: The views were never loaded, and cannot be.
        """
        while True:
            head = await self._store.head(scope)
            if not head.model:  # never written, or deleted
                self._retire(scope)
                return self._empty_views(scope, head), head
            residence = self._reside(scope, head)
            await self._reach(residence, head, wait_s)
            if residence.views.at(head) or not residence.views.retired:
                return residence.views, head

    def epoch_at(self, scope: Scope, head: Head) -> int | None:
        """The epoch of the scope's views in this process if they stand at this head; None where they are not there (yet)."""
        residence = self._resident.get(scope)
        if residence is None or not residence.views.at(head) or residence.views.retired:
            return None
        self._resident.move_to_end(scope)
        return residence.views.epoch

    async def mend(self, views: ScopeViews, epoch: int) -> None:
        """Makes vectors and attributes again from the store after a search met damage in them at `epoch`."""
        residence = self._resident.get(views.scope)
        while residence is not None and residence.views is views and views.epoch == epoch and not views.retired:
            if not residence.idle:
                await _ends(residence.step)
                continue
            log.warning("the vectors of %s are damaged on disk and are made again from the store", views.scope)
            step = self._begin(residence, self._mend(views))
            await asyncio.wait({step})
            step.result()

    async def rebuild(self, scope: Scope) -> None:
        """Makes all views of a scope anew from the store; in a process that is not the indexer, those in memory."""
        head = await self._store.head(scope)
        if not head.model:
            return
        residence = self._reside(scope, head)
        while not residence.idle:
            await _ends(residence.step)
        if residence.views.retired:
            return await self.rebuild(scope)
        step = self._begin(residence, self._rebuild(residence.views))
        await asyncio.wait({step})
        step.result()

    # Who is resident

    def _reside(self, scope: Scope, head: Head) -> Residence:
        if self._closed:
            raise BackendError("the views are closed", hint="open the engine again")
        residence = self._resident.get(scope)
        if residence is None:
            residence = self._resident[scope] = Residence(self._new_views(scope, head))
            others = list(self._resident)[: -self._settings.resident_scopes]
            for other in others:  # those that are being worked on go another time
                if self._resident[other].idle:
                    self._retire(other)
        self._resident.move_to_end(scope)
        return residence

    def _retire(self, scope: Scope) -> None:
        """Lets a scope's views go. Searches that still hold them finish; new views wait until these have left."""
        residence = self._resident.pop(scope, None)
        if residence is not None:
            self._writing.pop(scope, None)
            residence.views.retired = True
            leaving = asyncio.create_task(self._leave(residence, self._leaving.get(scope)))
            self._leaving[scope] = leaving
            leaving.add_done_callback(lambda task: self._left(scope, task))

    def _left(self, scope: Scope, task: asyncio.Task[None]) -> None:
        if self._leaving.get(scope) is task:
            del self._leaving[scope]
        _report(task)

    async def _leave(self, residence: Residence, before: asyncio.Task[None] | None) -> None:
        await _ends(before, residence.step, residence.saving)
        views = residence.views
        await self._workers.run(views.close_lexical)
        if self._lock.held and not (await self._store.head(views.scope)).model:
            await self._workers.run(shutil.rmtree, views.folder, ignore_errors=True)
        elif self._lock.held and views.changed_rows >= CLOSING_SNAPSHOT_ROWS:
            await self._feeder.save(views)

    def _new_views(self, scope: Scope, head: Head) -> ScopeViews:
        return ScopeViews(scope, self._folder / str(head.scope_id), self._settings, self._store.incarnation)

    def _empty_views(self, scope: Scope, head: Head) -> ScopeViews:
        views = self._new_views(scope, head)
        views.lsn = head.lsn
        return views

    # Steps

    def _begin(self, residence: Residence, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Starts a step; the one before must have ended."""
        step = residence.step = asyncio.create_task(self._in_turn(residence, work))
        step.add_done_callback(_report)
        return step

    async def _in_turn(self, residence: Residence, work: Coroutine[Any, Any, None]) -> None:
        await _ends(self._leaving.get(residence.views.scope), residence.saving)
        await work

    async def _reach(self, residence: Residence, head: Head, wait_s: float) -> None:
        """Advances views until they stand at `head` or `wait_s` has passed."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        views = residence.views
        pause_s = 0.002
        while not views.at(head) and not views.retired:
            step = residence.step
            if step is None or step.done():
                step = self._begin(residence, self._advance(residence))
            left_s = started - loop.time() + (wait_s if views.lsn >= 0 else max(wait_s, self._settings.wait_s))
            if left_s <= 0:
                return
            await asyncio.wait({step}, timeout=left_s)
            if not step.done():
                return
            failure = step.exception()
            if failure is not None and not isinstance(failure, ConflictError):
                if views.lsn < 0 or not isinstance(failure, RaglineError):
                    raise failure
                return
            if not views.at(head):  # another process writes the lexical index, or the store moved: they need a moment
                await asyncio.sleep(pause_s)
                pause_s = min(1.5 * pause_s, LONGEST_PAUSE_S)

    async def _advance(self, residence: Residence) -> None:
        """One step towards the head."""
        views = residence.views
        if not self._become_indexer():
            await self._feeder.follow(views)
            return
        await self._feeder.advance(views)
        self._note_writer(residence)
        if views.snapshot_due:
            residence.saving = asyncio.create_task(self._feeder.save(views))
            residence.saving.add_done_callback(_report)

    async def _mend(self, views: ScopeViews) -> None:
        await self._feeder.remake(views)
        if self._lock.held:
            await self._feeder.save(views)

    async def _rebuild(self, views: ScopeViews) -> None:
        if self._become_indexer():
            await self._feeder.rebuild(views)
            await self._feeder.save(views)
        else:
            await self._feeder.follow(views)
            await self._feeder.remake(views)

    def _note_writer(self, residence: Residence) -> None:
        """Lets the writer go that was used the longest ago, where too many are open."""
        scope = residence.views.scope
        self._writing[scope] = residence
        self._writing.move_to_end(scope)
        idle = [other for other in self._writing.values() if other.idle]
        if len(self._writing) > OPEN_WRITERS and idle:
            del self._writing[idle[0].views.scope]
            self._begin(idle[0], self._workers.run(idle[0].views.close_writer))

    # Following

    async def _follow(self) -> None:
        """Advances views whenever any process has committed; the indexer does so for every scope."""
        indexer = False
        behind, pause_s = True, 0.0
        while True:
            try:
                moved = await self._store.changed(pause_s)
                if self._become_indexer() and not indexer:
                    indexer = behind = True
                pause_s = FOLLOW_S if moved or not behind else min(max(2 * pause_s, FOLLOW_S), LONGEST_FOLLOW_S)
                if moved or behind:
                    behind = True
                    behind = not await (self._index_all() if indexer else self._follow_residents())
            except Exception as failure:  # whatever it is, the next commit must find somebody at work
                log.error("following the store failed and is tried again", exc_info=failure)
                await asyncio.sleep(FOLLOW_S)

    async def _index_all(self) -> bool:
        """Brings the views of every scope to its head; whether all are there. One that fails does not stop the others."""
        heads = await self._store.heads()
        for scope, head in heads.items():
            if self._indexed.get(scope, -1) < head.lsn and await self._tried(scope, self._index(scope, head)):
                self._indexed[scope] = head.lsn
        return all(self._indexed.get(scope, -1) >= head.lsn for scope, head in heads.items())

    async def _index(self, scope: Scope, head: Head) -> bool:
        folder = self._folder / str(head.scope_id)
        residence = self._resident.get(scope)
        if not head.model:
            if residence is not None or folder.exists():
                self._resident.setdefault(scope, Residence(self._new_views(scope, head)))
                self._retire(scope)
            return True
        if residence is None and await self._workers.run(self._committed_lsn, folder) == head.lsn:
            return True  # nothing to write: who searches it loads it
        residence = residence or self._reside(scope, head)
        await self._reach(residence, head, self._settings.wait_s)
        return residence.views.at(head)

    async def _follow_residents(self) -> bool:
        """Brings the views that are here to the indexer's; whether all are at their heads."""
        current = True
        for scope, residence in list(self._resident.items()):
            head = await self._store.head(scope)
            if not head.model:
                self._retire(scope)
            elif not residence.views.at(head):
                current &= await self._tried(scope, self._reach(residence, head, LONGEST_PAUSE_S)) and residence.views.at(head)
        return current

    async def _tried(self, scope: Scope, work: Coroutine[Any, Any, bool | None]) -> bool:
        try:
            return await work is not False
        except RaglineError as failure:
            log.error("the views of %s stay behind: %s", scope, failure.message)
            return False

    def _committed_lsn(self, folder: Path) -> int:
        return LexicalIndex.committed_lsn(folder / "lexical", incarnation=self._store.incarnation, language=self._settings.language)

    def _become_indexer(self) -> bool:
        """Takes the indexer's lock if it is free; whether this process has it."""
        try:
            return self._lock.held if self._closed else self._lock.acquire()
        except OSError as failure:
            raise self._unwritable(failure) from failure

    def _unwritable(self, failure: OSError) -> BackendError:
        return BackendError(
            f"the views in {self._folder} cannot be written: {failure.strerror or failure}",
            hint="make the folder writable, or name another with --data-dir",
        )


async def _ends(*tasks: asyncio.Task[None] | None) -> None:
    """Waits until these have ended, one way or the other."""
    under_way = {task for task in tasks if task is not None and not task.done()}
    if under_way:
        await asyncio.wait(under_way)


def _report(task: asyncio.Task[None]) -> None:
    """Says what a step failed of; its waiters may all have left. A conflict is no failure: the store has moved on."""
    failure = None if task.cancelled() else task.exception()
    if isinstance(failure, RaglineError) and not isinstance(failure, ConflictError):
        log.error("views stay behind: %s", failure.message)
    elif failure is not None and not isinstance(failure, ConflictError):
        log.error("views stay behind", exc_info=failure)
