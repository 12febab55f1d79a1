"""What official clients would read of the environment by themselves does not reach servers that the settings name."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable

import pytest

from ragline.concurrency.retries import Retries
from ragline.concurrency.workers import Workers
from ragline.embedding.openai_server import EmbeddingServer
from ragline.errors import RaglineError
from ragline.generation.opening import open_chat_model
from ragline.retrieval.reranking.endpoint import EndpointReranker
from ragline.settings import EmbeddingSettings, GenerationSettings, PoolSettings, RerankSettings
from tests.imitation.http import ImitationServer, Reply, Request

AMBIENT = {
    "OPENAI_API_KEY": "ambient-key",
    "OPENAI_ADMIN_KEY": "ambient-admin",
    "OPENAI_BASE_URL": "http://127.0.0.1:1/ambient",
    "OPENAI_ORG_ID": "ambient-organization",
    "OPENAI_PROJECT_ID": "ambient-project",
    "OPENAI_CUSTOM_HEADERS": "X-Secret: ambient-header\nAuthorization: Bearer ambient-header",
    "OLLAMA_API_KEY": "ambient-ollama",
    "OLLAMA_HOST": "http://127.0.0.1:1/ambient",
    "COHERE_API_KEY": "ambient-cohere",
    "HF_TOKEN": "ambient-hub",
}


async def chat(generator: str, url: str, key: str | None) -> None:
    settings = GenerationSettings.model_validate({"generator": generator, "model": "m", "base_url": url, "api_key": key})
    model = open_chat_model(settings, PoolSettings())
    try:
        await model.reachable()
    finally:
        await model.close()


async def openai_chat(url: str, key: str | None) -> None:
    await chat("openai", f"{url}/v1", key)


async def ollama_chat(url: str, key: str | None) -> None:
    await chat("ollama", url, key)


async def embedding(url: str, key: str | None) -> None:
    settings = EmbeddingSettings.model_validate({"runtime": "openai", "model": "m", "base_url": f"{url}/v1", "api_key": key})
    workers = Workers("test", 1)
    server = EmbeddingServer(settings, PoolSettings())
    try:
        await server.embed(["x"], 1, Retries(1.0), workers, patient=False)
    finally:
        await server.close()
        workers.close()


async def rerank(url: str, key: str | None) -> None:
    reranker = EndpointReranker(RerankSettings.model_validate({"reranker": "endpoint", "base_url": url, "api_key": key}), PoolSettings())
    try:
        await reranker.check()
    finally:
        await reranker.close()


@pytest.mark.parametrize("client", [openai_chat, ollama_chat, embedding, rerank])
@pytest.mark.parametrize("key", [None, "sk-mine"])
async def test_nothing_of_the_environment_is_sent(
    client: Callable[[str, str | None], Awaitable[None]], key: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in AMBIENT.items():
        monkeypatch.setenv(name, value)

    async def handle(request: Request) -> Reply:
        return Reply.json({"object": "list", "data": [], "models": []})

    with ImitationServer(handle) as server:
        with contextlib.suppress(RaglineError):  # the reply says nothing; the request is what matters
            await client(server.url, key)
        assert server.requests, "nothing was asked"
        for request in server.requests:
            assert "ambient" not in str(request)
            assert request.headers.get("authorization") == (None if key is None else "Bearer sk-mine")
