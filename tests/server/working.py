"""What processes under a supervisor do in its tests."""

from __future__ import annotations

import signal
import sys
import time
from multiprocessing.synchronize import Event


def obedient(ready: Event) -> None:
    """Answers until it is told to stop."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    ready.set()
    while True:
        time.sleep(0.05)


def deaf(ready: Event) -> None:
    """Does not stop when it is told to."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ready.set()
    while True:
        time.sleep(0.05)


def failing(ready: Event) -> None:
    """Cannot start."""
    sys.exit(3)
