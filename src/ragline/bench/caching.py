"""What does the cache's policy win over plain LRU, and what does a lookup cost?"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragline.bench.timing import Stopwatch
from ragline.caching.cached import cached
from ragline.caching.memory import MemoryCache
from ragline.caching.query_optimizer import QueryOptimizer
from ragline.caching.tiny_lfu import TinyLfu
from ragline.types import Scope

SEED = 20261121
QUESTIONS = 20_000
CAPACITY = QUESTIONS // 10
ASKED = 200_000
WARM_UP = ASKED // 4
DRIFT = 20
"""So often the popularity of a twentieth of the questions is dealt out anew."""
SCAN = 0.2
"""Share of questions that are asked once, in bursts as large as the cache."""
ANSWER_BYTES, SPREAD = 10_000, 1.0
"""Median size of an answer, and the standard deviation of its logarithm."""
ROUNDS = 5
CALLS = 20_000


@dataclass(frozen=True)
class Stream:
    """Questions in the order they are asked, and the best that a cache could do that knew how popular each is."""

    asked: Sequence[int]
    optimum: float


def zipf_stream(skew: float, *, drift: int = 1, scan: float = 0.0, seed: int = SEED) -> Stream:
    """`ASKED` questions: the n-th most popular of `QUESTIONS` is asked in proportion to `n ** -skew`.

    Args:
        drift: Into so many parts the stream falls; from one to the next, a twentieth of the questions change places.
        scan: Share of questions that are never asked again, in bursts of `CAPACITY`.
    """
    draw = np.random.default_rng(seed)
    share = np.arange(1, QUESTIONS + 1) ** -skew
    share /= share.sum()
    by_rank = draw.permutation(QUESTIONS)
    parts: list[NDArray[np.int64]] = []
    for _ in range(drift):
        parts.append(by_rank[draw.choice(QUESTIONS, ASKED // drift, p=share)])
        moving = draw.choice(QUESTIONS, QUESTIONS // 20, replace=False)
        by_rank[moving] = by_rank[draw.permutation(moving)]
    asked = np.concatenate(parts)
    if scan:
        bursts = round(len(asked) * scan / CAPACITY)
        for number, place in enumerate(np.linspace(0, len(asked) - CAPACITY, bursts).astype(np.int64)):
            asked[place : place + CAPACITY] = QUESTIONS + number * CAPACITY + np.arange(CAPACITY)
    return Stream(asked.tolist(), float(share[:CAPACITY].sum() * (1 - scan)))


STREAMS: dict[str, dict[str, Any]] = {
    "skew_0.8": {"skew": 0.8},
    "skew_1.0": {"skew": 1.0},
    "skew_1.1": {"skew": 1.1},
    "skew_1.2": {"skew": 1.2},
    "skew_1.0_drift": {"skew": 1.0, "drift": DRIFT},
    "skew_1.0_scans": {"skew": 1.0, "scan": SCAN},
}


def measure_caching() -> dict[str, Any]:
    """Hit ratios of W-TinyLFU and LRU on the same streams, warm-up left out, and the times of lookups."""
    options = {
        "questions": QUESTIONS,
        "capacity": CAPACITY,
        "asked": ASKED,
        "warm_up": WARM_UP,
        "drift": DRIFT,
        "scan_share": SCAN,
        "answer_bytes": ANSWER_BYTES,
    }
    ratios = {name: _ratios(zipf_stream(**stream)) for name, stream in STREAMS.items()}
    return {"options": options, "hit_ratio": ratios, "hit_ratio_by_bytes": _ratios_by_bytes(), "us": asyncio.run(_times())}


def _ratios(stream: Stream) -> dict[str, float]:
    ours: TinyLfu[int, int] = TinyLfu(CAPACITY)
    lru = LeastRecentlyUsed(CAPACITY)
    return {
        "w_tinylfu": hit_ratio(stream.asked, lambda key: ours.get(key, None) is not None, lambda key: ours.set(key, key)),
        "lru": hit_ratio(stream.asked, lru.get, lru.set),
        "optimum": stream.optimum,
    }


def _ratios_by_bytes() -> dict[str, float]:
    """Answers of different sizes, in a tenth of the memory that all of them would take."""
    stream = zipf_stream(1.0)
    sizes = (ANSWER_BYTES * np.random.default_rng(SEED).lognormal(0, SPREAD, QUESTIONS)).astype(np.int64).tolist()
    room = sum(sizes) // 10
    ours: TinyLfu[int, int] = TinyLfu(room // ANSWER_BYTES, max_bytes=room, size_of=sizes.__getitem__)
    lru = LeastRecentlyUsed(room, sizes.__getitem__)
    return {
        "w_tinylfu": hit_ratio(stream.asked, lambda key: ours.get(key, None) is not None, lambda key: ours.set(key, key)),
        "lru": hit_ratio(stream.asked, lru.get, lru.set),
    }


class LeastRecentlyUsed:
    """Keys up to a total weight; the one asked for longest ago leaves first."""

    def __init__(self, room: int, size_of: Callable[[int], int] = lambda _: 1) -> None:
        self._room = room
        self._size_of = size_of
        self._keys: OrderedDict[int, None] = OrderedDict()
        self._size = 0

    def get(self, key: int) -> bool:
        """Whether it is there."""
        if key not in self._keys:
            return False
        self._keys.move_to_end(key)
        return True

    def set(self, key: int) -> None:
        """Adds a key that is not there."""
        self._keys[key] = None
        self._size += self._size_of(key)
        while self._size > self._room:
            self._size -= self._size_of(self._keys.popitem(last=False)[0])


def hit_ratio(asked: Sequence[int], get: Callable[[int], bool], set_: Callable[[int], None]) -> float:
    """Hits among the questions after `WARM_UP`; what is missed is set."""
    hits = 0
    for number, key in enumerate(asked):
        if get(key):
            hits += number >= WARM_UP
        else:
            set_(key)
    return hits / (len(asked) - WARM_UP)


async def _times() -> dict[str, float]:
    """Processor time of one call, in microseconds, the best of `ROUNDS`; keys as long as a question."""
    scope, keys = Scope(), [f"what is the answer to question {number}?" for number in range(CALLS)]
    plain: TinyLfu[str, int] = TinyLfu(CALLS)
    memory: MemoryCache[int] = MemoryCache(CALLS)
    full: MemoryCache[int] = MemoryCache(CALLS // 10)
    optimizer: QueryOptimizer[int] = QueryOptimizer(maxsize=CALLS)

    @cached(maxsize=CALLS)
    async def answer(question: str) -> int:
        return len(question)

    async def compute() -> int:
        return 1

    async def in_turn(call: Callable[[str], Awaitable[object]]) -> None:
        for key in keys:
            await call(key)

    async def plain_calls(call: Callable[[str], object]) -> None:
        for key in keys:
            call(key)

    cases: dict[str, Callable[[], Awaitable[None]]] = {
        "mapping_set": lambda: plain_calls(lambda key: plain.set(key, 1)),
        "mapping_get": lambda: plain_calls(lambda key: plain.get(key, None)),
        "memory_set": lambda: in_turn(lambda key: memory.set(scope, key, 1, ttl_s=60)),
        "memory_set_when_full": lambda: in_turn(lambda key: full.set(scope, key, 1)),
        "memory_get": lambda: in_turn(lambda key: memory.get(scope, key)),
        "execute_query_hit": lambda: in_turn(lambda key: optimizer.execute_query(key, compute)),
        "cached_hit": lambda: in_turn(answer),
    }
    best = dict.fromkeys(cases, math.inf)
    for _ in range(ROUNDS):  # the first one fills the caches, and is never the best
        for name, run in cases.items():
            watch = Stopwatch()
            await run()
            best[name] = min(best[name], 1e6 * watch.stop().cpu_s / CALLS)
    await optimizer.close()
    return best
