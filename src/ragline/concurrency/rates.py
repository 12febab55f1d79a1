"""How often? Token buckets by key, in this process alone or shared by all that open the same file."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import math
import mmap
import os
import struct
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

log = logging.getLogger("ragline.concurrency")

_MOST_KEYS = 4096

_HEADER = struct.Struct("<8sII16x")
_SLOT = struct.Struct("<16sdd")
_MAGIC = b"rgl-rate"
_WAYS = 8
"""A key has so many places to be at; where all are taken, the one that was used longest ago is forgotten."""

_LOCK_TRIES = 40
_LOCK_PAUSE_S = 0.00005


class LocalRates:
    """Token buckets in memory: of each key `rate` a second, and `burst` at once after a rest. At most 4,096 keys are remembered."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str, rate: float, burst: float) -> float:
        """Takes one token: 0, or the seconds until there is one, and then none was taken."""
        now = self._clock()
        left, at = self._buckets.pop(key, (burst, now))
        left, wait_s = _taken(left, at, now, rate, burst)
        self._buckets[key] = left, now
        if len(self._buckets) > _MOST_KEYS:
            self._buckets.popitem(last=False)
        return wait_s

    def close(self) -> None:
        """Nothing to let go of."""


class SharedRates:
    """Token buckets in a small file that several processes map into memory; so a rate holds for all of them together.

    A lock of the operating system guards it, which dies with its holder; it is held for microseconds and waited for no longer
    than about two milliseconds: whoever does not get it then (its holder may have been stopped) asks buckets of its own.

    Args:
        path: The file; made if it is not there or is not one of these. Removed at leisure: what it holds is worth seconds.

    Raises:
        OSError: The file cannot be made.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._own = LocalRates(clock)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            size = _HEADER.size + _SLOT.size * _MOST_KEYS
            if os.fstat(self._file).st_size != size:
                os.ftruncate(self._file, size)
            self._map = mmap.mmap(self._file, size)
            self._begin()
        except BaseException:
            os.close(self._file)
            raise

    def take(self, key: str, rate: float, burst: float) -> float:
        """Takes one token: 0, or the seconds until there is one, and then none was taken. Blocks for two milliseconds at most."""
        if not self._lock():
            return self._own.take(key, rate, burst)
        try:
            now = self._clock()
            name = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).digest()
            offset, left, at = self._slot(name, now, burst)
            left, wait_s = _taken(left, at, now, rate, burst)
            _SLOT.pack_into(self._map, offset, name, left, now)
            return wait_s
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Lets go of the file. Twice is harmless."""
        if self._file >= 0:
            self._map.close()
            os.close(self._file)
            self._file = -1

    def _begin(self) -> None:
        header = _HEADER.pack(_MAGIC, 1, _MOST_KEYS)
        if self._map[: _HEADER.size] != header and self._lock():
            self._map[:] = header + bytes(_SLOT.size * _MOST_KEYS)
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def _lock(self) -> bool:
        for _ in range(_LOCK_TRIES):
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(_LOCK_PAUSE_S)
            else:
                return True
        log.debug("the file of rates is locked by a process that does not let go: rates hold for this process alone meanwhile")
        return False

    def _slot(self, name: bytes, now: float, burst: float) -> tuple[int, float, float]:
        """Where the bucket of a key stands or is to stand, and what it holds."""
        first = int.from_bytes(name[:8], "little") % (_MOST_KEYS // _WAYS) * _WAYS
        oldest, oldest_at = first, math.inf
        for number in range(first, first + _WAYS):
            offset = _HEADER.size + number * _SLOT.size
            found, left, at = _SLOT.unpack_from(self._map, offset)
            if found == name:
                # After a restart of the machine the clock begins anew, and a process that was killed may have left half a number.
                sound = math.isfinite(left) and math.isfinite(at) and at <= now
                return offset, *((left, at) if sound else (burst, now))
            if at < oldest_at or at > now:
                oldest, oldest_at = number, min(at, now)
        return _HEADER.size + oldest * _SLOT.size, burst, now


def open_rates(path: Path) -> LocalRates | SharedRates:
    """Rates that hold for all processes that open this file; where it cannot be made, for this process, and the log says so."""
    try:
        return SharedRates(path)
    except OSError as failure:
        log.warning("rates hold for each process by itself: %s cannot be made (%s)", path, failure.strerror)
        return LocalRates()


def _taken(left: float, at: float, now: float, rate: float, burst: float) -> tuple[float, float]:
    """What is left of a bucket once a token is taken, and 0; or what is in it, and how long until there is one."""
    left = min(burst, left + max(0.0, now - at) * rate)
    if left >= 1:
        return left - 1, 0.0
    return left, (1 - left) / rate
