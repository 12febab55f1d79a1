"""What a monitor measures, and how it shows it."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from ragline.caching.base import CacheStats
from ragline.concurrency.batch_stats import BatchStats
from ragline.errors import BackendError, InputError
from ragline.observe import performance
from ragline.observe.optimization import OptimizationMetrics
from ragline.observe.performance import (
    MOST_NAMES,
    SLOWEST_KEPT,
    PerformanceMonitor,
    get_performance_tracker,
    profile_function,
    track_performance,
)
from ragline.observe.process import ProcessMeter
from ragline.observe.records import RequestRecord
from ragline.observe.request_ids import request


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def default(monkeypatch: pytest.MonkeyPatch) -> PerformanceMonitor:
    monkeypatch.setattr(performance, "_default", None)
    return get_performance_tracker()


def test_percentiles_and_the_rest_are_those_of_the_window() -> None:
    clock = Clock()
    monitor = PerformanceMonitor(window=100, clock=clock)
    durations = np.random.default_rng(4).exponential(0.1, 250)
    for number, seconds in enumerate(durations):
        clock.now += 1
        monitor.record("search", float(seconds), ok=number % 10 != 0)
    stats, window = monitor.get_stats("search"), durations[-100:]
    assert (stats.count, stats.errors) == (250, 25)
    for found, expected in (
        (stats.total_s, durations.sum()),
        (stats.min_s, window.min()),
        (stats.mean_s, window.mean()),
        (stats.max_s, window.max()),
        (stats.p50_s, np.percentile(window, 50)),
        (stats.p95_s, np.percentile(window, 95)),
        (stats.p99_s, np.percentile(window, 99)),
        (stats.throughput_per_s, 100 / (99 + durations[150])),
    ):
        assert found == pytest.approx(expected)
    assert stats.success_rate == 0.9


def test_throughput_falls_while_nothing_comes() -> None:
    clock = Clock()
    monitor = PerformanceMonitor(clock=clock)
    for _ in range(10):
        clock.now += 1
        monitor.record("search", 1.0)
    assert monitor.get_stats("search").throughput_per_s == pytest.approx(1.0)
    clock.now += 90
    assert monitor.get_stats("search").throughput_per_s == pytest.approx(0.1)


def test_what_never_ran_has_no_numbers() -> None:
    stats = PerformanceMonitor().get_stats("nothing")
    assert stats.count == 0 and stats.p99_s == 0.0 and PerformanceMonitor().get_stats() == {}


async def test_blocks_and_functions_are_timed_with_await_and_without() -> None:
    monitor = PerformanceMonitor()

    @monitor.track_operation("add")
    def add(left: int, right: int = 2) -> int:
        """Adds."""
        return left + right

    @monitor.track_operation("wait")
    async def wait(value: str) -> str:
        await asyncio.sleep(0.01)
        return value

    with monitor.track("block"):
        await asyncio.sleep(0.01)
    async with monitor.track("block"):
        await asyncio.sleep(0.01)
    assert add(1) == 3 and await wait("x") == "x"
    assert str(inspect.signature(add)) == "(left: 'int', right: 'int' = 2) -> 'int'" and add.__doc__ == "Adds."
    assert inspect.iscoroutinefunction(wait) and not inspect.iscoroutinefunction(add)
    assert {name: stats.count for name, stats in monitor.get_stats().items()} == {"block": 2, "add": 1, "wait": 1}
    assert monitor.get_stats("block").min_s >= 0.009 and monitor.get_stats("wait").min_s >= 0.009


async def test_errors_are_counted_by_kind_and_pass_through_and_leaving_is_no_error() -> None:
    monitor = PerformanceMonitor()
    for error in (ValueError("x"), ValueError("y"), BackendError("z")):
        with pytest.raises(type(error)), monitor.track("load"):
            raise error
    monitor.record_error("load", TimeoutError())
    monitor.record_error("load", "refused")
    with monitor.track("load"):
        pass

    async def wait() -> None:
        async with monitor.track("load"):
            await asyncio.sleep(3600)

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    stats = monitor.get_stats("load")
    assert (stats.count, stats.errors) == (6, 5) and stats.success_rate == pytest.approx(1 / 6)
    assert stats.errors_by_kind == {"ValueError": 2, "BackendError": 1, "TimeoutError": 1, "refused": 1}


def test_generators_are_refused() -> None:
    def numbers() -> Iterator[int]:
        yield 1

    for decorate in (PerformanceMonitor().track_operation("numbers"), track_performance, profile_function):
        with pytest.raises(InputError, match="generator"):
            decorate(numbers)


def test_odd_durations_do_no_harm() -> None:
    monitor = PerformanceMonitor()
    for seconds in (-1.0, float("nan"), float("inf"), 2.0):
        monitor.record("odd", seconds)
    stats = monitor.get_stats("odd")
    assert stats.count == 4 and stats.max_s == 2.0 and stats.mean_s == 1.0 and stats.total_s == 2.0


def test_threads_lose_nothing() -> None:
    monitor = PerformanceMonitor(window=10)

    def work() -> None:
        for number in range(2000):
            monitor.record("work", 0.001, ok=number % 2 == 0)
            monitor.record_metric("queue", number)
            if number % 200 == 0:
                monitor.get_report()
                monitor.export_metrics("prometheus")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stats = monitor.get_stats("work")
    assert (stats.count, stats.errors) == (8000, 4000) and stats.total_s == pytest.approx(8.0)
    assert monitor.get_report().metrics["queue"].count == 8000


def test_names_without_end_are_counted_together() -> None:
    monitor = PerformanceMonitor(window=1)
    for number in range(MOST_NAMES + 50):
        monitor.record(f"question {number}", 0.001)
        monitor.record_metric(f"metric {number}", 1)
    assert len(monitor.get_stats()) == MOST_NAMES + 1 and monitor.get_stats("other").count == 50
    assert monitor.get_report().metrics["other"].count == 50


def test_a_monitor_that_is_off_keeps_nothing() -> None:
    monitor = PerformanceMonitor(enabled=False)
    with monitor.track("a"):
        pass
    monitor.record("b", 1.0)
    monitor.record_error("c", "x")
    monitor.record_metric("d", 1)
    monitor.flush(RequestRecord("e"))
    assert not monitor.get_stats() and not monitor.get_report().metrics


def test_without_latencies_operations_are_counted_and_no_more() -> None:
    monitor = PerformanceMonitor(track_latency=False, track_memory=False)
    record = RequestRecord("ask")
    record.mark("search")
    monitor.flush(record)
    monitor.record("ask", 1.0, ok=False)
    stats = monitor.get_stats("ask")
    assert (stats.count, stats.errors, stats.max_s, stats.stages) == (2, 1, 0.0, {})
    assert monitor.get_report().process is None


def test_reset_forgets() -> None:
    clock = Clock()
    monitor = PerformanceMonitor(clock=clock)
    monitor.record("a", 1.0)
    monitor.record_metric("b", 1.0)
    clock.now += 5
    monitor.reset()
    report = monitor.get_report()
    assert (report.operations, report.metrics, report.seconds) == ({}, {}, 0.0)


def test_stages_of_a_request_do_not_overlap_and_leave_nothing_out() -> None:
    clock = Clock()
    record = RequestRecord("ask", clock)
    for seconds, stage in ((0.25, "wait"), (0.5, "search"), (0.125, "wait"), (1.0, "generate")):
        clock.now += seconds
        record.mark(stage)
    clock.now += 1.0
    record.mark("queue", {"embed_ms": 500.0, "dense_ms": 250.0})
    assert record.stages == {"wait": 0.375, "search": 0.5, "generate": 1.0, "embed": 0.5, "dense": 0.25, "queue": 0.25}
    timings = record.timings()
    assert timings["total_ms"] == 2875.0 == sum(took for stage, took in timings.items() if stage != "total_ms")
    record.mark("queue", {"embed_ms": 1.0})  # by another clock, a little longer than the whole
    assert record.stages["queue"] == 0.25


def test_a_request_is_taken_in_with_its_stages() -> None:
    clock = Clock()
    monitor = PerformanceMonitor(clock=clock)
    for _ in range(3):
        record = RequestRecord("ask", clock)
        clock.now += 0.5
        record.mark("search")
        clock.now += 1.5
        record.mark("generate")
        monitor.flush(record, ok=False)
    stats = monitor.get_stats("ask")
    assert (stats.count, stats.errors, stats.p50_s) == (3, 3, 2.0)
    assert list(stats.stages) == ["search", "generate"] and stats.stages["generate"].p95_s == 1.5


async def test_a_summary_is_written_to_the_log_until_the_block_ends(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ragline.monitoring")
    monitor = PerformanceMonitor()
    monitor.record("ask", 0.25)
    monitor.record("ingest", 52.5)
    monitor.record_metric("queue", 3)
    async with monitor.reporting(0.01):
        for _ in range(500):
            if len(caplog.records) >= 2:
                break
            await asyncio.sleep(0.005)
    written = len(caplog.records)
    await asyncio.sleep(0.03)
    assert len(caplog.records) == written >= 2
    line = caplog.records[0]
    assert "ask: 1" in line.getMessage() and "p95 250 ms" in line.getMessage() and "queue: 3" in line.getMessage()
    assert "p95 52,500 ms" in line.getMessage()
    assert line.performance["operations"]["ask"]["count"] == 1  # type: ignore[attr-defined]
    with pytest.raises(InputError):
        async with monitor.reporting(0):
            pass


def test_in_detail_the_slowest_requests_are_kept() -> None:
    clock = Clock()
    monitor = PerformanceMonitor(clock=clock)

    def ask(seconds: float) -> None:
        record = RequestRecord("ask", clock)
        clock.now += seconds
        record.mark("search")
        monitor.flush(record)

    ask(1000)
    monitor.enable_detailed()
    for number in range(30):
        with request(f"r{number}"):
            ask(number + 1)
    slowest = monitor.get_report().slowest
    assert [each["request_id"] for each in slowest] == [f"r{number}" for number in range(29, 29 - SLOWEST_KEPT, -1)]
    assert slowest[0] == {"operation": "ask", "request_id": "r29", "search_ms": 30_000.0, "total_ms": 30_000.0}
    json.loads(monitor.export_metrics())


def test_there_is_one_monitor_for_the_process_and_decorators_for_it(default: PerformanceMonitor) -> None:
    assert get_performance_tracker() is default

    @track_performance
    def plain() -> int:
        return 1

    @track_performance("renamed")
    def named() -> int:
        return 2

    assert (plain(), named()) == (1, 2)
    assert [name.rpartition(".")[2] for name in default.get_stats()] == ["plain", "renamed"]


async def test_functions_are_profiled_in_detail_only(default: PerformanceMonitor) -> None:
    @profile_function
    def outer() -> int:
        return sum(inner(number) for number in range(10))

    def inner(number: int) -> int:
        return number

    @profile_function
    async def waiting() -> int:
        await asyncio.sleep(0.01)
        return outer_work()

    def outer_work() -> int:
        return inner(7)

    async def elsewhere() -> None:
        for _ in range(5):
            only_elsewhere()
            await asyncio.sleep(0.001)

    def only_elsewhere() -> None:
        pass

    assert outer() == 45 and default.get_report().profiles == {}
    default.enable_detailed()
    assert outer() == 45
    first, second, _ = await asyncio.gather(waiting(), waiting(), elsewhere())
    assert first == second == 7
    profiles = {name.rpartition(".")[2]: table for name, table in default.get_report().profiles.items()}
    assert "inner" in profiles["outer"] and "outer_work" in profiles["waiting"]
    assert "only_elsewhere" not in profiles["waiting"]
    assert default.get_stats(next(name for name in default.get_stats() if name.endswith("waiting"))).count == 2
    default.reset()
    assert default.get_report().profiles == {}


async def test_a_profiled_function_passes_errors_and_cancellation_on(default: PerformanceMonitor) -> None:
    default.enable_detailed()

    @profile_function
    async def failing() -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            raise ValueError("mine") from None

    task = asyncio.create_task(failing())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(ValueError, match="mine"):
        await task

    @profile_function
    def recursive(depth: int) -> int:
        return recursive(depth - 1) + 1 if depth else 0

    assert recursive(3) == 3


def test_a_process_tells_what_it_takes() -> None:
    meter = ProcessMeter()
    held = bytearray(64 * 1024**2)
    began = time.process_time()
    while time.process_time() - began < 0.05:
        pass
    use = meter.look()
    assert use.peak_bytes is not None and use.peak_bytes >= len(held)
    assert use.resident_bytes is None or use.resident_bytes >= len(held)
    assert use.cpu_user_s > 0 and use.cpu_percent > 0
    clock = Clock()
    still = ProcessMeter(clock)
    assert still.look().cpu_percent == 0.0  # no time has passed: no share of it


def test_optimizations_are_summed_up() -> None:
    caches = [CacheStats(hits=30, misses=10), CacheStats(hits=30, misses=10)]
    batchers = [BatchStats(batches=3, average_batch_size=31 / 3), BatchStats()]

    class Pool:
        acquired, reused = 20, 15

    metrics = OptimizationMetrics.of(caches, batchers, [Pool()], miss_s=0.5, hit_s=0.25)
    assert (metrics.cache_hits, metrics.cache_misses, metrics.cache_hit_rate) == (60, 20, 0.75)
    assert (metrics.batched_texts, metrics.batches, metrics.average_batch_size) == (31, 3, 31 / 3)
    assert (metrics.pool_reuse_rate, metrics.saved_s) == (0.75, 15.0)
    nothing = OptimizationMetrics.of()
    assert (nothing.cache_hit_rate, nothing.average_batch_size, nothing.pool_reuse_rate, nothing.saved_s) == (0.0, 0.0, 0.0, None)
