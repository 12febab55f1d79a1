"""Which sentences answer a question, and whether any does. Kernels: the same evidence gives the same answer.

The figures behind every constant: docs/decisions/0003-extractive-answers.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ragline.chunking.sentences import sentence_spans
from ragline.generation import terms
from ragline.generation.passages import Sentence, TakesApart, introduces, is_list_item, quotable, take_apart
from ragline.types import Float32, ScoredChunk

MAX_EMBEDDED = 12
"""How many sentences are compared with the question by meaning. The rest share too few words with it."""

FIRST_LOOK = 4
"""So many of them are compared first. Where they answer, the rest is left: docs/decisions/0016-fewer-sentences-first.md."""

MAX_PARTS = 4
"""A question of several sentences is answered part by part, for at most so many."""

FOUND = 0.40
"""A sentence of this score answers. Of questions whose paragraph had been taken away, one in four still reaches it."""

FOUND_WITHOUT_NAME = 0.46
"""The same, where a name or a number of the question stands nowhere in the evidence."""

OTHER_WORDS = 0.15
"""A sentence that shares no words with the question answers it where its cosine alone exceeds `FOUND` by this,"""

STANDS_OUT = 0.2
"""and the median cosine of the sentences by this: a model that does not know the language finds all alike."""

CONTEXT_WEIGHT = 0.5
"""What a word counts that stands in the context of a sentence (heading, sentence before it) and not in itself."""

CLOSE = 0.1
"""Further sentences are quoted that score so near to the best."""

ADDS = 0.15
"""Further sentences are quoted that hold so large a share of the question's words which no sentence before them did,"""

NEARLY = 0.1
"""and whose score is short of an answer's by no more than this: they answer the rest of the question."""

SAME = 0.92
"""Two sentences of this cosine say the same."""

FOUND_BY_WORDS = 0.4
"""Where nothing is compared by meaning, a sentence that holds this share of the question's words answers it: docs/decisions/0015."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a question asks, and the sentences that may answer it.

    Attributes:
        parts: The whole question; where it has several sentences, each of them as well.
        quotable: Every sentence of the evidence, in order.
        sentences: Those that may answer, at most `MAX_EMBEDDED`, in the same order.
        contexts: What each is embedded with: the question it answers, or its heading.
        coverage: `(parts, sentences)`, the share of each part's words that a sentence covers with its context.
        own: `(parts, sentences, terms)` float32: what each term weighs that the sentence itself holds.
        bars: `(parts,)`, the score from which a part counts as answered.
        likelihood: `(sentences,)`, by words and by the rank of the chunk.
    """

    parts: tuple[str, ...]
    quotable: Sequence[Sentence]
    sentences: tuple[Sentence, ...]
    contexts: tuple[str, ...]
    coverage: Float32
    own: Float32
    bars: Float32
    likelihood: Float32

    @property
    def first(self) -> Plan:
        """Of the likeliest `FIRST_LOOK` sentences alone; the whole plan for a question of several parts, which may be answered anywhere."""
        if len(self.parts) > 1 or len(self.sentences) <= FIRST_LOOK:
            return self
        kept = np.sort(np.argsort(-self.likelihood, kind="stable")[:FIRST_LOOK])
        return replace(
            self,
            sentences=tuple(self.sentences[i] for i in kept),
            contexts=tuple(self.contexts[i] for i in kept),
            coverage=self.coverage[:, kept],
            own=self.own[:, kept],
            likelihood=self.likelihood[kept],
        )

    @property
    def texts(self) -> tuple[str, ...]:
        """What is to be embedded: the parts of the question, then the sentences."""
        return (*self.parts, *map(_embedded, self.sentences, self.contexts))


def plan(question: str, evidence: Sequence[ScoredChunk], take_apart: TakesApart = take_apart) -> Plan | None:
    """Finds what may answer a question; None where the evidence holds nothing to quote, or the question no word."""
    sentences = quotable(evidence, take_apart)
    asked = list(dict.fromkeys(terms.words(question)))
    if not sentences or not asked:
        return None
    parts = _parts(question)
    headings = [chunk.heading.rpartition(" > ")[2] for chunk in evidence]
    contexts = [sentence.context if sentence.asked else headings[sentence.chunk] for sentence in sentences]
    held = terms.hits(
        asked,
        [
            *(sentence.words for sentence in sentences),
            *(sentence.context_words for sentence in sentences),
            *(terms.words(chunk.heading) for chunk in evidence),
        ],
    )
    own, before, above = np.split(held, (len(sentences), 2 * len(sentences)))
    near = before | above[[sentence.chunk for sentence in sentences]]
    weights = terms.weights(asked, own)
    words_of = [frozenset(terms.words(part)) for part in parts]
    of_part = np.array([[term in part for term in asked] for part in words_of], np.float32) * weights
    shares = of_part / np.maximum(of_part.sum(axis=1, keepdims=True), 1e-9)
    coverage = shares @ np.maximum(own, CONTEXT_WEIGHT * near).T.astype(np.float32)
    nowhere = {term for term, seen in zip(asked, np.any(own | near, axis=0).tolist(), strict=True) if not seen}
    bars = np.array([FOUND_WITHOUT_NAME if terms.names(part) & nowhere else FOUND for part in parts], np.float32)
    # The likeliest by words and by their chunk's rank; a stable sort, so that ties go to the better chunk.
    ranks = 1.0 - np.array([sentence.chunk for sentence in sentences]) / len(evidence)
    likelihood = (coverage.max(axis=0) + ranks).astype(np.float32)
    kept = np.sort(np.argsort(-likelihood, kind="stable")[:MAX_EMBEDDED])
    return Plan(
        parts,
        sentences,
        tuple(sentences[i] for i in kept),
        tuple(contexts[i] for i in kept),
        coverage[:, kept],
        shares[:, None, :] * own[kept],
        bars,
        likelihood[kept],
    )


def choose(plan: Plan, vectors: Float32, *, unrelated: float, max_sentences: int) -> list[Sentence]:
    """The sentences that answer, in the order to be told; empty where none does.

    A sentence scores half by its words (`coverage`) and half by its meaning (cosine), or by its meaning alone where
    it says the same in other words. First comes the best of each
    part of the question, then what scores close to the best or covers words that nothing before it did, and a list
    after the sentence that announces it. Sentences of one chunk stand together, in its order.

    Args:
        plan: Of the question.
        vectors: `(parts + sentences, dimension)`, unit length, of `plan.texts`.
        unrelated: The model's mean cosine of sentences that have nothing in common: 0 on its scale from now on.
        max_sentences: At most so many.
    """
    asked, told = vectors[: len(plan.parts)], vectors[len(plan.parts) :]
    scores = _scores((asked @ told.T - unrelated) / (1.0 - unrelated), plan.coverage)
    return _answering(plan, scores, plan.bars, told @ told.T > SAME, max_sentences)


def choose_by_words(plan: Plan, *, max_sentences: int) -> list[Sentence]:
    """The same without vectors, at a fraction of the cost: a sentence scores by its words alone."""
    bars = np.full(len(plan.parts), FOUND_BY_WORDS, np.float32)
    return _answering(plan, plan.coverage, bars, np.eye(len(plan.sentences), dtype=np.bool_), max_sentences)


def _answering(plan: Plan, scores: Float32, bars: Float32, alike: terms.Hits, max_sentences: int) -> list[Sentence]:
    """The best sentences by `scores`, `(parts, sentences)`, of the parts in which one reaches the bar.

    Of two that are `alike`, `(sentences, sentences)`, one is taken; each is like itself.
    """
    answered = np.flatnonzero(scores.max(axis=1) >= bars)
    if not answered.size:
        return []
    chosen: list[int] = []
    # The whole question stands first among the parts; its sentences, where there are several, say more exactly what is asked.
    for part in answered[answered > 0] if (answered > 0).any() else answered:
        fit = np.where(scores[part] >= bars[part], scores[part], -np.inf)
        _append(chosen, int(np.argmax(fit)), alike)
    chosen = chosen[:max_sentences]
    best = scores[answered].max(axis=0)
    weakest = min(float(best[i]) for i in chosen)
    for i in np.argsort(-best, kind="stable").tolist():
        if len(chosen) == max_sentences:
            break
        if _adds(plan, scores, bars, answered, chosen, i) or best[i] >= weakest - CLOSE:
            _append(chosen, i, alike)
    return _in_telling_order(_with_lists([plan.sentences[i] for i in chosen], plan.quotable, max_sentences))


def _scores(cosines: Float32, coverage: Float32) -> Float32:
    """Of each sentence for each part: `(parts, sentences)`."""
    stands_out = cosines - np.median(cosines, axis=1, keepdims=True) >= STANDS_OUT
    scores: Float32 = np.maximum(0.5 * (cosines + coverage), np.where(stands_out, cosines - OTHER_WORDS, -1.0))
    return scores


def _parts(question: str) -> tuple[str, ...]:
    sentences = [question[start:end] for start, end in sentence_spans(question)]
    sentences = [sentence for sentence in sentences if terms.words(sentence)]
    return (question, *sentences[:MAX_PARTS]) if len(sentences) > 1 else (question,)


def _embedded(sentence: Sentence, context: str) -> str:
    return f"{context}\n{sentence.text}" if context else sentence.text


def _append(chosen: list[int], i: int, alike: terms.Hits) -> None:
    if not alike[i, chosen].any():
        chosen.append(i)


def _adds(plan: Plan, scores: Float32, bars: Float32, answered: NDArray[np.int64], chosen: list[int], i: int) -> bool:
    """Whether a sentence that nearly answers holds much of a part's words that no chosen sentence holds."""
    fresh = np.maximum(plan.own[answered, i] - plan.own[answered][:, chosen].max(axis=1), 0.0).sum(axis=1)
    return bool(((fresh >= ADDS) & (scores[answered, i] >= bars[answered] - NEARLY)).any())


def _with_lists(chosen: Sequence[Sentence], quotable: Sequence[Sentence], max_sentences: int) -> list[Sentence]:
    """The chosen sentences and, while there is room, the list items that follow one that announces them."""
    whole = list(chosen)
    for sentence in filter(introduces, chosen):
        for item in quotable[quotable.index(sentence) + 1 :]:
            if len(whole) >= max_sentences or item.chunk != sentence.chunk or item.context != sentence.text or not is_list_item(item):
                break
            if item not in whole:
                whole.append(item)
    return whole


def _in_telling_order(chosen: list[Sentence]) -> list[Sentence]:
    """Chunks in the order in which they were first chosen, their sentences as they stand in them."""
    first = {sentence.chunk: place for place, sentence in reversed(list(enumerate(chosen)))}
    return sorted(chosen, key=lambda sentence: (first[sentence.chunk], sentence.ordinal))
