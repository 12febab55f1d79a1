"""HTML becomes text: its words, headings, lists and tables, without scripts, styles and navigation."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html.parser import HTMLParser
from typing import Any

from .blocks import Blocks, table_lines


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SKIPPED = _words("script style template noscript nav aside button select textarea svg iframe object canvas audio video dialog menu")
_SKIPPED_ROLES = frozenset({"navigation", "banner", "contentinfo", "search", "dialog", "alertdialog", "menu", "menubar", "toolbar"})
_BLOCKS = _words(
    "address article blockquote body center dd details div dl dt fieldset figcaption figure footer header hr html li main ol p pre section"
    " summary table tbody td tfoot th thead tr ul caption h1 h2 h3 h4 h5 h6"
)
_VOID = _words("area base br col embed hr img input link meta param source track wbr")
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_IMPLIED_ENDS = {
    "p": ("p",), "li": ("li", "p"), "dt": ("dt", "dd", "p"), "dd": ("dt", "dd", "p"),
    "td": ("td", "th", "p"), "th": ("td", "th", "p"), "tr": ("tr", "td", "th", "p"),
}  # fmt: skip
_SPACES = re.compile(r"[ \t\n\r\f]+")
_PERMALINKS = frozenset("\u00b6#\U0001f517")


class MarkupText(HTMLParser):
    """Collects the text of an HTML page.

    Scripts, styles, controls, `<nav>`, `<aside>`, hidden parts and the page's own header and footer are left out.
    Tables that hold tables, or whole articles in a cell, are layout: their cells are read as paragraphs.
    """

    def __init__(self, blocks: Blocks | None = None) -> None:
        super().__init__(convert_charrefs=True)
        self.blocks = Blocks() if blocks is None else blocks
        self.metadata: dict[str, Any] = {}
        self._open: list[str] = []
        self._skipped_at: int | None = None
        self._line: list[str] = []
        self._heading = 0
        self._pre = 0
        self._title: list[str] | None = None
        self._items: list[int | None] = []
        self._marker = ""
        self._tight = False
        self._table: list[list[str]] | None = None

    # -- events -------------------------------------------------------------------------------------------------------

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: D102 (the base class's)
        if tag == "meta":
            self._read_meta(dict(attrs))
        elif tag == "title" and "title" not in self.metadata and "svg" not in self._open:
            self._title = []
        elif tag == "html" and (language := dict(attrs).get("lang")):
            self.metadata["language"] = language
        if tag in _VOID:
            if tag == "br":
                self._line.append("\n")
            elif tag == "hr":
                self._flush()
            return
        if tag in _IMPLIED_ENDS:
            self._close_implied(tag)
        self._open.append(tag)
        if self._skipped_at is None and self._is_skipped(tag, attrs):
            self._flush()
            self._skipped_at = len(self._open)
        if self._skipped_at is None and tag in _BLOCKS:
            self._begin_block(tag)

    def handle_endtag(self, tag: str) -> None:  # noqa: D102
        if tag == "title" and self._title is not None:
            self.metadata["title"] = " ".join("".join(self._title).split())
            self._title = None
        if tag not in self._open[-200:]:
            return
        while self._open:
            closed = self._open[-1]
            self._end(closed)
            if closed == tag:
                break

    def handle_data(self, data: str) -> None:  # noqa: D102
        if self._title is not None:
            self._title.append(data)
        elif self._skipped_at is None:
            self._line.append(data if self._pre else _SPACES.sub(" ", data))

    # -- structure ----------------------------------------------------------------------------------------------------

    def _is_skipped(self, tag: str, attrs: list[tuple[str, str | None]]) -> bool:
        if tag in _SKIPPED:
            return True
        if tag in ("header", "footer"):
            # Those of an article belong to it; those of the page are furniture.
            return not {"article", "main", "section"} & set(self._open[:-1])
        named = dict(attrs)
        if "hidden" in named or named.get("aria-hidden") == "true":
            return True
        return named.get("role") in _SKIPPED_ROLES or "display:none" in (named.get("style") or "").replace(" ", "")

    def _close_implied(self, tag: str) -> None:
        """Ends what HTML lets authors leave open: a new `<li>` ends the last one."""
        while self._open and self._open[-1] in _IMPLIED_ENDS[tag]:
            self._end(self._open[-1])

    def _begin_block(self, tag: str) -> None:
        in_cell = self._table is not None
        if in_cell and tag not in ("tr", "td", "th", "caption", "table"):
            self._line.append(" ")
            return
        if tag == "table":
            if in_cell:
                # A table with tables in it is layout: what it has so far are paragraphs.
                self._end_table(layout=True)
            self._flush()
            self._table = []
        elif tag == "tr" and self._table is not None:
            self._table.append([])
        elif tag in ("td", "th") and self._table is not None:
            self._line.clear()
        else:
            self._flush()
        if tag in ("ul", "ol"):
            self._items.append(1 if tag == "ol" else None)
        elif tag == "li":
            self._begin_item()
        elif tag in _HEADINGS:
            self._heading = _HEADINGS[tag]
        elif tag == "pre":
            self._pre += 1

    def _begin_item(self) -> None:
        number = self._items[-1] if self._items else None
        self._marker = "  " * (len(self._items) - 1) + ("- " if number is None else f"{number}. ")
        if number is not None:
            self._items[-1] = number + 1

    def _end(self, tag: str) -> None:
        depth = len(self._open)
        self._open.pop()
        if self._skipped_at is not None:
            if depth == self._skipped_at:
                self._skipped_at = None
            return
        if tag not in _BLOCKS:
            return
        if self._table is not None:
            self._end_in_table(tag)
            return
        self._flush()
        if tag in ("ul", "ol") and self._items:
            self._items.pop()
            self._tight = bool(self._items)
        elif tag in _HEADINGS:
            self._heading = 0
        elif tag == "pre":
            self._pre = max(0, self._pre - 1)

    def _end_in_table(self, tag: str) -> None:
        assert self._table is not None
        if tag in ("td", "th"):
            if not self._table:
                self._table.append([])
            self._table[-1].append("".join(self._line))
            self._line.clear()
        elif tag == "table":
            self._end_table(layout=False)
        else:
            self._line.append(" ")

    def _end_table(self, *, layout: bool) -> None:
        rows, self._table = self._table or [], None
        rest = "".join(self._line)
        self._line.clear()
        if layout or max(map(len, rows), default=0) < 2 or any(len(cell) > 1500 for row in rows for cell in row):
            for row in rows:
                for cell in row:
                    self.blocks.add(_tidy(cell))
        else:
            self._add_rows(rows)
        self.blocks.add(_tidy(rest))

    def _add_rows(self, rows: Sequence[Sequence[str]]) -> None:
        for number, line in enumerate(table_lines(rows)):
            self.blocks.add(line, tight=number > 0)

    def _flush(self) -> None:
        text = "".join(self._line)
        self._line.clear()
        text = text.strip("\n").rstrip() if self._pre else _tidy(text)
        if not text.strip():
            return
        if self._heading:
            self.blocks.heading(text.rstrip("".join(_PERMALINKS) + " "), self._heading)
        else:
            self.blocks.add(self._marker + text, tight=bool(self._marker) and self._tight)
            self._tight = bool(self._items)
        self._marker = ""

    def _read_meta(self, attrs: dict[str, str | None]) -> None:
        name, content = (attrs.get("name") or "").lower(), attrs.get("content")
        if content and name in ("author", "description", "keywords", "date"):
            self.metadata.setdefault(name, content.strip())

    def finish(self) -> dict[str, Any]:
        """Ends what is still open; the collected text, headings and metadata."""
        self.close()
        while self._open:
            self._end(self._open[-1])
        if self._table is not None:
            self._end_table(layout=True)
        self._flush()
        return {**self.blocks.result(), "metadata": {key: value for key, value in self.metadata.items() if value}}


def _tidy(text: str) -> str:
    """Lines without white space at their ends; two line breaks or more (`<br><br>`) stay a blank line."""
    lines = "\n".join(line.strip(" \t\r\f") for line in text.split("\n"))
    return _BLANK_LINES.sub("\n\n", _SPACES_IN_LINE.sub(" ", lines)).strip()


_SPACES_IN_LINE = re.compile(r"[ \t\r\f]+")
_BLANK_LINES = re.compile(r"\n{3,}")


def read_markup(markup: str) -> dict[str, Any]:
    """The text of an HTML page, its headings and metadata (`title`, `author`, `description`, `language`, ...)."""
    page = MarkupText()
    page.feed(markup)
    return page.finish()
