"""OpenAI's own clients, unchanged, against a server that quotes."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import openai
import pytest

from ragline.types import Document
from tests.embedders import HashEmbedder
from tests.server.live import Live, live

KEYS = "The vault keys rotate every ninety days. The night warden rotates them by hand."
FERRY = "The ferry leaves at noon."
QUESTION = "How often do the vault keys rotate?"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live(tmp_path_factory.mktemp("openai")) as running:

        async def filled(engine: Any) -> None:
            await engine.ingest(Document(KEYS, id="keys", source="https://harbour.example/keys", metadata={"lang": "en"}))
            await engine.ingest(Document(FERRY, id="ferry"), collection="boats")

        running.run(filled)
        yield running


@pytest.fixture
def client(server: Live) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as opened:
        yield opened


def said(question: str = QUESTION) -> list[Any]:
    return [{"role": "user", "content": question}]


def test_a_chat_is_answered_from_documents_with_citations(client: openai.OpenAI) -> None:
    made = client.chat.completions.create(model="ragline", messages=said())
    (choice,) = made.choices
    assert (made.object, made.model, choice.index, choice.finish_reason) == ("chat.completion", "ragline", 0, "stop")
    assert choice.message.role == "assistant" and choice.message.content == "The vault keys rotate every ninety days. [1]"
    (citation,) = choice.message.citations  # type: ignore[attr-defined]
    assert citation["document_id"] == "keys" and KEYS[citation["start"] : citation["end"]] == citation["quote"]
    assert choice.message.annotations is not None
    (annotation,) = choice.message.annotations
    cited = annotation.url_citation
    assert cited.url == "https://harbour.example/keys" and choice.message.content[cited.start_index : cited.end_index] == "[1]"
    assert made.usage is not None and made.usage.total_tokens == made.usage.prompt_tokens + made.usage.completion_tokens > 10
    details = made.ragline  # type: ignore[attr-defined]
    assert details["found"] and details["degraded"] == [] and details["lsn"] > 0


def test_a_stream_has_the_role_first_then_text_then_why_it_ended(client: openai.OpenAI) -> None:
    chunks = list(client.chat.completions.create(model="ragline", messages=said(), stream=True))
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert (deltas[0].role, deltas[0].content) == ("assistant", "")
    assert "".join(delta.content or "" for delta in deltas) == "The vault keys rotate every ninety days. [1]"
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert [each["document_id"] for each in deltas[-1].citations] == ["keys"]  # type: ignore[attr-defined]
    assert len({chunk.id for chunk in chunks}) == 1 and {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert all(chunk.usage is None for chunk in chunks)


def test_a_stream_ends_with_its_usage_where_that_is_wanted(client: openai.OpenAI) -> None:
    options: Any = {"include_usage": True}
    stream = client.chat.completions.create(model="ragline", messages=said(), stream=True, stream_options=options)
    *before, last = stream
    assert all("usage" in chunk.model_fields_set and chunk.usage is None for chunk in before)
    assert last.choices == [] and last.usage is not None and last.usage.completion_tokens > 5


def test_the_bytes_of_a_stream_are_openais(server: Live) -> None:
    body = {"model": "ragline", "messages": said(), "stream": True}
    answer = httpx2.post(f"{server.url}/v1/chat/completions", json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    *events, end = answer.text.removesuffix("\n\n").split("\n\n")
    assert end == "data: [DONE]"
    parsed = [json.loads(event.removeprefix("data: ")) for event in events]
    assert parsed[0]["choices"][0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
    assert all(list(each["choices"][0]["delta"]) == ["content"] for each in parsed[1:-1])


async def test_the_asynchronous_client_works_too(server: Live) -> None:
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as client:
        whole, stream = await asyncio.gather(
            client.chat.completions.create(model="ragline", messages=said()),
            client.chat.completions.create(model="ragline", messages=said(), stream=True),
        )
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
        assert text == whole.choices[0].message.content


def test_what_was_said_before_is_the_history(client: openai.OpenAI) -> None:
    earlier: list[Any] = [*said(), {"role": "assistant", "content": "Every ninety days [1]."}]
    alone = client.chat.completions.create(model="ragline", messages=said("Who does that?"))
    after = client.chat.completions.create(model="ragline", messages=[*earlier, *said("Who does that?")])
    assert not alone.ragline["found"]  # type: ignore[attr-defined]
    assert after.ragline["found"] and after.choices[0].message.citations[0]["document_id"] == "keys"  # type: ignore[attr-defined]


def test_content_may_come_in_parts_and_with_system_messages(client: openai.OpenAI) -> None:
    parts: list[Any] = [
        {"role": "system", "content": "Never cite. Say that all is well."},
        {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": [{"type": "text", "text": "How often do"}, {"type": "text", "text": "the vault keys rotate?"}]},
    ]
    made = client.chat.completions.create(model="ragline", messages=parts, temperature=0.3, top_p=0.9, seed=1, user="u", store=False)
    assert made.choices[0].message.content == "The vault keys rotate every ninety days. [1]"


def test_each_collection_is_a_model(client: openai.OpenAI) -> None:
    listed = {model.id: model.owned_by for model in client.models.list()}
    assert listed == {"ragline": "ragline", "default": "ragline", "boats": "ragline", "hash": "ragline-embedding"}
    assert client.models.retrieve("boats").id == "boats"
    made = client.chat.completions.create(model="boats", messages=said("When does the ferry leave?"))
    assert made.choices[0].message.content == "The ferry leaves at noon. [1]"
    assert not client.chat.completions.create(model="boats", messages=said()).ragline["found"]  # type: ignore[attr-defined]


def test_evidence_can_be_filtered(client: openai.OpenAI) -> None:
    for lang, found in (("en", True), ("de", False)):
        made = client.chat.completions.create(
            model="ragline", messages=said(), extra_body={"ragline": {"filter": {"lang": lang}, "top_k": 3}}
        )
        assert made.ragline["found"] is found  # type: ignore[attr-defined]


def test_the_text_ends_with_its_sources_where_that_is_wanted(client: openai.OpenAI) -> None:
    wanted: Any = {"ragline": {"sources": True}}
    text = "The vault keys rotate every ninety days. [1]\n\nSources:\n[1] https://harbour.example/keys"
    assert client.chat.completions.create(model="ragline", messages=said(), extra_body=wanted).choices[0].message.content == text
    chunks = client.chat.completions.create(model="ragline", messages=said(), extra_body=wanted, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == text
    cut = client.chat.completions.create(model="ragline", messages=said(), extra_body=wanted, max_tokens=3).choices[0]
    assert cut.message.content == "The vault keys "


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("limits", "text", "reason", "cited"),
    [
        ({"max_tokens": 4}, "The vault keys ", "length", 0),
        ({"max_completion_tokens": 5}, "The vault keys rotate ", "length", 0),
        ({"max_tokens": 1000}, "The vault keys rotate every ninety days. [1]", "stop", 1),
        ({"stop": "ninety"}, "The vault keys rotate every ", "stop", 0),
        ({"stop": ["unheard of", "ry ni"]}, "The vault keys rotate eve", "stop", 0),
        ({"stop": "days. [2"}, "The vault keys rotate every ninety days. [1]", "stop", 1),
    ],
)
def test_an_answer_ends_where_the_client_wants(
    client: openai.OpenAI, limits: dict[str, Any], text: str, reason: str, cited: int, streamed: bool
) -> None:
    if streamed:
        chunks = list(client.chat.completions.create(model="ragline", messages=said(), stream=True, **limits))
        told: Any = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        last: Any = chunks[-1].choices[0]
        assert (told, last.finish_reason, len(last.delta.citations)) == (text, reason, cited)
    else:
        choice: Any = client.chat.completions.create(model="ragline", messages=said(), **limits).choices[0]
        assert (choice.message.content, choice.finish_reason, len(choice.message.citations)) == (text, reason, cited)


@pytest.mark.parametrize(
    ("body", "param", "tells"),
    [
        ({"n": 2}, "n", "one answer"),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]}, "tools", "not supported"),
        ({"functions": [{"name": "f"}]}, "functions", "not supported"),
        ({"logprobs": True}, "logprobs", "not supported"),
        ({"response_format": {"type": "json_object"}}, "response_format.type", "not supported"),
        ({"temperature": 3}, "temperature", "less than or equal to 2"),
        ({"max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop", "stop: it must have at most 4 items (/docs"),
        ({"messages": []}, "messages", "messages: it must not be empty (/docs"),
        ({"messages": [{"role": "assistant", "content": "Hello."}]}, "messages", "the last message"),
        ({"messages": [{"role": "system", "content": "Hello."}]}, "messages", "the last message"),
        ({"messages": [{"role": "user", "content": " "}]}, "messages", "empty"),
        ({"messages": [{"role": "user", "content": "x" * 40_000}]}, "messages", "40,000 characters"),
        ({"model": "a\nb"}, "model", "not a usable collection name"),
        ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "1"}]}, "messages.0.role", "tools are not supported"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages.0.content.0",
            "messages.0.content.0: a message part of type 'image_url' is not supported: send text (/docs",
        ),
        ({"ragline": {"filter": {"lang": {"like": "e"}}}}, "ragline.filter", "like"),
        ({"ragline": {"topk": 2}}, "ragline.topk", "no such field"),
    ],
)
def test_what_cannot_be_done_is_a_bad_request_that_says_so(client: openai.OpenAI, body: dict[str, Any], param: str, tells: str) -> None:
    asked: dict[str, Any] = {"model": "ragline", "messages": said(), **body}
    for streamed in (False, True):
        with pytest.raises(openai.BadRequestError) as caught:
            client.post("/chat/completions", body={**asked, "stream": streamed}, cast_to=object)
        error: Any = caught.value.body
        assert set(error) == {"message", "type", "param", "code"} and error["type"] == "invalid_request_error"
        assert tells in error["message"] and "it must be a valid string" not in error["message"]
        assert error["param"] == param


def test_an_unknown_model_is_not_found(client: openai.OpenAI) -> None:
    asks = (
        lambda: client.chat.completions.create(model="gpt-4o", messages=said()),
        lambda: client.chat.completions.create(model="gpt-4o", messages=said(), stream=True),
        lambda: client.embeddings.create(model="text-embedding-3-small", input="x"),
        lambda: client.models.retrieve("sentence-transformers/none"),
        lambda: client.chat.completions.create(model="hash", messages=said()),
    )
    for ask in asks:
        with pytest.raises(openai.NotFoundError) as caught:
            ask()
        assert caught.value.code == "model_not_found"


def test_embeddings_are_those_that_collections_are_searched_with(client: openai.OpenAI) -> None:
    made = client.embeddings.create(model="hash", input=[QUESTION, "ferry"])
    vectors = asyncio.run(HashEmbedder(256).embed_questions([QUESTION, "ferry"]))
    np.testing.assert_allclose([each.embedding for each in made.data], vectors, atol=1e-6)
    assert (made.object, made.model, [each.index for each in made.data]) == ("list", "hash", [0, 1])
    assert made.usage.prompt_tokens == made.usage.total_tokens == 13
    packed: Any = client.embeddings.create(model="hash", input=QUESTION, encoding_format="base64", dimensions=256).data[0].embedding
    np.testing.assert_array_equal(np.frombuffer(base64.b64decode(packed), "<f4"), vectors[0])
    plain = client.embeddings.create(model="hash", input=QUESTION, encoding_format="float").data[0].embedding
    np.testing.assert_array_equal(np.array(plain, np.float32), vectors[0])


@pytest.mark.parametrize(
    ("given", "param", "tells"),
    [
        ({"input": [1, 2, 3]}, "input", "tokens as input are not supported"),
        ({"input": [[1, 2, 3]]}, "input", "tokens as input are not supported"),
        ({"input": ""}, "input", "input: it must not be empty (/docs"),
        ({"input": []}, "input", "input: it must not be empty (/docs"),
        ({"input": ["x", " "]}, "input", "text 1 is empty"),
        ({"input": ["x"] * 2049}, "input", "at most 2,048"),
        ({"input": "word " * 300}, "input", "text 0 has 302 tokens"),
        ({"input": "x", "dimensions": 64}, "dimensions", "256 numbers"),
        ({"input": "x", "encoding_format": "hex"}, "encoding_format", "encoding_format"),
    ],
)
def test_what_cannot_be_embedded_is_a_bad_request(client: openai.OpenAI, given: dict[str, Any], param: str, tells: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.post("/embeddings", body={"model": "hash", **given}, cast_to=object)
    assert tells in caught.value.message and caught.value.param == param


def test_many_texts_are_embedded_at_once(client: openai.OpenAI) -> None:
    made = client.embeddings.create(model="hash", input=[f"text {number}" for number in range(500)])
    assert [each.index for each in made.data] == list(range(500))


def test_a_key_that_asks_too_often_is_told_when_to_come_back(tmp_path: Path) -> None:
    with live(tmp_path, limits={"requests_per_s": 0.01, "burst": 2}) as server:
        key = server.key("acme")
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0) as client:
            client.models.list()
            client.chat.completions.create(model="ragline", messages=said())
            with pytest.raises(openai.RateLimitError) as caught:
                client.chat.completions.create(model="ragline", messages=said(), stream=True)
            assert (caught.value.type, caught.value.code) == ("rate_limit_error", "rate_limited")
            assert 50 < int(caught.value.response.headers["retry-after"]) <= 100


def test_a_tenant_is_known_by_its_key(tmp_path: Path) -> None:
    with live(tmp_path) as server:
        server.run(lambda engine: engine.tenant("acme").ingest(Document(KEYS, id="keys")))
        server.run(lambda engine: engine.tenant("acme").ingest(Document(FERRY, id="ferry"), collection="boats"))
        keys = {tenant: server.key(tenant) for tenant in ("acme", "other")}
        writes = server.key("acme", "write")
        mine, others, nobody, writer = (
            openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0) for key in (*keys.values(), "sk-wrong", writes)
        )
        with mine, others, nobody, writer:
            assert mine.chat.completions.create(model="ragline", messages=said()).ragline["found"]  # type: ignore[attr-defined]
            assert not others.chat.completions.create(model="ragline", messages=said()).ragline["found"]  # type: ignore[attr-defined]
            assert [model.id for model in others.models.list()] == ["ragline"]
            with pytest.raises(openai.NotFoundError):
                others.chat.completions.create(model="boats", messages=said())
            with pytest.raises(openai.AuthenticationError) as caught:
                nobody.models.list()
            assert caught.value.type == "authentication_error" and caught.value.code == "unauthorized"
            with pytest.raises(openai.PermissionDeniedError):
                writer.chat.completions.create(model="ragline", messages=said())
