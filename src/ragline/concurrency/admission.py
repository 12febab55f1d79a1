"""Who may come in? A limit of calls at once, and a short queue before it that never becomes a standing one."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType

from ragline.concurrency.adaptive_limit import AdaptiveLimit
from ragline.errors import OverloadedError

BURST_S = 0.5
"""How long one may wait while the queue was empty not long ago: bursts are served, not refused."""

CROWDED_S = 0.25
"""A queue that has stood for so long is a crowd: less may be done for each, before any is refused."""

STANDING_S = 1.0
"""A queue that has stood for so long is more than bursts: from then on one waits for a moment only."""

SHORTEST_WAIT_S = 0.01
LONGEST_WAIT_S = 1.0
"""Bounds of how long one may wait then; between them, half of what calls take, or most of the time in which one place comes free."""

RELIEF_S = 2.0
"""So long after `MANY` were last refused the crowd is over."""

MANY = 1 / 3
"""A share of those who come. Where fewer are refused, it is bursts that the short queue of a crowd cannot take, and more patience can."""

LONGEST_RETRY_S = 60

_FORGET_S = 5.0
"""How fast the counts of what came through and what was refused fade."""

_LATELY_S = 1.0
"""The same, where it is to tell whether there still is a crowd."""


class Admission:
    """Lets in as many as the limit says; some wait, for no longer than makes sense; the others are refused at once.

    While the queue has been empty within the last `STANDING_S`, one may wait for `BURST_S`. Once it has stood for longer, more come
    than can be served: one waits for a fraction of the time of a call then, and who would not be served within it is refused
    at the door. First come, first served; who leaves the queue frees its place. Use it on one event loop.

    Source: B. Maurer, "Fail at Scale", ACM Queue 13(8), 2015, after K. Nichols and V. Jacobson, "Controlling Queue Delay"
    (CoDel), 2012.

    Args:
        name: What is asked for, in the message of a refusal.
        most_waiting: The longest queue.
        clock: Seconds, never going back.

    Attributes:
        admitted, served, refused: How many were let in, went their whole way, and were refused.

    Examples:
        async with await admission.enter("search") as place: ...
    """

    def __init__(self, name: str, limit: AdaptiveLimit, *, most_waiting: int = 1000, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self.limit = limit
        self._most_waiting = most_waiting
        self._clock = clock
        self._queue: deque[_Waiter] = deque()
        self._gone = 0
        self._in_flight = 0
        self._standing_since: float | None = None
        self._crowded_until = -math.inf
        self._passed = _Fading(clock)
        self._turned_away = _Fading(clock)
        self._let_in_lately, self._refused_lately = _Fading(clock, _LATELY_S), _Fading(clock, _LATELY_S)
        self.admitted = 0
        self.served = 0
        self.refused = 0

    @property
    def in_flight(self) -> int:
        """How many are in."""
        return self._in_flight

    @property
    def waiting(self) -> int:
        """How many wait to come in."""
        return len(self._queue) - self._gone

    @property
    def standing_s(self) -> float:
        """How long the queue has not been empty."""
        return 0.0 if self._standing_since is None else self._clock() - self._standing_since

    async def enter(self, kind: str) -> Place:
        """A place inside, to be left again.

        Args:
            kind: Calls of one kind take about as long as each other; at most 64 kinds are told apart.

        Raises:
            OverloadedError: There is none soon enough; `retry_after_s` says when to come back.
        """
        if not self.waiting and self._in_flight < self.limit.now:
            return self._let_in(kind)
        now = self._clock()
        patience_s = self._must_wait_less(kind, now)
        if self._standing_since is None:
            self._standing_since = now
        loop = asyncio.get_running_loop()
        waiter = _Waiter(loop.create_future(), kind, now)
        self._queue.append(waiter)
        timer = loop.call_later(patience_s, waiter.give_up)
        try:
            admitted = await waiter.place
        except BaseException:
            given = waiter.place.result() if waiter.place.done() and not waiter.place.cancelled() else None
            if given is not None:
                given.leave(counts=False)  # let in and cancelled in one moment
            else:
                self._leave_queue(waiter)
            raise
        finally:
            timer.cancel()
        if admitted is None:
            self._leave_queue(waiter)
            raise self._refusal()
        return admitted

    def enter_now(self, kind: str) -> Place | None:
        """A place inside where one is free and nobody waits for it, else None: for more of a call that is in already."""
        return self._let_in(kind) if not self.waiting and self._in_flight < self.limit.now else None

    def must_not_be_full(self, kind: str) -> None:
        """Raises OverloadedError where `enter` would at once: to be asked before more is done for a call that will not be let in."""
        if self.waiting or self._in_flight >= self.limit.now:
            self._must_wait_less(kind, self._clock())

    @property
    def crowded(self) -> bool:
        """Whether more come than can be served: some were refused lately, or the queue has stood for a while."""
        return self._clock() < self._crowded_until or self.standing_s >= CROWDED_S

    def retry_after_s(self) -> int:
        """When to come back: when those who wait are through, and those who were refused lately, if all came back."""
        rate = self._passed.count / _FORGET_S
        if rate <= 0:
            return 1
        return max(1, min(LONGEST_RETRY_S, math.ceil((self.waiting + self._in_flight + self._turned_away.count) / rate)))

    def _let_in(self, kind: str) -> Place:
        self._in_flight += 1
        self.admitted += 1
        self._let_in_lately.add()
        self.limit.began(self._in_flight)
        return Place(self, kind, self._clock(), self._in_flight)

    def _left(self, place: Place, counts: bool) -> None:
        self._in_flight -= 1
        if counts:
            self.served += 1
            self._passed.add()
            if not place._in_parts:
                self.limit.ended(place.kind, self._clock() - place._since, place._crowd)
        self._call_next()

    def _part_ended(self, place: Place, kind: str | None) -> None:
        now = self._clock()
        if kind is not None:
            self.limit.ended(kind, now - place._since, place._crowd)
        self.limit.began(self._in_flight)
        place._since, place._crowd, place._in_parts = now, self._in_flight, True

    def _call_next(self) -> None:
        while self._queue and self._in_flight < self.limit.now:
            waiter = self._queue.popleft()
            if waiter.place.done():
                self._gone -= 1
            else:
                waiter.place.set_result(self._let_in(waiter.kind))
        if not self.waiting:
            self._standing_since = None

    def _leave_queue(self, waiter: _Waiter) -> None:
        # It stays in the queue as a dead entry until its turn comes, for taking it from the middle costs as much as the
        # queue is long.
        if not waiter.place.done():
            waiter.place.cancel()
        self._gone += 1
        while self._queue and self._queue[0].place.done():
            self._queue.popleft()
            self._gone -= 1
        if not self.waiting:
            self._standing_since = None

    def _patience_s(self, kind: str, now: float) -> float:
        if self._standing_since is not None and now - self._standing_since >= STANDING_S:
            self._crowded_until = now + RELIEF_S
        if now >= self._crowded_until:
            return BURST_S
        # Who waits for much less than it takes until one leaves finds no place, and nobody waits when it comes free: docs/decisions/0018.
        rate = self._passed.count / _FORGET_S
        turnover_s = 0.7 / rate if rate > 0 and self._passed.known else 0.0
        return max(SHORTEST_WAIT_S, min(LONGEST_WAIT_S, max((self.limit.base_s(kind) or BURST_S) / 2, turnover_s)))

    def _must_wait_less(self, kind: str, now: float) -> float:
        """How long a call would wait at most. Raises OverloadedError where that is not long enough."""
        patience_s = self._patience_s(kind, now)
        if self.waiting >= self._most_waiting or self._expected_wait_s(now) > patience_s:
            raise self._refusal()
        return patience_s

    def _expected_wait_s(self, now: float) -> float:
        rate = self._passed.count / _FORGET_S
        if now >= self._crowded_until and (base_s := self.limit.longest_base_s):
            rate = max(rate, self.limit.now / base_s)  # where few came, few came through: that says nothing of how many can
        return self.waiting / rate if rate > 0 and self._passed.known else 0.0

    def _refusal(self) -> OverloadedError:
        self.refused += 1
        self._turned_away.add()
        self._refused_lately.add()
        refused = self._refused_lately.count
        if self._clock() < self._crowded_until and refused >= MANY * (refused + self._let_in_lately.count):
            self._crowded_until = self._clock() + RELIEF_S
        retry_after_s = self.retry_after_s()
        return OverloadedError(
            f"too many requests at once for {self.name}", hint=f"try again in {retry_after_s} s", retry_after_s=retry_after_s
        )


class Place:
    """A place inside, until it is left. Leaving twice is harmless.

    Attributes:
        kind: May still change: what a call turned out to be.
    """

    __slots__ = ("_admission", "_crowd", "_in_parts", "_since", "kind")

    def __init__(self, admission: Admission, kind: str, since: float, crowd: int) -> None:
        self._admission: Admission | None = admission
        self.kind = kind
        self._since = since
        self._crowd = crowd
        self._in_parts = False

    async def __aenter__(self) -> Place:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.leave(counts=kind is None)

    def part_ended(self, kind: str | None) -> None:
        """One of several calls that are done here one after the other has ended. How long they take together says nothing then.

        Args:
            kind: What it was; None where how long it took says nothing either.
        """
        if self._admission is not None:
            self._admission._part_ended(self, kind)

    def leave(self, *, counts: bool = True) -> None:
        """Frees the place.

        Args:
            counts: Whether how long it took says something of how long such calls take.
        """
        admission, self._admission = self._admission, None
        if admission is not None:
            admission._left(self, counts)


class _Waiter:
    __slots__ = ("kind", "place", "since")

    def __init__(self, place: asyncio.Future[Place | None], kind: str, since: float) -> None:
        self.place = place
        self.kind = kind
        self.since = since

    def give_up(self) -> None:
        if not self.place.done():
            self.place.set_result(None)


class _Fading:
    """A count that fades: over a steady rate, that rate times `forget_s`, once it has run for as long."""

    __slots__ = ("_at", "_clock", "_count", "_forget_s", "_since")

    def __init__(self, clock: Callable[[], float], forget_s: float = _FORGET_S) -> None:
        self._clock = clock
        self._forget_s = forget_s
        self._count = 0.0
        self._at = self._since = clock()

    @property
    def known(self) -> bool:
        return self._clock() - self._since > self._forget_s

    @property
    def count(self) -> float:
        return self._count * math.exp((self._at - self._clock()) / self._forget_s)

    def add(self) -> None:
        self._count = self.count + 1
        self._at = self._clock()
