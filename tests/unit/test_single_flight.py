"""Sharing: one computation for those who want the same at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from ragline.concurrency.single_flight import SharedStream, SingleFlight


class Work:
    """A computation that ends when told, and counts how often it was begun and cancelled."""

    def __init__(self) -> None:
        self.begun = 0
        self.cancelled = 0
        self.may_end = asyncio.Event()

    async def __call__(self) -> str:
        self.begun += 1
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return "done"


async def test_a_hundred_callers_share_one_computation() -> None:
    flights: SingleFlight[str, str] = SingleFlight()
    work = Work()
    callers = [asyncio.create_task(flights.run("key", work)) for _ in range(100)]
    await asyncio.sleep(0)
    work.may_end.set()
    assert await asyncio.gather(*callers) == ["done"] * 100
    assert work.begun == 1
    assert len(flights) == 0


async def test_another_key_is_another_computation_and_a_later_call_too() -> None:
    flights: SingleFlight[str, str] = SingleFlight()
    work = Work()
    work.may_end.set()
    await asyncio.gather(flights.run("a", work), flights.run("b", work))
    await flights.run("a", work)
    assert work.begun == 3


async def test_the_first_callers_leaving_harms_nobody() -> None:
    flights: SingleFlight[str, str] = SingleFlight()
    work = Work()
    first = asyncio.create_task(flights.run("key", work))
    await asyncio.sleep(0)
    second = asyncio.create_task(flights.run("key", work))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    work.may_end.set()
    assert await second == "done"
    assert (work.begun, work.cancelled) == (1, 0)


async def test_when_all_have_left_the_work_is_cancelled_and_the_next_caller_begins_anew() -> None:
    flights: SingleFlight[str, str] = SingleFlight()
    work = Work()
    callers = [asyncio.create_task(flights.run("key", work)) for _ in range(3)]
    await asyncio.sleep(0)
    for caller in callers:
        caller.cancel()
    await asyncio.gather(*callers, return_exceptions=True)
    assert "key" not in flights
    later = asyncio.create_task(flights.run("key", work))
    await settle()
    assert (work.begun, work.cancelled) == (2, 1)
    work.may_end.set()
    assert await later == "done"


async def test_a_failure_reaches_every_caller() -> None:
    flights: SingleFlight[str, str] = SingleFlight()

    async def fail() -> str:
        await asyncio.sleep(0)
        raise ValueError("no")

    results = await asyncio.gather(*(flights.run("key", fail) for _ in range(5)), return_exceptions=True)
    assert [str(result) for result in results] == ["no"] * 5
    assert len(flights) == 0


async def test_a_forgotten_computation_ends_for_its_callers_and_is_not_joined() -> None:
    flights: SingleFlight[str, str] = SingleFlight()
    old, new = Work(), Work()
    before = asyncio.create_task(flights.run("key", old))
    await settle()
    assert flights.forget(lambda key: key.startswith("k")) == 1
    after = asyncio.create_task(flights.run("key", new))
    await settle()
    assert (old.begun, new.begun) == (1, 1)
    old.may_end.set()
    assert await before == "done"
    assert "key" in flights, "the end of the old one must not take the new one along"
    new.may_end.set()
    assert await after == "done"


class Source:
    """Numbers that come when told."""

    def __init__(self, count: int, failure: Exception | None = None) -> None:
        self.count = count
        self.failure = failure
        self.begun = 0
        self.closed = False
        self.gates = [asyncio.Event() for _ in range(count + 1)]

    async def __aiter__(self) -> AsyncIterator[int]:
        self.begun += 1
        try:
            for number in range(self.count):
                await self.gates[number].wait()
                yield number
            await self.gates[self.count].wait()
            if self.failure is not None:
                raise self.failure
        finally:
            self.closed = True

    def let(self, gates: int) -> None:
        for gate in self.gates[:gates]:
            gate.set()


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_late_reader_gets_what_came_before() -> None:
    source = Source(4)
    shared = SharedStream(aiter(source))
    early: list[int] = []

    async def collect(into: list[int]) -> None:
        async for number in shared.read():
            into.append(number)  # noqa: PERF401  (they are looked at while they come)

    first = asyncio.create_task(collect(early))
    source.let(2)
    await settle()
    assert early == [0, 1]
    late: list[int] = []
    second = asyncio.create_task(collect(late))
    await settle()
    assert late == [0, 1]
    source.let(5)
    await asyncio.gather(first, second)
    assert early == late == [0, 1, 2, 3]
    assert source.begun == 1


async def test_one_readers_leaving_does_not_end_the_stream_and_the_last_ones_does() -> None:
    source = Source(3)
    shared = SharedStream(aiter(source))
    one, two = shared.read(), shared.read()
    source.let(1)
    assert await anext(one) == 0
    assert await anext(two) == 0
    await one.aclose()
    await settle()
    assert not source.closed and not shared.abandoned
    source.let(2)
    assert await anext(two) == 1
    await two.aclose()
    await settle()
    assert source.closed and shared.abandoned


async def test_a_failure_comes_after_the_items_before_it_to_every_reader() -> None:
    source = Source(2, ValueError("broke"))
    shared = SharedStream(aiter(source))
    source.let(3)
    for _ in range(2):
        seen: list[int] = []
        with pytest.raises(ValueError, match="broke"):
            async for number in shared.read():
                seen.append(number)  # noqa: PERF401  (a comprehension would lose them to the failure)
        assert seen == [0, 1]
    assert shared.done
