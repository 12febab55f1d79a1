"""From what a model writes to what a reader gets, however it is cut into pieces."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragline.generation.answer_text import AnswerText, FirstUse, says_not_found
from ragline.generation.extractive import NOT_FOUND
from ragline.generation.thinking import WithoutThinking


def told(*pieces: str, passages: int = 3, neutralise: bool = True) -> tuple[list[str | int], AnswerText]:
    """The texts joined, and the passages where they are first cited."""
    answer = AnswerText(passages, neutralise=neutralise)
    parts = [part for piece in pieces for part in answer.feed(piece)] + answer.end()
    joined: list[str | int] = []
    for part in parts:
        if isinstance(part, FirstUse):
            joined.append(part.passage)
        elif joined and isinstance(joined[-1], str):
            joined[-1] += part
        else:
            joined.append(part)
    assert "".join(part for part in parts if isinstance(part, str)) == answer.text
    return joined, answer


def test_citations_are_counted_on_in_the_order_of_their_first_use() -> None:
    assert told("Noon [3]. Daily [1]. Noon again [3].")[0] == ["Noon [1]", 2, ". Daily [2]", 0, ". Noon again [1]."]


def test_several_in_one_marker_become_markers_of_their_own() -> None:
    assert told("Both [2, 3].")[0] == ["Both [1]", 1, "[2]", 2, "."]


def test_what_was_not_sent_is_left_out_with_its_space_and_counted() -> None:
    joined, answer = told("Noon [9]. Daily [1, 7][0].")
    assert joined == ["Noon. Daily [1]", 0, "."]
    assert answer.dropped == 3


def test_a_left_out_marker_does_not_join_paragraphs() -> None:
    assert told("One.\n\n[9] Two.")[0] == ["One.\n\n Two."]


def test_white_space_at_either_end_is_left_out() -> None:
    assert told("\n  Yes", " \n", "no", "\n\n ")[0] == ["Yes \nno"]
    assert told("  \n ")[0] == []


def test_a_source_of_the_sentence_that_nothing_was_found_is_no_citation() -> None:
    joined, answer = told(f"**{NOT_FOUND}** [1]")
    assert joined == [f"**{NOT_FOUND}**"]
    assert says_not_found(answer.text) and answer.dropped == 0
    joined, answer = told(f"{NOT_FOUND} [1] But ferries are [2].")
    assert joined == [f"{NOT_FOUND}  But ferries are [1]", 1, "."]
    assert not says_not_found("The answer was found in the documents.")


def test_a_link_on_a_citation_becomes_a_citation_without_the_link() -> None:
    assert told("Noon [1](https://host).")[0] == ["Noon [1]", 0, " (https ://host)."]
    assert told("Noon.\n\n[1]: //host/x")[0] == ["Noon.\n\n[1]", 0, " : //host/x"]


def test_leaving_something_out_puts_no_link_together() -> None:
    for text in ("[a][9](https://host)", "[a]\u0000(//host)", "<\u001bimg src=x>", "h\u202ettps://host", "[a]\r(//host)"):
        assert not re.search(r"\]\(|<img|https:/", told(text)[0][0])  # type: ignore[arg-type]


def test_links_can_be_kept() -> None:
    assert told("[a](https://host) [1]", neutralise=False)[0] == ["[a](https://host) [1]", 0]


@pytest.mark.parametrize(
    ("written", "answer"),
    [
        ("<think>Hm [1].\n\nSo.</think>\n\nYes.", "Yes."),
        ("\n<think>\n</think>Yes.", "Yes."),
        ("<Thinking>Hm</THINKING> Yes.", "Yes."),
        ("<think>a</think>\n<think>b</think>Yes.", "Yes."),
        ("Yes.\n<think>more</think>\nNo.", "Yes.\n\nNo."),
        ("\n</think>\n\nYes.", "Yes."),
        ("<think>never ends", ""),
        ("<think>a < b </thin", ""),
        ("<thin", "< thin"),
        ("a <think> b", "a < think> b"),
        ("<thinker>", "< thinker>"),
    ],
)
def test_what_a_model_thinks_is_left_out(written: str, answer: str) -> None:
    assert told(written)[1].text == answer
    assert told(*written)[1].text == answer


def test_letters_that_become_two_in_lower_case_move_nothing() -> None:
    written = "<think>\u0130\u0130\u0130 evet</THINK>Evet [1]."
    assert told(written)[0] == told(*written)[0] == ["Evet [1]", 0, "."]


def test_characters_that_come_in_halves_are_joined_and_half_ones_are_replaced() -> None:
    assert told("a \ud83d", "\ude00 b")[0] == ["a \U0001f600 b"]
    assert told("a \ud83d b \ude00 [1", "]\ud83d")[0] == ["a \ufffd b \ufffd [1]", 0, "\ufffd"]
    assert told("\ud83d", "\ud83d", "\ude00", "")[0] == ["\ufffd\U0001f600"]


def test_an_answer_without_thinking_is_passed_on_at_once() -> None:
    stream = WithoutThinking()
    assert stream.feed("a < b") == "a < b"
    assert stream.feed("\n<") == "\n"
    assert stream.feed("b>") == "<b>"


PARTS = [
    *(
        "[",
        "]",
        "1",
        "2",
        "9",
        ",",
        "-",
        " ",
        "\n",
        "`",
        "```",
        "~",
        "~~~",
        "(",
        ")",
        ":",
        "/",
        "http",
        "<",
        "img",
        "www",
        ".",
        "a",
        "^",
        "#",
    ),
    *("<think>", "</think>", "think>", "\u2020", "\u3010", "\u3011", "source", "and", "data", NOT_FOUND[:-1], "[1]", "[2]", "x" * 90, "\r"),
]


@given(st.lists(st.sampled_from(PARTS), max_size=24).map("".join), st.data())
def test_any_cutting_gives_the_same(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=10)))
    places = [0, *cuts, len(text)]
    whole, one = told(text)
    pieces, many = told(*(text[start:end] for start, end in pairwise(places)))
    assert pieces == whole
    assert many.dropped == one.dropped


@given(st.text(), st.integers(0, 5))
def test_no_text_breaks_it(text: str, passages: int) -> None:
    assert told(text, passages=passages)[0] == told(*text, passages=passages)[0]


def test_a_long_answer_costs_time_in_proportion() -> None:
    # Each of these once was, or could be, quadratic; the suite's time-out is the judge.
    for text in ("[" * 50_000, "`" * 50_000, "[1" * 25_000, "<" * 50_000, "https:" * 10_000, " " * 200_000, "` [1] " * 5_000):
        told(*text)
