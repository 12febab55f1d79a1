"""Answers that were given before, and the three ways in which one may be given again.

An answer is a function of its question, its settings and its evidence. It is kept with a fingerprint of that evidence and
with the position of the log at which it was last known to hold:

1. same question, same position: nothing has changed, it holds (`current`);
2. same question, another position: it holds if a new search finds the same evidence (`revalidated`);
3. another question that means the same: it is given too if it holds now, the new question's own search finds all that it cites and
   has the same best hit, and no telling word differs (`alike`).

Nothing here searches: the caller does, and brings hits and fingerprint.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ragline.answers.telling import may_share
from ragline.caching.base import Cache, CacheStats
from ragline.observe.tally import Tally
from ragline.types import Answer, Float32, Scope, ScoredChunk

SIMILAR_COSINE = 0.8
"""Questions less alike than this are not compared word by word."""

ALIKE_AT_MOST = 32
"""Questions with one best hit that are remembered, the newest ones."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where the views of a search stood: log position and epoch of each collection, in the order of the search."""

    lsns: tuple[int, ...]
    epochs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """A question as the cache knows it.

    Attributes:
        scope: Whose it is; an answer from several collections is kept with the first.
        partition: Hash of all that an answer depends on beside question and evidence: collections, filter, retrieval, prompt
            and generator settings, models, the store's incarnation.
        question: Normalised.
    """

    scope: Scope
    partition: str
    question: str

    @property
    def key(self) -> str:
        """Of the answer to this very question."""
        return f"{self.partition}/{self.question}"


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer with what it was made from.

    Attributes:
        vector: Of the question, where there is one.
        fingerprint: Of the evidence: equal again, the generator would be given the same.
        position: Where it was last known to hold; None for nowhere, where its evidence was found by views that lagged behind.
        made_at: By the cache's clock; revalidation does not make it younger.
    """

    answer: Answer
    question: str
    vector: Float32 | None
    fingerprint: str
    position: Position | None
    made_at: float

    @property
    def cited(self) -> Iterator[tuple[str, int, int]]:
        """Collection, chunk and version of all that the answer cites."""
        collections = {hit.chunk_id: hit.collection for hit in self.answer.hits}
        return ((collections.get(each.chunk_id, ""), each.chunk_id, each.document_version) for each in self.answer.citations)


class AnswerCache:
    """Keeps answers, and gives back those that hold. Safe to use from many tasks.

    Args:
        answers, questions: Where answers, and the questions that have a best hit in common, are kept.
        max_age_s: Answers older than this are made anew even if their evidence is the same; None for no limit.
        tally: Counts by tenant how often each step served ("hit", "revalidated", "semantic"), and how often an answer that no
            longer held was kept back ("stale_prevented").
        clock: Seconds, never going back.
    """

    def __init__(
        self,
        answers: Cache[Kept],
        questions: Cache[tuple[str, ...]],
        *,
        max_age_s: float | None,
        tally: Tally | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._answers = answers
        self._questions = questions
        self._max_age_s = max_age_s
        self._clock = clock
        self._tally = tally if tally is not None else Tally()

    async def has(self, asked: Asked) -> bool:
        """Whether an answer to this question is kept, whether or not it still holds."""
        return await self._kept(asked) is not None

    async def current(self, asked: Asked, position: Position) -> Answer | None:
        """The answer to this question if nothing has changed since it was known to hold."""
        kept = await self._kept(asked)
        if kept is None or kept.position != position:
            return None
        self._tally.add(asked.scope.tenant, "hit")
        return kept.answer

    async def revalidated(self, asked: Asked, position: Position | None, fingerprint: str) -> Answer | None:
        """The answer to this question if its evidence is still the same; it is then known to hold at `position`.

        Args:
            position: Of the views that found the evidence; None where they lagged behind: that tells of no position.
        """
        kept = await self._kept(asked)
        if kept is None:
            return None
        if kept.fingerprint != fingerprint:
            self._tally.add(asked.scope.tenant, "stale_prevented")
            return None
        if position is not None:
            await self._set(asked, replace(kept, position=position))
        self._tally.add(asked.scope.tenant, "revalidated")
        return replace(kept.answer, cache="revalidated")

    async def alike(self, asked: Asked, position: Position, hits: Sequence[ScoredChunk], vector: Float32) -> Answer | None:
        """The answer to another question that asks the same, as far as this question's own hits bear it.

        It must hold for its own question at this very position; its citations must all be among the hits, in the same versions; and
        both questions must have the same best hit. Nothing is kept for this question: what is like it is looked for each time, so
        that meanings do not drift along a chain. Source: docs/decisions/0008, with what other rules served.

        Args:
            vector: Of this question, `(dimension,)`, unit length.
        """
        if not hits:
            return None
        found = {(hit.collection, hit.chunk_id, hit.document_version) for hit in hits}
        for question in await self._questions.get(asked.scope, _first_hit(asked, hits)) or ():
            kept = await self._kept(replace(asked, question=question))
            if (
                kept is not None
                and kept.position == position
                and kept.vector is not None
                and found.issuperset(kept.cited)
                and float(np.dot(kept.vector, vector)) >= SIMILAR_COSINE
                and may_share(asked.question, kept.question)
            ):
                self._tally.add(asked.scope.tenant, "semantic")
                return replace(kept.answer, cache="semantic")
        return None

    async def keep(self, asked: Asked, answer: Answer, position: Position | None, fingerprint: str, vector: Float32 | None = None) -> None:
        """Keeps an answer that was made in full, from views that stood at `position`; None where they lagged behind.

        With the question's vector, it may be given to questions that ask the same; "not found", which cites nothing, never is.
        """
        if not answer.citations or not answer.hits:
            vector = None
        await self._set(asked, Kept(replace(answer, cache="hit", lag=0), asked.question, vector, fingerprint, position, self._clock()))
        if vector is not None:
            key = _first_hit(asked, answer.hits)
            before = await self._questions.get(asked.scope, key) or ()
            others = [question for question in before if question != asked.question]
            await self._questions.set(asked.scope, key, (asked.question, *others)[:ALIKE_AT_MOST])

    @property
    def counters(self) -> dict[str, int]:
        """How often each step served or kept back, for all tenants; a step that never did is left out."""
        return self._tally.whole()

    def stats(self) -> CacheStats:
        """Lookups and size of the answers kept; a lookup that found one is a hit whether or not it still held."""
        return self._answers.stats()

    async def clear(self, scope: Scope | None = None) -> None:
        """Forgets all answers, or those of one scope."""
        await self._answers.clear(scope)
        await self._questions.clear(scope)

    async def _kept(self, asked: Asked) -> Kept | None:
        kept = await self._answers.get(asked.scope, asked.key)
        if kept is None or (self._max_age_s is not None and self._clock() - kept.made_at >= self._max_age_s):
            return None
        return kept

    async def _set(self, asked: Asked, kept: Kept) -> None:
        left_s = None if self._max_age_s is None else kept.made_at + self._max_age_s - self._clock()
        await self._answers.set(asked.scope, asked.key, kept, ttl_s=left_s)


def _first_hit(asked: Asked, hits: Sequence[ScoredChunk]) -> str:
    return f"{asked.partition}/{hits[0].collection}/{hits[0].chunk_id}"
