"""Steps of doing with less: up when there is too much to do, down slowly when there is not, and back where a step does not help."""

from __future__ import annotations

import time
from collections.abc import Callable

TRIAL_S = 2.0
"""A step has so long to show what it gives."""

_WORSE = 0.7


class Ladder:
    """A level from 0 to `steps`. It rises by one for each `up_s` of being busy, and falls by one for each calm of some length.

    Calm must last `down_s`; twice as long, up to `longest_s`, each time that a step down was followed by one up soon after: what
    could not be done without that step is not tried again every few seconds. A step up after which clearly less gets done than before is
    taken back. Where more gets done without it again, it is not taken for `longest_s`: what it saves is not what is scarce. Where not, it
    was not the step: more came that takes long.

    Args:
        done: How much has been done since the start.
        clock: Seconds, never going back.
    """

    def __init__(
        self,
        steps: int,
        done: Callable[[], int],
        *,
        up_s: float = 0.5,
        down_s: float = 3.0,
        longest_s: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._steps = steps
        self._done = done
        self._up_s, self._down_s, self._longest_s = up_s, down_s, longest_s
        self._clock = clock
        self._needed_s = down_s
        self._level = 0
        self._busy = False
        self._since = clock()
        self._went_down = float("-inf")
        self._before: float | None = None
        self._suspected: float | None = None
        self._mark = (self._since, done())
        self._barred = (steps + 1, self._since)

    @property
    def level(self) -> int:
        """As it was last."""
        return self._level

    def see(self, busy: bool) -> int:
        """The level, given whether there is too much to do now. To be told often: with each request."""
        now = self._clock()
        if busy != self._busy:
            self._busy, self._since, self._before, self._suspected = busy, now, None, None
            self._mark = (now, self._done())
        elif busy:
            self._see_busy(now)
        elif self._level and now - self._since >= self._needed_s:
            self._level, self._since, self._went_down = self._level - 1, now, now
        elif not self._level and now - self._went_down >= self._longest_s:
            self._needed_s = self._down_s
        return self._level

    def _see_busy(self, now: float) -> None:
        on_trial = self._before is not None or self._suspected is not None
        if on_trial and now - self._mark[0] < TRIAL_S:
            return
        if self._before is not None:
            rate = self._rate(now)
            if rate < self._before * _WORSE:
                self._level, self._suspected = self._level - 1, rate
            self._before, self._since, self._mark = None, now, (now, self._done())
            return
        if self._suspected is not None:
            if self._suspected < self._rate(now) * _WORSE:
                self._barred = (self._level + 1, now + self._longest_s)
            self._suspected = None
        barred, until = self._barred
        if now - self._since < self._up_s or self._level >= self._steps or (self._level + 1 >= barred and now < until):
            return
        if now - self._went_down < self._needed_s * 2:
            self._needed_s = min(self._longest_s, self._needed_s * 2)
        self._before = self._rate(now)
        self._level, self._since, self._mark = self._level + 1, now, (now, self._done())

    def _rate(self, now: float) -> float:
        since, done = self._mark
        return (self._done() - done) / max(now - since, 0.001)
