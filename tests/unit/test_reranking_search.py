"""Searches whose hits are reranked by a server: their order, their scores, and what happens when it fails."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from ragline.errors import SettingsError
from ragline.settings import RerankSettings, RetrievalSettings
from ragline.types import Document, SearchResult
from tests.engines import engine
from tests.imitation.http import GARBAGE, GARBAGE_BODY, HANG, RESET, Fault, closed_port, half, slow, status
from tests.imitation.rerank import RerankServer

DOCUMENTS = [
    Document("Keys rotate every ninety days, and keys that rotate are logged.", id="a"),
    Document("Keys rotate in the vault.", id="b"),
    Document("# Chapter\n\nKeys are heavy.", id="c"),
    Document("Cats sleep and rotate.", id="d"),
]


async def search(folder: Path, url: str, *, retrieval: RetrievalSettings | None = None, top_k: int = 4, **rerank: Any) -> SearchResult:
    rerank = {"reranker": "endpoint", "base_url": url, "timeout_s": 5, **rerank}
    async with engine(folder, rerank=RerankSettings(**rerank), retrieval=retrieval or RetrievalSettings()) as opened:
        await opened.ingest(DOCUMENTS)
        return await opened.search("keys rotate", top_k=top_k)


def order(result: SearchResult) -> str:
    return "".join(hit.document_id for hit in result)


async def plain(folder: Path, top_k: int = 4) -> SearchResult:
    async with engine(folder) as opened:
        await opened.ingest(DOCUMENTS)
        return await opened.search("keys rotate", top_k=top_k)


async def test_hits_come_in_the_order_of_the_reranker_with_its_scores(tmp_path: Path) -> None:
    with RerankServer() as server:
        server.scores = {
            DOCUMENTS[3].text: 7.0,
            "Chapter\n# Chapter\n\nKeys are heavy.": 5.5,
            DOCUMENTS[0].text: 1.0,
            DOCUMENTS[1].text: -2.0,
        }
        result = await search(tmp_path, server.url)
    assert [(hit.document_id, hit.score) for hit in result] == [("d", 7.0), ("c", 5.5), ("a", 1.0), ("b", -2.0)]
    assert not result.degraded and "rerank_ms" in result.timings
    before = {hit.document_id: (hit.dense_score, hit.lexical_score) for hit in await plain(tmp_path)}
    assert {hit.document_id: (hit.dense_score, hit.lexical_score) for hit in result} == before
    assert len(server.asked) == 1


async def test_a_hit_from_further_down_can_come_first(tmp_path: Path) -> None:
    assert order(await plain(tmp_path, 1)) != "d"
    with RerankServer() as server:
        server.scores = {DOCUMENTS[3].text: 9.0}
        assert order(await search(tmp_path, server.url, top_k=1)) == "d"


async def test_hits_behind_the_candidates_follow_in_their_order_and_scores_keep_falling(tmp_path: Path) -> None:
    before = order(await plain(tmp_path))
    with RerankServer() as server:
        server.scores = {document.text: float(n) for n, document in enumerate(DOCUMENTS)}
        result = await search(tmp_path, server.url, candidates=2)
        assert len(server.asked[0].passages) == 2
    assert set(order(result)[:2]) == set(before[:2]) and order(result)[2:] == before[2:]
    scores = [hit.score for hit in result]
    assert scores == sorted(scores, reverse=True)


async def test_equal_scores_keep_the_order_of_the_search(tmp_path: Path) -> None:
    with RerankServer() as server:
        server.scores = dict.fromkeys([*(document.text for document in DOCUMENTS), "Chapter\n# Chapter\n\nKeys are heavy."], 1.0)
        assert order(await search(tmp_path, server.url)) == order(await plain(tmp_path))


@pytest.mark.parametrize(
    ("fault", "word"),
    [
        (RESET, "rerank_unavailable"),
        (GARBAGE, "rerank_unavailable"),
        (GARBAGE_BODY, "rerank_unavailable"),
        (half(4), "rerank_unavailable"),
        (status(500), "rerank_unavailable"),
        (status(401), "rerank_unavailable"),
        (status(429, {"Retry-After": "60"}), "rerank_unavailable"),
        (HANG, "rerank_timeout"),
        (slow(30), "rerank_timeout"),
        (half(4, "hang"), "rerank_timeout"),
    ],
    ids=["reset", "no-http", "no-json", "half", "500", "401", "429", "hang", "slow", "half-then-hang"],
)
async def test_a_search_survives_its_reranker_and_says_so(
    fault: Fault, word: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = await plain(tmp_path)
    with RerankServer() as server, caplog.at_level(logging.WARNING, "ragline.retrieval"):
        server.fail_next(fault, fault, fault)
        result = await search(tmp_path, server.url, timeout_s=0.4 if word == "rerank_timeout" else 5)
    assert result.hits == before.hits
    assert result.degraded == (word,)
    assert "not reranked" in caplog.text


async def test_a_rerank_server_that_is_down_leaves_the_hits_as_they_are(tmp_path: Path) -> None:
    result = await search(tmp_path, f"http://127.0.0.1:{closed_port()}")
    assert result.hits == (await plain(tmp_path)).hits and result.degraded == ("rerank_unavailable",)


async def test_nothing_found_asks_nobody(tmp_path: Path) -> None:
    with RerankServer() as server:
        async with engine(tmp_path, rerank=RerankSettings(reranker="endpoint", base_url=server.url)) as opened:
            assert len(await opened.search("keys")) == 0
    assert not server.requests


async def test_a_missing_address_is_an_error_and_not_a_lesser_answer(tmp_path: Path) -> None:
    async with engine(tmp_path, rerank=RerankSettings(reranker="endpoint")) as opened:
        with pytest.raises(SettingsError, match=r"rerank\.base_url"):
            await opened.search("keys")


async def test_answers_are_made_from_reranked_hits_and_say_what_was_left_out(tmp_path: Path) -> None:
    with RerankServer() as server:
        async with engine(tmp_path, rerank=RerankSettings(reranker="endpoint", base_url=server.url)) as opened:
            await opened.ingest(DOCUMENTS)
            server.scores = {DOCUMENTS[1].text: 9.0}
            assert (await opened.ask("where do keys rotate?")).hits[0].document_id == "b"
            server.fail_next(status(400))
            assert (await opened.ask("where do all keys rotate?")).degraded == ("rerank_unavailable",)


async def test_diversity_chooses_among_reranked_hits(tmp_path: Path) -> None:
    with RerankServer() as server:
        server.scores = {
            DOCUMENTS[0].text: 9.0,
            DOCUMENTS[1].text: 8.9,
            DOCUMENTS[3].text: 8.0,
            "Chapter\n# Chapter\n\nKeys are heavy.": 0.0,
        }
        assert order(await search(tmp_path, server.url, top_k=2)) == "ab"
        result = await search(tmp_path, server.url, top_k=2, retrieval=RetrievalSettings(mmr_lambda=0.5))
        server.scores |= {DOCUMENTS[3].text: 9.5, DOCUMENTS[1].text: 8.5}
        other = await search(tmp_path, server.url, top_k=2, retrieval=RetrievalSettings(mmr_lambda=0.5))
    assert order(other) == "da", "likeness is of the hits where they stand now"
    assert order(result) == "ad" and [hit.score for hit in result] == [9.0, 8.0]
    assert {"rerank_ms", "diversify_ms"} <= set(result.timings)


async def test_a_document_replaced_while_its_hits_are_reranked_is_given_as_it_was_found(tmp_path: Path) -> None:
    with RerankServer() as server:
        async with engine(tmp_path, rerank=RerankSettings(reranker="endpoint", base_url=server.url)) as opened:
            await opened.ingest(DOCUMENTS)
            server.fail_next(slow(0.5))
            task = asyncio.create_task(opened.search("keys rotate", top_k=4))
            async with asyncio.timeout(10):
                while not server.requests:  # noqa: ASYNC110 - on the thread of the server
                    await asyncio.sleep(0.01)
            await opened.ingest(Document("Keys rotate yearly now.", id="a"))
            assert {hit.document_id for hit in await task} == {"a", "b", "c", "d"}
        assert len(server.requests) == 1, "it is reranked once, after the search has settled"
