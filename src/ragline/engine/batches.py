"""Sources on their way through an ingest, as many at once as are read, embedded and committed together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from ragline.engine.sources import Found
from ragline.engine.versions import Outcome
from ragline.reading.base import FoundFile
from ragline.reading.web.base import Page
from ragline.storage.base import DocumentWrite, FileState, PutOutcome, Transaction
from ragline.types import Document, FailedSource, Float16, Upload

BATCH_SOURCES = 64
BATCH_BYTES = 4 * 1024**2
"""A batch ends at either bound: it is read, embedded and committed together, so it bounds memory and commit time."""

Met = FoundFile | Page | Document | Upload


class Ledger(Protocol):
    """Keeps account of what becomes of each source, in the very transaction in which it becomes so."""

    async def wanted(self, transaction: Transaction, sources: Sequence[Met]) -> Sequence[bool]:
        """Whether each of the sources is still to be ingested."""
        ...

    async def settle(self, transaction: Transaction, outcomes: Sequence[tuple[Met, PutOutcome | FailedSource]]) -> None:
        """Writes down what became of those that were."""
        ...


@dataclass(slots=True)
class Batch:
    """Sources on their way: found, then read and chunked, then embedded.

    Attributes:
        results: What each source gave, in order; `writes` are those of them that are to be written.
    """

    sources: list[Met] = field(default_factory=list)
    results: list[Outcome | FailedSource] = field(default_factory=list)
    writes: list[DocumentWrite] = field(default_factory=list)
    files: dict[str, FileState] = field(default_factory=dict)
    hashes: list[bytes] = field(default_factory=list)
    vectors: Float16 = field(default_factory=lambda: np.empty((0, 0), np.float16))


def next_sources(found: Iterator[Found]) -> list[Found] | None:
    """As many as make a batch; None at their end."""
    sources: list[Found] = []
    size = 0
    for source in found:
        sources.append(source)
        if isinstance(source, Document):
            size += len(source.text)
        elif isinstance(source, Upload):
            size += len(source.content) if source.content is not None else size_of(str(source.path))
        elif isinstance(source, FoundFile):
            size += size_of(source.path)
        if len(sources) >= BATCH_SOURCES or size >= BATCH_BYTES:
            break
    return sources or None


def settled(
    wanted: Sequence[tuple[Met, Outcome | FailedSource]], outcomes: Sequence[PutOutcome]
) -> list[tuple[Met, PutOutcome | FailedSource]]:
    """What became of each source, given what became of the writes among them."""
    written = iter(outcomes)
    settled: list[tuple[Met, PutOutcome | FailedSource]] = []
    for source, result in wanted:
        if isinstance(result, FailedSource):
            settled.append((source, result))
        else:
            settled.append((source, next(written) if isinstance(result, DocumentWrite) else "unchanged"))
    return settled


def shown_source(source: Met) -> str:
    """What people are shown of a source."""
    if isinstance(source, Document):
        return source.source or source.id or "text"
    return source.source or source.shown_name if isinstance(source, Upload) else source.source


def size_of(path: str | Path) -> int:
    """The size of a file in bytes; 0 for what cannot be looked at."""
    try:
        return Path(path).stat().st_size
    except (OSError, ValueError):
        return 0  # reading it will say what is wrong
