"""Files that are ZIP archives of XML: office documents and books."""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Iterator
from typing import BinaryIO
from xml.etree import ElementTree

_MAX_REASON_CHARS = 300


class EncryptedError(Exception):
    """The content of the file is encrypted."""


class UnreadableError(Exception):
    """The file is not what its type says, or cannot be unpacked; the message says why."""


def reason(exc: BaseException) -> str:
    """What an exception says, on one line and not without end: some repeat what they found in the file."""
    return " ".join(str(exc).split())[:_MAX_REASON_CHARS]


@contextlib.contextmanager
def open_package(file: str | BinaryIO, *, kind: str, max_bytes: int) -> Iterator[zipfile.ZipFile]:
    """Opens an archive whose parts unpack to `max_bytes` at most, and says in plain words what is wrong with it.

    Raises:
        UnreadableError: It is damaged or too large, or a part of it is missing or no XML.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            # No part gives more than it declares: zipfile stops there.
            if sum(info.file_size for info in archive.infolist()) > max_bytes:
                raise UnreadableError(f"the {kind} unpacks to more than {max_bytes:,} bytes")
            yield archive
    except RecursionError:
        raise  # it is sound, and nested too deep
    except (zipfile.BadZipFile, ElementTree.ParseError, KeyError, NotImplementedError, RuntimeError, ValueError, StopIteration) as exc:
        raise UnreadableError(f"it is damaged, or no {kind}: {reason(exc)}") from exc


def check_package(file: BinaryIO, *, kind: str, max_bytes: int) -> None:
    """Refuses what `open_package` would, for a library that reads the file itself; the file stands at its start then."""
    with open_package(file, kind=kind, max_bytes=max_bytes):
        file.seek(0)


def read_xml(archive: zipfile.ZipFile, name: str) -> ElementTree.Element:
    """The tree of one part."""
    return ElementTree.fromstring(archive.read(name))


def local(name: str) -> str:
    """A tag or attribute name without its namespace: documents come in several dialects of the same names."""
    return name.rpartition("}")[2]


def attribute(node: ElementTree.Element, name: str) -> str | None:
    """An attribute by its name without namespace."""
    return next((value for key, value in node.attrib.items() if local(key) == name), None)


def child(node: ElementTree.Element | None, *path: str) -> ElementTree.Element | None:
    """The first descendant along a path of local names."""
    for name in path:
        node = next((inner for inner in node if local(inner.tag) == name), None) if node is not None else None
    return node
