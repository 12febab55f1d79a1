"""Servers that fail again and again: nobody waits for them for a while, and results say so at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ragline.concurrency.circuit import Circuit, watched
from ragline.concurrency.deadlines import deadline
from ragline.engine import resources
from ragline.errors import BackendError, InputError, OverloadedError
from ragline.settings import CacheSettings, GenerationSettings, RerankSettings
from ragline.types import Document
from tests.engines import engine
from tests.imitation.chat import MODEL, ChatServer, Script
from tests.imitation.http import HANG, status
from tests.imitation.rerank import RerankServer

DOCUMENTS = [Document("Keys rotate every ninety days.", id="a"), Document("Locks are oiled in spring.", id="b")]
QUESTION = "How often do keys rotate?"


@pytest.fixture(autouse=True)
def sensitive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "CIRCUIT_FAILURES", 2)
    monkeypatch.setattr(resources, "CIRCUIT_REST_S", 100.0)


def test_what_a_server_answers_is_no_failure_of_it() -> None:
    circuit = Circuit(1, 10)
    with pytest.raises(InputError), watched(circuit):
        raise InputError("too long")
    with pytest.raises(OverloadedError), watched(circuit):
        raise OverloadedError("busy")
    assert circuit.allows()
    with pytest.raises(BackendError), watched(circuit):
        raise BackendError("down")
    with pytest.raises(BackendError, match="again and again"), watched(circuit):
        raise AssertionError("it was asked")
    with watched(circuit, asks_anyway=True):
        pass
    assert not circuit.open


async def test_a_language_model_that_is_down_is_left_alone_and_quotations_say_so(tmp_path: Path) -> None:
    with ChatServer("openai", Script(["Every ninety days [1]."])) as server:
        settings: dict[str, Any] = {
            "generation": GenerationSettings(generator="openai", model=MODEL, base_url=server.base_url),
            "cache": CacheSettings(enabled=False),
        }
        async with engine(tmp_path, **settings) as opened:
            await opened.ingest(DOCUMENTS)
            server.fail_next(*[status(500)] * 2)
            assert (await opened.ask(QUESTION)).degraded == ("llm_unavailable",)
            asked = len(server.requests)
            assert asked == 2, "the third attempt found the circuit open"
            alone = await opened.ask(QUESTION)
            assert alone.degraded == ("llm_unavailable",) and alone.found
            assert len(server.requests) == asked
            assert (await opened.process_stats())["servers"] == {"the language model's server": "left alone"}
            assert any("leaves it alone" in finding.what for finding in await opened.doctor())
            opened._resources.circuit("the language model's server")._rests_until = 0.0
            assert not (await opened.ask(QUESTION)).degraded
            assert (await opened.process_stats())["servers"] == {"the language model's server": "asked"}


async def test_a_rerank_server_that_is_down_is_left_alone(tmp_path: Path) -> None:
    with RerankServer() as server:
        settings: dict[str, Any] = {
            "rerank": RerankSettings(reranker="endpoint", base_url=server.url),
            "cache": CacheSettings(enabled=False),
        }
        async with engine(tmp_path, **settings) as opened:
            await opened.ingest(DOCUMENTS)
            server.fail_next(*[status(400)] * 2)
            for _ in range(3):
                assert (await opened.search(QUESTION)).degraded == ("rerank_unavailable",)
            assert len(server.requests) == 2


async def test_a_deadline_leaves_time_for_quotations(tmp_path: Path) -> None:
    with ChatServer("openai") as server:
        async with engine(tmp_path, generation=GenerationSettings(generator="openai", model=MODEL, base_url=server.base_url)) as opened:
            await opened.ingest(DOCUMENTS)
            await opened.search(QUESTION)
            server.fail_next(HANG)
            with deadline(2.0):
                answer = await opened.ask(QUESTION)
            assert answer.degraded == ("llm_timeout",) and answer.found


async def test_a_deadline_leaves_the_hits_where_the_reranker_hangs(tmp_path: Path) -> None:
    with RerankServer() as server:
        async with engine(tmp_path, rerank=RerankSettings(reranker="endpoint", base_url=server.url)) as opened:
            await opened.ingest(DOCUMENTS)
            server.fail_next(HANG)
            with deadline(1.0):
                result = await opened.search(QUESTION)
            assert result.degraded == ("rerank_timeout",) and len(result) == 2
