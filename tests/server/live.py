"""A server that really listens, in a thread of the test's process, for clients that know nothing of tests."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import uvicorn
import uvloop

from ragline.engine import Engine
from ragline.server.app import create_app
from ragline.server.protocol import BoundedHeads
from ragline.server.state import ServerState
from ragline.settings import Settings
from ragline.storage.keys import KeyScope, new_key
from tests.embedders import HashEmbedder

T = TypeVar("T")


class Live:
    """A running server.

    Attributes:
        url: Where it listens, without a slash at the end.
    """

    def __init__(self, url: str, state: ServerState, loop: asyncio.AbstractEventLoop) -> None:
        self.url = url
        self.state = state
        self._loop = loop

    def run(self, work: Callable[[Engine], Coroutine[Any, Any, T]]) -> T:
        """Does something with the server's own engine, on its loop."""

        async def done() -> T:
            return await work(self.state.engine)

        return asyncio.run_coroutine_threadsafe(done(), self._loop).result(60)

    def key(self, tenant: str, *scopes: KeyScope) -> str:
        """A new key."""
        text, stored = new_key(tenant, scopes=scopes or ("read", "write"), created_at=1.0)
        self.run(lambda engine: engine.store.keys.add(stored, actor="test"))
        return text


@contextmanager
def live(folder: Path, **settings: Any) -> Iterator[Live]:
    """Runs the server over a folder; settings are those of `Settings`."""

    def opened(given: Settings) -> Engine:
        return Engine.open(settings=given, embedder=HashEmbedder(256))

    app = create_app(Settings(data_dir=folder, **settings), open_engine=opened)
    loops: list[asyncio.AbstractEventLoop] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = uvicorn.Config(
            app, http=BoundedHeads, ws="none", log_level="error", access_log=False, lifespan="on", timeout_graceful_shutdown=5
        )
        server = uvicorn.Server(config)

        async def serve() -> None:
            loops.append(asyncio.get_running_loop())
            await server.serve([listening])

        started = threading.Event()
        server.startup = _then(server.startup, started.set)  # type: ignore[method-assign]
        thread = threading.Thread(target=lambda: uvloop.run(serve()), name="live server")
        thread.start()
        try:
            assert started.wait(30), "the server did not start"
            yield Live(f"http://127.0.0.1:{listening.getsockname()[1]}", app.state.ragline, loops[0])
        finally:
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive()


def _then(first: Callable[..., Coroutine[Any, Any, None]], after: Callable[[], None]) -> Callable[..., Coroutine[Any, Any, None]]:
    async def both(*args: Any, **kwargs: Any) -> None:
        await first(*args, **kwargs)
        after()

    return both
