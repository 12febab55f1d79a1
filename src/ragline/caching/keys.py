"""What is a call's key? One text for each list of plain values, and never the same for two."""

from __future__ import annotations

import datetime
import enum
import hashlib
import uuid
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from decimal import Decimal
from pathlib import PurePath
from typing import Any

from ragline.errors import InputError

_MOST_LEVELS = 50

_BY_TEXT = (str, Decimal, uuid.UUID, PurePath, datetime.date, datetime.time, datetime.timedelta)


def cache_key(*values: Any, **named: Any) -> str:
    """A key for these values: equal for equal values of one type, and for others as different as a 160-bit hash can be.

    Each value is written with its type and its length, so that `("ab", "c")` and `("a", "bc")`, or `1`, `1.0`, `True` and
    `"1"`, are told apart. The order of mappings, sets and names does not matter. The key is the same in every process.

    Raises:
        InputError: A value is none of: None, str, bytes, numbers, dates and times, UUID, path, enumeration, dataclass,
            and sequences, sets and mappings of these.
    """
    return hashlib.blake2b(_encoded([values, named], _MOST_LEVELS), digest_size=20).hexdigest()


def _encoded(value: Any, levels: int) -> bytes:
    if not levels:
        raise InputError(f"a value of more than {_MOST_LEVELS} levels, or one that holds itself, makes no key", hint="give key=")
    kind = type(value)
    if kind is str:
        body = value.encode("utf-8", "surrogatepass")
    elif value is None:
        body = b""
    elif isinstance(value, enum.Enum):
        body = value.name.encode() if value.name is not None else repr(value.value).encode()
    elif isinstance(value, int):
        body = int.__format__(value, "x").encode()  # decimal digits are refused beyond 4300
    elif isinstance(value, float):
        body = float.hex(value).encode()
    elif isinstance(value, (bytes, bytearray)):
        body = bytes(value)
    elif isinstance(value, _BY_TEXT):
        body = (value if isinstance(value, str) else str(value)).encode("utf-8", "surrogatepass")
    else:
        body = _joined(value, levels)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return b"%s %d:%s" % (name.encode(), len(body), body)


def _joined(value: Any, levels: int) -> bytes:
    if isinstance(value, (tuple, list)):
        return b"".join([_encoded(one, levels - 1) for one in value])
    if isinstance(value, (set, frozenset)):
        return b"".join(sorted(_encoded(one, levels - 1) for one in value))
    if isinstance(value, Mapping):
        return b"".join(sorted(_encoded(key, levels - 1) + _encoded(one, levels - 1) for key, one in value.items()))
    if is_dataclass(value) and not isinstance(value, type):
        return b"".join([_encoded(getattr(value, field.name), levels - 1) for field in fields(value)])
    raise InputError(
        f"a {type(value).__module__}.{type(value).__qualname__} cannot be part of a cache key: two of them may look alike",
        hint="give key=, a function of the same arguments that returns a string; for methods, one that leaves self out",
    )
