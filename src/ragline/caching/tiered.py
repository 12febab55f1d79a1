"""Two tiers: a quick one of this process, and one behind it that is larger, shared or lasting, and may fail at any time."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Generic, TypeVar

from ragline.caching.base import Cache, CacheStats
from ragline.caching.forgotten import Forgotten
from ragline.caching.sealing import Sealed, seal, unseal
from ragline.concurrency.circuit import Circuit, GuardedCalls
from ragline.concurrency.single_flight import SingleFlight
from ragline.errors import InputError, OverloadedError
from ragline.types import Scope

V = TypeVar("V")

_log = logging.getLogger(__name__)

_FAILURES = 5
"""So many in a row, and the second tier is left alone for a while."""

_MOST_FORGETS = 256
"""Deletes and clears that the second tier has yet to hear of; with more, it is told to forget everything."""


@dataclass(frozen=True, slots=True)
class TieredStats(CacheStats):
    """What two tiers have done together; items, capacity, bytes and evictions are the first tier's.

    Attributes:
        first_hits, second_hits: Which tier had it.
        failures: Calls of the second tier that failed or took too long.
        garbage: Values of the second tier that could not be understood.
        unasked: Lookups that were a miss because the second tier was left alone for a while, or was stuck.
        outdated: Values of the second tier that had been forgotten or had expired, and were not believed.
        dropped: Writes that never reached the second tier: it failed, too many waited, or the value could not be encoded.
        waiting: Writes, deletes and clears that the second tier has yet to hear of.
        resting: Whether the second tier is left alone now.
    """

    first_hits: int = 0
    second_hits: int = 0
    failures: int = 0
    garbage: int = 0
    unasked: int = 0
    outdated: int = 0
    dropped: int = 0
    waiting: int = 0
    resting: bool = False


@dataclass(slots=True)
class _Counts:
    first_hits: int = 0
    second_hits: int = 0
    misses: int = 0
    failures: int = 0
    garbage: int = 0
    unasked: int = 0
    outdated: int = 0
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class _Forget:
    """A delete of `key`, or a clear of all that begins with `prefix`, that the second tier has yet to hear of."""

    scope: Scope | None
    key: str | None = None
    prefix: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class _Write(Generic[V]):
    """A value that the second tier has yet to hear of."""

    value: V
    written_ns: int
    expires_ns: int | None

    def left_s(self) -> float | None:
        """How long it still holds; not positive where it does not, None for ever."""
        return _left_s(self.expires_ns)


class TieredCache(Generic[V]):
    """Looks into the first tier, then into the second; what the second had, the first keeps too. Use it on one event loop.

    The second tier is never in the way. Each of its calls has a time limit; a failure is a miss; after some in a row it is
    left alone for a while; nothing is raised. Writes go to it in the background, the newest for each key, at most
    `max_waiting` of them. Callers who look for one key at once share one call.

    What was deleted or cleared does not come back, even where the second tier did not hear of it or a late write landed
    after it: every value carries the time it was written, and one from before the clear is not believed. Deletes and
    clears that failed are tried again until they succeed or this is closed.

    Not promised: other processes' first tiers do not hear of a clear; `first_ttl_s` bounds for how long.

    Args:
        first: Asked first; its calls are trusted to be quick and not to fail.
        second: Keeps bytes.
        encode, decode: Plain data to bytes and back, such as JSON's; never pickle, for others may write there too.
        timeout_s: How long one call of the second tier may take.
        rest_s: How long it is left alone after five failures in a row.
        first_ttl_s: How long the first tier keeps a value at most; None for as long as the value holds.
        max_waiting: How many writes wait at most; more are dropped.
        clock: Seconds, never going back. The time of day is the system's, for it is compared between processes.

    Raises:
        InputError: A limit is not positive.

    Examples:
        cache = TieredCache(MemoryCache(10_000), redis, lambda answer: json.dumps(answer).encode(), json.loads)
    """

    def __init__(
        self,
        first: Cache[V],
        second: Cache[bytes],
        encode: Callable[[V], bytes],
        decode: Callable[[bytes], V],
        *,
        timeout_s: float = 0.1,
        rest_s: float = 5.0,
        first_ttl_s: float | None = None,
        max_waiting: int = 256,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        limits = {"timeout_s": timeout_s, "rest_s": rest_s, "max_waiting": max_waiting, "first_ttl_s": first_ttl_s}
        for name, limit in limits.items():
            if limit is not None and not limit > 0:
                raise InputError(f"{name} is {limit}", hint="choose a limit above 0")
        self._first = first
        self._second = second
        self._encode = encode
        self._decode = decode
        self._first_ttl_s = first_ttl_s
        self._max_waiting = max_waiting
        self._guarded = GuardedCalls(timeout_s, Circuit(_FAILURES, rest_s, clock=clock))
        self._lookups: SingleFlight[tuple[Scope, str], V | None] = SingleFlight()
        self._looking: dict[tuple[Scope, str], object] = {}  # lookups of the second tier whose finding may still be kept
        self._writes: dict[tuple[Scope, str], _Write[V]] = {}
        self._forgets: dict[_Forget, object] = {}
        self._forgotten = Forgotten()
        self._counts = _Counts()
        self._stamp_ns = 0
        self._teller: asyncio.Task[None] | None = None
        self._waits = asyncio.Event()  # the teller, until it tries again
        self._closed = False

    async def get(self, scope: Scope, key: str) -> V | None:
        """See `Cache.get`. Suspends only where the first tier lacks it, and then for `timeout_s` at most."""
        value = await self._first.get(scope, key)
        if value is not None:
            self._counts.first_hits += 1
            return value
        value = await self._lookups.run((scope, key), lambda: self._looked_up(scope, key))
        if value is None:
            self._counts.misses += 1
        else:
            self._counts.second_hits += 1
        return value

    async def set(self, scope: Scope, key: str, value: V, *, ttl_s: float | None = None) -> None:
        """See `Cache.set`. The second tier hears of it in the background."""
        if ttl_s is not None and not ttl_s > 0:
            await self.delete(scope, key)
            return
        self._outdate_one((scope, key))
        await self._first.set(scope, key, value, ttl_s=_shorter(ttl_s, self._first_ttl_s))
        now_ns = self._now_ns()
        if self._closed or len(self._writes) >= self._max_waiting:
            self._dropped(scope, key, now_ns)
        else:
            self._writes[scope, key] = _Write(value, now_ns, None if ttl_s is None else now_ns + int(min(ttl_s, 3e9) * 1e9))
            self._wake()

    async def delete(self, scope: Scope, key: str) -> None:
        """See `Cache.delete`. The second tier hears of it in the background."""
        self._outdate_one((scope, key))
        self._forgotten.forget_key(scope, key, self._now_ns())
        await self._first.delete(scope, key)
        self._forget(_Forget(scope, key=key))

    async def clear(self, scope: Scope | None = None, *, prefix: str = "") -> None:
        """See `Cache.clear`. Waits for the second tier to hear of it, as long as two of its calls may take."""
        self._outdate(lambda one: scope in (None, one[0]) and one[1].startswith(prefix))
        self._forgotten.forget_prefix(scope, prefix, self._now_ns())
        await self._first.clear(scope, prefix=prefix)
        self._forget(_Forget(scope, prefix=prefix))
        await self._settle()

    def stats(self) -> TieredStats:
        """See `Cache.stats`. While `waiting` is 0, the second tier has heard of everything."""
        of, first = self._counts, self._first.stats()
        return TieredStats(
            hits=of.first_hits + of.second_hits,
            items=first.items,
            capacity=first.capacity,
            size_bytes=first.size_bytes,
            evictions=first.evictions,
            waiting=len(self._writes) + len(self._forgets),
            resting=self._guarded.circuit.open,
            **asdict(of),
        )

    async def close(self) -> None:
        """Lets go of both tiers. What the second one has yet to hear of is told it, as long as two calls may take; then dropped."""
        if self._closed:
            return
        self._closed = True
        await self._settle()
        if self._teller is not None:
            self._teller.cancel()
            await asyncio.wait({self._teller})
        await self._first.close()
        try:
            await self._guarded.call(self._second.close)
        except Exception as error:
            self._failed(error)

    async def _looked_up(self, scope: Scope, key: str) -> V | None:
        one = (scope, key)
        write = self._writes.get(one)
        if write is not None:  # let go by the first tier before the second one heard of it
            value, left_s = write.value, write.left_s()
        else:
            looking = self._looking[one] = object()
            try:
                stored = None if self._closed else await self._guarded.call(lambda: self._second.get(scope, key))
            except OverloadedError:
                self._counts.unasked += 1
                return None
            except Exception as error:
                self._failed(error)
                return None
            finally:
                current = self._looking.get(one) is looking
                if current:  # else it was replaced or forgotten meanwhile
                    del self._looking[one]
            if not current:
                return await self._first.get(scope, key)
            understood = self._understood(scope, key, stored) if stored is not None else None
            if understood is None:
                return None
            value, left_s = understood
        if left_s is not None and left_s <= 0:
            return None
        await self._first.set(scope, key, value, ttl_s=_shorter(left_s, self._first_ttl_s))
        return value

    def _understood(self, scope: Scope, key: str, stored: bytes) -> tuple[V, float | None] | None:
        """The value, and how long it still holds."""
        sealed = unseal(stored)
        if sealed is None:
            self._counts.garbage += 1
            return None
        left_s = _left_s(sealed.expires_ns)
        if self._forgotten.covers(scope, key, sealed.written_ns) or (left_s is not None and left_s <= 0):
            self._counts.outdated += 1
            return None
        try:
            value = self._decode(sealed.payload)
        except Exception:
            self._counts.garbage += 1
            return None
        return value, left_s

    def _outdate_one(self, one: tuple[Scope, str]) -> None:
        self._looking.pop(one, None)
        self._writes.pop(one, None)

    def _outdate(self, matches: Callable[[tuple[Scope, str]], bool]) -> None:
        """Whatever is under way for these keys is of no use any more."""
        for one in list(filter(matches, self._looking)):
            del self._looking[one]
        for one in list(filter(matches, self._writes)):
            del self._writes[one]

    def _forget(self, forget: _Forget) -> None:
        if self._closed:
            return
        self._forgets.pop(forget, None)
        if len(self._forgets) >= _MOST_FORGETS:
            self._forgets.clear()
            forget = _Forget(None)
        self._forgets[forget] = object()
        self._wake()

    def _wake(self) -> None:
        if self._teller is None or self._teller.done():
            self._teller = asyncio.ensure_future(self._tell())

    async def _settle(self) -> None:
        """Waits until the second tier has heard of everything, or has failed to, or is left alone; as long as two calls may take."""
        if self._teller is None:
            return
        waits = asyncio.ensure_future(self._waits.wait())
        try:
            await asyncio.wait({self._teller, waits}, timeout=2 * self._guarded.timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waits.cancel()

    async def _tell(self) -> None:
        """Tells the second tier all that it has yet to hear of, deletes and clears first: writes that wait came after them."""
        while self._forgets or self._writes:
            try:
                if self._forgets:
                    await self._tell_forget()
                else:
                    await self._tell_write()
            except OverloadedError:
                await self._wait(self._guarded.circuit.rest_s / 4)

    async def _wait(self, seconds: float) -> None:
        self._waits.set()
        try:
            await asyncio.sleep(seconds)
        finally:
            self._waits.clear()

    async def _tell_forget(self) -> None:
        forget, token = next(iter(self._forgets.items()))
        scope, key = forget.scope, forget.key
        try:
            if scope is not None and key is not None:
                await self._guarded.call(lambda: self._second.delete(scope, key))
            else:
                await self._guarded.call(lambda: self._second.clear(scope, prefix=forget.prefix))
        except OverloadedError:
            raise
        except Exception as error:
            self._failed(error)
            if forget in self._forgets:  # the next one may succeed
                self._forgets[forget] = self._forgets.pop(forget)
            await self._wait(self._guarded.timeout_s)
            return
        if self._forgets.get(forget) is token:  # else it was asked for again meanwhile
            del self._forgets[forget]

    async def _tell_write(self) -> None:
        (scope, key), write = next(iter(self._writes.items()))
        left_s = write.left_s()
        stored = self._encoded(write) if left_s is None or left_s > 0 else None
        if stored is None or not await self._stored(scope, key, stored, left_s):
            self._dropped(scope, key, write.written_ns)
        if self._writes.get((scope, key)) is write:
            del self._writes[scope, key]

    async def _stored(self, scope: Scope, key: str, stored: bytes, ttl_s: float | None) -> bool:
        try:
            await self._guarded.call(lambda: self._second.set(scope, key, stored, ttl_s=ttl_s))
        except OverloadedError:
            raise
        except Exception as error:
            self._failed(error)
            return False
        return True

    def _encoded(self, write: _Write[V]) -> bytes | None:
        try:
            return seal(Sealed(self._encode(write.value), write.written_ns, write.expires_ns))
        except Exception as error:
            _log.warning("a %s could not be encoded for the second tier of a cache (%s)", type(write.value).__name__, type(error).__name__)
            return None

    def _dropped(self, scope: Scope, key: str, written_ns: int) -> None:
        # The second tier may hold an older value, or this one may land late: neither is to be believed.
        self._counts.dropped += 1
        self._forgotten.forget_key(scope, key, written_ns)

    def _failed(self, error: Exception) -> None:
        if not self._counts.failures:
            # The kind alone: messages of drivers name addresses, and addresses hold passwords.
            _log.warning("the second tier of a cache failed (%s); it is done without, and asked again later", type(error).__name__)
        self._counts.failures += 1

    def _now_ns(self) -> int:
        self._stamp_ns = max(self._stamp_ns + 1, time.time_ns())  # the time of day may be set back
        return self._stamp_ns


def _left_s(expires_ns: int | None) -> float | None:
    return None if expires_ns is None else (expires_ns - time.time_ns()) / 1e9


def _shorter(one: float | None, other: float | None) -> float | None:
    return min((limit for limit in (one, other) if limit is not None), default=None)
