"""Vectors that are on their way: who wants one that somebody waits for already waits along."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

Key: TypeAlias = tuple[str, str, str]
"""Tenant, kind of text, hash of the text."""


@dataclass(slots=True, eq=False)
class Flight:
    """One vector on its way, as bytes."""

    result: asyncio.Future[bytes]
    waiting: int = 0

    @classmethod
    def landed(cls, vector: bytes) -> Flight:
        """One that has come already, joined."""
        result: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        result.set_result(vector)
        return cls(result, 1)

    async def land(self) -> bytes:
        """The vector, for one of those who joined; whoever stops waiting does not end it for the others."""
        return self.result.result() if self.result.done() else await asyncio.shield(self.result)

    def leave(self) -> None:
        """One of those who joined goes; the last one ends it."""
        self.waiting -= 1
        if not self.waiting:
            self.result.cancel()  # does nothing where it is done


class SharedVectors:
    """One computation for each key at a time. On one event loop."""

    def __init__(self) -> None:
        self._flights: dict[Key, Flight] = {}

    def __len__(self) -> int:
        return len(self._flights)

    def __contains__(self, key: Key) -> bool:
        return key in self._flights

    def join(self, key: Key) -> Flight | None:
        """The flight under way, joined; None where there is none. Whoever joins must `leave`."""
        flight = self._flights.get(key)
        if flight is None or flight.result.done():
            return None
        flight.waiting += 1
        return flight

    def begin(self, key: Key, submit: Callable[[], asyncio.Future[bytes]]) -> Flight:
        """A new flight, joined."""
        flight = self._flights[key] = Flight(submit(), 1)
        flight.result.add_done_callback(lambda result: self._landed(key, result))
        return flight

    def _landed(self, key: Key, result: asyncio.Future[bytes]) -> None:
        flight = self._flights.get(key)
        if flight is not None and flight.result is result:
            del self._flights[key]
        if not result.cancelled():
            result.exception()  # seen: those who wait have it, and perhaps all have left
