"""reStructuredText and Org: the text as it is, with its headings."""

from __future__ import annotations

import time

import pytest

from ragline.reading.documents import read_plain
from ragline.reading.parsing import formats


def headings(text: str, kind: str = formats.RST) -> list[tuple[int, str]]:
    return [(heading.level, heading.title) for heading in read_plain(text.encode(), kind).layout.headings]


GERMAN = "Schlüssel\n=========\n\n.. note:: Sie wechseln.\n\n   Für 90 € je Tür.\n"


@pytest.mark.parametrize("kind", [formats.RST, formats.ORG])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
def test_the_text_stays_as_it_is_in_every_usual_encoding(kind: str, encoding: str) -> None:
    assert read_plain(GERMAN.encode(encoding), kind).text == GERMAN


# -- reStructuredText --------------------------------------------------------------------------------------------------


def test_kinds_of_lines_have_levels_in_the_order_in_which_they_appear() -> None:
    text = """\
=====
 Keys
=====

Doors
=====

Rotation
--------
Text.

~~~~~
Alarm
~~~~~

Locks
=====
"""
    assert headings(text) == [(1, "Keys"), (2, "Doors"), (3, "Rotation"), (4, "Alarm"), (2, "Locks")]


def test_a_heading_takes_the_lines_around_its_title_along() -> None:
    text = "Before.\n\n====\nKeys\n====  \n\nDoors\n~~~~~\ntext"
    found = read_plain(text.encode(), formats.RST).layout.headings
    assert [text[heading.start : heading.end] for heading in found] == ["====\nKeys\n====", "Doors\n~~~~~"]


@pytest.mark.parametrize(
    ("text", "titles"),
    [
        ("Keys\n====\nDoors\n====\n", ["Keys", "Doors"]),
        (".. _keys:\nKeys\n====\n", ["Keys"]),
        ("- item\nKeys\n====\n", ["Keys"]),
        ("term\n   meaning\nKeys\n====\n", ["Keys"]),
        ("1. Keys\n=======\n", ["1. Keys"]),
        ("Keys and doors\n====\n", ["Keys and doors"]),
        ("Ada\n===\n", ["Ada"]),
        ("鍵\n==\n", ["鍵"]),
        ("Title ends so::\n===============\n\nKeys\n====\n", ["Title ends so::", "Keys"]),
        ("Header\n======\n------\nBelow\n------\n", ["Header", "Below"]),
    ],
)
def test_titles_begin_a_paragraph(text: str, titles: list[str]) -> None:
    assert [title for _, title in headings(text)] == titles


@pytest.mark.parametrize(
    "text",
    [
        "Keys\n===\n",
        "鍵鍵\n===\n",
        "one line\nKeys\n====\n",
        "one line\n--\nKeys\n====\n",
        "Above.\n\n----------\n\nBelow.\n",
        "----------\nBelow.\n\nMore.\n",
        "====\nKeys\n-----\n",
        "====\nKeys\n\n====\n",
        "- Keys\n------\n",
        ":name: Ada\n----------\n",
        "| Keys\n------\n",
        ">>> Keys\n--------\n",
        ".. Keys\n-------\n",
        "   Keys\n   ====\n",
        "   Keys\n=======\n",
        "Like so::\n\n   Keys\n   ====\n",
        "::\n\n   Keys\n   ====\n",
        "Like so::\n\n##########\n#  Keys  #\n##########\n",
        ".. code-block:: rst\n\n   Keys\n   ====\n",
        "+------+------+\n| Keys | Door |\n+======+======+\n| one  | two  |\n+------+------+\n",
        "=====  =====\nKeys   Doors\n=====  =====\none    two\n\nthree\n------------\nfour   five\n=====  =====\n",
    ],
)
def test_what_only_looks_like_a_heading_is_none(text: str) -> None:
    assert headings(text) == []


def test_headings_go_on_after_tables_and_literal_blocks() -> None:
    simple = "=====  =====\nKeys   Doors\n=====  =====\none    two\n=====  =====\n"
    for before in (simple, "=====  =====\none    two\n=====  =====\n", "Like so::\n\n> a\n> b\n", "Like so::\n\n  a\n", "::\n\n  a\n"):
        assert headings(f"{before}\nKeys\n====\n") == [(1, "Keys")], before


@pytest.mark.parametrize(
    ("written", "title"),
    [
        ("The ``code`` of *it* and **that**", "The code of it and that"),
        (":mod:`keys` --- all of them", "keys --- all of them"),
        ("See `the site <https://example.org>`_ for |version|", "See the site for version"),
        ("``List<int>`` and :class:`~a.Key`", "List<int> and a.Key"),
        ("The Keys_ of ``type_``", "The Keys of type_"),
        ("2 * 3 * 4 snake_case", "2 * 3 * 4 snake_case"),
    ],
)
def test_titles_are_without_marks(written: str, title: str) -> None:
    assert headings(f"{written}\n{'=' * len(written)}\n") == [(1, title)]


# -- Org ---------------------------------------------------------------------------------------------------------------


def test_headlines_are_without_state_priority_tags_and_marks() -> None:
    text = """\
* Keys                  :door:lock:
** TODO [#A] Rotate the =old= ones
*** DONE Of [[https://example.org][our *house*]]
** TODO
 * an item
*bold* text
* :all:
"""
    read = read_plain(text.encode(), formats.ORG)
    assert headings(text, formats.ORG) == [(1, "Keys"), (2, "Rotate the old ones"), (3, "Of our house"), (2, "TODO"), (1, ":all:")]
    assert [read.text[heading.start : heading.end] for heading in read.layout.headings][:2] == ["Keys", "Rotate the =old= ones"]


def test_an_org_text_says_who_wrote_it() -> None:
    text = "# a comment\n#+TITLE: Keys & doors\n#+author:Ada\n#+options: toc:nil\n\n* One\n#+date: today\n"
    assert read_plain(text.encode(), formats.ORG).metadata == {"title": "Keys & doors", "author": "Ada"}


# -- hostile texts -----------------------------------------------------------------------------------------------------

MEGABYTE = 10**6


@pytest.mark.parametrize("kind", [formats.RST, formats.ORG])
@pytest.mark.parametrize(
    "text",
    [
        "=" * MEGABYTE + "x\n====\n",
        "= " * (MEGABYTE // 2) + "x",
        "-=" * (MEGABYTE // 2),
        "+" + "-+" * (MEGABYTE // 2) + "x",
        ":a" * (MEGABYTE // 2) + "\n====\n",
        "`" * MEGABYTE + "\n====\n",
        "`a <" * (MEGABYTE // 4) + "\n====\n",
        "*a" * (MEGABYTE // 2) + "\n====\n",
        "a\n=\n" * (MEGABYTE // 16),
        "=\n" * (MEGABYTE // 2),
        "a::\n\n" * (MEGABYTE // 5),
        "* " + "a " * (MEGABYTE // 2),
        "* a" + " " * MEGABYTE + "x",
        "* " + ":a" * (MEGABYTE // 2),
        "* " + "[[a]" * (MEGABYTE // 4),
        "*" * MEGABYTE + " a",
        "#+title:" + " " * MEGABYTE,
    ],
    ids=range(17),
)
def test_the_time_to_read_hostile_texts_is_linear(text: str, kind: str) -> None:
    """Texts of this size are read in the engine's own process, where a regular expression holds up everything."""
    began = time.process_time()
    read = read_plain(text.encode(), kind)
    assert time.process_time() - began < 5
    assert all(heading.level <= 70 for heading in read.layout.headings)
