"""What caching, batching and pooling spared."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol


class Lookups(Protocol):
    """Counts of a cache."""

    @property
    def hits(self) -> int:
        """Lookups that found something."""
        ...

    @property
    def misses(self) -> int:
        """Lookups that did not."""
        ...


class Batches(Protocol):
    """Counts of a queue that makes batches."""

    @property
    def batches(self) -> int:
        """How many there were."""
        ...

    @property
    def average_batch_size(self) -> float:
        """What was in one."""
        ...


class Loans(Protocol):
    """Counts of a connection pool."""

    @property
    def acquired(self) -> int:
        """How often one was lent."""
        ...

    @property
    def reused(self) -> int:
        """How often it was there already."""
        ...


@dataclass(frozen=True, slots=True)
class OptimizationMetrics:
    """What caching, batching and pooling spared since the start.

    Attributes:
        cache_hits, cache_misses: Lookups of all caches given.
        batched_texts, batches: What went through batches, and how many there were.
        connections_acquired, connections_reused: Of all pools given.
        saved_s: An estimate: every hit counted as the mean time of doing it anew, less the mean time of a hit. None where
            these times were not given.
    """

    cache_hits: int = 0
    cache_misses: int = 0
    batched_texts: int = 0
    batches: int = 0
    connections_acquired: int = 0
    connections_reused: int = 0
    saved_s: float | None = None

    @classmethod
    def of(
        cls,
        caches: Iterable[Lookups] = (),
        batchers: Iterable[Batches] = (),
        pools: Iterable[Loans] = (),
        *,
        miss_s: float | None = None,
        hit_s: float = 0.0,
    ) -> OptimizationMetrics:
        """Sums of the statistics of caches, batch queues and pools, each as its `stats` gives them.

        Args:
            miss_s, hit_s: Mean seconds of one answer without and with the cache, for `saved_s`.
        """
        caches, batchers, pools = list(caches), list(batchers), list(pools)
        hits = sum(cache.hits for cache in caches)
        return cls(
            cache_hits=hits,
            cache_misses=sum(cache.misses for cache in caches),
            batched_texts=sum(round(each.batches * each.average_batch_size) for each in batchers),
            batches=sum(each.batches for each in batchers),
            connections_acquired=sum(pool.acquired for pool in pools),
            connections_reused=sum(pool.reused for pool in pools),
            saved_s=None if miss_s is None else hits * max(0.0, miss_s - hit_s),
        )

    @property
    def cache_hit_rate(self) -> float:
        """Hits among all lookups, 0 to 1; 0 before the first."""
        lookups = self.cache_hits + self.cache_misses
        return self.cache_hits / lookups if lookups else 0.0

    @property
    def average_batch_size(self) -> float:
        """Texts in a batch; 0 before the first."""
        return self.batched_texts / self.batches if self.batches else 0.0

    @property
    def pool_reuse_rate(self) -> float:
        """The share of acquisitions that opened no connection, 0 to 1; 0 before the first."""
        return self.connections_reused / self.connections_acquired if self.connections_acquired else 0.0
