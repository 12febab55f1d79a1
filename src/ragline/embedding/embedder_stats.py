"""What a `BatchEmbedder` has done."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ragline.concurrency.batch_stats import BatchStats


@dataclass(frozen=True, slots=True)
class EmbedderStats:
    """What a `BatchEmbedder` has done since it was made, for all tenants.

    Attributes:
        hits: Texts whose vector was in the cache, in memory or in the store.
        stored_hits: Those of the hits that were found in the store.
        misses: Texts whose vector was not: those embedded, and those that joined another caller's.
        shared: Those of the misses that joined another caller's, under way already.
        embedded: Texts embedded.
        batches: Calls of the embedder, by which they were.
        average_batch_size: Texts in a call.
        embedding_ms: Time of a call, divided by its texts.
        refused: Texts turned away at the door: the queue was full, or they were too long.
        dropped: Texts whose callers left before they were embedded.
        failed: Texts that the embedder gave an error for.
        queue_length: Texts that wait now.
        under_way: Calls of the embedder under way now, those outside the queue not counted.
        average_wait_ms, longest_wait_ms: How long texts waited in the queue.
        batch_tokens: The token budget of a batch of questions and of passages now; empty where only texts are counted.
        cache_items: Vectors in memory.
    """

    hits: int = 0
    stored_hits: int = 0
    misses: int = 0
    shared: int = 0
    embedded: int = 0
    batches: int = 0
    average_batch_size: float = 0.0
    embedding_ms: float = 0.0
    refused: int = 0
    dropped: int = 0
    failed: int = 0
    queue_length: int = 0
    under_way: int = 0
    average_wait_ms: float = 0.0
    longest_wait_ms: float = 0.0
    batch_tokens: tuple[int, ...] = ()
    cache_items: int = 0

    @property
    def cache_hit_rate(self) -> float:
        """Hits among all texts looked up, 0 to 1; 0 before the first."""
        return self.hits / (self.hits + self.misses) if self.hits + self.misses else 0.0

    def as_dict(self) -> dict[str, Any]:
        """The same as plain data, `cache_hit_rate` included."""
        return {**asdict(self), "cache_hit_rate": self.cache_hit_rate}


class EmbedderCounts:
    """What `EmbedderStats` are made from. Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._took_s = 0.0

    def add(self, **counted: int) -> None:
        """Adds to counts by name."""
        with self._lock:
            for name, count in counted.items():
                self._counts[name] += count

    def call(self, texts: int, took_s: float) -> None:
        """The embedder was called for so many texts."""
        with self._lock:
            self._counts["batches"] += 1
            self._counts["embedded"] += texts
            self._took_s += took_s

    def stats(self, queues: Sequence[BatchStats], *, cache_items: int) -> EmbedderStats:
        """These counts, with those of the queues and what is the case now."""
        with self._lock:
            counts, took_s = Counter(self._counts), self._took_s
        taken = [queue.submitted - queue.dropped - queue.queue_length for queue in queues]
        waited_s = sum(queue.average_wait_s * count for queue, count in zip(queues, taken, strict=True))
        return EmbedderStats(
            hits=counts["hits"],
            stored_hits=counts["stored_hits"],
            misses=counts["misses"],
            shared=counts["shared"],
            embedded=counts["embedded"],
            batches=counts["batches"],
            average_batch_size=counts["embedded"] / max(1, counts["batches"]),
            embedding_ms=1000 * took_s / max(1, counts["embedded"]),
            refused=counts["refused"] + sum(queue.refused for queue in queues),
            dropped=sum(queue.dropped for queue in queues),
            failed=counts["failed"] + sum(queue.failed for queue in queues),
            queue_length=sum(queue.queue_length for queue in queues),
            under_way=sum(queue.under_way for queue in queues),
            average_wait_ms=1000 * waited_s / max(1, sum(taken)),
            longest_wait_ms=1000 * max((queue.longest_wait_s for queue in queues), default=0.0),
            batch_tokens=tuple(queue.max_size for queue in queues if queue.max_size is not None),
            cache_items=cache_items,
        )
