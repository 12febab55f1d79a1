"""Answers under load: the sentences that share the question's words are quoted where there are some, else another generator answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from ragline.concurrency.workers import Workers
from ragline.conversation import standalone
from ragline.generation import selection
from ragline.generation.base import Generated, Generator
from ragline.generation.extractive import told
from ragline.generation.passages import Sentence, TakesApart, take_apart
from ragline.types import Citation, ScoredChunk, Turn

LOAD_EXTRACTIVE = "load_extractive"
"""Degraded, because it was asked for with less effort: the documents are quoted, and no language model was asked."""

LOAD_BY_WORDS = "load_by_words"
"""Degraded, because it was asked for with less effort: what is quoted was chosen by its words, and nothing compared by meaning."""

_EVIDENCE = 3
"""So many of the best pieces are looked at: each costs the taking apart of its sentences."""


class WordsFirst:
    """Quotes what answers by its words alone, for about 2 ms, a fraction of what comparing sentences by meaning costs, and says so.

    What it finds is nearly as often right as what is found by meaning; it finds less (docs/decisions/0015). Where it finds nothing,
    the other generator answers in full: so nobody is told that an answer was not found because there was a crowd.

    Args:
        otherwise: Answers where words alone find nothing. Stays the caller's to close.
        max_sentences: The most sentences that an answer quotes.
        workers: Where the words are compared. Stay the caller's to close.
        take_apart: Into sentences, by one that may keep what it made.
    """

    def __init__(self, otherwise: Generator, *, max_sentences: int, workers: Workers, take_apart: TakesApart = take_apart) -> None:
        self._otherwise = otherwise
        self._max_sentences = max_sentences
        self._workers = workers
        self._take_apart = take_apart
        self.shares_answers = otherwise.shares_answers
        self._word = LOAD_EXTRACTIVE if otherwise.shares_answers else LOAD_BY_WORDS  # not shared: the other quotes, too

    @property
    def fingerprint(self) -> str:
        """That of the other generator: answers of words alone are degraded, and not kept."""
        return self._otherwise.fingerprint

    async def generate(
        self, question: str, evidence: Sequence[ScoredChunk], history: Sequence[Turn] = ()
    ) -> AsyncIterator[str | Citation | Generated]:
        """See `Generator.generate`."""
        chosen = await self._workers.run(self._choose, standalone(question, history), evidence[:_EVIDENCE])
        if chosen:
            for piece in told(chosen, evidence, (self._word,)):
                yield piece
            return
        async for piece in self._otherwise.generate(question, evidence, history):
            yield piece

    async def close(self) -> None:
        """Holds nothing."""

    def _choose(self, question: str, evidence: Sequence[ScoredChunk]) -> list[Sentence]:
        plan = selection.plan(question, evidence, self._take_apart)
        return [] if plan is None else selection.choose_by_words(plan, max_sentences=self._max_sentences)
