"""More than can be served, clients that are slow or leave, and requests that take too long."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from ragline.server import door
from ragline.server.budgets import Budgets, efforts_of
from ragline.settings import CacheSettings, GenerationSettings, LimitsSettings, Settings
from ragline.storage.keys import new_key
from ragline.types import Document, Effort
from tests.imitation.chat import MODEL, ChatServer, Script
from tests.imitation.http import HANG
from tests.server.live import Live, live
from tests.server.raw import Exchange
from tests.server.serving import Served, serving

DOCUMENTS = [Document("Keys rotate every ninety days.", id="a"), Document("Locks are oiled in spring.", id="b")]
QUERY = {"query": "How often do keys rotate?"}
JSON = {"host": "localhost", "content-type": "application/json"}


def until(holds: Callable[[], bool], within_s: float = 5.0) -> bool:
    ends = time.monotonic() + within_s
    while not holds() and time.monotonic() < ends:
        time.sleep(0.01)
    return holds()


async def test_a_key_that_asks_too_often_is_told_when_to_come_back(tmp_path: Path) -> None:
    async with serving(tmp_path, limits=LimitsSettings(requests_per_s=0.01, burst=2)) as served:
        one, other = await served.key("acme", "read"), await served.key("acme", "read")
        statuses = [(await served.client.post("/api/v1/search", json=QUERY, headers=one)).status_code for _ in range(3)]
        assert statuses == [200, 200, 429]
        refused = await served.client.get("/v1/models", headers=one)
        assert refused.status_code == 429 and 1 <= int(refused.headers["retry-after"]) <= 100
        assert refused.json()["error"]["type"] == "rate_limit_error"
        assert (await served.client.post("/api/v1/search", json=QUERY, headers=other)).status_code == 200
        assert (await served.client.get("/livez")).status_code == 200
        assert served.state.budgets.stats()["rate_limited"] == 2


async def test_a_key_can_have_a_rate_of_its_own(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        text, stored = new_key("acme", scopes=["read"], created_at=1.0, rate_per_s=0.01, burst=1)
        await served.state.keys.add(stored, actor="test")
        slow, free = {"x-api-key": text}, await served.key("acme", "read")
        assert [(await served.client.get("/api/v1/stats", headers=slow)).status_code for _ in range(2)] == [200, 429]
        assert [(await served.client.get("/api/v1/stats", headers=free)).status_code for _ in range(2)] == [200, 200]


async def fill(served: Served, budget: str, until_left: AsyncExitStack) -> None:
    """Takes every place of a budget."""
    admission = served.state.budgets.admissions[budget]
    admission._most_waiting = 0
    while admission.in_flight < admission.limit.now:
        await until_left.enter_async_context(await admission.enter("test"))


async def test_a_full_server_refuses_before_it_reads_a_body(tmp_path: Path) -> None:
    async with serving(tmp_path) as served, AsyncExitStack() as places:
        await fill(served, "searching", places)
        exchange = Exchange(served.app, "POST", "/v1/embeddings", JSON)
        await exchange.task
        assert exchange.status == 503 and b'"overloaded"' in exchange.body
        assert 1 <= int(exchange.headers["retry-after"]) <= 60
        assert not exchange.body_wanted.is_set()
        stats = served.state.budgets.stats()
        assert stats["budgets"]["searching"]["refused"] == 1 and stats["refusal_ms_p50"] > 0
        answered = await served.client.post("/api/v1/query", json=QUERY)
        assert answered.status_code == 200, "asking has a budget of its own"
        assert (await served.client.get("/readyz")).status_code == 200
        await places.aclose()
        assert (await served.client.post("/api/v1/search", json=QUERY)).status_code == 200


@pytest.mark.parametrize("path", ["/api/v1/search", "/api/v1/query", "/v1/chat/completions"])
async def test_a_full_server_gives_what_is_known_and_refuses_what_is_not(tmp_path: Path, path: str) -> None:
    def asked(question: str) -> dict[str, Any]:
        return {"query": question} if path.startswith("/api") else {"model": "ragline", "messages": [{"role": "user", "content": question}]}

    async with serving(tmp_path) as served, AsyncExitStack() as places:
        await served.state.engine.ingest(DOCUMENTS)
        known, other = asked("How often do keys rotate?"), asked("When are locks oiled?")
        assert (await served.client.post(path, json=known)).status_code == 200
        budget = "searching" if path.endswith("search") else "asking"
        await fill(served, budget, places)
        for streams in [{}, {"stream": True}] if budget == "asking" else [{}]:
            assert (await served.client.post(path, json={**known, **streams})).status_code == 200
        refused = await served.client.post(path, json=other)
        assert refused.status_code == 503 and int(refused.headers["retry-after"]) >= 1
        streamed = await served.client.post(path, json={**other, "stream": True}) if budget == "asking" else refused
        assert streamed.status_code == 503, "told by its status, not in a stream"
        stats = served.state.budgets.stats()
        assert stats["budgets"][budget]["refused"] == (2 if budget == "asking" else 1) and stats["refusal_ms_p50"] > 0
        await places.aclose()
        assert (await served.client.post(path, json=other)).status_code == 200


async def test_without_a_cache_a_full_server_reads_no_question(tmp_path: Path) -> None:
    async with serving(tmp_path, cache=CacheSettings(enabled=False)) as served, AsyncExitStack() as places:
        await fill(served, "asking", places)
        exchange = Exchange(served.app, "POST", "/api/v1/query", JSON)
        await exchange.task
        assert exchange.status == 503 and not exchange.body_wanted.is_set()


def test_what_is_left_out_first_costs_most_for_what_it_gives() -> None:
    everything = Settings(generation={"generator": "openai", "model": "m"}, rerank={"reranker": "endpoint", "base_url": "http://r"})
    whole, no_rerank, shallow, quoted = efforts_of(everything, "asking")
    assert whole == Effort() and no_rerank == Effort(rerank=False)
    assert shallow == Effort(rerank=False, full_depth=False)
    assert quoted == Effort(rerank=False, full_depth=False, language_model=False)
    assert efforts_of(everything, "searching") == (whole, no_rerank, shallow)
    plain = Settings()
    assert efforts_of(plain, "asking") == (whole, Effort(language_model=False), Effort(language_model=False, full_depth=False))
    assert efforts_of(plain, "searching") == (whole, Effort(full_depth=False))


@pytest.mark.parametrize(("most", "processes", "share"), [(512, 1, 512), (512, 4, 128), (10, 3, 3), (2, 4, 1)])
def test_processes_share_what_a_server_takes_on_at_once(most: int, processes: int, share: int) -> None:
    settings = LimitsSettings(max_asking=most, max_searching=most, max_ingesting=most)
    for admission in Budgets(Settings(limits=settings), None, processes=processes).admissions.values():
        limit, highest = admission.limit, 0
        for _ in range(40):  # windows of calls that do not slow each other: they let it grow as far as it may
            crowd = limit.now
            highest = max(highest, crowd)
            for _ in range(max(8, crowd)):
                limit.began(crowd)
                limit.ended("test", 1.0, crowd)
        assert highest == share


async def test_a_server_knows_with_how_many_processes_it_shares(tmp_path: Path) -> None:
    async with serving(tmp_path, limits=LimitsSettings(max_asking=4), server={"workers": 4}) as served:
        assert served.state.budgets.stats()["budgets"]["asking"]["limit"] == 1


async def test_uploads_are_of_one_kind_whatever_their_address(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        limit = served.state.budgets.admissions["ingesting"].limit
        for number in range(limit.now):
            assert (await served.client.put(f"/api/v1/documents/d{number}", json={"text": "a"})).status_code == 202
        assert limit.base_s("ingesting") is not None, "as many as that say how long they take"


async def test_a_job_that_is_followed_does_not_hold_up_a_server_that_stops(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        runner = served.state.engine._resources.job_runner
        assert runner is not None
        await runner.stop()
        job = (await served.client.post("/api/v1/documents", json={"text": "It waits."})).json()["job_id"]
        following = Exchange(served.app, "GET", f"/api/v1/jobs/{job}/events", {"host": "localhost"}, b"")
        for _ in range(500):
            if b"event: progress" in following.body:
                break
            await asyncio.sleep(0.01)
        served.state.stop()
        async with asyncio.timeout(10):
            await following.task
        assert b"event: end" not in following.body and not following.sent[-1]["more_body"]


async def test_under_load_answers_leave_out_work_and_say_so(tmp_path: Path) -> None:
    with ChatServer("openai", Script(["Every ninety days [1]."])) as server:
        generation = GenerationSettings(generator="openai", model=MODEL, base_url=server.base_url)
        async with serving(tmp_path, generation=generation) as served:
            await served.state.engine.ingest(DOCUMENTS)
            ladder = served.state.budgets._ladders["asking"]
            ladder._level = 2
            light = (await served.client.post("/api/v1/query", json=QUERY)).json()
            assert {"load_less_depth", "load_extractive"} <= set(light["degraded"]) and not server.requests
            assert served.state.budgets.stats()["budgets"]["asking"]["level"] == 2
            ladder._level = 0
            assert (await served.client.post("/api/v1/query", json=QUERY)).json()["degraded"] == []


async def test_a_request_has_the_time_that_its_client_gives_it(tmp_path: Path) -> None:
    with ChatServer("openai") as server:
        generation = GenerationSettings(generator="openai", model=MODEL, base_url=server.base_url, fallback=False)
        async with serving(tmp_path, generation=generation) as served:
            await served.state.engine.ingest(DOCUMENTS)
            server.fail_next(HANG)
            late = await served.client.post("/api/v1/query", json=QUERY, headers={"x-request-timeout": "0.3"})
            assert late.status_code == 504 and late.json()["error"]["code"] == "deadline_exceeded"
            assert served.state.budgets.admissions["asking"].in_flight == 0
            for wrong in ("soon", "-1", "nan", "inf"):
                bad = await served.client.post("/api/v1/query", json=QUERY, headers={"x-request-timeout": wrong})
                assert bad.status_code == 422, wrong


async def test_a_stream_that_takes_too_long_ends_with_an_error(tmp_path: Path) -> None:
    with ChatServer("openai") as server:
        generation = GenerationSettings(generator="openai", model=MODEL, base_url=server.base_url, fallback=False)
        async with serving(tmp_path, generation=generation) as served:
            await served.state.engine.ingest(DOCUMENTS)
            server.fail_next(HANG)
            late = await served.client.post("/api/v1/query", json={**QUERY, "stream": True}, headers={"x-request-timeout": "0.3"})
            assert late.text.rpartition("event: ")[2].startswith("error") and "deadline_exceeded" in late.text


@pytest.fixture(scope="module")
def model() -> Iterator[ChatServer]:
    with ChatServer("openai", Script(["Every ninety days [1]."])) as server:
        yield server


@pytest.fixture(scope="module")
def running(model: ChatServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    settings: dict[str, Any] = {
        "generation": GenerationSettings(generator="openai", model=MODEL, base_url=model.base_url),
        "cache": CacheSettings(enabled=False),
        "limits": LimitsSettings(write_timeout_s=0.5),
    }
    with live(tmp_path_factory.mktemp("live"), **settings) as server:
        long = [Document(f"a long word {n}", id=f"{n}", metadata={"note": "x" * 30_000}) for n in range(500)]
        server.run(lambda engine: engine.ingest([*DOCUMENTS, *long]))
        yield server


def connected(server: Live, **options: int) -> socket.socket:
    connection = socket.socket()
    if "receive_bytes" in options:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, options["receive_bytes"])
    connection.settimeout(20)
    host, _, port = server.url.removeprefix("http://").partition(":")
    connection.connect((host, int(port)))
    return connection


def request(path: str, body: bytes, *, length: int | None = None) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    return head.encode() + f"content-length: {len(body) if length is None else length}\r\n\r\n".encode() + body


def test_a_client_that_leaves_frees_its_place_and_ends_the_model_s_work(running: Live, model: ChatServer) -> None:
    asking = running.state.budgets.admissions["asking"]
    model.fail_next(HANG)
    left, asked = model.left, len(model.requests)
    with connected(running) as connection:
        connection.sendall(request("/api/v1/query", b'{"query": "How often do keys rotate?"}'))
        assert until(lambda: len(model.requests) > asked) and asking.in_flight == 1
    assert until(lambda: asking.in_flight == 0)
    assert model.wait_until_left(left + 1)


def test_a_slow_sender_holds_no_place_and_is_cut_off(running: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "SLOW_AFTER_S", 0.3)
    searching = running.state.budgets.admissions["searching"]
    before = searching.admitted
    with connected(running) as connection:
        connection.sendall(request("/api/v1/search", b'{"query": ', length=5000))
        said = b""
        while part := connection.recv(65536):
            said += part
    assert said.startswith(b"HTTP/1.1 408") and b'"slow_body"' in said
    assert searching.admitted == before and searching.in_flight == 0


def test_a_slow_reader_is_cut_off_and_frees_its_place(running: Live) -> None:
    asking = running.state.budgets.admissions["asking"]
    with connected(running, receive_bytes=4096) as connection:
        connection.sendall(request("/api/v1/query", b'{"query": "long word", "top_k": 500, "stream": true}'))
        assert until(lambda: asking.in_flight == 1)
        assert until(lambda: asking.in_flight == 0)
        said = b""
        with contextlib.suppress(ConnectionError):
            while part := connection.recv(65536):
                said += part
    assert said.startswith(b"HTTP/1.1 200") and b"event: answer" not in said
