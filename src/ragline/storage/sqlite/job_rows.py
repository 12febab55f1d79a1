"""The jobs as rows. Each function runs on a connection that is lent to it; those that change something, within a transaction.

What a file of a job holds goes with its outcome: only of what is pending or has failed are the bytes kept.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import replace

import apsw

from ragline.errors import ConflictError, InputError, NotFoundError, OverloadedError
from ragline.storage.encoding import check_text, metadata_to_json, storable, text_fault
from ragline.storage.jobs import Job, JobCounts, JobFile, JobState, Lease, NewJob, Settlement
from ragline.storage.sqlite.connections import query, snapshot
from ragline.types import Scope

_JOB = """
    SELECT
        j.id, j.collection, j.state, j.attempt, j.file_count,
        j.file_count - (SELECT count(*) FROM job_files AS f WHERE f.job = j.number AND f.outcome = 'pending'),
        j.accepted_at, j.started_at, j.ended_at,
        CASE WHEN j.state = 'queued' AND j.not_before > 0 THEN j.not_before END,
        j.error, j.hint, j.number
    FROM jobs AS j
    """
_RATE_S = 60.0
"""Over which it is measured how fast jobs are done."""

_SUPERSEDED = "a later upload of this document was accepted"
_DELETED = "the document was deleted after this upload was accepted"


def add(connection: apsw.Connection, job: NewJob, max_jobs: int, max_bytes: int, now: float) -> tuple[Job, bool]:
    """See `Jobs.add`."""
    size_bytes = sum(file.size_bytes for file in job.files)
    _check(job)
    if job.idempotency_key is not None:
        sql = "SELECT id, request_hash FROM jobs WHERE tenant = ? AND idempotency_key = ?"
        for id, request_hash in query(connection, sql, (job.scope.tenant, job.idempotency_key)):
            if request_hash != job.request_hash:
                raise ConflictError(
                    f"the idempotency key {job.idempotency_key!r} was used for another request", hint="give each request a key of its own"
                )
            return _found(connection, job.scope.tenant, id), False
    _must_have_room(connection, size_bytes, max_jobs, max_bytes, now)
    id = f"job_{secrets.token_hex(12)}"
    number = connection.execute(
        """
        INSERT INTO jobs (id, tenant, collection, accepted_at, size_bytes, file_count, idempotency_key, request_hash)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?)
        RETURNING number
        """,
        (id, job.scope.tenant, job.scope.collection, now, size_bytes, len(job.files), job.idempotency_key, job.request_hash),
    ).get
    for file in job.files:
        file_number = connection.execute(
            """
            INSERT INTO job_files (job, document_id, name, kind, size_bytes, source, metadata, path)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?)
            RETURNING number
            """,
            (
                number,
                file.document_id,
                file.name,
                file.kind,
                file.size_bytes,
                file.source,
                metadata_to_json(file.document_id, file.metadata),
                file.path or None,
            ),
        ).get
        if file.body is not None:
            connection.execute("INSERT INTO job_bodies (file, body) VALUES (?, ?)", (file_number, file.body))
    return _found(connection, job.scope.tenant, id), True


def must_have_room(
    connection: apsw.Connection, tenant: str, idempotency_key: str | None, size_bytes: int, max_jobs: int, max_bytes: int, now: float
) -> None:
    """See `Jobs.must_have_room`."""
    sql = "SELECT 1 FROM jobs WHERE tenant = ? AND idempotency_key = ?"
    if idempotency_key is None or not query(connection, sql, (tenant, idempotency_key)):
        _must_have_room(connection, size_bytes, max_jobs, max_bytes, now)


def _must_have_room(connection: apsw.Connection, size_bytes: int, max_jobs: int, max_bytes: int, now: float) -> None:
    jobs, waiting_bytes = query(connection, "SELECT count(*), coalesce(sum(size_bytes), 0) FROM jobs WHERE ended_at IS NULL")[0]
    if jobs >= max_jobs or (waiting_bytes and waiting_bytes + size_bytes > max_bytes):
        done = query(connection, "SELECT count(*), coalesce(sum(size_bytes), 0) FROM jobs WHERE ended_at > ?", (now - _RATE_S,))[0]
        over = (jobs + 1 - max_jobs, waiting_bytes + size_bytes - max_bytes)
        raise OverloadedError(
            f"{jobs:,} uploads of {waiting_bytes:,} bytes are waiting to be worked on",
            hint="wait until some are done, or raise jobs.max_queued and jobs.max_queued_bytes",
            retry_after_s=_until_room_s(over, done),
        )


def _until_room_s(over: Sequence[int], done: Sequence[int]) -> float:
    """When what is too much will have been worked off, if that goes on as it did: within 1 to 60 s."""
    waits = [_RATE_S * much / max(1, rate) for much, rate in zip(over, done, strict=True) if much > 0]
    return min(60.0, max([1.0, *waits]))


def _check(job: NewJob) -> None:
    if not job.files:
        raise InputError("there is nothing to ingest", hint="give at least one file or text")
    check_text(job.idempotency_key or "", "the idempotency key")
    for file in job.files:
        if not file.document_id:
            raise InputError("a document has an empty id", hint="give it an id, or none to have one made")
        check_text(file.document_id, f"the document id {file.document_id!r}")
        check_text(file.name, f"the name {file.name!r}")
        check_text(file.source or "", f"the source {file.source!r}")
        metadata_to_json(file.document_id, file.metadata)
        if (file.body is None) == (not file.path):
            raise InputError(f"the file {file.name!r} has no body, or two", hint="give its bytes, or the file that holds them")


def seen(connection: apsw.Connection, tenant: str, id: str) -> Job | None:
    """See `Jobs.get`. One read transaction, for its files belong to its state."""
    with snapshot(connection):
        return _get(connection, tenant, id)


def _get(connection: apsw.Connection, tenant: str, id: str) -> Job | None:
    if text_fault(id):
        return None
    found = query(connection, _JOB + " WHERE j.id = ? AND j.tenant = ?", (id, tenant))
    if not found:
        return None
    *row, number = found[0]
    files = query(
        connection,
        "SELECT document_id, name, source, size_bytes, outcome, error, hint FROM job_files WHERE job = ? ORDER BY number",
        (number,),
    )
    return replace(Job(*row), files=tuple(JobFile(*file) for file in files))


def _found(connection: apsw.Connection, tenant: str, id: str) -> Job:
    job = _get(connection, tenant, id)
    if job is None:
        raise NotFoundError(f"there is no job {id!r}", hint="jobs are forgotten some days after their end: see jobs.keep_s")
    return job


def listed(connection: apsw.Connection, tenant: str, state: JobState | None, after: str, limit: int) -> list[Job]:
    """See `Jobs.list`."""
    if text_fault(after):
        return []
    found = query(
        connection,
        _JOB
        + """
        WHERE j.tenant = :tenant AND (:state IS NULL OR j.state = :state)
            AND (:after = '' OR j.number < (SELECT number FROM jobs WHERE id = :after AND tenant = :tenant))
        ORDER BY j.number DESC
        LIMIT :limit
        """,
        {"tenant": tenant, "state": state, "after": after, "limit": limit},
    )
    return [Job(*row) for *row, _ in found]


def counts(connection: apsw.Connection, now: float) -> JobCounts:
    """See `Jobs.counts`."""
    queued, running, size_bytes, oldest = query(
        connection,
        """
        SELECT
            count(*) FILTER (WHERE state = 'queued'),
            count(*) FILTER (WHERE state = 'running'),
            coalesce(sum(size_bytes) FILTER (WHERE state = 'queued'), 0),
            min(max(accepted_at, not_before)) FILTER (WHERE state = 'queued' AND not_before <= ?)
        FROM jobs WHERE ended_at IS NULL
        """,
        (now,),
    )[0]
    failed = connection.execute("SELECT count(*) FROM jobs WHERE state = 'failed'").get
    return JobCounts(queued, running, failed, size_bytes, max(0.0, now - oldest) if oldest is not None else 0.0)


def cancel(connection: apsw.Connection, tenant: str, id: str, now: float) -> Job:
    """See `Jobs.cancel`."""
    job = _found(connection, tenant, id)
    if job.state in ("succeeded", "failed"):
        raise ConflictError(f"the job {id!r} has {job.state} already", hint="only a job that is queued or running can be cancelled")
    if job.state != "cancelled":
        number = _number(connection, id)
        pending = query(connection, "SELECT number FROM job_files WHERE job = ? AND outcome = 'pending'", (number,))
        set_outcomes(connection, [Settlement(file, "cancelled", "the job was cancelled") for (file,) in pending])
        end_finished(connection, [number], now)
    return _found(connection, tenant, id)


def retry(connection: apsw.Connection, tenant: str, id: str, now: float) -> Job:
    """See `Jobs.retry`."""
    job = _found(connection, tenant, id)
    if job.state != "failed":
        raise ConflictError(f"the job {id!r} is {job.state}", hint="only a job that has failed can be retried")
    number = _number(connection, id)
    superseded = query(
        connection,
        """
        SELECT f.number
        FROM job_files AS f JOIN jobs AS j ON j.number = f.job
        WHERE f.job = ? AND f.outcome = 'failed' AND EXISTS (
            SELECT 1
            FROM job_files AS later JOIN jobs AS k ON k.number = later.job
            WHERE later.document_id = f.document_id AND later.job > f.job AND later.outcome NOT IN ('failed', 'cancelled')
                AND k.tenant = j.tenant AND k.collection = j.collection
        )
        """,
        (number,),
    )
    set_outcomes(connection, [Settlement(file, "cancelled", _SUPERSEDED) for (file,) in superseded])
    connection.execute("UPDATE job_files SET outcome = 'pending', error = '', hint = '' WHERE job = ? AND outcome = 'failed'", (number,))
    connection.execute(
        "UPDATE jobs SET state = 'queued', attempt = 0, not_before = 0, ended_at = NULL, error = '', hint = '' WHERE number = ?", (number,)
    )
    end_finished(connection, [number], now)
    return _found(connection, tenant, id)


def _number(connection: apsw.Connection, id: str) -> int:
    return int(connection.execute("SELECT number FROM jobs WHERE id = ?", (id,)).get)


# What a transaction does with jobs


def unsettled(connection: apsw.Connection, leases: Sequence[Lease]) -> frozenset[int]:
    """The pending files of those of the jobs whose leases hold."""
    sql = "SELECT number FROM job_files WHERE job = ? AND outcome = 'pending'"
    held = [lease for lease in leases if holds(connection, lease)]
    return frozenset(number for lease in held for (number,) in query(connection, sql, (lease.job,)))


def settle(connection: apsw.Connection, leases: Sequence[Lease], settlements: Sequence[Settlement], now: float) -> None:
    """See `Transaction.settle`."""
    if not {settlement.file for settlement in settlements} <= unsettled(connection, leases):
        raise ConflictError("another process has taken over a job, or it was cancelled", hint="leave it to that process")
    set_outcomes(connection, settlements)
    end_finished(connection, [lease.job for lease in leases], now)


def cancel_deleted(connection: apsw.Connection, scope: Scope, ids: Sequence[str] | None, now: float) -> set[str]:
    """Cancels what waits to become one of these documents (None: any of the scope): their deletion was asked for later.

    What failed to become one of them is let go of as well: deleted is deleted. Returns the ids of those of which there was something.
    """
    if ids is None:
        found = query(
            connection,
            """
            SELECT f.number, f.job, f.document_id FROM jobs AS j CROSS JOIN job_files AS f ON f.job = j.number
            WHERE j.tenant = ? AND j.collection = ? AND f.outcome IN ('pending', 'failed')
            """,
            (scope.tenant, scope.collection),
        )
    else:
        sql = """
            SELECT f.number, f.job, f.document_id FROM job_files AS f CROSS JOIN jobs AS j ON j.number = f.job
            WHERE f.document_id = ? AND f.outcome IN ('pending', 'failed') AND j.tenant = ? AND j.collection = ?
            """
        found = [row for id in storable(ids) for row in query(connection, sql, (id, scope.tenant, scope.collection))]
    set_outcomes(connection, [Settlement(file, "cancelled", _DELETED) for file, *_ in found])
    end_finished(connection, sorted({job for _, job, _ in found}), now)
    return {id for *_, id in found}


def set_outcomes(connection: apsw.Connection, settlements: Iterable[Settlement]) -> None:
    """Writes what became of files, and lets go of the bytes of all that has not failed."""
    for settlement in settlements:
        connection.execute(
            "UPDATE job_files SET outcome = ?, error = ?, hint = ? WHERE number = ?",
            (settlement.outcome, _clean(settlement.error), _clean(settlement.hint), settlement.file),
        )
        if settlement.outcome != "failed":
            discard(connection, settlement.file)


def discard(connection: apsw.Connection, file: int) -> None:
    """Lets go of a file's bytes, and of its metadata."""
    connection.execute("INSERT OR IGNORE INTO discarded_uploads SELECT path FROM job_files WHERE number = ? AND path IS NOT NULL", (file,))
    connection.execute("UPDATE job_files SET path = NULL, metadata = '{}' WHERE number = ?", (file,))
    connection.execute("DELETE FROM job_bodies WHERE file = ?", (file,))


def end_finished(connection: apsw.Connection, jobs: Sequence[int], now: float) -> None:
    """Ends those of the open jobs in which nothing is pending."""
    connection.executemany(
        """
        UPDATE jobs SET ended_at = :now, owner = '', state = CASE
            WHEN EXISTS (SELECT 1 FROM job_files WHERE job = :job AND outcome = 'failed') THEN 'failed'
            WHEN EXISTS (SELECT 1 FROM job_files WHERE job = :job AND outcome = 'cancelled') THEN 'cancelled'
            ELSE 'succeeded'
        END
        WHERE number = :job AND ended_at IS NULL AND NOT EXISTS (SELECT 1 FROM job_files WHERE job = :job AND outcome = 'pending')
        """,
        ({"job": job, "now": now} for job in dict.fromkeys(jobs)),
    )


def holds(connection: apsw.Connection, lease: Lease) -> bool:
    """Whether nobody has begun the job since, and it has not ended."""
    return bool(
        connection.execute(
            "SELECT count(*) FROM jobs WHERE number = ? AND owner = ? AND attempt = ? AND state = 'running'",
            (lease.job, lease.owner, lease.attempt),
        ).get
    )


def _clean(text: str) -> str:
    """Errors can quote what nobody can store."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()
