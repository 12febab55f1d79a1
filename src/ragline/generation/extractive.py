"""Answers by quoting: the sentences of the evidence that answer best, word for word, each cited."""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import AsyncIterator, Iterator, Sequence

import numpy as np

from ragline.concurrency.workers import Workers, drive
from ragline.conversation import standalone
from ragline.embedding.base import Embedder
from ragline.generation import selection
from ragline.generation.base import Generated
from ragline.generation.passages import Sentence, TakesApart, is_list_item, take_apart
from ragline.types import Citation, Float32, ScoredChunk, Turn

VERSION = 2
"""Rises when the same evidence may give another answer."""

NOT_FOUND = "The answer was not found in the documents."

_TEXTS_PER_JOB = 4
"""Sentences embedded in one job: few, so that several cores share the work and other questions get in between."""

_UNRELATED = (
    "The library opens at nine in the morning.",
    "Volcanoes release gases from deep below the crust.",
    "She bought two tickets for the opera.",
    "Iron rusts when it meets water and air.",
    "The parliament passed a law on fishing quotas.",
    "My neighbour's dog barks at every bicycle.",
    "Add the flour slowly and stir until it is smooth.",
    "The patient's blood pressure returned to normal.",
)
"""Sentences with nothing in common: the cosine that a model gives them is its zero. Some models give 0.7."""


class ExtractiveGenerator:
    """Quotes the sentences that answer a question best, or says that none does.

    Whether an answer is found depends on the question and the texts of the evidence alone, and neither on scores of
    chunks nor on the rest of the collection.

    Args:
        embedder: Compares sentences with the question. Stays the caller's to close.
        max_sentences: The most sentences that an answer quotes; often one is enough.
        workers: Where the words are compared. Stay the caller's to close.
        take_apart: Into sentences, by one that may keep what it made.
    """

    shares_answers = False

    def __init__(self, embedder: Embedder, *, max_sentences: int, workers: Workers, take_apart: TakesApart = take_apart) -> None:
        self._embedder = embedder
        self._max_sentences = max_sentences
        self._workers = workers
        self._take_apart = take_apart
        self._unrelated: float | None = None

    @property
    def fingerprint(self) -> str:
        """Version, settings and embedding model."""
        model = hashlib.sha256(self._embedder.fingerprint.encode()).hexdigest()[:16]
        return f"extractive:{VERSION}:{self._max_sentences}:{model}"

    async def generate(
        self, question: str, evidence: Sequence[ScoredChunk], history: Sequence[Turn] = ()
    ) -> AsyncIterator[str | Citation | Generated]:
        """Yields each sentence, its marker and its citation in turn, then the whole. See `Generator.generate`.

        Sentences are chosen for the question with what it refers to.
        """
        chosen = await self._choose(standalone(question, history), evidence)
        if not chosen:
            yield NOT_FOUND
            yield Generated(NOT_FOUND, (), found=False)
            return
        for piece in told(chosen, evidence):
            yield piece

    async def close(self) -> None:
        """Holds nothing."""

    async def _choose(self, question: str, evidence: Sequence[ScoredChunk]) -> list[Sentence]:
        plan = await self._workers.run(selection.plan, question, evidence, self._take_apart)
        if plan is None:
            return []
        known: dict[str, Float32] = {}
        if not self._embedder.is_local:
            await self._learn(plan, known)  # a server is asked once
        first = plan.first
        chosen = await self._chosen(first, known)
        return chosen if chosen or first is plan else await self._chosen(plan, known)

    async def _chosen(self, plan: selection.Plan, known: dict[str, Float32]) -> list[Sentence]:
        """The sentences of a plan that answer; vectors that are not known yet are added to those that are."""
        if self._unrelated is None:
            self._unrelated = _mean_cosine(await self._embed(_UNRELATED))
        await self._learn(plan, known)
        vectors = np.stack([known[text] for text in plan.texts])
        return await self._workers.run(selection.choose, plan, vectors, unrelated=self._unrelated, max_sentences=self._max_sentences)

    async def _learn(self, plan: selection.Plan, known: dict[str, Float32]) -> None:
        if missing := [text for text in dict.fromkeys(plan.texts) if text not in known]:
            known.update(zip(missing, await self._embed(missing), strict=True))

    async def _embed(self, texts: Sequence[str]) -> Float32:
        """As questions, which have the right of way over ingest and are cut to the window: `(n, dimension)`."""
        if not self._embedder.is_local:
            return await self._embedder.embed_questions(texts)
        jobs = np.array_split(np.arange(len(texts)), math.ceil(len(texts) / _TEXTS_PER_JOB))
        return np.concatenate(await asyncio.gather(*(self._workers.run(self._embed_here, [texts[i] for i in job]) for job in jobs)))

    def _embed_here(self, texts: Sequence[str]) -> Float32:
        return drive(self._embedder.embed_questions(texts))


def told(
    chosen: Sequence[Sentence], evidence: Sequence[ScoredChunk], degraded: tuple[str, ...] = ()
) -> Iterator[str | Citation | Generated]:
    """Sentences of the evidence as an answer: each, its marker and its citation in turn, then the whole."""
    text, citations = "", list[Citation]()
    before: Sentence | None = None
    for run in _runs(chosen):
        for sentence in run:
            piece = _gap(before, sentence) + " ".join(sentence.text.split())
            text += piece
            yield piece
            before = sentence
        citations.append(_citation(evidence[run[0].chunk], run[0].start, run[-1].end))
        marker = f" [{len(citations)}]"
        text += marker
        yield marker
        yield citations[-1]
    yield Generated(text, tuple(citations), found=True, degraded=degraded)


def _mean_cosine(vectors: Float32) -> float:
    """Of all pairs of different vectors."""
    count = len(vectors)
    return float(((vectors @ vectors.T).sum() - count) / (count * (count - 1)))


def _runs(chosen: Sequence[Sentence]) -> list[list[Sentence]]:
    """Neighbours of one chunk together: they are quoted as one."""
    runs: list[list[Sentence]] = []
    for sentence in chosen:
        last = runs[-1][-1] if runs else None
        if last is not None and last.chunk == sentence.chunk and last.ordinal + 1 == sentence.ordinal:
            runs[-1].append(sentence)
        else:
            runs.append([sentence])
    return runs


def _gap(before: Sentence | None, sentence: Sentence) -> str:
    if before is None:
        return ""
    return "\n" if is_list_item(sentence) or is_list_item(before) else " "


def _citation(chunk: ScoredChunk, start: int, end: int) -> Citation:
    return Citation(
        chunk_id=chunk.chunk_id,
        document_id=chunk.document_id,
        document_version=chunk.document_version,
        start=chunk.start + start,
        end=chunk.start + end,
        quote=chunk.text[start:end],
        source=chunk.source,
        heading=chunk.heading,
        page=chunk.page,
    )
