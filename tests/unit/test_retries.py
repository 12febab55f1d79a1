"""Trying again, with a clock and a sleep of the test's own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest

from ragline.concurrency.retries import Retries, retried, retry_after_s
from ragline.errors import DeadlineError


class BusyError(Exception):
    def __init__(self, wait_s: float | None = 0.0) -> None:
        super().__init__(f"come back in {wait_s}")
        self.wait_s = wait_s


def wait_of(error: BaseException) -> float | None:
    return error.wait_s if isinstance(error, BusyError) else None


class Clock:
    """Time that passes only by sleeping and by attempts that say how long they took."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []
        self.lefts: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    async def run(self, outcomes: Sequence[Exception | str], retries: Retries, *, took_s: float = 0.0) -> str:
        """Attempts that end as told, the last one for ever."""

        async def attempt(left_s: float) -> str:
            outcome = outcomes[min(len(self.lefts), len(outcomes) - 1)]
            self.lefts.append(left_s)
            self.now += took_s
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        return await retried(attempt, retries, wait_of=wait_of, sleep=self.sleep, clock=self)


async def test_what_succeeds_at_once_is_not_waited_for() -> None:
    clock = Clock()
    assert await clock.run(["done"], Retries(10)) == "done"
    assert clock.slept == [] and clock.lefts == [10]


async def test_it_is_tried_again_until_it_succeeds() -> None:
    clock = Clock()
    assert await clock.run([BusyError(), BusyError(), "done"], Retries(60)) == "done"
    assert len(clock.slept) == 2


async def test_an_error_that_trying_again_cannot_help_is_raised_at_once() -> None:
    clock = Clock()
    with pytest.raises(ZeroDivisionError):
        await clock.run([ZeroDivisionError(), "done"], Retries(60))
    assert len(clock.lefts) == 1 and clock.slept == []


async def test_the_budget_bounds_attempts_and_waits_together() -> None:
    for took_s in (0.0, 0.7, 3.0):
        clock = Clock()
        with pytest.raises(BusyError):
            await clock.run([BusyError()], Retries(10, first_wait_s=1, longest_wait_s=2), took_s=took_s)
        assert len(clock.lefts) > 1
        assert clock.now - 1000 < 10 + took_s, "a wait went past the budget"
        assert all(left > 0 for left in clock.lefts)


async def test_each_attempt_is_told_what_is_left_of_the_budget() -> None:
    clock = Clock()
    with pytest.raises(BusyError):
        await clock.run([BusyError(1)], Retries(10), took_s=1)
    assert clock.lefts[0] == 10
    spent = [1 * (place + 1) + sum(clock.slept[: place + 1]) for place in range(len(clock.slept))]
    assert clock.lefts[1:] == pytest.approx([10 - each for each in spent])


async def test_waits_grow_up_to_the_longest_and_are_drawn_from_all_of_their_range() -> None:
    seconds: list[list[float]] = [[] for _ in range(6)]
    for _ in range(300):
        clock = Clock()
        with pytest.raises(BusyError):
            await clock.run([BusyError()], Retries(1000, first_wait_s=1, longest_wait_s=8, attempts=7))
        for place, wait in enumerate(clock.slept):
            seconds[place].append(wait)
    for waits, widest in zip(seconds, (1, 2, 4, 8, 8, 8), strict=True):
        assert 0 <= min(waits) < 0.1 * widest and 0.9 * widest < max(waits) <= widest


async def test_it_never_comes_back_before_it_was_told_to() -> None:
    for _ in range(200):
        clock = Clock()
        assert await clock.run([BusyError(4.0), "done"], Retries(60)) == "done"
        assert 4.0 <= clock.slept[0] <= 5.0


async def test_told_to_come_back_after_the_budget_it_gives_up_at_once() -> None:
    clock = Clock()
    with pytest.raises(BusyError):
        await clock.run([BusyError(3600)], Retries(60))
    assert clock.slept == []


async def test_attempts_are_counted_where_they_are_bounded() -> None:
    clock = Clock()
    with pytest.raises(BusyError):
        await clock.run([BusyError()], Retries(1000, attempts=3))
    assert len(clock.lefts) == 3 and len(clock.slept) == 2
    once = Clock()
    with pytest.raises(BusyError):
        await once.run([BusyError()], Retries(1000, attempts=1))
    assert len(once.lefts) == 1 and once.slept == []


async def test_two_thousand_attempts_do_not_overflow() -> None:
    clock = Clock()
    assert await clock.run([BusyError()] * 2000 + ["done"], Retries(1e9, longest_wait_s=1.0)) == "done"


async def test_an_attempt_that_does_not_keep_to_its_time_is_cut_off() -> None:
    async def forever(left_s: float) -> None:
        await asyncio.Event().wait()

    with pytest.raises(DeadlineError, match=r"within 0\.05 s"):
        await retried(forever, Retries(0.05), wait_of=wait_of)


async def test_cut_off_in_a_later_attempt_it_says_what_went_wrong_before() -> None:
    tries = 0
    cause = OSError("the cable")

    async def first_busy_then_silent(left_s: float) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise BusyError() from cause
        await asyncio.Event().wait()

    with pytest.raises(BusyError) as raised:
        await retried(first_busy_then_silent, Retries(0.2, first_wait_s=0.01), wait_of=wait_of)
    assert tries == 2 and raised.value.__cause__ is cause


async def test_a_timeout_of_the_attempts_own_is_an_error_like_others() -> None:
    tries = 0

    async def slow_once(left_s: float) -> str:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise TimeoutError("this one request")
        return "done"

    assert await retried(slow_once, Retries(10, first_wait_s=0), wait_of=lambda error: 0.0 if isinstance(error, TimeoutError) else None)
    assert tries == 2


async def test_cancelling_ends_an_attempt_at_once_and_is_never_tried_again() -> None:
    tries = 0

    async def forever(left_s: float) -> None:
        nonlocal tries
        tries += 1
        await asyncio.Event().wait()

    task = asyncio.create_task(retried(forever, Retries(60), wait_of=lambda _: 0.0))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert tries == 1


async def test_cancelling_ends_a_wait_at_once() -> None:
    waiting = asyncio.Event()

    async def busy(left_s: float) -> None:
        waiting.set()
        raise BusyError(1000)

    task = asyncio.create_task(retried(busy, Retries(3600), wait_of=wait_of))
    await waiting.wait()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"RETRY-AFTER": "0"}, 0.0),
        ({"retry-after": "7", "retry-after-ms": "250"}, 0.25),
        ({"retry-after": "7", "retry-after-ms": "soon"}, 7.0),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "1e999"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "Wed, 99 Foo 2025 99:99:99 GMT"}, None),
        ({"retry-after": "Wed, 01 Jan 99999999999 00:00:00 GMT"}, None),
    ],
)
def test_retry_after_is_read_in_seconds_or_not_at_all(headers: dict[str, str], expected: float | None) -> None:
    assert retry_after_s(headers) == expected


def test_retry_after_may_be_a_date() -> None:
    moment = datetime(2025, 10, 21, 7, 28, 0, tzinfo=UTC)
    date = format_datetime(moment, usegmt=True)
    assert date == "Tue, 21 Oct 2025 07:28:00 GMT"
    assert retry_after_s({"Retry-After": date}, moment.timestamp() - 90) == 90
    assert retry_after_s({"Retry-After": date}, moment.timestamp() + 90) == 0
    assert retry_after_s({"Retry-After": date}) == 0
    assert retry_after_s({"Retry-After": "Tue Oct 21 07:28:00 2025"}, moment.timestamp() - 90) == 90


def test_a_date_is_compared_with_the_servers_own_clock() -> None:
    there = datetime.fromtimestamp(time.time() - 10_000, UTC)
    headers = {"Date": format_datetime(there, usegmt=True), "Retry-After": format_datetime(there.replace(microsecond=0), usegmt=True)}
    assert retry_after_s(headers) == 0
    later = datetime.fromtimestamp(there.timestamp() + 30, UTC)
    assert retry_after_s({**headers, "Retry-After": format_datetime(later, usegmt=True)}) == 30
