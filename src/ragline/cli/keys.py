"""What the commands about keys do."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from ragline import json_shapes
from ragline.cli.options import Common
from ragline.cli.screen import Screen, print_json
from ragline.errors import InputError, NotFoundError
from ragline.storage.keys import DEFAULT_SCOPES, Keys, StoredKey, new_key
from ragline.storage.sqlite import SqliteStore

_ACTOR = "command line"


@asynccontextmanager
async def _keys(common: Common) -> AsyncIterator[tuple[Keys, str]]:
    """The keys of the store, and the tenant that the settings name."""
    settings = common.settings().settings
    store = await SqliteStore.open(settings.data_dir, busy_timeout_s=settings.storage.busy_timeout_s)
    try:
        yield store.keys, settings.tenant
    finally:
        await store.close()


async def create(common: Common, name: str, scopes: Sequence[str], rate_per_s: float | None, burst: int | None) -> int:
    """`ragline keys create`. The key goes to standard output, all else beside it."""
    if burst is not None and rate_per_s is None:
        raise InputError("--burst goes with --rate", hint="such as --rate 5 --burst 20")
    async with _keys(common) as (keys, tenant):
        text, stored = new_key(
            tenant, name=name, scopes=scopes or DEFAULT_SCOPES, rate_per_s=rate_per_s, burst=burst, created_at=time.time()
        )
        first = not await keys.in_force()
        await keys.add(stored, actor=_ACTOR)
    if common.json:
        print_json({"key": text, **json_shapes.key(stored)})
        return 0
    Screen().line(text)
    beside = Screen(sys.stderr)
    beside.line(f"key {stored.id} of tenant {stored.tenant} ({', '.join(sorted(stored.scopes))}); it is not shown again")
    if first:
        beside.line("from now on a server on this data folder wants a key for everything but its health")
    return 0


async def list_keys(common: Common) -> int:
    """`ragline keys list`: of one tenant if --tenant names it, else of all."""
    async with _keys(common) as (keys, _):
        found = await keys.list(common.tenant)
    if common.json:
        print_json({"keys": [json_shapes.key(each) for each in found]})
        return 0
    if not found:
        none = "there are no keys: a server on this data folder answers its own machine only"
        Screen().line(none if common.tenant is None else f"tenant {common.tenant} has no keys")
        return 0
    columns = ("id", "tenant", "name", "scopes", "requests/s", "created", "last used", "revoked")
    Screen().table(columns, [_row(each) for each in found])
    return 0


async def revoke(common: Common, key_id: str) -> int:
    """`ragline keys revoke`; takes the id, and the whole key too."""
    key_id = key_id.split("_")[1] if key_id.startswith("rl_") and key_id.count("_") == 2 else key_id
    async with _keys(common) as (keys, _):
        stored = await keys.find(key_id) if os.fsencode(key_id).isalnum() else None
        if stored is None or (common.tenant is not None and stored.tenant != common.tenant):
            raise NotFoundError(f"there is no key {key_id!r}", hint="`ragline keys list` shows those there are")
        revoked = await keys.revoke(key_id, tenant=stored.tenant, actor=_ACTOR)
    if common.json:
        print_json({"revoked": revoked, "id": key_id})
    else:
        Screen().line(f"key {key_id} {'is revoked' if revoked else 'was revoked before'}")
    return 0


def _row(key: StoredKey) -> tuple[object, ...]:
    rate = "" if key.rate_per_s is None else f"{key.rate_per_s:g}"
    scopes = ", ".join(sorted(key.scopes))
    return (key.id, key.tenant, key.name, scopes, rate, _when(key.created_at), _when(key.last_used_at), _when(key.revoked_at))


def _when(seconds: float | None) -> str:
    return "" if seconds is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
