"""How long does what take, how often does it fail, and what does the process take meanwhile?"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Literal, ParamSpec, TypeVar, overload

from ragline.errors import InputError
from ragline.observe.process import ProcessMeter, ProcessUse
from ragline.observe.profiling import Profiles
from ragline.observe.records import RequestRecord
from ragline.observe.reports import MetricStats, Operation, PerformanceReport, finite, prometheus_lines, summary
from ragline.observe.request_ids import request_id
from ragline.observe.series import OperationStats, Series
from ragline.observe.tracking import Tracked, decorated, profiled

P = ParamSpec("P")
R = TypeVar("R")

MOST_NAMES = 1000
"""Operations, stages of one, metrics, kinds of error: names beyond so many are counted together, as "other"."""

SLOWEST_KEPT = 10

log = logging.getLogger("ragline.monitoring")


class PerformanceMonitor:
    """Measures operations by name. Cheap enough for every request; safe for several threads and event loops.

    Examples:
        monitor = PerformanceMonitor()
        with monitor.track("parse"): ...
        async with monitor.track("fetch"): ...

        @monitor.track_operation("rank")
        async def rank(...): ...

        monitor.get_stats("parse").p95_s

    Args:
        window: Percentiles, throughput and success rate are of so many latest operations of each name.
        enabled: Whether anything is recorded.
        track_latency: Whether durations and stages are kept; without, operations and their errors are counted.
        track_memory: Whether reports and exports hold what the process takes.
        clock: Seconds, never going back.
    """

    def __init__(
        self,
        *,
        window: int = 1000,
        enabled: bool = True,
        track_latency: bool = True,
        track_memory: bool = True,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        if window < 1:
            raise InputError(f"a window of {window}", hint="use a number from 1 up")
        self.enabled = enabled
        self._window, self._track_latency, self._clock = window, track_latency, clock
        self._meter = ProcessMeter() if track_memory else None
        self._profiles = Profiles()
        self._detailed = False
        self._lock = threading.Lock()
        self.reset()

    # Recording.

    def track(self, name: str) -> Tracked:
        """Times a block: `with` or `async with`. A block ended by an error counts as failed, a cancelled one not at all."""
        return Tracked(self, name)

    def track_operation(self, name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Times every call of a function, with `async` or without, which stays what it is for its callers.

        Raises:
            InputError: It is a generator, which ends when its user likes.
        """

        def decorate(function: Callable[P, R]) -> Callable[P, R]:
            return decorated(function, lambda: self, name)

        return decorate

    def record(self, name: str, seconds: float, ok: bool = True) -> None:
        """Takes in an operation that was timed elsewhere."""
        self._record(name, seconds, ok, None)

    def record_error(self, name: str, error: BaseException | str) -> None:
        """Counts a failed operation that was not timed; what `track` saw fail is counted already."""
        self._record(name, math.nan, False, error if isinstance(error, str) else type(error).__name__)

    def record_metric(self, name: str, value: float) -> None:
        """Takes in a value of any kind, such as the length of a queue; end its name with the unit, as in `queue_bytes`."""
        if not self.enabled:
            return
        value = float(value)
        with self._lock:
            kept = self._metrics.get(name) or self._metrics.setdefault(
                self._named(name, self._metrics), [0.0, 0.0, math.inf, 0.0, -math.inf]
            )
            kept[:] = kept[0] + 1.0, value, min(kept[2], value), kept[3] + value, max(kept[4], value)

    def flush(self, record: RequestRecord, *, ok: bool = True, error: str | None = None) -> None:
        """Takes in a request that is over, with its stages; where it failed, `error` names the kind if it is known."""
        if not self.enabled:
            return
        now = self._clock()
        seconds = record.seconds() if self._track_latency else math.nan
        with self._lock:
            operation = self._operations.get(record.name) or self._new(record.name)
            operation.whole.add(seconds, ok, now)
            if error is not None:
                self._count_error(operation, error)
            if self._track_latency:
                known = operation.stages
                for stage, took in record.stages.items():
                    series = known.get(stage)
                    if series is None:
                        series = known.setdefault(self._named(stage, known), Series(self._window))
                    series.add(took, True, now)
            if self._detailed:
                self._slowest.append({"operation": record.name, "request_id": request_id(), **record.timings()})
                self._slowest.sort(key=lambda timings: -timings["total_ms"])
                del self._slowest[SLOWEST_KEPT:]

    # Looking.

    @overload
    def get_stats(self, name: str) -> OperationStats: ...
    @overload
    def get_stats(self, name: None = None) -> dict[str, OperationStats]: ...
    def get_stats(self, name: str | None = None) -> OperationStats | dict[str, OperationStats]:
        """What is known of one operation (all zero where it never ran), or of all by name."""
        now = self._clock()
        found = {each: operation.stats(now) for each, operation in self.operations(name).items()}
        return found if name is None else found.get(name, OperationStats())

    def get_report(self) -> PerformanceReport:
        """Everything that is known, as values."""
        operations = self.get_stats()
        with self._lock:
            metrics = {name: MetricStats(int(n), last, low, total / n, high) for name, (n, last, low, total, high) in self._metrics.items()}
            slowest = tuple(self._slowest)
        return PerformanceReport(
            seconds=self._clock() - self._started,
            operations=operations,
            metrics=metrics,
            process=self.process(),
            slowest=slowest,
            profiles={name: self._profiles.text(name) for name in self._profiles.names()},
        )

    def process(self) -> ProcessUse | None:
        """What the process takes; None where that is not looked at."""
        return self._meter.look() if self._meter is not None else None

    def get_summary(self) -> str:
        """The same for people: a line for each operation and metric."""
        return summary(self.get_report())

    def export_metrics(self, format: Literal["json", "prometheus"] = "json") -> str:
        """All measurements as a JSON document, or as Prometheus' text format 0.0.4 (`prometheus.CONTENT_TYPE`).

        Raises:
            InputError: An unknown format.
        """
        if format == "json":
            return json.dumps(finite(self.get_report().to_dict()), allow_nan=False)
        if format == "prometheus":
            with self._lock:
                last = {name: values[1] for name, values in self._metrics.items()}
            return "\n".join([*prometheus_lines(self.operations(), last, process=self._meter is not None), ""])
        raise InputError(f"unknown format {format!r}", hint='use "json" or "prometheus"')

    def operations(self, name: str | None = None) -> dict[str, Operation]:
        """What is kept of one operation, or of all by name, as copies.

        Nobody who records waits for one who looks: the lock is held for microseconds at a time.
        """
        with self._lock:
            names = list(self._operations) if name is None else [name]
        found = {}
        for each in names:
            with self._lock:
                if each in self._operations:
                    found[each] = self._operations[each].copy()
        return found

    def reset(self) -> None:
        """Forgets everything measured so far."""
        with self._lock:
            self._operations: dict[str, Operation] = {}
            self._metrics: dict[str, list[float]] = {}
            self._slowest: list[dict[str, Any]] = []
            self._profiles.clear()
            self._started = self._clock()

    def enable_detailed(self, on: bool = True) -> None:
        """Also keeps the ten slowest requests with their stages, and profiles what `profile_function` decorates.

        Meant for looking into something: profiled functions run about twice as long.
        """
        self._detailed = on

    @contextlib.asynccontextmanager
    async def reporting(self, interval_s: float) -> AsyncIterator[None]:
        """Writes a summary to the log `ragline.monitoring` at this interval, as long as the block lasts."""
        if not interval_s > 0:
            raise InputError(f"an interval of {interval_s} s", hint="use more than 0 seconds")
        task = asyncio.create_task(self._report_for_ever(interval_s))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def _report_for_ever(self, interval_s: float) -> None:
        while True:
            await asyncio.sleep(interval_s)
            if self.enabled and log.isEnabledFor(logging.INFO):
                report = await asyncio.to_thread(self.get_report)
                log.info("%s", summary(report), extra={"performance": finite(report.to_dict())})

    def _record(self, name: str, seconds: float, ok: bool, error: str | None) -> None:
        if not self.enabled:
            return
        if not 0.0 <= seconds < math.inf:
            seconds = 0.0 if seconds < 0 else math.nan  # a clock that was set back is no reason to fail
        if not self._track_latency:
            seconds = math.nan
        now = self._clock()
        with self._lock:
            operation = self._operations.get(name) or self._new(name)
            operation.whole.add(seconds, ok, now)
            if error is not None:
                self._count_error(operation, error)

    def _count_error(self, operation: Operation, error: str) -> None:
        kind = self._named(error, operation.errors)
        operation.errors[kind] = operation.errors.get(kind, 0) + 1

    def _new(self, name: str) -> Operation:
        return self._operations.setdefault(self._named(name, self._operations), Operation(self._window))

    def _named(self, name: str, known: Mapping[str, object]) -> str:
        return name if name in known or len(known) < MOST_NAMES else "other"


_default: PerformanceMonitor | None = None
_making = threading.Lock()


def get_performance_tracker() -> PerformanceMonitor:
    """This process's own monitor, made when first asked for."""
    global _default
    if _default is None:
        with _making:
            _default = _default or PerformanceMonitor()
    return _default


@overload
def track_performance(function: Callable[P, R]) -> Callable[P, R]: ...
@overload
def track_performance(function: str) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
def track_performance(function: Callable[P, R] | str) -> Callable[P, R] | Callable[[Callable[P, R]], Callable[P, R]]:
    """`track_operation` of this process's own monitor: under the name given, else under the function's.

    Examples:
        @track_performance
        def load(): ...                  # counted as "load"

        @track_performance("ranking")
        async def rank(): ...
    """
    if isinstance(function, str):
        return get_performance_tracker().track_operation(function)
    return decorated(function, get_performance_tracker, function.__qualname__)


def profile_function(function: Callable[P, R]) -> Callable[P, R]:
    """As `track_performance`, and once `enable_detailed` is on, also where its time goes: see `profiles` of the report.

    Of an `async` function its own steps are profiled, not what else runs on the loop while it waits.
    """
    return profiled(function, get_performance_tracker, function.__qualname__)
