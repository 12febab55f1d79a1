"""Batches that fail, and processors that are closed: what each caller is told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ragline.concurrency.batching import BatchProcessor
from ragline.errors import BackendError, DeadlineError, InputError
from tests.batches import Work, processing, settled


async def test_one_bad_item_fails_alone_and_its_neighbours_get_their_results() -> None:
    work = Work()
    work.bad = {3: ValueError("three"), 6: KeyError("six")}
    async with processing(work) as processor:
        got = await asyncio.gather(*map(processor.submit, range(8)), return_exceptions=True)
        assert [got[i] for i in (0, 1, 2, 4, 5, 7)] == [0, 2, 4, 8, 10, 14]
        assert got[3] is work.bad[3] and got[6] is work.bad[6]
        stats = processor.stats()
        assert [stats.completed, stats.failed, stats.submitted] == [6, 2, 8]


async def test_a_failure_that_is_nobodys_fault_reaches_every_waiter_and_is_not_repeated() -> None:
    for failure in (BackendError("down"), ConnectionResetError("reset"), TimeoutError("late")):
        work = Work()
        work.bad = {3: failure}
        async with processing(work) as processor:
            got = await asyncio.gather(*map(processor.submit, range(8)), return_exceptions=True)
        assert got == [failure] * 8
        assert len(work.batches) == 1


async def test_without_splitting_an_error_reaches_the_whole_batch() -> None:
    work = Work()
    work.bad = {3: ValueError("three")}
    async with processing(work, splits=None) as processor:
        got = await asyncio.gather(*map(processor.submit, range(4)), return_exceptions=True)
    assert got == [work.bad[3]] * 4 and len(work.batches) == 1


async def test_an_exception_among_the_results_is_that_items_own() -> None:
    async def process(items: list[int]) -> list[int | Exception]:
        return [ValueError(f"{item} is odd") if item % 2 else item for item in items]

    async with processing(process) as processor:
        got = await asyncio.gather(*map(processor.submit, range(4)), return_exceptions=True)
    assert [got[0], got[2]] == [0, 2]
    assert [str(got[1]), str(got[3])] == ["1 is odd", "3 is odd"]


@pytest.mark.parametrize("results", [[1], [1, 2, 3], None, {1: 1, 2: 2}, "ab", iter([1, 2]), 7])
async def test_results_that_are_not_one_for_each_item_are_an_error_for_all(results: object) -> None:
    async def process(items: list[int]) -> Any:
        return results

    async with processing(process) as processor:
        got = await asyncio.gather(processor.submit(1), processor.submit(2), return_exceptions=True)
    assert all(isinstance(error, InputError) and "for 2 items" in str(error) and error.hint for error in got)


async def test_what_process_raises_that_is_no_exception_still_reaches_everybody() -> None:
    async def stops(items: list[int]) -> list[int]:
        raise asyncio.CancelledError

    def ends(items: list[int]) -> list[int]:
        raise StopIteration

    async def gives(items: list[int]) -> list[Exception]:
        return [StopIteration()] * len(items)

    for process, kind in ((stops, BackendError), (ends, RuntimeError), (gives, RuntimeError)):
        async with processing(process) as processor, asyncio.timeout(5):
            got = await asyncio.gather(processor.submit(1), processor.submit(2), return_exceptions=True)
            assert [type(error) for error in got] == [kind, kind]


async def test_a_batch_that_takes_too_long_is_an_error_and_the_next_one_goes_on() -> None:
    work = Work(open=False)
    async with processing(work, timeout_s=0.05) as processor:
        got = await asyncio.gather(processor.submit(1), processor.submit(2), return_exceptions=True)
        assert all(isinstance(error, DeadlineError) and error.hint for error in got)
        assert len(work.batches) == 1
        work.gate.set()
        assert await processor.submit(3) == 6


async def test_the_first_failure_ends_a_batch_of_many_and_takes_the_rest_back() -> None:
    work = Work()
    work.bad = {2: ValueError("two")}
    async with processing(work, batch_size=4) as processor:
        with pytest.raises(ValueError, match="two"):
            await processor.process_batch(range(1000))
        await settled()
        assert processor.stats().queue_length == 0 and processor.stats().submitted < 50


async def test_failures_can_take_the_place_of_results() -> None:
    work = Work()
    work.bad = {2: ValueError("two")}
    async with processing(work, size_of=lambda item: item, max_size=10) as processor:
        got = await processor.process_batch([1, 2, 11, 3], return_exceptions=True)
    assert got[0] == 2 and got[1] is work.bad[2] and isinstance(got[2], InputError) and got[3] == 6


async def test_closing_finishes_what_is_there_and_takes_no_more() -> None:
    work = Work(open=False)
    processor: BatchProcessor[int, int] = BatchProcessor(2, 60, work)
    results = [processor.submit(item) for item in range(5)]
    await settled()
    closing = asyncio.create_task(processor.close())
    await settled()
    with pytest.raises(BackendError, match="closed"):
        processor.submit(9)
    assert not closing.done()
    work.gate.set()
    await closing
    assert [result.result() for result in results] == [0, 2, 4, 6, 8]
    await processor.close()


async def test_closing_in_haste_tells_everybody_who_waits() -> None:
    work = Work(open=False)
    processor: BatchProcessor[int, int] = BatchProcessor(2, 60, work, max_queue=2)
    results = [processor.submit(item) for item in (1, 2)]
    await settled()
    results += [processor.submit(item) for item in (3, 4)]
    query = asyncio.create_task(processor.add_query(5))
    await settled()
    async with asyncio.timeout(5):
        await processor.close(wait_s=0.01)
        got = await asyncio.gather(*results, query, return_exceptions=True)
    assert all(isinstance(error, BackendError) for error in got) and len(got) == 5
    assert work.cancelled == 1


async def test_it_can_be_started_again_after_closing() -> None:
    work = Work()
    async with processing(work) as processor:
        await processor.process_batch([1])
        await processor.close()
        processor.start()
        assert await processor.submit(2) == 4
        assert processor.stats().completed == 2


def test_it_goes_on_in_the_next_event_loop_but_not_in_two_at_once() -> None:
    async def process(items: list[int]) -> list[int]:
        return items

    processor: BatchProcessor[int, int] = BatchProcessor(2, 0, process)

    async def one() -> int:
        return await processor.submit(1)

    assert asyncio.run(one()) == 1
    assert asyncio.run(one()) == 1

    async def beside() -> None:
        await one()
        with pytest.raises(BackendError, match="another event loop"):
            await asyncio.to_thread(asyncio.run, one())
        await processor.close()

    asyncio.run(beside())
