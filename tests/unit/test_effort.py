"""Questions asked with less effort: what is left out, what the result says, and what is kept of it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from ragline.settings import GenerationSettings, RerankSettings, RetrievalSettings
from ragline.types import Document, Effort
from tests.engines import engine
from tests.imitation.chat import MODEL, ChatServer, Script
from tests.imitation.rerank import RerankServer

DOCUMENTS = [Document(f"Keys of kind {n} rotate every {n} days.", id=f"{n:02}") for n in range(30)]
QUESTION = "How often do keys rotate?"


def written_by(server: ChatServer) -> GenerationSettings:
    return GenerationSettings(generator=server.protocol, model=MODEL, base_url=server.base_url)


async def test_a_search_without_reranking_asks_no_reranker_and_says_so(tmp_path: Path) -> None:
    with RerankServer() as server:
        async with engine(tmp_path, rerank=RerankSettings(reranker="endpoint", base_url=server.url)) as opened:
            await opened.ingest(DOCUMENTS)
            light = await opened.search(QUESTION, effort=Effort(rerank=False))
            assert light.degraded == ("load_no_rerank",) and not server.asked
            full = await opened.search(QUESTION)
            assert not full.degraded and len(server.asked) == 1
            assert (await opened.search(QUESTION, effort=Effort(rerank=False))).degraded == (), "what is known is given whole"


async def test_what_is_not_there_is_not_left_out(tmp_path: Path) -> None:
    async with engine(tmp_path) as opened:
        await opened.ingest(DOCUMENTS)
        effort = Effort(rerank=False, language_model=False)
        assert not (await opened.search(QUESTION, effort=effort)).degraded
        assert not (await opened.ask(QUESTION, effort=effort)).degraded


async def test_less_depth_still_gives_as_many_hits(tmp_path: Path) -> None:
    async with engine(tmp_path, retrieval=RetrievalSettings(candidates=20)) as opened:
        await opened.ingest(DOCUMENTS)
        shallow = Effort(full_depth=False)
        light = await opened.search(QUESTION, top_k=10, effort=shallow)
        assert light.degraded == ("load_less_depth",) and len(light) == 10
        assert not (await opened.search(QUESTION, top_k=10)).degraded, "the lighter result was not kept"
        assert not (await opened.search(QUESTION, top_k=25, effort=shallow)).degraded, "no less than what is wanted"


async def test_without_a_language_model_the_documents_are_quoted_and_the_answer_is_not_kept(tmp_path: Path) -> None:
    with ChatServer("openai", Script(["Keys rotate [1]."])) as server:
        async with engine(tmp_path, generation=written_by(server)) as opened:
            await opened.ingest(DOCUMENTS)
            light = await opened.ask(QUESTION, effort=Effort(language_model=False))
            assert light.found and light.citations and light.degraded == ("load_extractive",)
            assert not server.requests
            assert (await opened.ask(QUESTION)).degraded == () and len(server.requests) == 1
            known = await opened.ask(QUESTION, effort=Effort(language_model=False))
            assert known.cache == "hit" and not known.degraded


async def test_who_asks_with_less_effort_neither_joins_others_nor_is_joined(tmp_path: Path) -> None:
    light = Effort(language_model=False)
    with ChatServer("openai", Script(["Keys ", 0.5, "rotate [1]."])) as server:
        async with engine(tmp_path, generation=written_by(server)) as opened:
            await opened.ingest(DOCUMENTS)
            events = opened.stream(QUESTION)
            while (await anext(events)).kind != "token":
                pass
            # The model is writing: no thread is taken, so that what is asked with less effort is quoted.
            assert (await opened.ask(QUESTION, effort=light)).degraded == ("load_extractive",)
            full = [event.data async for event in events][-1]
            assert full.text == "Keys rotate [1]." and not full.degraded
            other = "What happens to kind 7?"
            quoted, written = await asyncio.gather(opened.ask(other, effort=light), opened.ask(other))
            assert written.text == "Keys rotate [1]." and not written.degraded
            # Where threads are scarce at that moment, both ask the model, each for itself.
            assert len(server.asked) == (2 if quoted.degraded else 3)
