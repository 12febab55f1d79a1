"""Blocks and functions that are timed as they run."""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, ParamSpec, Protocol, TypeVar, cast

from ragline.errors import InputError
from ragline.observe.profiling import Profiles

P = ParamSpec("P")
R = TypeVar("R")


class Recorder(Protocol):
    """What durations are handed to."""

    _detailed: bool
    _profiles: Profiles

    def _record(self, name: str, seconds: float, ok: bool, error: str | None) -> None: ...


class Tracked:
    """A timed block, for one `with` or `async with`."""

    __slots__ = ("_name", "_recorder", "_started")

    def __init__(self, recorder: Recorder, name: str) -> None:
        self._recorder, self._name = recorder, name

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        seconds = time.perf_counter() - self._started
        if kind is None:
            self._recorder._record(self._name, seconds, True, None)
        elif issubclass(kind, Exception):  # cancelled or interrupted says nothing of the operation
            self._recorder._record(self._name, seconds, False, kind.__name__)

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.__exit__(kind, error, trace)


def decorated(function: Callable[P, R], recorder: Callable[[], Recorder], name: str) -> Callable[P, R]:
    """The function, with every call timed.

    Raises:
        InputError: It is a generator.
    """
    _refuse_generators(function)
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def timed(*args: P.args, **kwargs: P.kwargs) -> Any:
            with Tracked(recorder(), name):
                return await function(*args, **kwargs)

        return cast(Callable[P, R], timed)

    @functools.wraps(function)
    def timed_too(*args: P.args, **kwargs: P.kwargs) -> R:
        with Tracked(recorder(), name):
            return function(*args, **kwargs)

    return timed_too


def profiled(function: Callable[P, R], recorder: Callable[[], Recorder], name: str) -> Callable[P, R]:
    """The function, with every call timed, and profiled where the recorder wants details.

    Raises:
        InputError: It is a generator.
    """
    _refuse_generators(function)
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def seen(*args: P.args, **kwargs: P.kwargs) -> Any:
            work = cast(Awaitable[Any], function(*args, **kwargs))
            return await (recorder()._profiles.wait(name, work) if recorder()._detailed else work)

        return decorated(cast(Callable[P, R], seen), recorder, name)

    @functools.wraps(function)
    def seen_too(*args: P.args, **kwargs: P.kwargs) -> R:
        if not recorder()._detailed:
            return function(*args, **kwargs)
        return recorder()._profiles.call(name, lambda: function(*args, **kwargs))

    return decorated(seen_too, recorder, name)


def _refuse_generators(function: Callable[..., Any]) -> None:
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise InputError(f"{function.__qualname__} is a generator: it ends when its user likes", hint="time the loop that reads it")
