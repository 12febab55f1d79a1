"""What an engine has done and how it stands, as plain data."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any

from ragline.caching.base import CacheStats
from ragline.engine.asking import Asking
from ragline.engine.resources import Resources
from ragline.observe.reports import finite

ANSWER_STEPS = ("hit", "revalidated", "semantic", "stale_prevented", "miss")
"""How questions were answered: nothing had changed; the evidence was the same; that of another question that means the same. How often
an answer was kept back because its evidence had changed, and how often a new one was made."""


def tenant_stats(asking: Asking, tenant: str) -> dict[str, Any]:
    """What one tenant asked since the engine was opened, and what of it was known already."""
    counts = asking.tally.of(tenant)
    return {
        "searches": {name: counts.get(f"search_{name}", 0) for name in ("hit", "shared", "miss")},
        "answers": {step: counts.get(step, 0) for step in ANSWER_STEPS} | {"shared": counts.get("shared", 0)},
    }


async def process_stats(resources: Resources, asking: Asking) -> dict[str, Any]:
    """What this process has done for all tenants together. Sorting takes a millisecond or so: it is done beside the loop."""
    report = await asyncio.to_thread(resources.monitor.get_report)
    counts = asking.tally.whole()
    told: dict[str, Any] = {
        "seconds": report.seconds,
        "operations": {name: asdict(stats) for name, stats in report.operations.items()},
        "metrics": {name: asdict(stats) for name, stats in report.metrics.items()},
        "process": asdict(report.process) if report.process is not None else None,
        "caches": {kind: _cache(stats) for kind, stats in caches(resources, asking).items()},
        "answers": {step: counts.get(step, 0) for step in ANSWER_STEPS} | {"shared": counts.get("shared", 0)},
        "embedding": {embedder.name: embedder.get_stats().as_dict() for embedder in resources.embedders},
        "servers": {name: "left alone" if alone else "asked" for name, alone in resources.circuits().items()},
        "indexer": resources.follower.is_indexer,
    }
    return finite(told)  # type: ignore[no-any-return]


def caches(resources: Resources, asking: Asking) -> dict[str, CacheStats]:
    """The statistics of each kind of cache, by its name."""
    found = {"results": asking.results.stats(), "answers": asking.answers.stats()}
    if resources.vectors is not None:
        found["vectors"] = resources.vectors.stats()
    return found


def _cache(stats: CacheStats) -> dict[str, Any]:
    return {**asdict(stats), "hit_rate": stats.hit_rate}
