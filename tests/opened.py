"""Embedders opened by their settings, as an engine opens them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from ragline.concurrency.workers import Workers
from ragline.embedding.base import Embedder
from ragline.embedding.openai import OpenAIEmbedder
from ragline.embedding.opening import open_embedder
from ragline.settings import EmbeddingSettings, PoolSettings
from ragline.types import Chunk
from tests.imitation.embeddings import EmbeddingsServer


@asynccontextmanager
async def opened(
    cache_dir: Path, settings: EmbeddingSettings | None = None, *, pool: PoolSettings | None = None, **named: Any
) -> AsyncIterator[Embedder]:
    questions, bulk = Workers("questions", 1), Workers("bulk", 3)
    try:
        embedder = await questions.run(
            open_embedder,
            settings or EmbeddingSettings(**named),
            cache_dir,
            lambda _: None,
            pool=pool or PoolSettings(),
            question_workers=questions,
            bulk_workers=bulk,
        )
        try:
            yield embedder
        finally:
            await embedder.close()
    finally:
        questions.close()
        bulk.close()


@asynccontextmanager
async def at(
    server: EmbeddingsServer, *, pool: PoolSettings | None = None, asked: bool = False, **settings: Any
) -> AsyncIterator[OpenAIEmbedder]:
    """An embedder of the server's, with what it asked when it was opened forgotten unless `asked`."""
    named = {"runtime": "openai", "model": server.model, "base_url": server.base_url, "retry_s": 5, "timeout_s": 5, **settings}
    async with opened(Path("unused"), pool=pool, **named) as embedder:
        assert isinstance(embedder, OpenAIEmbedder)
        if not asked:
            server.inputs.clear()
            server.bodies.clear()
            server.requests.clear()
            server.at_once = 0
        yield embedder


def passages(count: int, words: int = 3) -> list[Chunk]:
    return [Chunk(text, 0, len(text)) for text in (f"key{place} " * words for place in range(count))]


async def until(condition: Callable[[], bool]) -> None:
    """Waits for what another thread does, five seconds at most."""
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come about")
