"""Engines for tests: a real store, real views, a hashed embedder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ragline.engine import Engine
from ragline.settings import Settings
from ragline.sync import SyncEngine
from ragline.sync import open as open_sync
from tests.embedders import HashEmbedder


def engine(folder: Path, *, embedder: HashEmbedder | None = None, **settings: Any) -> Engine:
    return Engine.open(folder, settings=Settings(**settings), embedder=embedder or HashEmbedder())


def sync_engine(folder: Path, *, embedder: HashEmbedder | None = None, **settings: Any) -> SyncEngine:
    return open_sync(folder, settings=Settings(**settings), embedder=embedder or HashEmbedder())


async def rows_of_views(opened: Engine, collection: str = "default") -> dict[str, set[tuple[str, int, int]]]:
    """What store and views hold, as (document, version, start) of each chunk whose text has the word "common"."""
    found: dict[str, set[tuple[str, int, int]]] = {"store": set()}
    for document in await opened.documents(collection=collection):
        for chunk in await opened.chunks(document.id, collection=collection):
            found["store"].add((chunk.document_id, chunk.document_version, chunk.start))
    for mode in ("dense", "lexical"):
        result = await opened.search("common", top_k=1000, mode=mode, collections=collection)
        assert result.lag == 0 and not result.degraded
        found[mode] = {(hit.document_id, hit.document_version, hit.start) for hit in result}
        assert len(found[mode]) == len(result), "a chunk came twice"
    return found
