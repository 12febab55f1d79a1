"""The engine's embedder: batches for all, vectors for each tenant alone, and nothing embedded twice."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from ragline.settings import CacheSettings
from ragline.types import Document, Float32
from tests.embedders import HashEmbedder
from tests.engines import engine

TEXTS = [Document(f"The vault of house {number} opens at {number} o'clock.", id=str(number)) for number in range(12)]


class Counting(HashEmbedder):
    """Remembers the questions of each call."""

    def __init__(self, *, is_local: bool = True) -> None:
        super().__init__()
        self.is_local = is_local
        self.calls: list[list[str]] = []

    @property
    def questions(self) -> list[str]:
        return [question for call in self.calls for question in call]

    async def embed_questions(self, questions: Sequence[str]) -> Float32:
        self.calls.append(list(questions))
        if not self.is_local:
            await asyncio.sleep(0.01)  # the way to a server
        return await super().embed_questions(questions)


async def test_a_question_is_embedded_once_however_often_the_documents_change(tmp_path: Path) -> None:
    embedder = Counting()
    async with engine(tmp_path, embedder=embedder) as opened:
        for document in TEXTS[:4]:
            await opened.ingest(document)
            await opened.search("When does the vault open?")
        await opened.search("vault", top_k=3)
        await opened.search("vault", top_k=4)
        assert embedder.questions == ["When does the vault open?", "vault"]
        told = (await opened.process_stats())["embedding"]["hash"]
        assert told["cache_hit_rate"] == 4 / 6


async def test_questions_of_many_callers_share_the_requests_to_a_server(tmp_path: Path) -> None:
    embedder = Counting(is_local=False)
    async with engine(tmp_path, embedder=embedder, embedding={"parallel_requests": 1}) as opened:
        await opened.ingest(TEXTS)
        await opened.tenant("other").ingest(TEXTS)
        tenants = [opened, opened.tenant("other")]
        results = await asyncio.gather(*(tenants[number % 2].search(f"vault of house {number}") for number in range(24)))
        assert [result[0].document_id for result in results[:12]] == [str(number) for number in range(12)]
        assert len(embedder.questions) == 24 and len(embedder.calls) < 12


async def test_what_was_embedded_for_one_tenant_is_not_known_for_another(tmp_path: Path) -> None:
    embedder = Counting()
    async with engine(tmp_path, embedder=embedder) as opened:
        for name in ("acme", "other"):
            await opened.tenant(name).ingest(TEXTS[:1])
            await opened.tenant(name).search("vault")
        assert embedder.questions == ["vault", "vault"]


async def test_forgetting_what_is_cached_includes_vectors_and_switching_it_off_keeps_none(tmp_path: Path) -> None:
    embedder = Counting()
    async with engine(tmp_path / "on", embedder=embedder) as opened:
        await opened.ingest(TEXTS[:1])
        await opened.search("vault")
        await opened.clear_cache()
        await opened.search("vault")
        assert embedder.questions == ["vault", "vault"]
    embedder = Counting()
    async with engine(tmp_path / "off", embedder=embedder, cache=CacheSettings(enabled=False)) as opened:
        await opened.ingest(TEXTS[:1])
        for _ in range(2):
            await opened.search("vault")
        assert embedder.questions == ["vault", "vault"] and "vectors" not in (await opened.process_stats())["caches"]


async def test_a_passage_that_is_stored_is_not_embedded_again(tmp_path: Path) -> None:
    embedder = Counting()
    async with engine(tmp_path, embedder=embedder) as opened:
        await opened.ingest(TEXTS[:1])
        shared = await opened._resources.embedder_for(opened._scope(None))
        embedded = embedder.embedded
        vector = await shared.embed_text(TEXTS[0].text)
        assert embedder.embedded == embedded and shared.get_stats().stored_hits == 1
        hit = (await opened.search(TEXTS[0].text))[0]
        assert hit.dense_score is not None and abs(float(vector @ vector) - 1) < 1e-5
