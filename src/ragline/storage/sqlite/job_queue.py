"""Who works on which job: claims, leases, and what is done with jobs whose time has come."""

from __future__ import annotations

import json
from collections.abc import Sequence

import apsw

from ragline.storage.encoding import storable
from ragline.storage.jobs import Claim, ClaimedFile, Lease, Settlement
from ragline.storage.sqlite.connections import query
from ragline.storage.sqlite.job_rows import discard, end_finished, holds, set_outcomes
from ragline.types import Scope

_LOOKED_AT = 256
"""Jobs looked at for one claim, beyond which the rest waits for the next."""

_READY = """
    SELECT j.number, j.tenant, j.collection, j.attempt, j.state, j.size_bytes, j.file_count
    FROM jobs AS j
    WHERE j.ended_at IS NULL
        AND ((j.state = 'queued' AND j.not_before <= :now) OR (j.state = 'running' AND j.lease_until <= :now))
        AND (:served IS NULL OR j.tenant NOT IN (SELECT value FROM json_each(:served)))
        AND (:tenant IS NULL OR (j.tenant = :tenant AND j.collection = :collection AND j.attempt = 0 AND j.number > :first))
        AND NOT EXISTS (
            SELECT 1
            FROM job_files AS f
            CROSS JOIN job_files AS earlier ON earlier.document_id = f.document_id AND earlier.job < f.job
            CROSS JOIN jobs AS k ON k.number = earlier.job
            WHERE f.job = j.number AND f.outcome = 'pending' AND earlier.outcome = 'pending'
                AND k.ended_at IS NULL AND k.tenant = j.tenant AND k.collection = j.collection
        )
    ORDER BY j.number
    LIMIT :limit
    """


def may_claim(connection: apsw.Connection, now: float) -> bool:
    """Whether any job is ready, its place in the order of its documents aside."""
    return bool(
        query(
            connection,
            """
            SELECT 1 FROM jobs
            WHERE ended_at IS NULL AND ((state = 'queued' AND not_before <= ?1) OR (state = 'running' AND lease_until <= ?1))
            LIMIT 1
            """,
            (now,),
        )
    )


def claim(
    connection: apsw.Connection,
    owner: str,
    now: float,
    lease_s: float,
    max_files: int,
    max_bytes: int,
    max_attempts: int,
    served: Sequence[str],
) -> Claim | None:
    """See `Jobs.claim`."""
    while True:
        bindings = {"now": now, "served": None, "tenant": None, "collection": None, "first": 0, "limit": 1}
        found = query(connection, _READY, {**bindings, "served": json.dumps(list(served))}) if served else []
        found = found or query(connection, _READY, bindings)
        if not found:
            return None
        number, tenant, collection, attempt, state, size_bytes, file_count = found[0]
        if attempt < max_attempts or state == "queued":
            break
        # Its lease ran out. One that was given back as often failed with others and is begun once more, alone, or has failed there.
        lost = f"the process that worked on it ended {attempt} times before it was done"
        _fail(connection, number, lost, "retry it once the cause is found; the server's log may tell", now)
    numbers = [number]
    if attempt == 0:
        others = query(connection, _READY, {**bindings, "tenant": tenant, "collection": collection, "first": number, "limit": _LOOKED_AT})
        for other, _, _, _, _, other_bytes, other_files in others:
            size_bytes, file_count = size_bytes + other_bytes, file_count + other_files
            if file_count > max_files or size_bytes > max_bytes:
                break
            numbers.append(other)
    connection.executemany(
        """
        UPDATE jobs SET state = 'running', owner = ?, attempt = attempt + 1, lease_until = ?, started_at = coalesce(started_at, ?)
        WHERE number = ?
        """,
        ((owner, now + lease_s, now, each) for each in numbers),
    )
    leases = tuple(Lease(each, owner, attempt + 1) for each in numbers)
    return Claim(Scope(tenant, collection), leases, tuple(file for lease in leases for file in _files(connection, lease)))


def _files(connection: apsw.Connection, lease: Lease) -> list[ClaimedFile]:
    found = query(
        connection,
        """
        SELECT f.number, f.document_id, f.name, f.kind, f.size_bytes, f.source, f.metadata, b.body, coalesce(f.path, '')
        FROM job_files AS f LEFT JOIN job_bodies AS b ON b.file = f.number
        WHERE f.job = ? AND f.outcome = 'pending'
        ORDER BY f.number
        """,
        (lease.job,),
    )
    return [
        ClaimedFile(number, lease, document_id, name, kind, size_bytes, source, json.loads(metadata), body, path)
        for number, document_id, name, kind, size_bytes, source, metadata, body, path in found
    ]


def renew(connection: apsw.Connection, leases: Sequence[Lease], until: float) -> list[Lease]:
    """See `Jobs.renew`."""
    held = [lease for lease in leases if holds(connection, lease)]
    connection.executemany("UPDATE jobs SET lease_until = ? WHERE number = ?", ((until, lease.job) for lease in held))
    return held


def release(connection: apsw.Connection, leases: Sequence[Lease], not_before: float, error: str, hint: str, counted: bool) -> None:
    """See `Jobs.release`."""
    connection.executemany(
        """
        UPDATE jobs SET state = 'queued', owner = '', not_before = ?, error = ?, hint = ?, attempt = attempt - ?
        WHERE number = ?
        """,
        ((not_before, error, hint, 0 if counted else 1, lease.job) for lease in leases if holds(connection, lease)),
    )


def fail(connection: apsw.Connection, leases: Sequence[Lease], error: str, hint: str, now: float) -> None:
    """See `Jobs.fail`."""
    for lease in leases:
        if holds(connection, lease):
            _fail(connection, lease.job, error, hint, now)


def _fail(connection: apsw.Connection, job: int, error: str, hint: str, now: float) -> None:
    pending = query(connection, "SELECT number FROM job_files WHERE job = ? AND outcome = 'pending'", (job,))
    set_outcomes(connection, [Settlement(file, "failed", error, hint) for (file,) in pending])
    connection.execute("UPDATE jobs SET error = ?, hint = ? WHERE number = ?", (error, hint, job))
    end_finished(connection, [job], now)


def recover(connection: apsw.Connection) -> int:
    """See `Jobs.recover`."""
    connection.execute("UPDATE jobs SET lease_until = 0, owner = '' WHERE ended_at IS NULL AND state = 'running'")
    return connection.changes()


def prunable(connection: apsw.Connection, before: float) -> bool:
    """Whether any job ended before then."""
    return bool(query(connection, "SELECT 1 FROM jobs WHERE ended_at IS NOT NULL AND ended_at < ? LIMIT 1", (before,)))


def prune(connection: apsw.Connection, before: float, limit: int) -> int:
    """Forgets at most `limit` of the jobs that ended before then; how many."""
    ended = query(connection, "SELECT number FROM jobs WHERE ended_at IS NOT NULL AND ended_at < ? LIMIT ?", (before, limit))
    for (job,) in ended:
        for (file,) in query(connection, "SELECT number FROM job_files WHERE job = ?", (job,)):
            discard(connection, file)
        connection.execute("DELETE FROM job_files WHERE job = ?", (job,))
        connection.execute("DELETE FROM jobs WHERE number = ?", (job,))
    return len(ended)


def discarded(connection: apsw.Connection) -> list[str]:
    """See `Jobs.discarded`."""
    return [path for (path,) in query(connection, "SELECT path FROM discarded_uploads ORDER BY path LIMIT 1000")]


def forget(connection: apsw.Connection, paths: Sequence[str]) -> None:
    """See `Jobs.forget`."""
    connection.executemany("DELETE FROM discarded_uploads WHERE path = ?", ((path,) for path in paths))


def known_paths(connection: apsw.Connection, paths: Sequence[str]) -> frozenset[str]:
    """See `Jobs.known_paths`."""
    if not (asked := storable(paths)):
        return frozenset()
    found = query(
        connection,
        """
        SELECT asked.value FROM carray(:paths) AS asked
        WHERE EXISTS (SELECT 1 FROM job_files WHERE path = asked.value) OR EXISTS (SELECT 1 FROM discarded_uploads WHERE path = asked.value)
        """,
        {"paths": apsw.carray(asked)},
    )
    return frozenset(path for (path,) in found)
