"""Durations of one kind: how many, how long, how many went wrong."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

BUCKETS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper ends of the histogram's buckets: from an answer out of the cache to a slow language model."""


@dataclass(frozen=True, slots=True)
class OperationStats:
    """What is known of an operation, or of one of its stages. All zero where it never ran.

    Attributes:
        count, errors: Since the start, or the last reset.
        total_s: Of all durations since then.
        min_s, mean_s, max_s, p50_s, p95_s, p99_s: Over the window, which is the latest 1000 durations unless told.
        throughput_per_s: Operations of the window by the time from the first one's begin until now.
        success_rate: The share of the window that ended without an error, 0 to 1.
        errors_by_kind: How many errors by the name of their class, where that is known.
        stages: What its parts took, in the order in which they first came.
    """

    count: int = 0
    errors: int = 0
    total_s: float = 0.0
    min_s: float = 0.0
    mean_s: float = 0.0
    max_s: float = 0.0
    p50_s: float = 0.0
    p95_s: float = 0.0
    p99_s: float = 0.0
    throughput_per_s: float = 0.0
    success_rate: float = 0.0
    errors_by_kind: Mapping[str, int] = field(default_factory=dict)
    stages: Mapping[str, OperationStats] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many durations fell into each of `BUCKETS_S`, the last place for those longer than all of them."""

    buckets: tuple[int, ...]
    total_s: float


class Series:
    """Durations as they come: a window of the latest, and sums over all. Not safe for several threads.

    Args:
        window: How many are kept; each takes 17 bytes.
    """

    __slots__ = ("_ended", "_good", "_seconds", "_window", "buckets", "count", "errors", "total_s")

    def __init__(self, window: int) -> None:
        self._window = window
        self._seconds = array("d", bytes(8 * window))
        self._ended = array("d", bytes(8 * window))
        self._good = bytearray(window)
        self.buckets = [0] * (len(BUCKETS_S) + 1)
        self.count = self.errors = 0
        self.total_s = 0.0

    def add(self, seconds: float, ok: bool, now: float) -> None:
        """Keeps one that ended now; its duration may be unknown (NaN), as that of an error met on the way."""
        place = self.count % self._window
        self.count += 1
        self._seconds[place] = seconds
        self._ended[place] = now
        self._good[place] = ok
        if not ok:
            self.errors += 1
        if seconds == seconds:  # not NaN
            self.total_s += seconds
            self.buckets[bisect_left(BUCKETS_S, seconds)] += 1

    def copy(self) -> Series:
        """The same as it is now, to look at while this one goes on."""
        copied = Series(0)
        copied._window, copied._seconds, copied._ended, copied._good = self._window, self._seconds[:], self._ended[:], self._good[:]
        copied.buckets, copied.count, copied.errors, copied.total_s = self.buckets[:], self.count, self.errors, self.total_s
        return copied

    def histogram(self) -> Histogram:
        """All durations since the start."""
        return Histogram(tuple(self.buckets), self.total_s)

    def stats(self, now: float) -> OperationStats:
        """What the window says, and the counts."""
        kept = min(self.count, self._window)
        if not kept:
            return OperationStats()
        first = self.count % self._window if self.count > self._window else 0
        known = sorted(seconds for seconds in self._seconds[:kept] if seconds == seconds)
        began = self._ended[first] - (self._seconds[first] if self._seconds[first] == self._seconds[first] else 0.0)
        return OperationStats(
            count=self.count,
            errors=self.errors,
            total_s=self.total_s,
            min_s=known[0] if known else 0.0,
            mean_s=math.fsum(known) / len(known) if known else 0.0,
            max_s=known[-1] if known else 0.0,
            p50_s=percentile(known, 50),
            p95_s=percentile(known, 95),
            p99_s=percentile(known, 99),
            throughput_per_s=kept / (now - began) if now > began else 0.0,
            success_rate=sum(self._good[:kept]) / kept,
        )


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The value that `percent` of these ascending values do not exceed, interpolated between neighbours; 0 where there are none.

    Source: Hyndman and Fan 1996, definition 7 (numpy's and R's default).
    """
    if not ordered:
        return 0.0
    place = (len(ordered) - 1) * percent / 100
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)
