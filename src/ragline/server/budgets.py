"""What a process takes on: budgets for searching, asking and ingesting, rates of keys, and how much is left out under load."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from ragline.concurrency.adaptive_limit import AdaptiveLimit
from ragline.concurrency.admission import Admission
from ragline.concurrency.ladder import Ladder
from ragline.concurrency.rates import LocalRates, SharedRates, open_rates
from ragline.engine.machine import usable_cores
from ragline.observe.series import Series
from ragline.server.errors import HttpError
from ragline.settings import Settings
from ragline.types import Effort

_ASKING = {
    ("POST", "/api/v1/search"): "searching",
    ("POST", "/v1/embeddings"): "searching",
    ("POST", "/api/v1/query"): "asking",
    ("POST", "/api/v1/query/batch"): "asking",
    ("POST", "/v1/chat/completions"): "asking",
}
_INGESTING = "/api/v1/documents"

LIMITED = ("/api/", "/v1/")
"""Below these, rates hold; health, figures and documentation are always answered."""

_WHOLE = Effort()
_FIRST_LIMIT = 16
_LOWEST_LIMIT = 2
_REMEMBERED = 512
_TELL_EVERY_S = 5.0

_log = logging.getLogger("ragline.server")


def efforts_of(settings: Settings, budget: str) -> tuple[Effort, ...]:
    """By level: all, then with one thing less at a time; what costs most for what it gives is left out first.

    Only what there is to leave out: without a reranker there is no step without it. Quotations that are found by their words are nearly
    as good as those found by meaning, and cost a fraction (docs/decisions/0015); for a language model they are the last resort.
    """
    steps: list[dict[str, bool]] = [{"rerank": False}] if settings.rerank.reranker != "none" else []
    steps.append({"full_depth": False})
    if budget == "asking":
        steps.insert(0 if settings.generation.generator == "extractive" else len(steps), {"language_model": False})
    levels = [Effort()]
    for step in steps:
        levels.append(replace(levels[-1], **step))
    return tuple(levels)


class Budgets:
    """One for each process. Rates hold for all processes that serve one data folder; limits find their own size in each.

    The highest that a limit may come to is a process's share of what is set, so that together they keep to it.

    Attributes:
        refusals: How long each took, from the reading of a request's head.

    Args:
        folder: The data folder; None where rates hold for this process alone.
        processes: How many serve beside each other, this one included.
    """

    def __init__(self, settings: Settings, folder: Path | None, *, processes: int = 1) -> None:
        limits = self._settings = settings.limits
        self._folder = folder
        self._rates: LocalRates | SharedRates | None = None
        # Searches compute here: one on each core, while another is read or sent. With a single core for all that, one.
        cores = usable_cores()
        searches = cores + 1 if cores > 1 else 1
        self.admissions = {
            # Who reads an answer takes 0.1 s for none, and 1 s for no interruption (J. Nielsen, "Usability Engineering", 1993); programs
            # that search over and over do not. And the more uploads wait for the disk together, the fewer times it is waited for.
            name: Admission(name, _limit(most, processes, lowest, quick_s))
            for name, most, lowest, quick_s in (
                ("searching", limits.max_searching, searches, 0.0),
                ("asking", limits.max_asking, _LOWEST_LIMIT, 0.2),
                ("ingesting", limits.max_ingesting, _LOWEST_LIMIT, 0.3),
            )
        }
        self._efforts = {name: efforts_of(settings, name) for name in ("searching", "asking")}
        self._ladders = {name: self._ladder(name) for name in self._efforts}
        self.refusals = Series(_REMEMBERED)
        self._untold = 0
        self._told_at = -math.inf
        self.rate_limited = 0

    def budget_of(self, method: str, path: str) -> str | None:
        """Which budget a request is of; None for one that costs next to nothing."""
        if method in ("POST", "PUT") and (path == _INGESTING or path.startswith(_INGESTING + "/")):
            return "ingesting"
        return _ASKING.get((method, path))

    def take_rate(self, key: str, rate: float | None = None, burst: int | None = None) -> None:
        """Counts a request of a key. Raises HttpError, 429, where it sends more than it may.

        Args:
            rate: The key's own; unset takes that of the settings.
            burst: Goes with a rate of its own; unset takes what one second allows.
        """
        if rate is not None:
            burst = burst or max(1, math.ceil(rate))
        elif self._settings.requests_per_s is not None:
            rate, burst = self._settings.requests_per_s, self._settings.burst
        else:
            return
        if self._rates is None:
            self._rates = open_rates(self._folder / "rates") if self._folder is not None else LocalRates()
        wait_s = self._rates.take(key, rate, burst)
        if wait_s > 0:
            self.rate_limited += 1
            seconds = max(1, math.ceil(wait_s))
            raise HttpError(
                429,
                "rate_limited",
                f"this key may send {rate:g} requests a second",
                hint=f"try again in {seconds} s",
                headers={"retry-after": str(seconds)},
            )

    @property
    def crowded(self) -> bool:
        """Whether more is asked of this process than it can do."""
        return any(admission.crowded for admission in self.admissions.values())

    def effort(self, budget: str) -> Effort:
        """How much a question of this budget may cost now."""
        ladder = self._ladders.get(budget)
        if ladder is None or not self._settings.degrade:
            return _WHOLE
        return self._efforts[budget][ladder.see(self.admissions[budget].crowded)]

    def _ladder(self, name: str) -> Ladder:
        admission = self.admissions[name]
        return Ladder(len(self._efforts[name]) - 1, lambda: admission.served)

    def refused(self, took_s: float) -> None:
        """Notes how long it took from the reading of a request's head to its refusal."""
        now = time.monotonic()
        self.refusals.add(took_s, True, now)
        self._untold += 1
        if now - self._told_at >= _TELL_EVERY_S:  # a line for each would cost more than the refusal
            _log.warning("%d requests were refused because there were too many", self._untold)
            self._untold, self._told_at = 0, now

    def stats(self) -> dict[str, Any]:
        """How it stands, as plain data."""
        budgets = {
            name: {
                "limit": admission.limit.now,
                "in_flight": admission.in_flight,
                "waiting": admission.waiting,
                "admitted": admission.admitted,
                "refused": admission.refused,
                "level": self._ladders[name].level if name in self._ladders else 0,
            }
            for name, admission in self.admissions.items()
        }
        refusals = self.refusals.stats(time.monotonic())
        return {"budgets": budgets, "rate_limited": self.rate_limited, "refusal_ms_p50": refusals.p50_s * 1000}

    def close(self) -> None:
        """Lets go of the file of rates. Twice is harmless."""
        if self._rates is not None:
            self._rates.close()
            self._rates = None


def _limit(most: int, processes: int, lowest: int, quick_s: float) -> AdaptiveLimit:
    """A process's own limit, which stays within its share of the most at once; each process lets in one at least."""
    share = max(1, most // processes)
    # Searches, the only ones for which nothing is quick enough, compute: their lowest is made of the cores, and is all there is.
    return AdaptiveLimit(_FIRST_LIMIT, lowest=min(lowest, share), highest=share, quick_s=quick_s, leaves_lowest=quick_s > 0)
