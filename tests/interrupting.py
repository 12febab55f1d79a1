"""Ctrl-C in tests."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager


class CtrlC:
    """Interrupts the main thread, once."""

    def __init__(self) -> None:
        self._seen = False

    def press(self) -> None:
        """Presses until it is seen, from another thread: a signal that comes just before a wait does not end it."""
        ends = time.monotonic() + 10
        while not self._seen and time.monotonic() < ends:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.001)

    def interrupt(self, *_: object) -> None:
        if not self._seen:
            self._seen = True
            raise KeyboardInterrupt


@contextmanager
def ctrl_c() -> Iterator[CtrlC]:
    """What presses it; afterwards signals do what they did before."""
    keys = CtrlC()
    before = signal.signal(signal.SIGINT, keys.interrupt)
    try:
        yield keys
    finally:
        signal.signal(signal.SIGINT, before)
