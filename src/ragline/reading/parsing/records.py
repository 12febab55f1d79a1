"""JSON becomes text: records one a paragraph, all else as it is but for its escapes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from .blocks import clean

_MAX_PARSED_CHARS = 32 * 1024**2
_MAX_DEPTH = 6
_LONG = 200
_ESCAPE = re.compile(r"(?<!\\)((?:\\\\)*+)((?:\\u[0-9a-fA-F]{4})++)")


def lines_as_text(text: str) -> str:
    """JSON Lines as text: each record a paragraph (see `record_text`); lines that are no JSON stay as they are."""
    return "\n\n".join(record for line in text.split("\n") if line.strip() for record in _records(line))


def json_as_text(text: str) -> str:
    """A JSON file as text: a list of objects record by record, else the file with its escapes of characters resolved."""
    if text.lstrip()[:1] == "[" and len(text) <= _MAX_PARSED_CHARS:
        try:
            items = json.loads(text)
            if items and all(isinstance(item, dict) for item in items):
                return "\n\n".join(filter(None, map(record_text, items)))
        except (ValueError, RecursionError):  # what can just be parsed may still be too deep to be written
            pass
    return clean(_ESCAPE.sub(_unescaped, text)) if "\\u" in text else text


def _records(line: str) -> Iterator[str]:
    try:
        item = json.loads(line)
        found = record_text(item) if isinstance(item, dict) else clean(json.dumps(item, ensure_ascii=False))
    except (ValueError, RecursionError):
        found = line
    if found.strip():
        yield found


def record_text(record: dict[str, Any]) -> str:
    """The fields of an object: "name: Ada; address.city: London", each on a line of its own where one is long.

    Fields without a value are left out; those of a list of objects stand one after another.
    """
    fields = [(name, clean(value).strip()) for name, value in _fields(record, "", 0)]
    long = any(len(value) > _LONG or "\n" in value for _, value in fields)
    return ("\n" if long else "; ").join(f"{name}: {value}" for name, value in fields if value)


def _fields(value: Any, name: str, depth: int) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value and depth < _MAX_DEPTH:
        for key, inner in value.items():
            yield from _fields(inner, f"{name}.{key}" if name else " ".join(key.split()), depth + 1)
    elif isinstance(value, list) and value and depth < _MAX_DEPTH and any(isinstance(inner, dict | list) for inner in value):
        for inner in value:
            yield from _fields(inner, name, depth + 1)
    elif isinstance(value, list):
        yield name, ", ".join(filter(None, map(_scalar, value)))
    else:
        yield name, _scalar(value)


def _scalar(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _unescaped(match: re.Match[str]) -> str:
    """Characters in the place of their escapes; not quotation marks and control characters, which JSON needs escaped."""
    units = bytes.fromhex("".join(match[2].split("\\u")))
    try:
        found = units.decode("utf-16-be")
    except UnicodeDecodeError:
        return match[0]
    return match[1] + found if found.isprintable() and not {'"', "\\"} & set(found) else match[0]
