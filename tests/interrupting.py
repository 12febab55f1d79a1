"""Ctrl-C in tests."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class CtrlC:
    """Interrupts the main thread, once."""

    def __init__(self) -> None:
        self._seen = False
        self.pressing = threading.Lock()

    def press(self) -> None:
        """Presses until it is seen, from another thread: a signal that comes just before a wait does not end it."""
        ends = time.monotonic() + 10
        with self.pressing:
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
        with keys.pressing:  # none comes late
            signal.signal(signal.SIGINT, before)
