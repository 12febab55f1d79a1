"""How fast do documents become searchable, where does the time go, and how much memory does it take?"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ragline.bench.machine import descendants, peak_resident_bytes, resident_bytes, usable_cores
from ragline.bench.processes import in_fresh_process
from ragline.bench.texts import Workload, read_sentences, write_text_files
from ragline.bench.timing import Spent, Stopwatch
from ragline.chunking.chunker import Chunker
from ragline.concurrency.workers import Workers
from ragline.embedding.onnx_runtime import OnnxEmbedder
from ragline.engine import Engine
from ragline.settings import Settings
from ragline.types import Document, IngestReport

DOCUMENTS = 1000
REPEATS = 3
"""Of each rate, with other documents each time; the median counts."""

MEMORY_TEXT_BYTES = 100 * 1000**2
MEMORY_FILE_BYTES = 1000**2
SAMPLE_S = 0.05


def measure_ingest(workload: Workload, settings: Settings) -> dict[str, Any]:
    """Chunks a second from `Document` to committed and searchable, on one core and on all; and where one core's time goes."""
    parts = [workload.documents[start : start + DOCUMENTS] for start in range(0, REPEATS * DOCUMENTS, DOCUMENTS)]
    return {
        "options": {"documents": DOCUMENTS, "repeats": REPEATS},
        "one_core": in_fresh_process(_rates, 1, parts, settings),
        "all_cores": {"cores": usable_cores(), **in_fresh_process(_rates, None, parts, settings)},
        "stages_on_one_core": in_fresh_process(_stages, 1, parts[0], settings),
    }


def _rates(parts: Sequence[Sequence[str]], settings: Settings) -> dict[str, Any]:
    return asyncio.run(_measure_rates(parts, settings))


async def _measure_rates(parts: Sequence[Sequence[str]], settings: Settings) -> dict[str, Any]:
    by_clock, by_cpu = [], []
    with tempfile.TemporaryDirectory(prefix="ragline-bench-") as folder:
        async with Engine.open(folder, settings=settings) as engine:
            await engine.ingest(Document("A text that wakes all parts up."), collection="warm-up")
            for number, texts in enumerate(parts):
                watch = Stopwatch()
                report = await engine.ingest([Document(text) for text in texts], collection=f"part {number}")
                spent = watch.stop()
                assert report.lag == 0 and report.added == len(texts)
                by_clock.append(report.chunks / spent.wall_s)
                by_cpu.append(report.chunks / spent.cpu_s)
    return {
        "chunks_per_s": statistics.median(by_clock),
        "chunks_per_cpu_s": statistics.median(by_cpu),
        "chunks_per_s_of_repeats": by_clock,
        "peak_mb": peak_resident_bytes() / 1000**2,
    }


def _stages(texts: Sequence[str], settings: Settings) -> dict[str, Any]:
    return asyncio.run(_measure_stages(texts, settings))


async def _measure_stages(texts: Sequence[str], settings: Settings) -> dict[str, Any]:
    """Seconds of chunking and of embedding alone, and of a whole ingest; what is left of that commits and indexes.

    Shares are of processor time.
    """
    workers = Workers("ragline-bench", 1)
    embedder = OnnxEmbedder.open(
        settings.embedding, settings.model_cache_dir(), lambda _: None, question_workers=workers, bulk_workers=workers
    )
    chunker = Chunker(
        embedder.tokenizer,
        max_tokens=min(settings.chunking.max_tokens, embedder.max_tokens),
        overlap_tokens=settings.chunking.overlap_tokens,
    )
    chunker.chunk(texts[0])
    watch = Stopwatch()
    chunks = [chunk for text in texts for chunk in chunker.chunk(text)]
    stages = {"chunk": watch.stop()}
    await embedder.embed_passages(chunks[:20])
    watch = Stopwatch()
    await embedder.embed_passages(chunks)
    stages["embed"] = watch.stop()
    await embedder.close()
    workers.close()
    with tempfile.TemporaryDirectory(prefix="ragline-bench-") as folder:
        async with Engine.open(folder, settings=settings) as engine:
            await engine.ingest(Document("A text that wakes all parts up."), collection="warm-up")
            watch = Stopwatch()
            await engine.ingest([Document(text) for text in texts])
            whole = watch.stop()
    stages["commit and index"] = Spent(
        whole.wall_s - sum(stage.wall_s for stage in stages.values()), whole.cpu_s - sum(stage.cpu_s for stage in stages.values())
    )
    return {
        "chunks": len(chunks),
        "whole": asdict(whole),
        **{name: {**asdict(stage), "share": stage.cpu_s / whole.cpu_s} for name, stage in stages.items()},
    }


def measure_ingest_memory(data: Path, settings: Settings) -> dict[str, Any]:
    """The most memory that the process and its parsers hold while they ingest a folder of plain text."""
    return {
        "options": {"text_bytes": MEMORY_TEXT_BYTES, "file_bytes": MEMORY_FILE_BYTES, "sample_s": SAMPLE_S},
        **in_fresh_process(_memory, None, data, settings),
    }


def _memory(data: Path, settings: Settings) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="ragline-bench-") as folder:
        texts = Path(folder, "texts")
        texts.mkdir()
        files = write_text_files(read_sentences(data), texts, total_bytes=MEMORY_TEXT_BYTES, file_bytes=MEMORY_FILE_BYTES)
        before = peak_resident_bytes()
        with _MemorySampler() as memory:
            watch = Stopwatch()
            report = asyncio.run(_ingest(texts, Path(folder, "data"), settings))
            spent = watch.stop()
    assert report.added == files and not report.failed
    return {
        "files": files,
        "chunks": report.chunks,
        "seconds": spent.wall_s,
        "before_mb": before / 1000**2,
        "peak_mb": peak_resident_bytes() / 1000**2,
        "peak_with_parsers_mb": memory.peak_bytes / 1000**2,
    }


async def _ingest(texts: Path, data_dir: Path, settings: Settings) -> IngestReport:
    async with Engine.open(data_dir, settings=settings) as engine:
        return await engine.ingest(texts)


class _MemorySampler:
    """The most that this process and all that it started were seen to hold together."""

    def __init__(self) -> None:
        self.peak_bytes = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> _MemorySampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._ended.wait(SAMPLE_S):
            self.peak_bytes = max(self.peak_bytes, resident_bytes([os.getpid(), *descendants(os.getpid())]))
