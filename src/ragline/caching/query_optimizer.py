"""Queries that are asked again and again: computed once, kept for a while, and sometimes ready before they are asked."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from ragline.caching.base import Cache
from ragline.caching.memory import MemoryCache
from ragline.caching.transitions import Transitions
from ragline.concurrency.single_flight import SingleFlight
from ragline.errors import InputError
from ragline.types import Scope

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class QueryStats:
    """What a `QueryOptimizer` has done since it was made.

    Attributes:
        queries: Calls of `execute_query`; `hits`, `joined` and `computed` are how they were served, the rest failed or left.
        hits: Served from the cache.
        joined: Shared a computation that was under way.
        computed: Began a computation that succeeded.
        failures: Computations that raised, prefetched ones included.
        invalidated: Computations that were not kept, for their key was invalidated meanwhile.
        prefetched: Computations begun by `warm`, or because the query was likely to come next.
        under_way: Computations under way now.
        average_compute_s: How long a computation took; 0 before the first.
        hit_rate: Hits and joined among all queries; 0 before the first.
    """

    queries: int = 0
    hits: int = 0
    joined: int = 0
    computed: int = 0
    failures: int = 0
    invalidated: int = 0
    prefetched: int = 0
    under_way: int = 0
    average_compute_s: float = 0.0
    hit_rate: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """The same as plain data."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class WarmReport:
    """What `warm` did: queries computed, queries that were there already, and keys whose computation failed, by error."""

    computed: int
    known: int
    failed: dict[str, str]


@dataclass(slots=True)
class _Counts:
    queries: int = 0
    hits: int = 0
    joined: int = 0
    computed: int = 0
    failures: int = 0
    invalidated: int = 0
    prefetched: int = 0


class _Run:
    """One computation under way; void where its key was invalidated meanwhile."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.void = False


class QueryOptimizer(Generic[V]):
    """Computes each query once for all who ask it at a time, and keeps the result for a while. Use it on one event loop.

    Errors are not kept: the next caller computes again. Neither is None, which a cache cannot tell from absence. Results
    are immutable by convention: the very object may be given to many.

    Args:
        cache: Where results are kept; several optimizers may share one. Unset makes a `MemoryCache` of `maxsize` results,
            which is closed with this.
        ttl_s: How long a result is kept; None for as long as there is room.
        maxsize: See `cache`.
        scope: Whose results these are: nothing is shared with another scope.
        prefetch: Computes a query by its key. Where it is given, the query that most often followed the one just asked is
            computed in the background, `most_ahead` at once; failures are counted only.

    Raises:
        InputError: A limit is not positive.

    Examples:
        optimizer: QueryOptimizer[list[str]] = QueryOptimizer(ttl_s=60)
        rows = await optimizer.execute_query("users/active", lambda: database.fetch("..."))
        await optimizer.invalidate_cache(prefix="users/")
    """

    def __init__(
        self,
        cache: Cache[V] | None = None,
        *,
        ttl_s: float | None = 3600.0,
        maxsize: int = 10_000,
        scope: Scope = Scope(),
        prefetch: Callable[[str], Awaitable[V]] | None = None,
        most_ahead: int = 2,
    ) -> None:
        for name, limit in (("ttl_s", ttl_s), ("most_ahead", most_ahead)):
            if limit is not None and not limit > 0:
                raise InputError(f"{name} is {limit}", hint="choose a number above 0")
        self._owns = cache is None
        self._cache: Cache[V] = MemoryCache(maxsize) if cache is None else cache
        self._ttl_s = ttl_s
        self._scope = scope
        self._prefetch = prefetch
        self._most_ahead = most_ahead
        self._flights: SingleFlight[str, V] = SingleFlight()
        self._runs: set[_Run] = set()
        self._transitions = Transitions()
        self._ahead: set[asyncio.Task[None]] = set()
        self._counts = _Counts()
        self._compute_s = 0.0
        self._computations = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def execute_query(self, key: str, fn: Callable[[], Awaitable[V]], *, ttl_s: float | None = None, session: str = "") -> V:
        """The result for this key: kept, being computed by somebody, or what `fn` gives.

        Callers who leave end nothing for the others; the last one who leaves cancels the computation.

        Args:
            fn: Called without arguments, and awaited; by the first caller only.
            ttl_s: How long this result is kept; unset takes the optimizer's.
            session: Whose sequence of queries this belongs to; what follows what is counted within one.

        Raises:
            InputError: `fn` returned nothing to await.
            Exception: What `fn` raised, to all who share the computation.
        """
        self._counts.queries += 1
        self._transitions.met(key, session=session)
        try:
            value = await self._cache.get(self._scope, key)
            if value is not None:
                self._counts.hits += 1
                return value
            joined = key in self._flights
            value = await self._flights.run(key, lambda: self._computed(key, fn, ttl_s))
            if joined:
                self._counts.joined += 1
            else:
                self._counts.computed += 1
            return value
        finally:
            self._look_ahead(key)

    async def invalidate_cache(self, key: str | None = None, *, prefix: str | None = None) -> None:
        """Forgets one key, the keys that begin with `prefix`, or all. Computations that began before are not kept nor joined.

        Raises:
            InputError: Both are given.
        """
        if key is not None and prefix is not None:
            raise InputError("both a key and a prefix are given", hint="give one of them, or none to forget everything")

        def matches(one: str) -> bool:
            return one == key if key is not None else one.startswith(prefix or "")

        self._flights.forget(matches)
        for run in self._runs:
            run.void = run.void or matches(run.key)
        if key is not None:
            await self._cache.delete(self._scope, key)
        else:
            await self._cache.clear(self._scope, prefix=prefix or "")

    async def warm(
        self, queries: Iterable[str] | Path, compute: Callable[[str], Awaitable[V]], *, concurrency: int = 4, ttl_s: float | None = None
    ) -> WarmReport:
        """Computes the queries that are not kept yet, several at once; a failure does not end the others.

        Args:
            queries: Keys, or a UTF-8 file with one on each line; each counts once, empty lines do not.
            compute: Gives the result for a key.

        Raises:
            InputError: The file cannot be read, or `concurrency` is not positive.
        """
        if concurrency < 1:
            raise InputError(f"concurrency is {concurrency}", hint="choose a number above 0")
        keys = iter(dict.fromkeys(await asyncio.to_thread(_lines, queries) if isinstance(queries, Path) else queries))
        computed = known = 0
        failed: dict[str, str] = {}

        async def work() -> None:
            nonlocal computed, known
            for key in keys:
                try:
                    if await self._ready(key, compute, ttl_s):
                        computed += 1
                    else:
                        known += 1
                except Exception as error:
                    failed[key] = f"{type(error).__name__}: {error}"

        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(work())
        return WarmReport(computed, known, failed)

    def likely_next(self, key: str, n: int = 3) -> list[str]:
        """The keys that most often followed this one, the most frequent first; only those that did so twice or more."""
        return self._transitions.likely_next(key, n)

    def get_stats(self) -> QueryStats:
        """What was done since this was made."""
        of = self._counts
        return QueryStats(
            **asdict(of),
            under_way=len(self._runs),
            average_compute_s=self._compute_s / self._computations if self._computations else 0.0,
            hit_rate=(of.hits + of.joined) / of.queries if of.queries else 0.0,
        )

    async def close(self) -> None:
        """Ends what is computed in the background. A cache that was handed in stays open. Twice is harmless."""
        self._prefetch = None
        for task in self._ahead:
            task.cancel()
        if self._ahead:
            await asyncio.wait(self._ahead, timeout=1.0)
        if self._owns:
            await self._cache.close()

    async def _computed(self, key: str, fn: Callable[[], Awaitable[V]], ttl_s: float | None) -> V:
        run = _Run(key)
        self._runs.add(run)
        started = time.perf_counter()
        try:
            made = fn()
            if not inspect.isawaitable(made):
                raise InputError(
                    f"the query returned a {type(made).__name__}, nothing to await",
                    hint="pass an async function; a blocking one as lambda: asyncio.to_thread(function)",
                )
            value = await made
            self._compute_s += time.perf_counter() - started
            self._computations += 1
            await self._keep(run, value, ttl_s)
            return value
        except Exception:
            self._counts.failures += 1
            raise
        finally:
            self._runs.discard(run)

    async def _keep(self, run: _Run, value: V, ttl_s: float | None) -> None:
        if value is None:
            return
        if not run.void:
            await self._cache.set(self._scope, run.key, value, ttl_s=self._ttl_s if ttl_s is None else ttl_s)
            if run.void:  # while it was being written
                await self._cache.delete(self._scope, run.key)
        self._counts.invalidated += run.void

    async def _ready(self, key: str, compute: Callable[[str], Awaitable[V]], ttl_s: float | None = None) -> bool:
        """Sees to it that there is a result for this key; says whether it had to be computed."""
        if await self._cache.get(self._scope, key) is not None:
            return False
        self._counts.prefetched += key not in self._flights
        await self._flights.run(key, lambda: self._computed(key, lambda: compute(key), ttl_s))
        return True

    def _look_ahead(self, key: str) -> None:
        prefetch = self._prefetch
        if prefetch is None or len(self._ahead) >= self._most_ahead:
            return
        for following in self._transitions.likely_next(key, 1):
            task = asyncio.ensure_future(self._fetched_ahead(following, prefetch))
            self._ahead.add(task)
            task.add_done_callback(self._ahead.discard)

    async def _fetched_ahead(self, key: str, prefetch: Callable[[str], Awaitable[V]]) -> None:
        try:
            await self._ready(key, prefetch)
        except Exception:
            return  # counted; whoever asks for it will hear of it


def _lines(file: Path) -> list[str]:
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read: {error}", hint="name a UTF-8 text file with one query on each line") from error
    return [line.strip() for line in lines if line.strip()]
