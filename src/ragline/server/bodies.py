"""JSON bodies: read within limits, and refused where they hold what nothing below can take."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from fastapi import Request
from starlette.requests import ClientDisconnect

from ragline.concurrency.limited import LimitExceeded, limited
from ragline.server.errors import HttpError
from ragline.settings import ServerSettings

_INT64 = 2**63


class JsonRequest(Request):
    """A request whose body was read and parsed."""

    def __init__(self, request: Request, body: bytes, value: Any) -> None:
        super().__init__(request.scope, request.receive)
        self._bytes = body
        self._value = value

    async def body(self) -> bytes:
        """The bytes as they came."""
        return self._bytes

    async def json(self) -> Any:
        """What they say."""
        return self._value


async def read_json(request: Request, settings: ServerSettings, *, max_bytes: int | None = None) -> JsonRequest:
    """The request with its JSON body.

    Args:
        max_bytes: The largest body; unset takes `server.max_body_bytes`.

    Raises:
        HttpError: 415 for another type or a packed body, 413 for one too large, 408 for one too slow, 400 for what is not
            JSON, 422 for JSON that is too deep or holds numbers or characters that cannot be stored.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise HttpError(415, "unsupported_media_type", "the body must be JSON", hint="send it with `Content-Type: application/json`")
    must_not_be_packed(request)
    try:
        body = await limited(settings.body_timeout_s, _read(request, max_bytes or settings.max_body_bytes))
    except LimitExceeded:
        raise too_slow("the body", "body_timeout_s") from None
    value = parse_json(body)
    check_value(value, settings.max_json_depth)
    return JsonRequest(request, body, value)


def must_not_be_packed(request: Request) -> None:
    """Raises HttpError for a compressed body: a small one can unpack to anything."""
    if request.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise HttpError(415, "unsupported_encoding", "compressed bodies are not taken", hint="send it without Content-Encoding")


async def _read(request: Request, max_bytes: int) -> bytes:
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:20]) > max_bytes:
        raise too_large(max_bytes, "max_body_bytes")
    parts, size = [], 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > max_bytes:
                raise too_large(max_bytes, "max_body_bytes")
            parts.append(part)
    except ClientDisconnect:
        raise disconnected("its body") from None
    return b"".join(parts)


def too_slow(what: str, setting: str) -> HttpError:
    """The refusal of a body that takes longer to come than `server.<setting>`; the rest of it is not read."""
    return HttpError(
        408,
        "body_timeout",
        f"{what} did not arrive in time",
        hint=f"send it over a faster connection, or in smaller parts; the server's setting is server.{setting}",
        headers={"connection": "close"},
    )


def disconnected(what: str) -> HttpError:
    """The client ended its side of the connection; it may hear of it all the same."""
    return HttpError(400, "disconnected", f"the client left before {what} was there", hint="keep the connection open until the answer")


def too_large(max_bytes: int, setting: str) -> HttpError:
    """The refusal of a body of more bytes than `server.<setting>` takes; the rest of it is not read."""
    return HttpError(
        413,
        "too_large",
        f"the body is larger than {max_bytes:,} bytes",
        hint=f"send less at once; the server's setting is server.{setting}",
        headers={"connection": "close"},
    )


def parse_json(body: bytes, what: str = "the body") -> Any:
    """The value of a JSON text, which an error calls `what`. Raises HttpError, 400, where it is none: JSON has no NaN and no infinity."""
    try:
        return json.loads(body.decode("utf-8"), parse_constant=_refused)
    except (ValueError, RecursionError) as fault:
        reason = "it is nested too deeply" if isinstance(fault, RecursionError) else str(fault)[:200]
        raise HttpError(400, "invalid_json", f"{what} is not JSON: {reason}", hint="see /docs for what this address takes") from fault


def check_value(value: Any, max_depth: int) -> None:
    """Raises HttpError, 422, for a value too deep, a whole number beyond 64 bits, or a text that is none: NUL, half a character."""
    level, depth = [value], 0
    while level:
        depth += 1
        below: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                below += each.keys()
                below += each.values()
            elif isinstance(each, list):
                below += each
            elif isinstance(each, str):
                _check_text(each)
            elif isinstance(each, int) and not -_INT64 <= each < _INT64:
                raise HttpError(422, "invalid_input", "a whole number is beyond 64 bits", hint="send it as a text")
            elif isinstance(each, float) and each - each != 0:  # 1e999
                raise HttpError(422, "invalid_input", "a number is too large", hint="send one that a double holds, or a text")
        if below and depth > max_depth:
            deep = f"the body is nested deeper than {max_depth} levels"
            raise HttpError(422, "invalid_input", deep, hint="send it flatter; the server's setting is server.max_json_depth")
        level = below


def _check_text(text: str) -> None:
    if text.isascii():
        if "\0" in text:
            raise HttpError(422, "invalid_input", "a text holds the character NUL", hint="leave it out")
        return
    try:
        text.encode()
    except UnicodeEncodeError:
        raise HttpError(422, "invalid_input", "a text holds half a character (a lone surrogate)", hint="send UTF-8") from None
    if "\0" in text:
        raise HttpError(422, "invalid_input", "a text holds the character NUL", hint="leave it out")


def _refused(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number")
