"""Questions asked with less effort: what is left out, what the result says, and what is kept of it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from ragline.settings import GenerationSettings, RerankSettings, RetrievalSettings
from ragline.types import Document, Effort
from tests.engines import engine
from tests.imitation.chat import MODEL, ChatServer, Script
from tests.imitation.rerank import RerankServer

DOCUMENTS = [Document(f"Keys of kind {n} rotate every {n} days.", id=f"{n:02}") for n in range(30)]
QUESTION = "How often do keys rotate?"
PLAIN = "Keys of kind 7 rotate when?"
LIGHT = Effort(language_model=False)


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


async def test_without_a_language_model_what_shares_the_words_is_quoted_and_not_kept(tmp_path: Path) -> None:
    with ChatServer("openai", Script(["Keys rotate [1]."])) as server:
        async with engine(tmp_path, generation=written_by(server)) as opened:
            await opened.ingest(DOCUMENTS)
            light = await opened.ask(PLAIN, effort=LIGHT)
            assert light.text == "Keys of kind 7 rotate every 7 days. [1]" and light.citations[0].document_id == "07"
            assert light.degraded == ("load_extractive",) and not server.requests
            full = await opened.ask(PLAIN)
            assert full.text == "Keys rotate [1]." and full.degraded == () and len(server.requests) == 1
            known = await opened.ask(PLAIN, effort=LIGHT)
            assert known.cache == "hit" and not known.degraded


async def test_where_no_words_are_shared_the_language_model_answers_and_its_answer_is_kept(tmp_path: Path) -> None:
    with ChatServer("openai", Script(["Keys rotate [1]."])) as server:
        async with engine(tmp_path, generation=written_by(server)) as opened:
            await opened.ingest(DOCUMENTS)
            written = await opened.ask("How frequently is it changed?", effort=LIGHT)
            assert written.text == "Keys rotate [1]." and written.degraded == () and len(server.requests) == 1
            assert (await opened.ask("How frequently is it changed?")).cache == "hit"


async def test_quotations_are_chosen_by_words_alone_first(tmp_path: Path) -> None:
    async with engine(tmp_path) as opened:
        await opened.ingest(DOCUMENTS)
        light = await opened.ask(PLAIN, effort=LIGHT)
        assert light.degraded == ("load_by_words",) and light.citations[0].quote == "Keys of kind 7 rotate every 7 days."
        assert (await opened.ask(PLAIN)).cache == "miss", "it was not kept"


async def test_where_an_answer_is_known_a_full_search_says_whether_it_holds(tmp_path: Path) -> None:
    shallow = Effort(full_depth=False)
    async with engine(tmp_path, retrieval=RetrievalSettings(candidates=20)) as opened:
        await opened.ingest(DOCUMENTS)
        assert (await opened.ask(PLAIN, effort=shallow)).degraded == ("load_less_depth",)
        full = await opened.ask(PLAIN)
        await opened.ingest([Document("The cellar is painted green.", id="other")])
        again = await opened.ask(PLAIN, effort=shallow)
        assert again.cache == "revalidated" and not again.degraded and again.text == full.text
        await opened.ingest([Document("Keys of kind 7 rotate every 8 days.", id="07")])
        changed = await opened.ask(PLAIN, effort=replace(shallow, language_model=False))
        assert "8 days" in changed.text and changed.degraded == ("load_by_words",)


async def test_who_asks_with_less_effort_neither_joins_others_nor_is_joined(tmp_path: Path) -> None:
    with ChatServer("openai", Script(["Keys ", 0.5, "rotate [1]."])) as server:
        async with engine(tmp_path, generation=written_by(server)) as opened:
            await opened.ingest(DOCUMENTS)
            events = opened.stream(PLAIN)
            while (await anext(events)).kind != "token":
                pass
            assert (await opened.ask(PLAIN, effort=LIGHT)).degraded == ("load_extractive",)
            full = [event.data async for event in events][-1]
            assert full.text == "Keys rotate [1]." and not full.degraded
            other = "Keys of kind 9 rotate when?"
            quoted, written = await asyncio.gather(opened.ask(other, effort=LIGHT), opened.ask(other))
            assert written.text == "Keys rotate [1]." and not written.degraded
            assert quoted.degraded == ("load_extractive",) and len(server.asked) == 2
