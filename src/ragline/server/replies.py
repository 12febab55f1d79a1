"""JSON answers. Their shapes are documented in `schemas` and made by `json_shapes`; nothing checks each answer again."""

from __future__ import annotations

import json
from typing import Any

from fastapi import Response


def encoded(value: Any) -> bytes:
    """JSON in UTF-8, without white space. Numbers that JSON lacks are a fault of ours, and half characters are replaced."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8", "replace")


def reply(value: Any, status: int = 200) -> Response:
    """A JSON answer."""
    return Response(encoded(value), status, media_type="application/json")
