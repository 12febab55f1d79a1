"""The application spoken to below HTTP, message by message: what no client library would send, and bodies that never come."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
App = Callable[[Any, Any, Any], Awaitable[None]]


class Exchange:
    """One request under way. Without a body given, its body never comes.

    Attributes:
        body_wanted: Set once the application asks for a part of the body.
        leave: Set to have the client leave.
    """

    def __init__(self, app: App, method: str, path: str, headers: Mapping[str, str], body: bytes | None = None) -> None:
        self.body_wanted = asyncio.Event()
        self.leave = asyncio.Event()
        self.answered = asyncio.Event()
        self.sent: list[Message] = []
        self._body = body
        self._scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()],
            "client": ("127.0.0.1", 50_000),
            "server": ("127.0.0.1", 80),
        }
        self.task = asyncio.ensure_future(app(self._scope, self._receive, self._send))

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent[1:])

    async def _receive(self) -> Message:
        self.body_wanted.set()
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self.leave.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        self.sent.append(message)
        self.answered.set()
