"""Answers are never stale: whatever is done in whatever order, an answer is what a fresh search and its generator give now.

The generator is a function of its evidence and the question, and the index is exact. The oracle is a search of the same
engine that goes past every cache.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from ragline.answers.telling import may_share
from ragline.conversation import standalone
from ragline.engine import Engine
from ragline.engine.searching import Search
from ragline.filters import parse_filter
from ragline.generation.base import Generated
from ragline.settings import Settings
from ragline.types import Answer, Citation, Document, ScoredChunk, Turn
from tests.embedders import HashEmbedder

THINGS = ("vault", "boat", "ledger", "lamp", "gate", "pump")
VERBS = ("rotates", "opens", "is painted", "is checked")
QUESTIONS = tuple(
    wording.format(thing=thing)
    for thing in THINGS
    for wording in (
        "how often is the {thing} looked at?",
        "How often is the {thing} looked at",
        "how often is a {thing} not looked at?",
        "when is the {thing} looked at?",
        "who looks at the {thing}?",
    )
)
GOING_ON = ("and when?", "Who does that?", "is it not looked at?")
HISTORIES = tuple((Turn("user", f"How often is the {thing} opened?"), Turn("assistant", "Every 7 days [1].")) for thing in THINGS[:3])
TENANTS = ("acme", "other")
EVIDENCE = 3


class Quoter:
    """Answers with what it was given and asked: any difference of evidence shows in the text."""

    shares_answers = True
    fingerprint = "quoter"

    async def generate(
        self, question: str, evidence: Sequence[ScoredChunk], history: Sequence[Turn] = ()
    ) -> AsyncIterator[str | Citation | Generated]:
        text, citations = written(evidence, history), cited(evidence)
        yield text
        for citation in citations:
            yield citation
        yield Generated(text, citations, found=bool(evidence))

    async def close(self) -> None:
        pass


def written(evidence: Sequence[ScoredChunk], history: Sequence[Turn] = ()) -> str:
    said = "".join(f"{turn.text} | " for turn in history)
    return said + (" | ".join(f"{chunk.text} ({chunk.document_id} v{chunk.document_version})" for chunk in evidence) or "nothing")


def cited(evidence: Sequence[ScoredChunk]) -> tuple[Citation, ...]:
    return tuple(
        Citation(c.chunk_id, c.document_id, c.document_version, c.start, c.end, c.text, c.source, c.heading, c.page) for c in evidence
    )


def opened(folder: Path) -> Engine:
    settings = Settings(retrieval={"evidence": EVIDENCE}, cache={"items": 40})
    return Engine.open(folder, settings=settings, embedder=HashEmbedder(), generator=Quoter())


class Peer:
    """Another process that writes to the same store when told."""

    async def start(self, folder: Path) -> None:
        program = [sys.executable, "-m", "tests.property.answers_peer", str(folder)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        self.process = await asyncio.create_subprocess_exec(
            *program, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=environment, cwd=Path(__file__).parents[2]
        )
        await self._line()

    async def tell(self, *words: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(("\t".join(words) + "\n").encode())
        await self._line()

    async def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert await self.process.wait() == 0

    async def _line(self) -> None:
        assert self.process.stdout is not None
        async with asyncio.timeout(60):
            assert await self.process.stdout.readline() == b"done\n"


class Course:
    """One random course of operations, and what was served in it."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.random = random.Random(seed)
        self.engine = opened(folder)
        self.peer = Peer()
        self.latest: dict[str, Document] = {}
        self.served: dict[str, int] = {}
        self.failures: list[str] = []

    async def run(self, operations: int) -> None:
        await self.engine.__aenter__()
        await self.peer.start(self.folder)
        try:
            for number in range(operations):
                await self.step(number, operations)
        finally:
            await self.peer.stop()
            await self.engine.close()

    async def step(self, number: int, operations: int) -> None:
        chance = self.random.random()
        tenant = self.random.choice(TENANTS)
        id = f"d{self.random.randrange(12)}"
        if chance < 0.9:
            await self.ask(tenant)
        elif chance < 0.93:
            await self.ask_on(tenant)
        elif chance < 0.95:
            await self.engine.tenant(tenant).ingest(self.document(id))
        elif chance < 0.955:
            await self.engine.tenant(tenant).ingest(self.with_another_year(id))
        elif chance < 0.965:
            await self.engine.tenant(tenant).delete(id)
        elif chance < 0.98:
            document = self.document(id)
            await self.peer.tell("put", tenant, id, document.text, str(document.metadata["year"]))
        elif chance < 0.985:
            await self.peer.tell("delete", tenant, id)
        elif chance < 0.998:
            await self.ask_together(tenant)
        elif number * 500 > operations * 2:  # about twice in a short course: opening takes longer than all else
            await self.engine.close()
            self.engine = opened(self.folder)
            await self.engine.__aenter__()

    def document(self, id: str) -> Document:
        thing, verb = self.random.choice(THINGS), self.random.choice(VERBS)
        text = f"The {thing} {verb} every {self.random.choice((7, 30, 90))} days."
        self.latest[id] = Document(text, id=id, metadata={"year": self.random.choice((2024, 2025))})
        return self.latest[id]

    def with_another_year(self, id: str) -> Document:
        """The text that this document had last, so that only metadata changes, unless it was deleted meanwhile."""
        before = self.latest.get(id) or self.document(id)
        self.latest[id] = replace(before, metadata={"year": 4049 - int(before.metadata["year"])})
        return self.latest[id]

    async def ask(self, tenant: str) -> None:
        question = self.random.choice(QUESTIONS)
        filter = {"year": 2025} if self.random.random() < 0.2 else None
        answer = await self.engine.tenant(tenant).ask(question, filter=filter)
        if answer.cache == "semantic":
            await self.check_shared(tenant, question, filter, answer)
        else:
            self.check(question, answer, await self.fresh(tenant, question, filter))

    async def ask_on(self, tenant: str) -> None:
        """A question that goes on with a conversation: found with what it refers to, told with what was said."""
        question, history = self.random.choice(GOING_ON), self.random.choice(HISTORIES)
        answer = await self.engine.tenant(tenant).ask(question, history=history)
        evidence = await self.fresh(tenant, standalone(question, history), None)
        if answer.cache in ("hit", "semantic"):
            self.failures.append(f"{answer.cache}: {question!r} with a history was given what was known")
        self.check(question, answer, evidence, history)

    async def check_shared(self, tenant: str, question: str, filter: dict[str, int] | None, answer: Answer) -> None:
        """It is what a fresh search gives now for another question that asks the same; this one's own search finds what it cites."""
        self.served["semantic"] = self.served.get("semantic", 0) + 1
        own = await self.fresh(tenant, question, filter)
        made_for = [
            other
            for other in QUESTIONS
            if other != question and may_share(question, other) and answer.text == written(await self.fresh(tenant, other, filter))
        ]
        found = {(chunk.document_id, chunk.document_version) for chunk in own}
        if not made_for or not found.issuperset((each.document_id, each.document_version) for each in answer.citations):
            self.failures.append(f"semantic: {question!r} gave {answer.text!r}, its own search {written(own)!r}")
        if [hit.chunk_id for hit in answer.hits] != [chunk.chunk_id for chunk in own]:
            self.failures.append(f"semantic: {question!r} has other hits than a search of now")

    async def ask_together(self, tenant: str) -> None:
        """Identical questions, with a commit among them: each may be answered as of before it or after it."""
        question, engine = self.random.choice(QUESTIONS), self.engine.tenant(tenant)
        before = await self.fresh(tenant, question, None)
        asks = [asyncio.create_task(engine.ask(question)) for _ in range(3)]
        await engine.ingest(self.document(f"d{self.random.randrange(12)}"))
        asks += [asyncio.create_task(engine.ask(question)) for _ in range(3)]
        answers = await asyncio.gather(*asks)
        after = await self.fresh(tenant, question, None)
        for number, answer in enumerate(answers):
            if answer.cache != "semantic":
                self.check(question, answer, before if number < 3 and answer.citations == cited(before) else after)

    async def fresh(self, tenant: str, question: str, filter: dict[str, int] | None) -> Sequence[ScoredChunk]:
        engine = self.engine.tenant(tenant)
        prepared = await engine._prepared(question, EVIDENCE, filter, None, None)
        mode: Literal["hybrid"] = "hybrid"
        search = Search(prepared.question, EVIDENCE, mode, parse_filter(filter), None, prepared.scopes)
        async with asyncio.timeout(60):
            with engine._resources.in_use():
                while (result := await search.run(engine._resources)).lag:  # the machine is busy: what is given under lag proves nothing
                    pass
        return result.hits

    def check(self, question: str, answer: Answer, evidence: Sequence[ScoredChunk], history: Sequence[Turn] = ()) -> None:
        self.served[answer.cache] = self.served.get(answer.cache, 0) + 1
        if answer.lag:
            return  # it says so, and is not kept
        if answer.text != written(evidence, history) or answer.citations != cited(evidence):
            self.failures.append(f"{answer.cache}: {question!r} gave {answer.text!r}, not {written(evidence, history)!r}")
        if [hit.chunk_id for hit in answer.hits] != [chunk.chunk_id for chunk in evidence]:
            self.failures.append(f"{answer.cache}: {question!r} has other hits than a search of now")


async def never_stale(folder: Path, *, seed: int, operations: int) -> dict[str, int]:
    course = Course(folder, seed)
    await course.run(operations)
    assert not course.failures, (len(course.failures), course.failures[:5])
    # Nothing is proved by a cache that serves nothing.
    assert all(course.served.get(step, 0) > operations / 200 for step in ("hit", "revalidated", "semantic", "miss")), course.served
    return course.served


@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(4))
async def test_an_answer_is_always_what_a_fresh_search_gives(tmp_path: Path, seed: int) -> None:
    await never_stale(tmp_path, seed=seed, operations=5_000)


@pytest.mark.soak
@pytest.mark.timeout(7200)
async def test_an_answer_is_always_what_a_fresh_search_gives_for_long(tmp_path: Path) -> None:
    for seed in range(100, 120):
        await never_stale(tmp_path / str(seed), seed=seed, operations=25_000)
