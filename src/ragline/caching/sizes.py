"""How much memory does a value take?"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

_MOST_LEVELS = 50


def plain_bytes(value: Any) -> int:
    """What plain data weighs, in bytes: strings, numbers, arrays, sequences, mappings and dataclasses of these.

    An estimate for bounding caches: what two values share counts for both, but once within one value; so does nothing
    below 50 levels.
    """
    return _weigh(value, set(), _MOST_LEVELS)


def _weigh(value: Any, met: set[int], levels: int) -> int:
    if id(value) in met or not levels:
        return 0
    met.add(id(value))
    size = sys.getsizeof(value)
    parts: Iterable[Any] = ()
    if isinstance(value, (str, bytes, int, float)):
        return size
    if isinstance(value, Mapping):
        parts = (part for pair in value.items() for part in pair)
    elif isinstance(value, (tuple, list, set, frozenset)):
        parts = value
    elif is_dataclass(value) and not isinstance(value, type):
        parts = [getattr(value, field.name) for field in fields(value)]
    elif hasattr(value, "nbytes"):
        return max(size, int(value.nbytes))
    return size + sum(_weigh(part, met, levels - 1) for part in parts)
