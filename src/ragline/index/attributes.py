"""Which rows have which metadata: roaring bitmaps by key and value, so that a filter costs microseconds.

Roaring bitmaps: Lemire, Ssi-Yan-Kai and Kaser, "Consistently faster and smaller compressed bitmaps with
Roaring" (2016).
"""

from __future__ import annotations

import json
import struct
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
from pyroaring import BitMap64

from ragline.errors import CorruptionError
from ragline.filters import And, Eq, Exists, Filter, In, Ne, Not, Or, Range, Scalar, scalars
from ragline.types import Int64, Metadata

Posting: TypeAlias = range | BitMap64
"""The rows of a value: a `range` while they are consecutive, as those of one document are. A bitmap takes 420 bytes
however few rows it holds, a range 100: that is what makes a key with a value for each document affordable."""

_SWEEP_ROWS = 4096
"""Fewer dead rows than this are not worth a sweep."""

_MAGIC = b"RLATTR01"
_LENGTHS = struct.Struct("<QQQ")

# Python holds 1 == True and hashes them alike; wrapped, booleans and null are apart from all numbers and strings.
_TOKENS: dict[bool | None, tuple[str]] = {True: ("true",), False: ("false",), None: ("null",)}
_WORDS = {token: value for value, token in _TOKENS.items()}


def _token(value: Scalar) -> Hashable:
    return _TOKENS[value] if value is None or isinstance(value, bool) else value


class AttributeIndex:
    """Finds rows by metadata: `filters.matches` of every live row, without looking at any.

    Only scalars and the scalars in lists are indexed; `exists` sees every key. Searches may run side by side, but
    not beside `apply`.

    A removed row only leaves `live`, which every answer is cut with; its postings go in a sweep when a third of all
    rows is dead. So nothing need be remembered of what a row's metadata was.
    """

    def __init__(self) -> None:
        self._live = BitMap64()
        self._dead = BitMap64()
        self._keys: dict[str, _Key] = {}

    def __len__(self) -> int:
        return len(self._live)

    @property
    def live(self) -> BitMap64:
        """All rows held. It is the index's own: do not change it."""
        return self._live

    def apply(self, removed: Int64, rows: Int64, metadata: Sequence[Metadata]) -> None:
        """Removes rows, then adds `n` ascending rows with their metadata. Removing a row that is not held does
        nothing; adding one that is held replaces it.
        """
        gone = self._live & BitMap64(removed.tolist())
        self._live -= gone
        self._dead |= gone
        added = BitMap64(rows.tolist())
        replaced = added & self._live
        self._dead |= replaced
        again = added.intersect(self._dead)  # the old postings of these rows would count for their new metadata
        if again or len(self._dead) > max(_SWEEP_ROWS, len(self._live) // 2):
            self._sweep()
        self._live |= added
        for run, shared in _runs(rows, metadata):
            for name in shared:
                self._keys.setdefault(name, _Key()).add(run, {_token(value) for value in scalars(shared, name) if value == value})
        for key in self._keys.values():
            key.settle()

    def rows(self, filter: Filter | None) -> BitMap64:
        """The live rows that pass; all for None. The caller's to keep."""
        return self._live.copy() if filter is None else self._find(filter) & self._live

    def _find(self, filter: Filter) -> BitMap64:
        """Rows that pass, dead ones perhaps among them; may be a bitmap of the index's own."""
        match filter:
            case Eq(key, value):
                return self._having(key, [value])
            case Ne(key, value):
                return self._live - self._having(key, [value])
            case In(key, values):
                return self._having(key, values)
            case Range(key):
                return self._keys[key].within(filter) if key in self._keys else BitMap64()
            case Exists(key, present):
                holding = self._keys[key].exists if key in self._keys else BitMap64()
                return holding if present else self._live - holding
            case And(filters):
                return BitMap64.intersection(*map(self._find, filters))
            case Or(filters):
                return BitMap64.union(*map(self._find, filters))
            case Not(inner):
                return self._live - self._find(inner)

    def _having(self, key: str, values: Iterable[Scalar]) -> BitMap64:
        if key not in self._keys:
            return BitMap64()
        postings = self._keys[key].postings
        found = [posting for value in values if (posting := postings.get(_token(value))) is not None]
        if len(found) == 1 and isinstance(found[0], BitMap64):
            return found[0]
        return _Slices(found).union(0, len(found))

    def _sweep(self) -> None:
        """Takes dead rows out of every posting, and keys and values that no row has out of the index."""
        for name, key in list(self._keys.items()):
            key.sweep(self._dead)
            if not key.exists:
                del self._keys[name]
        self._live -= self._dead
        self._dead = BitMap64()

    def to_bytes(self) -> bytes:
        """The whole index, for `from_bytes`: a JSON directory of keys and values, then ranges, then bitmaps."""
        directory: list[tuple[str, list[Scalar], list[Scalar]]] = []
        ranges: list[int] = []
        bitmaps = [self._live, self._dead]
        for name, key in self._keys.items():
            consecutive: list[Scalar] = []
            scattered: list[Scalar] = []
            bitmaps.append(key.exists)
            for token, posting in key.postings.items():
                if isinstance(posting, range):
                    consecutive.append(_value(token))
                    ranges += (posting.start, posting.stop)
                else:
                    scattered.append(_value(token))
                    bitmaps.append(posting)
            directory.append((name, consecutive, scattered))
        head = json.dumps(directory, separators=(",", ":")).encode()
        packed = [bitmap.serialize() for bitmap in bitmaps]
        sizes = np.array([len(piece) for piece in packed], "<i8").tobytes()
        lengths = _LENGTHS.pack(len(head), len(ranges), len(packed))
        return b"".join((_MAGIC, lengths, head, np.array(ranges, "<i8").tobytes(), sizes, *packed))

    @classmethod
    def from_bytes(cls, content: bytes) -> AttributeIndex:
        """The index that `to_bytes` wrote. Hand it only bytes whose checksum was verified.

        Raises:
            CorruptionError: They are not from `to_bytes` of this version.
        """
        if content[: len(_MAGIC)] != _MAGIC:
            raise CorruptionError("an attribute snapshot begins with the wrong bytes")
        head_size, range_count, bitmap_count = _LENGTHS.unpack_from(content, len(_MAGIC))
        at = len(_MAGIC) + _LENGTHS.size
        directory = json.loads(content[at : at + head_size])
        ranges = iter(np.frombuffer(content, "<i8", range_count, at + head_size).tolist())
        at += head_size + 8 * range_count
        sizes = np.frombuffer(content, "<i8", bitmap_count, at).tolist()
        bitmaps = _unpack(content, at + 8 * bitmap_count, sizes)
        index = cls()
        index._live, index._dead = next(bitmaps), next(bitmaps)
        for name, consecutive, scattered in directory:
            key = index._keys[name] = _Key()
            key.exists = next(bitmaps)
            key.postings = {_token(value): range(next(ranges), next(ranges)) for value in consecutive}
            key.postings.update((_token(value), next(bitmaps)) for value in scattered)
        return index


class _Key:
    """The rows of one metadata key, by value."""

    __slots__ = ("_fresh", "_slices", "_values", "exists", "postings")

    def __init__(self) -> None:
        self.exists = BitMap64()
        self.postings: dict[Hashable, Posting] = {}
        # For ranges, from the first one on: all numbers and all strings ascending, and those not yet among them.
        self._values: tuple[list[Any], list[Any]] | None = None
        self._fresh: list[Hashable] = []
        self._slices: dict[bool, _Slices] = {}

    def add(self, run: range, tokens: Iterable[Hashable]) -> None:
        self.exists.add_range(run.start, run.stop)
        for token in tokens:
            held = self.postings.get(token)
            if held is None:
                self.postings[token] = run
                self._fresh.append(token)
            elif isinstance(held, BitMap64):
                held.add_range(run.start, run.stop)
            elif held.stop == run.start:
                self.postings[token] = range(held.start, run.stop)
            else:
                self.postings[token] = bitmap = BitMap64(held)
                bitmap.add_range(run.start, run.stop)
        self._slices = {}

    def settle(self) -> None:
        """Ends an `apply`: takes new values into the order, where there is one."""
        if self._values is not None and self._fresh:
            self._values = _in_order(self._fresh, *self._values)
        self._fresh = []

    def within(self, bounds: Range) -> BitMap64:
        """The rows with a value in the range."""
        of_strings = bounds.of_strings
        # Searches side by side may both make these, from the same postings: the second one to store them harms nothing.
        if self._values is None:
            self._values = _in_order(self.postings, [], [])
        values = self._values[of_strings]
        slices = self._slices.get(of_strings)
        if slices is None:
            slices = self._slices[of_strings] = _Slices([self.postings[value] for value in values])
        start, stop = 0, len(values)
        if bounds.gt is not None:
            start = bisect_right(values, bounds.gt)
        if bounds.gte is not None:
            start = max(start, bisect_left(values, bounds.gte))
        if bounds.lt is not None:
            stop = bisect_left(values, bounds.lt)
        if bounds.lte is not None:
            stop = min(stop, bisect_right(values, bounds.lte))
        return slices.union(start, stop)

    def sweep(self, dead: BitMap64) -> None:
        self.exists -= dead
        self._values, self._fresh, self._slices = None, [], {}
        kept: dict[Hashable, Posting] = {}
        for token, posting in self.postings.items():
            if isinstance(posting, range):
                hit = dead.range_cardinality(posting.start, posting.stop)
                left: Posting = posting if not hit else BitMap64(posting) - dead
            else:
                left = posting - dead
            if left:
                kept[token] = left
        self.postings = kept


class _Slices:
    """Postings in the order of their values, laid out so that joining 100,000 of them takes a millisecond."""

    def __init__(self, postings: Sequence[Posting]) -> None:
        ranges = [posting if isinstance(posting, range) else range(0) for posting in postings]
        self._starts = np.fromiter((run.start for run in ranges), np.int64, len(ranges))
        self._lengths = np.fromiter(map(len, ranges), np.int64, len(ranges))
        self._bitmaps = [posting for posting in postings if isinstance(posting, BitMap64)]
        self._bitmaps_at = [at for at, posting in enumerate(postings) if isinstance(posting, BitMap64)]

    def union(self, start: int, stop: int) -> BitMap64:
        """The rows of the postings from `start` to before `stop`."""
        if start >= stop:
            return BitMap64()
        bitmaps = self._bitmaps[bisect_left(self._bitmaps_at, start) : bisect_left(self._bitmaps_at, stop)]
        lengths = self._lengths[start:stop]
        ends = np.cumsum(lengths)
        numbers = np.arange(ends[-1]) + np.repeat(self._starts[start:stop] - ends + lengths, lengths)
        return BitMap64.union(_bitmap(np.sort(numbers)), *bitmaps)


def _runs(rows: Int64, metadata: Sequence[Metadata]) -> Iterator[tuple[range, Metadata]]:
    """Consecutive rows with the same metadata, as the chunks of one document are."""
    numbers = rows.tolist()
    start = 0
    for at in range(1, len(numbers) + 1):
        if at < len(numbers) and numbers[at] == numbers[at - 1] + 1 and _same(metadata[at], metadata[start]):
            continue
        yield range(numbers[start], numbers[at - 1] + 1), metadata[start]
        start = at


def _same(left: Metadata, right: Metadata) -> bool:
    # Equal is not enough: {"k": 1} == {"k": True}. Stores give the rows of a document one and the same object.
    return left is right


def _in_order(tokens: Iterable[Hashable], numbers: list[Any], strings: list[Any]) -> tuple[list[Any], list[Any]]:
    """Numbers and strings ascending, those already in order first: sorting two runs is a merge (timsort)."""
    tokens = list(tokens)
    more_numbers = sorted(token for token in tokens if isinstance(token, int | float))
    more_strings = sorted(token for token in tokens if isinstance(token, str))
    return sorted(numbers + more_numbers), sorted(strings + more_strings)


def _bitmap(rows: Int64) -> BitMap64:
    """A bitmap of ascending rows. Through `array`, which pyroaring reads as memory: five times as fast as a list."""
    numbers = array("Q")
    numbers.frombytes(rows.data.cast("B") if rows.size else b"")
    return BitMap64(numbers)


def _value(token: Hashable) -> Any:
    return _WORDS[token] if isinstance(token, tuple) else token


def _unpack(content: bytes, at: int, sizes: Sequence[int]) -> Iterator[BitMap64]:
    for size in sizes:
        yield BitMap64.deserialize(content[at : at + size])
        at += size
