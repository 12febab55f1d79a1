"""A question in a conversation: searched with what it refers to, answered with what was said, never given another one's answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path

import ragline
from ragline.engine import Engine
from ragline.generation.base import Generated
from ragline.settings import Settings
from ragline.types import Answer, Citation, Document, ScoredChunk, Turn
from tests.embedders import HashEmbedder
from tests.engines import engine, sync_engine
from tests.imitation.chat import MODEL, ChatServer, Script

BOATS = [
    Document("The red boat Robin carries forty passengers.", id="red"),
    Document("The blue boat Heron carries twelve passengers.", id="blue"),
    Document("The vault keys rotate every ninety days.", id="keys"),
]
RED = (Turn("user", "How many passengers does the red boat carry?"), Turn("assistant", "Forty [1]."))
GREEN = (Turn("user", "How many passengers does the green boat carry?"), Turn("assistant", "None [1]."))
BLUE = "What about the blue one?"


class Listener:
    """A generator that tells what it was asked, after what; its answers may be shared."""

    shares_answers = True
    fingerprint = "listener"

    def __init__(self) -> None:
        self.asked: list[tuple[str, tuple[Turn, ...]]] = []

    async def generate(
        self, question: str, evidence: Sequence[ScoredChunk], history: Sequence[Turn] = ()
    ) -> AsyncIterator[str | Citation | Generated]:
        self.asked.append((question, tuple(history)))
        await asyncio.sleep(0)
        text = " / ".join([question, *(turn.text for turn in history)])
        yield text
        chunk = evidence[0]
        citation = Citation(chunk.chunk_id, chunk.document_id, chunk.document_version, chunk.start, chunk.end, chunk.text, chunk.source)
        yield citation
        yield Generated(text, (citation,), found=True)

    async def close(self) -> None:
        pass


def listening(folder: Path, listener: Listener) -> Engine:
    return Engine.open(folder, settings=Settings(), embedder=HashEmbedder(256), generator=listener)


async def test_a_follow_up_is_searched_with_what_it_refers_to_and_answered_as_it_was_put(tmp_path: Path) -> None:
    listener = Listener()
    async with listening(tmp_path, listener) as opened:
        await opened.ingest(BOATS)
        answer = await opened.ask(BLUE, history=RED)
        assert {hit.document_id for hit in answer.hits[:2]} == {"blue", "red"}
        assert listener.asked == [(BLUE, RED)]


async def test_quotations_are_chosen_for_the_question_with_what_it_refers_to(tmp_path: Path) -> None:
    async with engine(tmp_path, embedder=HashEmbedder(256)) as opened:
        await opened.ingest(BOATS)
        assert not (await opened.ask("Who does that?")).found
        answer = await opened.ask("Since when is that so?", history=[Turn("user", "How often do the vault keys rotate?")])
        assert [each.document_id for each in answer.citations] == ["keys"]


async def test_an_answer_is_kept_for_its_history_and_always_checked_against_a_search(tmp_path: Path) -> None:
    listener = Listener()
    async with listening(tmp_path, listener) as opened:
        await opened.ingest(BOATS)
        uses = [(await opened.ask(BLUE, history=history)).cache for history in ((), RED, GREEN, RED, RED[:1], (), GREEN)]
        assert uses == ["miss", "miss", "miss", "revalidated", "miss", "hit", "revalidated"]
        await opened.ingest(Document("The blue boat Heron carries twenty passengers.", id="blue"))
        again = await opened.ask(BLUE, history=RED)
        assert (again.cache == "miss" and again.citations[0].document_version > 1) or again.citations[0].document_id == "red"


async def test_no_answer_is_shared_by_meaning_where_there_is_a_history(tmp_path: Path) -> None:
    listener = Listener()
    async with listening(tmp_path, listener) as opened:
        await opened.ingest(BOATS)
        one, other = "How often do the vault keys rotate?", "how often do the vault keys rotate"
        await opened.ask(one)
        assert (await opened.ask(other)).cache == "semantic"
        assert (await opened.ask(other, history=RED)).cache == "miss"
        assert (await opened.ask(one, history=RED)).cache == "miss"
        assert (await opened.ask(one, history=GREEN)).cache == "miss"


async def test_only_equal_histories_share_what_is_under_way(tmp_path: Path) -> None:
    listener = Listener()
    async with listening(tmp_path, listener) as opened:
        await opened.ingest(BOATS)
        answers = await asyncio.gather(*(opened.ask(BLUE, history=history) for history in (RED, GREEN, RED, (), RED)))
        assert len(listener.asked) == 3
        assert answers[0].text == answers[2].text == answers[4].text != answers[1].text


async def test_a_language_model_is_shown_the_conversation(tmp_path: Path) -> None:
    with ChatServer("openai") as server:
        server.script = Script(["Twelve [1]."])
        generation = {"generator": "openai", "model": MODEL, "base_url": server.base_url}
        async with engine(tmp_path, embedder=HashEmbedder(256), generation=generation) as opened:
            await opened.ingest(BOATS)
            async with aclosing(opened.stream(BLUE, history=[Turn("system", "Be brief."), *RED])) as events:
                answer = [event.data async for event in events][-1]
            assert isinstance(answer, Answer) and answer.text == "Twelve [1]." and len(answer.citations) == 1
            (asked,) = server.asked
            system, user = (message["content"] for message in asked["messages"])
            assert "Be brief." in system and "Be brief." not in user
            assert "How many passengers does the red boat carry?" in user and f"Question: {BLUE}" in user


def test_blocking_code_has_conversations_too(tmp_path: Path) -> None:
    with sync_engine(tmp_path, embedder=HashEmbedder(256)) as opened:
        opened.ingest(BOATS)
        history = [ragline.Turn("user", "How often do the vault keys rotate?")]
        assert opened.ask("Since when is that so?", history=history).citations[0].document_id == "keys"
        assert list(opened.stream("Since when is that so?", history=history))[-1].data.found
