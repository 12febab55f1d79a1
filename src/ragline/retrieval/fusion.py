"""Two rankings become one: by scores (convex combination) or by ranks (reciprocal rank fusion).

Kernels: no I/O, no state; the same legs give the same order everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ragline.types import Float32, Int64

Float64: TypeAlias = NDArray[np.float64]

Leg: TypeAlias = tuple[Int64, Float32]
"""What one leg found: `(n,)` rows, each once, and their scores, best first. May be empty."""


@dataclass(frozen=True, slots=True)
class Fused:
    """The rows of both legs, best first, ties by row ascending.

    Attributes:
        rows: `(n,)` int64, each once.
        scores: `(n,)` float32; compare within one question only.
        dense: `(n,)` float32 cosines, NaN where the cosine is not known.
        lexical: `(n,)` float32 BM25, NaN where the lexical leg did not find the row.
    """

    rows: Int64
    scores: Float32
    dense: Float32
    lexical: Float32


def convex(dense: Leg, lexical: Leg, *, dense_weight: float, score_dense: Callable[[Int64], Float32] | None = None) -> Fused:
    """Fuses by `dense_weight * d + (1 - dense_weight) * l`, where `d` and `l` lie between 0 and 1.

    `l` is BM25 divided by the question's best BM25: 0 is "none of the words".

    `d` is 1 for the question's best cosine and 0 for an unrelated text's or less. What that level is differs
    by model, collection and question; rows that share words with the question but that the dense leg did not
    find tell it: it is the mean of their cosines and the dense leg's last. Without `score_dense`, or where
    the lexical leg adds no rows, it is the dense leg's last cosine alone, as in min-max normalisation.

    Args:
        dense: Cosines.
        lexical: BM25 scores, all above 0.
        dense_weight: Between 0 and 1.
        score_dense: Gives the exact cosines of `(n,)` rows, NaN for a row not held (`DenseView.scores`). A row
            without a cosine counts as unrelated.

    Source: Bruch, Gai, Ingber, "An Analysis of Fusion Functions for Hybrid Retrieval" (2022), for the combination
    and for 0 as the minimum of BM25. The level of the unrelated is our own: docs/decisions/0002-fusion.md.
    """
    rows, cosines, bm25 = _union(dense, lexical)
    unrelated = dense[1][-1:]
    unscored = np.flatnonzero(np.isnan(cosines))
    if score_dense is not None and unscored.size:
        cosines[unscored] = score_dense(rows[unscored])
        unrelated = np.concatenate((unrelated, cosines[unscored]))
    unrelated = unrelated[~np.isnan(unrelated)]
    floor = float(unrelated.mean(dtype=np.float64)) if unrelated.size else 0.0
    scores = dense_weight * _share(cosines, floor) + (1.0 - dense_weight) * _share(bm25, 0.0)
    return _ranked(rows, scores, cosines, bm25)


def reciprocal_rank(dense: Leg, lexical: Leg, *, k: int = 60) -> Fused:
    """Fuses by the sum over the legs of `1 / (k + rank)`, ranks counted from 1; scores themselves do not matter.

    Source: Cormack, Clarke, Büttcher, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank
    Learning Methods" (SIGIR 2009).
    """
    rows, cosines, bm25 = _union(dense, lexical)
    scores = np.zeros(rows.size)
    for found, _ in (dense, lexical):
        scores[np.searchsorted(rows, found)] += 1.0 / (k + 1.0 + np.arange(found.size))
    return _ranked(rows, scores, cosines, bm25)


def _union(dense: Leg, lexical: Leg) -> tuple[Int64, Float32, Float32]:
    """The rows of both legs, ascending, with the score each leg gave them, NaN for none."""
    rows = np.concatenate((dense[0], lexical[0])).astype(np.int64, copy=False)
    rows.sort()
    rows = rows[np.concatenate(([True], rows[1:] != rows[:-1]))[: rows.size]]  # as np.union1d, at a third of its overhead
    scores = np.full((2, rows.size), np.nan, np.float32)
    for own, (found, given) in zip(scores, (dense, lexical), strict=True):
        own[np.searchsorted(rows, found)] = given
    return rows, scores[0], scores[1]


def _share(scores: Float32, floor: float) -> Float64:
    """Where each score stands between the floor (0) and the best (1); 0 below the floor and where it is NaN.

    Where the best is not above the floor, all scores are equal, and all count as best.
    """
    span = float(np.fmax.reduce(scores, initial=-np.inf)) - floor  # fmax and fmin pass over NaN
    if span <= 1e-9:
        return np.where(np.isnan(scores), 0.0, 1.0)
    return np.fmin(np.fmax((scores.astype(np.float64) - floor) / span, 0.0), 1.0)


def _ranked(rows: Int64, scores: Float64, cosines: Float32, bm25: Float32) -> Fused:
    rounded = scores.astype(np.float32)
    order = np.lexsort((rows, -rounded))
    return Fused(rows[order], rounded[order], cosines[order], bm25[order])
