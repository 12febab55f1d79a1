"""Hits that say the same give way to hits that say something else. A kernel: no I/O, no state."""

from __future__ import annotations

import numpy as np

from ragline.types import Float16, Float32, Int64

_DECIMALS = 5
"""To which gains are compared: the same texts gain the same, however a sum of products was rounded."""


def most_diverse(scores: Float32, vectors: Float16, top_k: int, *, mmr_lambda: float) -> Int64:
    """Which `top_k` to take of ranked candidates, in the order to be taken: `(min(top_k, n),)` places.

    Each next one has the greatest `mmr_lambda * relevance - (1 - mmr_lambda) * likeness`: relevance is its score, 0 for the
    worst candidate's and 1 for the best one's; likeness is its highest cosine to one that was taken before, and at
    least 0. Ties go to the better rank. With `mmr_lambda` 1 that is the order given. Time grows as `top_k * n`.

    Args:
        scores: `(n,)`, best first.
        vectors: `(n, dimension)`, unit length; zeros for a candidate of which nothing is known, and which is like none.

    Source: Carbonell and Goldstein, "The Use of MMR, Diversity-Based Reranking for Reordering Documents and Producing
    Summaries" (SIGIR 1998).
    """
    unit = vectors.astype(np.float32)
    relevance = mmr_lambda * _shares(scores)
    likeness = np.zeros(len(scores), np.float32)
    free = np.ones(len(scores), np.bool_)
    taken = np.empty(min(top_k, len(scores)), np.int64)
    for turn in range(len(taken)):
        gains = np.where(free, np.round(relevance - (1.0 - mmr_lambda) * likeness, _DECIMALS), -np.inf)
        taken[turn] = best = int(np.argmax(gains))
        free[best] = False
        np.maximum(likeness, unit @ unit[best], out=likeness)
    return taken


def _shares(scores: Float32) -> Float32:
    """Where each score stands between the worst (0) and the best (1); 1 for all where they are equal."""
    if not scores.size:
        return scores
    worst, best = float(scores.min()), float(scores.max())
    if best - worst <= 1e-9:
        return np.ones_like(scores)
    return (scores - np.float32(worst)) / np.float32(best - worst)
