"""How a process of the server stops: first it says that it is not ready, then it takes no more, then it finishes what it has."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def drained_first(tell: Callable[[], None], drain_s: float) -> Iterator[None]:
    """Within it, SIGTERM first calls `tell`, and only `drain_s` later whoever handled it before. A second one is not held back.

    Load balancers see a server that is not ready before they see one that takes no connections. Elsewhere than on the main
    thread, where no signals arrive, this does nothing.
    """
    before = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    loop = asyncio.get_running_loop()
    told = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal told
        if told or drain_s <= 0:
            tell()
            before(number, frame)
            return
        told = True
        tell()
        loop.call_soon_threadsafe(loop.call_later, drain_s, before, number, None)

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is stop:
            signal.signal(signal.SIGTERM, before)
