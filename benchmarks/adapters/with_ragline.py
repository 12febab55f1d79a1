"""ragline as its README shows it, durable as always: `python with_ragline.py CORE`."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any

from calls import now, peak_mb, pin, serve, spent

pin(int(sys.argv[1]))
_imported = now()

from ragline.engine import Engine  # noqa: E402
from ragline.settings import CacheSettings, Settings, load_settings  # noqa: E402
from ragline.types import Document  # noqa: E402

_IMPORT = spent(_imported)


class Ragline:
    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._held = AsyncExitStack()

    def open(self, model: str, top_k: int) -> dict[str, object]:
        """Its own lookup finds the model, the same weights as `model`. What it knows already would be no measure: its caches are off."""
        self._settings = Settings(cache_dir=load_settings().settings.cache_dir, cache=CacheSettings(enabled=False))
        self._top_k = top_k
        start = now()
        self._engine = self._run(self._held.enter_async_context(self._new_engine()))
        self._run(self._engine.ingest(Document("A text that wakes all parts up.", id="warm-up"), collection="warm-up"))
        return {"import": _IMPORT, "load": spent(start)}

    def _new_engine(self) -> Engine:
        return Engine.open(self._held.enter_context(tempfile.TemporaryDirectory()), settings=self._settings)

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self._runner.run(work)

    def ingest(self, texts: list[str], ids: list[str]) -> dict[str, object]:
        """From documents to committed, synced and searchable ones, in a collection of their own."""
        start = now()
        report = self._run(self._engine.ingest(_documents(texts, ids), collection=f"ingest {ids[0]}"))
        return {"ingest": spent(start), "chunks": report.chunks}

    def build(self, texts: list[str], ids: list[str], vectors: str) -> dict[str, object]:
        """A collection to search, in place of the last one; it makes its own vectors."""
        start = now()
        self._run(self._held.aclose())
        self._engine = self._run(self._held.enter_async_context(self._new_engine()))
        report = self._run(self._engine.ingest(_documents(texts, ids)))
        assert report.chunks >= len(texts), "a document gave no chunk"
        return {"build": spent(start), "chunks": report.chunks, "peak_mb": peak_mb()}

    async def _one(self, question: str) -> list[str]:
        return [hit.document_id for hit in await self._engine.search(question, top_k=self._top_k)]

    def search(self, questions: list[str]) -> dict[str, object]:
        async def all_of_them() -> tuple[list[dict[str, float]], list[list[str]]]:
            calls, ids = [], []
            for question in questions:
                start = now()
                found = await self._one(question)
                calls.append(spent(start))
                ids.append(found)
            return calls, ids

        calls, ids = self._run(all_of_them())
        return {"calls": calls, "ids": ids}

    def callers(self, questions: list[str], callers: int) -> dict[str, object]:
        """So many tasks at once; as many questions before, uncounted."""

        async def draw(waiting: list[str]) -> None:
            while waiting:
                await self._one(waiting.pop())

        async def together(asked: list[str]) -> dict[str, float]:
            waiting = list(asked)
            start = now()
            await asyncio.gather(*(draw(waiting) for _ in range(callers)))
            return spent(start)

        self._run(together(questions[:callers]))
        return {"tasks": self._run(together(questions))}


def _documents(texts: list[str], ids: list[str]) -> list[Document]:
    return [Document(text, id=id) for text, id in zip(texts, ids, strict=True)]


serve(Ragline())
