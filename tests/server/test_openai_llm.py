"""OpenAI's clients against a server that has a language model write: what it writes comes through as it is written."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from ragline.types import Document
from tests.imitation.chat import MODEL, ChatServer, Script
from tests.imitation.http import status
from tests.server.live import Live, live

KEYS = "The vault keys rotate every ninety days."


@pytest.fixture(scope="module")
def model() -> Iterator[ChatServer]:
    with ChatServer("openai") as running:
        yield running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, model: ChatServer) -> Iterator[Live]:
    generation = {"generator": "openai", "model": MODEL, "base_url": model.base_url, "fallback": False, "timeout_s": 5}
    with live(tmp_path_factory.mktemp("llm"), generation=generation, cache={"enabled": False}) as running:
        running.run(lambda engine: engine.ingest(Document(KEYS, id="keys")))
        yield running


@pytest.fixture
def client(server: Live) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as opened:
        yield opened


def said(question: str = "How often do the vault keys rotate?") -> list[Any]:
    return [{"role": "user", "content": question}]


def test_each_piece_is_passed_on_before_the_next_is_written(client: openai.OpenAI, model: ChatServer) -> None:
    model.script = Script(["Every ", 0.3, "ninety ", "days [1]."])
    model.sent_at.clear()
    stream = client.chat.completions.create(model="ragline", messages=said(), stream=True)
    came = [(text, time.perf_counter()) for chunk in stream if (text := chunk.choices[0].delta.content)]
    assert "".join(text for text, _ in came) == "Every ninety days [1]."
    # The second piece had not been sent when the first was here; no more is said of time, since machines differ.
    assert came[0][0] == "Every" and came[0][1] < model.sent_at[2]


def test_citations_of_the_model_are_checked_and_told(client: openai.OpenAI, model: ChatServer) -> None:
    model.script = Script(["Every ninety days [1][7]."])
    message: Any = client.chat.completions.create(model="ragline", messages=said()).choices[0].message
    assert message.content == "Every ninety days [1]." and [each["document_id"] for each in message.citations] == ["keys"]


def test_the_model_is_shown_the_conversation_and_the_wishes(client: openai.OpenAI, model: ChatServer) -> None:
    model.script = Script(["Ja [1]."])
    model.requests.clear()
    earlier: list[Any] = [{"role": "system", "content": "Answer in German."}, *said(), {"role": "assistant", "content": "Ninety [1]."}]
    client.chat.completions.create(model="ragline", messages=[*earlier, *said("Is that so on Sundays?")])
    system, user = (message["content"] for message in model.asked[0]["messages"])
    assert "Answer in German." in system and system.index("Never follow") < system.index("Answer in German.")
    assert "How often do the vault keys rotate?" in user
    assert "Ninety" not in system and user.endswith("Question: Is that so on Sundays?\n")


def test_a_client_that_leaves_stops_the_model(client: openai.OpenAI, model: ChatServer) -> None:
    model.script = Script(["Every ", 30.0, "ninety days [1]."])
    left = model.left
    stream = client.chat.completions.create(model="ragline", messages=said(), stream=True)
    assert any(chunk.choices[0].delta.content for chunk in stream)
    stream.close()
    assert model.wait_until_left(left + 1, within_s=10)


def test_a_client_that_leaves_while_it_waits_for_the_whole_stops_the_model(server: Live, model: ChatServer) -> None:
    model.script = Script(["Every ", 30.0, "ninety days [1]."])
    left, asked = model.left, len(model.asked)
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"))
    body = json.dumps({"model": "ragline", "messages": said()})
    connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
    for _ in range(1000):
        if len(model.asked) > asked:
            break
        time.sleep(0.01)
    connection.close()
    assert model.wait_until_left(left + 1, within_s=10) and len(model.asked) == asked + 1


def test_the_model_is_stopped_when_the_client_has_enough(client: openai.OpenAI, model: ChatServer) -> None:
    model.script = Script(["Every ", "ninety ", 30.0, "days [1]."])
    left = model.left
    choice = client.chat.completions.create(model="ragline", messages=said(), max_tokens=1).choices[0]
    assert (choice.message.content, choice.finish_reason) == ("Every ", "length")
    assert model.wait_until_left(left + 1, within_s=10)


def test_a_citation_that_ends_at_the_cut_is_told(client: openai.OpenAI, model: ChatServer) -> None:
    model.script = Script(["Ninety [1]", " days", " STOP and more [1]"])
    message: Any = client.chat.completions.create(model="ragline", messages=said(), stop="STOP").choices[0].message
    assert message.content == "Ninety [1] days " and len(message.citations) == 1
    message = client.chat.completions.create(model="ragline", messages=said(), stop=" days").choices[0].message
    assert message.content == "Ninety [1]" and len(message.citations) == 1


def test_a_model_that_runs_out_of_tokens_ends_with_length(client: openai.OpenAI, model: ChatServer) -> None:
    model.script = Script(["Every ninety days [1]"], finish="length")
    assert client.chat.completions.create(model="ragline", messages=said()).choices[0].finish_reason == "length"


def test_a_model_that_is_down_is_a_server_error_and_no_secret_leaves(client: openai.OpenAI, model: ChatServer) -> None:
    for code in (401, 400):
        model.fail_next(status(code))
        with pytest.raises(openai.InternalServerError) as caught:
            client.chat.completions.create(model="ragline", messages=said())
        assert model.base_url not in str(caught.value.body) and caught.value.type == "server_error"


def test_a_model_that_breaks_off_in_the_middle_ends_the_stream_with_an_error(client: openai.OpenAI, model: ChatServer) -> None:
    model.script = Script(["Every "], error="out of memory")
    told = ""
    with pytest.raises(openai.APIError) as caught:
        for chunk in client.chat.completions.create(model="ragline", messages=said(), stream=True):
            told += chunk.choices[0].delta.content or ""
    assert told == "Every" and "out of memory" not in str(caught.value.body)
