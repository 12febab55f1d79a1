"""The measurement of the semantic cache: pairs that are what they are labelled, figures that are right."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import pytest

from ragline.bench.evaluation import LabelledSet
from ragline.bench.semantic import Compared, best_cosine, figures, upper_bound
from ragline.bench.semantic_pairs import (
    NEAR_MISSES,
    PARAPHRASES,
    QuestionPair,
    labelled_pairs,
    only_typed_otherwise,
    pair_key,
    passage_pairs,
)
from ragline.types import Document

PASSAGE = "Nikola Tesla moved to New York in 1884. Thomas Edison hired him there for two years."
QUESTION = "Where did Nikola Tesla move in 1884 after two years?"


def compared(share: bool, cosine: float) -> Compared:
    return Compared(QuestionPair("a", "b", share, "kind", True), cosine, True, frozenset())


def test_every_rule_makes_the_same_question_each_time_or_none() -> None:
    for rule in (*PARAPHRASES.values(), *NEAR_MISSES.values()):
        assert rule(QUESTION, PASSAGE, random.Random(1)) == rule(QUESTION, PASSAGE, random.Random(1))


def test_near_misses_change_what_they_are_named_after() -> None:
    made = {kind: rule(QUESTION, PASSAGE, random.Random(1)) for kind, rule in NEAR_MISSES.items()}
    assert "1884" not in (made["other number"] or "") or " two " not in (made["other number"] or "")
    assert "Nikola Tesla" not in (made["other name"] or "Nikola Tesla") and made["other name"]
    assert " not " in (made["negated"] or "")
    assert not (made["other wh-word"] or "Where").startswith("Where")
    assert "before" in (made["opposite"] or "")


def test_no_paragraph_is_in_both_halves() -> None:
    documents = tuple(Document(f"{PASSAGE} {number}", id=f"p{number}") for number in range(40))
    queries = {f"q{number}": f"Where did Nikola Tesla move in {number}?" for number in range(80)}
    labelled = LabelledSet(documents, queries, {f"q{number}": {f"p{number % 40}": 1} for number in range(80)})
    pairs = passage_pairs(labelled, [frozenset(("q0", "q40"))])
    halves = [{pair.stored for pair in pairs if pair.held_out == half} for half in (False, True)]
    assert halves[0] and halves[1] and not halves[0] & halves[1]
    assert [(pair.stored, pair.asked) for pair in pairs if pair.kind == "other words"] == [(queries["q0"], queries["q40"])]
    assert sum(pair.kind == "same passage" for pair in pairs) == 39


def test_labelled_pairs_are_halved_by_chains_and_relabelled_where_judged(tmp_path: Path) -> None:
    rows = [{"text_a": f"What is {n}?", "text_b": f"What is {n + 1}?", "label": 0} for n in range(200) if n % 5 != 4]
    rows.append({"text_a": "What  is it?", "text_b": "what is it", "label": 0})
    with gzip.open(tmp_path / "pairs.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write("\n".join(map(json.dumps, rows)))
    pairs = labelled_pairs(tmp_path / "pairs.jsonl.gz", {pair_key("What is 1?", "What is 0?")})
    assert len(pairs) == len(rows) - 1
    assert [pair.stored for pair in pairs if pair.share] == ["What is 0?"]
    halves = [{text for pair in pairs if pair.held_out == half for text in (pair.stored, pair.asked)} for half in (False, True)]
    assert halves[0] and halves[1] and not halves[0] & halves[1]


def test_questions_that_differ_in_case_and_marks_alone_are_no_test() -> None:
    assert only_typed_otherwise("What is  it ?", "what is it")
    assert not only_typed_otherwise("What is it?", "What was it?")


@pytest.mark.parametrize(("wrong", "count", "bound"), [(0, 600, 0.00613), (1, 200, 0.02753), (5, 100, 0.11283), (3, 3, 1.0), (0, 0, 1.0)])
def test_the_interval_is_clopper_and_pearsons(wrong: int, count: int, bound: float) -> None:
    assert upper_bound(wrong, count) == pytest.approx(bound, abs=2e-5)


def test_the_best_cosine_serves_most_with_few_enough_wrong() -> None:
    pairs = [compared(True, 0.9)] * 150 + [compared(False, 0.95)] + [compared(True, 0.8)] * 60 + [compared(False, 0.7)] * 9
    best = best_cosine(pairs)
    assert (best["threshold"], best["right"], best["wrong"]) == (0.8, 210, 1)


def test_pairs_of_one_cosine_are_served_together_or_not_at_all() -> None:
    assert best_cosine([compared(True, 0.9)] * 9 + [compared(False, 0.9)])["right"] == 0


def test_figures_count_by_what_was_served() -> None:
    pair = QuestionPair("a", "b", False, "negated", True)
    served = Compared(pair, 0.9, True, frozenset({"cited found, same first", "any"}))
    got = figures([served, compared(True, 0.5)])
    assert (got["ragline"]["right"], got["ragline"]["wrong"], got["should_share"]) == (0, 1, 1)
    assert got["served_by_kind"] == {"negated": "1 of 1", "kind": "0 of 1"}
