"""Closing a connection whose client is still sending, so that the answer reaches it.

A socket that is closed with unread bytes resets the connection, and a reset overtakes what was written before it: the client then
sees "connection reset" and not why it was refused. RFC 9112, section 9.6, says to close in steps: the side that writes first, then,
for a while, to read on and throw away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

_LINGER_S = 2.0
"""How long a client may go on sending what nobody reads."""

_LINGER_BYTES = 32 * 1024 * 1024
"""How much of it is thrown away: a client that sends more does not listen."""


class Lingering:
    """A connection's transport, closed in steps where a request is not there whole; all else is the transport's own.

    Args:
        unfinished: Whether a request, or its head, is still coming.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, unfinished: Callable[[], bool]) -> None:
        self._transport = transport
        self._loop = loop
        self._unfinished = unfinished
        self._end: asyncio.TimerHandle | None = None
        self._bytes = 0
        self.write = transport.write  # taken out here, as it is called for every answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        """Whether nothing more is to be written."""
        return self._end is not None or self._transport.is_closing()

    def close(self) -> None:
        """Ends the connection when what was written is out, and the client has heard of it; at once when called again."""
        if self._end is not None or self._transport.is_closing() or not self._unfinished():
            self.lost()
            self._transport.close()
            return
        self._end = self._loop.call_later(_LINGER_S, self._transport.abort)
        if self._transport.can_write_eof():  # not with TLS: there the client knows the answer's end by its length
            self._transport.write_eof()
        self._transport.resume_reading()

    def dropped(self, data: bytes) -> bool:
        """Whether `data` is of those that nobody reads any more."""
        if self._end is None:
            return False
        self._bytes += len(data)
        if self._bytes > _LINGER_BYTES:
            self._transport.abort()
        return True

    def lost(self) -> None:
        """The connection is no more: there is nothing to wait for."""
        if self._end is not None:
            self._end.cancel()
