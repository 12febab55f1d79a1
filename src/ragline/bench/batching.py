"""What do a cache and shared batches save? Of the local model, and of an embedding server with latency."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ragline.bench.machine import usable_cores
from ragline.bench.remote import DIMENSION, LATENCY_S, vector_server
from ragline.bench.timing import Latency, Spent, Stopwatch, latency, percentile
from ragline.concurrency.workers import Workers
from ragline.embedding.base import Embedder
from ragline.embedding.batch_embedder import BatchEmbedder
from ragline.embedding.onnx_runtime import OnnxEmbedder
from ragline.embedding.openai import OpenAIEmbedder
from ragline.settings import EmbeddingSettings, PoolSettings, Settings
from ragline.types import Float32

SHORT_TEXTS = 10
SHORT_WORDS = (4, 10)
ROUNDS = 60
CALLERS = 32
CALLS_EACH = 40
ONE_BY_ONE = 100


def measure_batching(sentences: Sequence[str], settings: Settings) -> dict[str, Any]:
    """Times of `SHORT_TEXTS` texts from the local model, new and seen before; rates and delays of `CALLERS` of a server.

    The server is on this machine, answers each request after `LATENCY_S`, and is asked through the real client.
    """
    short = [text for text in dict.fromkeys(sentences) if SHORT_WORDS[0] <= len(text.split()) <= SHORT_WORDS[1]]
    with vector_server(LATENCY_S) as address:
        remote = asyncio.run(_remote(address))
    return {
        "options": {
            "short_texts": SHORT_TEXTS,
            "short_words": list(SHORT_WORDS),
            "rounds": ROUNDS,
            "callers": CALLERS,
            "calls_each": CALLS_EACH,
            "latency_ms": LATENCY_S * 1000,
            "dimension": DIMENSION,
        },
        "local": asyncio.run(_local(short, settings)),
        "remote": remote,
    }


async def _local(short: Sequence[str], settings: Settings) -> dict[str, Any]:
    """Milliseconds of a call with ten texts. The embedder alone, then wrapped; the same texts again come from the cache."""
    questions, bulk = Workers("questions", usable_cores()), Workers("bulk", usable_cores(), nice=10)
    embedder = await questions.run(
        OnnxEmbedder.open, settings.embedding, settings.model_cache_dir(), lambda _: None, question_workers=questions, bulk_workers=bulk
    )
    sets = _sets(short)
    async with BatchEmbedder(embedder, workers=questions) as wrapper:
        await embedder.embed_questions(next(sets))
        spent: dict[str, list[Spent]] = {}
        for _ in range(ROUNDS):
            texts, others = next(sets), next(sets)
            calls: dict[str, tuple[Callable[[Sequence[str]], Awaitable[Float32]], Sequence[str]]] = {
                "embedder_alone": (embedder.embed_questions, texts),
                "questions_cold": (wrapper.embed_questions, texts),
                "questions_cached": (wrapper.embed_questions, texts),
                "passages_cold": (wrapper.embed_batch, others),
                "passages_cached": (wrapper.embed_batch, others),
            }
            for name, (call, given) in calls.items():
                watch = Stopwatch()
                await call(given)
                spent.setdefault(name, []).append(watch.stop())
        found = {name: {"p50_ms": of.p50_ms, "p95_ms": of.p95_ms, "cpu_p50_ms": of.cpu_p50_ms} for name, of in _latencies(spent)}
    questions.close()
    bulk.close()
    return found


def _latencies(spent: Mapping[str, Sequence[Spent]]) -> Iterator[tuple[str, Latency]]:
    yield from ((name, latency(each)) for name, each in spent.items())


async def _remote(address: str) -> dict[str, Any]:
    """Texts a second: one after the other, many callers each with requests of its own, and many callers that share them."""
    workers = Workers("questions", 2)
    settings = EmbeddingSettings(runtime="openai", model="bench", base_url=address)
    embedder = await workers.run(
        OpenAIEmbedder.open, settings, Path(), lambda _: None, pool=PoolSettings(), question_workers=workers, bulk_workers=workers
    )
    numbers = itertools.count()
    async with BatchEmbedder(embedder, cache_items=0, workers=workers) as wrapper:
        alone: list[float] = []
        started = time.perf_counter()
        for _ in range(ONE_BY_ONE):
            alone += await _calls(embedder, numbers, 1)
        one_by_one = ONE_BY_ONE / (time.perf_counter() - started)
        idle: list[float] = []
        for _ in range(ONE_BY_ONE):
            idle += await _calls(wrapper, numbers, 1)
        unshared, _ = await _together(embedder, numbers)
        shared, waits = await _together(wrapper, numbers)
        stats = wrapper.get_stats()
    workers.close()
    usual = percentile(alone, 50)
    return {
        "texts_per_s": {"one_by_one": one_by_one, "callers_unshared": unshared, "callers_shared": shared},
        "shared_over_one_by_one": shared / one_by_one,
        "shared_over_unshared": shared / unshared,
        "added_delay_ms": {name: 1000 * (percentile(waits, share) - usual) for name, share in (("p50", 50), ("p95", 95), ("p99", 99))},
        "added_when_idle_ms": 1000 * (percentile(idle, 50) - usual),
        "average_batch_size_of_callers": CALLERS * CALLS_EACH / max(1, stats.batches - ONE_BY_ONE),
    }


async def _together(embedder: Embedder, numbers: Iterator[int]) -> tuple[float, list[float]]:
    """Texts a second of `CALLERS` at once, and the seconds of each call."""
    started = time.perf_counter()
    waits = await asyncio.gather(*(_calls(embedder, numbers, CALLS_EACH) for _ in range(CALLERS)))
    return CALLERS * CALLS_EACH / (time.perf_counter() - started), list(itertools.chain.from_iterable(waits))


async def _calls(embedder: Embedder, numbers: Iterator[int], count: int) -> list[float]:
    """The seconds of each of so many calls, one after the other, of a question each."""
    taken = []
    for _ in range(count):
        started = time.perf_counter()
        await embedder.embed_questions([f"question number {next(numbers)}"])
        taken.append(time.perf_counter() - started)
    return taken


def _sets(short: Sequence[str]) -> Iterator[list[str]]:
    """Ten texts at a time, none seen before: where the data has too few, with a number."""
    for turn in itertools.count():
        for start in range(0, len(short) - SHORT_TEXTS + 1, SHORT_TEXTS):
            yield [f"{text} {turn}" if turn else text for text in short[start : start + SHORT_TEXTS]]
