"""The stores that the contract suite runs over. `STORES` lists how to open each kind in a folder."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from ragline.storage.base import Store
from ragline.storage.sqlite import SqliteStore

OpenStore = Callable[[Path], Awaitable[Store]]

STORES: dict[str, OpenStore] = {"sqlite": SqliteStore.open}


@pytest.fixture(params=list(STORES.values()), ids=list(STORES))
def open_store(request: pytest.FixtureRequest) -> OpenStore:
    opener: OpenStore = request.param
    return opener


@pytest.fixture
async def store(open_store: OpenStore, tmp_path: Path) -> AsyncIterator[Store]:
    opened = await open_store(tmp_path / "data")
    yield opened
    await opened.close()


@pytest.fixture
async def other(store: Store, open_store: OpenStore, tmp_path: Path) -> AsyncIterator[Store]:
    """The same store, opened as another process would."""
    opened = await open_store(tmp_path / "data")
    yield opened
    await opened.close()
