"""Who did what, written down."""

from __future__ import annotations

from typing import Any

from ragline.server.access import Caller


async def audited(caller: Caller, act: str, target: str, **details: Any) -> None:
    """Writes a line of the audit, into the store and the log."""
    await caller.engine.store.keys.audit(caller.tenant, caller.name, act, target, details)
