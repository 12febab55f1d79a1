"""How often may one question be answered with another's answer, and how often is that wrong?

A pair counts as served where the words of its questions allow it (`may_share`), their cosine does, and their evidence agrees. Only
the half of the pairs that was set aside is measured.
"""

from __future__ import annotations

import asyncio
import json
import math
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources as package_files
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from ragline.answers.cache import SIMILAR_COSINE
from ragline.answers.telling import may_share
from ragline.bench.evaluation import load_labelled_set
from ragline.bench.semantic_pairs import QuestionPair, labelled_pairs, passage_pairs
from ragline.engine import Engine
from ragline.engine.resources import Resources
from ragline.errors import InputError
from ragline.settings import Settings
from ragline.types import Document, Float32, Scope

PASSAGES = "xquad_en"
LABELLED = "question_pairs/pairs.jsonl.gz"
HITS = 8
FREQUENT_QUESTIONS = 10_000
"""Of the labelled questions so many are the documents, as in a collection of frequent questions; a pair never finds itself there."""

WRONG_AT_MOST = 1 / 200
COSINES = (0.8, 0.9, 0.95, 0.98, 0.99)
BATCH = 256


@dataclass(frozen=True, slots=True)
class Evidence:
    """Ids of the hits of a question, best first, and of those that its answer cites."""

    hits: tuple[int, ...]
    cited: frozenset[int]


Rule: TypeAlias = Callable[[Evidence, Evidence], bool]
"""Whether the evidence of the stored question and of the one asked later agree."""


def _first(k: int) -> Rule:
    return lambda stored, asked: stored.hits[:k] == asked.hits[:k]


def _first_in_any_order(k: int) -> Rule:
    return lambda stored, asked: set(stored.hits[:k]) == set(asked.hits[:k])


RULES: Mapping[str, Rule] = {
    **{f"first {k} in order": _first(k) for k in (8, 5, 3, 2, 1)},
    **{f"first {k} in any order": _first_in_any_order(k) for k in (8, 5, 3)},
    "cited found": lambda stored, asked: stored.cited <= set(asked.hits),
    "cited found, same first": lambda stored, asked: stored.cited <= set(asked.hits) and stored.hits[:1] == asked.hits[:1],
    "any": lambda stored, asked: True,
}
CHOSEN = "cited found, same first"


@dataclass(frozen=True, slots=True)
class Compared:
    """A pair, and what speaks for sharing.

    Attributes:
        rules: Names of the `RULES` that hold; empty unless words and cosine allow it.
    """

    pair: QuestionPair
    cosine: float
    words: bool
    rules: frozenset[str]


def measure_semantic(data: Path, settings: Settings) -> dict[str, Any]:
    """Right and wrong answers served by ragline's rule, and by a cosine alone at its best threshold, on pairs that were set aside.

    The best threshold is chosen on those very pairs, which favours it. `wrong_at_most` is the upper end of the 95 % interval
    (Clopper and Pearson) of the share of wrong answers among those served.

    Raises:
        InputError: The folder, or the one above it, does not hold the questions.
    """
    compared = asyncio.run(compare(data, settings))
    sets = {name: figures(pairs) for name, pairs in compared.items()}
    return {
        "options": {"hits": HITS, "evidence": CHOSEN, "cosine": SIMILAR_COSINE},
        **sets,
        "all": figures([each for pairs in compared.values() for each in pairs]),
    }


async def compare(data: Path, settings: Settings, *, held_out: bool = True) -> dict[str, list[Compared]]:
    """All pairs of one half, by set."""
    judged = json.loads(package_files.files("ragline.bench").joinpath("judged_questions.json").read_text(encoding="utf-8"))
    labelled = load_labelled_set(_find(data, f"{PASSAGES}/corpus.jsonl").parent)
    on_passages = [pair for pair in passage_pairs(labelled, map(frozenset, judged[PASSAGES])) if pair.held_out == held_out]
    by_people = [pair for pair in labelled_pairs(_find(data, LABELLED), frozenset(judged["question_pairs"])) if pair.held_out == held_out]
    frequent = [Document(question, id=question) for question in _questions(by_people)[:FREQUENT_QUESTIONS]]
    return {
        "passages": await _compare(on_passages, labelled.documents, settings, answered=True),
        "labelled": await _compare(by_people, frequent, settings, answered=False),
    }


def _find(data: Path, name: str) -> Path:
    for folder in (data, *data.glob("*/"), data.resolve().parent):
        if (folder / name).is_file():
            return folder / name
    raise InputError(f"{data} holds no {name}", hint="name the folder that holds the labelled sets")


def _questions(pairs: Sequence[QuestionPair]) -> list[str]:
    return list(dict.fromkeys(question for pair in pairs for question in (pair.stored, pair.asked)))


async def _compare(pairs: Sequence[QuestionPair], documents: Sequence[Document], settings: Settings, *, answered: bool) -> list[Compared]:
    """Args:
    answered: The documents answer the questions. Else they are questions themselves: a pair's own count as not there,
        and the best hit as what is cited.
    """
    with tempfile.TemporaryDirectory(prefix="ragline-bench-") as folder:
        resources = Resources(settings.model_copy(update={"data_dir": Path(folder)}), lambda _: None)
        async with Engine(resources, settings.tenant) as engine:
            await engine.ingest(documents)
            vectors = await _vectors(resources, _questions(pairs))
            compared = []
            for pair in pairs:
                cosine = float(np.dot(vectors[pair.stored], vectors[pair.asked]))
                words = may_share(pair.stored, pair.asked)
                rules = frozenset[str]()
                if words and cosine >= SIMILAR_COSINE:
                    hidden = () if answered else (pair.stored, pair.asked)
                    stored, asked = [await _evidence(engine, question, hidden, answered) for question in (pair.stored, pair.asked)]
                    rules = frozenset(name for name, rule in RULES.items() if rule(stored, asked))
                compared.append(Compared(pair, cosine, words, rules))
            return compared


async def _vectors(resources: Resources, questions: Sequence[str]) -> dict[str, Float32]:
    embedder = await resources.embedder_for(Scope())
    batches = [await embedder.embed_questions(questions[start : start + BATCH]) for start in range(0, len(questions), BATCH)]
    return dict(zip(questions, np.concatenate(batches), strict=True))


async def _evidence(engine: Engine, question: str, hidden: Collection[str], answered: bool) -> Evidence:
    found = [hit for hit in await engine.search(question, top_k=HITS + len(hidden)) if hit.document_id not in hidden][:HITS]
    hits = tuple(hit.chunk_id for hit in found)
    if not answered:
        return Evidence(hits, frozenset(hits[:1]))
    return Evidence(hits, frozenset(citation.chunk_id for citation in (await engine.ask(question)).citations))


def figures(compared: Sequence[Compared]) -> dict[str, Any]:
    """What is served right and wrong: by ragline, by each rule for the evidence, by cosines."""
    served = [each for each in compared if CHOSEN in each.rules]
    kinds = Counter(each.pair.kind for each in compared)
    by_kind = Counter(each.pair.kind for each in served)
    return {
        "pairs": len(compared),
        "should_share": sum(each.pair.share for each in compared),
        "ragline": _counts(served),
        "by_evidence": {name: _counts([each for each in compared if name in each.rules]) for name in RULES},
        "served_by_kind": {kind: f"{by_kind[kind]} of {count}" for kind, count in kinds.items()},
        "best_cosine": best_cosine(compared),
        "cosine": {str(least): _counts([each for each in compared if each.cosine >= least]) for least in COSINES},
    }


def best_cosine(compared: Sequence[Compared]) -> dict[str, Any]:
    """The threshold that serves most right answers with at most `WRONG_AT_MOST` wrong among them."""
    ranked = sorted(compared, key=lambda each: -each.cosine)
    best = wrong = 0
    for count, each in enumerate(ranked, start=1):
        wrong += not each.pair.share
        if wrong <= WRONG_AT_MOST * count and (count == len(ranked) or ranked[count].cosine < each.cosine):
            best = count
    return {"threshold": ranked[best - 1].cosine if best else math.inf, **_counts(ranked[:best])}


def _counts(served: Sequence[Compared]) -> dict[str, float]:
    right = sum(each.pair.share for each in served)
    return {"right": right, "wrong": len(served) - right, "wrong_at_most": upper_bound(len(served) - right, len(served))}


def upper_bound(wrong: int, count: int, *, tail: float = 0.025) -> float:
    """The largest share at which so few of `count` come about with a probability of `tail`: Clopper and Pearson (1934)."""
    if wrong >= count:
        return 1.0
    low, high = wrong / count, 1.0
    while high - low > 1e-7:
        share = (low + high) / 2
        so_few = sum(
            math.exp(
                math.lgamma(count + 1)
                - math.lgamma(k + 1)
                - math.lgamma(count - k + 1)
                + k * math.log(share)
                + (count - k) * math.log1p(-share)
            )
            for k in range(wrong + 1)
        )
        low, high = (share, high) if so_few > tail else (low, share)
    return high
