"""Trying again: with jitter, inside a total budget of time, and never sooner than the other side asked for."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception

from ragline.errors import DeadlineError

T = TypeVar("T")

_GRACE_S = 0.1
"""An attempt keeps to its time itself, and says in its own words that it did not suffice; one that does not is cut off
so much later.
"""


@dataclass(frozen=True, slots=True)
class Retries:
    """How failed calls are tried again.

    Attributes:
        budget_s: From the first attempt's start, waits included. A wait that would pass it is not begun, and an
            attempt that is under way when it ends is cut off.
        first_wait_s, longest_wait_s: The n-th wait is drawn evenly from 0 to `first_wait_s * 2**(n - 1)`, at most
            `longest_wait_s` ("full jitter": callers that failed together do not come back together).
            Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
        attempts: How many attempts at most, the first included; None for as many as the budget allows.
    """

    budget_s: float
    first_wait_s: float = 0.5
    longest_wait_s: float = 20.0
    attempts: int | None = None


async def retried(
    attempt: Callable[[float], Awaitable[T]],
    retries: Retries,
    *,
    wait_of: Callable[[BaseException], float | None],
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> T:
    """What `attempt` gives, tried again while that can help and the budget lasts; else its last error.

    Cancelling it ends it at once, in an attempt as in a wait.

    Args:
        attempt: Called with the seconds left of the budget, which it should keep to.
        wait_of: How long to wait after this error, in seconds: None where trying again cannot help, 0 where nothing
            better is known than to back off, more where the other side asked for it (`Retry-After`).

    Raises:
        DeadlineError: The budget ended within the first attempt, which did not keep to it. (Within a later one, it
            is the error of the attempt before.)
    """
    started = clock()
    last: Exception | None = None

    def wait(state: RetryCallState) -> float:
        asked = wait_of(last) or 0.0 if last is not None else 0.0
        # The exponent is bounded, for two to the power of the 2000th attempt is no float.
        widest = min(retries.longest_wait_s, retries.first_wait_s * 2.0 ** min(state.attempt_number - 1, 64))
        # Those who were told to come back at one moment come a little apart, and none before it.
        return asked + random.uniform(0, widest if not asked else min(widest, asked / 4))

    def stop(state: RetryCallState) -> bool:
        spent = retries.attempts is not None and state.attempt_number >= retries.attempts
        return spent or clock() - started + state.upcoming_sleep >= retries.budget_s

    async def once() -> T:
        nonlocal last
        left = max(0.0, retries.budget_s - (clock() - started))
        limit = asyncio.timeout(left + _GRACE_S)
        try:
            async with limit:
                return await attempt(left)
        except TimeoutError as error:
            if not limit.expired():
                last = error
            elif last is None:
                last = DeadlineError(f"there was no answer within {retries.budget_s:g} s")
            raise last  # noqa: B904 - cut off, what went wrong before says more than that the time was up
        except Exception as error:
            last = error
            raise

    attempts = AsyncRetrying(
        retry=retry_if_exception(lambda error: error is last and wait_of(error) is not None),
        wait=wait,
        stop=stop,
        sleep=sleep,
        reraise=True,
    )
    return await attempts(once)


def retry_after_s(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """How many seconds a reply asks to wait, by its `Retry-After` (seconds or a date) or `retry-after-ms`.

    None where it asks for nothing, or for what cannot be understood; a date that has passed is 0.

    Args:
        now: The time to compare a date with, in seconds since 1970; unset takes that of the reply's own `Date`, so
            that clocks that differ do not matter, else this machine's.

    Source: RFC 9110, section 10.2.3; the milliseconds are OpenAI's and Azure's.
    """
    named = {name.lower(): value.strip() for name, value in headers.items()}
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        seconds = _number(named.get(name, ""))
        if seconds is not None:
            return seconds * unit_s
    moment = _moment(named.get("retry-after", ""))
    if moment is None:
        return None
    if now is None:
        now = _moment(named.get("date", "")) or time.time()
    return max(0.0, moment - now)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _moment(text: str) -> float | None:
    try:
        found = parsedate_to_datetime(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
