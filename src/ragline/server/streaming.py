"""Server-sent events: what is streamed, and an end to it when the client leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from typing import Any

from fastapi import Response
from starlette.types import Receive, Scope, Send

from ragline.server.guarding import left
from ragline.server.replies import encoded

_PING = b": still here\n\n"


def sse(name: str, data: Any) -> bytes:
    """One named event with JSON data, which has no line breaks of its own."""
    return b"event: " + name.encode() + b"\ndata: " + encoded(data) + b"\n\n"


class EventStream(Response):
    """Sends pieces as they come, and a comment where nothing comes for a while, so that proxies wait and dead clients are found.

    When the client leaves, or the server has stopped, `pieces` is closed: what makes them ends at once. A client that does not read
    holds back the next piece, nothing else.

    Args:
        until: Returns when the stream is to be broken off, for one that would hold up a server that is told to stop.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        pieces: AsyncGenerator[bytes, None],
        *,
        heartbeat_s: float,
        headers: Mapping[str, str] | None = None,
        until: Callable[[], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        self.body = b""
        self.status_code = 200
        self.background = None
        self._pieces = pieces
        self._heartbeat_s = heartbeat_s
        self._until = until
        self.init_headers({"cache-control": "no-store", "x-accel-buffering": "no", **(headers or {})})
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Streams until there is no more to say, or nobody to say it to."""
        try:
            await self._stream(receive, send)
        finally:
            await self._pieces.aclose()

    async def _stream(self, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        sending = asyncio.create_task(self._send(send))
        tasks = [sending, asyncio.create_task(left(receive))]
        stopping = None if self._until is None else asyncio.create_task(self._until())
        if stopping is not None:
            tasks.append(stopping)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        if stopping is not None and not stopping.cancelled() and sending.cancelled():
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send(self, send: Send) -> None:
        next_piece: asyncio.Task[bytes] | None = None
        try:
            while True:
                next_piece = next_piece or asyncio.create_task(_next(self._pieces))
                done, _ = await asyncio.wait((next_piece,), timeout=self._heartbeat_s)
                if not done:
                    await send({"type": "http.response.body", "body": _PING, "more_body": True})
                    continue
                try:
                    piece = next_piece.result()
                except StopAsyncIteration:
                    break
                finally:
                    next_piece = None
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            if next_piece is not None:
                next_piece.cancel()
                await asyncio.wait((next_piece,))


async def _next(pieces: AsyncGenerator[bytes, None]) -> bytes:
    return await anext(pieces)
