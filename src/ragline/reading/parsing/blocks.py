"""A text put together block by block, with its headings and pages where they come to stand."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

_LINE_BREAKS = re.compile(r"\r\n?|[\u2028\u2029\x85\x0b\x0c]")
# Control characters that mean nothing in a text, and halves of surrogate pairs, which no encoding can write.
_NOISE = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ufeff\ufffe\uffff]")
_SURROGATES = re.compile(r"[\ud800-\udfff]")
_YEAR = re.compile(r"(?:19|20)\d\d")
_NUMBER = re.compile(r"[-+]?(?=[.,\s]*+\d)[\d.,\s]*+%?")


def clean(text: str) -> str:
    """The text as ragline stores it: no NUL or other control character, no lone surrogate, LF between lines."""
    return _SURROGATES.sub("\ufffd", _NOISE.sub("", _LINE_BREAKS.sub("\n", text)))


@dataclass
class Blocks:
    """Collects blocks; they come to stand one blank line apart."""

    parts: list[str] = field(default_factory=list)
    headings: list[tuple[int, int, int, str]] = field(default_factory=list)
    pages: list[int] = field(default_factory=list)
    length: int = 0

    def add(self, text: str, *, tight: bool = False) -> None:
        """Adds a block; `tight` puts it on the line after the last one (list items, rows)."""
        text = clean(text).strip("\n").rstrip()
        if not text.strip():
            return
        if self.parts:
            gap = "\n" if tight else "\n\n"
            self.parts.append(gap)
            self.length += len(gap)
            self._begin_pages()
        self.parts.append(text)
        self.length += len(text)

    def _begin_pages(self) -> None:
        # A page that began after the last block begins where the next block does, not at the gap before it.
        for i in range(len(self.pages) - 1, -1, -1):
            if self.pages[i] >= 0:
                break
            self.pages[i] = self.length

    def heading(self, title: str, level: int) -> None:
        """Adds a heading on a line of its own."""
        title = one_line(title)
        if title:
            self.add(title)
            self.headings.append((self.length - len(title), self.length, level, title))

    def page(self) -> None:
        """The next page begins here."""
        self.pages.append(-1 if self.parts else 0)

    def result(self) -> dict[str, Any]:
        """`text`, `headings` as [start, end, level, title], `pages` as starts."""
        pages = [self.length if start < 0 else start for start in self.pages]
        return {"text": "".join(self.parts), "headings": self.headings, "pages": pages}


def table_lines(rows: Sequence[Sequence[str]], *, header: bool = True) -> list[str]:
    """The rows of a table as lines that can be understood alone: "name: Ada; born: 1815".

    The first row gives the names where it looks like a header (see `header_of`). Else, and without `header`, the
    cells stand between bars.
    """
    filled = [row for row in ([one_line(cell) for cell in row] for row in rows) if any(row)]
    names = header_of(filled[0]) if header and len(filled) > 1 else None
    if names is not None:
        return [record_line(names, row) for row in filled[1:]]
    return ["| " + " | ".join(row) + " |" if len(row) > 1 else row[0] for row in filled]


def record_line(names: Sequence[str], row: Sequence[str]) -> str:
    """One row with the names of its columns; empty cells are left out, cells beyond the names stand alone."""
    return clean_record_line(names, [one_line(cell) for cell in row])


def clean_record_line(names: Sequence[str], cells: Sequence[str]) -> str:
    """As `record_line`, for cells that are clean and on one line already."""
    named = [f"{name}: {cell}" if name else cell for name, cell in zip(names, cells, strict=False) if cell]
    return "; ".join([*named, *filter(None, cells[len(names) :])])


def header_of(row: Sequence[str]) -> list[str] | None:
    """The names in a table's first row; None where it is no header: mostly numbers or empty, a name twice, an address."""
    names = [one_line(cell) for cell in row]
    named = [name for name in names if name]
    if len(names) < 2 or len(named) * 2 <= len(names) or len(set(named)) < len(named):
        return None
    values = sum(1 for name in named if _NUMBER.fullmatch(name))
    if values >= 2 and not _NUMBER.fullmatch(names[0]) and _are_years([name for name in named if _NUMBER.fullmatch(name)]):
        return names
    if values * 2 > len(named) or any(len(name) > 100 or "://" in name or "@" in name for name in named):
        return None
    return names


def _are_years(names: Sequence[str]) -> bool:
    """Whether these are years at equal distances, as they head the columns of a table: 2019, 2020, 2021."""
    if not all(_YEAR.fullmatch(name) for name in names):
        return False
    steps = {int(after) - int(before) for before, after in itertools.pairwise(names)}
    return len(steps) == 1 and abs(steps.pop()) in (1, 2, 5, 10)


def one_line(text: str) -> str:
    """The text cleaned and on one line, words one space apart."""
    if text.isprintable() and text.isascii():
        return " ".join(text.split())
    return " ".join(clean(text).split())
