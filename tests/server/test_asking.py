"""Searches and questions over HTTP, whole, streamed, in batches; and clients that leave in the midst of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from ragline.errors import BackendError
from ragline.generation.base import Generated
from ragline.types import Citation, Document, ScoredChunk, Turn
from tests.server.raw import Exchange
from tests.server.serving import Served, serving

QUESTION = "when does the ferry leave?"
JSON = {"host": "localhost", "content-type": "application/json"}


class Slow:
    """A generator that says a word and then thinks until it is allowed to go on, or fails.

    Attributes:
        under_way: How many answers are being made.
    """

    shares_answers = False
    fingerprint = "slow"

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.go_on = asyncio.Event()
        self.under_way = 0
        self.fails = False

    async def generate(
        self, question: str, evidence: Sequence[ScoredChunk], history: Sequence[Turn] = ()
    ) -> AsyncIterator[str | Citation | Generated]:
        self.under_way += 1
        try:
            yield "Nine"
            self.began.set()
            if self.fails:
                raise BackendError("the server http://10.0.0.7/v1 said no", hint="ask it")
            await self.go_on.wait()
            yield Generated("Nine", (), True)
        finally:
            self.under_way -= 1

    async def close(self) -> None:
        pass


async def filled(served: Served) -> None:
    documents = [
        Document(text="The ferry will leave at nine.", id="a", metadata={"lang": "en"}),
        Document(text="Dogs travel free.", id="b"),
    ]
    await served.state.engine.ingest(documents)
    await served.state.engine.ingest(Document(text="The ferry has two decks.", id="c"), collection="boats")


def events_of(text: str) -> list[tuple[str, Any]]:
    parts = [part.split("\n") for part in text.split("\n\n") if part and not part.startswith(":")]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in parts]


async def test_a_search_finds_what_the_engine_finds(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        await filled(served)
        found = (await served.client.post("/api/v1/search", json={"query": QUESTION, "top_k": 2})).json()
        assert set(found) == {"hits", "lsn", "lag", "degraded", "timings"}
        assert found["hits"][0]["document_id"] == "a" and len(found["hits"]) == 2
        only = (await served.client.post("/api/v1/search", json={"query": QUESTION, "filter": {"lang": "en"}})).json()
        assert [hit["document_id"] for hit in only["hits"]] == ["a"]
        both = {"query": "ferry", "collections": ["default", "boats"]}
        assert {hit["collection"] for hit in (await served.client.post("/api/v1/search", json=both)).json()["hits"]} == {"default", "boats"}


async def test_a_question_is_answered_with_citations_and_known_the_second_time(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        await filled(served)
        answers = [(await served.client.post("/api/v1/query", json={"query": QUESTION})).json() for _ in range(2)]
        assert "nine" in answers[0]["answer"] and answers[0]["citations"][0]["document_id"] == "a" and answers[0]["found"]
        assert [answer["cache"] for answer in answers] == ["miss", "hit"]


async def test_an_answer_is_streamed_as_named_events(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        await filled(served)
        answer = await served.client.post("/api/v1/query", json={"query": QUESTION, "stream": True})
        assert answer.headers["content-type"].startswith("text/event-stream") and answer.headers["x-accel-buffering"] == "no"
        events = events_of(answer.text)
        names = [name for name, _ in events]
        assert names[0] == "hits" and names[-1] == "answer" and {"token", "citation"} < set(names)
        text = "".join(data for name, data in events if name == "token")
        assert text == events[-1][1]["answer"]
        assert [data for name, data in events if name == "citation"] == events[-1][1]["citations"]


@pytest.mark.parametrize(
    ("wrong", "status", "code"),
    [
        ({"collections": ["none"]}, 404, "not_found"),
        ({"query": " "}, 422, "invalid_input"),
        ({"filter": {"x": {"near": 1}}}, 422, "invalid_filter"),
    ],
)
async def test_what_goes_wrong_before_a_stream_begins_has_its_status(tmp_path: Path, wrong: dict[str, Any], status: int, code: str) -> None:
    async with serving(tmp_path) as served:
        await filled(served)
        answer = await served.client.post("/api/v1/query", json={"query": QUESTION, "stream": True, **wrong})
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (status, code)
        assert status != 404 or error["hint"] == "GET /api/v1/collections shows those there are"


async def test_a_failure_in_the_midst_of_a_stream_is_its_last_event_and_names_no_server(tmp_path: Path) -> None:
    slow = Slow()
    slow.fails = True
    async with serving(tmp_path, generator=slow) as served:
        await filled(served)
        answer = await served.client.post("/api/v1/query", json={"query": QUESTION, "stream": True})
        events = events_of(answer.text)
        assert [name for name, _ in events] == ["hits", "token", "error"]
        assert events[-1][1]["error"]["code"] == "backend_failed" and "10.0.0.7" not in answer.text
        assert slow.under_way == 0


async def test_a_batch_keeps_its_order_and_one_failure_ends_no_other(tmp_path: Path) -> None:
    async with serving(tmp_path, server={"max_batch_queries": 4}) as served:
        await filled(served)
        queries = [{"query": QUESTION}, {"query": " "}, {"query": "dogs"}, {"query": "x", "collections": ["none"]}]
        results = (await served.client.post("/api/v1/query/batch", json={"queries": queries})).json()["results"]
        assert "nine" in results[0]["answer"] and "free" in results[2]["answer"]
        assert [results[n]["error"]["code"] for n in (1, 3)] == ["invalid_input", "not_found"]
        assert (await served.client.post("/api/v1/query/batch", json={"queries": queries + queries[:1]})).status_code == 422


@pytest.mark.parametrize("body", [{"query": QUESTION}, {"query": QUESTION, "stream": True}], ids=["whole", "streamed"])
async def test_a_client_that_leaves_ends_the_work_done_for_it(tmp_path: Path, body: dict[str, Any]) -> None:
    slow = Slow()
    async with serving(tmp_path, generator=slow) as served:
        await filled(served)
        exchange = Exchange(served.app, "POST", "/api/v1/query", JSON, json.dumps(body).encode())
        await asyncio.wait_for(slow.began.wait(), 10)
        assert slow.under_way == 1
        exchange.leave.set()
        await asyncio.wait_for(exchange.task, 10)
        assert slow.under_way == 0


async def test_a_batch_whose_client_leaves_ends_too(tmp_path: Path) -> None:
    slow = Slow()
    async with serving(tmp_path, generator=slow) as served:
        await filled(served)
        body = json.dumps({"queries": [{"query": QUESTION}, {"query": "dogs"}]}).encode()
        exchange = Exchange(served.app, "POST", "/api/v1/query/batch", JSON, body)
        await asyncio.wait_for(slow.began.wait(), 10)
        exchange.leave.set()
        await asyncio.wait_for(exchange.task, 10)
        assert slow.under_way == 0 and served.state.budgets.admissions["asking"].in_flight == 0


@pytest.mark.parametrize(("free", "at_once"), [(16, 4), (3, 3), (1, 1)])
async def test_a_batch_takes_a_place_for_each_question_that_it_answers_at_once(tmp_path: Path, free: int, at_once: int) -> None:
    slow = Slow()
    async with serving(tmp_path, generator=slow) as served, AsyncExitStack() as places:
        await filled(served)
        asking = served.state.budgets.admissions["asking"]
        while asking.limit.now - asking.in_flight > free:
            await places.enter_async_context(await asking.enter("test"))
        others = asking.in_flight
        body = json.dumps({"queries": [{"query": f"{word} ferry dogs"} for word in ("when", "who", "why", "where", "how")]}).encode()
        exchange = Exchange(served.app, "POST", "/api/v1/query/batch", JSON, body)
        for _ in range(2000):
            if slow.under_way == at_once:
                break
            await asyncio.sleep(0.005)
        assert asking.in_flight - others == at_once
        slow.go_on.set()
        await asyncio.wait_for(exchange.task, 10)
        assert [result["answer"] for result in json.loads(exchange.body)["results"]] == ["Nine"] * 5
        assert asking.in_flight == others and slow.under_way == 0


async def test_who_asks_the_same_gets_an_answer_when_the_first_has_left(tmp_path: Path) -> None:
    slow = Slow()
    async with serving(tmp_path, generator=slow) as served:
        await filled(served)
        body = json.dumps({"query": QUESTION}).encode()
        first, second = [Exchange(served.app, "POST", "/api/v1/query", JSON, body) for _ in range(2)]
        await asyncio.wait_for(slow.began.wait(), 10)
        first.leave.set()
        await asyncio.wait_for(first.task, 10)
        slow.go_on.set()
        await asyncio.wait_for(second.task, 10)
        assert second.status == 200 and json.loads(second.body)["answer"] == "Nine"


async def test_a_stream_with_nothing_to_say_shows_that_it_is_alive(tmp_path: Path) -> None:
    slow = Slow()
    async with serving(tmp_path, generator=slow, server={"heartbeat_s": 0.01}) as served:
        await filled(served)
        exchange = Exchange(served.app, "POST", "/api/v1/query", JSON, json.dumps({"query": QUESTION, "stream": True}).encode())
        await asyncio.wait_for(slow.began.wait(), 10)
        await asyncio.sleep(0.05)
        slow.go_on.set()
        await asyncio.wait_for(exchange.task, 10)
        assert b": still here\n\n" in exchange.body
        assert [name for name, _ in events_of(exchange.body.decode())] == ["hits", "token", "answer"]


async def test_a_question_may_go_on_with_what_was_said(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        await served.state.engine.ingest([Document("The vault keys rotate every ninety days.", id="keys"), Document("Dogs travel free.")])
        history = [{"role": "user", "text": "How often do the vault keys rotate?"}, {"role": "assistant", "text": "Every ninety days [1]."}]
        asked = {"query": "Since when is that so?", "history": history}
        answer = (await served.client.post("/api/v1/query", json=asked)).json()
        assert [each["document_id"] for each in answer["citations"]] == ["keys"]
        streamed = await served.client.post("/api/v1/query", json={**asked, "stream": True})
        assert 'event: citation\ndata: {"chunk_id":1,"document_id":"keys"' in streamed.text
        assert not (await served.client.post("/api/v1/query", json={**asked, "history": []})).json()["found"]
        wrong = await served.client.post("/api/v1/query", json={"query": "And why?", "history": [{"role": "tool", "text": "x"}]})
        assert wrong.status_code == 422 and "history.0.role" in wrong.json()["error"]["message"]
