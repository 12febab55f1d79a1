"""Embedding at a server through OpenAI's own client: batches, order, limits, the same model again."""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragline.embedding.openai import OpenAIEmbedder
from ragline.embedding.opening import followed
from ragline.errors import BackendError, InputError, ModelMismatchError, SettingsError
from ragline.settings import EmbeddingSettings, PoolSettings
from ragline.types import Chunk
from tests.imitation.embeddings import EmbeddingsServer
from tests.imitation.http import HANG, Fault, Reply, closed_port, status
from tests.opened import at, opened, passages, until

KEY = "sk-very-secret-0123456789"


@pytest.fixture
def server() -> Iterator[EmbeddingsServer]:
    with EmbeddingsServer() as imitation:
        yield imitation


async def test_it_asks_once_when_opened_and_then_knows_the_length_of_its_vectors(server: EmbeddingsServer) -> None:
    async with at(server, asked=True) as embedder:
        assert embedder.dimension == 64 and not embedder.is_local
        assert len(server.requests) == 1
        assert embedder.name == "hash-embed" and embedder.max_tokens == 512


async def test_what_it_sends_is_openais_protocol_and_says_no_more_than_it_must(
    server: EmbeddingsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, "from-the-environment")
    async with at(server) as embedder:
        await embedder.embed_questions(["how do we rotate keys?"])
        (request,) = server.requests
        assert request.path == "/v1/embeddings"
        assert request.json() == {"model": "hash-embed", "input": ["how do we rotate keys?"], "encoding_format": "base64"}
        assert "authorization" not in request.headers
        assert not any("from-the-environment" in value for value in request.headers.values())
    async with at(server, api_key=KEY) as embedder:
        await embedder.embed_questions(["?"])
        assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"


async def test_prefixes_go_before_questions_and_passages(server: EmbeddingsServer) -> None:
    async with at(server, question_prefix="query: ", passage_prefix="passage: ") as embedder:
        await embedder.embed_questions(["keys"])
        await embedder.embed_passages([Chunk("keys", 0, 4, heading="Safety")])
        assert server.inputs == [["query: keys"], ["passage: Safety\nkeys"]]
    async with at(server) as plain:
        assert plain.fingerprint != embedder.fingerprint


async def test_a_batch_ends_at_its_texts_or_its_tokens_and_holds_texts_about_as_long(server: EmbeddingsServer) -> None:
    chunks = [passages(1, words)[0] for words in range(1, 61)]
    async with at(server, batch_texts=8, batch_tokens=400, parallel_requests=1) as embedder:
        vectors = await embedder.embed_passages(chunks[::2] + chunks[1::2])
        np.testing.assert_array_equal(
            vectors, np.concatenate([await embedder.embed_questions([chunk.text]) for chunk in chunks[::2] + chunks[1::2]])
        )
        batches = server.inputs[: -len(chunks)]
        assert max(map(len, batches)) == 8 and len(batches) < 20
        assert all(sum(embedder.tokenizer.count(text) + 2 for text in batch) <= 400 for batch in batches)  # type: ignore[attr-defined]
        lengths = [[len(text) for text in batch] for batch in batches]
        assert all(min(before) >= max(after) for before, after in itertools.pairwise(lengths))


async def test_passages_go_in_parallel_up_to_the_setting_and_the_connections(server: EmbeddingsServer) -> None:
    server.latency_s = 0.02
    async with at(server, batch_texts=1, parallel_requests=3) as embedder:
        await embedder.embed_passages(passages(12))
        assert server.at_once == 3
    async with at(server, batch_texts=1, parallel_requests=64, pool=PoolSettings(max_size=6)) as embedder:
        await embedder.embed_passages(passages(12))
        assert server.at_once == 3, "half of so few connections are kept for questions"


async def test_a_question_does_not_wait_behind_an_ingest(server: EmbeddingsServer) -> None:
    async with at(server, batch_texts=1, parallel_requests=2) as embedder:
        server.latency_s = 0.05
        ingest = asyncio.create_task(embedder.embed_passages(passages(40)))
        await until(lambda: len(server.bodies) >= 2)
        await embedder.embed_questions(["now?"])
        assert not ingest.done() and len(server.inputs) < 20
        await ingest


async def test_vectors_in_another_order_are_put_in_order(server: EmbeddingsServer) -> None:
    async with at(server) as embedder:
        expected = await embedder.embed_passages(passages(9))
        server.shuffled = True
        np.testing.assert_array_equal(await embedder.embed_passages(passages(9)), expected)


async def test_a_server_that_refuses_base64_is_asked_for_plain_numbers_from_then_on() -> None:
    with EmbeddingsServer(base64="refuses") as server:
        async with at(server, asked=True) as embedder:
            await embedder.embed_questions(["keys"])
            await embedder.embed_questions(["keys"])
            assert [body["encoding_format"] for body in server.bodies] == ["base64", "float", "base64", "float", "float"]


@pytest.mark.parametrize("dimensions", ["takes", "ignores", "refuses"])
async def test_shorter_vectors_come_from_the_server_or_are_cut_here(dimensions: Any) -> None:
    with EmbeddingsServer(dimensions=dimensions, scale=3.0) as server:
        async with at(server) as whole, at(server, dimension=16) as short:
            assert short.dimension == 16 and short.fingerprint != whole.fingerprint
            server.bodies.clear()
            vectors = await short.embed_passages(passages(3))
            kept = (await whole.embed_passages(passages(3)))[:, :16]
            np.testing.assert_allclose(vectors, kept / np.linalg.norm(kept, axis=1, keepdims=True), atol=1e-6)
            assert server.bodies[0].get("dimensions") == 16


async def test_more_numbers_than_the_model_has_is_an_error_that_names_the_setting() -> None:
    with (
        EmbeddingsServer(dimensions="ignores") as server,
        pytest.raises(BackendError, match=r"64 numbers, and embedding\.dimension is 128"),
    ):
        async with at(server, dimension=128):
            pass


# -- too much at once -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("refused_with", [400, 413, 422])
async def test_a_batch_too_large_is_sent_in_halves_and_that_is_remembered(refused_with: int) -> None:
    with EmbeddingsServer(most_texts=5, too_many_status=refused_with) as server:
        async with at(server, batch_texts=16, parallel_requests=1) as embedder:
            vectors = await embedder.embed_passages(passages(32))
            assert all(len(texts) <= 5 for texts in server.inputs) and sum(map(len, server.inputs)) == 32
            np.testing.assert_array_equal(vectors[7:8], await embedder.embed_questions([passages(32)[7].text]))
            server.bodies.clear()
            await embedder.embed_passages(passages(32))
            assert {len(body["input"]) for body in server.bodies} == {4}, "it sends too much again, or less than is taken"
            await embedder.embed_questions([f"key {place}?" for place in range(6)])
            server.bodies.clear()
            await embedder.embed_passages(passages(8))
            assert {len(body["input"]) for body in server.bodies} == {4}, "a question made later batches smaller"


async def test_a_text_too_long_for_the_server_is_an_error_that_names_both_settings() -> None:
    with EmbeddingsServer(max_tokens=50) as server:
        async with at(server, batch_texts=16) as embedder:
            with pytest.raises(InputError, match="maximum context length is 50") as raised:
                await embedder.embed_passages([*passages(20), *passages(1, 100)])
            assert "embedding.max_tokens" in raised.value.hint and "chunking.max_tokens" in raised.value.hint
            server.inputs.clear()
            await embedder.embed_passages(passages(16))
            assert len(server.inputs) == 1, "one text too long is no reason for smaller batches"


async def test_llama_cpps_500_for_a_text_too_long_is_not_tried_again(server: EmbeddingsServer) -> None:
    async with at(server) as embedder:
        server.fail_next(status(500, message="input (600 tokens) is too large to process. increase the physical batch size"))
        with pytest.raises(InputError, match="too large to process"):
            await embedder.embed_questions(["keys"])
        assert len(server.requests) == 1


async def test_a_chunk_beyond_the_window_is_refused_before_anything_is_sent(server: EmbeddingsServer) -> None:
    async with at(server, max_tokens=64) as embedder:
        with pytest.raises(InputError, match=r"embedding\.max_tokens, 64"):
            await embedder.embed_passages([*passages(3), *passages(1, 100)])
        assert server.requests == []


async def test_lone_surrogates_are_an_error_before_anything_is_sent(server: EmbeddingsServer) -> None:
    async with at(server) as embedder:
        with pytest.raises(InputError, match="surrogates"):
            await embedder.embed_questions(["key \ud800"])
        assert server.requests == []


# -- rate limits ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["seconds", "milliseconds", "date"])
async def test_retry_after_is_waited_for(server: EmbeddingsServer, form: str) -> None:
    wait_s = 1.0
    now = datetime.now(UTC).replace(microsecond=0)
    headers = {
        "seconds": {"Retry-After": "1"},
        "milliseconds": {"Retry-After-Ms": "1000"},
        "date": {"Date": format_datetime(now, usegmt=True), "Retry-After": format_datetime(now + timedelta(seconds=1), usegmt=True)},
    }[form]
    async with at(server) as embedder:
        server.fail_next(status(429, headers))
        await embedder.embed_questions(["keys"])
        first, second = server.requests
        assert second.at - first.at >= wait_s


async def test_told_to_come_back_later_than_there_is_time_it_gives_up_at_once(server: EmbeddingsServer) -> None:
    async with at(server, retry_s=5, timeout_s=5) as embedder:
        server.fail_next(status(429, {"Retry-After": "3600"}, "slow down"))
        started = time.monotonic()
        with pytest.raises(BackendError, match=r"rate limit is used up \(slow down") as raised:
            await embedder.embed_questions(["keys"])
        assert len(server.requests) == 1 and time.monotonic() - started < 4
        assert "retry_s" in raised.value.hint


async def test_an_account_without_money_is_not_asked_again(server: EmbeddingsServer) -> None:
    body = {"error": {"message": "You exceeded your current quota", "type": "insufficient_quota", "code": "insufficient_quota"}}
    async with at(server) as embedder:
        server.fail_next(Fault(reply=Reply.json(body, 429)))
        with pytest.raises(BackendError, match="exceeded your current quota") as raised:
            await embedder.embed_questions(["keys"])
        assert len(server.requests) == 1 and "billing" in raised.value.hint


async def test_it_slows_down_before_the_rate_limit_and_never_runs_into_it() -> None:
    with EmbeddingsServer(requests_per_window=4, window_s=0.4) as server:
        async with at(server, batch_texts=1, parallel_requests=3) as embedder:
            await embedder.embed_passages(passages(10))
            assert len(server.requests) == len(server.inputs) == 10, "a request was refused"


async def test_told_to_come_back_later_every_passage_waits() -> None:
    with EmbeddingsServer() as server:
        async with at(server, batch_texts=1, parallel_requests=1) as embedder:
            server.fail_next(status(429, {"Retry-After-Ms": "400"}))
            both = await asyncio.gather(embedder.embed_passages(passages(1)), embedder.embed_passages(passages(1)))
            assert len(both) == 2
            first, *others = server.requests
            assert min(other.at for other in others) - first.at >= 0.4


# -- the same model again ---------------------------------------------------------------------------------------------


async def test_opened_for_a_collection_it_asks_nothing_and_is_the_same(server: EmbeddingsServer) -> None:
    async with at(server, asked=True) as embedder:
        description, fingerprint = dict(embedder.description), embedder.fingerprint
    settings = followed(EmbeddingSettings(base_url=f"http://127.0.0.1:{closed_port()}/v1", timeout_s=1), description)
    async with opened(Path("unused"), settings) as again:
        assert (again.fingerprint, again.dimension, again.name) == (fingerprint, 64, "hash-embed")
        assert {**again.description, "base_url": ""} == {**description, "base_url": ""}
        with pytest.raises(BackendError, match="cannot be reached"):
            await again.embed_questions(["keys"])


async def test_another_model_under_the_same_name_is_noticed_on_first_use(server: EmbeddingsServer) -> None:
    async with at(server) as embedder:
        description = dict(embedder.description)
    settings = followed(EmbeddingSettings(base_url=server.base_url), description)
    async with opened(Path("unused"), settings) as same:
        await same.embed_questions(["keys"])
        assert len(server.requests) == 2, "the probe goes beside the first question"
        await same.embed_questions(["keys"])
        assert len(server.requests) == 3
    server.become(64, flavour=" quite another model")
    for use in ("questions", "passages", "check"):
        async with opened(Path("unused"), settings) as other:
            assert isinstance(other, OpenAIEmbedder)
            with pytest.raises(ModelMismatchError, match="other vectors for 'hash-embed'") as raised:
                if use == "questions":
                    await other.embed_questions(["keys"])
                elif use == "passages":
                    await other.embed_passages(passages(2))
                else:
                    await other.check()
            assert "reindex" in raised.value.hint


async def test_check_says_nothing_where_all_is_well_and_raises_what_is_wrong(server: EmbeddingsServer) -> None:
    async with at(server) as embedder:
        await embedder.check()
        server.fail_next(*[status(401)] * 3)
        with pytest.raises(SettingsError):
            await embedder.check()


# -- coming and going -------------------------------------------------------------------------------------------------


async def test_cancelling_closes_the_connection(server: EmbeddingsServer) -> None:
    async with at(server) as embedder:
        for embed in (embedder.embed_passages(passages(3)), embedder.embed_questions(["?"])):
            left = server.left
            server.fail_next(HANG)
            task = asyncio.create_task(embed)
            await until(lambda: len(server.requests) == 1)
            server.requests.clear()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda left=left: server.left == left + 1)  # type: ignore[misc]
        assert (await embedder.embed_questions(["again"])).shape == (1, 64)


async def test_one_batch_that_fails_ends_the_others(server: EmbeddingsServer) -> None:
    async with at(server, batch_texts=1, parallel_requests=2) as embedder:
        server.fail_next(HANG, status(401))
        with pytest.raises(SettingsError):
            await asyncio.wait_for(embedder.embed_passages(passages(50)), 4)
        assert len(server.requests) <= 3


async def test_connections_are_used_again(server: EmbeddingsServer) -> None:
    async with at(server) as embedder:
        before = server.connections
        for _ in range(5):
            await embedder.embed_questions(["keys"])
        assert server.connections == before + 1


async def test_idle_connections_are_not_kept_where_none_is_to_stay_open(server: EmbeddingsServer) -> None:
    async with at(server, pool=PoolSettings(min_size=0)) as embedder:
        before = server.connections
        for _ in range(3):
            await embedder.embed_questions(["keys"])
        assert server.connections == before + 3


async def test_closed_it_says_so(server: EmbeddingsServer) -> None:
    async with at(server) as embedder:
        await embedder.close()
        with pytest.raises(BackendError, match="is closed"):
            await embedder.embed_questions(["?"])


async def test_the_loop_goes_on_while_replies_are_read() -> None:
    with EmbeddingsServer(dimension=1024, base64="ignores") as server:
        async with at(server, batch_texts=256) as embedder:
            ticks = 0

            async def tick() -> None:
                nonlocal ticks
                while True:
                    await asyncio.sleep(0)
                    ticks += 1

            ticking = asyncio.create_task(tick())
            await embedder.embed_passages(passages(256))
            ticking.cancel()
            assert ticks > 50


def test_nothing_of_the_client_is_imported_before_it_is_needed() -> None:
    code = """import sys, ragline.embedding.opening, ragline.embedding.openai
print(not {'openai', 'httpx2', 'torch'} & set(sys.modules))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.strip() == "True"
