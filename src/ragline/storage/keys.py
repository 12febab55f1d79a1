"""Who may use a server: keys, and the lines of what was done with them.

A key is `rl_<id>_<secret>`. The store holds the id and a hash of the secret, which has 256 random bits: it can neither be
guessed nor be derived from anything that is stored.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, get_args

from ragline.errors import InputError
from ragline.types import Scope

KeyScope: TypeAlias = Literal["read", "write", "admin", "metrics"]
"""read: search, ask and list. write: add and delete documents. admin: both, and what is for the tenant as a whole.
metrics: the figures of the whole server, of no tenant; nothing else includes it.
"""

KEY_SCOPES: tuple[KeyScope, ...] = get_args(KeyScope)
DEFAULT_SCOPES: tuple[KeyScope, ...] = ("read", "write")

_FORM = re.compile(r"rl_([0-9a-f]{16})_([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key as the store holds it: without its secret.

    Attributes:
        rate_per_s: Requests a second that it may make, on the long run; None for no limit of its own.
        burst: How many it may make at once; None takes what one second allows.
        created_at, last_used_at, revoked_at: Seconds since 1970, UTC. `last_used_at` is up to a minute old.
    """

    id: str
    tenant: str
    name: str
    scopes: frozenset[str]
    secret_hash: bytes
    created_at: float
    last_used_at: float | None = None
    revoked_at: float | None = None
    rate_per_s: float | None = None
    burst: int | None = None

    def allows(self, scope: str) -> bool:
        """Whether this key may do what is asked; `admin` includes read and write."""
        return scope in self.scopes or (scope in ("read", "write") and "admin" in self.scopes)


@dataclass(frozen=True, slots=True)
class AuditLine:
    """Who did what, when: key acts, deletes and admin acts.

    Attributes:
        actor: The id of a key, or "command line", or "local" for a server without keys.
        act: Such as `key.create`, `document.delete`, `collection.delete`.
        target: What it was done to: an id or a name; never a text.
    """

    id: int
    at: float
    tenant: str
    actor: str
    act: str
    target: str
    details: Mapping[str, Any]


class Keys(Protocol):
    """The keys of a store and its audit. Another process's changes hold at once: each call sees what is committed by then."""

    async def in_force(self) -> bool:
        """Whether there is or ever was a key: from then on a server wants one. Microseconds while nothing is committed."""
        ...

    async def find(self, key_id: str) -> StoredKey | None:
        """The key of this id, revoked ones too. Microseconds while nothing is committed."""
        ...

    async def list(self, tenant: str | None = None) -> Sequence[StoredKey]:
        """All keys, or those of a tenant, revoked ones too, the oldest first."""
        ...

    async def add(self, key: StoredKey, *, actor: str) -> None:
        """Stores a key and its audit line."""
        ...

    async def revoke(self, key_id: str, *, tenant: str, actor: str) -> bool:
        """Ends a key for ever; False where that tenant has none of this id that is not revoked."""
        ...

    async def used(self, key_ids: Mapping[str, float]) -> None:
        """Notes when keys were last used, seconds since 1970."""
        ...

    async def audit(self, tenant: str, actor: str, act: str, target: str, details: Mapping[str, Any] | None = None) -> None:
        """Writes an audit line."""
        ...

    async def acts_since(self, act: str, after: int | None) -> Sequence[AuditLine]:
        """The lines of one act, of all tenants, of ids above `after`, the oldest first; with None, only the newest line of any act."""
        ...

    async def audited(self, tenant: str, *, before: int | None = None, limit: int = 100) -> Sequence[AuditLine]:
        """The tenant's audit lines, the newest first: at most `limit`, of ids below `before`."""
        ...


def new_key(
    tenant: str,
    *,
    name: str = "",
    scopes: Sequence[str] = DEFAULT_SCOPES,
    rate_per_s: float | None = None,
    burst: int | None = None,
    created_at: float,
) -> tuple[str, StoredKey]:
    """A new key as its user keeps it, and as the store does. The first is not to be had again.

    Raises:
        InputError: An unknown scope or none, a name that is no line, a tenant's name that cannot be one.
    """
    tenant = Scope(tenant).tenant
    unknown = [scope for scope in scopes if scope not in KEY_SCOPES]
    if unknown or not scopes:
        raise InputError(f"there is no scope {unknown[0]!r}" if unknown else "a key needs a scope", hint=f"use {', '.join(KEY_SCOPES)}")
    if len(name) > 200 or (name and not name.isprintable()):
        raise InputError("the name of a key is one line of at most 200 characters", hint="choose another --name")
    key_id, secret = secrets.token_hex(8), secrets.token_hex(32)
    stored = StoredKey(key_id, tenant, name, frozenset(scopes), hash_of(secret), created_at=created_at, rate_per_s=rate_per_s, burst=burst)
    return f"rl_{key_id}_{secret}", stored


def parse_key(text: str) -> tuple[str, str] | None:
    """Id and secret of a key as its user gives it; None where it has not the form of one."""
    found = _FORM.fullmatch(text)
    return (found[1], found[2]) if found else None


def hash_of(secret: str) -> bytes:
    """What is stored of a secret. It is random and long: a slow hash would add nothing but time."""
    return hashlib.sha256(secret.encode()).digest()


def matches(key: StoredKey | None, secret: str) -> bool:
    """Whether the secret is that of the key, in a time that tells nothing; for no key it takes as long, and is False."""
    expected = key.secret_hash if key is not None else bytes(32)
    return hmac.compare_digest(expected, hash_of(secret)) and key is not None and key.revoked_at is None
