"""Work for batch processors in tests."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from ragline.concurrency.batching import BatchProcessor


class Work:
    """Doubles numbers, batch by batch, each when it is let go; keeps what it was given."""

    def __init__(self, *, open: bool = True) -> None:
        self.batches: list[list[int]] = []
        self.cancelled = 0
        self.gate = asyncio.Event()
        self.bad: dict[int, Exception] = {}
        if open:
            self.gate.set()

    async def __call__(self, items: list[int]) -> list[int | Exception]:
        self.batches.append(items)
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        for item in items:
            if item in self.bad:
                raise self.bad[item]
        return [2 * item for item in items]


class PlainWork:
    """As `Work`, for a thread: a plain function, which cannot be cancelled."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.bad: dict[int, Exception] = {}
        self.most = 0  # under way at once
        self.gate = threading.Event()
        self._inside: list[int] = []
        self._begun = threading.Semaphore(0)

    def __call__(self, items: list[int]) -> list[int]:
        self.batches.append(items)
        self._inside.append(1)
        self.most = max(self.most, len(self._inside))
        self._begun.release()
        self.gate.wait(10)
        self._inside.pop()
        for item in items:
            if item in self.bad:
                raise self.bad[item]
        return [2 * item for item in items]

    async def begun(self) -> None:
        """Waits until one more batch is under way."""
        assert await asyncio.to_thread(self._begun.acquire, timeout=10)


@asynccontextmanager
async def processing(work: Callable[[list[int]], Any], batch_size: int = 8, **options: Any) -> AsyncIterator[BatchProcessor[int, int]]:
    processor: BatchProcessor[int, int] = BatchProcessor(batch_size, options.pop("max_wait_s", 60.0), work, **options)
    try:
        yield processor
    finally:
        await processor.close(wait_s=0)


async def settled() -> None:
    """Lets everything run that need not wait for anything."""
    for _ in range(20):
        await asyncio.sleep(0)
