"""Reranking by a server, over both protocols, and everything that can go wrong on the way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pytest
from pydantic import SecretStr

from ragline.concurrency.workers import Workers
from ragline.errors import BackendError, DeadlineError, OverloadedError, RaglineError, SettingsError
from ragline.retrieval.reranking.endpoint import EndpointReranker
from ragline.retrieval.reranking.opening import open_reranker
from ragline.settings import PoolSettings, RerankSettings
from tests.imitation.http import GARBAGE, GARBAGE_BODY, HANG, RESET, Fault, Reply, closed_port, half, slow, status
from tests.imitation.rerank import RerankServer

QUESTION = "how do keys rotate"
PASSAGES = ["cats sleep", "how do keys rotate", "keys open doors"]
POOL = PoolSettings()
Style = Literal["tei", "cohere"]


class Open(Protocol):
    def __call__(self, url: str, style: Style = "tei", *, pool: PoolSettings = ..., **settings: Any) -> EndpointReranker: ...


@pytest.fixture
async def reranker() -> AsyncIterator[Open]:
    """Opens rerankers, and closes them after the test."""
    opened: list[EndpointReranker] = []

    def open_one(url: str, style: Style = "tei", *, pool: PoolSettings = POOL, **settings: Any) -> EndpointReranker:
        settings = {"timeout_s": 5, "model": "ranker", **settings}
        opened.append(EndpointReranker(RerankSettings(reranker="endpoint", base_url=url, style=style, **settings), pool))
        return opened[-1]

    yield open_one
    for each in opened:
        await each.close()


@pytest.fixture(params=["tei", "cohere"])
def server(request: pytest.FixtureRequest) -> Iterator[RerankServer]:
    with RerankServer(request.param) as started:
        yield started


@pytest.fixture
async def remote(server: RerankServer, reranker: Open) -> EndpointReranker:
    return reranker(server.url, server.style)


async def failure(opened: EndpointReranker, passages: list[str] | None = None) -> RaglineError:
    with pytest.raises(RaglineError) as caught:
        await opened.rerank(QUESTION, passages or PASSAGES)
    assert caught.value.hint
    return caught.value


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not happened():  # noqa: ASYNC110 - on the thread of the server
            await asyncio.sleep(0.01)


# What is asked and what comes back


async def test_scores_come_in_the_order_of_the_passages_though_servers_send_the_best_first(
    server: RerankServer, remote: EndpointReranker
) -> None:
    server.scores = dict(zip(PASSAGES, [-3.5, 9.25, 1.0], strict=True))
    scores = await remote.rerank(QUESTION, PASSAGES)
    assert scores.dtype == np.float32 and scores.tolist() == [-3.5, 9.25, 1.0]
    assert (server.asked[0].question, server.asked[0].passages) == (QUESTION, PASSAGES)


async def test_a_tei_server_is_asked_for_raw_scores_and_to_cut_what_is_too_long(reranker: Open) -> None:
    with RerankServer("tei") as server:
        await reranker(server.url).rerank(QUESTION, PASSAGES)
    assert server.asked[0].body == {"query": QUESTION, "texts": PASSAGES, "raw_scores": True, "truncate": True}


async def test_a_cohere_server_is_told_the_model_and_asked_for_all_scores(reranker: Open) -> None:
    passages = [f"passage {n}" for n in range(9)]
    with RerankServer("cohere") as server:
        assert (await reranker(server.url, "cohere").rerank(QUESTION, passages)).shape == (9,)
    assert server.asked[0].body == {"model": "ranker", "query": QUESTION, "documents": passages, "top_n": 9}


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("", "/rerank"),
        ("/", "/rerank"),
        ("/v1", "/v1/rerank"),
        ("/v2/", "/v2/rerank"),
        ("/v2/rerank", "/v2/rerank"),
        ("/rerank/", "/rerank"),
    ],
)
async def test_the_address_is_what_stands_before_rerank(path: str, asked: str, reranker: Open) -> None:
    with RerankServer("cohere") as server:
        await reranker(server.url + path, "cohere").rerank(QUESTION, PASSAGES)
    assert server.requests[0].path == asked


async def test_nothing_to_rerank_asks_nobody(server: RerankServer, remote: EndpointReranker) -> None:
    assert (await remote.rerank(QUESTION, [])).shape == (0,)
    assert not server.requests


async def test_odd_texts_arrive_as_they_are(server: RerankServer, remote: EndpointReranker) -> None:
    passages = ["", 'quote " and \\ and \n', "中文 😀", "\x01\x7f", "x" * 100_000]
    await remote.rerank("Ünïcode?", passages)
    assert (server.asked[0].question, server.asked[0].passages) == ("Ünïcode?", passages)
    assert (await remote.rerank("half a pair: \ud800", ["\udc00"])).shape == (1,)


async def test_the_key_is_sent_as_a_bearer_token(server: RerankServer, reranker: Open) -> None:
    server.key = "s3cret"
    assert (await reranker(server.url, server.style, api_key=SecretStr("s3cret")).rerank(QUESTION, PASSAGES)).shape == (3,)


async def test_requests_share_connections_and_no_more_than_the_pool_has(server: RerankServer, reranker: Open) -> None:
    opened = reranker(server.url, server.style, pool=PoolSettings(min_size=2, max_size=2))
    await asyncio.gather(*(opened.rerank(QUESTION, PASSAGES) for _ in range(12)))
    assert len(server.requests) == 12 and server.connections <= 2
    await opened.close()
    await opened.close()


# Servers that take fewer passages at once


async def test_a_server_that_takes_fewer_gets_halves_and_never_more_again(server: RerankServer, remote: EndpointReranker) -> None:
    server.most = 32
    passages = [f"passage {n}" for n in range(101)]
    server.scores = {passage: float(n) for n, passage in enumerate(passages)}
    assert (await remote.rerank(QUESTION, passages)).tolist() == list(range(101))
    assert len(server.requests) - len(server.asked) == 2  # 101 and 51 were refused; then it knew
    refused = len(server.requests) - len(server.asked)
    assert (await remote.rerank(QUESTION, passages)).tolist() == list(range(101))
    assert len(server.requests) - len(server.asked) == refused
    assert max(len(asked.passages) for asked in server.asked) <= 32


async def test_a_single_passage_that_is_refused_is_an_error_and_teaches_nothing(server: RerankServer, remote: EndpointReranker) -> None:
    server.most = 0
    with pytest.raises(BackendError, match=r"413|422"):
        await remote.rerank(QUESTION, PASSAGES)
    asked = len(server.requests)
    assert asked <= 3
    server.most = 32
    await remote.rerank(QUESTION, PASSAGES)
    assert len(server.requests) == asked + 1


async def test_one_failed_batch_of_many_is_the_error_of_all(server: RerankServer, remote: EndpointReranker) -> None:
    server.most = 2
    passages = [f"passage {n}" for n in range(8)]
    await remote.rerank(QUESTION, passages)
    server.fail_next(slow(0), status(401))
    with pytest.raises(BackendError, match="401"):
        await remote.rerank(QUESTION, passages)


# What goes wrong in passing is tried again


@pytest.mark.parametrize(
    "fault",
    [RESET, GARBAGE, half(3), status(429), status(500), status(503, {"Retry-After": "0"}), status(502)],
    ids=["reset", "no-http", "half", "429", "500", "503", "502"],
)
async def test_a_passing_failure_is_tried_again(fault: Fault, server: RerankServer, remote: EndpointReranker) -> None:
    server.fail_next(fault)
    assert (await remote.rerank(QUESTION, PASSAGES)).shape == (3,)
    assert len(server.requests) == 2


async def test_no_sooner_than_the_server_asked_for(server: RerankServer, remote: EndpointReranker) -> None:
    server.fail_next(status(429, {"Retry-After": "1"}))
    await remote.rerank(QUESTION, PASSAGES)
    first, second = server.requests
    assert second.at - first.at >= 1.0


async def test_a_server_that_asks_for_more_time_than_there_is_is_not_waited_for(server: RerankServer, reranker: Open) -> None:
    server.fail_next(status(429, {"Retry-After": "3600"}))
    opened = reranker(server.url, server.style, timeout_s=60)
    error = await failure(opened)
    assert isinstance(error, OverloadedError) and "429" in error.message
    assert len(server.requests) == 1


async def test_it_gives_up_after_three_attempts_however_much_time_is_left(server: RerankServer, reranker: Open) -> None:
    server.fail_next(*[RESET] * 10)
    error = await failure(reranker(server.url, server.style, timeout_s=3600))
    assert isinstance(error, BackendError) and server.url in error.message
    assert len(server.requests) == 3


# What stays wrong is an error that says so


async def test_a_closed_port_is_an_error_with_the_address(reranker: Open) -> None:
    url = f"http://127.0.0.1:{closed_port()}"
    error = await failure(reranker(url))
    assert isinstance(error, BackendError) and url in error.message and "base_url" in error.hint


@pytest.mark.parametrize("fault", [HANG, half(5, "hang"), slow(30)], ids=["hang", "half-then-hang", "slow"])
async def test_silence_ends_at_the_time_limit_and_the_connection_is_let_go(fault: Fault, server: RerankServer, reranker: Open) -> None:
    server.fail_next(fault)
    started = time.monotonic()
    error = await failure(reranker(server.url, server.style, timeout_s=0.3))
    assert isinstance(error, DeadlineError) and "0.3 s" in error.message and "rerank.timeout_s" in error.hint
    assert time.monotonic() - started < 5
    await until(lambda: server.left == 1)


async def test_cancelling_closes_the_request(server: RerankServer, remote: EndpointReranker) -> None:
    server.fail_next(HANG)
    task = asyncio.create_task(remote.rerank(QUESTION, PASSAGES))
    await until(lambda: bool(server.requests))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: server.left == 1)
    assert (await remote.rerank(QUESTION, PASSAGES)).shape == (3,)


@pytest.mark.parametrize(
    ("code", "cure"), [(401, "api_key"), (403, "api_key"), (404, "base_url"), (424, "reranker"), (400, "style"), (301, "base_url")]
)
async def test_a_refusal_is_not_tried_again_and_names_the_cure(code: int, cure: str, server: RerankServer, reranker: Open) -> None:
    server.fail_next(status(code, {"Location": "http://elsewhere.invalid"}, "no such thing"))
    error = await failure(reranker(server.url, server.style))
    assert isinstance(error, BackendError) and str(code) in error.message and cure in error.hint
    assert code == 301 or "no such thing" in error.message
    assert len(server.requests) == 1


def results(*scored: object) -> dict[Style, Any]:
    """The same reply in both protocols."""
    renamed = [
        {("score" if key == "relevance_score" else key): value for key, value in each.items()} if isinstance(each, dict) else each
        for each in scored
    ]
    return {"tei": renamed, "cohere": {"results": list(scored)}}


def scored(index: object, score: object) -> dict[str, object]:
    return {"index": index, "relevance_score": score}


NONSENSE: dict[str, dict[Style, Any]] = {
    "too few": results(scored(0, 1.0)),
    "none": results(),
    "twice": results(scored(0, 1.0), scored(0, 2.0), scored(1, 1.0), scored(2, 1.0)),
    "out of range": results(scored(0, 1.0), scored(1, 1.0), scored(3, 1.0)),
    "negative": results(scored(0, 1.0), scored(1, 1.0), scored(-1, 1.0)),
    "no number": results(scored(0, 1.0), scored(1, 1.0), scored("2", 1.0)),
    "true": results(scored(0, 1.0), scored(True, 1.0), scored(2, 1.0)),
    "nan": results(scored(0, 1.0), scored(1, float("nan")), scored(2, 1.0)),
    "infinite": results(scored(0, 1.0), scored(1, float("-inf")), scored(2, 1.0)),
    "beyond float32": results(scored(0, 1.0), scored(1, 1e300), scored(2, 1.0)),
    "beyond float": results(scored(0, 1.0), scored(1, 10**400), scored(2, 1.0)),
    "null score": results(scored(0, 1.0), scored(1, None), scored(2, 1.0)),
    "no score": results({"index": 0}, {"index": 1}, {"index": 2}),
    "numbers alone": {"tei": [1, 2, 3], "cohere": {"results": [1, 2, 3]}},
    "another shape": {"tei": {"results": []}, "cohere": []},
    "null": {"tei": None, "cohere": None},
    "text": {"tei": "0", "cohere": {"results": "0"}},
}


@pytest.mark.parametrize("nonsense", NONSENSE)
async def test_a_reply_that_makes_no_sense_is_an_error_that_says_what_to_look_at(
    nonsense: str, server: RerankServer, reranker: Open
) -> None:
    server.fail_next(Fault(reply=Reply.json(NONSENSE[nonsense][server.style])))
    error = await failure(reranker(server.url, server.style))
    assert isinstance(error, BackendError) and "rerank.style" in error.hint
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "reply",
    [
        GARBAGE_BODY.reply,
        Reply(b""),
        Reply(b"\xff\xfe"),
        Reply(b"[" * 100_000),
        Reply(b"no gzip", headers={"content-encoding": "gzip"}),
        Reply(b"", 204),
    ],
    ids=["html", "empty", "no-utf8", "nested", "no-gzip", "204"],
)
async def test_what_is_no_json_is_an_error(reply: Reply, server: RerankServer, reranker: Open) -> None:
    server.fail_next(Fault(reply=reply), Fault(reply=reply), Fault(reply=reply))
    assert isinstance(await failure(reranker(server.url, server.style)), BackendError)


async def test_an_endless_reply_is_cut_off(monkeypatch: pytest.MonkeyPatch, server: RerankServer, reranker: Open) -> None:
    monkeypatch.setattr("ragline.retrieval.reranking.endpoint._MAX_REPLY_BYTES", 1024**2)

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b" " * 65_536

    server.fail_next(Fault(reply=Reply(endless())))
    error = await failure(reranker(server.url, server.style, timeout_s=60))
    assert "longer than 1 MB" in error.message


async def test_the_other_protocol_is_an_error_that_names_the_style(reranker: Open) -> None:
    with RerankServer("cohere") as server:
        assert "style" in (await failure(reranker(server.url, "tei"))).hint
    with RerankServer("tei") as server:
        assert "style" in (await failure(reranker(server.url, "cohere"))).hint


# Settings and secrets


def test_no_address_is_refused_at_once() -> None:
    with pytest.raises(SettingsError, match=r"rerank\.base_url") as caught:
        EndpointReranker(RerankSettings(reranker="endpoint"), PoolSettings())
    assert "http://localhost:8080" in caught.value.hint


async def test_no_secret_is_ever_shown(server: RerankServer, reranker: Open) -> None:
    server.key = "another"
    opened = reranker(f"{server.url}?token=t0ken", server.style, api_key=SecretStr("s3cret-key"))
    error = await failure(opened)  # the imitated server repeats the key it was sent
    shown = f"{error} {error!r} {opened!r} {opened.name} {opened.fingerprint} {opened._client!r} {vars(error)}"
    assert "s3cret-key" not in shown and "t0ken" not in shown


async def test_the_fingerprint_tells_servers_protocols_and_models_apart(reranker: Open) -> None:
    prints = [
        reranker("http://a").fingerprint,
        reranker("http://b").fingerprint,
        reranker("http://a", "cohere").fingerprint,
        reranker("http://a", "cohere", model="other").fingerprint,
    ]
    assert len(set(prints)) == 4
    assert prints[0] == reranker("http://a/", api_key=SecretStr("k"), candidates=5).fingerprint


async def test_a_check_says_that_the_server_answers_or_why_not(server: RerankServer, remote: EndpointReranker) -> None:
    assert server.url in await remote.check()
    server.fail_next(status(401))
    with pytest.raises(BackendError) as caught:
        await remote.check()
    assert "rerank.api_key" in caught.value.hint


async def test_the_setting_opens_it_and_none_opens_nothing(tmp_path: Path, server: RerankServer) -> None:
    workers = Workers("rerank", 1)
    settings = RerankSettings(reranker="endpoint", base_url=server.url, style=server.style)
    opened = await workers.run(open_reranker, settings, PoolSettings(), tmp_path, print, workers=workers)
    assert opened is not None and not opened.is_local and opened.name
    assert (await opened.rerank(QUESTION, PASSAGES)).shape == (3,)
    await opened.close()
    assert open_reranker(RerankSettings(), PoolSettings(), tmp_path, print, workers=workers) is None
    workers.close()
