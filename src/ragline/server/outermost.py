"""What happens to every request first and last: its id, the headers of its answer, the access log, and faults of ours."""

from __future__ import annotations

import asyncio
import logging
import re
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ragline.observe.request_ids import new_request_id, request
from ragline.server.errors import error_response, internal_error
from ragline.server.metrics import UNMATCHED, RequestCounts

_access = logging.getLogger("ragline.access")
_log = logging.getLogger("ragline.server")

_USABLE_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
"""Ids of clients that may stand in headers and logs as they are."""

_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_DEFAULTS = {
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    b"cache-control": b"no-store",
}
"""Headers that a response may have in a form of its own."""


class Outermost:
    """Wraps the whole application. Nothing of what goes wrong within leaves but its id."""

    def __init__(self, app: ASGIApp, requests: RequestCounts) -> None:
        self._app = app
        self._requests = requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0
        self._requests.in_flight += 1
        scope.setdefault("state", {})["came"] = started
        with request(_id_of(scope)) as id:

            async def answer(message: Message) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                    headers = message["headers"] = list(message.get("headers", ()))
                    present = {name for name, _ in headers}
                    headers += [pair for pair in _DEFAULTS.items() if pair[0] not in present]
                    headers += [*_HEADERS, (b"x-request-id", id.encode())]
                await send(message)

            try:
                await self._app(scope, receive, answer)
            except asyncio.CancelledError:
                status = status or 499
                raise
            except Exception:
                _log.exception("a request failed")
                if status:  # what was sent cannot be taken back: it stays unfinished, and the client sees that
                    raise
                await error_response(scope["path"], internal_error())(scope, receive, answer)
            finally:
                took_s = time.perf_counter() - started
                self._requests.in_flight -= 1
                self._requests.add(getattr(scope.get("route"), "path", UNMATCHED), scope["method"], status, took_s)
                _note(scope, status, took_s)


def _id_of(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _USABLE_ID.fullmatch(value):
            return bytes(value).decode()
    return new_request_id()


def _note(scope: Scope, status: int, took_s: float) -> None:
    # Those refused because there are too many are told together, by the budgets.
    level = logging.DEBUG if scope.get("state", {}).get("refused") else logging.INFO
    if not _access.isEnabledFor(level):
        return
    # As it came, percent-encoded, and without its query.
    path = bytes(scope.get("raw_path") or b"").partition(b"?")[0].decode("ascii", "replace")
    caller = scope.get("state", {}).get("caller")
    tenant = caller.tenant if caller is not None else ""
    key = caller.key.id if caller is not None and caller.key is not None else ""
    took_ms = round(took_s * 1000, 2)
    extra = {"method": scope["method"], "path": path, "status": status, "took_ms": took_ms, "tenant": tenant, "key": key}
    told = (scope["method"], path, status, took_ms)
    # Made here, for a logger would first look for the line of code that logs, which takes as long as all the rest.
    _access.handle(_access.makeRecord(_access.name, level, __file__, 0, "%s %s %d %.2f ms", told, None, "_note", extra))
