"""What a monitor knows, as values, as lines for people, and as Prometheus reads it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ragline.observe.process import ProcessUse
from ragline.observe.prometheus import Labels, histogram_lines, metric_names, process_lines, value_lines
from ragline.observe.series import Histogram, OperationStats, Series

_WHOLE, _STAGE = "ragline_operation_duration_seconds", "ragline_stage_duration_seconds"
_COUNT, _ERRORS = "ragline_operations_total", "ragline_operation_errors_total"
_TAKEN = (
    *(f"{name}{end}" for name in (_WHOLE, _STAGE) for end in ("", "_bucket", "_sum", "_count")),
    _COUNT,
    _ERRORS,
    "ragline_process_resident_memory_bytes",
    "ragline_process_cpu_seconds_total",
)


@dataclass(frozen=True, slots=True)
class MetricStats:
    """Values recorded under one name since the start, or the last reset."""

    count: int
    last: float
    min: float
    mean: float
    max: float


@dataclass(frozen=True, slots=True)
class PerformanceReport:
    """Everything that a monitor knows.

    Attributes:
        seconds: Since the start, or the last reset.
        process: What the process takes; None where that is not looked at.
        slowest: In detail only: the slowest requests, `{"operation", "request_id", "{stage}_ms"..., "total_ms"}`.
        profiles: In detail only: where functions under `profile_function` spend their time, as tables by name.
    """

    seconds: float
    operations: Mapping[str, OperationStats]
    metrics: Mapping[str, MetricStats]
    process: ProcessUse | None
    slowest: tuple[Mapping[str, Any], ...] = ()
    profiles: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        return asdict(self)


class Operation:
    """What is kept of an operation while running. Not safe for several threads."""

    __slots__ = ("errors", "stages", "whole")

    def __init__(self, window: int) -> None:
        self.whole = Series(window)
        self.stages: dict[str, Series] = {}
        self.errors: dict[str, int] = {}

    def copy(self) -> Operation:
        """The same as it is now, to look at while this one goes on."""
        copied = Operation(0)
        copied.whole, copied.errors = self.whole.copy(), dict(self.errors)
        copied.stages = {name: series.copy() for name, series in self.stages.items()}
        return copied

    def stats(self, now: float) -> OperationStats:
        """What is known of it and of its stages."""
        stages = {name: series.stats(now) for name, series in self.stages.items()}
        return replace(self.whole.stats(now), errors_by_kind=self.errors, stages=stages)


def summary(report: PerformanceReport) -> str:
    """The report for people: a line for each operation and metric."""
    lines = [f"{report.seconds:.0f} s"]
    if report.process is not None:
        resident, use = report.process.resident_bytes, report.process
        memory = f", {resident / 1024**2:.0f} MiB" if resident is not None else ""
        lines[0] += f"{memory}, {use.cpu_percent:.0f} % of a core"
    for name, stats in report.operations.items():
        lines.append(
            f"{name}: {stats.count} ({stats.throughput_per_s:.3g}/s, {100 * stats.success_rate:.4g} % good), "
            f"p50 {_ms(stats.p50_s)}, p95 {_ms(stats.p95_s)}, p99 {_ms(stats.p99_s)}"
        )
        if stats.stages:
            lines.append("  " + ", ".join(f"{stage} {_ms(each.p50_s)}" for stage, each in stats.stages.items()))
    lines += [f"{name}: {each.last:.6g} (mean {each.mean:.6g}, {each.min:.6g} to {each.max:.6g})" for name, each in report.metrics.items()]
    return "\n".join(lines)


def prometheus_lines(operations: Mapping[str, Operation], metrics: Mapping[str, float], *, process: bool) -> Iterator[str]:
    """The same as Prometheus reads it, line by line."""
    whole: list[tuple[Labels, Histogram]] = []
    stages: list[tuple[Labels, Histogram]] = []
    errors: list[tuple[Labels, float]] = []
    for name, operation in operations.items():
        labels = (("operation", name),)
        whole.append((labels, operation.whole.histogram()))
        stages += [((*labels, ("stage", stage)), series.histogram()) for stage, series in operation.stages.items()]
        errors += [((*labels, ("error", kind)), count) for kind, count in operation.errors.items()]
        unknown = operation.whole.errors - sum(operation.errors.values())
        if unknown:
            errors.append(((*labels, ("error", "")), unknown))
    counts: list[tuple[Labels, float]] = [((("operation", name),), operation.whole.count) for name, operation in operations.items()]
    yield from value_lines(_COUNT, "Operations that ended, well or badly.", "counter", counts)
    yield from histogram_lines(_WHOLE, "How long operations took.", whole)
    yield from histogram_lines(_STAGE, "How long the stages of operations took.", stages)
    yield from value_lines(_ERRORS, "Operations that failed, by the kind of their error where it is known.", "counter", errors)
    for name, shown in metric_names(metrics, _TAKEN).items():
        yield from value_lines(shown, f"The last value of {name}.", "gauge", [((), metrics[name])])
    if process:
        yield from process_lines()


def finite(value: Any) -> Any:
    """Plain data with None in the place of numbers that JSON does not know."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return value


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:,.0f} ms" if seconds >= 0.1 else f"{1000 * seconds:.3g} ms"
