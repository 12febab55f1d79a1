"""Batches that a plain function processes on a thread, where it cannot be stopped."""

from __future__ import annotations

import asyncio
import gc
import threading

import pytest

from ragline.concurrency.batching import BatchProcessor
from ragline.concurrency.workers import Workers
from ragline.errors import BackendError, DeadlineError
from tests.batches import PlainWork, processing, settled


async def test_a_function_whose_callers_have_left_keeps_its_place_until_it_ends() -> None:
    work = PlainWork()
    async with processing(work) as processor:
        gone = [processor.submit(1), processor.submit(2)]
        await work.begun()
        for future in gone:
            future.cancel()
        await settled()
        late = processor.submit(3)
        await settled()
        assert (processor.stats().under_way, processor.stats().queue_length) == (1, 1)
        work.gate.set()
        assert await late == 6
        await settled()
        stats = processor.stats()
        assert (stats.under_way, stats.completed, stats.failed, stats.batches) == (0, 1, 0, 2)
    assert work.batches == [[1, 2], [3]] and work.most == 1


async def test_beside_it_others_begin_where_there_are_places() -> None:
    work = PlainWork()
    async with processing(work, batch_size=1, concurrency=2) as processor:
        gone = processor.submit(1)
        await work.begun()
        gone.cancel()
        await settled()
        under_way = processor.submit(2)
        await work.begun()
        waits = processor.submit(3)
        await settled()
        assert (processor.stats().under_way, processor.stats().queue_length) == (2, 1)
        work.gate.set()
        assert list(await asyncio.gather(under_way, waits)) == [4, 6]
    assert work.most == 2


async def test_callers_of_a_function_that_takes_too_long_are_told_at_once_and_the_next_batch_waits_for_its_end() -> None:
    work = PlainWork()
    async with processing(work, timeout_s=0.3) as processor:
        got = await asyncio.gather(processor.submit(1), processor.submit(2), return_exceptions=True)
        assert [type(error) for error in got] == [DeadlineError] * 2
        late = processor.submit(3)
        await settled()
        assert (processor.stats().under_way, processor.stats().queue_length) == (1, 1)
        work.gate.set()
        assert await late == 6
    assert work.most == 1


async def test_a_batch_that_took_too_long_and_goes_on_is_not_split() -> None:
    work = PlainWork()
    async with processing(work, timeout_s=0.05, splits=lambda _: True) as processor:
        results = await asyncio.gather(processor.submit(1), processor.submit(2), return_exceptions=True)
        assert [type(result) for result in results] == [DeadlineError] * 2, "and nobody waits for the thread"
        work.gate.set()
    assert work.batches == [[1, 2]] and work.most == 1


async def test_a_function_that_has_no_thread_yet_is_not_begun_for_callers_who_left() -> None:
    work, busy = PlainWork(), threading.Event()
    work.gate.set()
    workers = Workers("batches", 1)
    occupied = asyncio.create_task(workers.run(busy.wait, 10))
    await settled()
    async with processing(work, workers=workers) as processor:
        gone = processor.submit(1)
        await settled()
        gone.cancel()
        await settled()
        busy.set()
        assert await processor.submit(2) == 4
    await occupied
    workers.close()
    assert work.batches == [[2]]


async def test_closing_waits_for_a_function_that_nobody_waits_for() -> None:
    work = PlainWork()
    processor: BatchProcessor[int, int] = BatchProcessor(8, 60, work)
    gone = processor.submit(1)
    await work.begun()
    gone.cancel()
    closing = asyncio.create_task(processor.close())
    await settled()
    assert not closing.done()
    work.gate.set()
    await asyncio.wait_for(closing, 10)
    assert processor.stats().under_way == 0


async def test_closing_in_haste_leaves_it_and_started_again_the_next_batch_still_waits_for_it() -> None:
    work = PlainWork()
    async with processing(work) as processor:
        result = processor.submit(1)
        await work.begun()
        await processor.close(wait_s=0)
        with pytest.raises(BackendError, match="cancelled"):
            await result
        processor.start()
        late = processor.submit(2)
        await settled()
        assert (processor.stats().under_way, processor.stats().queue_length) == (1, 1)
        work.gate.set()
        assert await late == 4
    assert work.most == 1


async def test_an_error_that_nobody_waits_for_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    work = PlainWork()
    work.bad = {1: ValueError("one")}
    async with processing(work) as processor:
        gone = processor.submit(1)
        await work.begun()
        gone.cancel()
        await settled()
        work.gate.set()
        assert await processor.submit(2) == 4
    gc.collect()
    assert not caplog.records
