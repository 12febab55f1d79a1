"""What does an answer cost that is known already, what does measuring it cost, and what do its timings leave unexplained?"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ragline.bench.processes import in_fresh_process
from ragline.bench.texts import Workload
from ragline.bench.timing import Spent, Stopwatch, latency
from ragline.engine import Engine
from ragline.engine.measuring import Measured
from ragline.generation.base import Generated
from ragline.observe.performance import PerformanceMonitor
from ragline.settings import CacheSettings, Settings
from ragline.types import Answer, Citation, Document, ScoredChunk, Turn

DOCUMENTS = 1000
QUESTIONS = 100
AGAIN = 20
SETTLED = 2000
MEASURED = 20_000


class Quoter:
    """Stands in for a language model that takes no time: cites the best hit."""

    shares_answers = True
    fingerprint = "bench"

    async def generate(
        self, question: str, evidence: Sequence[ScoredChunk], history: Sequence[Turn] = ()
    ) -> AsyncIterator[str | Citation | Generated]:
        """One piece of text, one citation."""
        best = evidence[0]
        cited = Citation(best.chunk_id, best.document_id, best.document_version, best.start, best.end, best.text, best.source)
        yield best.text
        yield cited
        yield Generated(best.text, (cited,), found=True)

    async def close(self) -> None:
        """Holds nothing."""


def measure_asking(workload: Workload, settings: Settings) -> dict[str, Any]:
    """Milliseconds of `Engine.ask` by the step that served it, over `DOCUMENTS` documents, by a generator that takes no time.

    `hit` is asked right after a new answer and a commit, while the views still follow it; `settled` is the same over and over, when
    nothing else goes on. `monitor_us` is what measuring a request costs; `handover_share` the share of a new answer's time that passes
    between tasks and threads, and that no other stage names.
    """
    return {
        "options": {"documents": DOCUMENTS, "questions": QUESTIONS, "again": AGAIN},
        **in_fresh_process(_measured, 1, workload.documents[:DOCUMENTS], settings),
    }


def _measured(documents: Sequence[str], settings: Settings) -> dict[str, Any]:
    return asyncio.run(_measure(documents, settings))


async def _measure(documents: Sequence[str], settings: Settings) -> dict[str, Any]:
    settings = settings.model_copy(update={"cache": CacheSettings()})
    known = [Document(f"The vault of house {number} opens at {number} minutes past nine.", id=f"v{number}") for number in range(QUESTIONS)]
    spent: dict[str, list[Spent]] = {}
    left: list[float] = []
    with tempfile.TemporaryDirectory(prefix="ragline-bench-") as folder:
        async with Engine.open(folder, settings=settings, generator=Quoter()) as engine:
            await engine.ingest([*map(Document, documents), *known])
            await engine.ask("When does the harbour open?")
            for number in range(QUESTIONS):
                question = f"When does the vault of house {number} open?"
                fresh = await _ask(engine, question, spent)
                left.append(fresh.timings["handover_ms"] / fresh.timings["total_ms"])
                for _ in range(AGAIN):
                    await _ask(engine, question, spent)
                await _ask(engine, f"Please, when does the vault of house {number} open?", spent)
                await engine.ingest(Document(f"Something else happened on day {number}.", id="news"))
                await _ask(engine, question, spent)
            settled: dict[str, list[Spent]] = {}
            for _ in range(SETTLED):
                await _ask(engine, question, settled)
            spent["settled"] = settled["hit"]
    figures = {step: asdict(latency(each)) for step, each in spent.items()}
    costs = _monitor_us(fresh.timings)
    return {
        "ask_ms": figures,
        "handover_share": statistics.median(left),
        "monitor_us": costs,
        "monitor_share_of_uncached": costs["uncached"] / 1000 / figures["miss"]["p50_ms"],
    }


async def _ask(engine: Engine, question: str, spent: dict[str, list[Spent]]) -> Answer:
    """Asks, and keeps what it took under the step that served it."""
    watch = Stopwatch()
    answer = await engine.ask(question)
    took = watch.stop()
    spent.setdefault(answer.cache, []).append(took)
    return answer


def _monitor_us(timings: Mapping[str, float]) -> dict[str, float]:
    """Microseconds of recording a request: one served from the cache, and one with all its stages; the best of ten rounds."""
    monitor = PerformanceMonitor()
    parts = {stage: took for stage, took in timings.items() if stage not in ("cache_ms", "handover_ms", "total_ms")}
    costs = {"cached": float("inf"), "uncached": float("inf")}
    for _ in range(10):
        started = time.perf_counter()
        for _ in range(MEASURED // 10):
            with Measured(monitor, "ask") as record:
                record.mark("cache")
        between = time.perf_counter()
        for _ in range(MEASURED // 10):
            with Measured(monitor, "ask") as record:
                record.mark("cache")
                record.mark("handover", parts)
        ended = time.perf_counter()
        for name, took_s in (("cached", between - started), ("uncached", ended - between)):
            costs[name] = min(costs[name], 1e6 * took_s / (MEASURED // 10))
    return costs
