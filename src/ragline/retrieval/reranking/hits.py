"""The best hits in the order that a reranker gives them; in their own where it fails."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ragline.errors import BackendError, DeadlineError, OverloadedError, RaglineError
from ragline.retrieval.reranking.base import Reranker
from ragline.types import Float32, Int64, ScoredChunk

RERANK_UNAVAILABLE = "rerank_unavailable"
"""Degraded: the reranker failed, and the hits are in the order of the search."""

RERANK_TIMEOUT = "rerank_timeout"
"""Degraded: the reranker took too long, and the hits are in the order of the search."""

log = logging.getLogger("ragline.retrieval")


@dataclass(frozen=True, slots=True)
class Reranked:
    """Hits in their new order.

    Attributes:
        hits: Best first; where reranking went well, with the scores of the reranker.
        places: `(n,)`, where each stood before.
    """

    hits: Sequence[ScoredChunk]
    places: Int64
    degraded: tuple[str, ...] = ()


async def rerank_hits(reranker: Reranker, question: str, hits: Sequence[ScoredChunk], *, candidates: int, timeout_s: float) -> Reranked:
    """Reorders the first `candidates` hits; the others follow in their order. Never fails for the reranker's sake.

    A hit behind them scores as much below the worst that was reranked as it scored below the last of them before, so
    that scores of one result keep falling. Ties keep their order.
    """
    asked = hits[:candidates]
    if not asked:
        return Reranked(hits, np.arange(len(hits)))
    passages = [f"{hit.heading}\n{hit.text}" if hit.heading else hit.text for hit in asked]
    try:
        async with asyncio.timeout(timeout_s):
            scores = await reranker.rerank(question, passages)
        _check(scores, len(asked), reranker.name)
    except (BackendError, OverloadedError, DeadlineError, TimeoutError) as error:
        slow = isinstance(error, DeadlineError | TimeoutError)
        reason = error.message if isinstance(error, RaglineError) else f"it took longer than {timeout_s:g} s"
        log.warning("hits were not reranked: %s", reason)
        return Reranked(hits, np.arange(len(hits)), (RERANK_TIMEOUT if slow else RERANK_UNAVAILABLE,))
    order = np.argsort(-scores, kind="stable")
    reordered = [replace(asked[place], score=float(scores[place])) for place in order.tolist()]
    fall = reordered[-1].score - asked[-1].score
    rest = [replace(hit, score=hit.score + fall) for hit in hits[len(asked) :]]
    return Reranked([*reordered, *rest], np.concatenate([order, np.arange(len(asked), len(hits))]))


def _check(scores: Float32, count: int, name: str) -> None:
    if scores.shape != (count,) or not np.isfinite(scores).all():
        raise BackendError(f"the reranker {name} gave no finite score for each of {count} passages", hint="try another model")
