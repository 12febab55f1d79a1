"""Which key followed which? Counts in bounded memory, and a guess at the next one."""

from __future__ import annotations

_MOST_SESSIONS = 1000


class Transitions:
    """First-order transition counts: for each key, the few that followed it most.

    A key remembers `most_followers`; a new one takes the place of the rarest and inherits its count, so that whatever
    follows often is found, however late it begins. Source: Metwally, Agrawal, El Abbadi, "Efficient Computation of Frequent
    and Top-k Elements in Data Streams", ICDT 2005 ("Space-Saving").

    Args:
        most_keys: Keys whose followers are counted; with more, the one that was met longest ago is forgotten.
        most_followers: Followers that are counted for each.
    """

    def __init__(self, most_keys: int = 1000, most_followers: int = 8) -> None:
        self._most_keys = most_keys
        self._most_followers = most_followers
        self._followers: dict[str, dict[str, int]] = {}
        self._last: dict[str, str] = {}

    def __len__(self) -> int:
        """How many keys have followers."""
        return len(self._followers)

    def met(self, key: str, *, session: str = "") -> None:
        """Counts that this key followed the last one of the same session. A key that follows itself tells nothing."""
        before = self._last.pop(session, None)
        self._last[session] = key
        if len(self._last) > _MOST_SESSIONS:
            del self._last[next(iter(self._last))]
        if before is None or before == key:
            return
        counts = self._followers.pop(before, {})
        self._followers[before] = counts
        if len(self._followers) > self._most_keys:
            del self._followers[next(iter(self._followers))]
        if key not in counts and len(counts) >= self._most_followers:
            rarest = min(counts, key=counts.__getitem__)
            counts[key] = counts.pop(rarest)
        counts[key] = counts.get(key, 0) + 1

    def likely_next(self, key: str, n: int = 3, *, at_least: int = 2) -> list[str]:
        """The keys that followed this one most often, at least so many times, the most frequent first."""
        counts = self._followers.get(key, {})
        often = [follower for follower, count in counts.items() if count >= at_least]
        return sorted(often, key=lambda follower: -counts[follower])[: max(n, 0)]
