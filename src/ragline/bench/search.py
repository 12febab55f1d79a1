"""How long does a question take, how much of that is the parts themselves, and how many at once?"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ragline.bench.processes import in_fresh_process
from ragline.bench.texts import Workload
from ragline.bench.timing import Stopwatch, latency
from ragline.concurrency.workers import drive
from ragline.embedding.base import Embedder
from ragline.engine import Engine
from ragline.engine.resources import Resources
from ragline.index.views import ScopeViews
from ragline.retrieval.fusion import convex
from ragline.settings import Settings
from ragline.storage.base import Store
from ragline.types import Document, Scope

DOCUMENTS = 5000
QUESTIONS = 300
WARM_UP = 20
CALLERS = 16
ROUNDS = 5
PARTS = ("embed", "dense", "lexical", "fuse", "fetch")


def measure_search(workload: Workload, settings: Settings) -> dict[str, Any]:
    """Times of `Engine.search` and of its parts, in turn in one run, different questions, nothing cached; on one core."""
    return {
        "options": {"documents": DOCUMENTS, "questions": QUESTIONS, "callers": CALLERS, "rounds": ROUNDS},
        "one_core": in_fresh_process(_search, 1, workload, settings),
    }


def _search(workload: Workload, settings: Settings) -> dict[str, Any]:
    return asyncio.run(_measure(workload, settings))


async def _measure(workload: Workload, settings: Settings) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="ragline-bench-") as folder:
        resources = Resources(settings.model_copy(update={"data_dir": Path(folder)}), lambda _: None)
        async with Engine(resources, settings.tenant) as engine:
            report = await engine.ingest([Document(text) for text in workload.documents[:DOCUMENTS]])
            assert report.lag == 0
            return {"chunks": report.chunks, **await _measure_engine(engine, resources, workload.questions[:QUESTIONS])}


async def _measure_engine(engine: Engine, resources: Resources, questions: Sequence[str]) -> dict[str, Any]:
    bare = await BareParts.of(resources)
    for question in questions[:WARM_UP]:
        await engine.search(f"warm-up: {question}")
        await bare.search(f"warm-up: {question}")
    spent, parts, timings, rates = [], defaultdict[str, list[float]](list), defaultdict[str, list[float]](list), []
    for start in range(ROUNDS):
        asked = questions[start::ROUNDS]
        for question in asked:
            watch = Stopwatch()
            result = await engine.search(question)
            spent.append(watch.stop())
            for stage, milliseconds in result.timings.items():
                timings[stage].append(milliseconds)
        for question in asked:
            for part, milliseconds in (await bare.search(question)).items():
                parts[part].append(milliseconds)
        rates.append(await _callers(engine, asked))
    bare_ms = {part: statistics.median(milliseconds) for part, milliseconds in parts.items()}
    found = latency(spent)
    return {
        "search": asdict(found),
        "stages_ms": {stage: statistics.median(milliseconds) for stage, milliseconds in timings.items()},
        "bare_parts_ms": bare_ms,
        "overhead_ms": found.p50_ms - bare_ms["sum"],
        "callers": {
            "questions_per_s": statistics.median(rate for rate, _ in rates),
            "questions_per_cpu_s": statistics.median(rate for _, rate in rates),
        },
    }


async def _callers(engine: Engine, questions: Sequence[str]) -> tuple[float, float]:
    """Questions a second, and a second of processor time, with `CALLERS` tasks that always have one under way."""
    waiting = list(questions)

    async def draw() -> None:
        while waiting:
            await engine.search(waiting.pop())

    watch = Stopwatch()
    await asyncio.gather(*(draw() for _ in range(CALLERS)))
    spent = watch.stop()
    return len(questions) / spent.wall_s, len(questions) / spent.cpu_s


class BareParts:
    """What a hybrid search cannot do without, in sequence on one thread: the floor under `Engine.search`."""

    def __init__(self, resources: Resources, scope: Scope, embedder: Embedder, views: ScopeViews) -> None:
        self._resources = resources
        self._scope = scope
        self._embedder = embedder
        self._views = views

    @classmethod
    async def of(cls, resources: Resources) -> BareParts:
        """The parts of an open engine's default collection."""
        scope = Scope(resources.settings.tenant, resources.settings.collection)
        views, _ = await resources.follower.views(scope, wait_s=resources.settings.index.wait_s)
        return cls(resources, scope, await resources.embedder_for(scope), views)

    async def search(self, question: str) -> dict[str, float]:
        """Milliseconds of each part, and their sum."""
        return await self._resources.question_workers.run(drive, self._timed(self._resources.store, question))

    async def _timed(self, store: Store, question: str) -> dict[str, float]:
        retrieval = self._resources.settings.retrieval
        assert self._views.dense is not None and self._views.lexical is not None
        clock = [time.perf_counter()]
        vector = (await self._embedder.embed_questions([question]))[0]
        clock.append(time.perf_counter())
        dense = self._views.dense.search(vector, retrieval.candidates)
        clock.append(time.perf_counter())
        lexical = self._views.lexical.search(question, retrieval.candidates)
        clock.append(time.perf_counter())
        fused = convex(dense, lexical, dense_weight=retrieval.dense_weight)
        clock.append(time.perf_counter())
        await store.fetch(self._scope, fused.rows[: retrieval.top_k].tolist())
        clock.append(time.perf_counter())
        spent = {part: 1000 * (end - start) for part, start, end in zip(PARTS, clock, clock[1:], strict=False)}
        return {**spent, "sum": sum(spent.values())}
