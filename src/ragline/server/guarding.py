"""What every operation has: a scope that its caller needs, limits on its body, an end when its client leaves.

FastAPI finds the handler of a request and the handler's arguments anew each time, which takes longer than a known answer. Where both are
plain, `Directly` does it instead: an address without variables, a JSON body, and what `_ARGUMENTS` names.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, get_args, get_type_hints

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.types import ASGIApp, Receive, Scope, Send

from ragline.errors import RaglineError
from ragline.server.access import Asker, TenantEngine, caller_of, engine_of
from ragline.server.bodies import read_json
from ragline.server.errors import HttpError, error_response, invalid_body
from ragline.server.schemas.errors import problems
from ragline.server.state import state_of
from ragline.storage.keys import KeyScope

SCOPE = "x-ragline-scope"
"""Where an operation of the OpenAPI document names the scope that a key needs for it."""

Handler = Callable[[Request], Coroutine[Any, Any, Response]]

_ARGUMENTS: Mapping[Any, Callable[[Request], Any]] = {Request: lambda request: request, TenantEngine: engine_of, Asker: caller_of}
"""What a handler may ask for besides its body, by annotation."""

_TURNS = 3
"""So many turns of the event loop an answer that is known takes."""


def operation(needs: KeyScope, *statuses: int, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """What the decorator of a route is given besides its own: `@router.get("/things", **operation("read", 404))`.

    Args:
        needs: The scope that a key must have.
        statuses: The statuses of errors that this operation has beyond those that all have.
        body: What the OpenAPI document says of a body that the handler reads by itself.
    """
    extra: dict[str, Any] = {SCOPE: needs}
    if body is not None:
        extra["requestBody"] = body
    return {"openapi_extra": extra, "responses": problems(*statuses)}


class GuardedRoute(APIRoute):
    """A route that checks the caller's scope before the body is read, and ends its work when the client leaves.

    A body that the handler declares is JSON, within the server's limits. Handlers that read the body themselves have theirs.
    """

    def get_route_handler(self) -> Handler:
        """The handler, guarded."""
        handle = super().get_route_handler()
        needs: Any = (self.openapi_extra or {}).get(SCOPE)
        if needs not in get_args(KeyScope):
            raise TypeError(f"{self.path} names no scope: give it **operation(...)")
        takes_json, takes_body = self.body_field is not None, "requestBody" in (self.openapi_extra or {})

        async def guarded(request: Request) -> Response:
            caller_of(request).must_have(needs)
            if takes_body:
                return await handle(request)
            if takes_json:
                request = await read_json(request, state_of(request).settings.server)
            return await until_left(request, handle(request))

        return guarded

    def direct(self) -> Handler | None:
        """The same without FastAPI, where the handler asks for nothing that needs it; else None."""
        hints = get_type_hints(self.endpoint, include_extras=True)
        asked = {name: hints[name] for name in inspect.signature(self.endpoint).parameters}
        bodies = [name for name, kind in asked.items() if isinstance(kind, type) and issubclass(kind, BaseModel)]
        known = {name: _ARGUMENTS[kind] for name, kind in asked.items() if kind in _ARGUMENTS}
        if len(bodies) != 1 or len(bodies) + len(known) < len(asked) or self.body_field is None or "{" in self.path:
            return None
        name, endpoint, needs = bodies[0], self.endpoint, (self.openapi_extra or {})[SCOPE]
        model = asked[name]

        async def handle(request: Request) -> Response:
            caller_of(request).must_have(needs)
            request = await read_json(request, state_of(request).settings.server)
            try:
                body = model.model_validate(await request.json())
            except ValidationError as fault:
                raise invalid_body(RequestValidationError([{**each, "loc": ("body", *each["loc"])} for each in fault.errors()])) from None
            given = {other: find(request) for other, find in known.items()}
            return await until_left(request, endpoint(**{name: body}, **given))

        return handle


class Directly:
    """Calls the handlers of the busiest operations itself, and leaves all others to FastAPI. They behave alike in both."""

    def __init__(self, app: ASGIApp, routers: Iterable[APIRouter]) -> None:
        self._app = app
        routes = [route for router in routers for route in router.routes if isinstance(route, GuardedRoute)]
        found = [(route, handler) for route in routes if (handler := route.direct()) is not None]
        self._handlers = {(method, route.path): (route, handler) for route, handler in found for method in route.methods or ()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        found = self._handlers.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if found is None:
            await self._app(scope, receive, send)
            return
        scope["route"], handle = found
        try:
            response = await handle(Request(scope, receive, send))
        except RaglineError as error:
            response = error_response(scope["path"], error)
        await response(scope, receive, send)


async def until_left(request: Request, work: Coroutine[Any, Any, Response]) -> Response:
    """The response, or nothing that anyone would read if the client leaves first: then the work is cancelled."""
    working, leaving = asyncio.create_task(work), None
    try:
        for _ in range(_TURNS):
            await asyncio.sleep(0)
            if working.done():
                return working.result()
        leaving = asyncio.create_task(left(request.receive))
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise client_left()
    finally:
        if leaving is not None:
            leaving.cancel()
        if not working.done():  # the client left, or this task was cancelled
            working.cancel()
            await asyncio.wait((working,))
            if not working.cancelled():
                working.exception()  # seen: nobody is left to be told of it


def client_left() -> HttpError:
    """Noted in the access log; nobody reads it."""
    return HttpError(499, "client_left", "the client left", hint="keep the connection open until the answer")


async def left(receive: Receive) -> None:
    """Returns when the client has left; the body must have been read, or nobody wants it."""
    while (await receive())["type"] != "http.disconnect":
        pass
