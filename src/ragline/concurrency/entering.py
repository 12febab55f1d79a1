"""When does a request take its place? When it turns out that something must be computed for it: what is known already needs none."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_entrance: ContextVar[Callable[[], Awaitable[None]] | None] = ContextVar("ragline_entrance", default=None)


@contextmanager
def entrance(enter: Callable[[], Awaitable[None]]) -> Iterator[None]:
    """What runs within awaits `enter` before it computes; it may do so several times.

    Args:
        enter: May wait, or raise OverloadedError.
    """
    token = _entrance.set(enter)
    try:
        yield
    finally:
        _entrance.reset(token)


async def entered() -> None:
    """Returns when there is room to compute; at once where nobody keeps count of that."""
    enter = _entrance.get()
    if enter is not None:
        await enter()
