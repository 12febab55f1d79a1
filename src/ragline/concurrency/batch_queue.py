"""Items that wait to be processed, in the order they came, and callers that wait for room among them."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

I = TypeVar("I")  # noqa: E741 - an item
R = TypeVar("R")


@dataclass(slots=True)
class Door:
    """A way into the queue: at most `limit` items that came by it wait there. Callers wait at it first come, first served.

    Attributes:
        inside: Items in the queue that came by it.
        promised: Places kept for callers that were just let in.
    """

    limit: int
    inside: int = 0
    promised: int = 0
    turns: deque[asyncio.Future[None]] = field(default_factory=deque)


@dataclass(slots=True, eq=False)
class Entry(Generic[I, R]):
    """An item and who waits for it.

    Attributes:
        since: When it came, by the loop's clock.
        batch: What it is processed in, once it is.
    """

    item: I
    size: int
    door: Door
    result: asyncio.Future[R]
    since: float
    batch: Batch | None = None

    def fail(self, error: Exception, *, seen: bool = False) -> bool:
        """Gives the caller an error; False where it has a result already, or has left.

        Args:
            seen: Whether asyncio need not log it where the caller never looks.
        """
        if self.result.done():
            return False
        if isinstance(error, StopIteration):  # which a future does not take
            error = RuntimeError(f"an item was answered with {error!r}")
        self.result.set_exception(error)
        if seen:
            self.result.exception()
        return True


@dataclass(slots=True)
class Batch:
    """A batch under way.

    Attributes:
        awaited: How many of its results are still to come, to callers that are still there.
        on_thread: The plain function that processes it, which goes on when all of them have left.
    """

    awaited: int
    task: asyncio.Task[None] | None = None
    on_thread: asyncio.Task[Any] | None = None


class BatchQueue(Generic[I, R]):
    """A queue that items can leave from anywhere, because their callers do.

    Args:
        limit: How many items wait at most, whatever door they came by.
    """

    def __init__(self, limit: int, *doors: Door) -> None:
        self._limit = limit
        self._doors = doors
        self._entries: dict[Entry[I, R], None] = {}
        self.size = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, entry: Entry[I, R]) -> bool:
        return entry in self._entries

    def __iter__(self) -> Iterator[Entry[I, R]]:
        """The entries that wait now; it may change meanwhile."""
        return iter(list(self._entries))

    @property
    def oldest(self) -> Entry[I, R]:
        """The one that came first; there must be one."""
        return next(iter(self._entries))

    def has_room(self, door: Door) -> bool:
        """Whether an item may come in by this door now."""
        if len(self._entries) + sum(each.promised for each in self._doors) >= self._limit:
            return False
        return door.inside + door.promised < door.limit

    async def room(self, door: Door) -> None:
        """Waits for room for one item, which is to be added before anything else is awaited."""
        if self.has_room(door) and not door.turns:
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        door.turns.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                with contextlib.suppress(ValueError):
                    door.turns.remove(turn)
            else:  # the promise goes to the next
                door.promised -= 1
                self._let_in()
            raise
        door.promised -= 1

    def add(self, entry: Entry[I, R]) -> None:
        """Puts an entry at the end."""
        self._entries[entry] = None
        self.size += entry.size
        entry.door.inside += 1

    def remove(self, entry: Entry[I, R]) -> None:
        """Takes an entry out, wherever it is."""
        del self._entries[entry]
        self.size -= entry.size
        entry.door.inside -= 1
        self._let_in()

    def open_doors(self) -> None:
        """Lets everybody in who waits for room: to be told that there is none any more."""
        for door in self._doors:
            while door.turns:
                _promise(door)

    def _let_in(self) -> None:
        for door in self._doors:
            while door.turns and self.has_room(door):
                _promise(door)


def _promise(door: Door) -> None:
    turn = door.turns.popleft()
    if not turn.done():
        turn.set_result(None)
        door.promised += 1
