"""Work for batch processors in tests."""

from __future__ import annotations

import asyncio
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
