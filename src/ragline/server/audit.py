"""Who did what, written down: an act and its line go together, whoever leaves meanwhile."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

from ragline.server.access import Caller

T = TypeVar("T")

_log = logging.getLogger("ragline.server")


async def audited(caller: Caller, act: str, target: str, work: Coroutine[Any, Any, T], **details: Any) -> T:
    """Does the work and, unless it says that there was nothing to do, writes a line of the audit into the store and the log.

    A client that leaves does not stop it half way, or it could do things that no line tells of.
    """

    async def whole() -> T:
        done = await work
        if done is None or done:
            await caller.engine.store.keys.audit(caller.tenant, caller.name, act, target, details)
        return done

    task = asyncio.create_task(whole())
    caller.under_way.add(task)
    task.add_done_callback(caller.under_way.discard)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        task.add_done_callback(_told)
        raise


def _told(task: asyncio.Task[Any]) -> None:
    """What went wrong after the client had left, nobody else hears of."""
    if not task.cancelled() and (failure := task.exception()) is not None:
        _log.error("an act was not finished after its client had left", exc_info=failure)
