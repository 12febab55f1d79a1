"""Connections to language model servers: left, given back, bounded; and what keys travel on them."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing

import pytest

from ragline.concurrency.workers import Workers
from ragline.errors import BackendError, NotFoundError, RaglineError, SettingsError
from ragline.generation.chat import ChatGenerator
from ragline.generation.opening import open_chat_model
from ragline.settings import PoolSettings
from tests.chat_models import QUESTION, answer_of, evidence, failed, open_chat, pieces_of, settings_for
from tests.imitation.chat import MODEL, ChatServer, Script
from tests.imitation.http import GARBAGE, GARBAGE_BODY, HANG, RESET, Fault, status

KEY = "sk-very-secret-0123456789"
ANSWER = Script(["Keys rotate", " every ninety days [1]", "."])


@pytest.fixture(params=["openai", "ollama"])
def server(request: pytest.FixtureRequest) -> Iterator[ChatServer]:
    with ChatServer(request.param, ANSWER) as opened:
        yield opened


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ragline.generation.chat._FIRST_WAIT_S", 0.01)


@pytest.fixture
def workers() -> Iterator[Workers]:
    pool = Workers("generate", 2)
    yield pool
    pool.close()


@pytest.fixture
async def generator(server: ChatServer, workers: Workers) -> AsyncIterator[ChatGenerator]:
    opened = open_chat(server, workers)
    yield opened
    await opened.close()


async def test_leaving_an_answer_closes_the_upstream_connection(server: ChatServer, generator: ChatGenerator) -> None:
    server.script = Script(["Keys", 30.0, "never"])
    async with aclosing(generator.generate(QUESTION, evidence())) as told:  # type: ignore[type-var]
        assert await anext(told) == "Keys"
        assert server.left == 0
    assert server.wait_until_left(1)


@pytest.mark.parametrize("script", [Script([30.0, "never"]), Script(["Keys", 30.0, "never"])], ids=["before", "after the first token"])
async def test_cancelling_closes_the_upstream_connection(server: ChatServer, generator: ChatGenerator, script: Script) -> None:
    server.script = script
    task = asyncio.create_task(pieces_of(generator))
    await asyncio.sleep(0.3)  # in which the answer begins
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(server.wait_until_left, 1)
    gc.collect()


async def test_a_connection_is_used_again_after_an_answer(server: ChatServer, generator: ChatGenerator) -> None:
    for _ in range(3):
        await answer_of(generator)
    assert server.connections == 1


async def test_a_server_that_does_not_hang_up_after_its_answer_is_not_waited_for(server: ChatServer, generator: ChatGenerator) -> None:
    server.script = Script(ANSWER.pieces, done=False, silent_end=True)
    async with asyncio.timeout(5):
        assert (await answer_of(generator)).degraded == ()
    assert server.wait_until_left(1)


async def test_no_more_connections_are_made_than_the_pool_may_have(server: ChatServer, workers: Workers) -> None:
    opened = open_chat(server, workers, pool=PoolSettings(min_size=0, max_size=2))
    server.script = Script([0.02, *ANSWER.pieces])
    answers = await asyncio.gather(*(answer_of(opened) for _ in range(8)))
    assert {answer.text for answer in answers} == {"Keys rotate every ninety days [1]."}
    assert len(server.asked) == 8
    starts = sorted(request.at for request in server.requests)
    assert starts[2] - starts[0] >= 0.02 and starts[7] - starts[0] >= 0.06  # by twos
    await opened.close()


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # asyncio drops a socket that is cancelled while it connects
async def test_cancelled_requests_give_their_connections_back(server: ChatServer, workers: Workers) -> None:
    opened = open_chat(server, workers, pool=PoolSettings(min_size=1, max_size=2), fallback=False, first_token_timeout_s=5.0)
    draw = random.Random(1)

    async def leave() -> None:
        task = asyncio.create_task(answer_of(opened))
        await asyncio.sleep(draw.random() * 0.05)
        task.cancel()
        await asyncio.wait([task])

    for _ in range(4):
        await asyncio.gather(*(leave() for _ in range(20)))
    assert (await answer_of(opened)).degraded == ()
    await opened.close()
    gc.collect()


async def test_a_closed_generator_says_so(generator: ChatGenerator) -> None:
    await generator.close()
    with pytest.raises(BackendError, match="closed"):
        await answer_of(generator)


async def test_an_answer_that_is_under_way_when_its_generator_is_closed_says_so(server: ChatServer, generator: ChatGenerator) -> None:
    server.script = Script(["Keys", 30.0, "never"])
    async with aclosing(generator.generate(QUESTION, evidence())) as told:  # type: ignore[type-var]
        assert await anext(told) == "Keys"
        async with asyncio.TaskGroup() as group:
            group.create_task(generator.close())
            with pytest.raises(BackendError, match="engine was closed"):
                await anext(told)


async def test_the_key_is_sent_and_never_told(server: ChatServer, workers: Workers, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    server.key = KEY
    opened = open_chat(server, workers, api_key=KEY)
    assert (await answer_of(opened)).degraded == ()
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"
    said = [repr(opened), repr(vars(opened)), opened.fingerprint, str(open_chat_model(settings_for(server, api_key=KEY), PoolSettings()))]
    for code in (400, 401, 403, 404, 429, 500):
        server.fail_next(*[status(code, message=f"bad key {KEY}, indeed {KEY}")] * (3 if code in (429, 500) else 1))
        error: BaseException | None = await failed(server, workers, api_key=KEY)
        said += [str(error), repr(error)]
        while error is not None:
            assert KEY not in str(error)
            error = error.__cause__
    server.fail_next(status(401, message=KEY))
    await answer_of(opened)
    assert KEY not in "\n".join(said) + caplog.text
    await opened.close()


async def test_keys_of_the_environment_go_nowhere(server: ChatServer, workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OLLAMA_API_KEY"):
        monkeypatch.setenv(name, KEY)
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", f"Authorization: Bearer {KEY}\nX-Key: {KEY}")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("OLLAMA_HOST", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    opened = open_chat(server, workers)
    assert (await answer_of(opened)).degraded == ()
    await opened.check()
    for request in server.requests:
        assert KEY not in str(request.headers) and "authorization" not in request.headers
    await opened.close()


async def test_a_failure_that_is_quoted_for_is_logged_with_its_cure(
    server: ChatServer, generator: ChatGenerator, caplog: pytest.LogCaptureFixture
) -> None:
    server.fail_next(status(404, message="no such model"))
    await answer_of(generator)
    (record,) = [record for record in caplog.records if record.name == "ragline.generation"]
    assert record.levelname == "WARNING" and "no such model" in record.message and "Hint:" in record.message


async def test_a_server_that_answers_and_has_the_model_is_reachable(server: ChatServer, generator: ChatGenerator) -> None:
    await generator.check()
    assert not server.asked


async def test_a_model_that_is_not_there_is_named_with_its_cure(server: ChatServer, workers: Workers) -> None:
    opened = open_chat(server, workers, model="llama3.2")
    with pytest.raises(NotFoundError) as caught:
        await opened.check()
    assert "llama3.2" in caught.value.message
    assert ("`ollama pull llama3.2`" if server.protocol == "ollama" else MODEL) in caught.value.hint
    await opened.close()


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (RESET, BackendError),
        (GARBAGE, BackendError),
        (GARBAGE_BODY, BackendError),
        (status(500), BackendError),
        (status(401), SettingsError),
    ],
)
async def test_a_server_in_trouble_is_not_reachable(
    server: ChatServer, generator: ChatGenerator, fault: Fault, error: type[RaglineError]
) -> None:
    server.fail_next(fault)
    with pytest.raises(error):
        await generator.check()


async def test_a_server_that_hangs_is_not_reachable_after_a_while(
    server: ChatServer, generator: ChatGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"ragline.generation.{server.protocol}.REACHABLE_TIMEOUT_S", 0.1)
    server.fail_next(HANG)
    with pytest.raises(BackendError, match=r"no answer within 0\.1 s"):
        await generator.check()
