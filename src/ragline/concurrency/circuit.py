"""Calls of a service that may be down: never longer than a limit, and not at all for a while after it failed again and again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from ragline.errors import BackendError, DeadlineError, OverloadedError

T = TypeVar("T")

_MOST_STUCK = 16
"""Calls that went on after they were cancelled; with more, none is begun."""

_SILENCE_S = 5.0
"""A server that did not answer for so long, until its caller gave up, has failed."""


class Circuit:
    """Says whether a service that may be down is worth asking. Source: M. Nygard, "Release It!", 2007, "Circuit Breaker".

    After `failures` in a row it rests for `rest_s`; then one call at a time is let through, until one succeeds.

    Args:
        failures: So many in a row open it.
        rest_s: How long nothing is asked then, and after each further failure.
        name: What it stands before, for people.
        clock: Seconds, never going back.
    """

    def __init__(self, failures: int, rest_s: float, *, name: str = "the service", clock: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self.rest_s = rest_s
        self._most = failures
        self._clock = clock
        self._in_a_row = 0
        self._rests_until = 0.0

    @property
    def open(self) -> bool:
        """Whether it failed so often that it is asked for trial only."""
        return self._in_a_row >= self._most

    @property
    def hint(self) -> str:
        """What to tell whoever is refused."""
        return f"see that its server is up: it is left alone for now, and tried again every {self.rest_s:g} s"

    def allows(self) -> bool:
        """Whether to ask now; how it went is to be reported. A trial whose outcome nobody reports is repeated after `rest_s`."""
        if not self.open:
            return True
        now = self._clock()
        if now < self._rests_until:
            return False
        self._rests_until = now + self.rest_s  # the others wait for how this trial goes
        return True

    def succeeded(self) -> None:
        """A call went well."""
        self._in_a_row = 0

    def failed(self) -> None:
        """A call failed."""
        self._in_a_row += 1
        if self.open:
            self._rests_until = self._clock() + self.rest_s


@contextmanager
def watched(circuit: Circuit, *, asks_anyway: bool = False) -> Iterator[None]:
    """One call of a server, whose outcome the circuit hears.

    A server that is busy has not failed; one that refuses what it was sent is up. A caller that leaves early says nothing.

    Args:
        asks_anyway: Whether the call is made while the circuit is open, too.

    Raises:
        BackendError: The circuit is open; the server was not asked.
    """
    if not asks_anyway and not circuit.allows():
        raise BackendError(f"{circuit.name} failed again and again", hint=circuit.hint)
    asked = time.monotonic()
    try:
        yield
    except (BackendError, DeadlineError):
        circuit.failed()
        raise
    except OverloadedError:
        raise
    except asyncio.CancelledError:
        if time.monotonic() - asked >= _SILENCE_S:
            circuit.failed()
        raise
    except Exception:
        circuit.succeeded()
        raise
    circuit.succeeded()


class GuardedCalls:
    """Calls of one service within a time limit and a circuit. Use it on one event loop.

    Args:
        timeout_s: How long a call may take. One that does not end when it is cancelled then is left behind; with 16 of
            these nothing more is asked.
        circuit: Hears how each call went.

    Examples:
        value = await guarded.call(lambda: redis.get(key))
    """

    def __init__(self, timeout_s: float, circuit: Circuit) -> None:
        self.timeout_s = timeout_s
        self.circuit = circuit
        self._stuck: set[asyncio.Task[Any]] = set()

    async def call(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What the call gives.

        Raises:
            OverloadedError: The service is left alone now; it was not asked.
            DeadlineError: The call took too long, or was cancelled by the service.
            Exception: What the call raised.
        """
        if len(self._stuck) >= _MOST_STUCK or not self.circuit.allows():
            raise OverloadedError("the service failed again and again and is left alone for a while", hint="see that it is up")
        task = asyncio.ensure_future(make())
        try:
            await asyncio.wait({task}, timeout=self.timeout_s)
        finally:  # also where the caller was cancelled
            if not task.done():
                self._leave(task)
        if not task.done() or task.cancelled():
            self.circuit.failed()
            raise DeadlineError(f"the service did not answer within {self.timeout_s:g} s", hint="see that it is up, or allow it more time")
        if task.exception() is not None:
            self.circuit.failed()
        else:
            self.circuit.succeeded()
        return task.result()

    def _leave(self, task: asyncio.Task[Any]) -> None:
        task.cancel()
        self._stuck.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._stuck.discard(task)
        if not task.cancelled():
            task.exception()  # seen, or asyncio would log it
