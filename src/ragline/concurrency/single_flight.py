"""One computation for many callers who want the same at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class SingleFlight(Generic[K, T]):
    """Callers with one key share one computation while it is under way; nothing is kept afterwards.

    The computation is a task of its own: whoever leaves, the first caller too, does not end it for the others. When the
    last one leaves, it is cancelled. A failure reaches every caller.

    Examples:
        flights: SingleFlight[str, bytes] = SingleFlight()
        page = await flights.run(url, lambda: fetch(url))
    """

    def __init__(self) -> None:
        self._flights: dict[K, _Flight[T]] = {}

    def __len__(self) -> int:
        """How many computations can be joined."""
        return len(self._flights)

    def __contains__(self, key: K) -> bool:
        return key in self._flights

    async def run(self, key: K, work: Callable[[], Awaitable[T]]) -> T:
        """What `work` gives, or what a computation of that key gives that is under way already."""
        flight = self._flights.get(key)
        if flight is None or flight.task.done():  # done: it may have failed, and is about to be forgotten
            flight = self._flights[key] = _Flight(asyncio.ensure_future(_awaited(work)))
            flight.task.add_done_callback(lambda task: self._landed(key, task))
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.task.done():
                self._forget(key, flight.task)
                flight.task.cancel()

    def forget(self, matches: Callable[[K], bool]) -> int:
        """Computations under way that nobody joins from now on; those who wait for them still get what they give."""
        keys = [key for key in self._flights if matches(key)]
        for key in keys:
            del self._flights[key]
        return len(keys)

    def _landed(self, key: K, task: asyncio.Task[T]) -> None:
        self._forget(key, task)
        if not task.cancelled():
            task.exception()  # seen here too, or asyncio would log it where all callers have left

    def _forget(self, key: K, task: asyncio.Task[T]) -> None:
        flight = self._flights.get(key)
        if flight is not None and flight.task is task:
            del self._flights[key]


class _Flight(Generic[T]):
    def __init__(self, task: asyncio.Task[T]) -> None:
        self.task = task
        self.waiting = 0


async def _awaited(work: Callable[[], Awaitable[T]]) -> T:
    return await work()


class SharedStream(Generic[T]):
    """An async iterator that many read: each gets every item from the first, however late it joins.

    The source is drawn by a task of its own, as fast as it gives; what it gave is kept for as long as somebody reads.
    When the last reader leaves before the end, the source is closed. A failure of the source reaches every reader
    after the items before it.

    Examples:
        shared = SharedStream(tokens())
        async for token in shared.read(): ...
    """

    def __init__(self, source: AsyncIterator[T]) -> None:
        self._items: list[T] = []
        self._more = asyncio.Event()
        self._readers = 0
        self._task = asyncio.ensure_future(self._draw(source))

    @property
    def done(self) -> bool:
        """Whether the source has ended, well or badly."""
        return self._task.done()

    @property
    def abandoned(self) -> bool:
        """Whether every reader left before the end: it cannot be joined any more."""
        return self._task.cancelled() or bool(self._task.cancelling())

    def add_done_callback(self, callback: Callable[[], None]) -> None:
        """Calls back once the source has ended, well or badly."""
        self._task.add_done_callback(lambda _: callback())

    async def read(self) -> AsyncGenerator[T, None]:
        """All items, those that came before too."""
        self._readers += 1
        try:
            place = 0
            while True:
                # Taken before the look: an item that comes in between sets this very event.
                more = self._more
                while place < len(self._items):
                    place += 1
                    yield self._items[place - 1]
                if self._task.done() and place == len(self._items):
                    self._task.result()
                    return
                await more.wait()
        finally:
            self._readers -= 1
            if not self._readers and not self._task.done():
                self._task.cancel()

    async def _draw(self, source: AsyncIterator[T]) -> None:
        try:
            async for item in source:
                self._items.append(item)
                self._wake()
        finally:
            close = getattr(source, "aclose", None)
            if close is not None:
                await close()
            # The last waking comes after the task is done: readers look at it.
            asyncio.get_running_loop().call_soon(self._wake)

    def _wake(self) -> None:
        self._more.set()
        self._more = asyncio.Event()
