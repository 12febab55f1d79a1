"""A question becomes ranked rows: by meaning and by words, over views that stand still meanwhile."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from pyroaring import BitMap64

from ragline.filters import Filter
from ragline.index.views import ScopeViews
from ragline.retrieval.fusion import Fused, Leg, convex, reciprocal_rank
from ragline.settings import RetrievalSettings
from ragline.types import Float16, Float32, Int64

Mode = Literal["hybrid", "dense", "lexical"]

DENSE_NOT_READY = "dense_index_not_ready"
"""Degraded: the collection has changed its model, and its views hold the vectors of the old one still."""

COLLECTION_SHIFT = 48
"""A row of the n-th collection searched is named `n << 48 | row`, so that several collections fuse as one."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """The outcome of both legs and their fusion, before texts are fetched.

    Attributes:
        keys: `(n,)` int64, best first, ties by key: `collection << 48 | row`.
        scores: `(n,)` float32; dense and lexical: the same with NaN where a leg did not score the row.
        lsns, epochs: Where each collection's views stood.
        torn: Whether a document may be missing from them, see `ScopeViews`.
        vectors: `(n, dimension)` stored vectors, where they were asked for; zeros where a row has none that compares.
    """

    keys: Int64
    scores: Float32
    dense: Float32
    lexical: Float32
    lsns: tuple[int, ...]
    epochs: tuple[int, ...]
    torn: bool = False
    degraded: tuple[str, ...] = ()
    timings: Mapping[str, float] = field(default_factory=dict)
    vectors: Float16 | None = None

    def take(self, places: Int64) -> Ranked:
        """What stands at these places, in their order, without vectors."""
        return replace(
            self,
            keys=self.keys[places],
            scores=self.scores[places],
            dense=self.dense[places],
            lexical=self.lexical[places],
            vectors=None,
        )


@dataclass(frozen=True, slots=True)
class Target:
    """A collection to search: its views, and the rows it may give (None: all)."""

    views: ScopeViews
    documents: BitMap64 | None = None


def search_views(
    targets: Sequence[Target],
    question: str,
    vector: Float32 | None,
    *,
    model: str,
    top_k: int,
    mode: Mode,
    filter: Filter | None,
    settings: RetrievalSettings,
    with_vectors: bool = False,
) -> Ranked:
    """Searches the legs of all targets and fuses them. Runs on a worker thread; holds the views while it does.

    Over several collections the dense legs merge by cosine and the lexical ones by rank, since BM25 scores of
    two collections do not compare.

    Args:
        vector: The question's, `(dimension,)`; None in lexical mode.
        model: Fingerprint of the model that made it: vectors of another one are not searched.
        with_vectors: Whether the stored vectors of what is found are wanted too.
    """
    depth = max(settings.candidates, top_k)
    timings: dict[str, float] = {}
    dense: list[Leg] = []
    lexical: list[Leg] = []
    degraded: list[str] = []
    with ExitStack() as held:
        # One thread changes views, so at most one writer waits, and readers of several scopes cannot wait in a circle.
        for target in targets:
            held.enter_context(target.views.reading())
        started = time.perf_counter()
        allowed = [_allowed(target, filter) for target in targets]
        started = _clock(timings, "filter_ms", started) if filter is not None else started
        if mode != "lexical" and vector is not None:
            for number, (target, rows) in enumerate(zip(targets, allowed, strict=True)):
                if target.views.dense is not None and target.views.model == model:
                    found, scores = target.views.dense.search(vector, depth, rows)
                    dense.append((_keys(number, found), scores))
                elif target.views.dense is not None:
                    degraded.append(DENSE_NOT_READY)
            started = _clock(timings, "dense_ms", started)
        if mode != "dense":
            for number, (target, rows) in enumerate(zip(targets, allowed, strict=True)):
                if target.views.lexical is not None:
                    found, scores = target.views.lexical.search(question, depth, rows)
                    lexical.append((_keys(number, found), scores))
                elif target.views.model or target.views.lsn < 0:
                    degraded.append("lexical_index_not_ready")
            started = _clock(timings, "lexical_ms", started)
        fused = _fuse(dense, lexical, targets, None if DENSE_NOT_READY in degraded else vector, mode, settings)
        keys = fused.rows[:top_k]
        vectors = _vectors(targets, keys) if with_vectors else None
        _clock(timings, "fuse_ms", started)
        lsns = tuple(target.views.lsn for target in targets)
        epochs = tuple(target.views.epoch for target in targets)
        torn = any(target.views.torn for target in targets)
    return Ranked(
        keys,
        fused.scores[:top_k],
        fused.dense[:top_k],
        fused.lexical[:top_k],
        lsns,
        epochs,
        torn,
        tuple(dict.fromkeys(degraded)),
        timings,
        vectors,
    )


def _allowed(target: Target, filter: Filter | None) -> BitMap64 | None:
    if filter is None:
        return target.documents
    rows = target.views.attributes.rows(filter)
    return rows if target.documents is None else rows & target.documents


def _keys(number: int, rows: Int64) -> Int64:
    return rows | (number << COLLECTION_SHIFT) if number else rows


def _clock(timings: dict[str, float], stage: str, started: float) -> float:
    now = time.perf_counter()
    timings[stage] = (now - started) * 1000
    return now


def _fuse(
    dense: Sequence[Leg], lexical: Sequence[Leg], targets: Sequence[Target], vector: Float32 | None, mode: Mode, settings: RetrievalSettings
) -> Fused:
    by_cosine = _merge_by_score(dense)
    by_rank, bm25 = _merge_by_rank(lexical)
    if mode != "hybrid":
        rows, scores = by_cosine if mode == "dense" else by_rank
        unknown = np.full(rows.size, np.nan, np.float32)
        fused = Fused(rows, scores, scores, unknown) if mode == "dense" else Fused(rows, scores, unknown, scores)
    elif settings.fusion == "rrf":
        fused = reciprocal_rank(by_cosine, by_rank, k=settings.rrf_k)
    else:

        def score_dense(keys: Int64) -> Float32:
            return _cosines(targets, vector, keys)

        fused = convex(by_cosine, by_rank, dense_weight=settings.dense_weight, score_dense=score_dense if vector is not None else None)
    if len(lexical) > 1:  # ranks stood in for BM25 while fusing
        found = np.array([bm25.get(key, np.nan) for key in fused.rows.tolist()], np.float32)
        fused = Fused(fused.rows, fused.scores, fused.dense, found)
    return fused


def _cosines(targets: Sequence[Target], vector: Float32 | None, keys: Int64) -> Float32:
    """Exact cosines of rows that only the lexical leg found, whichever collection they are of."""
    scores = np.full(keys.size, np.nan, np.float32)
    numbers = keys >> COLLECTION_SHIFT
    for number, target in enumerate(targets):
        mine = numbers == number
        if target.views.dense is not None and vector is not None and mine.any():
            scores[mine] = target.views.dense.scores(vector, keys[mine] & ((1 << COLLECTION_SHIFT) - 1))
    return scores


def _vectors(targets: Sequence[Target], keys: Int64) -> Float16:
    """The stored vectors of rows of one model, the first collection's that has any; zeros for others, which do not compare."""
    first = next((target.views for target in targets if target.views.dense is not None), None)
    if first is None or first.dense is None:
        return np.zeros((keys.size, 1), np.float16)
    vectors = np.zeros((keys.size, first.dense.dimension), np.float16)
    numbers = keys >> COLLECTION_SHIFT
    for number, target in enumerate(targets):
        if target.views.dense is not None and target.views.model == first.model:
            mine = numbers == number
            vectors[mine] = target.views.dense.vectors(keys[mine] & ((1 << COLLECTION_SHIFT) - 1))
    return vectors


def _merge_by_score(legs: Sequence[Leg]) -> Leg:
    if len(legs) == 1:
        return legs[0]
    if not legs:
        return np.empty(0, np.int64), np.empty(0, np.float32)
    keys, scores = np.concatenate([leg[0] for leg in legs]), np.concatenate([leg[1] for leg in legs])
    order = np.lexsort((keys, -scores))
    return keys[order], scores[order]


def _merge_by_rank(legs: Sequence[Leg]) -> tuple[Leg, Mapping[int, float]]:
    """One leg as it is; of several, all firsts, then all seconds, ..., scored by how many stand at or behind them.

    Also gives the BM25 scores by key, where there are several.
    """
    if len(legs) < 2:
        return _merge_by_score(legs), {}
    keys = np.concatenate([leg[0] for leg in legs])
    ranks = np.concatenate([np.arange(leg[0].size) for leg in legs])
    bm25 = dict(zip(keys.tolist(), np.concatenate([leg[1] for leg in legs]).tolist(), strict=True))
    order = np.lexsort((keys, ranks))
    return (keys[order], (keys.size - ranks[order]).astype(np.float32)), bm25
