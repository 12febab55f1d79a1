"""Citations as models write them: found in a stream, told apart from text and code."""

from __future__ import annotations

import pytest

from ragline.generation.markers import Marker, Markers


def read(*pieces: str) -> list[str | tuple[int, ...]]:
    markers = Markers()
    found = [part for piece in pieces for part in markers.feed(piece)] + markers.end()
    joined: list[str | tuple[int, ...]] = []
    for part in found:
        if isinstance(part, Marker):
            joined.append(part.numbers)
        elif joined and isinstance(joined[-1], str):
            joined[-1] += part
        else:
            joined.append(part)
    return joined


@pytest.mark.parametrize(
    ("written", "numbers"),
    [
        ("[1]", [(1,)]),
        ("[ 12 ]", [(12,)]),
        ("[1, 2]", [(1, 2)]),
        ("[1,2;3]", [(1, 2, 3)]),
        ("[1 and 3]", [(1, 3)]),
        ("[1, 2, and 3]", [(1, 2, 3)]),
        ("[1 & 2]", [(1, 2)]),
        ("[1-3]", [(1, 2, 3)]),
        ("[1\u20133, 7]", [(1, 2, 3, 7)]),
        ("[3-1]", [(3, 1)]),
        ("[1-999]", [(1, 0)]),
        ("[1][2]", [(1,), (2,)]),
        ("\u30101\u3011", [(1,)]),
        ("\u30102\u2020source\u3011", [(2,)]),
        ("\u30102\u2020L10-L12\u3011", [(2,)]),
        ("\u30104:0\u2020keys.md\u3011", [(0,)]),
        ("[1\u2020source]", [(1,)]),
        ("[^1]", [(1,)]),
        ("[^1, ^2]", [(1, 2)]),
        ("[Source 1]", [(1,)]),
        ("[source: 1]", [(1,)]),
        ("[Document 2, 3]", [(2, 3)]),
        ("[doc. #4]", [(4,)]),
        ("[Sources 1, 2]", [(1, 2)]),
    ],
)
def test_every_usual_form_of_a_citation_is_a_marker(written: str, numbers: list[tuple[int, ...]]) -> None:
    assert read(written) == numbers
    assert read(*written) == numbers
    assert read(f"So it is{written}.") == ["So it is", *numbers, "."]


@pytest.mark.parametrize(
    "text",
    [
        "(1) is a place in a list",
        "[x] done, [ ] to do",
        "[2024] is a year",
        "[1.5] and [1/2] and [1:2] are figures",
        "[see below] and [link](x)",
        "[1, two]",
        "[source]",
        "[documentation 1]",
        "[\n1]",
        "[1",
        "[",
        "an [unclosed bracket goes on and on",
        f"[1{' ' * 100}]",
        f"[1\u2020{'x' * 100}]",
    ],
)
def test_other_brackets_are_text(text: str) -> None:
    assert read(text) == [text]
    assert read(*text) == [text]


@pytest.mark.parametrize(
    "code",
    [
        "`a[1]`",
        "``a[1] ` b[2]``",
        "```\na[1]\n```",
        "```python\nx = a[1]\n\ny = [2]\n```",
        "- item\n  ```\n  a[1]\n  ```",
        "~~~\na[1] ``` [2]\n~~~",
        "````\n```\na[1]\n```\n[2]\n````",
        "```a[1]```",
    ],
)
def test_what_stands_in_code_is_text_and_what_follows_is_not(code: str) -> None:
    assert read(f"{code} and [3]") == [f"{code} and ", (3,)]
    assert read(*f"{code} and [3]") == [f"{code} and ", (3,)]


def test_a_lone_backtick_does_not_hide_the_citations_after_it() -> None:
    assert read("a ` sign [1]\nb` c [2]") == ["a ` sign ", (1,), "\nb` c ", (2,)]
    assert read("a ` sign [1]") == ["a ` sign ", (1,)]
    assert read(f"a ` sign [1] {'x' * 500} `") == ["a ` sign ", (1,), f" {'x' * 500} `"]


def test_an_unclosed_block_of_code_goes_on_to_the_end() -> None:
    assert read("```\na[1]\nb [2]") == ["```\na[1]\nb [2]"]


def test_text_is_passed_on_at_once_but_for_what_may_become_a_marker() -> None:
    markers = Markers()
    assert markers.feed("Keys rotate") == ["Keys rotate"]
    assert markers.feed(" daily [") == [" daily "]
    assert markers.feed("1") == []
    assert markers.feed("]. [s") == [Marker((1,)), ". "]
    assert "".join(map(str, markers.feed("ee"))) == "[see"
    assert markers.feed("[n") == ["[", "n"]
