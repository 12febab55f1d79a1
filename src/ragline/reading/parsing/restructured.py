"""The headings of a reStructuredText text, which stays as it is.

Read here and not by kreuzberg, which drops what stands under a directive (4.10.4): notes, warnings, tables, functions.
"""

from __future__ import annotations

import re
import unicodedata

from .code import Mark
from .lines import lines

_ADORNMENT = re.compile(r"([!-/:-@\[-`{-~])\1*+[ \t]*+$")
_SIMPLE_TABLE = re.compile(r"=++(?: ++=++)++ *+$")
_TABLE_BORDER = re.compile(r"=[ =]*+$")
# Bullets, fields, line blocks, doctests, comments and directives, targets, grid tables; and whatever is indented.
_NO_TITLE = re.compile(r"[-+*\u2022\u2023\u2043|](?:\s|$)|:[^:\s][^:]*+:(?:\s|$)|(?:>>>|\.\.|__)(?:\s|$)|\+[-=][-=+]*+\+\s*+$|\s")
_REFERENCE = re.compile(r"(?<=[^\W_])__?(?=[\s,.;:!?)]|$)")
_CODE = re.compile(r"``([^`]+)``")
_ROLE = re.compile(r"(?::[\w.+:-]{1,80}:)?`[~!]?([^`<]+)(?:<[^`>]*>)?`_{0,2}")
_EMPHASIS = re.compile(r"(?<!\w)(\*{1,2}|\|)(\S(?:[^*|]*\S)?)\1(?!\w)")
_SURE_CHARS = 4
_MAX_TITLE_CHARS = 1000


def restructured_headings(text: str) -> list[Mark]:
    """The headings of a reStructuredText text: each begins at the line over its title, if there is one, and ends with the line under it.

    Levels are given in the order in which kinds of lines (a character, under the title alone or over it as well) appear.
    What is indented holds no headings: literal blocks, what directives say, comments.
    """
    scan = _Scan()
    for start, line in lines(text):
        scan.line(start, line)
    return scan.marks


class _Scan:
    """Where a text is as its lines go by.

    Attributes:
        marks: The headings so far.
    """

    def __init__(self) -> None:
        self.marks: list[Mark] = []
        self._styles: list[tuple[str, bool]] = []
        self._begins = True  # the next line begins a paragraph: no other can be a title
        self._over: tuple[int, str] | None = None
        self._title: tuple[int, str] | None = None
        self._borders = -1  # of a simple table, below its upper one; -1 outside of tables
        self._at_border = False
        self._literal = False  # a paragraph has announced a literal block
        self._quote = ""  # what each line of a literal block begins with, where it is not indented

    def line(self, start: int, line: str) -> None:
        """Takes the next line."""
        is_blank = not line or line.isspace()
        if self._borders >= 0:
            self._take_row(line, is_blank)
        elif is_blank:
            self._quote = ""
            self._restart()
        elif self._is_quoted(line):
            self._restart()
        elif self._title and _ADORNMENT.match(line) and self._suits(self._title[1], line.rstrip()):
            self._mark(self._title, start, line.rstrip())
            self._restart()
        else:
            self._take(start, line)

    def _restart(self) -> None:
        self._over = self._title = None
        self._begins = True

    def _is_quoted(self, line: str) -> bool:
        if self._begins and self._literal:
            self._quote = "" if line[0].isspace() or line[0].isalnum() else line[0]
        self._literal = False
        if self._quote and line[0] != self._quote:
            self._quote = ""
        return self._quote != ""

    def _take_row(self, line: str, is_blank: bool) -> None:
        """A line within a simple table: it ends with its second border below, or its first above a blank line."""
        if _TABLE_BORDER.match(line):
            self._borders += 1
            self._at_border = True
        elif not is_blank:
            self._at_border = False
        if self._borders > 1 or (is_blank and self._at_border):
            self._borders, self._at_border = -1, False
            self._restart()

    def _take(self, start: int, line: str) -> None:
        if self._begins and _SIMPLE_TABLE.match(line):
            self._borders = 0
        elif (self._begins or (self._over and not self._title)) and _is_line(line):
            self._over, self._begins = (start, line), False
        elif self._over and not self._title:
            self._title = (start, line)
        else:
            can_begin = bool(_NO_TITLE.match(line))
            self._title = (start, line) if self._begins and not can_begin else None
            self._over = None
            self._literal = not can_begin and line.rstrip().endswith("::")
            # Below a line that is no paragraph, a paragraph can begin without a blank line.
            self._begins = can_begin

    def _suits(self, title: str, under: str) -> bool:
        """Whether a line makes what stands over it a heading: one of a few characters must be as long as the title."""
        if self._over and self._over[1].rstrip() != under:
            return False
        return len(under) >= _SURE_CHARS or _width(title.strip()) <= len(under)

    def _mark(self, title: tuple[int, str], start: int, under: str) -> None:
        style = (under[0], self._over is not None)
        if style not in self._styles:
            self._styles.append(style)
        begin = self._over[0] if self._over else title[0]
        self.marks.append((begin, start + len(under), self._styles.index(style) + 1, _plain_title(title[1].strip())))


def _is_line(line: str) -> bool:
    """Whether it can stand over a title: not a mark that looks as if, such as that of a literal block."""
    return _ADORNMENT.match(line) is not None and not _NO_TITLE.match(line) and line.rstrip() != "::"


def _width(title: str) -> int:
    """How many columns a title takes, up to a few: letters of Chinese, Japanese and Korean are two wide."""
    columns = (2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in title[:100] if not unicodedata.combining(char))
    return sum(columns)


def _plain_title(title: str) -> str:
    """A title without the marks of roles, links, code and emphasis around its words, and not longer than anyone writes."""
    title = title[:_MAX_TITLE_CHARS]
    words = _EMPHASIS.sub(r"\2", _ROLE.sub(r"\1", _CODE.sub(r"\1", _REFERENCE.sub("", title))))
    return " ".join(words.split()) or title
