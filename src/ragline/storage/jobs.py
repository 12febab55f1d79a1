"""What was accepted and is still to be done? Uploads as rows that outlive the process.

A job is accepted durably, in an order that is kept: of two jobs with a file for the same document, the later one is not
begun before the earlier one has ended. It is worked on under a lease. What became of each of its files is written in the
transaction that stores the document (`storage.base.Transaction.settle`), so that no death of a process loses a file or does one twice.
Jobs move no LSN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from ragline.types import Metadata, Scope

JobState = Literal["queued", "running", "succeeded", "failed", "cancelled"]
FileOutcome = Literal["pending", "added", "replaced", "unchanged", "failed", "cancelled"]


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file to be accepted.

    Attributes:
        document_id: The document that it is to become.
        kind: Whether the body is a text as it was handed over, or the bytes of a file whose format its name and content tell.
        body: The bytes themselves, where they are few; else None.
        path: The name of the file in the folder of uploads that holds them; else "".
    """

    document_id: str
    name: str
    kind: Literal["text", "file"]
    size_bytes: int
    source: str | None = None
    metadata: Metadata = field(default_factory=dict)
    body: bytes | None = None
    path: str = ""


@dataclass(frozen=True, slots=True)
class NewJob:
    """Files to be accepted together, in their order.

    Attributes:
        idempotency_key: The caller's own name for this request, so that sending it again does not accept it again.
        request_hash: Equal for equal requests.
    """

    scope: Scope
    files: Sequence[NewFile]
    idempotency_key: str | None = None
    request_hash: bytes = b""


@dataclass(frozen=True, slots=True)
class JobFile:
    """What became of one file of a job; `error` and `hint` say why, where it failed or was cancelled."""

    document_id: str
    name: str
    source: str | None
    size_bytes: int
    outcome: FileOutcome = "pending"
    error: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Job:
    """Accepted work, and how far it is.

    Attributes:
        state: "succeeded" where every file was added, replaced or unchanged; "failed" where one failed; "cancelled" where
            one was cancelled and none failed.
        attempts: How often it was begun.
        files_total, files_done: Files, and those of them that are not pending any more.
        accepted_at, started_at, ended_at: Seconds since 1970, UTC; None for what has not happened.
        retry_at: When a job that failed for a reason that may pass is tried again.
        error, hint: Why the last attempt failed, and the cure.
        files: In the order given; empty in lists.
    """

    id: str
    collection: str
    state: JobState
    attempts: int
    files_total: int
    files_done: int
    accepted_at: float
    started_at: float | None = None
    ended_at: float | None = None
    retry_at: float | None = None
    error: str = ""
    hint: str = ""
    files: tuple[JobFile, ...] = ()


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to work on a job: gone as soon as another has begun it, or it was cancelled."""

    job: int
    owner: str
    attempt: int


@dataclass(frozen=True, slots=True)
class ClaimedFile:
    """A file that is to be done. `number` names it in `settle`; the rest is as in `NewFile`."""

    number: int
    lease: Lease
    document_id: str
    name: str
    kind: Literal["text", "file"]
    size_bytes: int
    source: str | None
    metadata: Metadata
    body: bytes | None
    path: str


@dataclass(frozen=True, slots=True)
class Claim:
    """Jobs of one scope to be worked on together, and those of their files that are pending, in the order of acceptance."""

    scope: Scope
    leases: tuple[Lease, ...]
    files: tuple[ClaimedFile, ...]


@dataclass(frozen=True, slots=True)
class Settlement:
    """What became of a claimed file."""

    file: int
    outcome: FileOutcome
    error: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class JobCounts:
    """How much there is to do, of all tenants.

    Attributes:
        oldest_queued_s: How long the oldest job that could be begun now has waited; 0 where there is none.
    """

    queued: int = 0
    running: int = 0
    failed: int = 0
    queued_bytes: int = 0
    oldest_queued_s: float = 0.0


class Jobs(Protocol):
    """The jobs of a store. Times are seconds since 1970; every change is committed durably before its method returns."""

    async def add(self, job: NewJob, *, max_jobs: int, max_bytes: int) -> tuple[Job, bool]:
        """Accepts a job; returns it, and whether it is new.

        Not new is one that this tenant has sent before under the same idempotency key: the bodies of `job` are then nobody's.

        Raises:
            ConflictError: The same key came with another request.
            OverloadedError: So many jobs or bytes are waiting already.
            InputError: It has no files, or a text in it cannot be stored.
        """
        ...

    async def must_have_room(
        self, tenant: str, size_bytes: int, *, idempotency_key: str | None = None, max_jobs: int, max_bytes: int
    ) -> None:
        """Raises OverloadedError where `add` would for a job of so many bytes; not for one that was sent before under its key."""
        ...

    async def get(self, tenant: str, id: str) -> Job | None:
        """A job with its files, or None where the tenant has none of this id."""
        ...

    async def list(self, tenant: str, *, state: JobState | None = None, after: str = "", limit: int = 100) -> Sequence[Job]:
        """Jobs without their files, the latest first: at most `limit`, older than the job `after`."""
        ...

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
        """Begins the oldest job that can be begun, and others of its scope with it; None where there is none.

        Tenants that are not in `served` go first: thus one with thousands of jobs does not keep the others waiting.

        A job can be begun that is queued and not to be tried later, or whose lease has run out, and before which no open job has
        a file for the same document. `max_files` and `max_bytes` bound the files of all jobs but the first. One that was begun
        before is claimed alone, for it may be what ended its process. One that was begun `max_attempts` times has failed.
        """
        ...

    async def renew(self, leases: Sequence[Lease], *, until: float) -> Sequence[Lease]:
        """Prolongs leases; returns those that still hold."""
        ...

    async def release(
        self, leases: Sequence[Lease], *, not_before: float = 0.0, error: str = "", hint: str = "", counted: bool = True
    ) -> None:
        """Puts jobs back into the queue, not to be begun before `not_before`. `counted` is whether the attempt counts."""
        ...

    async def fail(self, leases: Sequence[Lease], *, error: str, hint: str) -> None:
        """Ends jobs: what is pending in them has failed. They can be retried as long as they are kept."""
        ...

    async def cancel(self, tenant: str, id: str) -> Job:
        """Cancels what is pending in a job; what was done stays. A job that was cancelled before is given as it is.

        One in which a file has failed already is "failed" from then on: that file can be retried.

        Raises:
            NotFoundError: The tenant has no such job.
            ConflictError: It has ended otherwise.
        """
        ...

    async def retry(self, tenant: str, id: str) -> Job:
        """Queues a failed job again, with the files that failed. A file whose document was uploaded again since is cancelled.

        Raises:
            NotFoundError: The tenant has no such job.
            ConflictError: It has not failed.
        """
        ...

    async def recover(self) -> int:
        """Makes all running jobs ready to be begun again: for one who knows that nobody works on them. How many there were."""
        ...

    async def counts(self) -> JobCounts:
        """How much there is to do."""
        ...

    async def prune(self, *, before: float) -> int:
        """Forgets jobs that ended before then; how many."""
        ...

    async def discarded(self) -> Sequence[str]:
        """Files in the folder of uploads that are not needed any more; `forget` them once they are gone."""
        ...

    async def forget(self, paths: Sequence[str]) -> None:
        """Takes files out of `discarded`."""
        ...

    async def known_paths(self, paths: Sequence[str]) -> frozenset[str]:
        """Those of the files that a job needs, or that are in `discarded`."""
        ...
