"""Connections that are opened once and used many times."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Generic, TypeVar

from ragline.concurrency.pool_places import Acquiring, Line, Place, closed, overloaded, said, shut, too_slow
from ragline.concurrency.pool_stats import PoolStats, wait_percentile
from ragline.errors import BackendError, InputError

C = TypeVar("C")

_WAITS_KEPT = 1000

log = logging.getLogger("ragline.concurrency")


class ConnectionPool(Generic[C]):
    """At most `max_size` connections, lent in the order in which they are asked for. For one event loop.

    A place is taken before a connection is opened and given back after it is closed, so there are never more than
    `max_size`, failures and callers who leave included. A block that ends with an error closes its connection: what
    state it was left in, nobody knows.

    Examples:
        async with ConnectionPool(connect, max_size=10) as pool:
            async with pool.acquire() as connection:
                await connection.execute(...)

    Args:
        factory: Opens a new connection. What it raises reaches the caller who was to get it.
        min_size: How many `open` opens, and how many stay open while idle.
        max_size: How many there are at most.
        timeout_s: How long acquiring may take in all: the wait, the check, opening.
        validate: Looks whether a connection still works before it is lent again; False, an error, or half of what is left
            of the caller's time mean that it does not. It is then closed and another one opened in its stead.
        max_age_s: Older ones are closed instead of being lent again.
        max_idle_s: Those beyond `min_size` that nobody used for so long are closed; None keeps them.
        close: Closes a connection; unset calls its own `aclose` or `close`, where it has one.
        close_timeout_s: How long `close` of the pool waits for connections in use, and how long closing one may take.
        leak_after_s: A connection lent for longer is logged, with the line that acquired it; None for never.
        tend_every_s: How often idle ones are looked through, `min_size` is restored and long holders are looked for.
        clock: Seconds, never going back.
    """

    def __init__(
        self,
        factory: Callable[[], Awaitable[C]],
        *,
        min_size: int = 0,
        max_size: int = 10,
        timeout_s: float = 30.0,
        validate: Callable[[C], Awaitable[bool | None]] | None = None,
        max_age_s: float | None = None,
        max_idle_s: float | None = None,
        close: Callable[[C], Awaitable[object] | None] | None = None,
        close_timeout_s: float = 10.0,
        leak_after_s: float | None = None,
        tend_every_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not 0 <= min_size <= max_size or max_size < 1:
            raise InputError(
                f"a pool of {min_size} to {max_size} connections", hint="use 0 <= min_size <= max_size, and at least 1 at most"
            )
        self.min_size, self.max_size = min_size, max_size
        self._factory, self._validate, self._close_one = factory, validate, close
        self._timeout_s, self._close_timeout_s, self._tend_every_s = timeout_s, close_timeout_s, tend_every_s
        self._max_age_s, self._max_idle_s, self._leak_after_s = max_age_s, max_idle_s, leak_after_s
        self._clock = clock
        self._loop: asyncio.AbstractEventLoop | None = None
        # Empty places on the left, open connections on the right, the one used last at the very right.
        self._free: deque[Place] = deque(Place() for _ in range(max_size))
        self._lent: dict[int, Place] = {}
        self._waiters: deque[asyncio.Future[Place]] = deque()
        self._tending: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._all_back = asyncio.Event()
        self._loans = itertools.count(1)
        self._waits: deque[float] = deque(maxlen=_WAITS_KEPT)
        self._size = self._acquired = self._reused = self._created = self._recycled = 0
        self._failed_checks = self._timeouts = self._leaked = 0

    async def __aenter__(self) -> ConnectionPool[C]:
        await self.open()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def open(self) -> None:
        """Opens `min_size` connections. A pool that is not opened opens what it needs, when it is needed.

        Raises:
            DeadlineError: It took longer than `timeout_s`. The pool is then closed, as after any error of `factory`.
        """
        self._enter()
        limit = asyncio.timeout(self._timeout_s)
        try:
            async with limit, asyncio.TaskGroup() as group:
                for _ in range(self.min_size - self._size):
                    group.create_task(self._add())
        except BaseException as error:
            await self.close()
            if isinstance(error, TimeoutError) and limit.expired():
                raise too_slow(self._timeout_s) from error
            if isinstance(error, BaseExceptionGroup):
                raise error.exceptions[0] from None
            raise

    def acquire(self) -> Acquiring[C]:
        """A connection, for `async with`; `await` gives it for a later `release`.

        Raises:
            OverloadedError: All were in use for `timeout_s`.
            DeadlineError: There was a place, but no connection could be opened within `timeout_s`.
            BackendError: The pool is closed, or of another event loop.
        """
        return Acquiring(self, Line(sys._getframe(1)))

    def release(self, connection: C, *, broken: bool = False) -> None:
        """Gives back what `await acquire()` gave; a broken one is closed and its place is free once that is done.

        Raises:
            InputError: It is not lent: not this pool's, or given back already.
        """
        place = next((place for place in self._lent.values() if place.held is not None and place.held() is connection), None)
        if place is None:
            raise InputError("a connection was given back that is not lent", hint="release each connection once, to the pool it is of")
        self._release(place, place.loan, connection, broken=broken)

    def stats(self) -> PoolStats:
        """What it has done, and how it stands."""
        waits = sorted(self._waits)
        now, longest = self._clock(), self._leak_after_s
        return PoolStats(
            size=self._size,
            idle=sum(place.is_open for place in self._free),
            in_use=len(self._lent),
            waiting=len(self._waiters),
            acquired=self._acquired,
            reused=self._reused,
            created=self._created,
            recycled=self._recycled,
            failed_checks=self._failed_checks,
            timeouts=self._timeouts,
            leaked=self._leaked,
            overdue=0 if longest is None else sum(now - place.since > longest for place in self._lent.values()),
            wait_p50_s=wait_percentile(waits, 50),
            wait_p95_s=wait_percentile(waits, 95),
            wait_max_s=waits[-1] if waits else 0.0,
        )

    async def close(self) -> None:
        """Refuses new callers, waits for the connections in use, at most `close_timeout_s`, and closes all. Twice is harmless."""
        if self._closing is None:
            self._bind()
            self._closing = asyncio.ensure_future(self._close_all())
        await asyncio.shield(self._closing)

    # Acquiring.

    async def _acquire(self, where: Line) -> tuple[C, Place]:
        self._enter()
        started = self._clock()
        if self._free and self._free[-1].is_open and self._validate is None and not self._is_old(self._free[-1]):
            return self._lend(self._free.pop(), where, started, reused=True)  # nothing to wait for, so nothing to limit
        limit, place = asyncio.timeout(self._timeout_s), None
        try:
            async with limit:
                place = await self._turn()
                reused = await self._checked(place, limit)
                if not reused:
                    await self._fill(place)
            if self._closing is not None:
                raise closed()
        except BaseException as error:
            if place is not None:
                self._put_back(place)
            if isinstance(error, TimeoutError) and limit.expired():
                self._timeouts += 1
                raise (overloaded(self.max_size, self._timeout_s) if place is None else too_slow(self._timeout_s)) from error
            raise
        return self._lend(place, where, started, reused=reused)

    async def _turn(self) -> Place:
        """A place, as soon as it is this caller's turn."""
        if self._free:  # then nobody waits: a place that comes back goes to the first who does
            return self._free.pop()
        waiter: asyncio.Future[Place] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            return await waiter
        except BaseException:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            elif not waiter.cancelled() and waiter.exception() is None:
                self._put_back(waiter.result())  # it came as the caller left
            raise

    async def _checked(self, place: Place, limit: asyncio.Timeout) -> bool:
        """Whether the place's connection can be lent; one that cannot is closed."""
        if not place.is_open:
            return False
        if self._is_old(place):
            self._recycled += 1
        elif self._validate is None or await self._works(place, self._validate, limit):
            return True
        else:
            self._failed_checks += 1
        # Closed to its end also where the caller leaves meanwhile.
        await asyncio.shield(self._shut(place))
        return False

    async def _works(self, place: Place, validate: Callable[[C], Awaitable[bool | None]], limit: asyncio.Timeout) -> bool:
        place.suspect = True  # until the check is over: one that is cut off in the middle is not lent again
        until = limit.when()
        assert until is not None
        try:
            async with asyncio.timeout((until - asyncio.get_running_loop().time()) / 2):
                place.suspect = await validate(place.connection) is False
        except Exception as error:
            log.debug("a pooled connection failed its check: %s", said(error))
        return not place.suspect

    async def _fill(self, place: Place) -> None:
        place.fill(await self._factory(), self._clock())
        self._size += 1
        self._created += 1

    def _lend(self, place: Place, where: Line, started: float, *, reused: bool) -> tuple[C, Place]:
        loan, now = next(self._loans), self._clock()
        connection: C = place.lend(loan, where, now, self._on_collected(place, loan))
        self._lent[loan] = place
        self._acquired += 1
        self._reused += reused
        self._waits.append(now - started)
        return connection, place

    # Giving back.

    def _release(self, place: Place, loan: int, connection: C, *, broken: bool) -> None:
        """Ends a loan; nothing where it has ended already."""
        if self._lent.pop(loan, None) is None:
            return
        place.take_back(connection, self._clock(), broken=broken)
        self._put_back(place)

    def _put_back(self, place: Place) -> None:
        """Frees a place: for the first who waits, else for later. A connection that may be broken is closed first."""
        if place.is_open and (place.suspect or self._closing is not None):
            self._shut(place)
        if place.leaving is not None and not place.leaving.done():
            place.leaving.add_done_callback(lambda _: self._put_back(place))
            return
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(place)
                return
        if place.is_open:
            self._free.append(place)
        else:
            self._free.appendleft(place)
        if len(self._free) == self.max_size:
            self._all_back.set()

    def _on_collected(self, place: Place, loan: int) -> Callable[[object], None]:
        loop, lost = asyncio.get_running_loop(), self._lost

        def collected(_: object) -> None:  # on any thread: wherever the garbage collector ran
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(lost, place, loan)

        return collected

    def _lost(self, place: Place, loan: int) -> None:
        if self._lent.pop(loan, None) is None:
            return
        log.warning("a connection acquired at %s was never given back", place.where)
        self._leaked += 1
        self._size -= 1
        place.empty()
        self._put_back(place)

    def _shut(self, place: Place) -> asyncio.Task[None]:
        """Begins to close the place's connection; the place is not free before that is done."""
        place.leaving = asyncio.ensure_future(shut(place.empty(), self._close_one, self._close_timeout_s))
        place.leaving.add_done_callback(self._has_left)
        return place.leaving

    def _has_left(self, _: object) -> None:
        self._size -= 1

    # Keeping it in order.

    def _enter(self) -> None:
        self._bind()
        if self._closing is not None:
            raise closed()
        if self._tending is None and (self.min_size or self._max_age_s or self._max_idle_s or self._leak_after_s):
            self._tending = asyncio.ensure_future(self._tend())

    def _bind(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise BackendError("the connection pool is used in another event loop", hint="make one pool for each event loop")

    def _is_old(self, place: Place) -> bool:
        return self._max_age_s is not None and self._clock() - place.made_at >= self._max_age_s

    async def _tend(self) -> None:
        while True:
            await asyncio.sleep(self._tend_every_s)
            self._tell_overdue()
            self._let_go_of_idle()
            await self._restore_min_size()

    def _tell_overdue(self) -> None:
        for place in self._lent.values():
            held_s = self._clock() - place.since
            if self._leak_after_s is not None and held_s > self._leak_after_s and not place.told:
                place.told = True
                log.warning("a connection acquired at %s has been in use for %.3g s", place.where, held_s)

    def _let_go_of_idle(self) -> None:
        spare = self._size - self.min_size
        for place in [place for place in self._free if place.is_open]:
            idle = self._max_idle_s is not None and self._clock() - place.since >= self._max_idle_s
            old = self._is_old(place)
            if old or (idle and spare > 0):
                spare -= 1
                self._recycled += old
                self._free.remove(place)
                place.suspect = True
                self._put_back(place)

    async def _restore_min_size(self) -> None:
        while self._size < self.min_size and self._free and not self._free[0].is_open:
            try:
                async with asyncio.timeout(self._timeout_s):
                    await self._add()
            except Exception as error:
                log.warning("a pool lacks connections, and another one could not be opened: %s", said(error))
                return  # until the next time

    async def _add(self) -> None:
        if self._free and not self._free[0].is_open:
            place = self._free.popleft()
            try:
                await self._fill(place)
            finally:
                self._put_back(place)

    async def _close_all(self) -> None:
        if self._tending is not None:
            self._tending.cancel()
            await asyncio.wait([self._tending], timeout=self._close_timeout_s)
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_exception(closed())
        for place in [place for place in self._free if place.is_open]:
            self._free.remove(place)
            self._put_back(place)
        if not await self._back_in_time():
            for place in list(self._lent.values()):
                log.warning("a pool was closed while a connection acquired at %s was in use", place.where)
                if place.held is not None and (connection := place.held()) is not None:
                    self._release(place, place.loan, connection, broken=True)
            await self._back_in_time()

    async def _back_in_time(self) -> bool:
        """Whether all places come back in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._close_timeout_s):
                while len(self._free) < self.max_size:
                    self._all_back.clear()
                    await self._all_back.wait()
        return len(self._free) == self.max_size
