"""How fast is the lexical view alone, where the texts are many?"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ragline.bench.processes import in_fresh_process
from ragline.bench.texts import passages
from ragline.bench.timing import Stopwatch, latency
from ragline.index.lexical import LexicalIndex
from ragline.settings import Settings

PASSAGES = 500_000
PASSAGE_WORDS = 60
QUESTIONS = 300
BATCH = 2048


def measure_lexical(sentences: Sequence[str], questions: Sequence[str], settings: Settings) -> dict[str, Any]:
    """Indexing rate, and search times for the fusion's candidates, over passages of real sentences; on one core."""
    options = {"passages": PASSAGES, "words_at_least": PASSAGE_WORDS, "questions": QUESTIONS, "top_k": settings.retrieval.candidates}
    return {"options": options, "one_core": in_fresh_process(_measure, 1, sentences, questions[:QUESTIONS], settings)}


def _measure(sentences: Sequence[str], questions: Sequence[str], settings: Settings) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="ragline-bench-") as folder:
        index = LexicalIndex.open(Path(folder, "lexical"), incarnation="bench", language=settings.index.language, writable=True)
        assert index is not None
        indexing_s = _fill(index, passages(sentences, PASSAGES, PASSAGE_WORDS))
        spent = []
        for question in questions:
            index.search(f"warm-up {question}", settings.retrieval.candidates)
        for question in questions:
            watch = Stopwatch()
            index.search(question, settings.retrieval.candidates)
            spent.append(watch.stop())
        size = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
        rows = index.count
        index.close()
    return {"rows": rows, "passages_per_s": rows / indexing_s, "bytes": size, "search": asdict(latency(spent))}


def _fill(index: LexicalIndex, texts: Iterator[str]) -> float:
    """Seconds that indexing took, the making of the texts left out."""
    seconds = 0.0
    row = 1
    while batch := list(islice(texts, BATCH)):
        watch = Stopwatch()
        index.apply(np.empty(0, np.int64), np.arange(row, row + len(batch), dtype=np.int64), batch)
        seconds += watch.stop().wall_s
        row += len(batch)
    watch = Stopwatch()
    index.commit(1)
    index.reload()
    return seconds + watch.stop().wall_s
