"""What a filter's JSON means, and what is said about one that means nothing."""

from __future__ import annotations

from typing import Any

import pytest

from ragline.errors import FilterError
from ragline.filters import MAX_DEPTH, MAX_SIZE, And, Eq, Exists, In, Ne, Not, Or, Range, matches, parse_filter


@pytest.mark.parametrize(
    ("json", "meant"),
    [
        (None, None),
        ({}, None),
        ({"lang": "en"}, Eq("lang", "en")),
        ({"lang": {"eq": "en"}}, Eq("lang", "en")),
        ({"lang": None}, Eq("lang", None)),
        ({"lang": {"ne": "en"}}, Ne("lang", "en")),
        ({"lang": {"in": ["en", 1, None]}}, In("lang", ("en", 1, None))),
        ({"year": {"gte": 2020, "lt": 2024}}, Range("year", gte=2020, lt=2024)),
        ({"year": {"gt": 1.5, "lte": 3}}, Range("year", gt=1.5, lte=3)),
        ({"day": {"gte": "2024-01-31"}}, Range("day", gte="2024-01-31")),
        ({"lang": {"exists": False}}, Exists("lang", False)),
        ({"a": 1, "b": 2}, And((Eq("a", 1), Eq("b", 2)))),
        ({"a": {"gt": 1, "ne": 5}}, And((Ne("a", 5), Range("a", gt=1)))),
        ({"and": [{"a": 1}, {"b": 2}]}, And((Eq("a", 1), Eq("b", 2)))),
        ({"or": [{"a": 1}, {"b": 2, "c": 3}]}, Or((Eq("a", 1), And((Eq("b", 2), Eq("c", 3)))))),
        ({"not": {"a": 1}}, Not(Eq("a", 1))),
        ({"a": 1, "not": {"b": 2}}, And((Eq("a", 1), Not(Eq("b", 2))))),
        ({"eq": 5}, Eq("eq", 5)),  # only and, or, not are reserved
    ],
)
def test_json_means_this_filter(json: Any, meant: Any) -> None:
    assert parse_filter(json) == meant


@pytest.mark.parametrize(
    ("json", "named", "cure"),
    [
        ("lang=en", "a string", '{"lang": "en"}'),
        ([{"a": 1}], "a list", '{"lang": "en"}'),
        ({"year": {"$gte": 2020}}, "'$gte' on \"year\"", 'write "gte"'),
        ({"year": {"near": 2020}}, "'near' on \"year\"", "gt, gte"),
        ({"year": {}}, '"year" has no operator', "gt, gte"),
        ({"year": {1: 2}}, '1 on "year"', "operators are"),
        ({1: 2}, "1 is not a string", "strings"),
        ({"lang": ["en", "de"]}, '"lang" takes one value', '"in"'),
        ({"lang": {"eq": {"a": 1}}}, '"eq" on "lang"', "string, number"),
        ({"lang": b"en"}, "bytes", "string, number"),
        ({"lang": {"in": []}}, "an empty list", '"in": ["a", "b"]'),
        ({"lang": {"in": "en"}}, '"in" on "lang"', '"in": ["a", "b"]'),
        ({"lang": {"in": [["en"]]}}, '"in" on "lang"', "any of several"),
        ({"lang": {"exists": 1}}, '"exists" on "lang"', "true"),
        ({"year": {"gt": None}}, '"gt" on "year"', "eq"),
        ({"year": {"gt": True}}, "a boolean", "eq"),
        ({"year": {"gt": 2020, "lt": "2024"}}, '"year" mix', "ISO dates"),
        ({"x": float("nan")}, "NaN", "number"),
        ({"and": {"a": 1}}, '"and" takes filters in a list', "store it under another name"),
        ({"or": []}, "an empty list", "store it under another name"),
        ({"not": "x"}, '"not" takes a filter', "store it under another name"),
        ({"not": {}}, "an empty object", "store it under another name"),
        ({"and": [{}]}, "an empty filter", "leave it out"),
        ({"and": ["a"]}, "a string", '{"lang": "en"}'),
    ],
)
def test_what_is_no_filter_is_refused_by_name_with_a_cure(json: Any, named: str, cure: str) -> None:
    with pytest.raises(FilterError) as refused:
        parse_filter(json)
    assert named in refused.value.message
    assert cure in refused.value.hint


def nested(levels: int) -> dict[str, Any]:
    filter: dict[str, Any] = {"a": 1}
    for _ in range(levels):
        filter = {"not": filter}
    return filter


def test_nesting_is_limited() -> None:
    assert parse_filter(nested(MAX_DEPTH)) is not None
    with pytest.raises(FilterError, match="deeper than 32"):
        parse_filter(nested(MAX_DEPTH + 1))
    with pytest.raises(FilterError, match="deeper than 32"):
        parse_filter(nested(900))


def test_size_is_limited_over_all_parts_together() -> None:
    half = {"k": {"in": list(range(MAX_SIZE // 2))}}
    assert parse_filter({"k": {"in": list(range(MAX_SIZE))}}) is not None
    with pytest.raises(FilterError, match="more than 10000"):
        parse_filter({"or": [half, half]})


@pytest.mark.parametrize(
    ("json", "metadata", "passes"),
    [
        ({"k": 1}, {"k": 1.0}, True),
        ({"k": 1}, {"k": True}, False),
        ({"k": True}, {"k": 1}, False),
        ({"k": True}, {"k": True}, True),
        ({"k": "1"}, {"k": 1}, False),
        ({"k": None}, {"k": None}, True),
        ({"k": None}, {}, False),
        ({"k": "a"}, {"k": ["a", "b"]}, True),
        ({"k": {"in": ["z", "b"]}}, {"k": ["a", "b"]}, True),
        ({"k": {"ne": "a"}}, {"k": ["a", "b"]}, False),
        ({"k": {"ne": "a"}}, {"k": "b"}, True),
        ({"k": {"ne": "a"}}, {}, True),
        ({"not": {"k": "a"}}, {}, True),
        ({"k": {"ne": 1}}, {"k": True}, True),
        ({"k": {"gte": 1, "lt": 2}}, {"k": 1.5}, True),
        ({"k": {"gte": 1, "lt": 2}}, {"k": 2}, False),
        ({"k": {"gt": 1, "gte": 0}}, {"k": 1}, False),
        ({"k": {"gte": 0}}, {"k": True}, False),
        ({"k": {"gte": 0}}, {"k": "5"}, False),
        ({"k": {"gte": 0}}, {"k": None}, False),
        ({"k": {"gt": "2024-01-09"}}, {"k": "2024-01-10"}, True),
        ({"k": {"gt": 1, "lt": 3}}, {"k": [0, 2, 9]}, True),
        ({"k": {"gt": 3, "lt": 8}}, {"k": [0, 9]}, False),  # one element must be within all bounds
        ({"k": {"exists": True}}, {"k": None}, True),
        ({"k": {"exists": True}}, {"k": {"nested": 1}}, True),
        ({"k": {"exists": True}}, {}, False),
        ({"k": {"exists": False}}, {}, True),
        ({"or": [{"a": 1}, {"b": 1}]}, {"b": 1}, True),
        ({"a": 1, "b": 1}, {"b": 1}, False),
        ({}, {"anything": 1}, True),
        ({"k": 10**400}, {"k": 10**400}, True),
    ],
)
def test_a_filter_passes_these_documents(json: Any, metadata: dict[str, Any], passes: bool) -> None:
    assert matches(parse_filter(json), metadata) is passes
