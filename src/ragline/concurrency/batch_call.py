"""What happens with the items of one batch: they are processed, and every caller is told what became of its own."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Collection
from typing import Any, Generic, TypeAlias, TypeVar

from ragline.concurrency.batch_budget import BatchBudget
from ragline.concurrency.batch_queue import Batch, Entry
from ragline.concurrency.batch_stats import BatchCounts
from ragline.concurrency.workers import Workers
from ragline.errors import BackendError, DeadlineError, InputError, OverloadedError

I = TypeVar("I")  # noqa: E741 - an item
R = TypeVar("R")

Process: TypeAlias = Callable[[list[I]], Awaitable[Collection[R | Exception]] | Collection[R | Exception]]

_NOBODYS_FAULT = (BackendError, DeadlineError, OverloadedError, OSError, MemoryError)


def may_be_one_items_fault(error: Exception) -> bool:
    """Whether a batch may have failed because of a single item: not where a service, the network or time is to blame."""
    return not isinstance(error, _NOBODYS_FAULT)


class BatchCall(Generic[I, R]):
    """Calls `process`, and gives each caller its result. For the arguments see `BatchProcessor`."""

    def __init__(
        self,
        process: Process[I, R],
        counts: BatchCounts,
        *,
        budget: BatchBudget | None,
        splits: Callable[[Exception], bool] | None,
        timeout_s: float | None,
        workers: Workers | None,
    ) -> None:
        self._process = process
        self._counts = counts
        self._budget = budget
        self._splits = splits
        self._timeout_s = timeout_s
        self._workers = workers
        of_class = getattr(type(process), "__call__", None)  # noqa: B004 - an object may have one that is a coroutine function
        self._suspends = inspect.iscoroutinefunction(inspect.unwrap(process)) or inspect.iscoroutinefunction(of_class)

    async def run(self, batch: Batch, entries: list[Entry[I, R]]) -> None:
        """Processes the entries. However it ends, each has a result or an error afterwards.

        Where it is cancelled or takes too long, a plain function may still be under way: `batch.on_thread`.
        """
        try:
            await self._run(batch, entries)
        finally:
            cancelled = BackendError("the batch was cancelled while it was processed", hint="try again")
            for entry in entries:
                self._counts.failed += entry.fail(cancelled, seen=True)

    async def _run(self, batch: Batch, entries: list[Entry[I, R]]) -> None:
        entries = [entry for entry in entries if not entry.result.done()]
        if not entries:
            return
        results: Collection[R | Exception]
        try:
            results = await self._timed(batch, entries)
        except Exception as error:
            goes_on = batch.on_thread is not None and not batch.on_thread.done()  # it took too long; the halves must not run beside it
            if len(entries) > 1 and not goes_on and self._splits is not None and self._splits(error):
                half = len(entries) // 2
                await self._run(batch, entries[:half])
                await self._run(batch, entries[half:])
                return
            results = [error] * len(entries)
        for entry, result in zip(entries, _checked(results, len(entries)), strict=True):
            if isinstance(result, Exception):
                self._counts.failed += entry.fail(result)
            elif not entry.result.done():
                entry.result.set_result(result)
                self._counts.completed += 1

    async def _timed(self, batch: Batch, entries: list[Entry[I, R]]) -> Collection[R | Exception]:
        loop = asyncio.get_running_loop()
        started = loop.time()
        limit = asyncio.timeout(self._timeout_s)
        self._counts.batches += 1
        self._counts.items += len(entries)
        try:
            async with limit:
                results = await self._called(batch, [entry.item for entry in entries])
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise DeadlineError(
                f"a batch of {len(entries)} items was not processed within {self._timeout_s:g} s",
                hint="raise timeout_s, or lower batch_size",
            ) from error
        finally:
            took_s = loop.time() - started
            self._counts.took_s += took_s
        if self._budget is not None:
            self._budget.note(sum(entry.size for entry in entries), took_s)
        return results

    async def _called(self, batch: Batch, items: list[I]) -> Collection[R | Exception]:
        results: Any = self._process(items) if self._suspends else await self._on_thread(batch, items)
        # A plain function may give a coroutine all the same, as a lambda does.
        return await results if inspect.isawaitable(results) else results  # type: ignore[no-any-return]

    async def _on_thread(self, batch: Batch, items: list[I]) -> Any:
        wanted = True

        def call() -> Any:
            return _without_stop(self._process, items) if wanted else None

        run = self._workers.run(call) if self._workers is not None else asyncio.to_thread(call)
        batch.on_thread = asyncio.get_running_loop().create_task(run)
        batch.on_thread.add_done_callback(_see)
        try:
            await asyncio.wait([batch.on_thread])  # which leaves it alone when this is cancelled: a thread cannot be stopped
        finally:
            wanted = False  # what still waits for a thread is not begun
        return batch.on_thread.result()


def _see(task: asyncio.Task[Any]) -> None:
    """Looks at its error, or asyncio would log it where nobody waits for it any more."""
    if not task.cancelled():
        task.exception()


def _without_stop(process: Callable[[list[I]], Any], items: list[I]) -> Any:
    """What `process` gives; without StopIteration, which does not come out of a thread."""
    try:
        return process(items)
    except StopIteration as error:
        raise RuntimeError("`process` raised StopIteration") from error


def _checked(results: Collection[R | Exception], count: int) -> Collection[R | Exception]:
    """The results, or so many errors where they are not one for each item."""
    try:
        given = f"{len(results)} results"
        fits = len(results) == count and not isinstance(results, (str, bytes, dict, set, frozenset))
    except TypeError:
        given, fits = "what has no length", False
    if fits:
        return results
    wrong = InputError(
        f"`process` gave {given} ({type(results).__name__}) for {count} items",
        hint="let it give a list of one result for each, in their order",
    )
    return [wrong] * count
