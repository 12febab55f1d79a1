"""Who asks? Decided from the headers alone, before anything is routed or any body is read."""

from __future__ import annotations

import asyncio
import functools
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Annotated, Any

from fastapi import Depends, Request
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from ragline.engine import Engine
from ragline.errors import RaglineError
from ragline.server.errors import HttpError, error_response
from ragline.server.state import ServerState
from ragline.settings.serving import split
from ragline.storage.keys import KeyScope, StoredKey, matches, parse_key
from ragline.types import Effort

OPEN_PATHS = frozenset({"/livez", "/readyz", "/health", "/healthz"})
"""What anyone may ask, with keys or without."""

_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
_CHALLENGE = {"www-authenticate": 'Bearer realm="ragline"'}


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and the engine as far as it is theirs.

    Attributes:
        key: None where the server has no keys: then everyone on this machine may do everything.
        under_way: What goes on even if they leave; the server waits for it before it closes.
    """

    engine: Engine
    tenant: str
    key: StoredKey | None
    under_way: set[asyncio.Task[Any]]

    @property
    def name(self) -> str:
        """What the audit calls them."""
        return self.key.id if self.key is not None else "local"

    def must_have(self, scope: KeyScope) -> None:
        """Raises the refusal of a key that lacks this scope."""
        if self.key is not None and not self.key.allows(scope):
            raise HttpError(
                403, "forbidden", f"this key has not the scope {scope!r}", hint=f"use one made with `ragline keys create --scope {scope}`"
            )


class Access:
    """Finds out who asks, or refuses.

    Without keys, only this machine is answered, and only under its own name: else any web page could have a browser ask here,
    under a name of its own that points to this machine.
    """

    def __init__(self, app: ASGIApp, state: ServerState) -> None:
        self._app = app
        self._state = state
        self._hosts = frozenset(split(state.settings.server.allowed_hosts))
        self._origins = frozenset(split(state.settings.server.cors_origins))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets a request in with its `Caller` as `request.state.caller`."""
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        try:
            caller = await self._caller(scope)
        except RaglineError as refusal:
            await error_response(scope["path"], refusal)(scope, receive, send)
            return
        scope.setdefault("state", {})["caller"] = caller
        await self._app(scope, receive, send)

    async def _caller(self, scope: Scope) -> Caller:
        headers = Headers(scope=scope)
        state = self._state
        if not state.ready and not state.stopping:
            raise HttpError(503, "starting", "the server is starting", hint="ask again when /readyz says so")
        if not await state.keys.in_force():
            self._must_be_local(scope, headers)
            return Caller(state.engine, state.settings.tenant, None, state.under_way)
        if self._hosts and _host_name(headers.get("host", "")) not in self._hosts | _LOCAL_NAMES:
            raise _foreign_host()
        key = await self._key(headers)
        state.key_uses.note(key)
        return Caller(state.engine.tenant(key.tenant), key.tenant, key, state.under_way)

    async def _key(self, headers: Headers) -> StoredKey:
        given = _given_key(headers)
        if not given:
            raise HttpError(
                401, "unauthorized", "this server wants a key", hint="send it as `Authorization: Bearer rl_...`", headers=_CHALLENGE
            )
        parsed = parse_key(given)
        key = await self._state.keys.find(parsed[0]) if parsed is not None else None
        if not matches(key, parsed[1] if parsed is not None else "") or key is None:
            raise HttpError(
                401,
                "unauthorized",
                "this key is unknown or was revoked",
                hint="`ragline keys list` shows those in force",
                headers={"www-authenticate": _CHALLENGE["www-authenticate"] + ', error="invalid_token"'},
            )
        return key

    def _must_be_local(self, scope: Scope, headers: Headers) -> None:
        client = scope.get("client")
        if client is not None and not _is_loopback(client[0]):
            raise HttpError(403, "forbidden", "without keys, only this machine is answered", hint="make a key: `ragline keys create`")
        host = headers.get("host", "")
        if _host_name(host) not in self._hosts | _LOCAL_NAMES:
            raise _foreign_host()
        origin = headers.get("origin")
        if origin is not None and origin not in self._origins and origin.partition("://")[2] != host:
            raise HttpError(403, "foreign_origin", "requests from this web page are refused", hint="name its origin in server.cors_origins")


def caller_of(request: Request) -> Caller:
    """Who asks."""
    caller = request.state.caller
    assert isinstance(caller, Caller)
    return caller


def engine_of(request: Request) -> Engine:
    """The engine as far as it is the caller's, for as much work as there is room for."""
    engine, visit = caller_of(request).engine, getattr(request.state, "visit", None)
    return engine if visit is None or visit.effort == Effort() else engine.lighter(visit.effort)


# These are async, though they wait for nothing: FastAPI takes a thread for each one that is not, which costs more than a cached answer.
async def _caller(request: Request) -> Caller:
    return caller_of(request)


async def _engine(request: Request) -> Engine:
    return engine_of(request)


Asker = Annotated[Caller, Depends(_caller)]
TenantEngine = Annotated[Engine, Depends(_engine)]


def _given_key(headers: Headers) -> str:
    kind, _, value = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer" and value.strip():
        return value.strip()
    return headers.get("x-api-key", "").strip()


def _host_name(host: str) -> str:
    """The name in a Host header, in lower case and without its port."""
    if host.startswith("["):
        return host[: host.find("]") + 1].lower()
    return host.partition(":")[0].lower()


@functools.lru_cache(maxsize=1024)
def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:  # a path: a socket of this machine
        return "/" in address or not address


def _foreign_host() -> HttpError:
    return HttpError(
        403, "foreign_host", "this server is not called by that name", hint="call it localhost, or add the name to server.allowed_hosts"
    )
