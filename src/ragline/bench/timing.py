"""How long did it take? Wall and processor time of one call, and what many of them amount to."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Latency:
    """What many calls of one kind took, in milliseconds.

    Attributes:
        cpu_p50_ms: The median processor time of the whole process: what the call costs while others use the
            machine too. NaN where it was not measured.
    """

    calls: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    cpu_p50_ms: float = math.nan


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds of one piece of work: by the clock, and of the processor over all threads of the process."""

    wall_s: float
    cpu_s: float


class Stopwatch:
    """Started when made; `stop` says what was spent since."""

    def __init__(self) -> None:
        self._cpu = time.process_time()
        self._wall = time.perf_counter()

    def stop(self) -> Spent:
        """What was spent since this was made; may be asked again later."""
        return Spent(time.perf_counter() - self._wall, time.process_time() - self._cpu)


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that `percent` of the values do not exceed, interpolated between neighbours.

    Source: Hyndman and Fan 1996, definition 7 (numpy's and R's default).

    Raises:
        ValueError: There are no values, or `percent` is not between 0 and 100.
    """
    if not values:
        raise ValueError("no values, no percentile")
    if not 0 <= percent <= 100:
        raise ValueError(f"{percent} is not a percentage")
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def latency(spent: Sequence[Spent]) -> Latency:
    """The latency of calls that took this.

    Raises:
        ValueError: There were no calls.
    """
    wall = [1000 * each.wall_s for each in spent]
    return Latency(
        len(wall),
        percentile(wall, 50),
        percentile(wall, 95),
        percentile(wall, 99),
        percentile([1000 * each.cpu_s for each in spent], 50),
    )
