"""Links and images in answers: readable, and without effect."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from ragline.generation.links import Defused


def defused(*pieces: str) -> str:
    stream = Defused()
    return "".join(map(stream.feed, pieces)) + stream.end()


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("[label](https://host/path)", "[label] (https ://host/path)"),
        ("![alt](https://host/x.png?q=secret)", "![alt] (https ://host/x.png?q=secret)"),
        ("![](//host/x)", "![] (//host/x)"),
        ("[a](/logout)", "[a] (/logout)"),
        ("[a][b]\n\n[b]: https://host", "[a][b]\n\n[b] : https ://host"),
        ("[![a](b)](c)", "[![a] (b)] (c)"),
        ("<https://host>", "< https ://host>"),
        ("<img src=x onerror=f()>", "< img src=x onerror=f()>"),
        ("<a href='x'>y</a>", "< a href='x'>y< /a>"),
        ("<SCRIPT>f()</SCRIPT>", "< SCRIPT>f()< /SCRIPT>"),
        ("<iframe/src=x>", "< iframe/src=x>"),
        ("<!-- hidden -->", "< !-- hidden -->"),
        ("<?xml ?>", "< ?xml ?>"),
        ("see http://host, HTTPS://HOST and ftp://host", "see http ://host, HTTPS ://HOST and ftp ://host"),
        ("https:/host", "https :/host"),
        ("file:///etc/passwd", "file :///etc/passwd"),
        ("www.host.com, WWW.host.com", "www .host.com, WWW .host.com"),
        ("\u0130www.host.com", "\u0130www .host.com"),  # to Python's IGNORECASE, that letter is an i
        ("javascript:alert(1)", "javascript :alert(1)"),
        ("JaVaScRiPt:alert(1)", "JaVaScRiPt :alert(1)"),
        ("data:text/html,x data:,x data:;base64,x", "data :text/html,x data :,x data :;base64,x"),
        ("`[a](https://host)`", "`[a] (https ://host)`"),
    ],
)
def test_what_could_be_clicked_or_loaded_gets_one_space(written: str, told: str) -> None:
    assert defused(written) == told
    assert defused(*written) == told


@pytest.mark.parametrize(
    "text",
    [
        "data: 5 rows, metadata:x, the https: scheme, javascript: the good parts",
        "a < b, x <- y, 1<2, a <= b",
        "[1] and [2]. [x] (as said)",
        "C:/folder, and//or, 10:30, key: value",
        "https",
        "https:",
        "awww.nice",
    ],
)
def test_other_text_stays_as_it_is(text: str) -> None:
    assert defused(text) == text
    assert defused(*text) == text


WORKS = re.compile(
    r"\][(:]|<[A-Za-z/!?]|(?:https?|ftps?|file):/|(?<![a-z])www\.|(?:java|vb)script:\S|(?<![a-z])data:[a-z,;]", re.IGNORECASE
)
PARTS = [
    "[",
    "]",
    "(",
    ")",
    ":",
    "/",
    "//",
    "<",
    ">",
    "!",
    " ",
    "\n",
    "http",
    "https",
    "ftp",
    "file",
    "www",
    ".",
    "a",
    "data",
    "javascript",
    "DATA",
]


@given(st.lists(st.sampled_from(PARTS), max_size=20).map("".join), st.lists(st.integers(0, 80), max_size=8))
@example("https://", [5])
@example("]" * 3 + ":", [1, 2])
def test_any_cutting_gives_the_same_without_anything_that_works(text: str, cuts: list[int]) -> None:
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    told = defused(*(text[start:end] for start, end in pairwise(places)))
    assert told == defused(text)
    assert not WORKS.search(told)
    assert told.replace(" ", "") == text.replace(" ", "")


def test_only_a_colon_after_a_scheme_waits_for_what_follows() -> None:
    stream = Defused()
    assert stream.feed("Keys: h") == "Keys: h"
    assert stream.feed("ttps:") == "ttps"
    assert stream.feed("/") == " :/"
    assert stream.feed("data:") == "data"
    assert stream.end() == ":"


MARKDOWN = MarkdownIt("commonmark", {"html": True})
MARKUP = [
    *(
        "[",
        "]",
        "(",
        ")",
        "<",
        ">",
        "!",
        "\\",
        "`",
        "```",
        "~~~",
        "\n",
        "\n\n",
        " ",
        "*",
        "_",
        '"',
        "|",
        "> ",
        "- ",
        "1. ",
        "# ",
        "\t",
        "^",
        "x",
    ),
    *(
        "http://h.c",
        "https://h.c/x?q",
        "//h.c",
        "/x",
        ":",
        "[x]",
        "[x]: /u",
        "[x]:",
        "[1]",
        "<e@f.g>",
        "<http://h.c>",
        "<img src=x>",
        "</a>",
    ),
    *(
        "<!--",
        "-->",
        "<?",
        "?>",
        "<![CDATA[",
        "]]>",
        "<script>",
        "&lt;",
        "&#91;",
        "&#40;",
        "\u200b",
        "\u00a0",
        "javascript:x",
        "data:text/html,x",
    ),
]


def kinds(markdown: str) -> set[str]:
    """The kinds of all tokens that a renderer of CommonMark sees."""
    tokens = MARKDOWN.parse(markdown)
    return {token.type for outer in tokens for token in (outer, *(outer.children or ()))}


@settings(max_examples=1000)
@given(st.lists(st.sampled_from(MARKUP), max_size=16).map("".join))
def test_a_renderer_of_markdown_sees_neither_link_nor_image_nor_html(text: str) -> None:
    assert not kinds(defused(text)) & {"link_open", "image", "html_inline", "html_block"}


@pytest.mark.parametrize("text", ["[a](/b)", "![a](/b)", "<http://h.c>", "[x]\n\n[x]: /u", "a <b>", "<script>"])
def test_the_renderer_would_see_them(text: str) -> None:
    assert kinds(text) & {"link_open", "image", "html_inline", "html_block"}
