"""Which words of a passage are quoted for what an answer says."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ragline.generation.quoting import cited_sentence, supporting_span

KEYS = (
    "# Keys\n\nEach buoy signs its records with a key of its own. Keys rotate every ninety days. "
    "A lost key is revoked within one hour. The harbour office keeps no copy."
)


def quoted(sentence: str, passage: str = KEYS) -> str:
    start, end = supporting_span(sentence, passage)
    return passage[start:end]


def test_the_sentence_that_shares_most_words_is_quoted() -> None:
    assert quoted("The keys are rotated every ninety days") == "Keys rotate every ninety days."
    assert quoted("Lost keys get revoked in an hour") == "A lost key is revoked within one hour."


def test_a_neighbour_that_bears_out_the_rest_is_quoted_along() -> None:
    said = "Keys rotate every ninety days, and a lost key is revoked within one hour"
    assert quoted(said) == "Keys rotate every ninety days. A lost key is revoked within one hour."


def test_where_nothing_is_clear_the_whole_passage_is_quoted() -> None:
    assert quoted("Der Schlüssel wechselt vierteljährlich") == KEYS
    assert quoted("...") == KEYS
    assert quoted("keys", "Keys rotate") == "Keys rotate"


def test_the_cited_sentence_is_the_one_before_the_marker() -> None:
    assert cited_sentence("The ferry leaves at noon [2]. Keys rotate daily [1]") == "Keys rotate daily"
    assert cited_sentence("The ferry leaves at noon. Keys rotate daily. [1]") == "Keys rotate daily."
    assert cited_sentence("Two ways:\n- by ferry [1]\n- by air [2]") == "- by air"
    assert cited_sentence("") == cited_sentence("[1]") == ""


@given(st.text(max_size=60), st.text(max_size=200))
def test_any_span_lies_within_the_passage(sentence: str, passage: str) -> None:
    start, end = supporting_span(sentence, passage)
    assert 0 <= start <= end <= len(passage)
