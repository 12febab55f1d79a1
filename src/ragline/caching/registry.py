"""Which caches does this process have? Their statistics, and one place to clear them."""

from __future__ import annotations

import threading
import weakref
from typing import Protocol

from ragline.caching.base import CacheStats
from ragline.errors import NotFoundError


class Clearable(Protocol):
    """What can be registered."""

    def stats(self) -> CacheStats:
        """Lookups and size."""
        ...

    def clear(self) -> None:
        """Forgets everything."""
        ...


class CacheRegistry:
    """Caches of this process by name. Those that nobody uses any more leave by themselves. Safe to use from many threads."""

    def __init__(self) -> None:
        self._caches: weakref.WeakValueDictionary[str, Clearable] = weakref.WeakValueDictionary()
        self._lock = threading.Lock()

    def register(self, name: str, cache: Clearable) -> str:
        """Adds a cache; returns its name, with a number where the name is taken."""
        with self._lock:
            free, number = name, 1
            while free in self._caches:
                number += 1
                free = f"{name}#{number}"
            self._caches[free] = cache
            return free

    def stats(self) -> dict[str, CacheStats]:
        """The statistics of each, by name, sorted."""
        return {name: cache.stats() for name, cache in sorted(self._living().items())}

    def clear(self, name: str | None = None) -> None:
        """Clears one, or all.

        Raises:
            NotFoundError: There is none of that name.
        """
        caches = self._living()
        if name is None:
            for cache in caches.values():
                cache.clear()
        elif name in caches:
            caches[name].clear()
        else:
            raise NotFoundError(f"there is no cache {name!r}", hint=f"there are: {', '.join(sorted(caches)) or 'none'}")

    def _living(self) -> dict[str, Clearable]:
        with self._lock:
            return dict(self._caches)


_registry = CacheRegistry()


def get_cache_manager() -> CacheRegistry:
    """The registry of this process, where `cached` functions are found by module and name."""
    return _registry
