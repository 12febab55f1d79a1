"""The JSON of errors."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


class Problem(BaseModel):
    """What went wrong."""

    code: str = Field(description="A stable name for programs.", examples=["not_found"])
    message: str = Field(description="What happened, in one sentence.", examples=["there is no collection 'handbook'"])
    hint: str = Field(description="What to do about it; may be empty.", examples=["GET /api/v1/collections shows those there are"])


class ErrorBody(BaseModel):
    """The body of every answer that is an error."""

    error: Problem


_MEANINGS = {
    400: "The request cannot be read.",
    401: "The key is missing, unknown or revoked.",
    403: "The key lacks the scope; or, on a server without keys, the request came from elsewhere.",
    404: "There is no such thing, or it is not yours.",
    408: "The body did not arrive in time.",
    409: "The state of things forbids it.",
    413: "The body is too large.",
    415: "The body is of a type that is not taken.",
    422: "A value cannot be taken; the message names it.",
    429: "Too many requests; Retry-After says when to come again.",
    500: "Something went wrong in the server.",
    503: "The server is full, starting or stopping, or what it needs is down; try again.",
    504: "It took longer than it may.",
}
_ALWAYS = (401, 403, 429, 500, 503, 504)
WITH_BODY = (400, 408, 413, 415, 422)
"""The statuses that an operation with a JSON body adds."""


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors of an operation as the OpenAPI document lists them: those of all operations, and these."""
    return {status: {"model": ErrorBody, "description": _MEANINGS[status]} for status in sorted({*_ALWAYS, *statuses})}
