"""Many callers at once, a language model that takes its time, and a big ingest beside questions: does each still get its answer soon?"""

from __future__ import annotations

import asyncio
import itertools
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from ragline.bench.processes import in_fresh_process
from ragline.bench.texts import Workload
from ragline.bench.timing import percentile
from ragline.engine import Engine
from ragline.generation.base import Generated
from ragline.settings import Settings
from ragline.types import Citation, Document, ScoredChunk, Turn

DOCUMENTS = 1000
CALLERS = 32
QUESTIONS = 320
LLM_S = 0.05
LLM_QUESTIONS = 64
BESIDE = 400
IDLE = 200
LOOK_EVERY_S = 0.002
PAUSE_S = 0.02


class Slow:
    """Stands in for a language model that takes `LLM_S`."""

    shares_answers = True
    fingerprint = "bench"

    async def generate(
        self, question: str, evidence: Sequence[ScoredChunk], history: Sequence[Turn] = ()
    ) -> AsyncIterator[str | Citation | Generated]:
        """A word, after a while."""
        await asyncio.sleep(LLM_S)
        yield "Yes."
        yield Generated("Yes.", (), found=False)

    async def close(self) -> None:
        """Holds nothing."""


def measure_load(workload: Workload, settings: Settings) -> dict[str, Any]:
    """Rates and waits of `CALLERS` callers; of answers by a language model of `LLM_S`; of questions beside an ingest. On two cores.

    `loop_lag_ms` is how much later than asked the event loop wakes a task that looks every 2 ms.
    """
    return {
        "options": {"documents": DOCUMENTS, "callers": CALLERS, "questions": QUESTIONS, "llm_ms": 1000 * LLM_S, "beside": BESIDE},
        "callers": in_fresh_process(_run, 2, "callers", workload, settings),
        "language_model": in_fresh_process(_run, 2, "language_model", workload, settings),
        "beside_ingest": in_fresh_process(_run, 2, "beside_ingest", workload, settings),
    }


def _run(what: str, workload: Workload, settings: Settings) -> dict[str, Any]:
    measure = {"callers": _callers, "language_model": _language_model, "beside_ingest": _beside_ingest}[what]
    return asyncio.run(measure(workload, settings))


async def _callers(workload: Workload, settings: Settings) -> dict[str, Any]:
    """Searches, all different: one caller, then many."""
    with tempfile.TemporaryDirectory(prefix="ragline-bench-") as folder:
        async with Engine.open(folder, settings=settings) as engine:
            await engine.ingest([Document(text) for text in workload.documents[:DOCUMENTS]])
            questions = _different(workload)
            await _rate(engine, questions, 1, 40)
            one, _ = await _rate(engine, questions, 1, QUESTIONS // 4)
            many, waits = await _rate(engine, questions, CALLERS, QUESTIONS)
            again, _ = await _rate(engine, questions, 1, QUESTIONS // 4)
    p95_s = percentile(waits, 95)
    return {
        "one_per_s": max(one, again),
        "many_per_s": many,
        "many_over_one": many / max(one, again),
        "p95_ms": 1000 * p95_s,
        "p95_over_fair_share": p95_s / (CALLERS / many),
    }


async def _language_model(workload: Workload, settings: Settings) -> dict[str, Any]:
    """Answers, all different: one by one, then by `ask_many`."""
    with tempfile.TemporaryDirectory(prefix="ragline-bench-") as folder:
        async with Engine.open(folder, settings=settings, generator=Slow()) as engine:
            await engine.ingest([Document(text) for text in workload.documents[:100]])
            questions = _different(workload)
            await engine.ask(next(questions))
            started = time.perf_counter()
            for question in itertools.islice(questions, LLM_QUESTIONS):
                await engine.ask(question)
            one_by_one_s = time.perf_counter() - started
            started = time.perf_counter()
            await engine.ask_many(list(itertools.islice(questions, LLM_QUESTIONS)))
            together_s = time.perf_counter() - started
    return {
        "one_by_one_per_s": LLM_QUESTIONS / one_by_one_s,
        "together_per_s": LLM_QUESTIONS / together_s,
        "together_over_one_by_one": one_by_one_s / together_s,
    }


async def _beside_ingest(workload: Workload, settings: Settings) -> dict[str, Any]:
    """A question now and then: while nothing else is done, then while documents come in."""
    with tempfile.TemporaryDirectory(prefix="ragline-bench-") as folder:
        async with Engine.open(folder, settings=settings) as engine:
            await engine.ingest([Document(text) for text in workload.documents[:DOCUMENTS]])
            questions = _different(workload)
            ended = asyncio.Event()
            await _now_and_then(engine, questions, ended, 20)
            idle, idle_lags = await _now_and_then(engine, questions, ended, IDLE)
            coming = [Document(f"{number}. {workload.documents[number]}") for number in range(BESIDE)]
            ingesting = asyncio.create_task(engine.ingest(coming))
            ingesting.add_done_callback(lambda _: ended.set())
            busy, lags = await _now_and_then(engine, questions, ended, 100_000)
            report = await ingesting
    return {
        "ingested_per_s": report.chunks / report.seconds,
        "questions": {"idle": len(idle), "beside": len(busy)},
        "idle_p50_ms": 1000 * percentile(idle, 50),
        "idle_p95_ms": 1000 * percentile(idle, 95),
        "beside_p50_ms": 1000 * percentile(busy, 50),
        "beside_p95_ms": 1000 * percentile(busy, 95),
        "p95_over_idle": percentile(busy, 95) / percentile(idle, 95),
        "loop_lag_ms": {"idle_p99": 1000 * percentile(idle_lags, 99), "beside_p99": 1000 * percentile(lags, 99)},
    }


def _different(workload: Workload) -> itertools.chain[str]:
    """Questions without end, none like another."""
    return itertools.chain.from_iterable(
        (f"{question} ({turn})" if turn else question for question in workload.questions) for turn in itertools.count()
    )


async def _rate(engine: Engine, questions: itertools.chain[str], callers: int, count: int) -> tuple[float, list[float]]:
    """Searches a second, and the seconds of each."""
    asked = iter(list(itertools.islice(questions, count)))
    waits: list[float] = []

    async def draw() -> None:
        for question in asked:
            began = time.perf_counter()
            await engine.search(question)
            waits.append(time.perf_counter() - began)

    started = time.perf_counter()
    await asyncio.gather(*(draw() for _ in range(callers)))
    return count / (time.perf_counter() - started), waits


async def _now_and_then(
    engine: Engine, questions: itertools.chain[str], ended: asyncio.Event, most: int
) -> tuple[list[float], list[float]]:
    """The seconds of searches with pauses between them, and how late the loop was meanwhile; until the end, or so many."""
    lags: list[float] = []

    async def look() -> None:
        while True:
            due = time.perf_counter() + LOOK_EVERY_S
            await asyncio.sleep(LOOK_EVERY_S)
            lags.append(max(0.0, time.perf_counter() - due))

    looking = asyncio.create_task(look())
    waits: list[float] = []
    while len(waits) < most and not ended.is_set():
        began = time.perf_counter()
        await engine.search(next(questions))
        waits.append(time.perf_counter() - began)
        await asyncio.sleep(PAUSE_S)
    looking.cancel()
    return waits, lags
