"""What an engine has done and how it stands, as plain data."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any

from ragline.caching.base import CacheStats
from ragline.engine.asking import Asking
from ragline.engine.resources import Resources
from ragline.observe.optimization import OptimizationMetrics
from ragline.observe.reports import finite

ANSWER_STEPS = ("hit", "revalidated", "semantic", "stale_prevented", "miss")
"""How questions were answered: nothing had changed; the evidence was the same; that of another question that means the same. How often
an answer was kept back because its evidence had changed, and how often a new one was made."""


def tenant_stats(asking: Asking, tenant: str) -> dict[str, Any]:
    """What one tenant asked since the engine was opened, and what of it was known already."""
    return _asked(asking.tally.of(tenant))


async def process_stats(resources: Resources, asking: Asking, *, times: bool) -> dict[str, Any]:
    """What this process has done for all tenants together.

    Args:
        times: Whether durations are told too. Sorting them takes a millisecond or so: it is done beside the loop.
    """
    workers = {"question": resources.question_workers, "bulk": resources.bulk_workers}
    lags = await resources.follower.lags()
    told: dict[str, Any] = {
        **_asked(asking.tally.whole()),
        "caches": {kind: {**asdict(stats), "hit_rate": stats.hit_rate} for kind, stats in caches(resources, asking).items()},
        "embedding": {embedder.name: embedder.get_stats().as_dict() for embedder in resources.embedders},
        "servers": {name: "left alone" if alone else "asked" for name, alone in resources.circuits().items()},
        "optimization": asdict(
            OptimizationMetrics.of(caches(resources, asking).values(), [embedder.get_stats() for embedder in resources.embedders])
        ),
        "threads": {name: {"threads": each.threads, "waiting": each.waiting} for name, each in workers.items()},
        "index": {
            "indexer": resources.follower.is_indexer,
            "collections": len(lags),
            "lag": max(lags.values(), default=0),
        },
        "jobs": asdict(await resources.store.jobs.counts()),
    }
    if times:
        report = await asyncio.to_thread(resources.monitor.get_report)
        told["seconds"] = report.seconds
        told["operations"] = {name: asdict(stats) for name, stats in report.operations.items()}
        told["metrics"] = {name: asdict(stats) for name, stats in report.metrics.items()}
    process = resources.monitor.process()
    told["process"] = asdict(process) if process is not None else None
    return finite(told)  # type: ignore[no-any-return]


def _asked(counts: dict[str, int]) -> dict[str, Any]:
    return {
        "searches": {name: counts.get(f"search_{name}", 0) for name in ("hit", "shared", "miss")},
        "answers": {step: counts.get(step, 0) for step in ANSWER_STEPS} | {"shared": counts.get("shared", 0)},
    }


def caches(resources: Resources, asking: Asking) -> dict[str, CacheStats]:
    """The statistics of each kind of cache, by its name."""
    found = {"results": asking.results.stats(), "answers": asking.answers.stats()}
    for kind, cache in (("vectors", resources.vectors), ("responses", resources.responses)):
        if cache is not None:
            found[kind] = cache.stats()
    return found
