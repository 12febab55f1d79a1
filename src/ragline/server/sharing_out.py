"""New connections shared out evenly among the processes of a server.

All processes listen on one socket, and a connection goes to whoever asks for it first. Clients keep their connections, so
what chance gave one process stays there: 162 of 200 were seen at one of two, which refused what the other had time for.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import time
from collections.abc import Callable
from multiprocessing.context import SpawnContext

_log = logging.getLogger("ragline.server")

MOMENT_S = 0.005
"""How long a process with more connections leaves new ones to those with fewer; then it takes them all the same."""

_TRY_AGAIN_S = 1.0
"""How long to wait after a connection could not be taken, for want of descriptors or memory."""

_AT_ONCE = 64
"""At most so many are taken in one turn of the loop."""

_STALE_S = 2.0
"""A process that has not told its count for so long is stopped, or was killed: nothing is left for it."""

_NO_ROOM = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

_NOBODY = -1


class Census:
    """How many connections each process of a server has, in memory that all of them share.

    The parent gives each process a place, and takes it back when the process has ended. Counts are read without a lock: a
    wrong one does no harm.

    Args:
        context: Starts the processes, which are handed the census on their way.
        most: How many processes there may be at once.
    """

    def __init__(self, context: SpawnContext, most: int) -> None:
        self._counts = context.RawArray("l", [_NOBODY] * most)
        self._crowds = context.RawArray("b", most)
        self._told = context.RawArray("d", most)  # when, by the clock that all processes of a machine share
        self._given = [False] * most

    def enter(self) -> int:
        """A place for a new process."""
        place = self._given.index(False)
        self._given[place] = True
        return place

    def leave(self, place: int) -> None:
        """The process has ended, however it did."""
        self._given[place] = False
        self._counts[place], self._crowds[place] = _NOBODY, False

    def tell(self, place: int, connections: int | None) -> None:
        """How many connections the process has now; None where it takes no more."""
        self._counts[place], self._told[place] = _NOBODY if connections is None else connections, time.monotonic()

    def tell_crowd(self, place: int, crowded: bool) -> None:
        """Whether more is asked of the process than it can do."""
        self._crowds[place] = crowded

    def gives_away(self, place: int) -> bool:
        """Whether the process has a crowd and another has none: clients are better off there."""
        return bool(self._crowds[place]) and not all(self._crowds[at] for at in self._others(place))

    def room(self, place: int) -> int:
        """How many connections the process may take until it has more than the one with fewest, by one and by an eighth of its own.

        None where it has a crowd and another has none; those with a crowd do not count for one without.
        """
        if self.gives_away(place):
            return 0
        mine = self._counts[place]
        others = [self._counts[at] for at in self._others(place) if self._crowds[place] or not self._crowds[at]]
        return max(0, min(others) + 1 + mine // 8 - mine) if others else _AT_ONCE

    def _others(self, place: int) -> list[int]:
        since = time.monotonic() - _STALE_S
        return [at for at, count in enumerate(self._counts) if at != place and count != _NOBODY and self._told[at] > since]


class Intake:
    """Takes connections from a socket on which other processes listen, too; stands in for the `asyncio.Server` that uvicorn has.

    Args:
        listening: Does not block.
        make_protocol: What speaks on a connection.
        connections: How many there are here now.
        place: This process's in the census.

    Attributes:
        leaving: Only what no other process takes is taken: this one will stop soon.
    """

    leaving = False

    def __init__(
        self,
        listening: socket.socket,
        make_protocol: Callable[[], asyncio.Protocol],
        connections: Callable[[], int],
        census: Census,
        place: int,
    ) -> None:
        self._listening = listening
        self._make_protocol = make_protocol
        self._connections = connections
        self._census = census
        self._place = place
        self._loop = asyncio.get_running_loop()
        self._opening: set[asyncio.Task[object]] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._closed = False
        self.tell()
        self._listen()

    def tell(self) -> None:
        """Tells the other processes how many connections there are here: for each that comes, and now and then for those that go."""
        if not self._closed:
            self._census.tell(self._place, None if self.leaving else self._connections() + len(self._opening))

    def close(self) -> None:
        """Takes no more. Twice is harmless."""
        self._closed = True
        self._census.tell(self._place, None)
        self._loop.remove_reader(self._listening)
        if self._pause is not None:
            self._pause.cancel()

    async def wait_closed(self) -> None:
        """Waits for connections that were taken and not yet opened."""
        if self._opening:
            await asyncio.wait(self._opening)

    def _listen(self) -> None:
        self._loop.add_reader(self._listening, self._come)

    def _come(self) -> None:
        """Connections have come. Those that are another's turn are left alone for a moment."""
        self.tell()
        room = 0 if self.leaving else self._census.room(self._place)
        if room:
            self._take(room)
        else:
            self._pause_for(MOMENT_S, self._come_back)

    def _come_back(self) -> None:
        """What is still there is taken by us: the others are busy, or stopped."""
        self._listen()
        self._take(1 + (self._connections() + len(self._opening)) // 8)

    def _take(self, most: int) -> None:
        for _ in range(min(most, _AT_ONCE)):
            try:
                connection, _ = self._listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as fault:
                if fault.errno not in _NO_ROOM:
                    continue  # of that connection, which is gone already
                # Asked again at once, it would be the same.
                _log.error("no connection can be taken: %s", fault.strerror)
                self._pause_for(_TRY_AGAIN_S, self._listen)
                return
            connection.setblocking(False)
            opening = self._loop.create_task(self._open(connection))
            self._opening.add(opening)
            opening.add_done_callback(self._opening.discard)
            self.tell()

    async def _open(self, connection: socket.socket) -> None:
        try:
            transport, _ = await self._loop.connect_accepted_socket(self._make_protocol, connection)
            if self._closed:  # those that were there have been told so already
                transport.close()
        except OSError as fault:  # it went meanwhile
            _log.debug("a connection could not be opened: %s", fault)
            connection.close()

    def _pause_for(self, pause_s: float, then: Callable[[], None]) -> None:
        self._loop.remove_reader(self._listening)
        self._pause = self._loop.call_later(pause_s, then)
