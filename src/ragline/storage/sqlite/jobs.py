"""The jobs of a store in SQLite: what `storage.jobs.Jobs` promises, by way of `job_rows` and `job_queue`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

from ragline.storage.jobs import Claim, Job, JobCounts, JobState, Lease, NewJob
from ragline.storage.sqlite import job_queue, job_rows
from ragline.storage.sqlite.access import Ask
from ragline.storage.sqlite.writer import Writer

P = ParamSpec("P")
T = TypeVar("T")

_PRUNED_AT_ONCE = 200


class SqliteJobs:
    """See `storage.jobs.Jobs`. Made by the store; what is changed at the same time shares a commit with all else."""

    def __init__(self, writer: Writer, read: Ask, clock: Callable[[], float] = time.time) -> None:
        self._writer = writer
        self._read = read
        self._clock = clock

    async def add(self, job: NewJob, *, max_jobs: int, max_bytes: int) -> tuple[Job, bool]:
        """Accepts a job; returns it, and whether it is new."""
        return await self._change(job_rows.add, job, max_jobs, max_bytes, self._clock())

    async def must_have_room(
        self, tenant: str, size_bytes: int, *, idempotency_key: str | None = None, max_jobs: int, max_bytes: int
    ) -> None:
        """Raises OverloadedError where a job of so many bytes would not be accepted."""
        await self._read(job_rows.must_have_room, tenant, idempotency_key, size_bytes, max_jobs, max_bytes, self._clock())

    async def get(self, tenant: str, id: str) -> Job | None:
        """A job with its files, or None where the tenant has none of this id."""
        return await self._read(job_rows.seen, tenant, id)

    async def list(self, tenant: str, *, state: JobState | None = None, after: str = "", limit: int = 100) -> Sequence[Job]:
        """Jobs without their files, the latest first."""
        return await self._read(job_rows.listed, tenant, state, after, limit)

    async def claim(
        self,
        owner: str,
        *,
        now: float,
        lease_s: float,
        max_files: int,
        max_bytes: int,
        max_attempts: int,
        served: Sequence[str] = (),
    ) -> Claim | None:
        """Begins the oldest job that can be begun, and others of its scope with it; None where there is none."""
        if not await self._read(job_queue.may_claim, now):  # a look costs less than the writer's turn
            return None
        return await self._change(job_queue.claim, owner, now, lease_s, max_files, max_bytes, max_attempts, served)

    async def renew(self, leases: Sequence[Lease], *, until: float) -> Sequence[Lease]:
        """Prolongs leases; returns those that still hold."""
        return await self._change(job_queue.renew, leases, until)

    async def release(
        self, leases: Sequence[Lease], *, not_before: float = 0.0, error: str = "", hint: str = "", counted: bool = True
    ) -> None:
        """Puts jobs back into the queue."""
        await self._change(job_queue.release, leases, not_before, error, hint, counted)

    async def fail(self, leases: Sequence[Lease], *, error: str, hint: str) -> None:
        """Ends jobs: what is pending in them has failed."""
        await self._change(job_queue.fail, leases, error, hint, self._clock())

    async def cancel(self, tenant: str, id: str) -> Job:
        """Cancels what is pending in a job."""
        return await self._change(job_rows.cancel, tenant, id, self._clock())

    async def retry(self, tenant: str, id: str) -> Job:
        """Queues a failed job again, with the files that failed."""
        return await self._change(job_rows.retry, tenant, id, self._clock())

    async def recover(self) -> int:
        """Makes all running jobs ready to be begun again."""
        return await self._change(job_queue.recover)

    async def counts(self) -> JobCounts:
        """How much there is to do."""
        return await self._read(job_rows.counts, self._clock())

    async def prune(self, *, before: float) -> int:
        """Forgets jobs that ended before then, in several short transactions."""
        pruned = 0
        while await self._read(job_queue.prunable, before):
            pruned += await self._change(job_queue.prune, before, _PRUNED_AT_ONCE)
        return pruned

    async def discarded(self) -> Sequence[str]:
        """Files in the folder of uploads that are not needed any more."""
        return await self._read(job_queue.discarded)

    async def forget(self, paths: Sequence[str]) -> None:
        """Takes files out of `discarded`."""
        await self._change(job_queue.forget, paths)

    async def known_paths(self, paths: Sequence[str]) -> frozenset[str]:
        """Those of the files that a job needs, or that are in `discarded`."""
        return await self._read(job_queue.known_paths, paths)

    async def _change(self, change: Callable[..., T], /, *args: Any) -> T:
        return await self._writer.write(change, self._writer.connection, *args)
