"""Forgetting what nothing needs any more, a bounded piece at a time.

An ingest may have found a vector stored, and count on it, just before it is pruned: its `put` then fails with an
`InputError`, and it embeds those passages after all.
"""

from __future__ import annotations

from contextlib import closing, suppress
from pathlib import Path

import apsw

from ragline.storage.sqlite.connections import open_writer, query, translated
from ragline.types import Scope

_TOMBSTONES = 20_000
_VECTORS = 5_000


def prunable(connection: apsw.Connection, scope: Scope, before: int) -> bool:
    """Whether there is anything left to forget. Pruning that finds nothing must write nothing: it would wake every view."""
    return bool(
        connection.execute(
            """
            SELECT EXISTS (
                SELECT 1 FROM scopes AS s
                WHERE tenant = :tenant AND collection = :collection AND (
                    oldest_lsn < min(lsn, :before)
                    OR EXISTS (SELECT 1 FROM tombstones AS t WHERE t.scope_id = s.id AND t.lsn <= :before)
                )
            ) OR EXISTS (SELECT 1 FROM spaces AS p JOIN unchecked_vectors AS u ON u.space_id = p.id WHERE p.tenant = :tenant)
            """,
            {"tenant": scope.tenant, "collection": scope.collection, "before": before},
        ).get
    )


def prune_some(connection: apsw.Connection, scope: Scope, before: int) -> None:
    """Forgets some of it. `oldest_lsn` moves first, with the first piece."""
    bindings = {"tenant": scope.tenant, "collection": scope.collection, "before": before}
    connection.execute(
        """
        UPDATE scopes SET oldest_lsn = min(lsn, :before)
        WHERE tenant = :tenant AND collection = :collection AND oldest_lsn < min(lsn, :before)
        """,
        bindings,
    )
    connection.execute(
        """
        DELETE FROM tombstones WHERE (scope_id, lsn, first_row) IN (
            SELECT t.scope_id, t.lsn, t.first_row
            FROM scopes AS s JOIN tombstones AS t ON t.scope_id = s.id
            WHERE s.tenant = :tenant AND s.collection = :collection AND t.lsn <= :before
            LIMIT :limit
        )
        """,
        {**bindings, "limit": _TOMBSTONES},
    )
    _prune_vectors(connection, scope.tenant)


def _prune_vectors(connection: apsw.Connection, tenant: str) -> None:
    unchecked = query(
        connection,
        """
        SELECT u.space_id, u.vector, EXISTS (SELECT 1 FROM chunks AS c WHERE c.vector = u.vector)
        FROM spaces AS p JOIN unchecked_vectors AS u ON u.space_id = p.id
        WHERE p.tenant = ?
        LIMIT ?
        """,
        (tenant, _VECTORS),
    )
    connection.executemany("DELETE FROM vectors WHERE id = ?", ((vector,) for _, vector, used in unchecked if not used))
    connection.executemany(
        "DELETE FROM unchecked_vectors WHERE space_id = ? AND vector = ?", ((space_id, vector) for space_id, vector, _ in unchecked)
    )


def empty_log(file: Path) -> None:
    """Writes the write-ahead log back into the file and empties it: what was deleted stands in it until then.

    Nobody waits for this: where others read or write right now, it is left to the next time or to the closing of the store.
    """
    with translated(file), suppress(apsw.BusyError), closing(open_writer(file, busy_timeout_s=0)) as connection:
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
