"""Many callers, one call: items gather while a batch is under way, and are then processed together."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Iterable
from functools import partial
from types import TracebackType
from typing import Any, Generic, Literal, Self, TypeVar, overload

from ragline.concurrency.batch_budget import BatchBudget
from ragline.concurrency.batch_call import BatchCall, Process, may_be_one_items_fault
from ragline.concurrency.batch_queue import Batch, BatchQueue, Door, Entry
from ragline.concurrency.batch_stats import BatchCounts, BatchStats
from ragline.concurrency.workers import Workers
from ragline.errors import BackendError, InputError, OverloadedError

__all__ = ["BatchBudget", "BatchProcessor", "BatchStats", "may_be_one_items_fault"]

I = TypeVar("I")  # noqa: E741 - an item
R = TypeVar("R")

_LETTING_GO_S = 1.0
"""How long batches that were cancelled are waited for."""


class BatchProcessor(Generic[I, R]):
    """Processes the items of many callers together. Use it on one event loop; the first item starts it.

    An item that comes while nothing is under way is processed at once, with those that came in the same moment. While a
    batch is under way, others gather: until it ends, until there are enough for a batch, or until the first of them has
    waited `max_wait_s`; the last two begin another batch where `concurrency` allows it. Items go in the order they came.

    Whoever stops waiting, cancelled or timed out, takes its item out of the queue; when all callers of a batch have left,
    it is cancelled. A plain function cannot be: its batch counts as under way until it ends, though nobody waits for it.
    Items of a batch that failed may be processed a second time: see `splits`. A batch belongs to no one caller: `process`
    does not see the callers' context variables.

    Args:
        batch_size: The most items in one batch.
        max_wait_s: How long an item waits for company, at most, where it could be processed.
        process: Gets a list of items and gives as many results in their order. It is awaited where it is a coroutine
            function; a plain function runs on a thread. A result that is an `Exception` is raised to that item's
            caller alone.
        max_queue: How many items wait at most.
        concurrency: How many batches are under way at once.
        size_of: How large an item is, such as its tokens; cheap, for it is asked on the event loop.
        max_size: How large the items of a batch are together, at most: a number, or a `BatchBudget` that adapts. An item
            larger than it ever gets is refused at the door: it would wait for ever.
        splits: Whether after this error the halves of the batch are tried apart, and so on, so that one bad item does
            not fail its neighbours. None never does: the error reaches every caller of the batch.
        timeout_s: How long one call of `process` may take; unset leaves that to `process`.
        workers: Where a plain function runs; unset takes asyncio's own threads.

    Raises:
        InputError: An argument is out of range.

    Examples:
        async with BatchProcessor(32, 0.01, embed) as processor:
            vector = await processor.submit("a text")
            vectors = await processor.process_batch(texts)
    """

    def __init__(
        self,
        batch_size: int,
        max_wait_s: float,
        process: Process[I, R],
        *,
        max_queue: int = 1024,
        concurrency: int = 1,
        size_of: Callable[[I], int] | None = None,
        max_size: int | BatchBudget | None = None,
        splits: Callable[[Exception], bool] | None = may_be_one_items_fault,
        timeout_s: float | None = None,
        workers: Workers | None = None,
    ) -> None:
        if isinstance(max_size, int):
            _check_positive(max_size=max_size)
            max_size = BatchBudget(max_size, max_size)
        _check_positive(batch_size=batch_size, max_queue=max_queue, concurrency=concurrency, timeout_s=timeout_s)
        if not max_wait_s >= 0:
            raise InputError(f"max_wait_s is {max_wait_s}", hint="use 0 or more seconds")
        if (size_of is None) != (max_size is None):
            raise InputError("size_of and max_size say nothing without each other", hint="give both or neither")
        self._batch_size = batch_size
        self._max_wait_s = max_wait_s
        self._max_queue = max_queue
        self._concurrency = concurrency
        self._size_of = size_of
        self._budget = max_size
        self._counts = BatchCounts()
        self._call = BatchCall(process, self._counts, budget=max_size, splits=splits, timeout_s=timeout_s, workers=workers)
        self._door = Door(max_queue)
        # Those who come with many items have no more of them in the queue than the batches that can begin next.
        self._side_door = Door(batch_size * concurrency)
        self._queue: BatchQueue[I, R] = BatchQueue(max_queue, self._side_door, self._door)
        self._under_way: set[asyncio.Task[None]] = set()
        self._lingering: set[asyncio.Task[Any]] = set()  # plain functions that go on though their batch has ended
        self._owner: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._closed = False

    def submit(self, item: I, *, of_many: bool = False) -> asyncio.Future[R]:
        """A future of the item's result. Cancelling it, or a task that awaits it, takes the item back.

        Args:
            of_many: Whether it is one of many items of one caller, who waits for `room` before each.

        Raises:
            InputError: It is larger than a batch may be; or this is no event loop's thread.
            OverloadedError: `max_queue` items wait already.
            BackendError: The processor is closed, or is used on another event loop.
        """
        self._start()
        size = self._sized(item)
        door = self._side_door if of_many else self._door
        if not self._queue.has_room(door):
            self._counts.refused += 1
            raise OverloadedError(
                f"{self._max_queue} items wait already to be processed", hint="try again later, or raise max_queue if memory allows it"
            )
        return self._enter(item, size, door)

    async def add_query(self, item: I) -> R:
        """The item's result. Where the queue is full it waits for room, in order of arrival.

        Raises:
            InputError, BackendError: As `submit`. And what `process` raises.
        """
        self._start()
        size = self._sized(item)
        await self._queue.room(self._door)
        return await self._enter(item, size, self._door)

    @overload
    async def process_batch(self, items: Iterable[I], *, return_exceptions: Literal[False] = False) -> list[R]: ...
    @overload
    async def process_batch(self, items: Iterable[I], *, return_exceptions: Literal[True]) -> list[R | BaseException]: ...
    async def process_batch(self, items: Iterable[I], *, return_exceptions: bool = False) -> list[R] | list[R | BaseException]:
        """The results of many items, in order. However many they are, they leave room in the queue for other callers.

        Args:
            return_exceptions: Whether an error takes the place of its item's result. Else the first one is raised, and items
                that were not processed yet are taken back.

        Raises:
            InputError, BackendError: As `submit`. And what `process` raises.
        """
        futures: list[asyncio.Future[R]] = []
        done: list[R] = []
        try:
            for item in items:
                futures.append(await self._follow(item, return_exceptions))
                while not return_exceptions and len(done) < len(futures) and futures[len(done)].done():
                    done.append(futures[len(done)].result())  # the first error ends it
            if return_exceptions:
                return await asyncio.gather(*futures, return_exceptions=True)
            return done + [await future for future in futures[len(done) :]]
        finally:
            for future in futures:
                if not future.cancel() and not future.cancelled():
                    future.exception()  # seen: only the first is raised

    async def room(self) -> None:
        """Waits for room for one of many items, to be submitted with `of_many` before anything else is awaited.

        Such items never take more of the queue than can be processed next, so that there is room for others.

        Raises:
            BackendError: The processor is closed, or is used on another event loop.
        """
        self._start()
        await self._queue.room(self._side_door)
        self._check_open()

    def stats(self) -> BatchStats:
        """Counts, averages and what waits now."""
        max_size = self._budget.size if self._budget is not None else None
        return self._counts.stats(queue_length=len(self._queue), under_way=self._places_taken, max_size=max_size)

    @property
    def closed(self) -> bool:
        """Whether it takes no more items."""
        return self._closed

    def start(self) -> None:
        """Starts now, not with the first item; also after `close`. Twice is harmless.

        Raises:
            InputError: This is no event loop's thread.
            BackendError: It runs on another event loop.
        """
        self._closed = False
        self._start()

    async def close(self, *, wait_s: float | None = None) -> None:
        """Takes no more items, and finishes those it has; waits for plain functions under way, too. Twice is harmless.

        Args:
            wait_s: After so long, what is not finished is cancelled, and its callers get a BackendError; unset waits as long
                as it takes, 0 cancels at once. A plain function under way cannot be stopped; it is left to end.
        """
        self._closed = True
        self._queue.open_doors()
        self._wake.set()
        owner = self._owner
        if owner is None or owner.done() or owner.get_loop() is not asyncio.get_running_loop():
            return
        await asyncio.wait([owner], timeout=wait_s)
        if not owner.done():
            owner.cancel()
            await asyncio.wait([owner])

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close(wait_s=None if error is None else 0)

    def _check_open(self) -> None:
        if self._closed:
            raise BackendError("the batch processor is closed", hint="submit within its `async with`, or make a new one")

    def _start(self) -> None:
        """Starts the owner of the queue, where none lives on this loop."""
        self._check_open()
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError as error:
            raise InputError("items are submitted on an event loop, and there is none on this thread", hint="use asyncio.run") from error
        if self._owner is not None and not self._owner.done():
            if self._owner.get_loop() is not loop:
                raise BackendError("the batch processor runs on another event loop", hint="make one for each event loop")
            return
        self._wake = asyncio.Event()
        # In a context of its own: what the first caller has in its own, such as a request's id, is not everybody's.
        self._owner = loop.create_task(self._own(), context=contextvars.Context())

    def _sized(self, item: I) -> int:
        if self._size_of is None or self._budget is None:
            return 0
        size = self._size_of(item)
        if size > self._budget.most:
            self._counts.refused += 1
            raise InputError(
                f"an item of size {size} is larger than a batch may be, {self._budget.most}", hint="make it smaller, or raise max_size"
            )
        return size

    async def _follow(self, item: I, return_exceptions: bool) -> asyncio.Future[R]:
        """A future of one of many items, once there is room for it."""
        await self.room()
        try:
            return self.submit(item, of_many=True)
        except Exception as error:
            if not return_exceptions:
                raise
            refused: asyncio.Future[R] = asyncio.get_running_loop().create_future()
            refused.set_exception(error)
            return refused

    def _enter(self, item: I, size: int, door: Door) -> asyncio.Future[R]:
        self._check_open()
        loop = asyncio.get_running_loop()
        entry: Entry[I, R] = Entry(item, size, door, loop.create_future(), loop.time())
        entry.result.add_done_callback(partial(self._left, entry))
        self._queue.add(entry)
        self._counts.submitted += 1
        self._wake.set()
        return entry.result

    def _left(self, entry: Entry[I, R], result: asyncio.Future[R]) -> None:
        """Called when an item has its result, or its caller has left."""
        if entry in self._queue:
            self._counts.dropped += 1
            self._queue.remove(entry)
        elif entry.batch is not None:
            entry.batch.awaited -= 1
            if not entry.batch.awaited and result.cancelled() and entry.batch.task is not None:
                entry.batch.task.cancel()

    async def _own(self) -> None:
        """The one task that takes from the queue."""
        try:
            while not self._closed or self._queue or self._places_taken:
                await self._woken(self._begin_batches())
        finally:
            closed = BackendError("the batch processor was closed before the item was processed", hint="try again on an open one")
            for task in self._under_way:
                task.cancel()
            for entry in self._queue:
                self._counts.failed += entry.fail(closed, seen=True)
                self._queue.remove(entry)
            if self._under_way:
                await asyncio.wait(self._under_way, timeout=_LETTING_GO_S)

    async def _woken(self, wait_s: float | None) -> None:
        timer = asyncio.get_running_loop().call_later(wait_s, self._wake.set) if wait_s is not None else None
        try:
            await self._wake.wait()
        finally:
            if timer is not None:
                timer.cancel()
        self._wake.clear()

    def _begin_batches(self) -> float | None:
        """Begins what may begin now; how long until the next may, where that is a matter of time."""
        now = asyncio.get_running_loop().time()
        while self._queue and self._places_taken < self._concurrency:
            wait_s = self._queue.oldest.since + self._max_wait_s - now
            if self._places_taken and wait_s > 0 and not self._is_full() and not self._closed:
                return wait_s
            entries = self._draw(now)
            if entries:
                batch = Batch(len(entries))
                for entry in entries:
                    entry.batch = batch
                batch.task = asyncio.get_running_loop().create_task(self._call.run(batch, entries))
                self._under_way.add(batch.task)
                batch.task.add_done_callback(partial(self._ended, batch))
        return None

    @property
    def _places_taken(self) -> int:
        """Of those that `concurrency` allows."""
        return len(self._under_way) + len(self._lingering)

    def _is_full(self) -> bool:
        return len(self._queue) >= self._batch_size or (self._budget is not None and self._queue.size >= self._budget.size)

    def _draw(self, now: float) -> list[Entry[I, R]]:
        """The next batch. The first item always fits: a budget that has shrunk must not keep it for ever."""
        entries: list[Entry[I, R]] = []
        room = self._budget.size if self._budget is not None else 0
        for entry in self._queue:
            if entries and (len(entries) == self._batch_size or entry.size > room):
                break
            self._queue.remove(entry)
            if entry.result.done():  # its caller left in this very moment
                self._counts.dropped += 1
                continue
            entries.append(entry)
            room -= entry.size
            self._counts.draw(now - entry.since)
        return entries

    def _ended(self, batch: Batch, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        if batch.on_thread is not None and not batch.on_thread.done():
            self._lingering.add(batch.on_thread)
            batch.on_thread.add_done_callback(self._ended_at_last)
        self._wake.set()
        if not task.cancelled():
            task.exception()  # its callers have it

    def _ended_at_last(self, on_thread: asyncio.Task[Any]) -> None:
        self._lingering.discard(on_thread)
        self._wake.set()


def _check_positive(**named: float | None) -> None:
    for name, value in named.items():
        if value is not None and not value > 0:
            raise InputError(f"{name} is {value}", hint=f"use a {name} above 0")
