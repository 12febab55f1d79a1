"""What one process of the server holds."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request

from ragline.engine import Engine
from ragline.server.budgets import Budgets
from ragline.server.clearing import follow_clears
from ragline.server.key_uses import KeyUses
from ragline.server.metrics import RequestCounts
from ragline.server.reception import Reception
from ragline.server.shared_figures import SharedFigures
from ragline.settings import Settings
from ragline.storage.keys import Keys

_log = logging.getLogger("ragline.server")

OpenEngine = Callable[[Settings], Engine]


class ServerState:
    """The engine and what goes with it, from start to stop. One for each process.

    Attributes:
        budgets: What is taken on at once, and how often.
        reception: The uploads that are being received.
        requests: How many requests there were, and how long they took.
        key_uses: When keys were last used.
        under_way: What was begun and goes on whoever leaves; it is waited for before the engine closes.
        figures: All that is measured, of this process and of those that serve beside it.
        stopping: Whether the server was told to stop: it is not ready any more, and finishes what it has accepted.
    """

    def __init__(self, settings: Settings, open_engine: OpenEngine) -> None:
        self.settings = settings
        self.budgets = Budgets(settings, settings.data_dir, processes=settings.server.workers)
        serving = settings.server
        self.reception = Reception(
            max(1, serving.max_receiving // serving.workers),
            max(serving.max_receiving_bytes // serving.workers, serving.max_upload_bytes),
        )
        self.requests = RequestCounts(self.budgets)
        self.key_uses = KeyUses()
        self.under_way: set[asyncio.Task[Any]] = set()
        self.figures = SharedFigures(settings.data_dir / "figures")
        self.stopping = False
        self._open_engine = open_engine
        self._engine: Engine | None = None
        self._told = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def engine(self) -> Engine:
        """The engine, of the tenant that the settings name."""
        assert self._engine is not None, "the server has not started"
        return self._engine

    @property
    def keys(self) -> Keys:
        """Who may use the server."""
        return self.engine.store.keys

    @property
    def ready(self) -> bool:
        """Whether questions may be sent here."""
        return self._engine is not None and not self.stopping

    def stop(self) -> None:
        """Not ready any more, whatever else follows."""
        self.stopping = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._told.set)  # this may be said by a handler of signals

    async def told_to_stop(self) -> None:
        """Returns when the server is told to stop: what may last for hours ends itself then."""
        await self._told.wait()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Holds the engine open while it lasts."""
        async with self._open_engine(self.settings) as engine, self.figures.shared(engine, self.requests):
            self._engine, self._loop = engine, asyncio.get_running_loop()
            engine.jobs.start()
            beside = [
                asyncio.create_task(follow_clears(engine)),
                asyncio.create_task(self.key_uses.keep_written(engine.store.keys)),
            ]
            try:
                if not await self.keys.in_force():
                    _log.warning("there are no keys (`ragline keys create`): everyone on this machine may do everything, others nothing")
                await engine.warm_up()
                yield
            finally:
                self.stop()
                for task in beside:
                    task.cancel()
                await asyncio.wait([*beside, *self.under_way])
                self._engine = self._loop = None
                self.budgets.close()


def state_of(request: Request) -> ServerState:
    """The state of the server that a request came to."""
    app: FastAPI = request.app
    state = app.state.ragline
    assert isinstance(state, ServerState)
    return state
