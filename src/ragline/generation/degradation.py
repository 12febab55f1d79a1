"""What an answer says, in words for programs and in sentences for people, where a language model failed.

| word | when | what the answer is |
|---|---|---|
| `llm_unavailable` | the server is down, or answers what makes no sense | quotations |
| `llm_timeout` | the model did not begin in time | quotations |
| `llm_rate_limited` | the server asked to come back later than there is time | quotations |
| `llm_rejected` | the server does not know the model, the key or a setting | quotations |
| `llm_refused` | the model, or its server's filter, would not answer, or not on | what came, then quotations |
| `llm_over_budget` | the question alone takes more than `generation.prompt_tokens` | quotations |
| `llm_interrupted` | it broke off, or ran out of time, after it had begun | what came, then quotations |
| `truncated` | it ran into `generation.max_tokens` | what came; quotations where nothing came |
| `uncited` | it cites nothing that it was sent | the model's, not to be relied on |
"""

from __future__ import annotations

from collections.abc import Sequence

from ragline.generation.base import Generated, Generator
from ragline.types import Citation, ScoredChunk, Turn

LLM_UNAVAILABLE = "llm_unavailable"
LLM_TIMEOUT = "llm_timeout"
LLM_RATE_LIMITED = "llm_rate_limited"
LLM_REJECTED = "llm_rejected"
LLM_REFUSED = "llm_refused"
LLM_OVER_BUDGET = "llm_over_budget"
LLM_INTERRUPTED = "llm_interrupted"
TRUNCATED = "truncated"
UNCITED = "uncited"

SENTENCES = {
    LLM_UNAVAILABLE: "The language model could not be reached",
    LLM_TIMEOUT: "The language model took too long",
    LLM_RATE_LIMITED: "The language model has too much to do",
    LLM_REJECTED: "The language model's server rejected the request",
    LLM_REFUSED: "The language model declined to answer",
    LLM_OVER_BUDGET: "The question is too long for the language model",
    TRUNCATED: "The language model reached its token limit before it answered",
}
"""How an answer that is not the model's begins, by its word."""

BROKEN_OFF = "The answer of the language model broke off here"
"""What follows on the part of an answer that came, whatever happened then."""


async def quotations(
    word: str, fallback: Generator, question: str, evidence: Sequence[ScoredChunk], history: Sequence[Turn], told: Generated
) -> list[str | Citation | Generated]:
    """What is still to be told after a model failed: a sentence that says so, quotations, the whole.

    Args:
        word: What happened.
        fallback: Makes the quotations; its markers stand right before their citations.
        told: What the reader already has; empty where the model never began.
    """
    pieces: list[str | Citation] = []
    quoted = Generated("", (), found=False)
    async for piece in fallback.generate(question, evidence, history):
        if isinstance(piece, Generated):
            quoted = piece
        else:
            pieces.append(piece)
    said = f"\n\n{BROKEN_OFF}" if told.text else SENTENCES[word]
    said += (
        "; these are quotations from the documents.\n\n" if quoted.found else ", and no quotation from the documents answers the question."
    )
    rest = [said, *_renumbered(pieces, len(told.citations))] if quoted.found else [said]
    whole = Generated(
        told.text + "".join(piece for piece in rest if isinstance(piece, str)),
        (*told.citations, *quoted.citations),
        found=quoted.found or bool(told.citations),
        degraded=(word, *quoted.degraded),
        dropped_citations=told.dropped_citations,
    )
    return [*rest, whole]


def _renumbered(pieces: Sequence[str | Citation], before: int) -> list[str | Citation]:
    """The pieces with their markers counted on from those before."""
    renumbered = list(pieces)
    number = 0
    for place, piece in enumerate(pieces):
        if isinstance(piece, Citation):
            number += 1
            marker = pieces[place - 1]
            assert isinstance(marker, str)
            renumbered[place - 1] = f"{marker.removesuffix(f'[{number}]')}[{number + before}]"
    return renumbered
