"""A page's body on its way into a file: unpacked, counted and hashed as it comes."""

from __future__ import annotations

import codecs
import contextlib
import hashlib
import os
import zlib
from collections.abc import Iterator

from ragline.reading.web.base import PageError

_GZIP = b"\x1f\x8b"
_PIECE = 256 * 1024
_MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class Body:
    """The file that a body is written into. One thread at a time; `close` from any.

    Attributes:
        digest: Once finished: of what was sent, its encoding and the file's extension.

    Args:
        gzipped: Whether the bytes come packed (Content-Encoding).
        max_bytes: The most bytes, packed and unpacked alike: a bomb ends while it unpacks.
        truncate: Whether what is more is left out, instead of being an error.

    Raises:
        PageError: There is no room for it; so do `feed` and `finish`.
    """

    def __init__(self, path: str, *, gzipped: bool, max_bytes: int, truncate: bool = False) -> None:
        self.path = path
        self.size = 0
        self.digest = ""
        self._received = 0
        self._max_bytes = max_bytes
        self._truncate = truncate
        self._hash = hashlib.blake2b(os.path.splitext(path)[1].encode(), digest_size=16)
        self._inflate = zlib.decompressobj(wbits=31) if gzipped else None
        with _storing():
            self._file = open(path, "w+b")  # noqa: SIM115 - closed by `close`

    @property
    def full(self) -> bool:
        """Whether nothing more is taken."""
        return self._truncate and max(self.size, self._received) >= self._max_bytes

    def feed(self, data: bytes) -> None:
        """Takes the next bytes.

        Raises:
            PageError: They are too many, or damaged.
        """
        self._received += len(data)
        if self._received > self._max_bytes and not self._truncate:
            raise self._too_large()
        if self._inflate is None:
            self._write(data)
        else:
            self._unpack(data)

    def finish(self, encoding: str | None, *, may_be_empty: bool = False) -> None:
        """Ends the file; text in the encoding that the server named is kept as UTF-8 with its mark, which readers obey.

        Raises:
            PageError: It is empty, or ended in the middle.
        """
        if self._inflate is not None and not self._inflate.eof and not self.full:
            raise PageError("its gzip content ended early", hint="try again later", retry_s=0.0)
        if not self.size and not may_be_empty:
            raise PageError("the server sent an empty page", hint="there is nothing to ingest")
        with _storing():
            if encoding is not None:
                self._transcode(encoding)
            self._file.flush()
        self._hash.update(repr(encoding).encode())
        self.digest = self._hash.hexdigest()

    def close(self) -> None:
        """Closes the file; it stays where it is. Twice is harmless."""
        with contextlib.suppress(OSError):  # `finish` has told of what could not be written
            self._file.close()

    def _unpack(self, data: bytes) -> None:
        assert self._inflate is not None
        try:
            while not self.full:
                piece = self._inflate.decompress(data, _PIECE)
                self._write(piece)
                data = self._inflate.unconsumed_tail
                if self._inflate.eof:
                    data = self._inflate.unused_data
                    if not data.startswith(_GZIP):
                        return  # its end, or padding behind it
                    self._inflate = zlib.decompressobj(wbits=31)
                elif not data and len(piece) < _PIECE:
                    return
        except zlib.error as failure:
            raise PageError("its gzip content is damaged", hint="try again later") from failure

    def _write(self, data: bytes) -> None:
        if self.size + len(data) > self._max_bytes:
            if not self._truncate:
                raise self._too_large()
            data = data[: self._max_bytes - self.size]
        self.size += len(data)
        self._hash.update(data)
        with _storing():
            self._file.write(data)

    def _transcode(self, encoding: str) -> None:
        self._file.seek(0)
        if self._file.read(4).startswith(_MARKS):
            return  # says more reliably than a server what it is
        self._file.seek(0)
        decoder = codecs.getincrementaldecoder(encoding)()
        decoded = f"{self.path}.utf8"
        try:
            # In pieces: a whole page at once would hold up other threads, and take several times its size.
            with open(decoded, "wb") as out:
                out.write(codecs.BOM_UTF8)
                while piece := self._file.read(_PIECE):
                    out.write(decoder.decode(piece).encode("utf-8", "replace"))
                out.write(decoder.decode(b"", True).encode("utf-8", "replace"))
        except UnicodeDecodeError:
            os.unlink(decoded)  # the server is wrong; the reader finds out by itself
        else:
            os.replace(decoded, self.path)

    def _too_large(self) -> PageError:
        return PageError(f"it is larger than {self._max_bytes:,} bytes", hint="raise web.max_bytes if the page is sound")


@contextlib.contextmanager
def _storing() -> Iterator[None]:
    try:
        yield
    except OSError as failure:
        raise PageError(f"it cannot be stored: {failure.strerror}", hint="make room, or name another TMPDIR") from failure
