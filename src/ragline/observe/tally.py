"""Counts by name: of each of many parties, and of all together."""

from __future__ import annotations

from collections import Counter, OrderedDict


class Tally:
    """Adds up what happened, by party and name. For one event loop.

    Args:
        most_parties: How many are told apart; the one that did nothing for the longest time begins anew when another comes.
    """

    def __init__(self, most_parties: int = 10_000) -> None:
        self._most = most_parties
        self._whole: Counter[str] = Counter()
        self._parties: OrderedDict[str, Counter[str]] = OrderedDict()

    def add(self, party: str, name: str) -> None:
        """One more."""
        self._whole[name] += 1
        counts = self._parties.get(party)
        if counts is None:
            counts = self._parties[party] = Counter()
            if len(self._parties) > self._most:
                self._parties.popitem(last=False)
        else:
            self._parties.move_to_end(party)
        counts[name] += 1

    def of(self, party: str) -> dict[str, int]:
        """What one party did; names of which there was nothing are left out."""
        return dict(self._parties.get(party, {}))

    def whole(self) -> dict[str, int]:
        """What all did, those included that are not told apart any more."""
        return dict(self._whole)
