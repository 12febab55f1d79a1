"""Figures of a process for Prometheus, and their sum over several."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ragline.observe.prometheus import Labels, histogram_lines, value_lines
from ragline.observe.series import Histogram

Key = tuple[str, Labels]
"""The name of a family, and the labels of one of its series."""

HELP: Mapping[str, str] = {
    "ragline_http_requests_total": "Requests answered, by route, method and status.",
    "ragline_http_request_duration_seconds": "How long requests took, their bodies and streams included.",
    "ragline_http_requests_in_flight": "Requests under way.",
    "ragline_workers": "Processes that answer.",
    "ragline_operations_total": "Operations of the engine that ended, well or badly.",
    "ragline_operation_errors_total": "Operations that failed, by the kind of their error where it is known.",
    "ragline_operation_duration_seconds": "How long operations took.",
    "ragline_stage_duration_seconds": "How long the stages of operations took, their waits included.",
    "ragline_searches_total": "Searches: known (hit), joined one under way (shared), or done (miss).",
    "ragline_answers_total": "Answers by the step that served them; stale_prevented: kept back because the evidence had changed.",
    "ragline_cache_lookups_total": "Lookups by kind of cache and what came of them.",
    "ragline_cache_evictions_total": "Values let go for want of room.",
    "ragline_cache_items": "Values kept.",
    "ragline_cache_bytes": "What the values kept weigh, where they are weighed.",
    "ragline_embedding_texts_total": "Texts to embed, by what came of them.",
    "ragline_embedding_batches_total": "Calls of the embedder.",
    "ragline_embedding_queue_length": "Texts that wait for a batch.",
    "ragline_circuits_open": "Processes that leave a failing server alone for now, by what the server is for.",
    "ragline_worker_threads": "Threads that work, by what for.",
    "ragline_worker_queue_length": "Pieces of work that wait for a thread.",
    "ragline_index_lag_lsns": "How far the index of the collection furthest behind is behind the store.",
    "ragline_index_collections": "Collections whose index is in memory.",
    "ragline_indexers": "Processes that write the index: one, or none for a moment.",
    "ragline_jobs": "Jobs by state: waiting, under way, given up after all attempts.",
    "ragline_jobs_oldest_queued_seconds": "How long the oldest job that could begin now has waited.",
    "ragline_jobs_queued_bytes": "What the files of waiting jobs weigh.",
    "ragline_admission_in_flight": "Requests let in, by budget.",
    "ragline_admission_waiting": "Requests that wait to be let in, by budget.",
    "ragline_admission_limit": "Requests that may be in at once, by budget; it adapts.",
    "ragline_admission_admitted_total": "Requests let in, by budget.",
    "ragline_admission_refused_total": "Requests refused at the door, by budget.",
    "ragline_admission_degradation_level": "What is left out under load: 0 nothing, 1 reranking, 2 depth too, 3 the language model too.",
    "ragline_rate_limited_total": "Requests refused because their key sent too many.",
    "ragline_refusal_duration_seconds": "How long refusals took, from the reading of a request's head.",
    "ragline_process_resident_memory_bytes": "Memory that the processes hold.",
    "ragline_process_cpu_seconds_total": "Processor time of the processes, user and system.",
}
"""What each family is. Labels have few values, fixed by the program: no tenant, no document, no question is one."""


@dataclass(slots=True)
class Figures:
    """What can be added up over processes, and what cannot.

    Attributes:
        counters: Since the process began; those of a process that has ended still count.
        levels: How it is now: added up over the processes that live.
        peaks: How it is now, where the worst of the processes is what matters.
        histograms: Durations since the process began: how many fell into each bucket, and their sum in seconds.
    """

    counters: dict[Key, float] = field(default_factory=dict)
    levels: dict[Key, float] = field(default_factory=dict)
    peaks: dict[Key, float] = field(default_factory=dict)
    histograms: dict[Key, Histogram] = field(default_factory=dict)

    def add(self, other: Figures, *, alive: bool = True) -> None:
        """Adds another process's; of one that has ended, only what it counted."""
        for key, value in other.counters.items():
            self.counters[key] = self.counters.get(key, 0.0) + value
        for key, histogram in other.histograms.items():
            mine = self.histograms.get(key)
            if mine is not None and len(mine.buckets) == len(histogram.buckets):
                added = tuple(a + b for a, b in zip(mine.buckets, histogram.buckets, strict=True))
                histogram = Histogram(added, mine.total_s + histogram.total_s)
            self.histograms[key] = histogram
        if alive:
            for key, value in other.levels.items():
                self.levels[key] = self.levels.get(key, 0.0) + value
            for key, value in other.peaks.items():
                self.peaks[key] = max(self.peaks.get(key, value), value)

    def lines(self) -> Iterator[str]:
        """As Prometheus reads them, family by family."""
        for name, help in HELP.items():
            yield from value_lines(name, help, "counter", _of(self.counters, name))
            yield from value_lines(name, help, "gauge", _of({**self.levels, **self.peaks}, name))
            yield from histogram_lines(name, help, _of(self.histograms, name))

    def to_plain(self) -> dict[str, Any]:
        """As plain data, for a file."""
        histograms = [[*_plain(key), list(each.buckets), each.total_s] for key, each in self.histograms.items()]
        values = {name: [[*_plain(key), value] for key, value in getattr(self, name).items()] for name in ("counters", "levels", "peaks")}
        return {**values, "histograms": histograms}

    @classmethod
    def of_plain(cls, plain: Mapping[str, Any]) -> Figures:
        """Of the plain data of `to_plain`."""
        values = {name: {_key(each): float(each[2]) for each in plain[name]} for name in ("counters", "levels", "peaks")}
        histograms = {_key(each): Histogram(tuple(each[2]), float(each[3])) for each in plain["histograms"]}
        return cls(**values, histograms=histograms)


def key(name: str, **labels: str) -> Key:
    """The key of a series."""
    return name, tuple(labels.items())


def _plain(key: Key) -> tuple[str, list[list[str]]]:
    return key[0], [list(label) for label in key[1]]


def _key(plain: list[Any]) -> Key:
    return str(plain[0]), tuple((str(name), str(value)) for name, value in plain[1])


def _of(series: Mapping[Key, Any], name: str) -> Iterable[tuple[Labels, Any]]:
    return ((labels, value) for (family, labels), value in series.items() if family == name)
