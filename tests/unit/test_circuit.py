from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ragline.concurrency.circuit import Circuit, GuardedCalls
from ragline.errors import DeadlineError, OverloadedError


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_failures_in_a_row_open_it_and_a_success_between_starts_the_count_anew() -> None:
    circuit = Circuit(3, 10, clock=Clock())
    for _ in range(5):
        circuit.failed()
        circuit.failed()
        circuit.succeeded()
    assert circuit.allows()
    for _ in range(3):
        assert circuit.allows()
        circuit.failed()
    assert circuit.open
    assert not circuit.allows()


def test_after_a_rest_one_trial_at_a_time_is_let_through_until_one_succeeds() -> None:
    clock = Clock()
    circuit = Circuit(1, 10, clock=clock)
    circuit.failed()
    clock.now = 9.9
    assert not circuit.allows()
    clock.now = 10
    assert [circuit.allows() for _ in range(3)] == [True, False, False]
    circuit.failed()
    clock.now = 19.9
    assert not circuit.allows()
    clock.now = 20
    assert circuit.allows()
    circuit.succeeded()
    assert [circuit.allows() for _ in range(3)] == [True, True, True]


def test_a_trial_whose_outcome_nobody_reports_is_repeated() -> None:
    clock = Clock()
    circuit = Circuit(1, 10, clock=clock)
    circuit.failed()
    clock.now = 10
    assert circuit.allows()
    clock.now = 20
    assert circuit.allows()


async def test_a_call_that_takes_too_long_is_cancelled_and_says_so() -> None:
    ended = asyncio.Event()

    async def hang() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            ended.set()

    guarded = GuardedCalls(0.01, Circuit(2, 10))
    with pytest.raises(DeadlineError):
        await guarded.call(hang)
    await asyncio.wait_for(ended.wait(), 5)
    assert not guarded.circuit.open


async def test_what_a_call_raises_is_raised_and_counted() -> None:
    async def fail() -> None:
        raise ConnectionError("down")

    async def cancel() -> None:
        raise asyncio.CancelledError

    guarded = GuardedCalls(1, Circuit(2, 10))
    with pytest.raises(ConnectionError):
        await guarded.call(fail)
    with pytest.raises(DeadlineError):
        await guarded.call(cancel)
    with pytest.raises(OverloadedError) as refused:
        await guarded.call(fail)
    assert refused.value.hint


async def test_a_caller_who_leaves_takes_its_call_along() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def hang() -> None:
        begun.set()
        try:
            await asyncio.sleep(100)
        finally:
            ended.set()

    calling = asyncio.ensure_future(GuardedCalls(100, Circuit(2, 10)).call(hang))
    await begun.wait()
    calling.cancel()
    await asyncio.wait_for(ended.wait(), 5)
    assert (await asyncio.wait({calling}))[0].pop().cancelled()


async def test_calls_that_cannot_be_ended_are_bounded() -> None:
    go = asyncio.Event()
    begun = 0

    async def stubborn() -> Any:
        nonlocal begun
        begun += 1
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                continue

    guarded = GuardedCalls(0.001, Circuit(1000, 10))
    for _ in range(16):
        with pytest.raises(DeadlineError):
            await guarded.call(stubborn)
    for _ in range(10):
        with pytest.raises(OverloadedError):
            await guarded.call(stubborn)
    assert begun == 16
    go.set()
    await asyncio.sleep(0.01)
    await guarded.call(stubborn)
