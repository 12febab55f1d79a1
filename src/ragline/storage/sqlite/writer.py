"""The one thread that writes, and group commit.

Transactions that wait at the same time run one after another, each in a savepoint of one SQLite transaction, and share its
commit: a commit costs one wait for the disk however many transactions are in it. An asyncio task owns the queue while
there is anything in it, so that no caller's cancellation can leave the transaction open.

A transaction of several steps goes to the writing thread and back for each; those of one job that wait together go there together.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import apsw

from ragline.errors import BackendError, ConflictError, InputError, NotFoundError, RaglineError
from ragline.storage.sqlite.connections import closed_error, translate, translated

P = ParamSpec("P")
T = TypeVar("T")

_GROUP_LIMIT = 64


class Turn:
    """One transaction's place in the queue, and its right to the writing thread while its turn lasts.

    Attributes:
        job: All that it does, where that is known beforehand.
        result, failure: What came of the job.
        begun: Whether its savepoint was set.
    """

    def __init__(self, writer: Writer, finish: Callable[[], None], job: Callable[[], Any] | None = None) -> None:
        loop = asyncio.get_running_loop()
        self._writer = writer
        self.finish = finish
        self.task = asyncio.current_task()
        self.granted: asyncio.Future[None] = loop.create_future()
        self.left: asyncio.Future[bool] = loop.create_future()
        self.settled: asyncio.Future[None] = loop.create_future()
        self.broken = False
        self.job = job
        self.result: Any = None
        self.failure: BaseException | None = None
        self.begun = False
        for future in (self.granted, self.settled):  # a caller that was cancelled never asks what became of them
            future.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def run(self, job: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs `job` on the writing thread, within this transaction."""
        if self.left.done():
            raise RuntimeError("this transaction has ended")
        return await self._writer.on_thread(self._writer.execute, self, lambda: job(*args, **kwargs))

    def grant(self) -> bool:
        """Lets the transaction begin; False where its caller has gone meanwhile."""
        if not self.granted.done():
            self.granted.set_result(None)
            return True
        return False

    def leave(self, keep: bool) -> None:
        """Ends the turn; its changes stay or go."""
        if not self.left.done():
            self.left.set_result(keep)

    def settle(self, error: BaseException | None) -> None:
        """Tells the caller what became of its transaction."""
        for waited_for in (self.granted, self.settled):
            if waited_for.done():
                continue
            if error is None:
                waited_for.set_result(None)
            else:
                waited_for.set_exception(error)


class Writer:
    """Runs transactions, one at a time, on a thread and connection of its own.

    Belongs to one event loop at a time.
    """

    def __init__(self, connection: apsw.Connection, thread: ThreadPoolExecutor, file: Path) -> None:
        self.connection = connection
        self._thread = thread
        self._file = file
        self._waiting: deque[Turn] = deque()
        self._serving: asyncio.Task[None] | None = None
        self._current: Turn | None = None
        self._closed = False

    @asynccontextmanager
    async def turn(self, finish: Callable[[], None] = lambda: None) -> AsyncIterator[Turn]:
        """Waits for a transaction of one's own; leaving it commits, or rolls back on an exception.

        Args:
            finish: Runs last within the transaction, if that is kept.

        Raises:
            RuntimeError: This task is in a transaction already, and would wait for itself.
        """
        turn = Turn(self, finish)
        self._queue(turn)
        try:
            await turn.granted
            yield turn
        except BaseException:
            turn.leave(False)
            raise
        turn.leave(True)
        # Once the commit is under way, a cancelled caller does not stop it.
        await asyncio.shield(turn.settled)

    async def write(self, job: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs `job` in a transaction of its own, and returns what it returned when that is committed. Errors are those of `turn`.

        A caller that is cancelled before it began leaves nothing; after that the commit stands.
        """
        turn = Turn(self, lambda: None, lambda: job(*args, **kwargs))
        self._queue(turn)
        try:
            await asyncio.shield(turn.settled)
        except asyncio.CancelledError:
            turn.granted.cancel()
            raise
        result: T = turn.result
        return result

    def _queue(self, turn: Turn) -> None:
        if self._closed:
            raise closed_error(self._file)
        current = self._current
        if current is not None and not current.left.done() and current.task is asyncio.current_task():
            raise RuntimeError("this task is in a transaction already: leave it before another is begun")
        self._waiting.append(turn)
        if self._serving is None:
            self._serving = asyncio.create_task(self._serve())

    async def on_thread(self, job: Callable[P, T], /, *args: P.args) -> T:  # type: ignore[valid-type]
        """Runs `job` on the writing thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, job, *args)

    def execute(self, turn: Turn, job: Callable[[], T]) -> T:
        """Runs a transaction's job; one that failed half way can only be rolled back. On the writing thread."""
        if turn.broken or not self.connection.in_transaction:
            raise self._rolled_back()
        try:
            with translated(self._file):
                return job()
        except (InputError, ConflictError, NotFoundError):  # refused before anything was written
            raise
        except BaseException:
            turn.broken = True
            raise

    async def close(self) -> None:
        """Waits for the transactions that are under way; refuses new ones."""
        self._closed = True
        if self._serving is not None:
            await asyncio.wait([self._serving])

    async def _serve(self) -> None:
        try:
            while (turn := self._next()) is not None:
                await self._group(turn)
        finally:
            self._serving = None

    def _next(self) -> Turn | None:
        """The next transaction whose caller still waits."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.granted.done():
                return turn
        return None

    async def _group(self, first: Turn) -> None:
        """Runs `first` and those that wait by then, and commits them together."""
        kept: list[Turn] = []
        turn: Turn | None = first
        running: list[Turn] = []
        try:
            while turn is not None:
                running = [turn] if turn.job is None else [turn, *self._alike(_GROUP_LIMIT - len(kept) - 1)]
                outcomes, last = await self._outcomes(running, len(kept))
                for each, (keep, error) in zip(running, outcomes, strict=True):
                    if error is None and keep:
                        kept.append(each)
                    else:
                        each.settle(each.failure or error)
                running = []
                turn = None if last else self._next()
            if not last:  # those that waited have all gone
                await self.on_thread(self._commit)
        except BaseException as error:
            self._thread.submit(self._abandon)
            begun, rest = [each for each in running if each.begun], [each for each in running if not each.begun]
            failed = [*kept, *begun]
            if not isinstance(error, Exception) or (rest and not begun):
                failed += [*rest, *self._waiting]  # who waited for a transaction that could not begin has waited long enough
            else:
                self._waiting.extendleft(reversed(rest))
            self._fail(failed, error)
            if not isinstance(error, Exception):
                raise
        else:
            for turn in kept:
                turn.settle(None)
        finally:
            self._current = None

    async def _outcomes(self, running: Sequence[Turn], kept: int) -> tuple[Sequence[tuple[bool, RaglineError | None]], bool]:
        """Runs a transaction of several steps, or some of one job each: of each whether it is kept, and its own error; and whether
        they were the last of their group, which is committed then.
        """
        turn = running[0]
        if turn.job is not None:
            last = kept + len(running) >= _GROUP_LIMIT or not self._waiting
            return await self.on_thread(self._run_all, running, last), last
        self._current = turn
        await self.on_thread(self._enter, turn)
        keep = turn.grant() and await turn.left
        self._current = None
        last = kept + 1 >= _GROUP_LIMIT or not self._waiting
        return [(keep, await self.on_thread(self._leave, turn, keep, last))], last

    def _alike(self, most: int) -> list[Turn]:
        """Those that wait next and are of one job each, as long as their callers wait, too."""
        alike: list[Turn] = []
        while self._waiting and self._waiting[0].job is not None and len(alike) < most:
            turn = self._waiting.popleft()
            if not turn.granted.done():
                alike.append(turn)
        return alike

    def _fail(self, turns: Iterable[Turn], error: BaseException) -> None:
        """A failed group reaches everyone in it, each with an error of its own."""
        for turn in turns:
            if isinstance(error, RaglineError):
                own: RaglineError = type(error)(error.message, hint=error.hint)
            else:
                own = BackendError(f"the store {self._file} gave up a transaction: {error!r}", hint="try again")
            own.__cause__ = error
            turn.settle(turn.failure or own)

    # What follows runs on the writing thread.

    def _enter(self, turn: Turn) -> None:
        with translated(self._file):
            if not self.connection.in_transaction:
                self.connection.execute("BEGIN IMMEDIATE")
            self.connection.execute("SAVEPOINT turn")
        turn.begun = True

    def _run_all(self, turns: Iterable[Turn], last: bool) -> list[tuple[bool, RaglineError | None]]:
        """Runs transactions of one job each; of each whether it is kept, and its own error in leaving."""
        outcomes = []
        for turn in turns:
            assert turn.job is not None
            self._enter(turn)
            try:
                turn.result = self.execute(turn, turn.job)
            except BaseException as failure:
                turn.failure = failure
            keep = turn.failure is None
            outcomes.append((keep, self._leave(turn, keep, last=False)))
        if last:
            self._commit()
        return outcomes

    def _leave(self, turn: Turn, keep: bool, last: bool) -> RaglineError | None:
        """Ends a turn, and with the `last` one the group. The error, if any, is of this turn alone."""
        if not self.connection.in_transaction:  # SQLite rolled everything back by itself
            raise self._rolled_back()
        error: RaglineError | None = self._rolled_back() if keep and turn.broken else None
        if keep and not turn.broken:
            try:
                turn.finish()
            except apsw.Error as failure:
                error = translate(failure, self._file)
        with translated(self._file):
            if error or not keep:
                self.connection.execute("ROLLBACK TO turn")
            self.connection.execute("RELEASE turn")
        if last:
            self._commit()
        return error

    def _commit(self) -> None:
        if not os.path.exists(self._file):  # SQLite would go on writing to a file that nobody can open any more
            raise BackendError(
                f"the store {self._file} is gone: it was moved or deleted while it was open", hint="put it back, or ingest anew"
            )
        with translated(self._file):
            self.connection.execute("COMMIT")

    def _abandon(self) -> None:
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")

    def _rolled_back(self) -> BackendError:
        return BackendError(
            f"a transaction of the store {self._file} was rolled back: one of its statements had failed", hint="begin another transaction"
        )
