"""Where an answer ends that a client wants only so much of, whatever pieces it comes in."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ragline.server.routes.openai.telling import Cut

TEXTS = st.text("ab ", max_size=30)
STOPS = st.lists(st.text("ab ", min_size=1, max_size=4), max_size=3).map(tuple)


def words(text: str) -> int:
    return len(text.split())


def passed(pieces: list[str], cut: Cut) -> str:
    text = ""
    for piece in pieces:
        text += cut.feed(piece)
        if cut.reason:
            return text
    return text + cut.end()


@given(st.lists(TEXTS, max_size=12), STOPS)
def test_nothing_from_the_first_stop_on_is_passed_whatever_the_pieces(pieces: list[str], stops: tuple[str, ...]) -> None:
    whole = "".join(pieces)
    places = [whole.find(stop) for stop in stops if stop in whole]
    cut = Cut(None, stops, words)
    text = passed(pieces, cut)
    assert not any(stop in text for stop in stops)
    assert whole.startswith(text)
    if places:
        assert cut.reason == "stop" and len(text) >= min(places) - max(map(len, stops))
    else:
        assert (text, cut.reason) == (whole, "")


def test_what_may_be_the_beginning_of_a_stop_waits_until_that_is_known() -> None:
    cut = Cut(None, ("STOP",), words)
    assert [cut.feed(piece) for piece in ("one S", "T", "AR ST", "O", "P two")] == ["one ", "", "STAR ", "", ""]
    assert cut.reason == "stop" and cut.end() == "" and cut.feed("three") == ""
    cut = Cut(None, ("STOP",), words)
    assert cut.feed("one STO") + cut.end() == "one STO"


@given(st.lists(st.text("ab ", max_size=8), max_size=12), st.integers(1, 8))
def test_no_more_tokens_are_passed_than_wanted(pieces: list[str], longest: int) -> None:
    cut = Cut(longest, (), words)
    text = passed(pieces, cut)
    assert words(text) <= longest and "".join(pieces).startswith(text)
    assert cut.reason == "length" or text == "".join(pieces)


def test_an_answer_is_not_cut_in_the_middle_of_a_word() -> None:
    cut = Cut(2, (), lambda text: -(-len(text) // 4))
    assert (cut.feed("rotate every"), cut.reason) == ("rotate ", "length")
