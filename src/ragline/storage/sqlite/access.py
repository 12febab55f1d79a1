"""What the parts of the store ask of it: to read, and to write tables that move no log."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Concatenate, ParamSpec, Protocol, TypeVar

import apsw

P = ParamSpec("P")
T = TypeVar("T")


class Ask(Protocol):
    """Calls a function with a connection and these arguments."""

    def __call__(self, question: Callable[Concatenate[apsw.Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> Awaitable[T]:
        """What the function gives."""
        ...


class Access(Protocol):
    """The store, as far as its parts need it."""

    def version(self) -> int:
        """A number that differs from the last one wherever any process has committed something since."""
        ...

    @property
    def glance(self) -> Ask:
        """Asks what takes microseconds."""
        ...

    @property
    def read(self) -> Ask:
        """Asks on a connection that only reads."""
        ...

    @property
    def write(self) -> Ask:
        """Runs in a transaction of its own; returns when it is committed."""
        ...
