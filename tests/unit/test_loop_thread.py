"""Calls into a loop on another thread: each ends, whoever closes the loop and when."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from ragline.concurrency.loop_thread import LoopThread
from ragline.errors import BackendError
from tests.interrupting import ctrl_c


@pytest.fixture
def loop() -> Iterator[LoopThread]:
    loop = LoopThread("the machine", hint="start it")
    yield loop
    loop.close(nothing)


async def nothing() -> None:
    pass


async def answer() -> int:
    return 42


def on_thread(act: Callable[[], object]) -> Callable[[], object]:
    """Begins to call it on a thread; gives what waits for its result, or the error that it raised."""
    results: list[object] = []

    def call() -> None:
        try:
            results.append(act())
        except BaseException as error:
            results.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()

    def result() -> object:
        thread.join(10)
        return results[0] if results else "it has not ended"

    return result


def until(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.001)


def test_calls_are_done_and_after_the_end_refused(loop: LoopThread) -> None:
    assert loop.run(answer()) == 42
    loop.close(nothing)
    loop.close(nothing)
    with pytest.raises(BackendError, match="the machine is closed") as refused:
        loop.run(answer())
    assert refused.value.hint == "start it"


def test_a_call_that_comes_as_the_loop_ends_is_refused(loop: LoopThread) -> None:
    real = loop._loop.call_soon_threadsafe

    def too_late(*call: object) -> object:
        loop._loop.call_soon_threadsafe = real  # type: ignore[method-assign]
        loop.close(nothing)
        return real(*call)  # type: ignore[arg-type]

    loop._loop.call_soon_threadsafe = too_late  # type: ignore[method-assign, assignment]
    call = on_thread(lambda: loop.run(answer()))
    assert isinstance(call(), BackendError)


def test_a_call_that_the_loop_takes_with_its_last_breath_is_refused(loop: LoopThread) -> None:
    closing_let_go, closing_begun = threading.Event(), threading.Event()

    async def holds_up_the_loop() -> None:
        closing_begun.set()
        closing_let_go.wait(10)

    closing = on_thread(lambda: loop.close(holds_up_the_loop))
    assert closing_begun.wait(10)
    calls = [on_thread(lambda: loop.run(answer())) for _ in range(3)]
    until(lambda: len(loop._loop._ready) >= 3)  # type: ignore[attr-defined]
    closing_let_go.set()
    assert all(isinstance(call(), BackendError) for call in calls)
    assert closing() is None


def test_closing_takes_calls_until_it_is_through_and_waits_for_those_under_way(loop: LoopThread) -> None:
    let_go = asyncio.Event()

    async def last() -> None:
        await let_go.wait()

    async def outlasts_it() -> str:
        await loop._ending.wait()
        for _ in range(20):
            await asyncio.sleep(0)
        return "done"

    async def lets_it_go() -> None:
        let_go.set()

    call = on_thread(lambda: loop.run(outlasts_it()))
    closing = [on_thread(lambda: loop.close(last))]
    until(lambda: len(loop._calls) == 2)
    closing.append(on_thread(lambda: loop.close(nothing)))
    until(lambda: len(loop._calls) == 3)
    assert loop.run(answer()) == 42
    loop.run(lets_it_go())
    assert call() == "done" and [closed() for closed in closing] == [None, None]
    assert not loop._thread.is_alive()


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # from Python 3.12 on, and what this is about
def test_a_forked_child_is_refused_and_does_not_wait(loop: LoopThread) -> None:
    child = os.fork()
    if not child:
        signal.alarm(10)
        refused = False
        try:
            loop.run(answer())
        except BackendError:
            loop.close(nothing)
            refused = True
        finally:
            os._exit(0 if refused else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert loop.run(answer()) == 42


def test_what_fails_while_it_closes_is_raised_and_the_loop_ends_all_the_same(loop: LoopThread) -> None:
    async def fails() -> None:
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        loop.close(fails)
    with pytest.raises(BackendError):
        loop.run(answer())


def test_what_ends_the_program_ends_the_call_and_not_the_loop(loop: LoopThread) -> None:
    async def leaves() -> None:
        sys.exit(3)

    assert isinstance(on_thread(lambda: loop.run(leaves()))(), SystemExit)
    assert loop.run(answer()) == 42


def test_an_interrupted_call_is_cancelled_and_waited_for(loop: LoopThread) -> None:
    events: list[str] = []

    async def is_interrupted() -> None:
        keys.press()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            events.append("cancelled")
            raise

    with ctrl_c() as keys, pytest.raises(KeyboardInterrupt):
        loop.run(is_interrupted())
    assert events == ["cancelled"] and loop.run(answer()) == 42


@pytest.mark.parametrize("handed_over", [False, True])
def test_a_call_interrupted_while_it_is_handed_over_leaves_nothing_behind(loop: LoopThread, handed_over: bool) -> None:
    real = loop._loop.call_soon_threadsafe

    def interrupted(*call: object) -> object:
        loop._loop.call_soon_threadsafe = real  # type: ignore[method-assign]
        if handed_over:
            real(*call)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    loop._loop.call_soon_threadsafe = interrupted  # type: ignore[method-assign, assignment]
    call = on_thread(lambda: loop.run(asyncio.Event().wait()))
    assert isinstance(call(), KeyboardInterrupt)
    assert not loop._calls and loop.run(answer()) == 42


def test_a_call_from_the_loops_own_thread_is_an_error(loop: LoopThread) -> None:
    async def calls() -> None:
        loop.run(answer())

    with pytest.raises(RuntimeError, match="own thread"):
        loop.run(calls())


def test_an_iterator_that_outlives_the_loop_ends_with_the_same_error(loop: LoopThread) -> None:
    class Numbers:
        def __aiter__(self) -> Numbers:
            return self

        async def __anext__(self) -> int:
            return 1

    numbers = loop.iterate(Numbers())
    left = loop.iterate(Numbers())
    assert next(numbers) == next(left) == 1
    loop.close(nothing)
    with pytest.raises(BackendError):
        next(numbers)
    left.close()  # type: ignore[attr-defined]
