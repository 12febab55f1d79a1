"""What a pool of connections has done, and how large one should be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ragline.errors import InputError


@dataclass(frozen=True, slots=True)
class PoolStats:
    """What a pool has done since it was made, and how it stands.

    Attributes:
        size: Connections that are open, those being checked or closed included: never more than `max_size`.
        idle, in_use, waiting: Open and free; lent; callers who wait for one.
        acquired, reused: How often a connection was lent, and how often it was one that was there already.
        created, recycled, failed_checks: Connections made; closed because of their age; closed because `validate` failed.
        timeouts: Callers who left without a connection because `timeout_s` was over.
        leaked: Connections that were garbage-collected without having been given back.
        overdue: Connections lent right now for longer than `leak_after_s`.
        wait_p50_s, wait_p95_s, wait_max_s: What acquiring took, checks and opening included, over the latest 1000 times.
    """

    size: int
    idle: int
    in_use: int
    waiting: int
    acquired: int
    reused: int
    created: int
    recycled: int
    failed_checks: int
    timeouts: int
    leaked: int
    overdue: int
    wait_p50_s: float
    wait_p95_s: float
    wait_max_s: float

    @property
    def reuse_rate(self) -> float:
        """The share of acquisitions that opened nothing, 0 to 1; 0 before the first."""
        return self.reused / self.acquired if self.acquired else 0.0


def wait_percentile(ordered: Sequence[float], percent: float) -> float:
    """The smallest of these ascending values that `percent` of them do not exceed; 0 where there are none."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)] if ordered else 0.0


def pool_size(rate_per_s: float, seconds_each: float, *, headroom: float = 2.0) -> int:
    """How many connections serve so many requests a second that hold one for so long; at least 1.

    On average `rate_per_s * seconds_each` are in use at once. Independent requests scatter about that by its square root, of
    which `headroom` times as much is added: with 2, about 1 in 40 requests finds all of them taken and waits.

    Source: J. D. C. Little, "A Proof for the Queuing Formula L = λW", Operations Research 9(3), 1961; the headroom is the
    square-root rule of S. Halfin and W. Whitt, "Heavy-Traffic Limits for Queues with Many Exponential Servers", Operations
    Research 29(3), 1981.

    Raises:
        InputError: A number that is negative or not finite.
    """
    for name, value in (("rate_per_s", rate_per_s), ("seconds_each", seconds_each), ("headroom", headroom)):
        if not (math.isfinite(value) and value >= 0):
            raise InputError(f"{name} is {value}", hint="use a number from 0 up")
    load = rate_per_s * seconds_each
    return max(1, math.ceil(load + headroom * math.sqrt(load) - 1e-9))  # 30 * 0.1 is a little more than 3
