"""Slowing down before a server's rate limit is reached, by what its replies say is left of it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")
_UNITS_S = (86_400.0, 3_600.0, 60.0, 1.0, 0.001)


@dataclass(slots=True)
class _Allowance:
    """What is left until a moment, by the clock, when it is whole again."""

    left: float
    until: float


class Pace:
    """Says how long to wait before the next request, so that a rate limit is not run into.

    One for all requests to a server under one key, on one event loop. It knows nothing until a reply has said
    something, and nothing of what other processes send: a reply of 429 sets it right.

    Source: OpenAI's guide to rate limits, whose headers other servers have taken over.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._allowances: dict[str, _Allowance] = {}
        self._under_way = {"requests": 0.0, "tokens": 0.0}

    def wait_s(self, tokens: int) -> float:
        """How long to wait before a request of so many tokens; 0 where nothing speaks against it."""
        now, wait = self._clock(), 0.0
        for kind, cost in (("requests", 1.0), ("tokens", float(tokens))):
            allowance = self._allowances.get(kind)
            if allowance is None or allowance.until <= now:
                self._allowances.pop(kind, None)
            elif allowance.left < cost:
                wait = max(wait, allowance.until - now)
        return wait

    def sent(self, tokens: int) -> None:
        """A request goes out: what it costs is spent until its reply says what is left."""
        for kind, cost in (("requests", 1.0), ("tokens", float(tokens))):
            self._under_way[kind] += cost
            if kind in self._allowances:
                self._allowances[kind].left -= cost

    def done(self, tokens: int, headers: Mapping[str, str] | None = None, wait_s: float | None = None) -> None:
        """A request has ended: with a reply's headers, or with none; with `wait_s` where it was told to come back later."""
        now = self._clock()
        for kind, cost in (("requests", 1.0), ("tokens", float(tokens))):
            self._under_way[kind] = max(0.0, self._under_way[kind] - cost)
            left = _number((headers or {}).get(f"x-ratelimit-remaining-{kind}", ""))
            reset_s = duration_s((headers or {}).get(f"x-ratelimit-reset-{kind}", ""))
            if left is not None and reset_s is not None:
                # Others are on their way that this reply may not have counted.
                self._allowances[kind] = _Allowance(left - self._under_way[kind], now + reset_s)
        if wait_s:
            self._allowances["requests"] = _Allowance(0.0, now + wait_s)


def duration_s(text: str) -> float | None:
    """Seconds of a duration as rate-limit headers have it; None for what is none.

    Examples:
        duration_s("6m0s")      # 360.0
        duration_s("20ms")      # 0.02
        duration_s("1.5")       # 1.5
    """
    text = text.strip().lower()
    match = _DURATION.fullmatch(text)
    if not match or not text:
        return _number(text)
    return sum(float(amount) * unit_s for amount, unit_s in zip(match.groups(), _UNITS_S, strict=True) if amount)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value < 1e15 else None
