"""How the interpreter is set while it serves."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

_SWITCH_S = 0.0002
"""How soon a thread that computes hands over the interpreter's lock; the default, 5 ms, is what the event loop waits for it at worst, and a
search several times over.
"""

_YOUNG_OBJECTS = 10_000
"""After so many more objects than before (700 in Python 3.11) the collector looks for cycles among the young ones."""


class _Serving:
    """How many servers of this program run, and what to put back after the last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._servers = 0
        self._put_back = ExitStack()

    def begin(self) -> None:
        """One more serves."""
        with self._lock:
            if not self._servers:
                self._set()
            self._servers += 1

    def end(self) -> None:
        """One of them has ended."""
        with self._lock:
            self._servers -= 1
            if not self._servers:
                self._put_back.close()

    def _set(self) -> None:
        switch_s, thresholds, frozen = sys.getswitchinterval(), gc.get_threshold(), gc.get_freeze_count()
        self._put_back.callback(sys.setswitchinterval, switch_s)
        self._put_back.callback(gc.set_threshold, *thresholds)
        if not frozen:  # what somebody else froze before stays frozen
            self._put_back.callback(gc.unfreeze)
        sys.setswitchinterval(min(_SWITCH_S, switch_s))
        gc.collect()
        gc.freeze()
        gc.set_threshold(max(_YOUNG_OBJECTS, thresholds[0]), *thresholds[1:])


_serving = _Serving()


@contextmanager
def set_for_serving() -> Iterator[None]:
    """Short turns for threads, and a collector of cycles that looks at what requests leave, not at modules and models over and over.

    Under 500 users the collector took 2 to 3 % of the processor, and a look at the whole heap in one go holds up everybody. Enter it
    once what stays has been loaded. Where several servers of a program overlap, the last that ends puts back what the first one found.
    """
    _serving.begin()
    try:
        yield
    finally:
        _serving.end()
