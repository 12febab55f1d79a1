"""A time limit that costs next to nothing where there is nothing to wait for."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Awaitable, Coroutine, Generator
from typing import Any, TypeVar

T = TypeVar("T")


class LimitExceeded(TimeoutError):
    """The limit ended it, and nothing within."""


async def limited(seconds: float, work: Awaitable[T]) -> T:
    """The result of `work`, which begins at once. A timer is only set where it has to wait.

    Raises:
        LimitExceeded: It took longer, and was cancelled.

    Examples:
        message = await limited(5.0, receive())
    """
    steps = work if isinstance(work, Coroutine) else _awaited(work)
    try:
        waited = steps.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            return await _rest(steps, waited)
    except TimeoutError:
        if limit.expired():
            raise LimitExceeded from None
        raise


async def _awaited(work: Awaitable[T]) -> T:
    return await work


@types.coroutine
def _rest(steps: Coroutine[Any, Any, T], waited: Any) -> Generator[Any, Any, T]:
    """All of a coroutine but its first step, which waits for `waited`."""
    try:
        while True:
            try:
                sent = yield waited
            except GeneratorExit:
                raise
            except BaseException as error:
                waited = steps.throw(error)
            else:
                waited = steps.send(sent)
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        steps.close()
