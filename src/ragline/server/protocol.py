"""HTTP as uvicorn speaks it, with bounds on what comes around a body: the head of a request must be there soon, and small.

Without them a client could hold connections by sending a head that never ends, slowly, or memory, fast; the latter also with
headers that follow a chunked body, which are kept like those before it. And a client that is refused while it sends hears why.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ragline.server.lingering import Lingering

_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class BoundedHeads(HttpToolsProtocol):
    """A connection whose requests have `within_s` for their heads, of at most `max_bytes`; so much may follow their bodies, too."""

    within_s = 15.0
    max_bytes = 64 * 1024
    first_within_s = 0.5
    """When the process stops, a connection that it has just taken may still bring a request for so long: it would be lost otherwise."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._deadline: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._went_on = False
        self._unfinished = False
        self._last = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The first request is due."""
        self._lingering = Lingering(transport, self.loop, lambda: self._unfinished)
        super().connection_made(self._lingering)  # type: ignore[arg-type]  # all of a transport that is asked of it
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        """Reads on, unless a head, or what follows a body, has grown too large."""
        if self._lingering.dropped(data):
            return
        awaited, self._went_on = self._deadline, False
        super().data_received(data)
        in_head = awaited is not None and self._deadline is awaited
        if in_head or not self._went_on:  # all of it belongs to one head, or to no part of a body
            self._head_bytes += len(data)
            if self._head_bytes > self.max_bytes and not self.transport.is_closing():
                self._head_is_there()
                self.transport.write(_TOO_LARGE)
                self.transport.close()

    def on_message_begin(self) -> None:
        """A request begins."""
        self._went_on = self._unfinished = True
        super().on_message_begin()
        if self._deadline is None:
            self._expect_head()

    def on_headers_complete(self) -> None:
        """Its head is there."""
        self._went_on = True
        self._head_is_there()
        super().on_headers_complete()
        if self._last and self.cycle is not None:
            self.cycle.keep_alive = False

    def shutdown(self) -> None:
        """Ends it once what is under way is answered."""
        if self.cycle is None:
            self._last = True
            self.loop.call_later(self.first_within_s, self._unused)
        else:
            super().shutdown()

    def on_chunk_header(self) -> None:
        """A part of a body begins, or it has ended."""
        self._went_on = True

    def on_body(self, body: bytes) -> None:
        """The body goes on."""
        self._went_on = True
        super().on_body(body)

    def on_chunk_complete(self) -> None:
        """A part of a body was there whole."""
        self._went_on = True

    def on_message_complete(self) -> None:
        """The request is there whole."""
        self._went_on, self._unfinished = True, False
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is due any more."""
        self._head_is_there()
        self._lingering.lost()
        super().connection_lost(exc)

    def _expect_head(self) -> None:
        self._head_bytes = 0  # counted on over the body: what follows it is little
        self._deadline = self.loop.call_later(self.within_s, self._too_late)

    def _head_is_there(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _unused(self) -> None:
        if self.cycle is None:
            self.transport.close()

    def _too_late(self) -> None:
        self._deadline = None
        self.transport.abort()
