"""A time limit that is only set where there is something to wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any

import pytest

from ragline.concurrency.limited import LimitExceeded, limited


async def test_work_that_never_waits_sets_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> int:
        return 7

    def timeout(seconds: float) -> Any:
        raise AssertionError("a timer was set")

    monkeypatch.setattr(asyncio, "timeout", timeout)
    assert await limited(0.0, work()) == 7


async def test_work_that_waits_goes_on_to_its_end() -> None:
    seen = []

    async def work() -> str:
        for number in range(3):
            await asyncio.sleep(0.001)
            seen.append(number)
        return "done"

    assert await limited(10.0, work()) == "done"
    assert seen == [0, 1, 2]


async def test_work_that_takes_too_long_is_cancelled_and_cleans_up() -> None:
    ended = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            ended.append(True)

    with pytest.raises(LimitExceeded):
        await limited(0.01, work())
    assert ended == [True]


async def test_an_error_of_the_work_is_its_own() -> None:
    async def at_once() -> None:
        raise TimeoutError("its own")

    async def later() -> None:
        await asyncio.sleep(0)
        raise TimeoutError("its own")

    for work in (at_once, later):
        with pytest.raises(TimeoutError, match="its own") as caught:
            await limited(10.0, work())
        assert not isinstance(caught.value, LimitExceeded)


async def test_who_waits_can_be_cancelled() -> None:
    cancelled = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    waiting = asyncio.create_task(limited(60.0, work()))
    await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert cancelled == [True]


async def test_anything_that_can_be_awaited_is_work() -> None:
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.01, future.set_result, 3)
    assert await limited(10.0, future) == 3

    class Odd:
        def __await__(self) -> Generator[Any, None, int]:
            yield from asyncio.sleep(0).__await__()
            return 5

    assert await limited(10.0, Odd()) == 5


async def test_locks_and_timeouts_within_know_their_task() -> None:
    lock = asyncio.Lock()

    async def work() -> int:
        async with lock, asyncio.timeout(10):
            await asyncio.sleep(0.001)
        return 1

    assert list(await asyncio.gather(limited(10.0, work()), limited(10.0, work()))) == [1, 1]
