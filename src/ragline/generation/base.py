"""What is the answer? The seam between retrieved chunks and an answer with citations."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from ragline.types import Citation, ScoredChunk


@dataclass(frozen=True, slots=True)
class Generated:
    """A finished answer, before the engine adds hits, LSN and timings. `[1]` in `text` is `citations[0]`."""

    text: str
    citations: tuple[Citation, ...]
    found: bool
    degraded: tuple[str, ...] = ()


class Generator(Protocol):
    """Answers a question from evidence. Safe to use from many tasks; closing the iterator cancels the work."""

    @property
    def fingerprint(self) -> str:
        """Names the generator and every setting that can change its output: part of answer-cache keys."""
        ...

    def generate(self, question: str, evidence: Sequence[ScoredChunk]) -> AsyncIterator[str | Citation | Generated]:
        """Yields pieces of text and citations as they come, then the `Generated` whole, last and once.

        Every citation points into a chunk of `evidence` and quotes it exactly. Weak evidence gives
        `found=False`, no citations, and a sentence that says so.
        """
        ...

    async def close(self) -> None:
        """Lets go of what it holds. Twice is harmless."""
        ...
