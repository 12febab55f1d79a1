"""Where a function spends its time, line of calls by line of calls."""

from __future__ import annotations

import cProfile
import io
import pstats
import threading
from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeVar, cast

T = TypeVar("T")

_ROWS = 30


class Profiles:
    """Profiles of functions, added up by name. One call is profiled at a time; others that run meanwhile are not."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._busy = threading.Lock()
        self._found: dict[str, pstats.Stats] = {}

    def call(self, name: str, function: Callable[[], T]) -> T:
        """What the function gives, profiled if no other call is."""
        if not self._busy.acquire(blocking=False):
            return function()
        profile = cProfile.Profile()
        try:
            if not _began(profile):
                return function()
            try:
                return function()
            finally:
                profile.disable()
                self._keep(name, profile)
        finally:
            self._busy.release()

    async def wait(self, name: str, work: Awaitable[T]) -> T:
        """What the coroutine gives; its own steps are profiled, not what runs on the loop while it waits."""
        profile = cProfile.Profile()
        try:
            return await _Stepwise(work, profile, self._busy)
        finally:
            self._keep(name, profile)

    def text(self, name: str) -> str:
        """The functions that took longest beneath it, as a table; empty where nothing was profiled."""
        with self._lock:
            if name not in self._found:
                return ""
            out = io.StringIO()
            setattr(self._found[name], "stream", out)  # noqa: B010 - typeshed does not know it
            self._found[name].sort_stats("cumulative").print_stats(_ROWS)
            return out.getvalue().strip()

    def names(self) -> list[str]:
        """Of what functions there are profiles."""
        return list(self._found)

    def clear(self) -> None:
        """Forgets them all."""
        with self._lock:
            self._found.clear()

    def _keep(self, name: str, profile: cProfile.Profile) -> None:
        profile.create_stats()
        if not profile.stats:
            return
        with self._lock:
            if name in self._found:
                self._found[name].add(profile)
            else:
                self._found[name] = pstats.Stats(profile, stream=io.StringIO())


class _Stepwise(Awaitable[T]):
    """Awaits something with a profiler that is on only while it runs."""

    def __init__(self, work: Awaitable[T], profile: cProfile.Profile, busy: threading.Lock) -> None:
        self._work, self._profile, self._busy = work, profile, busy

    def __await__(self) -> Generator[Any, Any, T]:
        steps = self._work.__await__()
        step: Callable[[Any], Any] = steps.send
        value: Any = None
        while True:
            taken = self._busy.acquire(blocking=False)
            on = taken and _began(self._profile)
            try:
                waited_for = step(value)
            except StopIteration as end:
                return cast(T, end.value)
            finally:
                if on:
                    self._profile.disable()
                if taken:
                    self._busy.release()
            try:
                value, step = (yield waited_for), steps.send
            except BaseException as error:
                value, step = error, steps.throw


def _began(profile: cProfile.Profile) -> bool:
    try:
        profile.enable()
    except ValueError:  # another tool, such as a debugger, has the place
        return False
    return True
