"""Which request is this for? A name that goes with it through tasks and worker threads."""

from __future__ import annotations

import random
from contextvars import ContextVar, Token
from types import TracebackType

LONGEST = 128

_current: ContextVar[str] = ContextVar("ragline_request_id", default="")
_random = random.Random()


def request_id() -> str:
    """The id of the request that this code runs for; empty outside of one."""
    return _current.get()


class request:  # named as it is read: `with request():`
    """Gives what runs inside an id: the one given, else that of the request around it, else a new one.

    Not around a `yield` of an async generator, whose reader may be another task each time.

    Examples:
        with request() as id: ...
        with request(headers.get("x-request-id", "")): ...

    Args:
        id: As a caller sent it. Signs that do not belong into a log, and what is too long, are taken off.
    """

    __slots__ = ("_id", "_token")

    def __init__(self, id: str = "") -> None:
        usable = "".join(filter(str.isprintable, id))[:LONGEST].strip() if id else ""
        self._id = usable or _current.get() or new_request_id()

    def __enter__(self) -> str:
        self._token = _current.set(self._id)
        return self._id

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        _current.reset(self._token)


def begin_request() -> Token[str] | None:
    """As entering `request()`, in less time: gives a new id where there is none. `end_request` takes what this returns."""
    return None if _current.get() else _current.set(new_request_id())


def end_request(token: Token[str] | None) -> None:
    """Takes back what `begin_request` gave."""
    if token is not None:
        _current.reset(token)


def new_request_id() -> str:
    """16 random hexadecimal digits. They name a request, and keep no secret."""
    return f"{_random.getrandbits(64):016x}"
