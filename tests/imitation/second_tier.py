"""A second tier that can be made to fail: the memory tier, with faults in front."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Literal, TypeVar

from ragline.caching.base import CacheStats
from ragline.caching.memory import MemoryCache
from ragline.types import Scope

T = TypeVar("T")

Fault = Literal["", "fails", "hangs", "ignores cancelling", "cancels", "late"]


class SecondTier:
    """A `Cache[bytes]`. `fault` holds for all calls, or for those named in `only`; `calls` counts what was asked.

    "late" does what was asked, but only when `release` is set, whatever becomes of the call.
    """

    def __init__(self) -> None:
        self.values: MemoryCache[bytes] = MemoryCache(1000)
        self.fault: Fault = ""
        self.only: tuple[str, ...] = ()
        self.calls: Counter[str] = Counter()
        self.release = asyncio.Event()
        self._late: set[asyncio.Task[object]] = set()

    async def get(self, scope: Scope, key: str) -> bytes | None:
        return await self._answer("get", lambda: self.values.get(scope, key))

    async def set(self, scope: Scope, key: str, value: bytes, *, ttl_s: float | None = None) -> None:
        await self._answer("set", lambda: self.values.set(scope, key, value, ttl_s=ttl_s))

    async def delete(self, scope: Scope, key: str) -> None:
        await self._answer("delete", lambda: self.values.delete(scope, key))

    async def clear(self, scope: Scope | None = None, *, prefix: str = "") -> None:
        await self._answer("clear", lambda: self.values.clear(scope, prefix=prefix))

    def stats(self) -> CacheStats:
        return self.values.stats()

    async def close(self) -> None:
        await self._answer("close", self.values.close)

    async def finish_late(self) -> None:
        """Lets what is late happen now."""
        self.release.set()
        await asyncio.gather(*self._late)

    async def _answer(self, name: str, work: Callable[[], Awaitable[T]]) -> T:
        self.calls[name] += 1
        fault = self.fault if not self.only or name in self.only else ""
        if fault == "fails":
            raise ConnectionError("redis://:secret@example.invalid refused")
        if fault == "cancels":
            raise asyncio.CancelledError
        if fault == "late":
            task = asyncio.ensure_future(self._later(work))
            self._late.add(task)
            return await asyncio.shield(task)
        while fault:
            try:
                await self.release.wait()
                break
            except asyncio.CancelledError:
                if fault != "ignores cancelling":
                    raise
        return await work()

    async def _later(self, work: Callable[[], Awaitable[T]]) -> T:
        await self.release.wait()
        return await work()
