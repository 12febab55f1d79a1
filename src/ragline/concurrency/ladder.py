"""Steps of doing with less: up soon when there is too much to do, down slowly when there is not."""

from __future__ import annotations

import time
from collections.abc import Callable


class Ladder:
    """A level from 0 to `steps`. It rises by one for each `up_s` of being busy, and falls by one for each calm of some length.

    Calm must last `down_s`; twice as long, up to `longest_down_s`, each time that a step down was followed by one up soon after: what
    could not be done without that step is not tried again every few seconds.

    Args:
        clock: Seconds, never going back.
    """

    def __init__(
        self,
        steps: int,
        *,
        up_s: float = 0.5,
        down_s: float = 3.0,
        longest_down_s: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._steps = steps
        self._up_s, self._down_s, self._longest_down_s = up_s, down_s, longest_down_s
        self._clock = clock
        self._needed_s = down_s
        self._level = 0
        self._busy = False
        self._since = clock()
        self._went_down = float("-inf")

    @property
    def level(self) -> int:
        """As it was last."""
        return self._level

    def see(self, busy: bool) -> int:
        """The level, given whether there is too much to do now. To be told often: with each request."""
        now = self._clock()
        if busy != self._busy:
            self._busy, self._since = busy, now
        elif busy and self._level < self._steps and now - self._since >= self._up_s:
            if now - self._went_down < self._needed_s * 2:
                self._needed_s = min(self._longest_down_s, self._needed_s * 2)
            self._level, self._since = self._level + 1, now
        elif not busy and self._level and now - self._since >= self._needed_s:
            self._level, self._since, self._went_down = self._level - 1, now, now
        elif not busy and not self._level and now - self._went_down >= self._longest_down_s:
            self._needed_s = self._down_s
        return self._level
