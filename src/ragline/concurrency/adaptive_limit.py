"""How many at once? A limit that finds its own size, from how much longer calls take when more are under way."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

TOLERANCE = 1.2
"""Calls may take so many times as long as those that were alone before the limit shrinks."""

SMOOTHING = 0.3
"""How far the limit goes towards its new size at a time."""

FIRST_PROBE_S = 1.0
LONGEST_PROBE_S = 32.0
"""How long a limit may be used up before fewer are let in for a moment, to see how long calls take then."""

_FAR_BELOW = 0.5
"""Where calls take less than this share of what is quick enough, the limit grows as at first: what made it small is over."""

_LEAST_SAMPLES = 8
_LONGEST_WINDOW_S = 1.0
_MOST_KINDS = 64
_HIGHEST_RATIO = 8.0
_BASE_STEP = 0.1
_PROBE_STEP = 0.7
_PROBE_SAMPLES = 16


@dataclass(slots=True)
class _Kind:
    """Calls of one kind: how long they take uncongested, from how many windows that is known, and those of the window that is open."""

    base_s: float = 0.0
    learnt: int = 0
    total_s: float = 0.0
    count: int = 0


class AdaptiveLimit:
    """A number of calls at once with which little waits on what they share, whatever that is: cores, connections, a server.

    Each window of calls says how much longer they took than calls of their kind take where there is no crowd. Up to
    `TOLERANCE` times as long the limit grows, beyond it shrinks. Where it is far from used up, it stays, and how long calls
    take is learnt. Where it is used up for long, half as many are let in for a moment to learn it again, for what was learnt
    in a crowd would make the crowd look normal. Not safe between threads.

    Sources: Netflix, concurrency-limits, `Gradient2Limit`; L. Brakmo and L. Peterson, "TCP Vegas", 1995; the probing is
    that of N. Cardwell et al., "BBR: Congestion-Based Congestion Control", 2016.

    Args:
        initial, lowest, highest: Of the limit.
        quick_s: Calls that take no longer are quick enough, however much quicker they are without a crowd. Where they take less than
            half of it, the limit grows as at first.
        leaves_lowest: Whether it grows from the lowest again. Not where that is all there is room for, as of what computes one for each
            core: how long so few take is what they take without a crowd, so it would try for more over and over.
        clock: Seconds, never going back.
    """

    def __init__(
        self,
        initial: int = 16,
        *,
        lowest: int = 2,
        highest: int = 1000,
        quick_s: float = 0.0,
        leaves_lowest: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lowest, self._highest = lowest, highest
        self._limit = float(min(max(initial, lowest), highest))
        self._quick_s = quick_s
        self._leaves_lowest = leaves_lowest
        self._clock = clock
        self._kinds: dict[str, _Kind] = {}
        self._starting = True
        self._count = 0
        self._peak = 0
        self._opened = clock()
        self._used_since: float | None = None
        self._probing = False
        self._probe_after_s = FIRST_PROBE_S

    @property
    def now(self) -> int:
        """How many may be under way."""
        return max(self._lowest, int(self._limit / 2 if self._probing else self._limit))

    def base_s(self, kind: str) -> float | None:
        """How long calls of this kind take without a crowd, as far as is known."""
        known = self._kinds.get(kind)
        return known.base_s if known is not None and known.base_s else None

    @property
    def longest_base_s(self) -> float:
        """The same of the kind that takes longest; 0 where nothing is known."""
        return max((kind.base_s for kind in self._kinds.values()), default=0.0)

    def began(self, in_flight: int) -> None:
        """A call was let in; so many are under way now."""
        self._peak = max(self._peak, in_flight)

    def ended(self, kind: str, took_s: float, crowd: int) -> None:
        """A call went its whole way. What broke off, or was known already, says nothing and is not told here.

        Args:
            crowd: How many were under way when it was let in, itself included.
        """
        if self._probing and crowd > self.now:
            return  # of the crowd before the probe
        found = self._kinds.get(kind)
        if found is None:
            if len(self._kinds) >= _MOST_KINDS:
                return
            found = self._kinds[kind] = _Kind()
        found.total_s += took_s
        found.count += 1
        self._count += 1
        if self._count >= (_PROBE_SAMPLES if self._probing else max(_LEAST_SAMPLES, self.now)) or (
            self._count >= _LEAST_SAMPLES and self._clock() - self._opened >= _LONGEST_WINDOW_S
        ):
            self._close_window()

    def _close_window(self) -> None:
        now = self._opened = self._clock()
        seen = [kind for kind in self._kinds.values() if kind.count]
        used = self._peak >= self.now * 0.9 or self._probing  # of whole calls: of a limit of 3.9 there are never more than 3
        crowded = self._peak > self._lowest  # not: of what the limit is, which may be far too high yet
        ratios = sum(min(_HIGHEST_RATIO, self._ratio(kind)) * kind.count for kind in seen if kind.base_s)
        counted = sum(kind.count for kind in seen if kind.base_s)
        learnt = self._learn(seen, crowded=crowded and not self._probing)
        if self._probing:
            self._probing = False
            self._used_since = now
            self._probe_after_s = FIRST_PROBE_S if learnt else min(LONGEST_PROBE_S, self._probe_after_s * 2)
        elif counted and (crowded or (used and self._leaves_lowest)):
            mean_s = sum(kind.total_s for kind in seen) / self._count
            self._resize(ratios / counted, used=used, quick=mean_s < _FAR_BELOW * self._quick_s)
        if not used:
            self._used_since = None
        elif self._used_since is None:
            self._used_since = now
        elif now - self._used_since > self._probe_after_s:
            self._probing = True
        for kind in self._kinds.values():
            kind.total_s, kind.count = 0.0, 0
        self._count = self._peak = 0

    def _ratio(self, kind: _Kind) -> float:
        """How many times as long as without a crowd calls of a kind took; `TOLERANCE` stands for as long as they may."""
        return kind.total_s / kind.count / max(kind.base_s, self._quick_s / TOLERANCE)

    def _learn(self, seen: list[_Kind], *, crowded: bool) -> bool:
        """Takes over how long calls took, where that was no crowd. Whether some proved much faster than known."""
        faster = False
        for kind in seen:
            mean_s = kind.total_s / kind.count
            if not kind.base_s:
                kind.base_s = mean_s
            elif not crowded:
                faster = faster or mean_s < kind.base_s * 0.9
                kind.learnt += 1
                # Up as far as down: a base that only fell would end at the shortest call ever seen. At first a mean of all: the first
                # calls open models and connections.
                step = _PROBE_STEP if self._probing else max(_BASE_STEP, 1 / (kind.learnt + 1))
                kind.base_s += (mean_s - kind.base_s) * step
        return faster

    def _resize(self, ratio: float, *, used: bool, quick: bool) -> None:
        gradient = max(0.5, min(1.0, TOLERANCE / ratio))
        if gradient < 1:
            self._starting = False
        elif not used:
            return
        wanted = self._limit * (1.5 if self._starting or (quick and gradient == 1) else gradient) + math.sqrt(self._limit) / 2
        self._limit += (wanted - self._limit) * (SMOOTHING if gradient > 0.7 else 2 * SMOOTHING)
        self._limit = min(max(self._limit, float(self._lowest)), float(self._highest))
