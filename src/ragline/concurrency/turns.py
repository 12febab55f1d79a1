"""One at a time on what only one can use well, such as a graphics card; the urgent go first."""

from __future__ import annotations

import threading
import time
from collections import deque
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
        self._lock = threading.Lock()
        self._taken = False  # while anybody waits it is: a turn that ends is handed on
        self._urgent: deque[_Waiting] = deque()
        self._patient: deque[_Waiting] = deque()

    @contextmanager
    def turn(self, *, urgent: bool) -> Iterator[None]:
        """Waits until it is this thread's turn, which lasts as long as the block."""
        self._take(self._urgent if urgent else self._patient)
        try:
            yield
        finally:
            self._hand_on()

    def _take(self, line: deque[_Waiting]) -> None:
        me = _Waiting(self._clock())
        try:
            with self._lock:
                if not self._taken:
                    self._taken = True
                    return
                line.append(me)
            me.called.wait()
        except BaseException:  # Ctrl-C while waiting: nobody is to be called who has left
            self._leave(line, me)
            raise

    def _leave(self, line: deque[_Waiting], me: _Waiting) -> None:
        with self._lock:
            if me in line:
                line.remove(me)
        if me.called.is_set():
            self._hand_on()

    def _hand_on(self) -> None:
        """Ends a turn. Who is next is decided here and nowhere else: were each of those who wait to look for itself, the clock
        could go on between two looks, and each would give way to the other.
        """
        with self._lock:
            line = self._patient if self._patient and (not self._urgent or self._is_overdue(self._patient[0])) else self._urgent
            if line:
                line.popleft().called.set()
            else:
                self._taken = False

    def _is_overdue(self, patient: _Waiting) -> bool:
        return self._clock() - patient.since >= self._patience_s


class _Waiting:
    """A thread that waits for its turn since then."""

    def __init__(self, since: float) -> None:
        self.since = since
        self.called = threading.Event()
