"""Which pages does a site name? Sitemaps, and indexes of sitemaps.

Source: the protocol of sitemaps.org: XML or plain text, also packed with gzip; 50,000 entries and 50 MB at most.
"""

from __future__ import annotations

import zlib
from typing import Any
from xml.parsers import expat

from .packages import UnreadableError

SITEMAP = "application/x-ragline-sitemap"
"""In the place of a media type: the entries of a sitemap are wanted, not its text."""

_MAX_BYTES = 50 * 1024**2
_MAX_ENTRIES = 50_000
_MAX_URL_CHARS = 8192


def read_sitemap(data: bytes) -> dict[str, Any]:
    """The `pages` and further `sitemaps` that a sitemap names, in its order.

    Raises:
        UnreadableError: It is no sitemap, or hides something: entities, more than it may unpack to.
    """
    if data.startswith(b"\x1f\x8b"):
        data = _unpacked(data)
    if data.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] != b"<":
        lines = (line.strip() for line in data.decode("utf-8-sig", "replace").splitlines())
        pages = [line for line in lines if line.lower().startswith(("http://", "https://"))]
        if not pages:
            raise UnreadableError("it is no sitemap")
        return {"pages": pages[:_MAX_ENTRIES], "sitemaps": []}
    reader = _Reader()
    try:
        reader.parser.Parse(data, True)
    except expat.ExpatError as exc:
        raise UnreadableError(f"it is no sitemap: {exc}") from exc
    if reader.root not in ("urlset", "sitemapindex"):
        raise UnreadableError("it is no sitemap")
    return {"pages": reader.pages, "sitemaps": reader.sitemaps}


class _Reader:
    """Collects the text of each `<loc>` by what it stands in."""

    def __init__(self) -> None:
        self.parser = expat.ParserCreate(namespace_separator=" ")
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text
        self.parser.EntityDeclHandler = self._refuse
        self.root = ""
        self.pages: list[str] = []
        self.sitemaps: list[str] = []
        self._open: list[str] = []
        self._loc: list[str] = []
        self._chars = 0

    def _start(self, name: str, _: dict[str, str]) -> None:
        if len(self._open) > 20:
            raise UnreadableError("it is no sitemap: it is nested too deeply")
        self._open.append(name.rpartition(" ")[2])
        self.root = self.root or self._open[0]
        self._loc, self._chars = [], 0

    def _text(self, text: str) -> None:
        self._chars += len(text)
        if self._chars <= _MAX_URL_CHARS:
            self._loc.append(text)

    def _end(self, _: str) -> None:
        path = self._open[-2:]
        self._open.pop()
        entries = {"url": self.pages, "sitemap": self.sitemaps}.get(path[0])
        if path[-1] == "loc" and entries is not None and len(entries) < _MAX_ENTRIES and self._chars <= _MAX_URL_CHARS:
            entries.append("".join(self._loc).strip())

    def _refuse(self, *_: object) -> None:
        raise UnreadableError("it declares entities, which no sitemap needs")


def _unpacked(data: bytes) -> bytes:
    inflate = zlib.decompressobj(wbits=31)
    try:
        unpacked = inflate.decompress(data, _MAX_BYTES)
    except zlib.error as exc:
        raise UnreadableError(f"its gzip content is damaged: {exc}") from exc
    if not inflate.eof:
        raise UnreadableError(f"it is damaged, or unpacks to more than {_MAX_BYTES:,} bytes")
    return unpacked
