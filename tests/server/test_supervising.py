"""One process that keeps others running."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from multiprocessing.synchronize import Event

import pytest

from ragline.server.supervising import Supervisor, Worker
from tests.server.processes import until
from tests.server.working import deaf, failing, obedient


class Kept:
    """What a supervisor has started so far."""

    def __init__(self, target: Callable[[Event], None]) -> None:
        self.target = target
        self.started: list[Worker] = []
        self.ended = 0

    def start(self) -> Worker:
        context = multiprocessing.get_context("spawn")
        ready = context.Event()
        process = context.Process(target=self.target, args=(ready,))
        process.start()
        self.started.append(Worker(process, ready, self._count))
        return self.started[-1]

    def _count(self) -> None:
        self.ended += 1

    def alive(self) -> list[Worker]:
        return [worker for worker in self.started if worker.process.is_alive() and worker.ready.is_set()]


@pytest.fixture
def meanwhile() -> Iterator[Callable[[Callable[[], None]], None]]:
    """Runs something beside the supervisor, which has the main thread, and tells that to stop at the end."""
    threads: list[threading.Thread] = []

    def begin(work: Callable[[], None]) -> None:
        def whole() -> None:
            try:
                work()
            finally:
                os.kill(os.getpid(), signal.SIGTERM)

        threads.append(threading.Thread(target=whole))
        threads[-1].start()

    before = signal.signal(signal.SIGTERM, lambda *_: None)  # a signal that comes late ends no test run
    yield begin
    for thread in threads:
        thread.join()
    signal.signal(signal.SIGTERM, before)


def test_one_that_dies_is_replaced_and_all_are_stopped_at_the_end(meanwhile: Callable[[Callable[[], None]], None]) -> None:
    kept = Kept(obedient)

    def kill_one() -> None:
        until(lambda: len(kept.alive()) == 2, "both answered")
        kept.started[0].process.kill()
        until(lambda: len(kept.started) == 3 and len(kept.alive()) == 2, "there were two again")

    meanwhile(kill_one)
    assert Supervisor(kept.start, 2, patience_s=20).run()
    assert [worker.process.exitcode for worker in kept.started] == [-signal.SIGKILL, 0, 0]
    assert kept.ended == 3


def test_all_are_replaced_one_after_another(meanwhile: Callable[[Callable[[], None]], None]) -> None:
    kept = Kept(obedient)

    def replace() -> None:
        until(lambda: len(kept.alive()) == 2, "both answered")
        os.kill(os.getpid(), signal.SIGHUP)
        until(lambda: len(kept.started) == 4 and len(kept.alive()) == 2, "two new ones answered")

    meanwhile(replace)
    assert Supervisor(kept.start, 2, patience_s=20).run()
    assert [worker.process.exitcode for worker in kept.started] == [0] * 4


def test_where_none_can_start_it_gives_up() -> None:
    kept = Kept(failing)
    assert not Supervisor(kept.start, 2, patience_s=20).run()
    assert len(kept.started) == 2


def test_one_that_does_not_stop_is_killed(meanwhile: Callable[[Callable[[], None]], None]) -> None:
    kept = Kept(deaf)
    meanwhile(lambda: until(kept.alive, "it answered"))
    assert Supervisor(kept.start, 1, patience_s=0.2).run()
    assert [worker.process.exitcode for worker in kept.started] == [-signal.SIGKILL]
