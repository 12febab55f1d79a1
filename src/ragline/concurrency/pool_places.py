"""The places of a connection pool, each with room for one connection, and what is done with one connection."""

from __future__ import annotations

import asyncio
import inspect
import logging
import weakref
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from functools import partial
from types import FrameType, TracebackType
from typing import Any, Generic, Protocol, TypeVar

from ragline.errors import BackendError, DeadlineError, OverloadedError, RaglineError

C = TypeVar("C")

log = logging.getLogger("ragline.concurrency")


class Line:
    """A line of code, named only when somebody wants to read it."""

    __slots__ = ("_code", "_number")

    def __init__(self, frame: FrameType) -> None:
        self._code, self._number = frame.f_code, frame.f_lineno  # not the frame: it would keep its variables alive

    def __str__(self) -> str:
        return f"{self._code.co_filename}:{self._number} in {self._code.co_name}"


@dataclass(slots=True, eq=False)
class Place:
    """Room for one connection.

    Attributes:
        connection: None while there is none. While it is lent only its user holds it, where Python can tell us that it
            was forgotten; `held` then leads to it.
        suspect: It may be broken: closed, not lent.
        since: When it was lent, or given back.
        loan: A number of its own for each time that it is lent.
        leaving: What closes the connection that was in it before.
    """

    connection: Any = None
    is_open: bool = False
    suspect: bool = False
    made_at: float = 0.0
    since: float = 0.0
    loan: int = 0
    where: Line | None = None
    told: bool = False
    held: Callable[[], Any] | None = None
    leaving: asyncio.Task[None] | None = None

    def fill(self, connection: Any, now: float) -> None:
        """Takes in a connection that was opened just now."""
        self.connection, self.is_open, self.suspect = connection, True, False
        self.made_at = self.since = now

    def lend(self, loan: int, where: Line, now: float, collected: Callable[[object], None]) -> Any:
        """The connection, which the place lets go of; `collected` is called, on any thread, if its user does so too."""
        connection, self.connection = self.connection, None
        self.loan, self.where, self.told, self.since = loan, where, False, now
        try:
            self.held = weakref.ref(connection, collected)
        except TypeError:
            self.held = partial(_same, connection)
        return connection

    def take_back(self, connection: Any, now: float, *, broken: bool) -> None:
        """Ends a loan."""
        self.connection, self.held, self.suspect, self.since = connection, None, broken, now

    def empty(self) -> Any:
        """Gives up the connection, and returns it."""
        connection, self.connection = self.connection, None
        self.is_open, self.suspect, self.held = False, False, None
        return connection


class Lender(Protocol):
    """What lends places."""

    async def _acquire(self, where: Line) -> tuple[Any, Place]: ...

    def _release(self, place: Place, loan: int, connection: Any, *, broken: bool) -> None: ...


class Acquiring(Generic[C]):
    """A connection to come: for one `async with`, or for one `await`."""

    __slots__ = ("_connection", "_lender", "_loan", "_place", "_where")

    def __init__(self, lender: Lender, where: Line) -> None:
        self._lender, self._where = lender, where

    def __await__(self) -> Generator[Any, None, C]:
        return self._acquired().__await__()

    async def _acquired(self) -> C:
        connection: C = (await self._lender._acquire(self._where))[0]
        return connection

    async def __aenter__(self) -> C:
        self._connection: C
        self._connection, self._place = await self._lender._acquire(self._where)
        self._loan = self._place.loan
        return self._connection

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._lender._release(self._place, self._loan, self._connection, broken=kind is not None)


async def shut(connection: Any, close: Callable[[Any], Awaitable[object] | None] | None, limit_s: float) -> None:
    """Closes a connection, or lets go of one that cannot be closed in time."""
    try:
        async with asyncio.timeout(limit_s):
            if close is None:
                close = _own_close
            closing = close(connection)
            if inspect.isawaitable(closing):
                await closing
    except Exception as error:
        log.debug("a pooled connection could not be closed well: %s", said(error))


def closed() -> BackendError:
    """The pool does not lend any more."""
    return BackendError("the connection pool is closed", hint="acquire within `async with ConnectionPool(...)`")


def overloaded(max_size: int, timeout_s: float) -> OverloadedError:
    """No connection came back in time."""
    return OverloadedError(
        f"all {max_size} connections were in use for {timeout_s:g} s",
        hint="try again later; if it comes often, allow more connections or fewer requests at once",
    )


def too_slow(timeout_s: float) -> DeadlineError:
    """There was room, but no connection."""
    return DeadlineError(f"no connection could be opened within {timeout_s:g} s", hint="see that the service is up and can be reached")


def said(error: BaseException) -> str:
    """What went wrong; of foreign errors only the kind, for their words may hold an address with a password."""
    return error.message if isinstance(error, RaglineError) else type(error).__name__


def _own_close(connection: Any) -> Awaitable[object] | None:
    close = getattr(connection, "aclose", None) or getattr(connection, "close", None)
    return close() if close is not None else None


def _same(value: Any) -> Any:
    return value
