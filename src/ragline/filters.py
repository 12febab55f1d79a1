"""Which documents may answer: conditions on metadata, the same JSON for library, command line and HTTP.

    {"lang": "en"}                              the key has this value; of a list, one of its elements has
    {"year": {"gte": 2020, "lt": 2024}}         gt, gte, lt, lte: over numbers, or over strings by code point (ISO dates)
    {"lang": {"in": ["en", "de"]}}              one of these values
    {"lang": {"ne": "en"}}                      another value, or no such key: the same as {"not": {"lang": "en"}}
    {"reviewed": {"exists": true}}              the key is there, whatever its value, null included
    {"lang": "en", "year": {"gt": 2020}}        several keys, and several operators of a key, mean "and"
    {"and": [...]}, {"or": [...]}, {"not": {}}  of filters

Values are strings, numbers, booleans and null. 1 equals 1.0, but `true` equals neither 1 nor "true". A value of
another type than a range's bounds is never in it. A key that no document has matches nothing (so that `ne` and
`not` on it match everything). `and`, `or` and `not` are always operators: a metadata key of that name cannot be
filtered on, and asking for it is an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from ragline.errors import FilterError
from ragline.types import Metadata

Scalar: TypeAlias = str | int | float | bool | None
Bound: TypeAlias = str | int | float

MAX_DEPTH = 32
"""Operators nested deeper than this are refused."""

MAX_SIZE = 10_000
"""Filters of more conditions and values than this, all together, are refused."""

_COMPARISONS = ("eq", "ne", "in", "gt", "gte", "lt", "lte", "exists")
_LOGIC = ("and", "or", "not")


@dataclass(frozen=True, slots=True)
class Eq:
    """The key has this value, or a list that holds it.

    Python holds `Eq("k", 1) == Eq("k", True)`, but they filter differently: make cache keys from the JSON.
    """

    key: str
    value: Scalar


@dataclass(frozen=True, slots=True)
class Ne:
    """The key has another value, or is missing: `Not(Eq(key, value))`."""

    key: str
    value: Scalar


@dataclass(frozen=True, slots=True)
class In:
    """The key has one of these values."""

    key: str
    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Range:
    """The key has a value within all bounds that are given; they are all numbers or all strings."""

    key: str
    gt: Bound | None = None
    gte: Bound | None = None
    lt: Bound | None = None
    lte: Bound | None = None

    @property
    def of_strings(self) -> bool:
        """Whether this is a range of strings; else of numbers."""
        return isinstance(next(bound for bound in (self.gt, self.gte, self.lt, self.lte) if bound is not None), str)


@dataclass(frozen=True, slots=True)
class Exists:
    """The key is there, or (`present` False) is not."""

    key: str
    present: bool


@dataclass(frozen=True, slots=True)
class And:
    """All of these; of at least one."""

    filters: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """Any of these; of at least one."""

    filters: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """Everything but this."""

    filter: Filter


Filter: TypeAlias = Eq | Ne | In | Range | Exists | And | Or | Not


def parse_filter(value: Any) -> Filter | None:
    """The filter that a JSON value means; None for None and for `{}`, which match everything.

    Raises:
        FilterError: It is not a filter, or nested or large beyond reason. The message names key and operator.
    """
    if value is None or (isinstance(value, Mapping) and not value):
        return None
    return _Parser().filter(value, depth=0)


def matches(filter: Filter | None, metadata: Metadata) -> bool:
    """Whether a document with this metadata passes: the definition that every index must agree with."""
    match filter:
        case None:
            return True
        case Eq(key, value):
            return any(_equal(held, value) for held in scalars(metadata, key))
        case Ne(key, value):
            return not matches(Eq(key, value), metadata)
        case In(key, values):
            return any(_equal(held, value) for held in scalars(metadata, key) for value in values)
        case Range(key):
            return any(_within(held, filter) for held in scalars(metadata, key))
        case Exists(key, present):
            return (key in metadata) == present
        case And(filters):
            return all(matches(part, metadata) for part in filters)
        case Or(filters):
            return any(matches(part, metadata) for part in filters)
        case Not(inner):
            return not matches(inner, metadata)


def scalars(metadata: Metadata, key: str) -> Iterator[Scalar]:
    """The values of a key that conditions look at: the value itself, or the elements of a list."""
    if key not in metadata:
        return
    value = metadata[key]
    for element in value if isinstance(value, list | tuple) else (value,):
        if element is None or isinstance(element, str | int | float):
            yield element


def _equal(left: Scalar, right: Scalar) -> bool:
    return isinstance(left, bool) == isinstance(right, bool) and left == right


def _within(value: Scalar, bounds: Range) -> bool:
    of_kind = isinstance(value, str) if bounds.of_strings else isinstance(value, int | float) and not isinstance(value, bool)
    comparable: Any = value
    return (
        of_kind
        and (bounds.gt is None or comparable > bounds.gt)
        and (bounds.gte is None or comparable >= bounds.gte)
        and (bounds.lt is None or comparable < bounds.lt)
        and (bounds.lte is None or comparable <= bounds.lte)
    )


class _Parser:
    """One parse; counts what it meets, so that a filter's cost is bounded."""

    def __init__(self) -> None:
        self._size = 0

    def filter(self, value: Any, *, depth: int) -> Filter:
        if depth > MAX_DEPTH:
            raise FilterError(f"a filter is nested deeper than {MAX_DEPTH} operators", hint="flatten it")
        if not isinstance(value, Mapping):
            raise FilterError(f"a filter is an object, not {_kind(value)}", hint='write it like {"lang": "en"} or {"year": {"gte": 2020}}')
        if not value:
            raise FilterError("an empty filter stands inside another", hint="leave it out, or give it a condition")
        return _all([part for key, operand in value.items() for part in self._entry(key, operand, depth)])

    def _entry(self, key: Any, operand: Any, depth: int) -> list[Filter]:
        if not isinstance(key, str):
            raise FilterError(f"the filter key {key!r} is not a string", hint="metadata keys are strings")
        if key == "not":
            return [Not(self.filter(self._logic_operand(key, operand, Mapping), depth=depth + 1))]
        if key in _LOGIC:
            parts = tuple(self.filter(part, depth=depth + 1) for part in self._logic_operand(key, operand, list | tuple))
            return [And(parts) if key == "and" else Or(parts)]
        if isinstance(operand, Mapping):
            return self._conditions(key, operand)
        return [Eq(key, self._scalar(key, "eq", operand))]

    def _logic_operand(self, operator: str, operand: Any, kind: Any) -> Any:
        self._count(1)
        if isinstance(operand, kind) and operand:
            return operand
        wanted = (
            'a filter, like {"not": {"lang": "en"}}'
            if operator == "not"
            else f'filters in a list, like {{"{operator}": [{{...}}, {{...}}]}}'
        )
        raise FilterError(
            f'the operator "{operator}" takes {wanted}; it was given {_kind(operand)}',
            hint=f'a metadata key that is called "{operator}" cannot be filtered on: store it under another name',
        )

    def _conditions(self, key: str, operators: Mapping[Any, Any]) -> list[Filter]:
        if not operators:
            raise FilterError(f'the filter on "{key}" has no operator', hint=f"operators are {', '.join(_COMPARISONS)}")
        found: list[Filter] = []
        bounds: dict[str, Bound] = {}
        for operator, operand in operators.items():
            match operator:
                case "eq":
                    found.append(Eq(key, self._scalar(key, operator, operand)))
                case "ne":
                    found.append(Ne(key, self._scalar(key, operator, operand)))
                case "in":
                    found.append(In(key, self._values(key, operand)))
                case "exists":
                    found.append(Exists(key, self._boolean(key, operand)))
                case "gt" | "gte" | "lt" | "lte":
                    bounds[operator] = self._bound(key, operator, operand, bounds)
                case _:
                    raise _unknown_operator(key, operator)
        if bounds:
            found.append(Range(key, **bounds))
        return found

    def _scalar(self, key: str, operator: str, value: Any) -> Scalar:
        self._count(1)
        if isinstance(value, list | tuple):
            raise FilterError(
                f'"{operator}" on "{key}" takes one value, not a list', hint=f'for any of several values write {{"{key}": {{"in": [...]}}}}'
            )
        if value is not None and not isinstance(value, str | int | float):
            raise FilterError(f'"{operator}" on "{key}" cannot compare with {_kind(value)}', hint="use a string, number, boolean or null")
        if value != value:
            raise FilterError(f'"{operator}" on "{key}" cannot compare with NaN', hint="NaN equals nothing; use a number")
        return value

    def _values(self, key: str, operand: Any) -> tuple[Scalar, ...]:
        if not isinstance(operand, list | tuple) or not operand:
            raise FilterError(
                f'"in" on "{key}" takes a list of at least one value, not {_kind(operand)}', hint=f'write {{"{key}": {{"in": ["a", "b"]}}}}'
            )
        return tuple(self._scalar(key, "in", value) for value in operand)

    def _boolean(self, key: str, operand: Any) -> bool:
        self._count(1)
        if not isinstance(operand, bool):
            raise FilterError(
                f'"exists" on "{key}" takes true or false, not {_kind(operand)}', hint=f'write {{"{key}": {{"exists": true}}}}'
            )
        return operand

    def _bound(self, key: str, operator: str, operand: Any, others: Mapping[str, Bound]) -> Bound:
        bound = self._scalar(key, operator, operand)
        if bound is None or isinstance(bound, bool):
            raise FilterError(
                f'"{operator}" on "{key}" takes a number or a string, not {_kind(operand)}', hint="to compare for equality use eq"
            )
        if any(isinstance(other, str) != isinstance(bound, str) for other in others.values()):
            raise FilterError(
                f'the bounds of "{key}" mix numbers and strings', hint="use numbers only, or strings only (ISO dates order as strings)"
            )
        return bound

    def _count(self, more: int) -> None:
        self._size += more
        if self._size > MAX_SIZE:
            raise FilterError(
                f"a filter has more than {MAX_SIZE} conditions and values", hint="filter on a metadata key that all these documents share"
            )


def _all(parts: Sequence[Filter]) -> Filter:
    return parts[0] if len(parts) == 1 else And(tuple(parts))


def _unknown_operator(key: str, operator: Any) -> FilterError:
    bare = operator.removeprefix("$") if isinstance(operator, str) else operator
    if bare != operator and bare in _COMPARISONS:
        hint = f'write "{bare}", without the $'
    else:
        hint = f"operators are {', '.join(_COMPARISONS)}; the values inside objects are not indexed"
    return FilterError(f'unknown operator {operator!r} on "{key}"', hint=hint)


def _kind(value: Any) -> str:
    """What a value is, in JSON's words."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case str():
            return "a string"
        case int() | float():
            return "a number"
        case list() | tuple():
            return "a list" if value else "an empty list"
        case Mapping():
            return "an object" if value else "an empty object"
        case _:
            return f"a Python {type(value).__name__}"
