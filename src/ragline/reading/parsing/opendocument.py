"""An OpenDocument text becomes text: its headings, paragraphs, lists and tables.

Read here and not by kreuzberg, which drops what stands in a span after a tab, a line break or another span, the text of most
links, and runs of spaces, and joins the paragraphs of a cell (4.10.4: "Name:<tab/>Ada" becomes "Name:").
"""

from __future__ import annotations

import contextlib
import itertools
import posixpath
import re
import zipfile
from collections.abc import Iterator
from typing import Any, BinaryIO
from xml.etree import ElementTree

from .blocks import Blocks, one_line, table_lines
from .grids import span
from .packages import EncryptedError, attribute, child, local, open_package, read_xml

_STREAMED = frozenset({"document-content", "body", "text", "section"})
# Deleted text, comments, what is gathered from the text itself, what is shown elsewhere or not at all.
_UNREAD = frozenset({
    "tracked-changes", "annotation", "table-of-content", "illustration-index", "table-index", "object-index", "user-index",
    "alphabetical-index", "bibliography-source", "forms", "script", "ruby-text", "object", "binary-data", "note",
    "covered-table-cell",
})  # fmt: skip
_SHAPES = frozenset({
    "frame", "g", "rect", "line", "polyline", "polygon", "regular-polygon", "path", "circle", "ellipse", "connector", "caption",
    "measure", "custom-shape", "control",
})  # fmt: skip
# White space of the file is no more than a space between words. What is meant stands for itself until that is done, as
# characters that XML has no place for.
_SPACE, _TAB, _BREAK = "\x01\x02\x03"
_BREAKS = {"tab": _TAB, "line-break": _BREAK}
_WHITE_SPACE = re.compile(r"[ \t\r\n]+")
_MEANT = str.maketrans({_SPACE: " ", _TAB: "\t", _BREAK: "\n", "\u00ad": None})
_ROW_GROUPS = frozenset({"table-header-rows", "table-rows", "table-row-group"})
_MAX_LEVEL = 9
_MAX_DEPTH = 8
_MAX_ANCESTORS = 20
_MAX_REPEATED_CHARS = 1_000_000
"""Of cells that are written once and stand in many rows or columns, in the whole document."""
# Who wrote it stands after who saved it last, which counts where nothing else is told.
_PROPERTIES = {
    "title": "title", "creator": "author", "initial-creator": "author", "subject": "subject", "keyword": "keywords",
    "language": "language", "creation-date": "created", "date": "modified",
}  # fmt: skip


def read_open_document(file: str | BinaryIO, *, max_bytes: int) -> dict[str, Any]:
    """The text of an .odt, its headings, and what it says of itself (`title`, `author`, `created`, ...).

    Tracked deletions, comments, tables of contents and other indexes are left out, and so are headers and footers.
    Footnotes and endnotes stand at the end. Memory does not grow with the document, but for its text.

    Raises:
        UnreadableError: It is damaged, or unpacks to more than `max_bytes`.
        EncryptedError: It has a password.
    """
    with open_package(file, kind="OpenDocument text", max_bytes=max_bytes) as archive:
        _check_manifest(archive)
        document = _Document(archive)
        for block in _blocks(archive):
            document.add(block)
        document.add_notes()
        return {**document.blocks.result(), "metadata": _metadata(archive)}


def _check_manifest(archive: zipfile.ZipFile) -> None:
    name = "META-INF/manifest.xml"
    if name in archive.NameToInfo and any(local(node.tag) == "encryption-data" for node in read_xml(archive, name).iter()):
        raise EncryptedError("it is encrypted")


def _blocks(archive: zipfile.ZipFile) -> Iterator[ElementTree.Element]:
    """The styles and blocks of the content one by one, those of sections as well, each forgotten after use."""
    with archive.open("content.xml") as file:
        path: list[ElementTree.Element] = []
        streamed = 0  # so many of them, from the outermost on, are forgotten piece by piece
        for event, node in ElementTree.iterparse(file, ("start", "end")):
            if event == "start":
                streamed += streamed == len(path) and local(node.tag) in _STREAMED
                path.append(node)
                continue
            path.pop()
            if streamed == len(path):
                yield node
            streamed = min(streamed, len(path))
            if path and streamed == len(path):
                path[-1].clear()


class _Document:
    """A document as it is read: its styles, where its numbered lists stand, and the text so far."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self.blocks = Blocks()
        self._archive = archive
        self._styles = _Styles()
        self._counts: dict[tuple[str, int], int] = {}
        self._notes: dict[str, list[str]] = {"footnote": [], "endnote": []}
        self._formulas: set[str] = set()
        self._repeatable = _MAX_REPEATED_CHARS
        self._in_list = False
        if "styles.xml" in archive.NameToInfo:
            for group in read_xml(archive, "styles.xml"):
                if local(group.tag) == "styles":
                    self._styles.add(group)

    def add(self, node: ElementTree.Element) -> None:
        """Adds a block, or the blocks in what is none."""
        kind = local(node.tag)
        if kind in ("p", "h"):
            self._add_paragraph(node)
        elif kind == "list":
            self._add_list(node, "", 0)
        elif kind == "table":
            self._add_table(node)
        elif kind == "automatic-styles":
            self._styles.add(node)
        elif kind not in _UNREAD:
            for inner in node:
                self.add(inner)

    def add_notes(self) -> None:
        """Adds the footnotes, and then the endnotes, of what was added."""
        for text in itertools.chain.from_iterable(self._notes.values()):
            self.blocks.add(text)

    # -- paragraphs ---------------------------------------------------------------------------------------------------

    def _add_paragraph(self, node: ElementTree.Element, marker: str = "", *, tight: bool = False) -> None:
        text = self._text(node)
        if text.strip():
            level = self._styles.level(node)
            if level:
                self.blocks.heading(text, level)
            else:
                self.blocks.add(marker + text.strip(), tight=tight)
            self._in_list = bool(marker)
        for box in _boxes(node):
            self.add(box)

    def _text(self, node: ElementTree.Element) -> str:
        """The words of a paragraph; a space before or after the text of a whole one means nothing."""
        return _WHITE_SPACE.sub(" ", "".join(self._words(node))).strip(" ").translate(_MEANT)

    def _words(self, node: ElementTree.Element) -> Iterator[str]:
        """The text in a paragraph, without that of the boxes in it: they are paragraphs of their own."""
        yield node.text or ""
        for inner in node:
            kind = local(inner.tag)
            if kind == "s":
                yield _SPACE * span(attribute(inner, "c"))
            elif kind in _BREAKS:
                yield _BREAKS[kind]
            elif kind == "note":
                self._keep_note(inner)
            elif kind == "frame":
                yield self._formula(inner)
            elif kind not in _UNREAD and kind not in _SHAPES:
                yield from self._words(inner)
            yield inner.tail or ""

    def _keep_note(self, note: ElementTree.Element) -> None:
        kept = self._notes["endnote" if attribute(note, "note-class") == "endnote" else "footnote"]
        kept += filter(None, (self._text(paragraph).strip() for paragraph in _paragraphs(note)))

    def _formula(self, frame: ElementTree.Element) -> str:
        """What a frame holds as it was typed in, if it is a formula; each is a document of its own in the package."""
        part = child(frame, "object")
        name = posixpath.normpath(posixpath.join(attribute(part, "href") or "", "content.xml")) if part is not None else ""
        if name not in self._archive.NameToInfo or name in self._formulas:
            return ""
        self._formulas.add(name)
        with contextlib.suppress(ElementTree.ParseError):  # a drawing that is damaged costs itself only
            formula = read_xml(self._archive, name)
            if local(formula.tag) == "math":
                typed = [node for node in formula.iter() if local(node.tag) == "annotation"]
                return one_line(" ".join((typed[0] if typed else formula).itertext()))
        return ""

    # -- lists --------------------------------------------------------------------------------------------------------

    def _add_list(self, node: ElementTree.Element, style: str, depth: int, *, continues: bool = False) -> None:
        """Adds a list; one within another has the style of the outer one, where it has none of its own."""
        style = attribute(node, "style-name") or style
        continues |= attribute(node, "continue-numbering") == "true" or attribute(node, "continue-list") is not None
        if not continues:
            self._counts[style, depth] = self._styles.first_number(style, depth) - 1
        for item in node:
            kind = local(item.tag)
            if kind in ("list-item", "list-header"):
                if (start := attribute(item, "start-value")) is not None:
                    self._counts[style, depth] = _number(start) - 1
                self._add_item(item, style, depth, marked=kind == "list-item", continues=continues)
                continues = False

    def _add_item(self, item: ElementTree.Element, style: str, depth: int, *, marked: bool, continues: bool) -> None:
        indent = "  " * min(depth, _MAX_DEPTH)
        marker = ""
        for node in item:
            kind = local(node.tag)
            if kind == "list":
                # A list that goes on does so at the depth that its first words stand at.
                self._add_list(node, style, depth + 1, continues=continues and not marker)
            elif kind == "p" and marked and not self._styles.level(node):
                # Only the first paragraph of an item is counted; what goes on below it stands under its words.
                marker = indent + "  " if marker else self._marker(style, depth, indent)
                self._add_paragraph(node, marker, tight=self._in_list)
            else:
                self.add(node)

    def _marker(self, style: str, depth: int, indent: str) -> str:
        if not self._styles.is_ordered(style, depth):
            return f"{indent}- "
        count = self._counts[style, depth] = self._counts.get((style, depth), 0) + 1
        return f"{indent}{count}. "

    # -- tables -------------------------------------------------------------------------------------------------------

    def _add_table(self, table: ElementTree.Element) -> None:
        self._in_list = False
        rows = list(_rows(table))
        if all(len(row) < 2 for row in rows):
            # A frame around text.
            for cell in itertools.chain.from_iterable(rows):
                self.add(cell)
            return
        for number, line in enumerate(table_lines(self._filled(rows))):
            self.blocks.add(line, tight=number > 0)

    def _filled(self, rows: list[ElementTree.Element]) -> list[list[str]]:
        """The texts of a table's cells, those that span rows repeated, so that each row can stand alone."""
        filled: list[list[str]] = []
        above: dict[int, tuple[str, int]] = {}  # by column: what goes on in the next rows, and in how many
        for row in rows:
            texts: list[str] = []
            for cell in row:
                text, rows_left = above.pop(len(texts), ("", 0))
                is_covered = local(cell.tag) == "covered-table-cell"
                if not is_covered:
                    text = self._cell(cell)
                    rows_left = self._times(attribute(cell, "number-rows-spanned"), len(text))
                if rows_left > 1:
                    above[len(texts)] = (text, rows_left - 1)
                times = self._times(attribute(cell, "number-columns-repeated"), len(text))
                texts += [text, *["" if is_covered else text] * (times - 1)]
            while texts and not texts[-1]:
                texts.pop()  # up to the edge of the table, which can be far
            filled += [texts] * self._times(attribute(row, "number-rows-repeated"), sum(map(len, texts)))
        return filled

    def _times(self, value: str | None, chars: int) -> int:
        """How often a cell or row stands there, by its attribute, as long as that makes no long text of a short file."""
        times = min(span(value), 1 + self._repeatable // (chars + 1))
        self._repeatable -= (times - 1) * (chars + 1)
        return times

    def _cell(self, cell: ElementTree.Element) -> str:
        return one_line(" ".join(map(self._text, _paragraphs(cell))))


class _Styles:
    """What the styles of a document say of its paragraphs and lists, by their names."""

    def __init__(self) -> None:
        self._levels: dict[str, int] = {}
        self._parents: dict[str, str] = {}
        self._first: dict[tuple[str, int], int] = {}  # numbers, by list and depth; bullets have none

    def add(self, group: ElementTree.Element) -> None:
        for style in group:
            name, kind = attribute(style, "name") or "", local(style.tag)
            if kind == "list-style":
                for level in style:
                    if local(level.tag) == "list-level-style-number" and attribute(level, "num-format"):
                        self._first[name, _number(attribute(level, "level")) - 1] = _number(attribute(level, "start-value"))
            elif kind == "style" and attribute(style, "family") == "paragraph":
                self._parents[name] = attribute(style, "parent-style-name") or ""
                outline = attribute(style, "default-outline-level")
                if outline is not None:
                    self._levels[name] = min(_number(outline), _MAX_LEVEL) if outline else 0

    def level(self, paragraph: ElementTree.Element) -> int:
        """1 for the outermost heading; 0 for a paragraph that is none. A style takes the level of the one it is based on."""
        if local(paragraph.tag) == "h":
            return min(_number(attribute(paragraph, "outline-level")), _MAX_LEVEL)
        name = attribute(paragraph, "style-name") or ""
        for _ in range(_MAX_ANCESTORS):
            if name == "Title":
                return 1
            if name in self._levels or name not in self._parents:
                break
            name = self._parents[name]
        return self._levels.get(name, 0)

    def is_ordered(self, style: str, depth: int) -> bool:
        """Whether a list counts its items at this depth; else they have bullets."""
        return (style, depth) in self._first

    def first_number(self, style: str, depth: int) -> int:
        """What a list begins to count with."""
        return self._first.get((style, depth), 1)


def _boxes(node: ElementTree.Element) -> Iterator[ElementTree.Element]:
    """The shapes and text boxes that hang on a paragraph."""
    for inner in node:
        kind = local(inner.tag)
        if kind in _SHAPES:
            yield inner
        elif kind not in _UNREAD:
            yield from _boxes(inner)


def _paragraphs(node: ElementTree.Element) -> Iterator[ElementTree.Element]:
    """The paragraphs in a cell or note, those of lists, tables and boxes in it as well."""
    for inner in node:
        kind = local(inner.tag)
        if kind in ("p", "h"):
            yield inner
        if kind not in _UNREAD:
            yield from _paragraphs(inner)


def _rows(table: ElementTree.Element) -> Iterator[ElementTree.Element]:
    for node in table:
        kind = local(node.tag)
        if kind == "table-row":
            yield node
        elif kind in _ROW_GROUPS:
            yield from _rows(node)


def _number(value: str | None) -> int:
    """What an attribute says; 1 for nonsense, as where there is none."""
    return int(value) if value and value.isascii() and value.isdigit() and len(value) < 9 else 1


def _metadata(archive: zipfile.ZipFile) -> dict[str, Any]:
    if "meta.xml" not in archive.NameToInfo:
        return {}
    found: dict[str, list[str]] = {}
    for node in itertools.chain.from_iterable(read_xml(archive, "meta.xml")):
        if text := one_line(node.text or ""):
            found.setdefault(local(node.tag), []).append(text)
    return {ours: ", ".join(found[theirs]) for theirs, ours in _PROPERTIES.items() if theirs in found}
