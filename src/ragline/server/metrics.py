"""What Prometheus is told: of requests, of the engine, of its caches, queues and pools."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ragline.engine import Engine
from ragline.observe.performance import PerformanceMonitor
from ragline.observe.series import Series
from ragline.server.budgets import Budgets
from ragline.server.figures import Figures, key

UNMATCHED = "(none)"
"""The route of requests that fit none."""

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class RequestCounts:
    """Counts the requests of one process. For one event loop."""

    def __init__(self, budgets: Budgets) -> None:
        self._budgets = budgets
        self.in_flight = 0
        self._statuses: dict[tuple[str, str, int], int] = {}
        self._took: dict[tuple[str, str], Series] = {}

    def add(self, route: str, method: str, status: int, took_s: float) -> None:
        """One more that is over. Routes are templates, of which there are few; methods that nobody knows count as one."""
        if method not in _METHODS:
            method = "other"
        counted = route, method, status
        self._statuses[counted] = self._statuses.get(counted, 0) + 1
        series = self._took.get(counted[:2])
        if series is None:
            series = self._took[counted[:2]] = Series(1)
        series.add(took_s, True, 0.0)

    def figures(self) -> Figures:
        """What was counted."""
        figures = Figures(levels={key("ragline_http_requests_in_flight"): float(self.in_flight), key("ragline_workers"): 1.0})
        for (route, method, status), count in self._statuses.items():
            figures.counters[key("ragline_http_requests_total", route=route, method=method, status=str(status))] = count
        for (route, method), series in self._took.items():
            figures.histograms[key("ragline_http_request_duration_seconds", route=route, method=method)] = series.histogram()
        _add_budgets(figures, self._budgets)
        return figures


async def figures_of(engine: Engine, requests: RequestCounts) -> Figures:
    """The figures of this process."""
    figures = requests.figures()
    if engine.settings.monitoring.enabled:
        _add_operations(figures, engine.monitor)
    told = await engine.process_stats(times=False)
    _add_asking(figures, told)
    _add_embedding(figures, told["embedding"])
    for name, threads in told["threads"].items():
        figures.levels[key("ragline_worker_threads", work=name)] = threads["threads"]
        figures.levels[key("ragline_worker_queue_length", work=name)] = threads["waiting"]
    for name, state in told["servers"].items():
        figures.levels[key("ragline_circuits_open", server=name)] = float(state == "left alone")
    figures.peaks[key("ragline_index_lag_lsns")] = told["index"]["lag"]
    figures.levels[key("ragline_index_collections")] = told["index"]["collections"]
    figures.levels[key("ragline_indexers")] = float(told["index"]["indexer"])
    jobs = told["jobs"]  # of the store, the same for every process
    for state in ("queued", "running", "failed"):
        figures.peaks[key("ragline_jobs", state=state)] = jobs[state]
    figures.peaks[key("ragline_jobs_oldest_queued_seconds")] = jobs["oldest_queued_s"]
    figures.peaks[key("ragline_jobs_queued_bytes")] = jobs["queued_bytes"]
    _add_process(figures, told["process"])
    return figures


def _add_budgets(figures: Figures, budgets: Budgets) -> None:
    told = budgets.stats()
    for name, budget in told["budgets"].items():
        for level in ("in_flight", "waiting", "limit"):
            figures.levels[key(f"ragline_admission_{level}", budget=name)] = budget[level]
        for count in ("admitted", "refused"):
            figures.counters[key(f"ragline_admission_{count}_total", budget=name)] = budget[count]
        figures.peaks[key("ragline_admission_degradation_level", budget=name)] = budget["level"]
    figures.counters[key("ragline_rate_limited_total")] = told["rate_limited"]
    figures.histograms[key("ragline_refusal_duration_seconds")] = budgets.refusals.histogram()


def _add_operations(figures: Figures, monitor: PerformanceMonitor) -> None:
    for name, operation in monitor.operations().items():
        figures.counters[key("ragline_operations_total", operation=name)] = operation.whole.count
        figures.histograms[key("ragline_operation_duration_seconds", operation=name)] = operation.whole.histogram()
        for stage, series in operation.stages.items():
            figures.histograms[key("ragline_stage_duration_seconds", operation=name, stage=stage)] = series.histogram()
        for error, count in operation.errors.items():
            figures.counters[key("ragline_operation_errors_total", operation=name, error=error)] = count


def _add_asking(figures: Figures, told: Mapping[str, Any]) -> None:
    for known, count in told["searches"].items():
        figures.counters[key("ragline_searches_total", known=known)] = count
    for step, count in told["answers"].items():
        figures.counters[key("ragline_answers_total", step=step)] = count
    for kind, cache in told["caches"].items():
        for result, name in (("hit", "hits"), ("miss", "misses")):
            figures.counters[key("ragline_cache_lookups_total", cache=kind, result=result)] = cache[name]
        figures.counters[key("ragline_cache_evictions_total", cache=kind)] = cache["evictions"]
        figures.levels[key("ragline_cache_items", cache=kind)] = cache["items"]
        figures.levels[key("ragline_cache_bytes", cache=kind)] = cache["size_bytes"]


def _add_embedding(figures: Figures, embedders: Mapping[str, Mapping[str, Any]]) -> None:
    for each in embedders.values():  # models are not told apart: a collection's model is its tenant's affair
        of_these = Figures(levels={key("ragline_embedding_queue_length"): each["queue_length"]})
        of_these.counters[key("ragline_embedding_batches_total")] = each["batches"]
        for outcome in ("hits", "shared", "embedded", "refused", "dropped", "failed"):
            of_these.counters[key("ragline_embedding_texts_total", outcome=outcome)] = each[outcome]
        figures.add(of_these)


def _add_process(figures: Figures, process: Mapping[str, Any] | None) -> None:
    if process is None:
        return
    figures.counters[key("ragline_process_cpu_seconds_total")] = process["cpu_user_s"] + process["cpu_system_s"]
    if process["resident_bytes"] is not None:
        figures.levels[key("ragline_process_resident_memory_bytes")] = process["resident_bytes"]
