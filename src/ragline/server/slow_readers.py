"""Clients that do not take their answer are cut off, so that they hold nothing."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ragline.concurrency.limited import LimitExceeded, limited


class SlowReaders:
    """The outermost of all: what it is given to send with is the server's own.

    A part of an answer that cannot be handed to the connection for `timeout_s` ends the connection; what made the answer then sees a
    client that has left.
    """

    def __init__(self, app: ASGIApp, timeout_s: float) -> None:
        self._app = app
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request for as long as its client takes what it is sent."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def patiently(message: Message) -> None:
            try:
                await limited(self._timeout_s, send(message))
            except LimitExceeded:
                # ASGI has no word for this. uvicorn's `send` is a method of what holds the transport; where another server's is
                # not, the answer ends here and the connection is left to that server.
                transport = getattr(getattr(send, "__self__", None), "transport", None)
                if transport is None:
                    raise asyncio.CancelledError from None
                transport.abort()

        await self._app(scope, receive, patiently)
