"""Batches of many callers' items: who is with whom, who waits, and who is told what."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from typing import Any

import pytest

from ragline.concurrency.batching import BatchBudget, BatchProcessor
from ragline.concurrency.workers import Workers
from ragline.errors import InputError, OverloadedError
from tests.batches import Work, processing, settled


async def test_a_lone_item_on_an_idle_processor_is_processed_at_once() -> None:
    work = Work()
    async with processing(work) as processor:  # which would wait a minute for company
        async with asyncio.timeout(5):
            assert await processor.submit(21) == 42
            assert await processor.submit(4) == 8
    assert work.batches == [[21], [4]]


async def test_items_of_one_moment_are_one_batch_and_results_find_their_callers() -> None:
    work = Work()
    async with processing(work) as processor:
        assert await asyncio.gather(*map(processor.submit, range(5))) == [0, 2, 4, 6, 8]
    assert work.batches == [[0, 1, 2, 3, 4]]


async def test_while_a_batch_is_under_way_others_gather_for_the_next() -> None:
    work = Work(open=False)
    async with processing(work) as processor:
        first = processor.submit(0)
        await settled()
        rest = []
        for item in range(1, 12):
            rest.append(processor.submit(item))
            await settled()
        assert work.batches == [[0]] and processor.stats().queue_length == 11
        work.gate.set()
        assert await asyncio.gather(first, *rest) == [2 * item for item in range(12)]
    assert work.batches == [[0], [1, 2, 3, 4, 5, 6, 7, 8], [9, 10, 11]]


async def test_with_a_free_slot_a_full_batch_goes_at_once_and_others_wait_for_company_no_longer_than_max_wait_s() -> None:
    work = Work(open=False)
    async with processing(work, batch_size=2, concurrency=3) as processor:
        processor.submit(0)
        await settled()
        processor.submit(1)
        await settled()
        assert work.batches == [[0]]
        processor.submit(2)
        await settled()
        assert work.batches == [[0], [1, 2]]
    work = Work(open=False)
    async with processing(work, concurrency=2, max_wait_s=0.2) as processor:
        processor.submit(0)
        await settled()
        processor.submit(1)
        await settled()
        assert work.batches == [[0]]
        await asyncio.sleep(0.4)
        assert work.batches == [[0], [1]]
        assert processor.stats().under_way == 2


async def test_a_full_queue_refuses_at_the_door_and_lets_in_again_when_there_is_room() -> None:
    work = Work(open=False)
    async with processing(work, batch_size=2, max_queue=3) as processor:
        under_way = processor.submit(0)
        await settled()
        waiting = [processor.submit(item) for item in (1, 2, 3)]
        with pytest.raises(OverloadedError, match="3 items wait") as refused:
            processor.submit(4)
        assert "later" in refused.value.hint and processor.stats().refused == 1
        work.gate.set()
        assert await asyncio.gather(under_way, *waiting) == [0, 2, 4, 6]
        assert await processor.submit(5) == 10


async def test_who_asks_to_wait_for_room_is_let_in_in_order_of_arrival() -> None:
    work = Work(open=False)
    async with processing(work, batch_size=1, max_queue=1) as processor:
        under_way = processor.submit(0)
        await settled()
        queries = [asyncio.create_task(processor.add_query(item)) for item in range(1, 6)]
        await settled()
        queries[2].cancel()
        assert processor.stats().queue_length == 1
        with pytest.raises(OverloadedError):
            processor.submit(9)
        work.gate.set()
        assert await asyncio.gather(*queries[:2], *queries[3:]) == [2, 4, 8, 10]
        assert await under_way == 0
    assert work.batches == [[0], [1], [2], [4], [5]]


async def test_an_item_that_no_batch_can_hold_is_refused_and_never_waits() -> None:
    work = Work()
    async with processing(work, size_of=lambda item: item, max_size=10) as processor:
        with pytest.raises(InputError, match="size 11") as refused:
            processor.submit(11)
        assert refused.value.hint
        with pytest.raises(InputError, match="size 12"):
            await processor.add_query(12)
        assert await asyncio.gather(*map(processor.submit, (4, 5, 6, 10, 1, 2))) == [8, 10, 12, 20, 2, 4]
    assert work.batches == [[4, 5], [6], [10], [1, 2]]


async def test_a_budget_that_shrank_below_an_item_does_not_keep_it_for_ever() -> None:
    budget = BatchBudget(1, 100, start=1)
    work = Work()
    async with processing(work, size_of=lambda item: item, max_size=budget) as processor:
        assert await asyncio.gather(*map(processor.submit, (50, 60))) == [100, 120]
    assert work.batches == [[50], [60]]


async def test_work_of_callers_who_left_is_dropped_before_it_is_processed() -> None:
    work = Work(open=False)
    async with processing(work, max_queue=3) as processor:
        first = processor.submit(0)
        await settled()
        gone, stays, timed_out = processor.submit(1), processor.submit(2), asyncio.create_task(processor.add_query(3))
        await settled()
        gone.cancel()
        timed_out.cancel()
        await settled()
        assert processor.stats().queue_length == 1 and processor.stats().dropped == 2
        late = processor.submit(4)  # the queue has room again
        work.gate.set()
        assert list(await asyncio.gather(first, stays, late)) == [0, 4, 8]
    assert work.batches == [[0], [2, 4]]


async def test_a_caller_who_leaves_in_the_very_moment_a_batch_begins_is_dropped_too() -> None:
    work = Work()
    async with processing(work) as processor:
        gone, stays = processor.submit(1), processor.submit(2)
        gone.cancel()
        assert await stays == 4
        processor.submit(3).cancel()
        await settled()
        assert processor.stats().dropped == 2 and processor.stats().queue_length == 0
    assert work.batches == [[2]]


async def test_a_batch_under_way_ends_with_its_last_caller_and_not_before() -> None:
    work = Work(open=False)
    async with processing(work) as processor:
        one, other = processor.submit(1), processor.submit(2)
        await settled()
        one.cancel()
        await settled()
        assert work.cancelled == 0
        other.cancel()
        await settled()
        assert work.cancelled == 1 and processor.stats().under_way == 0
        work.gate.set()
        assert await processor.submit(3) == 6


async def test_a_plain_function_runs_on_a_thread() -> None:
    names: list[str] = []

    def process(items: list[int]) -> list[int]:
        names.append(threading.current_thread().name)
        return [2 * item for item in items]

    workers = Workers("batches", 1)
    async with processing(process, workers=workers) as processor:
        assert await processor.submit(1) == 2
    async with processing(process) as processor:
        assert await processor.submit(1) == 2
    async with processing(lambda items: Work()(items)) as processor:  # which gives a coroutine
        assert await processor.submit(1) == 2
    workers.close()
    assert names[0].startswith("batches") and names[1] != threading.current_thread().name


async def test_many_items_are_processed_in_order_and_leave_room_for_others() -> None:
    work = Work(open=False)
    async with processing(work, batch_size=4, max_queue=100) as processor:
        many = asyncio.create_task(processor.process_batch(range(50)))
        await settled()
        assert processor.stats().queue_length == 4
        one = processor.submit(1000)
        await settled()
        work.gate.set()
        assert await one == 2000
        assert await many == [2 * item for item in range(50)]
    assert 1000 in [item for batch in work.batches[:4] for item in batch]
    assert max(map(len, work.batches)) == 4


async def test_many_items_of_one_caller_get_their_share_beside_many_callers_with_one() -> None:
    done = 0

    async def process(items: list[int]) -> list[int]:
        await asyncio.sleep(0)
        return items

    async def ever(processor: BatchProcessor[int, int]) -> None:
        nonlocal done
        while True:
            await processor.submit(-1)
            done += 1

    async with processing(process, batch_size=2, max_queue=64) as processor:
        callers = [asyncio.create_task(ever(processor)) for _ in range(32)]
        await settled()
        async with asyncio.timeout(10):
            assert await processor.process_batch(range(20)) == list(range(20))
        assert done > 100
        for caller in callers:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)


async def test_nothing_to_process_is_no_batch() -> None:
    work = Work()
    async with processing(work) as processor:
        assert await processor.process_batch([]) == []
    assert work.batches == []


def test_outside_an_event_loop_it_says_what_to_do() -> None:
    processor: BatchProcessor[int, int] = BatchProcessor(2, 0, lambda items: items)
    with pytest.raises(InputError, match="event loop") as refused:
        processor.submit(1)
    assert refused.value.hint


async def test_a_batch_does_not_see_what_is_its_first_callers_own() -> None:
    request: contextvars.ContextVar[str] = contextvars.ContextVar("request", default="none")

    async def process(items: list[int]) -> list[str]:
        return [request.get()] * len(items)

    request.set("the first caller's")
    processor: BatchProcessor[int, str] = BatchProcessor(2, 0, process)
    assert await processor.submit(1) == "none"
    await processor.close()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"max_wait_s": -1}, "max_wait_s"),
        ({"max_wait_s": float("nan")}, "max_wait_s"),
        ({"max_queue": 0}, "max_queue"),
        ({"concurrency": -1}, "concurrency"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"max_size": 5}, "size_of"),
        ({"size_of": len}, "max_size"),
        ({"size_of": len, "max_size": 0}, "max_size"),
    ],
)
def test_arguments_out_of_range_are_named(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named) as refused:
        BatchProcessor(**{"batch_size": 1, "max_wait_s": 0, "process": lambda items: items, **arguments})
    assert refused.value.hint


async def test_statistics_say_what_happened() -> None:
    work = Work()
    async with processing(work, batch_size=4) as processor:
        await processor.process_batch(range(10))
        await settled()
        stats = processor.stats()
    assert (stats.submitted, stats.completed, stats.failed, stats.queue_length, stats.under_way) == (10, 10, 0, 0, 0)
    assert stats.average_batch_size == 10 / stats.batches and stats.longest_wait_s >= stats.average_wait_s > 0
    assert stats.as_dict()["completed"] == 10


def test_a_budget_grows_while_batches_are_quick_and_shrinks_by_a_tenth_when_one_is_slow() -> None:
    budget = BatchBudget(100, 1000, start=500, step=100, target_s=0.1)
    budget.note(500, 0.01)
    assert budget.size == 600
    budget.note(100, 0.01)  # says nothing about a batch of 600
    assert budget.size == 600
    budget.note(600, 0.2)
    assert budget.size == 540
    for _ in range(50):
        budget.note(budget.size, 0.05)
    assert budget.size == 1000
    for _ in range(50):
        budget.note(budget.size, 0.5)
    assert budget.size == 100


def test_where_every_call_takes_its_time_small_batches_are_not_asked_for() -> None:
    budget = BatchBudget(100, 1000, start=500, step=100, target_s=0.1)
    for _ in range(20):
        budget.note(budget.size, 0.5)  # half a second, however small
    assert budget.size == 1000


def test_a_budget_out_of_order_is_refused() -> None:
    for least, most, options in ((0, 10, {}), (20, 10, {}), (1, 10, {"start": 11}), (1, 10, {"step": 0}), (1, 10, {"target_s": 0.0})):
        with pytest.raises(InputError):
            BatchBudget(least, most, **options)


async def test_a_place_promised_to_who_waits_is_not_given_away() -> None:
    work = Work(open=False)
    async with processing(work, batch_size=1, max_queue=1) as processor:
        under_way = processor.submit(0)
        await settled()
        waiting = processor.submit(1)
        query = asyncio.create_task(processor.add_query(2))
        await settled()
        waiting.cancel()
        await asyncio.sleep(0)  # the place is free, and its new owner has not run yet
        with pytest.raises(OverloadedError):
            processor.submit(3)
        query.cancel()
        await settled()
        assert processor.stats().queue_length == 0
        late = processor.submit(4)
        work.gate.set()
        assert list(await asyncio.gather(under_way, late)) == [0, 8]


async def test_many_impatient_callers_leave_nothing_behind() -> None:
    async def process(items: list[int]) -> list[int]:
        await asyncio.sleep(0.001)
        if any(item % 97 == 0 for item in items):
            raise ValueError("97")
        return [2 * item for item in items]

    async with processing(process, max_queue=50, concurrency=3, max_wait_s=0.001) as processor:

        async def call(item: int) -> object:
            try:
                async with asyncio.timeout(0.002 if item % 3 == 0 else 30):
                    return await processor.add_query(item)
            except (TimeoutError, ValueError) as error:
                return error

        got = await asyncio.gather(*map(call, range(1, 600)))
        await settled()
        stats = processor.stats()
        assert stats.queue_length == stats.under_way == 0
        for item, result in enumerate(got, 1):
            if item % 3:
                assert isinstance(result, ValueError) if item % 97 == 0 else result == 2 * item
