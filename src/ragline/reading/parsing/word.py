"""A Word document becomes text: its headings, paragraphs, lists and tables.

Read here and not by kreuzberg, which drops every `&amp;`, `&lt;` and `&#233;` of a .docx (4.10.4: "R&D" becomes "RD").
"""

from __future__ import annotations

import itertools
import posixpath
import re
import zipfile
from collections.abc import Iterator
from typing import Any, BinaryIO
from xml.etree import ElementTree

from .blocks import Blocks, one_line, table_lines
from .packages import attribute, child, local, open_package, read_xml

# Deleted and moved text, what is shown elsewhere, and the older twin of a drawing (`mc:Fallback`).
_UNREAD = frozenset({"del", "moveFrom", "delText", "instrText", "pPr", "rPr", "Fallback", "sectPr"})
_HOLDERS = frozenset({"sdt", "sdtContent", "ins", "moveTo", "customXml", "smartTag"})
_MAX_SPAN = 100
"""Word has 63 columns at most."""
_BREAKS = {"tab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-", "softHyphen": ""}
_HEADING_STYLE = re.compile(r"(?:heading|überschrift|titre|título|titolo|kop) ?([1-9])", re.IGNORECASE)
_PROPERTIES = {
    "title": "title", "creator": "author", "subject": "subject", "keywords": "keywords", "language": "language", "created": "created",
    "modified": "modified",
}  # fmt: skip


def read_word(file: str | BinaryIO, *, max_bytes: int) -> dict[str, Any]:
    """The text of a .docx, its headings, and what it says of itself (`title`, `author`, `created`, ...).

    Tracked deletions are left out, insertions are read; headers, footers and comments are not. Footnotes stand at
    the end. Memory does not grow with the document, but for its text.

    Raises:
        UnreadableError: It is damaged, or unpacks to more than `max_bytes`.
    """
    with open_package(file, kind="Word document", max_bytes=max_bytes) as archive:
        main = _main_part(archive)
        folder = posixpath.dirname(main)
        document = _Document(archive, folder)
        for block in _blocks(archive, main):
            document.add(block)
        for notes in ("footnotes", "endnotes"):
            if f"{folder}/{notes}.xml" in archive.NameToInfo:
                for note in read_xml(archive, f"{folder}/{notes}.xml"):
                    document.add_note(note)
        return {**document.blocks.result(), "metadata": core_properties(archive)}


def _main_part(archive: zipfile.ZipFile) -> str:
    for relation in read_xml(archive, "_rels/.rels"):
        if (attribute(relation, "Type") or "").endswith("/officeDocument"):
            return (attribute(relation, "Target") or "").lstrip("/")
    raise KeyError("it names no main part")


def _blocks(archive: zipfile.ZipFile, name: str) -> Iterator[ElementTree.Element]:
    """The elements of the body one by one, each forgotten after use."""
    with archive.open(name) as file:
        depth = 0
        body: ElementTree.Element | None = None
        for event, node in ElementTree.iterparse(file, ("start", "end")):
            if event == "start":
                depth += 1
                if depth == 2 and local(node.tag) == "body":
                    body = node
            else:
                depth -= 1
                if depth == 2 and body is not None:
                    yield node
                    body.clear()


class _Document:
    """A document as it is read: its styles, where its numbered lists stand, and the text so far."""

    def __init__(self, archive: zipfile.ZipFile, folder: str) -> None:
        self.blocks = Blocks()
        self._levels = _heading_levels(archive, f"{folder}/styles.xml")
        self._ordered = _ordered_levels(archive, f"{folder}/numbering.xml")
        self._counts: dict[tuple[str, int], int] = {}
        self._in_list = False

    def add(self, node: ElementTree.Element) -> None:
        kind = local(node.tag)
        if kind == "p":
            self._add_paragraph(node)
        elif kind == "tbl":
            self._add_table(node)
        elif kind in _HOLDERS:
            for inner in node:
                self.add(inner)

    def add_note(self, note: ElementTree.Element) -> None:
        if attribute(note, "type") in (None, "normal"):
            for inner in note:
                self.add(inner)

    def _add_paragraph(self, node: ElementTree.Element) -> None:
        text = "".join(_words(node))
        if text.strip():
            level = self._heading_level(node)
            marker = "" if level else self._marker(node)
            if level:
                self.blocks.heading(text, level)
            else:
                self.blocks.add(marker + text.strip(), tight=bool(marker) and self._in_list)
            self._in_list = bool(marker)
        for box in _boxes(node):
            for inner in box:
                self.add(inner)

    def _add_table(self, node: ElementTree.Element) -> None:
        self._in_list = False
        rows = _rows(node)
        if max(map(len, rows), default=0) == 1:
            for row in rows:
                self.blocks.add(row[0] if row else "")
            return
        for number, line in enumerate(table_lines(rows)):
            self.blocks.add(line, tight=number > 0)

    def _heading_level(self, node: ElementTree.Element) -> int:
        """1 for the outermost; 0 for a paragraph that is no heading."""
        style = child(node, "pPr", "pStyle")
        own = child(node, "pPr", "outlineLvl")
        if own is not None:
            level = int(attribute(own, "val") or 9)
            return level + 1 if level < 9 else 0
        return self._levels.get(attribute(style, "val") or "", 0) if style is not None else 0

    def _marker(self, node: ElementTree.Element) -> str:
        numbering = child(node, "pPr", "numPr")
        number, depth = child(numbering, "numId"), child(numbering, "ilvl")
        if number is None or (list_id := attribute(number, "val") or "0") == "0":
            return ""
        level = int(attribute(depth, "val") or 0) if depth is not None else 0
        indent = "  " * level
        if (list_id, level) not in self._ordered:
            return f"{indent}- "
        count = self._counts[list_id, level] = self._counts.get((list_id, level), 0) + 1
        for deeper in [key for key in self._counts if key[0] == list_id and key[1] > level]:
            del self._counts[deeper]
        return f"{indent}{count}. "


def _words(node: ElementTree.Element) -> Iterator[str]:
    """The text of a paragraph, without that of the boxes in it: they are paragraphs of their own."""
    for inner in node:
        kind = local(inner.tag)
        if kind == "t":
            yield inner.text or ""
        elif kind in _BREAKS:
            yield _BREAKS[kind]
        elif kind not in _UNREAD and kind != "txbxContent":
            yield from _words(inner)


def _boxes(node: ElementTree.Element) -> Iterator[ElementTree.Element]:
    """The text boxes that hang on a paragraph."""
    for inner in node:
        kind = local(inner.tag)
        if kind == "txbxContent":
            yield inner
        elif kind not in _UNREAD:
            yield from _boxes(inner)


def _rows(table: ElementTree.Element) -> list[list[str]]:
    """The cells of a table, each where its column is: one that spans columns is followed by blanks, one that spans rows is repeated."""
    rows: list[list[str]] = []
    above: dict[int, str] = {}  # by column: what a cell that goes on in the row below says
    for row in _within(table, "tr"):
        if child(row, "trPr", "del") is not None:
            continue
        cells = [""] * _span(child(row, "trPr", "gridBefore"), default=0)
        for cell in _within(row, "tc"):
            column, merged = len(cells), child(cell, "tcPr", "vMerge")
            goes_on = merged is not None and attribute(merged, "val") != "restart"
            text = above.get(column, "") if goes_on else _cell(cell)
            if merged is None:
                above.pop(column, None)
            else:
                above[column] = text
            cells += [text, *[""] * (_span(child(cell, "tcPr", "gridSpan")) - 1)]
        rows.append(cells)
    return rows


def _within(node: ElementTree.Element, kind: str) -> Iterator[ElementTree.Element]:
    """The rows of a table, or the cells of a row, also those in content controls and insertions."""
    for inner in node:
        if local(inner.tag) == kind:
            yield inner
        elif local(inner.tag) in _HOLDERS:
            yield from _within(inner, kind)


def _span(node: ElementTree.Element | None, *, default: int = 1) -> int:
    value = (attribute(node, "val") or "") if node is not None else ""
    return min(int(value), _MAX_SPAN) if value.isdecimal() else default


def _cell(cell: ElementTree.Element) -> str:
    paragraphs = ("".join(_words(node)) for node in cell.iter() if local(node.tag) == "p")
    return one_line(" ".join(paragraphs))


def _heading_levels(archive: zipfile.ZipFile, name: str) -> dict[str, int]:
    """The levels of the styles that are headings, by style id; a style takes that of the one it is based on."""
    if name not in archive.NameToInfo:
        return {}
    levels: dict[str, int] = {}
    based: dict[str, str] = {}
    for style in read_xml(archive, name):
        style_id = attribute(style, "styleId")
        if local(style.tag) != "style" or style_id is None:
            continue
        title, outline, parent = child(style, "name"), child(style, "pPr", "outlineLvl"), child(style, "basedOn")
        style_name = (attribute(title, "val") or "") if title is not None else ""
        if parent is not None:
            based[style_id] = attribute(parent, "val") or ""
        if named := _HEADING_STYLE.fullmatch(style_name):
            levels[style_id] = int(named[1])
        elif style_name.lower() == "title":
            levels[style_id] = 1
        elif outline is not None:
            level = int(attribute(outline, "val") or 9)
            levels[style_id] = level + 1 if level < 9 else 0
    for style_id in based:
        ancestors = itertools.islice(_ancestors(style_id, based), 20)
        levels.setdefault(style_id, next((levels[parent] for parent in ancestors if parent in levels), 0))
    return levels


def _ancestors(style_id: str, based: dict[str, str]) -> Iterator[str]:
    while style_id in based:
        style_id = based[style_id]
        yield style_id


def _ordered_levels(archive: zipfile.ZipFile, name: str) -> set[tuple[str, int]]:
    """Which (list, depth) count their items; the others have bullets."""
    if name not in archive.NameToInfo:
        return set()
    root = read_xml(archive, name)
    formats: dict[str, dict[int, str]] = {}
    for node in root:
        if local(node.tag) == "abstractNum":
            depths = formats.setdefault(attribute(node, "abstractNumId") or "", {})
            for level in node:
                if local(level.tag) == "lvl" and (numbering := child(level, "numFmt")) is not None:
                    depths[int(attribute(level, "ilvl") or 0)] = attribute(numbering, "val") or ""
    ordered = set()
    for node in root:
        abstract = child(node, "abstractNumId")
        if local(node.tag) == "num" and abstract is not None:
            for depth, kind in formats.get(attribute(abstract, "val") or "", {}).items():
                if kind not in ("bullet", "none"):
                    ordered.add((attribute(node, "numId") or "", depth))
    return ordered


def core_properties(archive: zipfile.ZipFile) -> dict[str, Any]:
    """What an office file says of itself: `title`, `author`, `created`, ..."""
    if "docProps/core.xml" not in archive.NameToInfo:
        return {}
    found = {_PROPERTIES.get(local(node.tag)): one_line(node.text or "") for node in read_xml(archive, "docProps/core.xml")}
    return {key: value for key, value in found.items() if key and value}
