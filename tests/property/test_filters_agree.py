"""The attribute index answers every filter as `matches` does, whatever was added and removed before."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ragline.filters import matches, parse_filter
from ragline.index.attributes import AttributeIndex

KEYS = st.sampled_from(["a", "b", "c", "eq", ""])
SCALARS = st.one_of(
    st.sampled_from([0, 1, 2, 1.0, 2.5, -1, True, False, None, "", "a", "b", "1", "2024-01-31", "\ud800", 10**30, float("inf")]),
    st.integers(-5, 5),
    st.floats(-3, 3, width=16),
    st.text("ab1", max_size=3),
)
VALUES = st.one_of(SCALARS, st.lists(SCALARS, max_size=3), st.just({"nested": 1}), st.just([["deep"], "a"]), st.just(float("nan")))
METADATA = st.dictionaries(KEYS, VALUES, max_size=4)
NUMBERS = st.one_of(st.integers(-3, 3), st.floats(-3, 3, width=16))


def ranges(bounds: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from(["gt", "gte", "lt", "lte"]), bounds, min_size=1)


CONDITIONS = st.one_of(
    SCALARS,
    st.fixed_dictionaries({"eq": SCALARS}),
    st.fixed_dictionaries({"ne": SCALARS}),
    st.fixed_dictionaries({"in": st.lists(SCALARS, min_size=1, max_size=4)}),
    st.fixed_dictionaries({"exists": st.booleans()}),
    ranges(NUMBERS),
    ranges(st.sampled_from(["", "a", "ab", "1", "2024-01-31", "b"])),
)
FILTERS = st.recursive(
    st.dictionaries(KEYS, CONDITIONS, min_size=1, max_size=2),
    lambda inner: st.one_of(
        st.fixed_dictionaries({"and": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"or": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"not": inner}),
    ),
    max_leaves=5,
)

STEPS = st.lists(
    st.tuples(
        st.lists(st.integers(0, 40), max_size=6),  # removed
        st.lists(st.tuples(METADATA, st.integers(1, 4), st.integers(0, 2)), max_size=4),  # documents: metadata, chunks, rows skipped
        st.booleans(),  # begin again at row 0, over what is held
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=300, deadline=None)
@given(STEPS, st.lists(FILTERS, min_size=1, max_size=4), st.booleans())
def test_the_index_agrees_with_the_definition(steps: Any, filters: list[Any], saved: bool) -> None:
    index = AttributeIndex()
    model: dict[int, dict[str, Any]] = {}
    row = 0
    for removed, documents, again in steps:
        rows: list[int] = []
        metadata: list[dict[str, Any]] = []
        row = 0 if again else row
        for shared, chunks, skipped in documents:
            row += skipped
            rows += range(row, row + chunks)
            metadata += [shared] * chunks
            row += chunks
        for gone in removed:
            model.pop(gone, None)
        model.update(zip(rows, metadata, strict=True))
        index.apply(np.array(removed, np.int64), np.array(rows, np.int64), metadata)
        if saved:
            index = AttributeIndex.from_bytes(index.to_bytes())
        assert set(index.live) == set(model)
        assert len(index) == len(model)
        for json in filters:
            filter = parse_filter(json)
            assert set(index.rows(filter)) == {row for row, held in model.items() if matches(filter, held)}, json
