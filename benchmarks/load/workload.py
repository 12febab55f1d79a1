"""What is asked and what is searched: real sentences where a folder of texts is given, generated ones where not."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Sequence
from pathlib import Path

from ragline.bench.texts import SEED, Workload, make_workload, read_sentences
from ragline.embedding.models import DEFAULT_MODEL, locate_model
from ragline.embedding.tokenizer import ModelTokenizer
from ragline.engine import Engine
from ragline.settings import Settings
from ragline.types import Document

CHUNKS = 10_000
QUESTIONS = 8_000
_BATCH = 500


def prepare(store: Path, data: Path | None, chunks: int = CHUNKS) -> list[str]:
    """Fills a store with documents of one chunk each, unless it is filled, and gives the questions, all different."""
    questions = store / "questions.json"
    if not questions.exists():
        workload = _workload(data, chunks)
        asyncio.run(_ingest(store, workload.documents))
        questions.write_text(json.dumps(workload.questions), encoding="utf-8")
    asked: list[str] = json.loads(questions.read_text(encoding="utf-8"))
    return asked


def unique_text(number: int, sentences: Sequence[str]) -> str:
    """A text of one chunk that no other number gives."""
    draw = random.Random(SEED + number)
    return f"Note {number}. " + " ".join(draw.choice(sentences) for _ in range(6))


def large_text(number: int, sentences: Sequence[str], size_bytes: int) -> str:
    """A text of about so many bytes, of sentences in an order of its own."""
    draw = random.Random(SEED - number)
    parts, size = [f"File {number}."], 0
    while size < size_bytes:
        parts.append(draw.choice(sentences))
        size += len(parts[-1]) + 1
    return "\n".join(parts)


def _workload(data: Path | None, chunks: int) -> Workload:
    sentences = read_sentences(data) if data is not None else _generated()
    folder = locate_model(DEFAULT_MODEL, cache_dir=Settings().model_cache_dir(), announce=print).path
    tokenizer = ModelTokenizer(folder / "tokenizer.json")
    return make_workload(
        sentences, lambda text: len(tokenizer.spans([text])[0].ids), documents=chunks, questions=min(QUESTIONS, len(sentences) // 10)
    )


async def _ingest(store: Path, documents: Sequence[str]) -> None:
    async with Engine.open(settings=Settings(data_dir=store)) as engine:
        for at in range(0, len(documents), _BATCH):
            await engine.ingest([Document(text, id=f"d{at + n}") for n, text in enumerate(documents[at : at + _BATCH])])
            print(f"ingested {at + _BATCH:,} of {len(documents):,}", flush=True)


def _generated() -> list[str]:
    """Sentences of made-up words in the proportions of a natural language: enough for speed, not for quality."""
    draw = random.Random(SEED)
    syllables = [a + b for a in "bdfgklmnprstv" for b in "aeiou"]
    words = ["".join(draw.choice(syllables) for _ in range(draw.randint(1, 4))) for _ in range(20_000)]
    weights = [1 / (rank + 5) for rank in range(len(words))]
    return [" ".join(draw.choices(words, weights, k=draw.randint(7, 14))).capitalize() + "." for _ in range(100_000)]


if __name__ == "__main__":
    import sys

    prepare(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
