"""What is shared and what is served again: never across tenants, never after a change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path

import pytest

from ragline.concurrency.deadlines import deadline
from ragline.engine import Engine, asking
from ragline.errors import BackendError, DeadlineError
from ragline.generation.base import Generated
from ragline.index.views import ScopeViews
from ragline.settings import CacheSettings, Settings
from ragline.types import Answer, Citation, Document, ScoredChunk, Turn
from tests.embedders import HashEmbedder

KEYS = "The vault keys rotate every 90 days."


class Writer:
    """A generator that answers with the evidence it was given, word by word, when it may; counts how often it was asked."""

    shares_answers = True
    fingerprint = "writer"

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.closed = 0
        self.may_write = asyncio.Event()
        self.may_write.set()
        self.failure: Exception | None = None
        self.degraded: tuple[str, ...] = ()

    async def generate(
        self, question: str, evidence: Sequence[ScoredChunk], history: Sequence[Turn] = ()
    ) -> AsyncIterator[str | Citation | Generated]:
        self.asked.append(question)
        try:
            text = " / ".join(chunk.text for chunk in evidence)
            words = text.split(" ")
            yield words[0]
            await self.may_write.wait()
            if self.failure is not None:
                raise self.failure
            for word in words[1:]:
                yield " " + word
            citations = tuple(Citation(c.chunk_id, c.document_id, c.document_version, c.start, c.end, c.text, c.source) for c in evidence)
            for citation in citations:
                yield citation
            yield Generated(text, citations, found=bool(evidence), degraded=self.degraded)
        finally:
            self.closed += 1

    async def close(self) -> None:
        pass


class CountingEmbedder(HashEmbedder):
    questions = 0

    async def embed_questions(self, questions: Sequence[str]):  # type: ignore[no-untyped-def]
        self.questions += len(questions)
        return await super().embed_questions(questions)


def opened(folder: Path, writer: Writer, embedder: HashEmbedder | None = None, **settings: object) -> Engine:
    return Engine.open(folder, settings=Settings(**settings), embedder=embedder or HashEmbedder(), generator=writer)


async def test_the_same_question_again_costs_nothing_until_something_changes(tmp_path: Path) -> None:
    writer = Writer()
    embedder = CountingEmbedder()
    async with opened(tmp_path, writer, embedder) as engine:
        await engine.ingest(Document(KEYS, id="keys"))
        first = await engine.ask("how often do vault keys rotate?")
        embedded = embedder.questions
        again = await engine.ask("  how often do vault   keys rotate? ")
        assert (first.cache, again.cache) == ("miss", "hit")
        assert (again.text, again.citations, again.hits, again.lsn) == (first.text, first.citations, first.hits, first.lsn)
        assert set(again.timings) == {"cache_ms", "total_ms"}
        assert (len(writer.asked), embedder.questions) == (1, embedded)


async def test_what_is_known_is_given_while_another_engine_is_slow_to_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer, may_index = Writer(), asyncio.Event()

    def one() -> Engine:
        return opened(tmp_path, writer, retrieval={"evidence": 1}, index={"wait_s": 0.2})

    async with one() as indexer, one() as other:
        await indexer.ingest(Document(KEYS, id="keys"))
        assert (await other.ask("how often do vault keys rotate?")).cache == "miss"
        feeder = indexer._resources.follower._feeder
        advance = feeder.advance

        async def slowly(views: ScopeViews) -> None:
            await may_index.wait()
            await advance(views)

        monkeypatch.setattr(feeder, "advance", slowly)
        await other.ingest(Document("Boats are painted in March.", id="boats"))
        for question, cached in (("how often do vault keys rotate?", "revalidated"), ("when do keys rotate?", "miss")):
            assert [(a.cache, a.lag) for a in (await other.ask(question), await other.ask(question))] == [(cached, 1), ("revalidated", 1)]
        assert len(writer.asked) == 2
        may_index.set()
        for _ in range(1000):
            if not (known := await other.ask("when do keys rotate?")).lag:
                break
            await asyncio.sleep(0.01)
        assert (known.cache, known.lsn, known.lag) == ("revalidated", 2, 0)
        assert (await other.ask("when do keys rotate?")).cache == "hit"


async def test_a_change_elsewhere_leaves_the_answer_and_a_change_of_its_evidence_makes_a_new_one(tmp_path: Path) -> None:
    writer = Writer()
    async with opened(tmp_path, writer, retrieval={"evidence": 1}) as engine:
        await engine.ingest(Document(KEYS, id="keys"))
        await engine.ask("how often do vault keys rotate?")
        await engine.ingest(Document("Boats are painted in March.", id="boats"))
        kept = await engine.ask("how often do vault keys rotate?")
        assert kept.cache == "revalidated" and kept.lsn == 2 and len(writer.asked) == 1
        again = await engine.ask("how often do vault keys rotate?")
        assert again.cache == "hit" and again.lsn == 2, "it is known to hold there"
        await engine.ingest(Document(KEYS.replace("90", "30"), id="keys"))
        fresh = await engine.ask("how often do vault keys rotate?")
        assert fresh.cache == "miss" and "30 days" in fresh.text and fresh.citations[0].document_version == 2
        await engine.delete("keys")
        assert "vault" not in (await engine.ask("how often do vault keys rotate?")).text


async def test_what_is_kept_weighs_its_metadata_too(tmp_path: Path) -> None:
    settings = Settings(cache=CacheSettings(max_bytes=2**20))
    async with Engine.open(tmp_path, settings=settings, embedder=HashEmbedder(), generator=Writer()) as engine:
        for size, cached in ((10_000, "hit"), (200_000, "miss")):  # more than a tenth of the room is not kept
            await engine.ingest(Document(KEYS, id="keys", metadata={"notes": ["x" * size]}))
            question = f"how often do the {size} keys rotate?"
            assert [(await engine.ask(question)).cache for _ in range(2)] == ["miss", cached]


async def test_a_change_of_metadata_alone_makes_a_new_answer(tmp_path: Path) -> None:
    writer = Writer()
    async with opened(tmp_path, writer) as engine:
        await engine.ingest(Document(KEYS, id="keys", metadata={"year": 2024}))
        await engine.ask("vault keys")
        await engine.ingest(Document(KEYS, id="keys", metadata={"year": 2025}))
        answer = await engine.ask("vault keys")
        assert answer.cache == "miss" and answer.hits[0].metadata["year"] == 2025


async def test_another_wording_shares_the_answer_and_another_question_does_not(tmp_path: Path) -> None:
    writer = Writer()
    async with opened(tmp_path, writer) as engine:
        await engine.ingest(Document(KEYS, id="keys"))
        await engine.ask("how often do vault keys rotate?")
        reworded = await engine.ask("How often do the vault keys rotate?")
        assert reworded.cache == "semantic" and len(writer.asked) == 1
        other = await engine.ask("How often do the vault keys not rotate?")
        assert other.cache == "miss" and len(writer.asked) == 2


async def test_settings_turn_the_cache_and_its_semantic_part_off(tmp_path: Path) -> None:
    writer = Writer()
    async with opened(tmp_path, writer, cache=CacheSettings(semantic=False)) as engine:
        await engine.ingest(Document(KEYS, id="keys"))
        await engine.ask("how often do vault keys rotate?")
        assert (await engine.ask("How often do the vault keys rotate?")).cache == "miss"
    async with opened(tmp_path, writer, cache=CacheSettings(enabled=False)) as engine:
        for _ in range(2):
            assert (await engine.ask("how often do vault keys rotate?")).cache == "off"
    assert len(writer.asked) == 4


async def test_a_hundred_identical_questions_make_one_embedding_and_one_answer(tmp_path: Path) -> None:
    writer = Writer()
    embedder = CountingEmbedder()
    async with opened(tmp_path, writer, embedder, cache=CacheSettings(semantic=False)) as engine:
        await engine.ingest(Document(KEYS, id="keys"))
        writer.may_write.clear()
        callers = [asyncio.create_task(engine.ask("how often do vault keys rotate?")) for _ in range(100)]
        await asyncio.sleep(0.1)
        writer.may_write.set()
        answers = await asyncio.gather(*callers)
        assert len({answer.text for answer in answers}) == 1
        assert (len(writer.asked), embedder.questions) == (1, 1)
        found = await asyncio.gather(*(engine.search("boats") for _ in range(100)))
        assert all(result.hits == found[0].hits for result in found) and embedder.questions == 2


async def test_a_hundred_identical_streams_make_one_embedding_one_search_and_one_answer(tmp_path: Path) -> None:
    writer = Writer()
    embedder = CountingEmbedder()
    async with opened(tmp_path, writer, embedder) as engine:
        await engine.ingest(Document(KEYS, id="keys"))

        async def streamed() -> list[str]:
            return [event.kind async for event in engine.stream("how often do vault keys rotate?")]

        writer.may_write.clear()
        callers = [asyncio.create_task(streamed()) for _ in range(100)]
        await asyncio.sleep(0.1)
        writer.may_write.set()
        kinds = await asyncio.gather(*callers)
        assert all(each == kinds[0] for each in kinds) and kinds[0][-1] == "answer"
        stats = await engine.stats()
        assert (len(writer.asked), embedder.questions, stats["searches"]["miss"], stats["answers"]["shared"]) == (1, 1, 1, 99)


async def test_a_late_reader_of_a_stream_gets_the_tokens_so_far(tmp_path: Path) -> None:
    writer = Writer()
    async with opened(tmp_path, writer) as engine:
        await engine.ingest(Document(KEYS, id="keys"))
        writer.may_write.clear()
        early, late = engine.stream("vault keys"), engine.stream("vault keys")
        assert [(await anext(early)).kind, (await anext(early)).kind] == ["hits", "token"]
        assert [(await anext(late)).kind, (await anext(late)).kind] == ["hits", "token"]
        writer.may_write.set()
        for stream in (early, late):
            rest = [event async for event in stream]
            assert rest[-1].kind == "answer" and rest[-1].data.text == KEYS
        assert len(writer.asked) == 1
        replayed = [event async for event in engine.stream("vault keys")]
        assert [event.kind for event in replayed] == ["hits", "token", "citation", "answer"]
        assert replayed[-1].data.cache == "hit"


async def test_the_first_callers_leaving_harms_nobody_and_the_last_ones_ends_the_work(tmp_path: Path) -> None:
    writer = Writer()
    async with opened(tmp_path, writer) as engine:
        await engine.ingest(Document(KEYS, id="keys"))
        writer.may_write.clear()
        first, second = (asyncio.create_task(engine.ask("vault keys")) for _ in range(2))
        await asyncio.sleep(0.1)
        first.cancel()
        await asyncio.sleep(0.05)
        assert writer.closed == 0
        writer.may_write.set()
        assert (await second).text == KEYS
        writer.may_write.clear()
        async with aclosing(engine.stream("boats")) as stream:
            assert (await anext(stream)).kind == "hits"
            assert (await anext(stream)).kind == "token"
        await asyncio.sleep(0.05)
        assert writer.closed == 2


async def test_one_that_comes_after_a_commit_does_not_join_an_older_computation(tmp_path: Path) -> None:
    writer = Writer()
    async with opened(tmp_path, writer) as engine:
        await engine.ingest(Document(KEYS, id="keys"))
        writer.may_write.clear()
        before = asyncio.create_task(engine.ask("vault keys"))
        await asyncio.sleep(0.1)
        await engine.ingest(Document(KEYS.replace("90", "30"), id="keys"))
        after = asyncio.create_task(engine.ask("vault keys"))
        await asyncio.sleep(0.1)
        writer.may_write.set()
        assert "90 days" in (await before).text
        assert "30 days" in (await after).text
        assert "30 days" in (await engine.ask("vault keys")).text


class LateOnce(Writer):
    """The first time it is out of time, by an error or with a degraded answer; then it answers."""

    def __init__(self, word: str = "", tells: bool = False) -> None:
        super().__init__()
        self.word = word
        self.tells = tells
        self.may_write.clear()

    async def generate(
        self, question: str, evidence: Sequence[ScoredChunk], history: Sequence[Turn] = ()
    ) -> AsyncIterator[str | Citation | Generated]:
        self.asked.append(question)
        late = len(self.asked) == 1
        if self.tells:
            yield "Every"
        await self.may_write.wait()
        if late and not self.word:
            raise DeadlineError("the time is over")
        yield Generated("Quoted.", (), found=True, degraded=(self.word,)) if late else Generated(KEYS, (), found=True)


def asked_within(seconds: float, engine: Engine) -> asyncio.Task[Answer]:
    with deadline(seconds):
        return asyncio.create_task(engine.ask("vault keys"))


async def begun(writer: Writer, engine: Engine, *, asked: int = 1, shared: int = 0) -> None:
    """Returns once so many answers are being written, and so many callers joined one."""
    for _ in range(1000):
        if len(writer.asked) == asked and (await engine.stats())["answers"]["shared"] == shared:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come to that")


async def test_who_joins_does_not_fail_by_the_deadline_of_who_came_first(tmp_path: Path) -> None:
    writer = LateOnce(tells=True)
    async with opened(tmp_path, writer) as engine:
        await engine.ingest(Document(KEYS, id="keys"))
        first, *others = asked_within(40, engine), asked_within(60, engine), asked_within(60, engine)
        await begun(writer, engine, shared=2)
        writer.may_write.set()
        with pytest.raises(DeadlineError):
            await first
        assert [answer.text for answer in await asyncio.gather(*others)] == [KEYS, KEYS]
        assert len(writer.asked) == 2, "the others share one more computation"


@pytest.mark.parametrize("late", [True, False], ids=["by the deadline", "by itself"])
async def test_who_joins_gets_a_whole_answer_where_the_deadline_of_who_came_first_degraded_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    if late:
        monkeypatch.setattr(asking, "_LATE", 1.0)  # as if the time of the first were over
    writer = LateOnce("llm_timeout")
    async with opened(tmp_path, writer) as engine:
        await engine.ingest(Document(KEYS, id="keys"))
        callers = [asked_within(40, engine), asked_within(60, engine)]
        await begun(writer, engine, shared=1)
        writer.may_write.set()
        assert [answer.degraded for answer in await asyncio.gather(*callers)] == [("llm_timeout",), () if late else ("llm_timeout",)]
        assert len(writer.asked) == 1 + late


@pytest.mark.parametrize("tells", [False, True])
async def test_a_stream_that_joined_begins_anew_only_before_its_first_word(tmp_path: Path, tells: bool) -> None:
    writer = LateOnce(tells=tells)

    async def streamed(engine: Engine) -> list[str]:
        return [event.kind async for event in engine.stream("vault keys")]

    async with opened(tmp_path, writer) as engine:
        await engine.ingest(Document(KEYS, id="keys"))
        first = asked_within(40, engine)
        await begun(writer, engine)
        with deadline(60):
            stream = asyncio.create_task(streamed(engine))
        await begun(writer, engine, shared=1)
        writer.may_write.set()
        with pytest.raises(DeadlineError):
            await first
        assert await stream == (["hits", "token", "error"] if tells else ["hits", "answer"])


async def test_an_answer_that_has_much_less_time_left_is_not_joined(tmp_path: Path) -> None:
    writer = Writer()
    async with opened(tmp_path, writer) as engine:
        await engine.ingest(Document(KEYS, id="keys"))
        writer.may_write.clear()
        first = asked_within(40, engine)
        await begun(writer, engine)
        for each in engine._asking._streams.values():
            each._ends -= 30  # as if it had gone on for so long
        second = asked_within(40, engine)
        await begun(writer, engine, asked=2)
        writer.may_write.set()
        assert (await first).text == (await second).text == KEYS


async def test_who_asks_in_a_loop_lets_others_run(tmp_path: Path) -> None:
    async with opened(tmp_path, Writer()) as engine:
        await engine.ingest(Document(KEYS, id="keys"))
        for ask in (engine.ask, engine.search):
            await ask("vault keys")
            others = asyncio.Event()
            asyncio.get_running_loop().call_soon(others.set)
            for _ in range(10):
                await ask("vault keys")
            assert others.is_set()


async def test_nothing_crosses_a_tenant(tmp_path: Path) -> None:
    writer = Writer()
    async with opened(tmp_path, writer) as engine:
        for name in ("acme", "other"):
            await engine.tenant(name).ingest(Document(f"{KEYS} Says {name}.", id="keys"))
        writer.may_write.clear()
        callers = [asyncio.create_task(engine.tenant(name).ask("vault keys")) for name in ("acme", "other")]
        await asyncio.sleep(0.1)
        writer.may_write.set()
        assert [name in answer.text for name, answer in zip(("acme", "other"), await asyncio.gather(*callers), strict=True)] == [True, True]
        assert len(writer.asked) == 2


async def test_failures_and_degraded_answers_are_not_kept(tmp_path: Path) -> None:
    writer = Writer()
    async with opened(tmp_path, writer) as engine:
        await engine.ingest(Document(KEYS, id="keys"))
        writer.failure = BackendError("down")
        for _ in range(2):
            with pytest.raises(BackendError, match="down"):
                await engine.ask("vault keys")
        writer.failure, writer.degraded = None, ("llm_unavailable",)
        for _ in range(2):
            assert (await engine.ask("vault keys")).cache == "miss"
        writer.degraded = ()
        assert [(await engine.ask("vault keys")).cache for _ in range(2)] == ["miss", "hit"]


async def test_another_engines_commit_is_seen_at_once(tmp_path: Path) -> None:
    async with opened(tmp_path, Writer()) as engine, opened(tmp_path, Writer()) as writer:
        await writer.ingest(Document(KEYS, id="keys"))
        assert "90 days" in (await engine.ask("vault keys")).text
        await writer.ingest(Document(KEYS.replace("90", "30"), id="keys"))
        assert "30 days" in (await engine.ask("vault keys")).text


async def test_filters_collections_and_top_k_have_answers_of_their_own(tmp_path: Path) -> None:
    async with opened(tmp_path, Writer()) as engine:
        await engine.ingest(
            [Document(KEYS, id="keys", metadata={"year": 1}), Document("vault keys of old", id="old", metadata={"year": 2})]
        )
        await engine.ingest(Document("vault keys elsewhere", id="else"), collection="second")
        texts = {
            (await engine.ask("vault keys", filter={"year": 1})).text,
            (await engine.ask("vault keys", filter={"year": 2})).text,
            (await engine.ask("vault keys", collections=["second"])).text,
            (await engine.ask("vault keys", documents=["old"])).text,
            (await engine.ask("vault keys", collections=["default", "second"])).text,
        }
        assert len(texts) == 4, "one document by its filter and by its id gives one text, all others differ"
