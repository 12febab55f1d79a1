"""Threads for work that must not run on the event loop.

One code path serves local and remote parts: a coroutine whose parts are all local never suspends when it
runs on a worker thread, because `Workers.run` then calls the function directly. `drive` runs such a
coroutine to its end in one job, so that a local search costs one hop between threads, not one per part.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import os
import sys
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_on_worker = threading.local()


class Workers:
    """A sized pool of named threads.

    Args:
        name: Shown in thread listings.
        threads: How many jobs run at once.
        nice: Added to the threads' niceness where the system allows it (Linux); ingest runs at 10, questions at 0.
    """

    def __init__(self, name: str, threads: int, *, nice: int = 0) -> None:
        self.threads = threads
        self._nice = nice
        self._under_way = 0
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=name, initializer=self._start)

    def _start(self) -> None:
        _on_worker.active = True
        if self._nice and sys.platform == "linux":
            # Linux gives every thread its own niceness; without the right to change it, we run as we are.
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), self._nice)

    @property
    def waiting(self) -> int:
        """Jobs that wait for a thread, about."""
        return self._executor._work_queue.qsize()

    @property
    def under_way(self) -> int:
        """Callers who wait for a job, until the loop has given them what it made."""
        return self._under_way

    async def run(self, job: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs `job` on a thread of this pool; on a worker thread already, at once and without suspending."""
        if on_worker():
            return job(*args, **kwargs)
        # The context goes along, so that what the job logs carries the id of its request.
        call = functools.partial(contextvars.copy_context().run, job, *args, **kwargs)
        self._under_way += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, call)
        finally:
            self._under_way -= 1

    def close(self) -> None:
        """Waits for running jobs, drops queued ones. Twice is harmless."""
        self._executor.shutdown(wait=True, cancel_futures=True)


def on_worker() -> bool:
    """Whether this thread belongs to any `Workers`."""
    return getattr(_on_worker, "active", False)


def drive(work: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine that never suspends, on this worker thread, and returns its result.

    Raises:
        RuntimeError: It tried to suspend: a part of it is not local.
    """
    try:
        work.send(None)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    work.close()
    raise RuntimeError("a coroutine driven on a worker thread tried to suspend: one of its parts is not local")
