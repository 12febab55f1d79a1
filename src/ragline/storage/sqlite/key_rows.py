"""Keys and audit lines in the store's file."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import apsw

from ragline.storage.keys import AuditLine, StoredKey
from ragline.storage.sqlite.access import Access
from ragline.storage.sqlite.connections import query

_KNOWN_LIMIT = 10_000
_SELECT = "SELECT id, tenant, name, scopes, secret_hash, created_at, last_used_at, revoked_at, rate_per_s, burst FROM keys "
_BY_ID = _SELECT + "WHERE id = ?"
_OF_TENANT = _SELECT + "WHERE tenant = ? ORDER BY created_at, id"
_ALL = _SELECT + "ORDER BY created_at, id"

_log = logging.getLogger("ragline.audit")


class SqliteKeys:
    """See `storage.keys.Keys`. What was read holds until any process makes or revokes a key: each such act raises a revision."""

    def __init__(self, store: Access, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock
        self._version: int | None = None
        self._revision = -1
        self._known: dict[str, StoredKey | None] = {}

    async def in_force(self) -> bool:
        """Whether there is or ever was a key."""
        if self._revision <= 0:  # keys are revoked, never deleted
            await self._catch_up()
        return self._revision > 0

    async def find(self, key_id: str) -> StoredKey | None:
        """The key of this id, revoked ones too."""
        version = await self._catch_up()
        if key_id in self._known:
            return self._known[key_id]
        found = await self._store.read(_keys, _BY_ID, (key_id,))
        key = found[0] if found else None
        if version == self._version:  # else someone else has seen a commit meanwhile
            self._remember(key_id, key)
        return key

    async def list(self, tenant: str | None = None) -> Sequence[StoredKey]:
        """All keys, or those of a tenant, the oldest first."""
        if tenant is None:
            return await self._store.read(_keys, _ALL, ())
        return await self._store.read(_keys, _OF_TENANT, (tenant,))

    async def add(self, key: StoredKey, *, actor: str) -> None:
        """Stores a key and its audit line."""
        scopes = sorted(key.scopes)
        line = (self._clock(), key.tenant, actor, "key.create", key.id, {"name": key.name, "scopes": scopes})
        await self._store.write(_add, key, " ".join(scopes), line)
        _tell(line)

    async def revoke(self, key_id: str, *, tenant: str, actor: str) -> bool:
        """Ends a key for ever; False where that tenant has none of this id that is not revoked."""
        line: _Line = (self._clock(), tenant, actor, "key.revoke", key_id, {})
        revoked = await self._store.write(_revoke, line)
        if revoked:
            _tell(line)
        return revoked

    async def used(self, key_ids: Mapping[str, float]) -> None:
        """Notes when keys were last used."""
        await self._store.write(_note_used, key_ids)
        for key_id in key_ids:
            self._known.pop(key_id, None)

    async def audit(self, tenant: str, actor: str, act: str, target: str, details: Mapping[str, Any] | None = None) -> None:
        """Writes an audit line."""
        line = (self._clock(), tenant, actor, act, target, dict(details or {}))
        await self._store.write(_append, line)
        _tell(line)

    async def acts_since(self, act: str, after: int | None) -> Sequence[AuditLine]:
        """The lines of one act, of all tenants, of ids above `after`; with None, only the newest line of any act."""
        return await self._store.read(_newest) if after is None else await self._store.read(_acts_since, act, after)

    async def audited(self, tenant: str, *, before: int | None = None, limit: int = 100) -> Sequence[AuditLine]:
        """The tenant's audit lines, the newest first."""
        return await self._store.read(_audited, tenant, before if before is not None else 2**63 - 1, limit)

    async def _catch_up(self) -> int:
        """Forgets what was read if a key was made or revoked since; returns the version of the store that all that is known is of."""
        version = self._store.version()
        if version != self._version:
            # The version was read first: an act that is committed in between is seen again by the next call, never missed.
            revision = await self._store.glance(_revision)
            if revision != self._revision:
                self._known.clear()
            self._version, self._revision = version, revision
        return version

    def _remember(self, key_id: str, key: StoredKey | None) -> None:
        if len(self._known) >= _KNOWN_LIMIT:
            self._known.clear()
        self._known[key_id] = key


_Line = tuple[float, str, str, str, str, dict[str, Any]]


def _tell(line: _Line) -> None:
    _, tenant, actor, act, target, details = line
    _log.info(
        "%s %s by %s for tenant %s", act, target, actor, tenant, extra={"act": act, "actor": actor, "tenant": tenant, **_named(details)}
    )


def _named(details: Mapping[str, Any]) -> dict[str, Any]:
    return {"details": dict(details)} if details else {}


# What follows runs on the store's threads.


def _revision(connection: apsw.Connection) -> int:
    """How often a key was made or revoked in this store."""
    found = query(connection, "SELECT value FROM meta WHERE key = 'keys_revision'")
    return int(found[0][0]) if found else 0


def _raise_revision(connection: apsw.Connection) -> None:
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('keys_revision', ?)", (str(_revision(connection) + 1),))


def _keys(connection: apsw.Connection, sql: str, bindings: tuple[str, ...]) -> list[StoredKey]:
    rows = query(connection, sql, bindings)
    return [StoredKey(row[0], row[1], row[2], frozenset(row[3].split()), row[4], *row[5:]) for row in rows]


def _add(connection: apsw.Connection, key: StoredKey, scopes: str, line: _Line) -> None:
    connection.execute(
        "INSERT INTO keys (id, tenant, name, scopes, secret_hash, created_at, rate_per_s, burst) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (key.id, key.tenant, key.name, scopes, key.secret_hash, key.created_at, key.rate_per_s, key.burst),
    )
    _append(connection, line)
    _raise_revision(connection)


def _revoke(connection: apsw.Connection, line: _Line) -> bool:
    at, tenant, _, _, key_id, _ = line
    sql = "UPDATE keys SET revoked_at = ? WHERE id = ? AND tenant = ? AND revoked_at IS NULL RETURNING id"
    if not query(connection, sql, (at, key_id, tenant)):
        return False
    _append(connection, line)
    _raise_revision(connection)
    return True


def _note_used(connection: apsw.Connection, key_ids: Mapping[str, float]) -> None:
    connection.executemany(
        "UPDATE keys SET last_used_at = ?1 WHERE id = ?2 AND coalesce(last_used_at, 0) < ?1",
        [(at, key_id) for key_id, at in key_ids.items()],
    )


def _append(connection: apsw.Connection, line: _Line) -> None:
    at, tenant, actor, act, target, details = line
    connection.execute(
        "INSERT INTO audit (at, tenant, actor, act, target, details) VALUES (?, ?, ?, ?, ?, ?)",
        (at, tenant, actor, act, target, json.dumps(details)),
    )


_LINE = "SELECT id, at, tenant, actor, act, target, details FROM audit "
_LINES_OF_TENANT = _LINE + "WHERE tenant = ? AND id < ? ORDER BY id DESC LIMIT ?"
_LINES_OF_ACT = _LINE + "WHERE act = ? AND id > ? ORDER BY id LIMIT 10000"
_NEWEST_LINE = _LINE + "ORDER BY id DESC LIMIT 1"


def _audited(connection: apsw.Connection, tenant: str, before: int, limit: int) -> list[AuditLine]:
    return [_line(row) for row in query(connection, _LINES_OF_TENANT, (tenant, before, limit))]


def _acts_since(connection: apsw.Connection, act: str, after: int) -> list[AuditLine]:
    return [_line(row) for row in query(connection, _LINES_OF_ACT, (act, after))]


def _newest(connection: apsw.Connection) -> list[AuditLine]:
    return [_line(row) for row in query(connection, _NEWEST_LINE)]


def _line(row: tuple[int, float, str, str, str, str, str]) -> AuditLine:
    id, at, tenant, actor, act, target, details = row
    return AuditLine(id, at, tenant, actor, act, target, json.loads(details))
