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
        call = _Call(self._loop, work, self._calls.discard)
        try:
            # In this order no lock is needed: a call that finds it open is known already, and is told when the loop ends.
            self._calls.add(call)
            if self._closed:
                call.end()
            else:
                with contextlib.suppress(RuntimeError):  # the loop ended in this very moment
                    self._loop.call_soon_threadsafe(self._start, call)
            call.wait()
        except BaseException:  # Ctrl-C, which may come at any of these lines
            call.leave()
            raise
        return call.done()

    def _start(self, call: _Call[Any]) -> None:
        if self._closed:  # since it was asked for
            call.end()
        else:
            call.start()

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
                call.end()
            self._loop.close()

    async def _until_closed(self) -> None:
        await self._ending.wait()
        while tasks := [call.task for call in list(self._calls) if call.task is not None]:
            await asyncio.wait(tasks)


class _Call(Generic[T]):
    """Work for the loop, and the thread that waits for it.

    Attributes:
        task: Does the work, once the loop has begun it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T], forget: Callable[[_Call[T]], None]) -> None:
        self.task: asyncio.Task[T] | None = None
        self._loop = loop
        self._work = work
        self._forget = forget
        self._ended = threading.Event()

    def start(self) -> None:
        """Begins the work; on the loop."""
        self.task = self._loop.create_task(self._work)
        self.task.add_done_callback(lambda _: self.end())

    def end(self) -> None:
        """Lets the waiting thread go."""
        self._forget(self)
        self._ended.set()

    def wait(self) -> None:
        """Returns when it has ended."""
        self._ended.wait()

    def leave(self) -> None:
        """Ends the work for one who does not wait for its result any more, and returns when it has ended."""
        try:
            self._loop.call_soon_threadsafe(self._cancel)
        except RuntimeError:  # the loop has ended, and the work with it
            self.end()
        self.wait()
        self.done()

    def done(self) -> asyncio.Task[T] | None:
        """The task, which is done; None where the loop ended without it."""
        if self.task is None:
            self._work.close()
        return self.task if self.task is not None and self.task.done() else None

    def _cancel(self) -> None:
        if self.task is not None:
            self.task.cancel()
        else:  # what comes before this on the loop would have begun it: it was never handed over
            self.end()


async def _next(iterator: AsyncIterator[T]) -> T:
    return await iterator.__anext__()


async def _close(iterator: AsyncIterator[Any]) -> None:
    close = getattr(iterator, "aclose", None)
    if close is not None:
        await close()
