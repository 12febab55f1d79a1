"""A file becomes a text with headings and pages, without ever trusting the file."""

from __future__ import annotations

import asyncio
import os
import queue
import stat
import tempfile
from typing import Any

from ragline.concurrency.workers import Workers
from ragline.errors import BackendError, ReadError
from ragline.reading.base import ReadText
from ragline.reading.documents import read_plain
from ragline.reading.parsing import formats
from ragline.reading.parsing.links import LINKS
from ragline.reading.parsing.sitemaps import SITEMAP
from ragline.reading.processes import ParserProcess
from ragline.settings import ReadingSettings
from ragline.types import Heading, Layout

_READ_HERE_BYTES = 2**20
"""Texts up to this size are decoded on a thread: asking a process takes longer. Larger ones could take long enough to hurt."""


class FileReader:
    """Reads files. Safe to use from many tasks; as many files are read at once as there are workers.

    Texts are decoded on a thread; all else is parsed in processes of its own, started when the first file needs
    one. A file on which a parser crashes, hangs or grows fails alone.
    """

    def __init__(self, settings: ReadingSettings) -> None:
        count = settings.workers or os.cpu_count() or 1
        self._settings = settings
        self._workers = Workers("ragline-read", count, nice=10)
        self._parsers = [ParserProcess(settings) for _ in range(count)]
        # The one used last is taken first, so that no more processes are started than are needed.
        self._idle: queue.LifoQueue[ParserProcess] = queue.LifoQueue()
        for parser in self._parsers:
            self._idle.put(parser)
        self._closed = False

    @property
    def pids(self) -> list[int]:
        """The parser processes that were started."""
        return [pid for parser in self._parsers if (pid := parser.pid) is not None]

    async def read(self, path: str) -> ReadText:
        """The text of a file.

        Raises:
            ReadError: It gives no text; the message says why and does not repeat the path.
            BackendError: No parser process can be started, or the reader is closed.
        """
        return await self._workers.run(self._read, path)

    async def read_content(self, content: bytes, name: str) -> ReadText:
        """The text of a file of this name that holds `content`. Raises ReadError and BackendError as `read` does."""
        return await self._workers.run(self._read_content, content, name)

    async def links(self, path: str) -> dict[str, list[str]]:
        """The `links` of an HTML page as it has them, its `base` (one at most), and what its `robots` tags say.

        Raises ReadError and BackendError as `read` does.
        """
        return await self._workers.run(self._outline, path, LINKS)

    async def sitemap(self, path: str) -> dict[str, list[str]]:
        """The `pages` and `sitemaps` that a sitemap names. Raises ReadError and BackendError as `read` does."""
        return await self._workers.run(self._outline, path, SITEMAP)

    def _outline(self, path: str, kind: str) -> dict[str, list[str]]:
        return {name: value for name, value in self._ask(os.path.abspath(path), kind).items() if isinstance(value, list)}

    def _read(self, path: str) -> ReadText:
        try:
            # Looked at before it is opened: opening a named pipe waits, opening a device can do anything.
            if not stat.S_ISREG(os.stat(path).st_mode):
                raise ReadError("it is not a regular file", hint="give a file")
            with open(path, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                self._check_size(size)
                head = file.read(formats.HEAD_BYTES)
                media_type = _media_type(head, path)
                if formats.is_plain(media_type) and size <= _READ_HERE_BYTES:
                    # One byte more than may be: it can have grown since it was measured.
                    data = head + file.read(_READ_HERE_BYTES + 1 - len(head))
                    if len(data) <= _READ_HERE_BYTES:
                        return self._checked(read_plain(data, media_type, formats.suffix(path)))
        except (OSError, ValueError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
            raise ReadError(f"it cannot be read: {reason}", hint="check that it exists and that you may read it") from exc
        return _read_text(self._ask(os.path.abspath(path), media_type))

    def _read_content(self, content: bytes, name: str) -> ReadText:
        self._check_size(len(content))
        media_type = _media_type(content[: formats.HEAD_BYTES], name)
        if formats.is_plain(media_type) and len(content) <= _READ_HERE_BYTES:
            return self._checked(read_plain(content, media_type, formats.suffix(name)))
        try:
            # Parsers take files, and the extension tells them what the bytes do not.
            with tempfile.NamedTemporaryFile(prefix="ragline-", suffix=formats.safe_suffixes(name)) as file:
                file.write(content)
                file.flush()
                return _read_text(self._ask(file.name, media_type))
        except OSError as failure:
            raise BackendError(
                f"a file of {len(content):,} bytes cannot be written to the temporary folder: {failure.strerror}",
                hint="free some space there, or set TMPDIR to another folder",
            ) from failure

    def _check_size(self, size: int) -> None:
        if size == 0:
            raise ReadError("it is empty", hint="there is nothing to ingest")
        if size > self._settings.max_file_bytes:
            raise ReadError(
                f"it holds {size:,} bytes, more than the {self._settings.max_file_bytes:,} allowed",
                hint="split it, or raise reading.max_file_bytes",
            )

    def _checked(self, read: ReadText) -> ReadText:
        if len(read.text) > self._settings.max_text_chars:
            raise ReadError(
                f"it gives {len(read.text):,} characters of text, more than the {self._settings.max_text_chars:,} allowed",
                hint="split it, or raise reading.max_text_chars",
            )
        return read

    def _ask(self, path: str, media_type: str) -> dict[str, Any]:
        parser = self._idle.get()
        try:
            answer = parser.parse(path, media_type)
        finally:
            self._idle.put(parser)
        if "error" in answer:
            raise ReadError(answer["error"], hint=answer["hint"])
        return answer

    async def close(self) -> None:
        """Ends the parser processes; reads under way fail. Twice is harmless."""
        if self._closed:
            return
        self._closed = True
        for parser in self._parsers:
            parser.kill()
        await asyncio.to_thread(self._workers.close)
        for parser in self._parsers:
            parser.reap()


def _media_type(head: bytes, name: str) -> str:
    media_type = formats.by_content(head, name)
    if media_type is None:
        raise ReadError("it is neither text nor of a format that ragline reads", hint=formats.HINT)
    return media_type


def _read_text(answer: dict[str, Any]) -> ReadText:
    headings = tuple(Heading(start, end, level, title) for start, end, level, title in answer["headings"])
    return ReadText(answer["text"], Layout(headings, tuple(answer["pages"])), answer["metadata"], answer["media_type"])
