"""Does accepted jobs, one process at a time, each file of each job once."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import time
from collections.abc import Awaitable, Callable, Collection, Sequence

from ragline.concurrency.locks import ProcessLock
from ragline.errors import BackendError, CorruptionError, DeadlineError, OverloadedError, RaglineError, SettingsError
from ragline.jobs.uploads import Uploads
from ragline.settings import JobsSettings
from ragline.storage.jobs import Claim, Jobs, Lease

log = logging.getLogger("ragline.jobs")

BATCH_FILES = 64
BATCH_BYTES = 1024**2
"""Small jobs are begun together up to these bounds: they are embedded together and share a commit, which comes within seconds."""

LOOK_S = 0.05
"""Between two looks at whether any process has committed anything."""

IDLE_S = 1.0
"""Between two looks at the queue when nobody has: for retries that have become due and leases that ran out."""

TAKE_OVER_S = 0.5
"""Between two attempts to become the process that works on jobs."""

TIDY_S = 3600.0
"""Between two rounds of forgetting old jobs and sweeping files that nobody knows."""

_ROUND = 256
"""Tenants that take turns at most; with more, a new round begins early."""

Handle = Callable[[Claim], Awaitable[Collection[int]]]
"""Works on a claim; the numbers of its files that need nothing more."""


class JobRunner:
    """Takes jobs from the store and has them done until it is stopped.

    Args:
        version: Differs wherever any process has committed something.
        handle: Does the work and settles each file in the store.
        lock: Held by the one process that works on jobs; it dies with its holder. None where the leases alone must do.
        clock: Seconds since 1970, as other processes count them.
    """

    def __init__(
        self,
        jobs: Jobs,
        version: Callable[[], int],
        handle: Handle,
        uploads: Uploads,
        settings: JobsSettings,
        *,
        lock: ProcessLock | None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._jobs = jobs
        self._version = version
        self._handle = handle
        self._uploads = uploads
        self._settings = settings
        self._lock = lock
        self._clock = clock
        self._owner = secrets.token_hex(8)
        self._task: asyncio.Task[None] | None = None
        self._working: set[asyncio.Task[None]] = set()
        self._woken = asyncio.Event()
        self._leads = False
        self._served: list[str] = []
        self._tidied_at = float("-inf")

    @property
    def working(self) -> bool:
        """Whether this process is the one that works on jobs."""
        return self._leads

    def start(self) -> None:
        """Begins to look for jobs. Twice is harmless."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="ragline-jobs")

    def wake(self) -> None:
        """Says that there is a new job."""
        self._woken.set()

    async def stop(self) -> None:
        """Gives up what is under way, which is begun again later, and the lock. Twice is harmless."""
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        await asyncio.wait({task})
        working = set(self._working)
        for each in working:
            each.cancel()
        if working:
            await asyncio.wait(working)
        self._leads = False
        if self._lock is not None:
            self._lock.release()

    async def run_once(self) -> bool:
        """Begins and ends one batch, if there is one to begin; whether there was."""
        claim = await self._claim()
        if claim is None:
            return False
        await self._work(claim)
        return True

    # Looking for work

    async def _run(self) -> None:
        while True:
            try:
                if not await self._lead():
                    await asyncio.sleep(TAKE_OVER_S)
                    continue
                version = self._version()
                self._woken.clear()
                await self._tidy()
                if not await self._begin_all():
                    await self._news(version)
            except Exception as failure:  # whatever it is, the next job must find somebody at work
                log.error("looking for jobs failed and is tried again", exc_info=failure)
                await asyncio.sleep(IDLE_S)

    async def _lead(self) -> bool:
        """Whether this is the process that works on jobs, which it becomes where there is none."""
        if not self._leads and (self._lock is None or self._lock.acquire()):
            if self._lock is not None and (left := await self._jobs.recover()):
                log.warning("%d jobs were left unfinished by a process that ended; they are begun again", left)
            self._leads = True
        return self._leads

    async def _begin_all(self) -> bool:
        """Begins jobs until none is left or no more may be under way; whether any was begun."""
        begun = False
        while len(self._working) < self._settings.parallel and (claim := await self._claim()) is not None:
            task = asyncio.create_task(self._work(claim))
            self._working.add(task)
            task.add_done_callback(self._ended)
            begun = True
        return begun

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._working.discard(task)
        self._woken.set()
        if not task.cancelled() and (failure := task.exception()) is not None:
            log.error("a batch of jobs could not be ended; it is begun again when its lease runs out", exc_info=failure)

    async def _news(self, version: int) -> None:
        """Waits for a new job, the end of one, a commit of any process, or a while."""
        looks = int(IDLE_S / LOOK_S)
        while looks and not self._woken.is_set() and self._version() == version:
            try:
                async with asyncio.timeout(LOOK_S):  # not wait_for, which can lose a cancellation before Python 3.12
                    await self._woken.wait()
            except TimeoutError:
                looks -= 1

    async def _claim(self) -> Claim | None:
        claim = await self._jobs.claim(
            self._owner,
            now=self._clock(),
            lease_s=self._settings.lease_s,
            max_files=BATCH_FILES,
            max_bytes=BATCH_BYTES,
            max_attempts=self._settings.max_attempts,
            served=self._served,
        )
        if claim is not None:
            if claim.scope.tenant in self._served or len(self._served) >= _ROUND:  # all who wait had their turn: another round
                self._served.clear()
            self._served.append(claim.scope.tenant)
        return claim

    async def _tidy(self) -> None:
        """Deletes the files of jobs that are done with them; now and then forgets what is old."""
        if discarded := await self._jobs.discarded():
            await self._uploads.remove(discarded)
            await self._jobs.forget(discarded)
        if self._clock() - self._tidied_at >= TIDY_S:
            self._tidied_at = self._clock()
            await self._jobs.prune(before=self._clock() - self._settings.keep_s)
            await self._uploads.sweep(self._jobs)

    # Working

    async def _work(self, claim: Claim) -> None:
        """Has a claim done; what failed is tried again, or has failed."""
        handling = asyncio.ensure_future(self._handle(claim))
        holding = asyncio.create_task(self._hold(claim.leases, handling))
        try:
            await asyncio.wait({handling})
        except asyncio.CancelledError:
            handling.cancel()
            await asyncio.wait({handling})
            await self._jobs.release(claim.leases, counted=False)
            raise
        finally:
            holding.cancel()
            await asyncio.wait({holding})
        if handling.cancelled():
            return  # another process has taken all of it over, or it was cancelled
        failure = handling.exception()
        if failure is not None:
            await self._failed(claim.leases, failure)
        elif left := {file.lease for file in claim.files if file.number not in handling.result()}:
            await self._failed(sorted(left, key=lambda lease: lease.job), BackendError("it was left undone", hint="retry it"))

    async def _hold(self, leases: Sequence[Lease], work: asyncio.Future[Collection[int]]) -> None:
        """Keeps leases while the work goes on; ends the work when none is left."""
        while True:
            await asyncio.sleep(self._settings.lease_s / 3)
            try:
                if not await self._jobs.renew(leases, until=self._clock() + self._settings.lease_s):
                    work.cancel()
                    return
            except RaglineError as failure:  # the store may be back before the lease runs out
                log.warning("a lease could not be renewed: %s", failure.message)

    async def _failed(self, leases: Sequence[Lease], failure: BaseException) -> None:
        error, hint = _told(failure)
        if len(leases) > 1:  # whose fault it was shows when each is done alone
            log.warning("a batch of %d jobs failed, each is begun again alone: %s", len(leases), error, exc_info=failure)
            await self._jobs.release(leases, error=error, hint=hint)
            return
        attempt = leases[0].attempt
        if not _may_pass(failure) or attempt >= self._settings.max_attempts:
            log.error("a job failed: %s", error, exc_info=failure)
            await self._jobs.fail(leases, error=error, hint=hint)
            return
        wait_s = self._wait_s(attempt)
        log.warning("a job failed and is tried again in %.0f s: %s", wait_s, error, exc_info=failure)
        await self._jobs.release(leases, not_before=self._clock() + wait_s, error=error, hint=hint)

    def _wait_s(self, attempt: int) -> float:
        """Four times longer each time, and up to half of it less: what failed together does not come back together."""
        longest = min(self._settings.longest_wait_s, self._settings.first_wait_s * 4.0 ** min(attempt - 1, 32))
        return random.uniform(longest / 2, longest)


def _may_pass(failure: BaseException) -> bool:
    """Whether trying again can help. A fault of ours is tried again as well: it may depend on the moment."""
    return isinstance(failure, BackendError | OverloadedError | DeadlineError) or not isinstance(failure, RaglineError)


def _told(failure: BaseException) -> tuple[str, str]:
    """What is written down of a failure for whoever sent the job; names of servers and folders are for the log alone."""
    if isinstance(failure, RaglineError) and not isinstance(failure, BackendError | CorruptionError | SettingsError):
        return failure.message, failure.hint
    return "something that it needs failed while it was worked on", "retry it later; the log of the process that worked on it says more"
