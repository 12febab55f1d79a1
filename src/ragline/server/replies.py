"""JSON answers. Their shapes are documented in `schemas` and made by `json_shapes`; nothing checks each answer again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

from fastapi import Response
from pydantic_core import PydanticSerializationError, to_json

_AT_ONCE = 256
"""Values of a long list: some hundred kilobytes, written in a millisecond."""


def encoded(value: Any) -> bytes:
    """JSON in UTF-8, without white space. Numbers that JSON lacks become null; half characters are replaced."""
    try:
        return to_json(value, inf_nan_mode="null")  # an eighth of the time of the standard library's
    except PydanticSerializationError:  # a lone surrogate
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def reply(value: Any, status: int = 200) -> Response:
    """A JSON answer."""
    return Response(encoded(value), status, media_type="application/json")


async def long_reply(head: dict[str, Any], name: str, values: Sequence[Any], shape: Callable[[Any], Any]) -> Response:
    """A JSON answer that ends with a list, which may be of any length: between parts of it others may run.

    Args:
        head: What stands before the list; not empty.
        shape: Makes JSON of one of the values.
    """
    parts = []
    for at in range(0, len(values), _AT_ONCE):
        parts.append(encoded([shape(each) for each in values[at : at + _AT_ONCE]])[1:-1])
        await asyncio.sleep(0)
    content = encoded(head)[:-1] + b"," + encoded(name) + b":[" + b",".join(parts) + b"]}"
    return Response(content, media_type="application/json")
