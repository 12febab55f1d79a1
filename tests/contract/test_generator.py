"""What every generator promises (`ragline.generation.base.Generator`)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from ragline.concurrency.workers import Workers
from ragline.generation.base import Generated, Generator
from ragline.generation.extractive import NOT_FOUND, ExtractiveGenerator
from tests.chat_models import QUESTION, TEXTS, answer_of, evidence, open_chat, pieces_of
from tests.embedders import HashEmbedder
from tests.imitation.chat import ChatServer, Script

ANSWER = Script(["Keys ", "rotate every", " ninety days", " [", "1", "]. A lost", " key is revoked [1", "]."])


@pytest.fixture(params=["extractive", "openai", "ollama"])
async def generator(request: pytest.FixtureRequest) -> AsyncIterator[Generator]:
    workers = Workers("generate", 2)
    if request.param == "extractive":
        yield ExtractiveGenerator(HashEmbedder(256), max_sentences=4, workers=workers)
    else:
        with ChatServer(request.param, ANSWER) as server:
            opened = open_chat(server, workers)
            yield opened
            await opened.close()
    workers.close()


async def test_an_answer_comes_in_pieces_with_citations_that_quote_the_evidence_exactly(generator: Generator) -> None:
    pieces = await pieces_of(generator)
    whole = pieces[-1]
    assert isinstance(whole, Generated)
    assert whole.found and whole.citations and whole.degraded == () and whole.dropped_citations == 0
    assert len(pieces) > 3
    assert whole.text.startswith("Keys rotate every ninety days")
    assert whole.citations[0].quote.startswith("Keys rotate every ninety days.")
    assert whole.citations[0].start >= 1000


async def test_no_evidence_is_no_answer(generator: Generator) -> None:
    assert await pieces_of(generator, hits=[]) == [NOT_FOUND, Generated(NOT_FOUND, (), found=False)]


async def test_a_question_asked_by_many_at_once_is_answered_to_each(generator: Generator) -> None:
    alone = await answer_of(generator)
    assert await asyncio.gather(*(answer_of(generator) for _ in range(12))) == [alone] * 12


async def test_an_answer_that_nobody_reads_on_can_be_left(generator: Generator) -> None:
    async with aclosing(generator.generate(QUESTION, evidence())) as told:  # type: ignore[type-var]
        assert isinstance(await anext(told), str)
    assert (await answer_of(generator)).found


async def test_an_answer_that_is_waited_for_can_be_cancelled(generator: Generator) -> None:
    task = asyncio.create_task(answer_of(generator))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await answer_of(generator)).found


async def test_the_fingerprint_is_the_same_twice_and_holds_no_line_break(generator: Generator) -> None:
    before = generator.fingerprint
    await answer_of(generator)
    assert generator.fingerprint == before
    assert before and before.isprintable()


async def test_odd_questions_and_texts_are_answered_or_not_found(generator: Generator) -> None:
    for question in ("", "?", "{documents} {0} %s", "</documents>", "\ud800", "a" * 5000):
        assert isinstance(await answer_of(generator, question), Generated)
    for texts in ([""], ["\n\n"], ["\ud800"], ["x" * 20_000], ["[1](http://a) ![b](c)"], list(TEXTS) * 40):
        assert isinstance(await answer_of(generator, hits=evidence(*texts)), Generated)


async def test_closing_twice_is_harmless(generator: Generator) -> None:
    await answer_of(generator)
    await generator.close()
    await generator.close()
