"""What is the answer? The seam between retrieved chunks and an answer with citations."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from ragline.types import Citation, ScoredChunk


@dataclass(frozen=True, slots=True)
class Generated:
    """A finished answer, before the engine adds hits, LSN and timings. `[1]` in `text` is `citations[0]`.

    Attributes:
        dropped_citations: How many markers named nothing that the model was sent; they are not in `text`.
    """

    text: str
    citations: tuple[Citation, ...]
    found: bool
    degraded: tuple[str, ...] = ()
    dropped_citations: int = 0


def evidence_fingerprint(generator: Generator, evidence: Sequence[ScoredChunk]) -> str:
    """Equal again, the generator would be given the same of these documents: their versions, spans, texts and order, and its settings.

    It says nothing about the question.
    """
    digest = hashlib.blake2b(generator.fingerprint.encode(), digest_size=16)
    for chunk in evidence:
        told = (
            chunk.collection,
            chunk.document_id,
            chunk.document_version,
            chunk.start,
            chunk.end,
            chunk.source,
            chunk.heading,
            chunk.page,
        )
        for part in (repr(told).encode("utf-8", "surrogatepass"), chunk.text.encode("utf-8", "surrogatepass")):
            digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


class Generator(Protocol):
    """Answers a question from evidence. Safe to use from many tasks; closing the iterator cancels the work.

    Attributes:
        shares_answers: Whether an answer may be given again to another question that means the same: worth it where answers
            cost time or money.
    """

    shares_answers: bool

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
