"""What did we compute before? The seam between those who compute and the places where results are kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar

from ragline.types import Scope

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class CacheStats:
    """What a cache has done since it was opened.

    Attributes:
        items: How many it holds, expired ones that were not met yet included.
        capacity: How many it may hold.
        size_bytes: What they weigh together, where they are weighed; else 0.
        evictions: How many it let go for want of room, those included that were never let in.
    """

    hits: int = 0
    misses: int = 0
    items: int = 0
    capacity: int = 0
    size_bytes: int = 0
    evictions: int = 0

    @property
    def hit_rate(self) -> float:
        """Hits among all lookups, 0 to 1; 0 before the first."""
        return self.hits / (self.hits + self.misses) if self.hits + self.misses else 0.0


class Cache(Protocol[V]):
    """Keeps values by scope and key for a while. May forget anything at any time. Safe to use from many tasks of one loop.

    Values are plain, immutable data: what comes out is what went in, perhaps the very object. None is no value: it
    cannot be told from absence.
    """

    async def get(self, scope: Scope, key: str) -> V | None:
        """The value, or None where there is none (any more)."""
        ...

    async def set(self, scope: Scope, key: str, value: V, *, ttl_s: float | None = None) -> None:
        """Keeps a value, at most `ttl_s` seconds long where that is given; what was there before is gone in any case."""
        ...

    async def delete(self, scope: Scope, key: str) -> None:
        """Forgets one key, known or not."""
        ...

    async def clear(self, scope: Scope | None = None, *, prefix: str = "") -> None:
        """Forgets the keys that begin with `prefix`, of one scope or of all."""
        ...

    def stats(self) -> CacheStats:
        """Lookups and size."""
        ...

    async def close(self) -> None:
        """Lets go of what it holds. Twice is harmless."""
        ...
