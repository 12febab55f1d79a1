"""An event loop on a thread of its own, for blocking code."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, Generic, TypeVar

from ragline.errors import BackendError

T = TypeVar("T")


class LoopThread:
    """An event loop on a daemon thread, and calls into it from others. Every call ends: it is done, or it is refused.

    A call that is interrupted by Ctrl-C is cancelled and waited for.

    Args:
        name: Of whose calls it does, for messages.
        hint: What to do about calls that come after its end.
    """

    def __init__(self, name: str, hint: str) -> None:
        self._name = name
        self._hint = hint
        self._loop = asyncio.new_event_loop()
        self._calls: set[_Call[Any]] = set()
        self._closed = False
        self._closing = asyncio.Lock()
        self._ending = asyncio.Event()
        self._thread = threading.Thread(target=self._serve, name="ragline-loop", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What `work` gives.

        Raises:
            BackendError: The loop is closed.
            RuntimeError: This is the loop's own thread.
        """
        task = self._done(work)
        if task is None:
            raise BackendError(f"{self._name} is closed", hint=self._hint)
        return task.result()

    def iterate(self, events: AsyncIterator[T]) -> Iterator[T]:
        """What an asynchronous iterator gives; whoever leaves early ends its work."""
        iterator = events.__aiter__()
        try:
            while True:
                try:
                    yield self.run(_next(iterator))
                except StopAsyncIteration:
                    return
        finally:
            task = self._done(_close(iterator))
            if task is not None:
                task.result()

    def close(self, last: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Does `last`, and ends when that and all other calls are done; as long as `last` takes, further calls are done too.

        Twice is harmless, also at once: each waits for the end.
        """
        task = self._done(self._close(last))
        if task is not None:
            task.result()
        self._thread.join()

    def _done(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T] | None:
        """The task that has done it; None where the loop takes no more."""
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError(f"a blocking method was called on the own thread of {self._name}; it would wait for itself")
        if not self._thread.is_alive():  # also in a forked child, which has the loop and not its thread
            work.close()
            return None
        call = _Call(work)
        try:
            self._calls.add(call)  # before it looks whether the loop is closed: from here on the call is told when the loop ends
            self._tell(self._start, call)
            call.ended.wait()
        except BaseException:  # Ctrl-C, at any of these lines: end the work before we leave
            self._tell(self._cancel, call)
            call.ended.wait()
            raise
        finally:
            if call.task is None:
                work.close()
        return call.task if call.task is not None and call.task.done() else None

    def _tell(self, act: Callable[[_Call[Any]], None], call: _Call[Any]) -> None:
        """Has the loop do it. No lock is needed: what is not begun when the loop closes never is."""
        if self._closed and call.task is None:
            self._end(call)
        else:
            with contextlib.suppress(RuntimeError):  # the loop has ended in this very moment, and the call with it
                self._loop.call_soon_threadsafe(act, call)

    def _start(self, call: _Call[Any]) -> None:
        if self._closed:  # since it was told
            self._end(call)
        else:
            call.task = self._loop.create_task(call.work)
            call.task.add_done_callback(lambda _: self._end(call))

    def _cancel(self, call: _Call[Any]) -> None:
        if call.task is None:  # interrupted before it was told to start
            self._end(call)
        else:
            call.task.cancel()

    def _end(self, call: _Call[Any]) -> None:
        """Lets the waiting thread go."""
        self._calls.discard(call)
        call.ended.set()

    async def _close(self, last: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async with self._closing:  # the second has nothing left to do, and must not end the loop before the first is through
            try:
                await last()
            finally:
                self._closed = True
                self._ending.set()

    def _serve(self) -> None:
        serving = self._loop.create_task(self._until_closed())
        try:
            while not serving.done():
                # What a caller's own callback raises to end the program is that caller's; the loop goes on for the others.
                with contextlib.suppress(SystemExit, KeyboardInterrupt):
                    self._loop.run_until_complete(serving)
        finally:
            self._closed = True
            for call in list(self._calls):
                self._end(call)
            self._loop.close()

    async def _until_closed(self) -> None:
        await self._ending.wait()
        while tasks := [call.task for call in list(self._calls) if call.task is not None]:
            await asyncio.wait(tasks)


class _Call(Generic[T]):
    """Work for the loop, and the thread that waits until it has ended.

    Attributes:
        task: Does the work, once the loop has begun it.
    """

    def __init__(self, work: Coroutine[Any, Any, T]) -> None:
        self.work = work
        self.task: asyncio.Task[T] | None = None
        self.ended = threading.Event()


async def _next(iterator: AsyncIterator[T]) -> T:
    return await iterator.__anext__()


async def _close(iterator: AsyncIterator[Any]) -> None:
    close = getattr(iterator, "aclose", None)
    if close is not None:
        await close()
