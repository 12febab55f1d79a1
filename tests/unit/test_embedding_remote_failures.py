"""Each way in which embedding at a server goes wrong, through OpenAI's own client."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import pytest

from ragline.errors import BackendError, DeadlineError, InputError, ModelMismatchError, RaglineError, SettingsError
from ragline.types import Chunk
from tests.imitation.embeddings import EmbeddingsServer, one_vector
from tests.imitation.http import GARBAGE, GARBAGE_BODY, HANG, RESET, Fault, Reply, closed_port, half, slow, status
from tests.opened import at, opened, passages

KEY = "sk-very-secret-0123456789"


@pytest.fixture
def server() -> Iterator[EmbeddingsServer]:
    with EmbeddingsServer() as imitation:
        yield imitation


@pytest.mark.parametrize(
    "fault",
    [RESET, GARBAGE, slow(0.2), half(30), status(500), status(502), status(503), status(408), status(424), status(429)],
    ids=["reset", "not HTTP", "slow", "half a reply", "500", "502", "503", "408", "424", "429"],
)
async def test_what_fails_once_in_passing_is_tried_again(server: EmbeddingsServer, fault: Fault) -> None:
    async with at(server) as embedder:
        expected = await embedder.embed_questions(["keys"])
        server.fail_next(fault)
        np.testing.assert_array_equal(await embedder.embed_questions(["keys"]), expected)
        server.fail_next(fault)
        np.testing.assert_array_equal(await embedder.embed_passages([Chunk("keys", 0, 4)]), expected)


async def test_a_server_that_hangs_is_given_up_and_asked_again(server: EmbeddingsServer) -> None:
    async with at(server, timeout_s=0.3) as embedder:
        server.fail_next(HANG)
        assert (await embedder.embed_passages(passages(1))).shape == (1, 64)
        server.fail_next(half(30, then="hang"))
        assert (await embedder.embed_passages(passages(1))).shape == (1, 64)


@pytest.mark.parametrize("questions", [True, False])
async def test_a_server_that_hangs_for_ever_ends_in_a_deadline_error(server: EmbeddingsServer, questions: bool) -> None:
    async with at(server, timeout_s=0.2, retry_s=0.5) as embedder:
        server.fail_next(*[HANG] * 20)
        with pytest.raises(DeadlineError, match="did not answer within") as raised:
            await (embedder.embed_questions(["?"]) if questions else embedder.embed_passages(passages(1)))
        assert server.base_url in raised.value.message and "timeout_s" in raised.value.hint


async def test_a_server_that_drips_is_bounded_by_the_whole_time_of_a_request(server: EmbeddingsServer) -> None:
    async def drip() -> AsyncIterator[bytes]:
        while True:
            yield b" "
            await asyncio.sleep(0.02)

    async with at(server, timeout_s=0.3, retry_s=0.3) as embedder:
        server.fail_next(*[Fault(reply=Reply(drip()))] * 3)
        with pytest.raises(DeadlineError):
            await embedder.embed_questions(["?"])


@pytest.mark.parametrize("kind", ["refused", "no such host"])
async def test_a_server_that_is_not_there_is_an_error_that_names_the_address(kind: str) -> None:
    address = f"http://127.0.0.1:{closed_port()}/v1" if kind == "refused" else "http://nowhere.invalid/v1"
    with pytest.raises(BackendError, match="cannot be reached") as raised:
        async with opened(Path("unused"), runtime="openai", model="m", base_url=address, retry_s=0.2, timeout_s=2):
            pass
    assert address in raised.value.message and "embedding.base_url" in raised.value.hint


async def test_a_question_gives_up_soon_where_the_server_is_down(server: EmbeddingsServer) -> None:
    async with at(server, retry_s=3600, timeout_s=3600) as embedder:
        server.fail_next(*[RESET] * 10)
        with pytest.raises(BackendError):
            await embedder.embed_questions(["?"])
        assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("status_code", "expected", "cure"),
    [
        (400, InputError, "chunking.max_tokens"),
        (401, SettingsError, "RAGLINE_EMBEDDING__API_KEY"),
        (403, SettingsError, "RAGLINE_EMBEDDING__API_KEY"),
        (404, SettingsError, "embedding.model"),
        (413, InputError, "embedding.max_tokens"),
        (422, InputError, "embedding.max_tokens"),
        (501, BackendError, "ragline doctor"),
    ],
)
async def test_what_trying_again_cannot_help_is_raised_at_once_with_its_cure(
    server: EmbeddingsServer, status_code: int, expected: type[RaglineError], cure: str
) -> None:
    async with at(server) as embedder:
        server.fail_next(status(status_code, message="as the server says"))
        with pytest.raises(expected, match="as the server says") as raised:
            await embedder.embed_questions(["keys"])
        assert cure in raised.value.hint and server.base_url in raised.value.message
        assert len(server.requests) == 1
        assert raised.value.__cause__ is not None


async def test_a_redirect_is_not_followed_with_the_texts(server: EmbeddingsServer) -> None:
    async with at(server) as embedder:
        server.fail_next(Fault(reply=Reply(b"", 308, {"location": "https://elsewhere.example/v1/embeddings"})))
        with pytest.raises(SettingsError, match="sends on to https://elsewhere"):
            await embedder.embed_questions(["keys"])


async def test_a_wrong_key_and_a_wrong_model_are_errors_when_it_is_opened() -> None:
    with EmbeddingsServer(key=KEY) as server:
        with pytest.raises(SettingsError, match=r"wants a key, and embedding\.api_key is not set"):
            async with at(server):
                pass
        with pytest.raises(SettingsError, match=r"refuses embedding\.api_key"):
            async with at(server, api_key="sk-wrong"):
                pass
        with pytest.raises(SettingsError, match="no model 'other'"):
            async with at(server, api_key=KEY, model="other"):
                pass
        with pytest.raises(SettingsError, match="Not Found"):
            async with at(server, api_key=KEY, base_url=server.url):
                pass


async def test_no_proxy_leads_to_this_machine(server: EmbeddingsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{closed_port()}")
    async with at(server) as embedder:
        assert (await embedder.embed_questions(["keys"])).shape == (1, 64)


async def test_the_key_is_in_no_message_repr_or_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)  # below it, the HTTP client shows whatever a server sends
    with EmbeddingsServer() as server:
        async with at(server, api_key=KEY) as embedder:
            faults = [status(code, message=f"no: Bearer {KEY}") for code in (400, 401, 404, 501)]
            echo = Fault(reply=Reply(f"<html>{KEY}".encode(), 200))
            for fault in (*faults, echo, Fault(reply=Reply(b"", 302, {"location": f"http://x/?key={KEY}"}))):
                server.fail_next(fault)
                with pytest.raises(RaglineError) as raised:
                    await embedder.embed_questions(["keys"])
                assert KEY not in f"{raised.value}{raised.value!r}{raised.value.to_dict()}"
                assert KEY not in "".join(traceback.format_exception(raised.value))
            assert KEY not in f"{embedder!r}{dict(embedder.description)}{embedder.fingerprint}{vars(embedder)}"
    assert KEY not in caplog.text


async def test_what_stands_in_the_query_of_an_address_is_sent_but_not_shown(server: EmbeddingsServer) -> None:
    async with at(server, base_url=f"{server.base_url}/?code=hidden") as embedder:
        server.fail_next(status(404))
        with pytest.raises(SettingsError) as raised:
            await embedder.embed_questions(["keys"])
        assert server.requests[0].path == "/v1/embeddings?code=hidden"
        assert "hidden" not in f"{raised.value}{dict(embedder.description)}" and embedder.description["base_url"] == server.base_url


@pytest.mark.parametrize(
    "reply",
    [
        GARBAGE_BODY.reply,
        Reply(b""),
        Reply(b"[" * 100_000),
        Reply.json({"data": []}),
        Reply.json({"data": None}),
        Reply.json([]),
        Reply.json({"error": "in a reply of 200"}),
        one_vector([1.0] * 64, index=1),
        one_vector([1.0] * 64, index="0"),
        one_vector([]),
        one_vector([[1.0] * 64]),
        one_vector([0.0] * 64),
        one_vector([float("nan")] + [1.0] * 63),
        one_vector([1e300] + [1.0] * 63),
        one_vector("not base64!"),
        one_vector("AAAA"),
        Reply.json({"data": [{"index": 0, "embedding": [1.0] * 64}] * 2}),
        Reply.json({"data": [{"index": 0, "embedding": [None] * 64}]}),
        Reply.json({"data": [{"index": 0, "embedding": ["x"] * 64}]}),
        Reply.json({"data": [{"index": 0, "embedding": {"0": 1}}]}),
        Reply.json({"data": [{"index": 0}]}),
    ],
)
async def test_a_reply_that_is_not_a_vector_for_each_text_is_never_used(server: EmbeddingsServer, reply: Reply) -> None:
    async with at(server) as embedder:
        server.fail_next(Fault(reply=reply))
        with pytest.raises(BackendError, match=f"the embedding server at {server.base_url} gave ") as raised:
            await embedder.embed_questions(["keys"])
        assert len(server.requests) == 1 and len(raised.value.message) < 500


async def test_vectors_of_another_length_than_before_are_never_used(server: EmbeddingsServer) -> None:
    async with at(server) as embedder:
        server.become(32)
        with pytest.raises(ModelMismatchError, match="32 numbers"):
            await embedder.embed_questions(["keys"])
