"""What an ingest was given, looked up: paths and patterns become files, URLs become pages."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ragline.concurrency.workers import Workers
from ragline.errors import InputError
from ragline.reading.base import FoundFile
from ragline.reading.walk import find_files, local_path
from ragline.reading.web.base import FoundPage, PageError
from ragline.reading.web.urls import is_url, parse_url, shown
from ragline.types import Document, FailedSource, SkippedSource, Upload

Source = str | Path | Document | Upload
"""A path (file, folder or pattern), a URL (a string that begins with http:// or https://), a text, or a file with an id of its own."""

Found = FoundFile | FoundPage | Document | Upload


class Sources:
    """The sources of one ingest.

    Args:
        hidden: Whether to enter what begins with a dot.
        exclude: Folders that are not entered: the store's own.

    Attributes:
        total: How many there are; None where only their end tells.
        skipped, failed: What was met and will not be read.
        uris: Of the files and pages found. Each is given once.
        folders: URIs of the folders that were given.
    """

    def __init__(self, workers: Workers, *, hidden: bool, exclude: Sequence[Path]) -> None:
        self._workers = workers
        self._hidden = hidden
        self._exclude = exclude
        self.total: int | None = None
        self.skipped: list[SkippedSource] = []
        self.failed: list[FailedSource] = []
        self.uris: set[str] = set()
        self.folders: set[str] = set()

    async def find(self, sources: Iterable[Source]) -> Iterator[Found]:
        """Looks paths up first, so that progress knows its end; documents come as their iterable gives them."""
        sources = one_by_one(sources)
        paths: list[str | Path] = []
        rest: Iterator[Source] = iter(())
        for source in sources:
            if not isinstance(source, str | Path):
                rest = itertools.chain([source], sources)
                break
            paths.append(source)
        found = await self._workers.run(self._look_up, paths)
        if paths and not isinstance(rest, itertools.chain):
            self.total = len(found)
        return itertools.chain(found, self._mixed(rest))

    def _mixed(self, sources: Iterator[Source]) -> Iterator[Found]:
        for source in sources:
            if isinstance(source, Document | Upload):
                yield source
            elif isinstance(source, str | Path):
                yield from self._look_up([source])
            else:
                raise _not_a_source(source)

    def _look_up(self, sources: Sequence[str | Path]) -> list[FoundFile | FoundPage]:
        found: list[FoundFile | FoundPage] = []
        for of_web, group in itertools.groupby(sources, lambda source: isinstance(source, str) and is_url(source)):
            of_kind = list(group)
            found += self._pages(map(str, of_kind)) if of_web else self._files(of_kind)
        return found

    def _files(self, paths: Sequence[str | Path]) -> Iterator[FoundFile]:
        self.folders.update(_folders(paths))
        for entry in find_files(paths, hidden=self._hidden, exclude=self._exclude):
            if isinstance(entry, FoundFile):
                if self._is_new(entry.uri):
                    yield entry
            elif isinstance(entry, SkippedSource):
                self.skipped.append(entry)
            else:
                self.failed.append(entry)

    def _pages(self, urls: Iterable[str]) -> Iterator[FoundPage]:
        for text in urls:
            try:
                page = FoundPage(str(parse_url(text)))
            except PageError as failure:
                self.failed.append(FailedSource(shown(text), failure.message, failure.hint))
                continue
            if self._is_new(page.uri):
                yield page

    def _is_new(self, uri: str) -> bool:
        known = uri in self.uris
        self.uris.add(uri)
        return not known


def _folders(paths: Iterable[str | Path]) -> Iterator[str]:
    for path in paths:
        with contextlib.suppress(ValueError):  # the walk says what is wrong with it
            folder = local_path(os.fspath(path))
            if os.path.isdir(folder):
                yield Path(os.path.realpath(folder)).as_uri()


def one_by_one(sources: Any) -> Iterator[Any]:
    """The sources of an iterable, or what was given instead: the keys of a mapping, single bytes and lines of a file are none."""
    several = isinstance(sources, Iterable) and not isinstance(sources, Mapping | bytes | bytearray | memoryview)
    return iter(sources if several and not hasattr(sources, "read") else [sources])


def _not_a_source(value: object) -> InputError:
    return InputError(
        f"{type(value).__name__} cannot be ingested",
        hint="give paths, URLs, ragline.Document(text=...) for a text, or ragline.Upload(content=..., name=...) for the bytes of a file",
    )
