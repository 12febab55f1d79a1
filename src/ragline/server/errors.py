"""Errors over HTTP: the status of each, and its JSON, which under /v1 is OpenAI's."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from ragline.errors import (
    BackendError,
    ConflictError,
    CorruptionError,
    DeadlineError,
    InputError,
    MissingExtraError,
    NotFoundError,
    OverloadedError,
    RaglineError,
    SettingsError,
)

_log = logging.getLogger("ragline.server")

_STATUSES: tuple[tuple[type[RaglineError], int], ...] = (
    (MissingExtraError, 500),  # these two are for the server's owner to mend
    (SettingsError, 500),
    (InputError, 422),
    (NotFoundError, 404),
    (ConflictError, 409),
    (OverloadedError, 503),
    (DeadlineError, 504),
    (BackendError, 503),
    (CorruptionError, 500),
)
_PLAIN: Mapping[int, tuple[str, str, str]] = {
    400: ("invalid_request", "the request cannot be read", "see /docs for what it takes"),
    404: ("not_found", "there is nothing at this address", "/docs lists the addresses there are"),
    405: ("method_not_allowed", "this address does not take this method", "the Allow header lists those it takes"),
    500: ("internal", "something went wrong in the server", "its log says more, under the id in the x-request-id header"),
}
_FAULTS: Mapping[str, str] = {
    "extra_forbidden": "there is no such field",
    "missing": "it must be given",
    "model_type": "it must be an object",
    "model_attributes_type": "it must be an object",
    "dict_type": "it must be an object",
    "list_type": "it must be a list",
}
"""What pydantic says in the words of Python, in those of JSON."""
_ALTERNATIVE = re.compile(r"constrained-\w+|str|\w+\[.*\]", re.DOTALL)
"""What pydantic calls one of several types that a value may have: it stands among the names of fields."""

_COMMANDS: Mapping[str, str] = {
    "`ragline collections list`": "GET /api/v1/collections",
    "`ragline documents list`": "GET /api/v1/documents",
}
"""What hints of the engine name, and what a client has instead."""

_OPENAI_TYPES: Mapping[int, str] = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


class HttpError(RaglineError):
    """A refusal that only exists over HTTP, with its status, code and headers.

    Attributes:
        param: The part of the request that it is about, for OpenAI's clients.
    """

    def __init__(
        self, status: int, code: str, message: str, *, hint: str, headers: Mapping[str, str] | None = None, param: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.code = code
        self.param = param
        self.headers = dict(headers or {})


class InvalidBodyError(InputError):
    """A body that does not fit the schema, or what is behind it.

    Attributes:
        param: The first place in it that does not.
    """

    param: str | None = None


@contextmanager
def about(param: str, kind: type[InputError] = InputError) -> Iterator[None]:
    """Errors of this kind, and of no narrower one, that are raised within are about this part of the body."""
    try:
        yield
    except kind as fault:
        if type(fault) is not kind:
            raise
        refusal = InvalidBodyError(fault.message, hint=fault.hint)
        refusal.code, refusal.param = fault.code, param
        raise refusal from fault


def status_of(error: RaglineError) -> int:
    """The HTTP status of an error."""
    if isinstance(error, HttpError):
        return error.status
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)


def shown(error: RaglineError) -> RaglineError:
    """The error as a client may see it: what failed below names folders and servers, which are for the log alone.

    What is not there is looked up with a request, not on the server's command line.
    """
    if isinstance(error, BackendError | CorruptionError | SettingsError):
        _log.error("%s", error.message, exc_info=error)
        _, message, hint = _PLAIN[500]
        plain = RaglineError(message, hint=hint)
        plain.code = error.code
        return plain
    if isinstance(error, NotFoundError):
        hint = error.hint
        for command, request in _COMMANDS.items():
            hint = hint.replace(command, request)
        return NotFoundError(error.message, hint=hint)
    return error


def error_response(path: str, error: RaglineError) -> Response:
    """The answer that tells of an error."""
    status, told = status_of(error), shown(error)
    if status == 422 and path.startswith("/v1/"):  # OpenAI has 400 for all that its caller can mend
        status = 400
    headers = told.headers if isinstance(told, HttpError) else {}
    if isinstance(told, OverloadedError) and told.retry_after_s is not None:
        headers = {"retry-after": str(math.ceil(told.retry_after_s))}
    return Response(error_body(path, status, told), status, headers, "application/json")


def error_body(path: str, status: int, error: RaglineError) -> bytes:
    """The JSON of an error: `{error: {code, message, hint}}`; under /v1 OpenAI's `{error: {message, type, param, code}}`."""
    shape: dict[str, Any] = error.to_dict()
    if path.startswith("/v1/"):
        kind = _OPENAI_TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
        message = f"{error.message} ({error.hint})" if error.hint else error.message
        shape = {"error": {"message": message, "type": kind, "param": getattr(error, "param", None), "code": error.code}}
    return json.dumps(shape).encode()


def refused_unread(full: OverloadedError) -> HttpError:
    """The refusal of a body that is not read: its connection ends, for the rest of it would come all the same."""
    headers = {"connection": "close", **({} if full.retry_after_s is None else {"retry-after": str(math.ceil(full.retry_after_s))})}
    return HttpError(503, full.code, full.message, hint=full.hint, headers=headers)


def internal_error() -> HttpError:
    """What a client sees of a fault of ours."""
    return plain_error(500)


def plain_error(status: int, headers: Mapping[str, str] | None = None) -> HttpError:
    """The error of a bare HTTP status."""
    code, message, hint = _PLAIN.get(status) or (_PLAIN[400] if status < 500 else _PLAIN[500])
    return HttpError(status, code, message, hint=hint, headers=headers)


def install(app: FastAPI) -> None:
    """Gives every error its shape."""

    async def raised(request: Request, error: Exception) -> Response:
        assert isinstance(error, RaglineError)
        return error_response(request.url.path, error)

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return error_response(request.url.path, plain_error(error.status_code, error.headers))

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return error_response(request.url.path, invalid_body(error))

    app.add_exception_handler(RaglineError, raised)
    app.add_exception_handler(HTTPException, refused)
    app.add_exception_handler(RequestValidationError, invalid)


def invalid_body(error: RequestValidationError) -> InvalidBodyError:
    """The refusal of a body that does not fit the schema."""
    faults = _telling(error.errors())
    refusal = InvalidBodyError(
        "; ".join(f"{_place(fault['loc'])}: {_reason(fault)}" for fault in faults[:5]), hint="/docs shows what this address takes"
    )
    refusal.param = _place(faults[0]["loc"]) if faults else None
    return refusal


def _telling(faults: Sequence[Any]) -> list[Any]:
    """Without what is wrong with a value as one type, where it is of another of those it may be, and something is wrong with it as that."""
    found = [fault for fault in faults if not _is_of_another_type(fault)]
    unions = {fault["loc"][:end] for fault in found for end in range(len(fault["loc"])) if _ALTERNATIVE.fullmatch(str(fault["loc"][end]))}
    return [fault for fault in faults if not _is_of_another_type(fault) or fault["loc"][:-1] not in unions]


def _is_of_another_type(fault: Mapping[str, Any]) -> bool:
    return fault["type"] in ("string_type", "list_type") and _ALTERNATIVE.fullmatch(str(fault["loc"][-1])) is not None


def _reason(fault: Mapping[str, Any]) -> str:
    kind, limits = fault["type"], fault.get("ctx", {})
    if kind in ("string_too_short", "too_short"):
        things = "characters" if kind == "string_too_short" else "items"
        return f"it must have at least {limits['min_length']} {things}" if limits["min_length"] > 1 else "it must not be empty"
    if kind in ("string_too_long", "too_long"):
        return f"it must have at most {limits['max_length']:,} {'characters' if kind == 'string_too_long' else 'items'}"
    said: str = fault["msg"].removeprefix("Value error, ").replace("Input should be", "it must be")
    return _FAULTS.get(kind) or f"{said[:1].lower()}{said[1:]}"


def _place(location: tuple[int | str, ...]) -> str:
    parts = [str(part)[:80] for part in location[:6] if part != "body" and not _ALTERNATIVE.fullmatch(str(part))]
    return ".".join(parts) or str(location[0])
