"""One at a time on what only one can use well, such as a graphics card; the urgent go first."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Turns:
    """Gives threads their turn. Who waits patiently is passed by the urgent ones, but not for ever.

    Args:
        patience_s: After so long a patient one goes before further urgent ones.
    """

    def __init__(self, patience_s: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._patience_s = patience_s
        self._clock = clock
        self._changed = threading.Condition()
        self._taken = False
        self._urgent = 0
        self._patient_since: dict[object, float] = {}

    @contextmanager
    def turn(self, *, urgent: bool) -> Iterator[None]:
        """Waits until it is this thread's turn, which lasts as long as the block."""
        me = object()
        with self._changed:
            if urgent:
                self._urgent += 1
            else:
                self._patient_since[me] = self._clock()
            try:
                self._changed.wait_for(lambda: not self._taken and self._may_go(me, urgent))
                self._taken = True
            finally:
                if urgent:
                    self._urgent -= 1
                else:
                    del self._patient_since[me]
        try:
            yield
        finally:
            with self._changed:
                self._taken = False
                self._changed.notify_all()

    def _may_go(self, me: object, urgent: bool) -> bool:
        """Asked at each end of a turn: the urgent, unless a patient one has waited long enough; of those the longest."""
        longest = next(iter(self._patient_since), None)  # in order of their coming
        overdue = longest is not None and self._clock() - self._patient_since[longest] >= self._patience_s
        if urgent:
            return not overdue
        return me is longest and (overdue or not self._urgent)
