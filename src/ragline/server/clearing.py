"""Clearing a tenant's cache in every process of the server: each has one of its own, and hears of it through the audit."""

from __future__ import annotations

import asyncio
import logging

from ragline.engine import Engine
from ragline.errors import RaglineError

CLEAR_CACHE = "cache.clear"
"""The act, as the audit calls it."""

_LOOK_EVERY_S = 0.25

_log = logging.getLogger("ragline.server")


async def follow_clears(engine: Engine) -> None:
    """Clears a tenant's cache here when any process was told to, for ever: each has a cache of its own."""
    keys = engine.store.keys
    seen: int | None = None
    version = 0
    while True:
        try:
            now = engine.store.version()
            if seen is None:
                newest = await keys.acts_since(CLEAR_CACHE, None)
                seen, version = newest[0].id if newest else 0, now
            elif version != now:
                for line in await keys.acts_since(CLEAR_CACHE, seen):
                    await engine.tenant(line.tenant).clear_cache()
                    seen = line.id
                version = now
        except RaglineError as failure:
            _log.warning("the audit cannot be read: %s", failure.message)
        except Exception:  # nobody would see it end before the server does, and caches would not be cleared any more
            _log.exception("the caches were not cleared here; it is tried again")
        await asyncio.sleep(_LOOK_EVERY_S)
