"""An EPUB book becomes text: its chapters in the order of its spine."""

from __future__ import annotations

import posixpath
import urllib.parse
import zipfile
from typing import Any

from .blocks import Blocks, one_line
from .markup import MarkupText
from .packages import UnreadableError, local, open_package, read_xml

_CONTAINER = "META-INF/container.xml"
_DUBLIN_CORE = "{http://purl.org/dc/elements/1.1/}"


def read_book(path: str, *, max_bytes: int) -> dict[str, Any]:
    """The text of an EPUB, its headings, and what it says of itself (`title`, `author`, `language`, `date`).

    Raises:
        UnreadableError: It is damaged, protected, or unpacks to more than `max_bytes`.
    """
    with open_package(path, kind="EPUB book", max_bytes=max_bytes) as archive:
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
    for node in package.iter():
        href = files.get(node.attrib.get("idref", "")) if local(node.tag) == "itemref" else None
        if href is None:
            continue
        name = posixpath.normpath(posixpath.join(posixpath.dirname(package_path), urllib.parse.unquote(href)))
        if name in archive.NameToInfo:
            page = MarkupText(blocks)
            page.feed(archive.read(name).decode("utf-8", "replace"))
            page.finish()
    return {**blocks.result(), "metadata": metadata}
