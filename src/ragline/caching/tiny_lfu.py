"""A mapping that keeps the most useful of its items: what is asked for often outlives what came last."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from theine_core import TlfuCore, spread

from ragline.caching.base import CacheStats
from ragline.errors import InputError

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
D = TypeVar("D")

_MOST_READS = 64
"""Reads are told to the policy so many at a time: it costs a tenth of telling each."""

_SWEEP_S = 1.0
"""Expired items that nobody asks for are let go this often, while others come in."""

_LONGEST_S = 3e9
"""The policy counts in nanoseconds of 63 bits; whoever wants to keep a thing for 95 years may keep it for ever."""

_LARGEST_SHARE = 10
"""One value takes at most a tenth of the room."""

_NEXT_PLACE = 0x9E3779B97F4A7C15
_HASH = (1 << 63) - 1


class TinyLfu(Generic[K, V]):
    """At most `capacity` items, chosen by W-TinyLFU. Safe to use from many threads.

    Source: Einziger, Friedman, Manes, "TinyLFU: A Highly Efficient Cache Admission Policy", ACM Transactions on Storage
    13(4), 2017. The policy is the library theine-core's; it knows hashes only, the items are here. (theine itself is not
    used: it keeps a thread from import on, cannot list its keys, does not weigh, and a cache that nobody closed is never
    freed.)

    Where values are weighed, `capacity` is a number of places, each of `max_bytes / capacity`, and a value takes as many as it
    needs: the bound holds strictly, and a large value must be wanted more than all that it would push out.

    Args:
        capacity: How many items at most.
        max_bytes: What the values may weigh together; a value of more than a tenth of it is not kept.
        size_of: What one value weighs, in bytes.
        clock: Seconds, never going back.

    Raises:
        InputError: There is no room, or only one of `max_bytes` and `size_of`.
    """

    def __init__(
        self,
        capacity: int,
        *,
        max_bytes: int | None = None,
        size_of: Callable[[V], int] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if capacity < 1 or (max_bytes is not None and max_bytes < 1):
            raise InputError(f"a cache of {capacity} items and {max_bytes} bytes holds nothing", hint="give it room, or do without")
        if (max_bytes is None) != (size_of is None):
            raise InputError("only one of max_bytes and size_of is given", hint="give both, or neither")
        self.capacity = capacity
        self._place_bytes = max_bytes / capacity if max_bytes is not None else 1.0
        self._most_bytes = max(max_bytes // _LARGEST_SHARE, max_bytes // capacity) if max_bytes is not None else 0
        self._size_of = size_of
        self._clock = clock
        self._policy = TlfuCore(capacity)
        self._items: dict[int, _Item[K, V]] = {}
        self._owners: dict[int, int] = {}  # of the places of an item beside its first
        self._reads: list[int] = []
        self._swept_at = clock()
        self._lock = threading.RLock()  # a value that is let go may have a finaliser that asks again
        self._hits = self._misses = self._size_bytes = self._evictions = 0

    def __len__(self) -> int:
        return len(self._items)

    def get(self, key: K, default: D) -> V | D:
        """The value, or `default` where there is none (any more)."""
        place = spread(hash(key)) & _HASH
        with self._lock:
            item = self._items.get(place)
            if item is None or item.key != key:
                self._misses += 1
                return default
            if item.expires <= self._clock():
                self._misses += 1
                self._drop(place)
                return default
            self._hits += 1
            self._reads.append(place)
            if len(self._reads) >= _MOST_READS:
                self._tell_reads()
            return item.value

    def set(self, key: K, value: V, *, ttl_s: float | None = None) -> None:
        """Keeps a value if the policy lets it in; what was there before is gone in any case."""
        size = self._size_of(value) if self._size_of is not None else 0
        if (ttl_s is not None and not ttl_s > 0) or size > self._most_bytes:
            self.delete(key)
            return
        place = spread(hash(key)) & _HASH
        places = max(1, math.ceil(size / self._place_bytes))
        wheel_ns = 0 if ttl_s is None or ttl_s >= _LONGEST_S else math.ceil(ttl_s * 1e9)
        with self._lock:
            self._tell_reads()
            old = self._items.get(place)
            if old is not None and (old.places > places or old.key != key):
                self._drop(place)
            elif old is not None:
                self._size_bytes -= old.size_bytes
            expires = math.inf if ttl_s is None else self._clock() + ttl_s
            self._items[place] = _Item(key, value, expires, places, size)
            self._size_bytes += size
            if places > 1:
                self._owners.update(dict.fromkeys(_further(place, places), place))
            for evicted in self._policy.set([(one, wheel_ns) for one in _all_places(place, places)]):
                self._evictions += self._drop(self._owners.get(evicted, evicted))
            self._sweep()

    def delete(self, key: K) -> bool:
        """Forgets a key; says whether it was there."""
        place = spread(hash(key)) & _HASH
        with self._lock:
            item = self._items.get(place)
            return item is not None and item.key == key and self._drop(place)

    def clear(self, matches: Callable[[K], bool] | None = None) -> None:
        """Forgets all keys, or those that match: each is looked at, about 0.1 µs a key."""
        with self._lock:
            if matches is None:
                self._items.clear()
                self._owners.clear()
                self._reads.clear()
                self._policy = TlfuCore(self.capacity)  # its own clear() goes on counting what it held as taken
                self._size_bytes = 0
                return
            for place in [place for place, item in self._items.items() if matches(item.key)]:
                self._drop(place)

    def stats(self) -> CacheStats:
        """Lookups and size."""
        with self._lock:
            return CacheStats(self._hits, self._misses, len(self._items), self.capacity, self._size_bytes, self._evictions)

    def _drop(self, place: int) -> bool:
        item = self._items.pop(place, None)
        if item is None:
            return False
        self._size_bytes -= item.size_bytes
        for one in _all_places(place, item.places):
            self._policy.remove(one)
            self._owners.pop(one, None)
        return True

    def _tell_reads(self) -> None:
        if self._reads:
            self._policy.access(list(itertools.chain.from_iterable(map(self._places_of, self._reads))) if self._owners else self._reads)
            self._reads = []

    def _places_of(self, place: int) -> list[int]:
        item = self._items.get(place)
        return _all_places(place, item.places) if item is not None else []

    def _sweep(self) -> None:
        now = self._clock()
        if now - self._swept_at < _SWEEP_S:
            return
        self._swept_at = now
        for place in self._policy.advance():
            self._drop(self._owners.get(place, place))


class _Item(Generic[K, V]):
    __slots__ = ("expires", "key", "places", "size_bytes", "value")

    def __init__(self, key: K, value: V, expires: float, places: int, size_bytes: int) -> None:
        self.key = key
        self.value = value
        self.expires = expires
        self.places = places
        self.size_bytes = size_bytes


def _further(place: int, places: int) -> list[int]:
    return [(place + number * _NEXT_PLACE) & _HASH for number in range(1, places)]


def _all_places(place: int, places: int) -> list[int]:
    return [place] if places == 1 else [place, *_further(place, places)]
