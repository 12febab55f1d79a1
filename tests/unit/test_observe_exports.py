"""What a monitor exports is what others can read, whatever was recorded."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ragline.errors import InputError
from ragline.observe.performance import PerformanceMonitor
from ragline.observe.records import RequestRecord


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = list(text_string_to_metric_families(text))
    assert len({family.name for family in families}) == len(families)
    assert all(family.documentation and family.type in ("histogram", "counter", "gauge") for family in families)
    found = [((each.name, tuple(sorted(each.labels.items()))), each.value) for family in families for each in family.samples]
    assert len(dict(found)) == len(found), "a sample came twice"
    return dict(found)


def test_a_report_is_json_whatever_was_recorded() -> None:
    monitor = PerformanceMonitor()
    monitor.record("ask", 0.25)
    monitor.record_metric("odd", float("nan"))
    document = json.loads(monitor.export_metrics("json"), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert document["operations"]["ask"]["p50_s"] == 0.25 and document["metrics"]["odd"]["last"] is None
    assert document["process"]["cpu_user_s"] > 0


def test_prometheus_reads_what_is_exported() -> None:
    monitor = PerformanceMonitor()
    for seconds in (0.00005, 0.0001, 0.003, 0.3, 100.0):
        monitor.record("ask", seconds)
    record = RequestRecord("ask")
    record.mark("search")
    monitor.flush(record)
    monitor.record_error("ask", "ValueError")
    monitor.record("ask", 0.01, ok=False)
    monitor.record_metric("queue_length", 7)
    found = samples(monitor.export_metrics("prometheus"))
    ask = ("operation", "ask")
    name = "ragline_operation_duration_seconds"
    assert found[f"{name}_count", (ask,)] == 7
    assert found[f"{name}_sum", (ask,)] == pytest.approx(100.31315, abs=0.01)
    buckets = [(key[1], value) for key, value in found.items() if key[0] == f"{name}_bucket"]
    ends = {float(dict(labels)["le"]): value for labels, value in buckets}
    assert all(below <= above for below, above in pairwise(ends.values())) and list(ends) == sorted(ends)
    assert ends[60.0] == 6 and ends[float("inf")] == 7 and ends[0.0001] >= 2  # an upper end belongs to its bucket
    assert found["ragline_stage_duration_seconds_count", (ask, ("stage", "search"))] == 1
    assert found["ragline_operation_errors_total", (("error", "ValueError"), ask)] == 1
    assert found["ragline_operation_errors_total", (("error", ""), ask)] == 1
    assert found["ragline_queue_length", ()] == 7
    assert found["ragline_process_cpu_seconds_total", ()] > 0


def test_hostile_names_are_escaped_and_do_not_collide() -> None:
    monitor = PerformanceMonitor()
    names = ['a"} 1\nevil 2\n', "back\\slash", "\ud800", "ünïcode", "", "a b", "\\n"]
    for name in names:
        monitor.record(name, 0.001)
        monitor.record_error(name, name)
        monitor.record_metric(name, 1)
    for name in ("a-b", "a_b", "operation_duration_seconds_count", "process_cpu_seconds_total", "9", "evil\nmetric"):
        monitor.record_metric(name, 2)
    found = samples(monitor.export_metrics("prometheus"))
    operations = {dict(labels)["operation"] for name, labels in found if name == "ragline_operation_duration_seconds_count" and labels}
    assert operations == {name.replace("\ud800", "?") for name in names}
    for name in ("ragline_a_b", "ragline_a_b_2", "ragline_a_b_3", "ragline_operation_duration_seconds_count_2", "ragline_9"):
        assert (name, ()) in found
    assert not any(name == "evil" for name, _ in found)


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(InputError, match="unknown format"):
        PerformanceMonitor().export_metrics("xml")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="window"):
        PerformanceMonitor(window=0)


def test_without_latencies_operations_are_counted_still() -> None:
    monitor = PerformanceMonitor(track_latency=False, track_memory=False)
    monitor.record("ask", 1.0)
    monitor.record("ask", float("nan"))
    found = samples(monitor.export_metrics("prometheus"))
    assert found["ragline_operations_total", (("operation", "ask"),)] == 2
    assert not any("process" in name for name, _ in found)
