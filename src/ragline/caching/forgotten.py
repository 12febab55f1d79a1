"""What was forgotten, and when: so that a place that did not hear of it, or late, cannot bring it back."""

from __future__ import annotations

from typing import TypeVar

from ragline.types import Scope

K = TypeVar("K")

_MOST_KEYS = 256
_MOST_PREFIXES = 64


class Forgotten:
    """Times of deletes and clears, bounded: where there are too many, the older ones become one clear of everything."""

    def __init__(self) -> None:
        self._everything_ns = -1
        self._keys: dict[tuple[Scope, str], int] = {}
        self._prefixes: dict[tuple[Scope | None, str], int] = {}

    def forget_key(self, scope: Scope, key: str, now_ns: int) -> None:
        """Values of this key that were written until now are not to be believed."""
        _renew(self._keys, (scope, key), now_ns)
        self._everything_ns = max(self._everything_ns, _merged(self._keys, _MOST_KEYS))

    def forget_prefix(self, scope: Scope | None, prefix: str, now_ns: int) -> None:
        """Values of keys that begin so, in one scope or in all, that were written until now are not to be believed."""
        if scope is None and not prefix:
            self._keys.clear()
            self._prefixes.clear()
            self._everything_ns = now_ns
            return
        _renew(self._prefixes, (scope, prefix), now_ns)
        self._everything_ns = max(self._everything_ns, _merged(self._prefixes, _MOST_PREFIXES))

    def covers(self, scope: Scope, key: str, written_ns: int) -> bool:
        """Whether a value that was written then has been forgotten since."""
        if written_ns <= max(self._everything_ns, self._keys.get((scope, key), -1)):
            return True
        return any(written_ns <= at and of in (None, scope) and key.startswith(prefix) for (of, prefix), at in self._prefixes.items())


def _renew(times: dict[K, int], key: K, now_ns: int) -> None:
    times.pop(key, None)
    times[key] = now_ns


def _merged(times: dict[K, int], most: int) -> int:
    """Takes the older half out where there are too many; the time of the newest of them, or -1."""
    if len(times) <= most:
        return -1
    return max(times.pop(key) for key in list(times)[: len(times) // 2])
