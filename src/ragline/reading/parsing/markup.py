"""HTML becomes text: its words, headings, lists, tables and code, without what every page of the site has."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from .blocks import Blocks
from .furniture import Kind, Part, Region, chosen, is_for_links, is_unseen, kind_of
from .grids import Cell, grid_lines, span
from .tags import TagStream


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SKIPPED = _words("script style template button select textarea datalist svg iframe object canvas audio video annotation rp")
_BLOCKS = _words(
    "address article aside blockquote body center dd details dialog div dl dt fieldset figcaption figure footer form header hr html li main"
    " menu nav noscript ol p pre search section summary table tbody td tfoot th thead tr ul caption h1 h2 h3 h4 h5 h6"
)
_VOID = _words("area base br col embed hr img input link meta param source track wbr")
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_LISTS = _words("ul ol dl div section table td p")
_ENDS_TABLE = _words("h1 h2 h3 h4 h5 h6 pre article main section table")
_IMPLIED_ENDS = {
    "p": ("p",), "li": ("li", "p"), "dt": ("dt", "dd", "p"), "dd": ("dt", "dd", "p"),
    "td": ("td", "th", "p"), "th": ("td", "th", "p"), "tr": ("tr", "td", "th", "p"), "a": ("a",),
}  # fmt: skip
_SPACES = re.compile(r"[ \t\n\r\f]+")
_SPACES_IN_LINE = re.compile(r"[ \t\r\f]+")
_BLANK_LINES = re.compile(r"\n{3,}")
_PERMALINKS = "\u00b6#\U0001f517 "
_FILE_NAME = re.compile(r"[\w .-]+\.\w{3,4}")
_META = {
    "author": "author", "article:author": "author", "description": "description", "og:description": "description", "keywords": "keywords",
    "date": "date", "article:published_time": "date", "datepublished": "date", "dc.date": "date", "dcterms.date": "date",
    "dcterms.created": "date", "og:title": "og:title",
}  # fmt: skip
_MAX_DEPTH = 8
_MAX_FIELD_CHARS = 1000


@dataclass(slots=True)
class _Open:
    """An element that is open: what the page had when it began."""

    tag: str
    attributes: dict[str, str]
    kind: Kind | None
    named: bool
    first: int
    chars: int
    linked: int
    within: int
    links: int
    titles: int


class MarkupText(TagStream):
    """Collects the text of HTML.

    Scripts, styles, controls and hidden parts are left out. Tables that hold tables, headings or whole articles in a
    cell are layout: their cells are read as paragraphs.

    Args:
        blocks: Where the text goes.
        whole: All of it is content, as in a mail or book; else the furniture of a web page is left out (see `furniture`).
        hidden: Read what is hidden as well.
    """

    def __init__(self, blocks: Blocks | None = None, *, whole: bool = True, hidden: bool = False) -> None:
        self.blocks = Blocks() if blocks is None else blocks
        self.metadata: dict[str, Any] = {}
        self._whole = whole
        self._hidden = hidden
        self._parts: list[Part] = []
        self._regions: list[Region] = []
        self._open: list[_Open] = []
        self._tags: list[str] = []
        self._skipped_at: int | None = None
        self._content = 0  # open elements that hold content
        self._chars = self._linked = self._links = self._titles = 0
        self._within = 0  # characters in links to places of the page, outside headings
        self._line: list[str] = []
        self._line_linked = 0
        self._in_link = 0
        self._in_link_within = False
        self._heading = 0
        self._pre = 0
        self._title: list[str] | None = None
        self._items: list[int | None] = []
        self._marker = ""
        self._tight = False
        self._table: list[list[Cell]] | None = None
        self._cell = Cell("", False)

    # -- events -------------------------------------------------------------------------------------------------------

    def handle_starttag(self, tag: str, attributes: dict[str, str]) -> None:  # noqa: D102 (the base class's)
        self._read_metadata(tag, attributes)
        if tag in _VOID:
            self._add_void(tag, attributes)
            return
        if tag in _IMPLIED_ENDS:
            self._close_implied(tag)
        kind, named = kind_of(tag, attributes, in_content=self._content > 0) if tag in _BLOCKS else (None, False)
        self._tags.append(tag)
        if self._skipped_at is None:
            if self._is_skipped(tag, attributes):
                self._skipped_at = len(self._tags)
            else:
                self._begin(tag, attributes)
        counts = (len(self._parts), self._chars, self._linked, self._within, self._links, self._titles)
        self._open.append(_Open(tag, attributes, kind, named, *counts))
        self._content += kind in ("content", "article", "body")

    def handle_endtag(self, tag: str) -> None:  # noqa: D102
        if tag == "title" and self._title is not None:
            self.metadata["title"] = " ".join("".join(self._title).split())[:_MAX_FIELD_CHARS]
            self._title = None
        if tag not in self._tags[-200:]:
            return
        while self._open:
            if self._end() == tag:
                break

    def handle_data(self, data: str) -> None:  # noqa: D102
        if self._title is not None:
            self._title.append(data)
        elif self._skipped_at is None:
            self._line.append(data if self._pre else _SPACES.sub(" ", data))
            count = len(data.strip())
            self._chars += count
            if self._in_link:
                self._linked += count
                self._line_linked += count
            elif self._in_link_within and not self._heading:
                self._within += count

    # -- structure ----------------------------------------------------------------------------------------------------

    def _is_skipped(self, tag: str, attributes: dict[str, str]) -> bool:
        if tag in _SKIPPED or (tag == "nav" and self._whole):
            return True
        if is_unseen(tag, attributes):
            return True
        if self._hidden or attributes.get("role") == "tabpanel":
            return False  # a tab that is not in front is text all the same
        if "hidden" in attributes and attributes["hidden"] != "until-found":
            return True
        style = attributes.get("style", "")[:500].replace(" ", "").lower()
        return "display:none" in style or (attributes.get("aria-hidden") == "true" and tag in _BLOCKS)

    def _close_implied(self, tag: str) -> None:
        """Ends what HTML lets authors leave open: a new `<li>` ends the last one."""
        while self._tags and self._tags[-1] in _IMPLIED_ENDS[tag]:
            self._end()

    def _begin(self, tag: str, attributes: dict[str, str]) -> None:
        if tag == "a" and not (attributes.get("href") or "#").startswith("#"):
            self._in_link += 1
            self._links += 1
        elif tag == "a":
            self._in_link_within = "href" in attributes
        if tag not in _BLOCKS:
            return
        if self._table is not None and tag in _ENDS_TABLE:
            # What such a table has so far are paragraphs.
            self._end_table(layout=True)
        if self._table is not None:
            self._begin_in_table(tag, attributes)
        else:
            self._flush()
            self._begin_block(tag)

    def _begin_block(self, tag: str) -> None:
        if tag == "table":
            self._table = []
        elif tag in ("ul", "ol", "menu"):
            self._items.append(1 if tag == "ol" else None)
        elif tag == "li":
            self._begin_item()
        elif tag == "dd":
            self._tight = True
        elif tag in _HEADINGS:
            self._heading = _HEADINGS[tag]
        elif tag == "pre":
            self._pre += 1

    def _begin_in_table(self, tag: str, attributes: dict[str, str]) -> None:
        assert self._table is not None
        if tag == "tr":
            self._table.append([])
        elif tag in ("td", "th"):
            self._line.clear()
            self._line_linked = 0
            self._cell = Cell("", tag == "th", span(attributes.get("colspan")), span(attributes.get("rowspan")))
        elif tag != "caption":
            self._line.append("\n")

    def _begin_item(self) -> None:
        number = self._items[-1] if self._items else None
        self._marker = "  " * min(len(self._items) - 1, _MAX_DEPTH) + ("- " if number is None else f"{number}. ")
        if number is not None:
            self._items[-1] = number + 1

    def _end(self) -> str:
        """Ends the innermost element; its tag."""
        depth, element = len(self._tags), self._open.pop()
        tag = self._tags.pop()
        self._content -= element.kind in ("content", "article", "body")
        if self._skipped_at is not None:
            if depth == self._skipped_at:
                self._skipped_at = None
            return tag
        if tag == "a":
            self._in_link, self._in_link_within = 0, False
        if tag in _BLOCKS:
            if self._table is not None:
                self._end_in_table(tag)
            else:
                self._end_block(tag)
            self._note_region(element)
            self._titles += self._is_title(element)
        return tag

    def _is_title(self, element: _Open) -> bool:
        """Whether the element that ends shows that the page's content is here: its heading, or much of its prose."""
        prose = self._chars - element.chars - (self._linked - element.linked)
        return element.kind == "content" or (element.tag == "h1" and prose > 0) or (element.kind in ("article", "body") and prose > 800)

    def _end_block(self, tag: str) -> None:
        self._flush()
        if tag in ("ul", "ol", "menu") and self._items:
            self._items.pop()
            self._tight = bool(self._items)
        elif tag == "dl":
            self._tight = False
        elif tag in _HEADINGS:
            self._heading = 0
        elif tag == "pre":
            self._pre = max(0, self._pre - 1)

    def _note_region(self, element: _Open) -> None:
        """Remembers what the element that ends was, if anything."""
        if self._whole or element.first == len(self._parts):
            return
        kind, named = self._kind(element)
        if kind == "furniture" and element.tag in ("form", "noscript") and not named and self._chars - element.chars > 400:
            kind = None
        if kind is None and element.tag in _LISTS and not self._content and self._is_link_list(element):
            kind, named = "links", True
        if kind is not None:
            self._regions.append(Region(kind, element.first, len(self._parts), named, self._titles > element.titles))

    def _kind(self, element: _Open) -> tuple[Kind | None, bool]:
        """What the element that ends is, now that it is known what it begins with: an id may be the slug of that heading."""
        if not element.named or "id" not in element.attributes:
            return element.kind, element.named
        first, in_content = self._parts[element.first], self._content > 0
        title = first.text if first.heading else ""
        linked = self._linked - element.linked + self._within - element.within  # a table of contents is made of links as well
        prose = self._chars - element.chars - linked
        for_links = is_for_links(element.tag, element.attributes, title, in_content=in_content, prose=prose, linked=linked)
        return kind_of(element.tag, element.attributes, in_content=in_content, by_id=not for_links)

    def _is_link_list(self, element: _Open) -> bool:
        chars, linked = self._chars - element.chars, self._linked - element.linked
        return self._links - element.links >= 4 and linked >= 0.8 * chars and linked <= 60 * (self._links - element.links)

    # -- tables -------------------------------------------------------------------------------------------------------

    def _end_in_table(self, tag: str) -> None:
        assert self._table is not None
        if tag in ("td", "th"):
            if not self._table:
                self._table.append([])
            self._cell.text = "".join(self._line)
            self._table[-1].append(self._cell)
            self._line.clear()
        elif tag == "caption":
            self._flush()
        elif tag == "table":
            self._end_table(layout=False)
        else:
            self._line.append(" ")

    def _end_table(self, *, layout: bool) -> None:
        rows, self._table = self._table or [], None
        rest = "".join(self._line)
        self._line.clear()
        if layout or max(map(len, rows), default=0) < 2 or any(len(cell.text) > 1500 for row in rows for cell in row):
            for row in rows:
                for cell in row:
                    self._add(_tidy(cell.text))
        else:
            for number, line in enumerate(grid_lines(rows)):
                self._add(line, tight=number > 0)
        self._add(_tidy(rest))

    # -- text ---------------------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        text = "".join(self._line)
        self._line.clear()
        linked, self._line_linked = self._line_linked, 0
        text = text.strip("\n").rstrip() if self._pre else _tidy(text)
        if not text.strip():
            return
        if self._heading:
            self._parts.append(Part(" ".join(text.split()).rstrip(_PERMALINKS).lstrip("\u00a7"), self._heading, False, linked))
        else:
            self._add(self._marker + text, tight=self._tight and (bool(self._marker) or not self._items), linked=linked)
            self._tight = bool(self._items)
        self._marker = ""

    def _add(self, text: str, *, tight: bool = False, linked: int = 0) -> None:
        if text.strip():
            self._parts.append(Part(text, 0, tight, linked))

    def _add_void(self, tag: str, attributes: dict[str, str]) -> None:
        if self._skipped_at is not None:
            return
        if tag == "br":
            self._line.append("\n")
        elif tag == "hr" and self._table is None:
            self._flush()
        elif tag == "img":
            alt = " ".join(attributes.get("alt", "").split())[:_MAX_FIELD_CHARS]
            # One word, or a file's name, is an icon or says nothing.
            if " " in alt and not _FILE_NAME.fullmatch(alt):
                self._line.append(f"[image: {alt}]")

    def _read_metadata(self, tag: str, attributes: dict[str, str]) -> None:
        if tag == "meta":
            name = (attributes.get("name") or attributes.get("property") or attributes.get("itemprop") or "").strip().lower()
            content = " ".join(attributes.get("content", "")[:_MAX_FIELD_CHARS].split())
            if content and name in _META:
                self.metadata.setdefault(_META[name], content)
        elif tag == "title" and "title" not in self.metadata and self._skipped_at is None:
            self._title = []
        elif tag == "html" and (language := attributes.get("lang")):
            self.metadata["language"] = language[:_MAX_FIELD_CHARS]
        elif tag == "link" and attributes.get("rel", "").lower() == "canonical" and (address := attributes.get("href")):
            self.metadata.setdefault("canonical", address[:_MAX_FIELD_CHARS])

    def finish(self) -> dict[str, Any]:
        """Ends what is still open; the collected text, headings and metadata."""
        while self._open:
            self._end()
        if self._table is not None:
            self._end_table(layout=True)
        self._flush()
        for part in self._parts if self._whole else chosen(self._parts, self._regions):
            if part.heading:
                self.blocks.heading(part.text, part.heading)
            else:
                self.blocks.add(part.text, tight=part.tight)
        title = self.metadata.pop("og:title", None)
        if title and not self.metadata.get("title"):
            self.metadata["title"] = title
        return {**self.blocks.result(), "metadata": {key: value for key, value in self.metadata.items() if value}}


def _tidy(text: str) -> str:
    """Lines without white space at their ends; two line breaks or more (`<br><br>`) stay a blank line."""
    lines = "\n".join(line.strip(" \t\r\f") for line in text.split("\n"))
    return _BLANK_LINES.sub("\n\n", _SPACES_IN_LINE.sub(" ", lines)).strip()


def read_markup(markup: str) -> dict[str, Any]:
    """The text of a web page, its headings and metadata (`title`, `author`, `description`, `date`, `language`, `canonical`).

    What is hidden is read where the page shows nothing else.
    """
    for hidden in (False, True):
        page = MarkupText(whole=False, hidden=hidden)
        page.feed(markup)
        result = page.finish()
        if result["text"].strip():
            break
    return result
