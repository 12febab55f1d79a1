"""What is the answer? The seam between retrieved chunks and an answer with citations."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from ragline.types import Citation, ScoredChunk, Turn


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


def evidence_fingerprint(generator: Generator, evidence: Sequence[ScoredChunk], history: Sequence[Turn] = ()) -> str:
    """Equal again, the generator would be given the same beside the question: documents, history, settings.

    Of the documents their versions, spans, texts and order count.
    """
    digest = hashlib.blake2b(generator.fingerprint.encode(), digest_size=16)
    for turn in history:
        _add(digest, turn.role, turn.text)
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
        _add(digest, repr(told), chunk.text)
    return digest.hexdigest()


def _add(digest: hashlib.blake2b, *texts: str) -> None:
    for text in texts:
        part = text.encode("utf-8", "surrogatepass")
        digest.update(len(part).to_bytes(8, "big") + part)


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

    def generate(
        self, question: str, evidence: Sequence[ScoredChunk], history: Sequence[Turn] = ()
    ) -> AsyncIterator[str | Citation | Generated]:
        """Yields pieces of text and citations as they come, then the `Generated` whole, last and once.

        `history` is what was said before, oldest first; it is no evidence.

        Every citation points into a chunk of `evidence` and quotes it exactly. Weak evidence gives
        `found=False`, no citations, and a sentence that says so.
        """
        ...

    async def close(self) -> None:
        """Lets go of what it holds. Twice is harmless."""
        ...
