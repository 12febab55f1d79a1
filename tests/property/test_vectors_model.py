"""A vector index against a dict, through any sequence of changes: exact to the last tie.

The vectors' parts are small whole numbers, so that every inner product is exact and ties abound.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroaring import BitMap64

from ragline.index.vectors import VectorIndex

DIMENSION = 8
STEPS = st.lists(
    st.tuples(
        st.lists(st.integers(0, 300), max_size=40),  # removed
        st.integers(0, 90),  # rows added
        st.sampled_from([0, 0, 0, 1, 50, -30]),  # rows skipped before them; negative: over rows that are or were held
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=150, deadline=None)
@given(STEPS, st.integers(0, 2**32 - 1), st.sampled_from([64, 10_000]), st.integers(1, 400))
def test_search_agrees_with_a_dict(steps: Any, seed: int, exact_below: int, top_k: int) -> None:
    random = np.random.default_rng(seed)
    index = VectorIndex(DIMENSION, exact_below=exact_below, rerank=1000)  # rescores all: codes must cost no exactness
    model: dict[int, Any] = {}
    following = 0
    for removed, count, skipped in steps:
        first = max(0, following + skipped)
        rows = np.arange(first, first + count)
        following = max(following, first + count)
        vectors = random.integers(-2, 3, (count, DIMENSION)).astype(np.float16)
        index.apply(np.array(removed, np.int64), rows, vectors)
        for row in removed:
            model.pop(row, None)
        model.update(zip(rows.tolist(), vectors, strict=True))
        assert index.count == len(model)
        question = random.integers(-2, 3, DIMENSION).astype(np.float32)
        allowed = set(random.choice(400, random.integers(0, 400), replace=False).tolist())
        for bitmap in (None, BitMap64(allowed)):
            passing = [row for row in model if bitmap is None or row in allowed]
            expected = sorted((-float(model[row].astype(np.float32) @ question), row) for row in passing)[:top_k]
            found, scores = index.search(question, top_k, bitmap)
            assert [(-score, row) for score, row in zip(scores.tolist(), found.tolist(), strict=True)] == expected
        asked = random.permutation(400)
        held = index.scores(question, asked)
        for row, score in zip(asked.tolist(), held.tolist(), strict=True):
            assert score == float(model[row].astype(np.float32) @ question) if row in model else np.isnan(score)
