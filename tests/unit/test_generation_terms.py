"""Words of questions in texts of any language."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragline.generation.terms import hits, names, weights, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("How often?", ["how", "often"]),
        ("sensor_serial: TW40-23954", ["sensor", "serial", "tw40", "23954"]),
        ("Straße", ["strasse"]),
        ("２０２４", ["2024"]),
        ("密钥轮换", ["密钥", "钥轮", "轮换"]),
        ("于2024年", ["于", "2024", "年"]),
        ("... --- !", []),
    ],
)
def test_words_are_split_and_folded(text: str, expected: list[str]) -> None:
    assert words(text) == expected


@pytest.mark.parametrize(
    ("term", "word", "same"),
    [
        ("rotate", "rotated", True),
        ("rotated", "rotation", True),
        ("keys", "key", True),
        ("now", "nowhere", False),
        ("an", "and", False),
        ("contract", "contrary", True),  # the price of knowing no language
        ("schlüssel", "schlüssels", True),
        ("inter", "international", False),
        ("10000", "10001", False),
        ("e09", "e091", False),
    ],
)
def test_words_that_begin_alike_are_one(term: str, word: str, same: bool) -> None:
    assert hits([term], [[word]]).tolist() == [[same]]


def test_hits_say_which_term_stands_in_which_text() -> None:
    found = hits(["keys", "rotate"], [["keys", "are", "rotated"], ["ferry"], ["keys"]])
    assert found.tolist() == [[True, True], [False, False], [True, False]]


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("How often did Petrel leave in 2024?", {"petrel", "2024"}),
        ("What does E09 mean?", {"e09"}),
        ("What is our plan?", set()),
        ("WHO OWNS THE TW40?", {"tw40"}),
        ("What do I need?", set()),
        ("潮位在2024年是多少？", {"2024"}),
    ],
)
def test_names_are_numbers_and_capitalised_words(question: str, expected: set[str]) -> None:
    assert names(question) == expected


def test_rare_long_words_and_numbers_weigh_more() -> None:
    terms = ["the", "architecture", "harbour", "9"]
    found = np.array([[True, False, True, False]] * 3 + [[True, False, False, False]] * 3)
    the, architecture, harbour, nine = weights(terms, found).tolist()
    assert the < harbour < architecture == nine


@given(st.lists(st.text(min_size=1), unique=True, max_size=5), st.lists(st.text(), max_size=4))
def test_every_text_can_be_compared(questions: list[str], texts: list[str]) -> None:
    terms = list(dict.fromkeys(word for question in questions for word in words(question)))
    found = hits(terms, [words(text) for text in texts])
    assert found.shape == (len(texts), len(terms))
    assert (weights(terms, found) > 0).all()
    assert hits(terms, [terms]).all()  # every word is in itself
