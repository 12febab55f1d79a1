"""Where sentences begin and end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragline.chunking.sentences import sentence_spans


def sentences(text: str) -> list[str]:
    return [text[start:end] for start, end in sentence_spans(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Keys rotate. Every day! Why? Because.", ["Keys rotate.", "Every day!", "Why?", "Because."]),
        ("Dr. Smith met Prof. Jones. They left.", ["Dr. Smith met Prof. Jones.", "They left."]),
        ("See Fig. 3 and No. 5 on pp. 7. Then stop.", ["See Fig. 3 and No. 5 on pp. 7.", "Then stop."]),
        ("I said no. Then I left.", ["I said no.", "Then I left."]),
        ("It costs 3.14 euros. It is cheap.", ["It costs 3.14 euros.", "It is cheap."]),
        ("J. R. R. Tolkien wrote it. He slept.", ["J. R. R. Tolkien wrote it.", "He slept."]),
        ("He lives in the U.S. The army left.", ["He lives in the U.S.", "The army left."]),
        ("The U.S. Army came. It left.", ["The U.S. Army came.", "It left."]),
        ("Read https://a.example/b.html?x=1. Then go.", ["Read https://a.example/b.html?x=1.", "Then go."]),
        ("Use a tool, e.g. This one, i.e. That. Good.", ["Use a tool, e.g. This one, i.e. That.", "Good."]),
        ('"Really?" he said. \u201cYes!\u201d She left.', ['"Really?" he said.', "\u201cYes!\u201d", "She left."]),
        ("As shown.[3] It holds. (It does.) Good.", ["As shown.[3]", "It holds.", "(It does.)", "Good."]),
        ("Wait... What?! No\u2026 Yes.", ["Wait...", "What?!", "No\u2026", "Yes."]),
        ("Am 3. Oktober 1990 z. B. war es so. Es regnete.", ["Am 3. Oktober 1990 z. B. war es so.", "Es regnete."]),
        ("\u00bfQu\u00e9? \u00a1Hola! Vale.", ["\u00bfQu\u00e9?", "\u00a1Hola!", "Vale."]),
        ("今天天气很好\uff01真的吗\uff1f「走吧。」他说。", ["今天天气很好\uff01", "真的吗\uff1f", "「走吧。」", "他说。"]),
        ("यह है। वह था।", ["यह है।", "वह था।"]),
    ],
)
def test_marks_end_sentences_and_abbreviations_do_not(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


def test_a_line_break_inside_a_paragraph_ends_nothing_but_a_blank_line_does() -> None:
    assert sentences("one line\nand another\n\na paragraph") == ["one line\nand another", "a paragraph"]


def test_list_items_table_rows_and_headings_stand_alone() -> None:
    text = "# Keys\nWe do:\n- rotate\n- revoke\n1. First. Second\n| a | b |\n| c | d |\nend"
    assert sentences(text) == ["# Keys", "We do:", "- rotate", "- revoke", "1. First.", "Second", "| a | b |", "| c | d |", "end"]


def test_records_stand_alone() -> None:
    assert sentences("name: Ada; born: 1815\nname: Alan; born: 1912") == ["name: Ada; born: 1815", "name: Alan; born: 1912"]


def test_a_wrapped_line_of_prose_goes_on_though_it_looks_like_a_record_or_an_item() -> None:
    trial = "The trial was long, and of all those who took part in it many had one\nserious side effect: the pulse is slower."
    mill = "The mill stood for a hundred years beside the river, and it employed\n250."
    assert sentences(f"{trial} It ended.\n{mill} It closed.") == [trial, "It ended.", mill, "It closed."]


def test_a_comment_of_several_lines_is_no_row_of_headings() -> None:
    comment = "# The nightly export starts at 02:15,\n# because the vendor's servers are\n# closed before."
    assert sentences(f"{comment}\nstart = 2") == [comment, "start = 2"]
    assert sentences("# Keys\n## Rotation\nEvery week.") == ["# Keys", "## Rotation", "Every week."]


def test_items_and_records_below_long_lines_stand_alone_where_they_are_of_a_list() -> None:
    long = "words that go on until the line has more than fifty characters in it"
    assert len(sentences(f"9. {long}\n10. {long}\n   {long}\n11. {long}")) == 3
    assert len(sentences(f"{long}\n1. first\n2. second")) == 3
    assert len(sentences(f"{long}:\nname: Ada\nborn: 1815")) == 3
    assert len(sentences(f"title: {long}\nname: {long}\nborn: 1815")) == 3


@given(st.text(alphabet=st.sampled_from("aB1. \n\t?!。\"')[]#-|:\u2026\u200b😀中"), max_size=200))
def test_sentences_are_in_order_and_hold_all_but_white_space(text: str) -> None:
    spans = sentence_spans(text)
    end = 0
    for start, stop in spans:
        assert not text[end:start].strip()
        assert end <= start < stop and text[start:stop] == text[start:stop].strip()
        end = stop
    assert not text[end:].strip()


@pytest.mark.parametrize(
    "text",
    [
        "." * 300_000,
        ". " * 150_000,
        "." * 300_000 + "a",
        "\n " * 150_000,
        ". " + "(" * 300_000,
        "1. " * 100_000,
        f"{'a' * 60}\n9. " * 10_000,
    ],
)
def test_long_runs_of_marks_take_no_quadratic_time(text: str) -> None:
    sentence_spans(text)  # quadratic, this would run into the time-out
