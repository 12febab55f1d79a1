"""What every operation has: a scope that its caller needs, limits on its body, an end when its client leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, get_args

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.types import Receive

from ragline.server.access import caller_of
from ragline.server.bodies import read_json
from ragline.server.errors import HttpError
from ragline.server.schemas.errors import problems
from ragline.server.state import state_of
from ragline.storage.keys import KeyScope

SCOPE = "x-ragline-scope"
"""Where an operation of the OpenAPI document names the scope that a key needs for it."""

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


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


async def until_left(request: Request, work: Coroutine[Any, Any, Response]) -> Response:
    """The response, or nothing that anyone would read if the client leaves first: then the work is cancelled."""
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(left(request.receive))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise client_left()
    finally:
        leaving.cancel()
        if not working.done():  # the client left, or this task was cancelled
            working.cancel()
            await asyncio.wait((working,))
            if not working.cancelled():
                working.exception()  # seen: nobody is left to be told of it


def client_left() -> HttpError:
    """Noted in the access log; nobody reads it."""
    return HttpError(499, "client_left", "the client left")


async def left(receive: Receive) -> None:
    """Returns when the client has left; the body must have been read, or nobody wants it."""
    while (await receive())["type"] != "http.disconnect":
        pass
