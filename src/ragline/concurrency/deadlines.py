"""How much time is left? A deadline that goes along with a task, and with whatever it starts."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar

from ragline.errors import DeadlineError

_ends: ContextVar[float | None] = ContextVar("ragline_deadline", default=None)


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """What runs within has so much time, or less where less is left already. It is told, not stopped: it asks `remaining_s`.

    Examples:
        with deadline(5.0):
            await engine.ask("how do I rotate keys?")       # time limits inside are cut down to what is left
    """
    ends = time.monotonic() + seconds
    outer = _ends.get()
    token = _ends.set(ends if outer is None else min(ends, outer))
    try:
        yield
    finally:
        _ends.reset(token)


def remaining_s() -> float | None:
    """The time left, which may be less than nothing; None where nothing limits it."""
    ends = _ends.get()
    return None if ends is None else ends - time.monotonic()


def check_deadline() -> None:
    """Raises DeadlineError where no time is left: what nobody waits for any more is not begun."""
    left_s = remaining_s()
    if left_s is not None and left_s <= 0:
        raise _over()


def capped_s(limit_s: float, *, share: float = 1.0) -> float:
    """A time limit, cut down to a share of what is left.

    Args:
        share: Less than 1 keeps the rest for what is to follow.

    Raises:
        DeadlineError: Nothing is left.
    """
    left_s = remaining_s()
    if left_s is None:
        return limit_s
    check_deadline()
    return min(limit_s, left_s * share)


@asynccontextmanager
async def within_deadline() -> AsyncIterator[None]:
    """Ends what runs within, with DeadlineError, when no time is left."""
    left_s = remaining_s()
    if left_s is None:
        yield
        return
    limit = asyncio.timeout(left_s)
    try:
        async with limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise
        raise _over() from None


def size_of_deadline() -> int | None:
    """Equal for deadlines of about the same length: callers whose sizes differ should not share a computation, for it keeps the
    deadline of the one who began it. None for no deadline; each size is twice the one before.
    """
    left_s = remaining_s()
    return None if left_s is None else math.ceil(math.log2(max(left_s, 0.001)))


def _over() -> DeadlineError:
    return DeadlineError("the time for this request is over", hint="allow it more time, or try again when there is less to do")
