"""Are there enough connections to the services outside? By Little's law, from what was measured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ragline.concurrency.pool_stats import pool_size
from ragline.observe.series import OperationStats
from ragline.settings import Settings
from ragline.types import Finding

ENOUGH = 20
"""So many requests must have been measured before they say anything."""

_SLOW_S = 2.0


def pool_advice(settings: Settings, operations: Mapping[str, OperationStats]) -> Iterator[Finding]:
    """One finding for each service outside that the settings name: each has a pool of connections of its own.

    Args:
        operations: What was measured, by operation: the stages tell how long the services took.
    """
    most = settings.pool.max_size
    for service, stage in _services(settings):
        rate_per_s, seconds_each, count = _measured(operations.values(), stage)
        if count < ENOUGH:
            yield Finding(
                "ok",
                f"{most} connections to {service} (pool.max_size) carry {most} requests at once",
                f"that is {most / _SLOW_S:g} a second of {_SLOW_S:g} s each; what a running server needs, its /metrics tell",
            )
            continue
        needed = pool_size(rate_per_s, seconds_each)
        what = f"{service} was asked {rate_per_s:.3g} times a second for {seconds_each:.3g} s each"
        if needed > most:
            yield Finding("warning", f"{what}: that wants {needed} connections, and there are {most}", f"set pool.max_size to {needed}")
        else:
            yield Finding("ok", f"{what}: {needed} of its {most} connections (pool.max_size) carry that")


def _services(settings: Settings) -> Iterator[tuple[str, str]]:
    """The services that have a pool, and the stage in which each is waited for."""
    if settings.generation.generator != "extractive":
        yield "the language model", "generate"
    if settings.embedding.runtime == "openai":
        yield "the embedding server", "embed"
    if settings.rerank.reranker == "endpoint":
        yield "the rerank server", "rerank"


def _measured(operations: Iterable[OperationStats], stage: str) -> tuple[float, float, int]:
    """How often a second, how long each in the mean, and how many were measured."""
    found = [operation.stages[stage] for operation in operations if stage in operation.stages]
    count = sum(each.count for each in found)
    total_s = sum(each.total_s for each in found)
    return sum(each.throughput_per_s for each in found), total_s / count if count else 0.0, count
