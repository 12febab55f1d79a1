"""Several processes that answer, under one that replaces those that die and stops them when it is told to."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from multiprocessing.synchronize import Event
from types import FrameType

STARTUP_FAILED = 3
"""The exit code of a process that could not start: another would fare no better."""

_LOOK_EVERY_S = 0.25
_YOUNG_S = 5.0
_PAUSE_S = 1.0

_log = logging.getLogger("ragline.server")


@dataclass(frozen=True, slots=True)
class Worker:
    """A process that answers; `ready` is set once it does.

    Attributes:
        ended: To be called once it has ended.
    """

    process: SpawnProcess
    ready: Event
    ended: Callable[[], None] = lambda: None
    since: float = field(default_factory=time.monotonic)


class Supervisor:
    """Keeps a number of processes running.

    Args:
        start: Starts one more.
        patience_s: How long one that was told to stop may take; then it is killed.
    """

    def __init__(self, start: Callable[[], Worker], count: int, *, patience_s: float) -> None:
        self._start = start
        self._count = count
        self._patience_s = patience_s
        self._told_to_stop = False
        self._told_to_replace = False

    def run(self) -> bool:
        """Runs until SIGTERM or SIGINT comes; SIGHUP replaces all processes, one after another. False where none could start."""
        with self._signals():
            workers = [self._start() for _ in range(self._count)]
            try:
                while not self._told_to_stop:
                    wait([worker.process.sentinel for worker in workers], _LOOK_EVERY_S)
                    if self._told_to_stop:
                        break
                    for place, worker in enumerate(workers):
                        code = worker.process.exitcode  # looked at once: it may end meanwhile
                        if code == STARTUP_FAILED and not worker.ready.is_set():
                            return False
                        if code is not None:
                            worker.ended()
                            workers[place] = self._instead_of(worker)
                    if self._told_to_replace:
                        self._told_to_replace = False
                        self._replace(workers)
                return True
            finally:
                self._stop(workers)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        def stop(number: int, frame: FrameType | None) -> None:
            self._told_to_stop = True

        def replace(number: int, frame: FrameType | None) -> None:
            self._told_to_replace = True

        handlers = {signal.SIGTERM: stop, signal.SIGINT: stop, signal.SIGHUP: replace}
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _instead_of(self, dead: Worker) -> Worker:
        _log.error("process %d ended with %s; another takes its place", dead.process.pid, dead.process.exitcode)
        if time.monotonic() - dead.since < _YOUNG_S:
            time.sleep(_PAUSE_S)  # what kills them as soon as they are there shall not keep the machine busy
        return self._start()

    def _replace(self, workers: list[Worker]) -> None:
        """Puts a new process in the place of each, once it answers; where one does not come to that, the old ones stay."""
        for place, old in enumerate(workers):
            new = self._start()
            while not new.ready.wait(_LOOK_EVERY_S) and new.process.exitcode is None and not self._told_to_stop:
                pass
            if not new.ready.is_set():
                _log.error("a new process did not come to answer: the old ones stay")
                self._stop([new])
                return
            workers[place] = new
            self._stop([old])

    def _stop(self, workers: list[Worker]) -> None:
        for worker in workers:
            if worker.process.is_alive():
                worker.process.terminate()
        until = time.monotonic() + self._patience_s
        for worker in workers:
            worker.process.join(max(0.0, until - time.monotonic()))
            if worker.process.is_alive():
                _log.error("process %d did not stop in time and is killed", worker.process.pid)
                worker.process.kill()
                worker.process.join()
            worker.ended()
