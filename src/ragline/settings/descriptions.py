"""What a setting takes, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

UNSET = "unset"
"""How people write that a setting has no value: TOML and the environment have no null."""

_TYPE_NAMES: Mapping[Any, str] = {
    int: "whole number",
    float: "number",
    str: "text",
    bool: "true or false",
    Path: "path",
    SecretStr: "secret",
}
_BOUNDS = {"ge": "from {}", "gt": "above {}", "le": "to {}", "lt": "below {}"}


def type_text(field: FieldInfo, quote: str = "") -> str:
    """What a setting takes, such as "whole number from 1 to 64"; choices stand between quotes."""
    parts = [*_parts(field.annotation), *field.metadata]
    choices = next((get_args(part) for part in parts if get_origin(part) is Literal), ())
    if choices:
        return ", ".join(f"{quote}{choice}{quote}" for choice in choices)
    name = next((part for part in parts if isinstance(part, str)), None) or next(_TYPE_NAMES[part] for part in parts if _named(part))
    return " ".join([name, *(words.format(getattr(rule, key)) for rule in parts for key, words in _BOUNDS.items() if hasattr(rule, key))])


def default_text(field: FieldInfo) -> str:
    """A setting's default as people write it."""
    return UNSET if field.default is None else plain_text(field.default)


def plain_text(value: object) -> str:
    """A value as people write it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _parts(annotation: Any) -> Iterator[Any]:
    """All that `Annotated[Path, ..., "folder"] | None` is made of."""
    yield annotation
    if get_origin(annotation) is not Literal:
        for part in get_args(annotation):
            yield from _parts(part)


def _named(part: Any) -> bool:
    return isinstance(part, type) and part in _TYPE_NAMES
