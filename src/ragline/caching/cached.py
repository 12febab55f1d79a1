"""A decorator: a function's results, remembered for a while."""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
import time
import weakref
from collections.abc import Awaitable, Callable
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, cast, overload

from ragline.caching.base import CacheStats
from ragline.caching.keys import cache_key
from ragline.caching.registry import get_cache_manager
from ragline.caching.tiny_lfu import TinyLfu
from ragline.concurrency.single_flight import SingleFlight
from ragline.errors import InputError

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

_ABSENT: Any = object()


class CachedFunction(Protocol[P, R_co]):
    """A function whose results are remembered."""

    name: str
    """Under which `get_cache_manager()` knows it."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """The result, computed or remembered."""
        ...

    def __get__(self, instance: object, owner: type | None = None) -> Callable[..., R_co]:
        """The method of an instance."""
        ...

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Forgets the result for these arguments; one that is being computed is not kept either."""
        ...

    def clear(self) -> None:
        """Forgets all results, and those that are being computed."""
        ...

    def stats(self) -> CacheStats:
        """Lookups and size."""
        ...


@overload
def cached(function: Callable[P, R], /) -> CachedFunction[P, R]: ...


@overload
def cached(
    *,
    ttl_s: float | None = None,
    maxsize: int = 1024,
    key: Callable[..., str] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Callable[[Callable[P, R]], CachedFunction[P, R]]: ...


def cached(
    function: Callable[..., Any] | None = None,
    /,
    *,
    ttl_s: float | None = None,
    maxsize: int = 1024,
    key: Callable[..., str] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Any:
    """The function with its results remembered in this process, the most useful `maxsize` of them.

    Async functions: callers with the same arguments at the same time share one computation, which goes on while one of
    them waits. Plain functions: safe to call from many threads; two that miss at once both compute. None is a result like
    any other; errors are not remembered. The very object is given again: do not change it.

    `f(1)` and `f(x=1)` are two keys.

    Args:
        ttl_s: How long a result holds; None for as long as there is room.
        maxsize: How many results are kept at most.
        key: Makes the key from the arguments, a string. Without it all arguments count, which have to be plain data
            (see `cache_key`); so methods need it.
        clock: Seconds, never going back.

    Raises:
        InputError: A limit is not positive, or the function is a generator. When called: an argument makes no key.

    Examples:
        @cached(ttl_s=60, maxsize=1000)
        async def page(url: str) -> str: ...
    """
    if function is None:
        return functools.partial(cached, ttl_s=ttl_s, maxsize=maxsize, key=key, clock=clock)
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise InputError(f"{_name_of(function)} is a generator: it can be read only once", hint="return a list or a tuple")
    if ttl_s is not None and not ttl_s > 0:
        raise InputError(f"ttl_s is {ttl_s}", hint="choose seconds above 0, or None")
    results: _Results[Any] = _Results(maxsize, ttl_s, clock)
    key_of = _checked(key) if key is not None else cache_key

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            return await results.awaited(key_of(*args, **kwargs), lambda: function(*args, **kwargs))
    else:

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return results.computed(key_of(*args, **kwargs), lambda: function(*args, **kwargs))

    named = cast(Any, wrapper)
    named.name = get_cache_manager().register(_name_of(function), results)
    named.invalidate = lambda *args, **kwargs: results.invalidate(key_of(*args, **kwargs))
    named.clear = results.clear
    named.stats = results.stats
    return named


class _Results(Generic[R]):
    """Results by key, and the computations of each event loop."""

    def __init__(self, maxsize: int, ttl_s: float | None, clock: Callable[[], float]) -> None:
        self._kept: TinyLfu[str, R] = TinyLfu(maxsize, clock=clock)
        self._ttl_s = ttl_s
        self._flights: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, SingleFlight[tuple[str, int], R]] = weakref.WeakKeyDictionary()
        self._lock = threading.RLock()  # a result that is let go may have a finaliser that asks again
        # Of whichever key: to compute once more now and then costs less than to note who computes what.
        self._invalidations = 0

    def computed(self, key: str, function: Callable[[], R]) -> R:
        found = self._kept.get(key, _ABSENT)
        if found is not _ABSENT:
            return cast(R, found)
        before = self._invalidations
        value = function()
        if inspect.isawaitable(value):
            if inspect.iscoroutine(value):
                value.close()
            raise InputError("a plain function returned an awaitable: it can be awaited only once", hint="decorate an async def instead")
        return self._keep(key, value, before)

    async def awaited(self, key: str, function: Callable[[], Awaitable[R]]) -> R:
        found = self._kept.get(key, _ABSENT)
        if found is not _ABSENT:
            return cast(R, found)
        before = self._invalidations

        async def compute() -> R:
            return self._keep(key, await function(), before)

        return await self._of_this_loop().run((key, before), compute)

    def invalidate(self, key: str) -> None:
        with self._lock:
            self._invalidations += 1
            self._kept.delete(key)

    def clear(self) -> None:
        with self._lock:
            self._invalidations += 1
            self._kept.clear()

    def stats(self) -> CacheStats:
        return self._kept.stats()

    def _keep(self, key: str, value: R, before: int) -> R:
        with self._lock:
            if before == self._invalidations:
                self._kept.set(key, value, ttl_s=self._ttl_s)
        return value

    def _of_this_loop(self) -> SingleFlight[tuple[str, int], R]:
        loop = asyncio.get_running_loop()
        with self._lock:
            return self._flights.setdefault(loop, SingleFlight())


def _checked(key: Callable[..., str]) -> Callable[..., str]:
    def checked(*args: Any, **kwargs: Any) -> str:
        made = key(*args, **kwargs)
        if not isinstance(made, str):
            raise InputError(f"key= returned a {type(made).__name__}", hint="return a string; cache_key(...) makes one of plain values")
        return made

    return checked


def _name_of(function: Callable[..., Any]) -> str:
    return f"{getattr(function, '__module__', None) or '?'}.{getattr(function, '__qualname__', type(function).__name__)}"
