"""An EPUB book becomes text: its chapters in the order of its spine."""

from __future__ import annotations

import posixpath
import urllib.parse
import zipfile
from collections.abc import Iterator
from typing import Any, BinaryIO
from xml.etree import ElementTree

from .blocks import Blocks, one_line
from .markup import MarkupText
from .packages import UnreadableError, child, local, open_package, read_xml
from .texts import NotTextError, decode

_CONTAINER = "META-INF/container.xml"
_DUBLIN_CORE = "{http://purl.org/dc/elements/1.1/}"


def read_book(file: str | BinaryIO, *, max_bytes: int) -> dict[str, Any]:
    """The text of an EPUB, its headings, and what it says of itself (`title`, `author`, `language`, `date`).

    Raises:
        UnreadableError: It is damaged, protected, or unpacks to more than `max_bytes`.
    """
    with open_package(file, kind="EPUB book", max_bytes=max_bytes) as archive:
        if "META-INF/rights.xml" in archive.NameToInfo:
            raise UnreadableError("the book is protected by digital rights management")
        return _read_spine(archive)


def _read_spine(archive: zipfile.ZipFile) -> dict[str, Any]:
    package_path = next(node.attrib["full-path"] for node in read_xml(archive, _CONTAINER).iter() if local(node.tag) == "rootfile")
    package = read_xml(archive, package_path)
    files = {node.attrib["id"]: node.attrib["href"] for node in package.iter() if local(node.tag) == "item"}
    metadata: dict[str, Any] = {}
    for key, name in (("title", "title"), ("author", "creator"), ("language", "language"), ("date", "date")):
        found = package.find(f".//{_DUBLIN_CORE}{name}")
        if found is not None and found.text:
            metadata[key] = one_line(found.text)
    blocks = Blocks()
    chapters = _chapters(archive, package, package_path)
    for node in package.iter():
        href = files.get(node.attrib.get("idref", "")) if local(node.tag) == "itemref" else None
        name = _resolved(package_path, href or "")
        if href is not None and name in archive.NameToInfo:
            page = MarkupText()
            page.feed(_decode(archive.read(name)))
            _add_page(blocks, page.finish(), *chapters.get(name, ("", 1)))
    return {**blocks.result(), "metadata": metadata}


def _decode(chapter: bytes) -> str:
    try:
        return decode(chapter, markup=True).text
    except NotTextError:
        return chapter.decode("utf-8", "replace")  # one damaged chapter costs no book


def _add_page(blocks: Blocks, page: dict[str, Any], chapter: str, level: int) -> None:
    """Adds a page; one without headings has the title that the table of contents gives it."""
    text, headings = page["text"], page["headings"]
    if text and chapter and not headings:
        first = text.partition("\n")[0]
        if first.casefold() == chapter.casefold():
            headings = [(0, len(first), level, first)]
        else:
            blocks.heading(chapter, level)
    blocks.add(text)
    begin = blocks.length - len(text)
    blocks.headings += [(begin + start, begin + end, level, title) for start, end, level, title in headings]


def _chapters(archive: zipfile.ZipFile, package: ElementTree.Element, package_path: str) -> dict[str, tuple[str, int]]:
    """The titles and levels that the table of contents (EPUB 2: NCX; EPUB 3: nav) gives to files."""
    for node in package.iter():
        kind, properties = node.attrib.get("media-type"), node.attrib.get("properties", "").split()
        name = _resolved(package_path, node.attrib.get("href", ""))
        if local(node.tag) == "item" and name in archive.NameToInfo and (kind == "application/x-dtbncx+xml" or "nav" in properties):
            try:
                contents = read_xml(archive, name)
            except ElementTree.ParseError:
                continue  # the book can be read without it
            chapters: dict[str, tuple[str, int]] = {}
            for title, target, level in _entries(contents):
                if title:
                    chapters.setdefault(_resolved(name, target.partition("#")[0]), (title, level))
            return chapters
    return {}


def _entries(contents: ElementTree.Element) -> Iterator[tuple[str, str, int]]:
    """Title, target and level of the entries of a table of contents."""
    waiting = [(contents, 0)]
    while waiting:
        node, level = waiting.pop()
        kind = local(node.tag)
        if kind == "navPoint":
            label, content = child(node, "navLabel", "text"), child(node, "content")
            if label is not None and content is not None:
                yield one_line(label.text or ""), content.attrib.get("src", ""), min(level + 1, 6)
        elif kind == "a":
            yield one_line("".join(node.itertext())), node.attrib.get("href", ""), min(max(level, 1), 6)
        level += kind in ("navPoint", "li")
        waiting.extend((inner, level) for inner in reversed(node))


def _resolved(part: str, reference: str) -> str:
    """The name of the part that another one refers to."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(part), urllib.parse.unquote(reference)))
