"""Measurements as Prometheus reads them.

Source: Prometheus' text-based exposition format, version 0.0.4, and its naming practices (base units, `_total`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate

from ragline.observe.process import cpu_s, resident_bytes
from ragline.observe.series import BUCKETS_S, Histogram

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labels = tuple[tuple[str, str], ...]

_UNUSABLE = re.compile(r"[^a-zA-Z0-9_]+")


def histogram_lines(name: str, help: str, histograms: Iterable[tuple[Labels, Histogram]]) -> Iterator[str]:
    """A family of durations; nothing where there are none."""
    for number, (labels, histogram) in enumerate(histograms):
        if not number:
            yield from _heading(name, help, "histogram")
        counts = list(accumulate(histogram.buckets))
        for end, count in zip((*map(str, BUCKETS_S), "+Inf"), counts, strict=True):
            yield _sample(f"{name}_bucket", (*labels, ("le", end)), count)
        yield _sample(f"{name}_sum", labels, histogram.total_s)
        yield _sample(f"{name}_count", labels, counts[-1])


def value_lines(name: str, help: str, kind: str, samples: Iterable[tuple[Labels, float]]) -> Iterator[str]:
    """A family of single values, `kind` gauge or counter; nothing where there are none."""
    for number, (labels, value) in enumerate(samples):
        if not number:
            yield from _heading(name, help, kind)
        yield _sample(name, labels, value)


def process_lines() -> Iterator[str]:
    """What this process takes."""
    resident = resident_bytes()
    if resident is not None:
        yield from value_lines("ragline_process_resident_memory_bytes", "Memory that the process holds.", "gauge", [((), resident)])
    spent_s = sum(cpu_s())
    yield from value_lines(
        "ragline_process_cpu_seconds_total", "Processor time of the process, user and system.", "counter", [((), spent_s)]
    )


def metric_names(names: Iterable[str], taken: Iterable[str] = ()) -> Mapping[str, str]:
    """A name that Prometheus takes for each name: `ragline_` before it, other signs as underscores.

    Two that would become one, or one of `taken`, are numbered from the second on, in their order.
    """
    used, found = set(taken), dict[str, str]()
    for name in names:
        plain = f"ragline_{_UNUSABLE.sub('_', name.strip()).strip('_') or 'metric'}"
        number, free = 1, plain
        while free in used:
            number += 1
            free = f"{plain}_{number}"
        used.add(free)
        found[name] = free
    return found


def _heading(name: str, help: str, kind: str) -> Iterator[str]:
    yield f"# HELP {name} {_escaped(help)}"
    yield f"# TYPE {name} {kind}"


def _sample(name: str, labels: Labels, value: float) -> str:
    shown = ",".join(f'{label}="{_quotable(text)}"' for label, text in labels)
    return f"{name}{{{shown}}} {_number(value)}" if shown else f"{name} {_number(value)}"


def _escaped(text: str) -> str:
    text = text.encode("utf-8", "replace").decode()  # lone surrogates cannot be sent
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _quotable(text: str) -> str:
    return _escaped(text).replace('"', '\\"')


def _number(value: float) -> str:
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "+Inf" if value > 0 else "-Inf"
    return repr(value)
