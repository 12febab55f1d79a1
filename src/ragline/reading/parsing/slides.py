"""A presentation becomes text: slide by slide, with tables, notes, and what is said of its pictures.

Read here and not by kreuzberg, which gives no bounds between slides (4.10.4) and leaves out the notes.
"""

from __future__ import annotations

import posixpath
import zipfile
from collections.abc import Iterator
from typing import Any, BinaryIO
from xml.etree import ElementTree

from .blocks import Blocks, one_line, table_lines
from .packages import attribute, child, local, open_package, read_xml
from .word import core_properties

_TITLES = frozenset({"title", "ctrTitle"})
_FURNITURE = frozenset({"dt", "ftr", "sldNum", "hdr"})
_MAX_DEPTH = 8


def read_slides(file: str | BinaryIO, *, max_bytes: int) -> dict[str, Any]:
    """The text of a .pptx, with a heading and a page for each slide, and what it says of itself.

    Dates, footers and numbers that every slide repeats are left out. What SmartArt and charts show is not read.

    Raises:
        UnreadableError: It is damaged, or unpacks to more than `max_bytes`.
    """
    with open_package(file, kind="presentation", max_bytes=max_bytes) as archive:
        main = next(target for kind, target in _relations(archive, "").values() if kind == "officeDocument")
        relations = _relations(archive, main)
        order = [attribute_of_id(node) for node in read_xml(archive, main).iter() if local(node.tag) == "sldId"]
        blocks = Blocks()
        for number, name in enumerate((relations[key][1] for key in order if key in relations), 1):
            _add_slide(blocks, archive, name, number)
        return {**blocks.result(), "metadata": core_properties(archive)}


def attribute_of_id(node: ElementTree.Element) -> str:
    """The relation that a node names (`r:id`; it has an `id` without namespace as well)."""
    return next((value for key, value in node.attrib.items() if key.endswith("}id")), "")


def _relations(archive: zipfile.ZipFile, part: str) -> dict[str, tuple[str, str]]:
    """What a part refers to inside the package: kind and name, by id."""
    folder = posixpath.dirname(part)
    name = posixpath.join(folder, "_rels", f"{posixpath.basename(part)}.rels")
    if name not in archive.NameToInfo:
        return {}
    found = {}
    for node in read_xml(archive, name):
        if attribute(node, "TargetMode") != "External":
            target = attribute(node, "Target") or ""
            path = target.lstrip("/") if target.startswith("/") else posixpath.normpath(posixpath.join(folder, target))
            found[attribute(node, "Id") or ""] = ((attribute(node, "Type") or "").rpartition("/")[2], path)
    return found


def _add_slide(blocks: Blocks, archive: zipfile.ZipFile, name: str, number: int) -> None:
    shapes = list(_shapes(read_xml(archive, name)))
    titles = [one_line(" ".join(text for text, _ in _paragraphs(shape))) for shape in shapes if _placeholder(shape) in _TITLES]
    title = next(filter(None, titles), "")
    blocks.page()
    blocks.heading(f"Slide {number}: {title}" if title else f"Slide {number}", 1)
    for shape in shapes:
        kind = _placeholder(shape)
        if kind not in _FURNITURE and kind not in _TITLES:
            _add_shape(blocks, shape)
    for kind, target in _relations(archive, name).values():
        if kind == "notesSlide" and target in archive.NameToInfo:
            notes = [shape for shape in _shapes(read_xml(archive, target)) if _placeholder(shape) == "body"]
            text = "\n".join(text for shape in notes for text, _ in _paragraphs(shape))
            if text.strip():
                blocks.add(f"Notes: {text}")


def _shapes(root: ElementTree.Element) -> Iterator[ElementTree.Element]:
    """The shapes, pictures and tables of a slide in their order, those in groups as well; not the older twins of drawings."""
    waiting = [root]
    while waiting:
        node = waiting.pop()
        kind = local(node.tag)
        if kind in ("sp", "pic", "graphicFrame", "cxnSp"):
            yield node
        elif kind != "Fallback":
            waiting.extend(reversed(node))


def _placeholder(shape: ElementTree.Element) -> str:
    """What a shape is in its layout: "title", "body", ...; "" for one that stands for itself."""
    for node in shape:
        if local(node.tag).startswith("nv"):
            mark = child(node, "nvPr", "ph")
            return "" if mark is None else attribute(mark, "type") or "body"
    return ""


def _add_shape(blocks: Blocks, shape: ElementTree.Element) -> None:
    table = next((node for node in shape.iter() if local(node.tag) == "tbl"), None)
    if table is not None:
        rows = [[_cell(cell) for cell in row if local(cell.tag) == "tc"] for row in table if local(row.tag) == "tr"]
        for number, line in enumerate(table_lines(rows)):
            blocks.add(line, tight=number > 0)
        return
    if local(shape.tag) == "pic":
        description = next((attribute(node, "descr") or "" for node in shape.iter() if local(node.tag) == "cNvPr"), "")
        if " " in description.strip():
            blocks.add(f"[image: {one_line(description)}]")
        return
    paragraphs = [(text, depth) for text, depth in _paragraphs(shape) if text.strip()]
    is_list = len(paragraphs) > 1 and _placeholder(shape) in ("body", "obj")
    for number, (text, depth) in enumerate(paragraphs):
        blocks.add(f"{'  ' * min(depth, _MAX_DEPTH)}- {text}" if is_list else text, tight=number > 0)


def _paragraphs(shape: ElementTree.Element) -> Iterator[tuple[str, int]]:
    """The paragraphs of a shape and how deep each is indented."""
    for node in shape.iter():
        if local(node.tag) == "p":
            properties = child(node, "pPr")
            depth = attribute(properties, "lvl") if properties is not None else None
            yield "".join(_words(node)).strip(), int(depth) if depth and depth.isdigit() else 0


def _words(paragraph: ElementTree.Element) -> Iterator[str]:
    for node in paragraph.iter():
        kind = local(node.tag)
        if kind == "t":
            yield node.text or ""
        elif kind in ("br", "tab"):
            yield "\n" if kind == "br" else "\t"


def _cell(cell: ElementTree.Element) -> str:
    return one_line(" ".join(text for text, _ in _paragraphs(cell)))
