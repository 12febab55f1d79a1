"""A server in the test's own process: a real application over a real store, asked through ASGI."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
from fastapi import FastAPI

from ragline.engine import Engine
from ragline.generation.base import Generator
from ragline.server.app import create_app
from ragline.server.state import ServerState
from ragline.settings import Settings
from ragline.storage.keys import new_key
from tests.embedders import HashEmbedder

BASE = "http://localhost"


class Served:
    """A running application and a client of it."""

    def __init__(self, app: FastAPI, client: httpx2.AsyncClient) -> None:
        self.app = app
        self.client = client

    @property
    def state(self) -> ServerState:
        state = self.app.state.ragline
        assert isinstance(state, ServerState)
        return state

    async def key(self, tenant: str, *scopes: str) -> dict[str, str]:
        """The headers of a new key."""
        text, stored = new_key(tenant, scopes=scopes or ("read", "write"), created_at=1.0)
        await self.state.keys.add(stored, actor="test")
        return {"authorization": f"Bearer {text}"}


def client_of(app: FastAPI, client: tuple[str, int] = ("127.0.0.1", 1)) -> httpx2.AsyncClient:
    transport = httpx2.ASGITransport(app=app, client=client, raise_app_exceptions=False)
    return httpx2.AsyncClient(transport=transport, base_url=BASE)


@asynccontextmanager
async def serving(folder: Path, *, generator: Generator | None = None, **settings: Any) -> AsyncIterator[Served]:
    """Runs the application over a folder; settings are those of `Settings`."""

    def opened(given: Settings) -> Engine:
        return Engine.open(settings=given, embedder=HashEmbedder(), generator=generator)

    app = create_app(Settings(data_dir=folder, **settings), open_engine=opened)
    async with app.router.lifespan_context(app), client_of(app) as client:
        yield Served(app, client)
