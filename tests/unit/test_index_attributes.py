"""The attribute index: rows by metadata. That it agrees with `matches` is proved in property/test_filters_agree.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from pyroaring import BitMap64

from ragline.errors import CorruptionError
from ragline.filters import parse_filter
from ragline.index.attributes import AttributeIndex

NONE = np.empty(0, np.int64)


def index_of(metadata: Sequence[dict[str, Any]]) -> AttributeIndex:
    index = AttributeIndex()
    index.apply(NONE, np.arange(len(metadata)), metadata)
    return index


def found(index: AttributeIndex, filter: dict[str, Any] | None) -> list[int]:
    return list(index.rows(parse_filter(filter)))


def test_a_key_that_no_document_has_matches_nothing() -> None:
    index = index_of([{"a": 1}])
    for condition in (1, {"in": [1]}, {"gt": 0}, {"exists": True}):
        assert found(index, {"nope": condition}) == []


def test_no_filter_gives_every_live_row_and_the_bitmap_is_the_callers() -> None:
    index = index_of([{"a": 1}, {}])
    rows = index.rows(None)
    rows.add(99)
    assert found(index, None) == [0, 1]


def test_the_bitmap_of_a_condition_is_the_callers_too() -> None:
    index = index_of([{"a": 1}, {"a": 2}, {"a": 1}])
    index.rows(parse_filter({"a": 1})).add(1)
    index.rows(parse_filter({"a": {"exists": True}})).clear()
    assert found(index, {"a": 1}) == [0, 2]
    assert found(index, {"a": {"exists": True}}) == [0, 1, 2]


def test_true_false_and_null_are_neither_numbers_nor_words() -> None:
    index = index_of([{"k": True}, {"k": 1}, {"k": "true"}, {"k": None}, {"k": False}, {"k": 0}])
    assert found(index, {"k": True}) == [0]
    assert found(index, {"k": 1}) == [1]
    assert found(index, {"k": None}) == [3]
    assert found(index, {"k": {"gte": 0}}) == [1, 5]


def test_a_range_sees_values_that_come_and_go_after_the_first_range() -> None:
    index = index_of([{"year": 2020}, {"year": 2022}])
    recent = {"year": {"gte": 2021}}
    assert found(index, recent) == [1]
    index.apply(NONE, np.array([2, 3]), [{"year": 2021}, {"year": 2022}])
    assert found(index, recent) == [1, 2, 3]
    index.apply(np.array([1]), NONE, [])
    assert found(index, recent) == [2, 3]


def test_a_row_added_again_has_its_new_metadata_only() -> None:
    index = index_of([{"a": 1}, {"a": 1}])
    index.apply(NONE, np.array([1]), [{"a": 2}])
    assert found(index, {"a": 1}) == [0]
    assert found(index, {"a": 2}) == [1]
    index.apply(np.array([1]), NONE, [])
    index.apply(NONE, np.array([1]), [{"b": 1}])
    assert found(index, {"a": {"exists": True}}) == [0]


def test_removing_rows_that_are_not_held_changes_nothing() -> None:
    index = index_of([{"a": 1}])
    index.apply(np.array([5, 5, 7]), NONE, [])
    assert found(index, None) == [0]
    index.apply(NONE, np.array([5]), [{"a": 1}])
    assert found(index, {"a": 1}) == [0, 5]


def test_memory_of_removed_rows_is_given_back() -> None:
    index = AttributeIndex()
    for start in range(0, 60_000, 3000):
        rows = np.arange(start, start + 3000)
        index.apply(rows - 3000 if start else NONE, rows, [{"unique": int(row), "shared": "x"} for row in rows])
    assert len(index) == 3000
    assert len(index.to_bytes()) < 10_000 * 40  # not 60,000 values
    assert found(index, {"unique": {"lt": 57_010}}) == list(range(57_000, 57_010))
    assert found(index, {"unique": 3}) == []


def test_rows_of_one_document_and_rows_apart_are_found_alike() -> None:
    index = AttributeIndex()
    one, other = {"id": "one", "n": 1}, {"id": "other", "n": 2}
    index.apply(NONE, np.array([1, 2, 3, 7, 9, 10]), [one, one, other, one, one, other])
    assert found(index, {"id": "one"}) == [1, 2, 7, 9]
    assert found(index, {"id": {"in": ["one", "other"]}}) == [1, 2, 3, 7, 9, 10]
    assert found(index, {"n": {"gt": 1}}) == [3, 10]
    index.apply(NONE, np.array([11]), [other])
    assert found(index, {"id": "other"}) == [3, 10, 11]


def test_what_is_saved_is_what_is_loaded() -> None:
    values: list[Any] = [True, None, 1, 2.5, 10**40, "ä\ud800", ["a", 1, False], float("inf"), {"nested": 1}, []]
    index = index_of([{"k": value, "n": number % 3} for number, value in enumerate(values)])
    index.apply(np.array([2]), NONE, [])
    loaded = AttributeIndex.from_bytes(index.to_bytes())
    assert loaded.live == index.live
    for value in [True, None, 1, 2.5, 10**40, "ä\ud800", "a", False, float("inf")]:
        assert found(loaded, {"k": value}) == found(index, {"k": value})
    assert found(loaded, {"k": {"gt": 2}}) == [3, 4, 7]
    assert found(loaded, {"k": {"exists": True}, "n": {"ne": 0}}) == [1, 4, 5, 7, 8]
    loaded.apply(np.array([4]), np.array([20]), [{"k": 2.5}])
    assert found(loaded, {"k": 2.5}) == [3, 20]


def test_an_empty_index_is_saved_too() -> None:
    assert AttributeIndex.from_bytes(AttributeIndex().to_bytes()).live == BitMap64()


def test_bytes_of_something_else_are_refused() -> None:
    with pytest.raises(CorruptionError):
        AttributeIndex.from_bytes(b"not an attribute index at all")
