"""Every way in which a language model can fail, over both adapters, through the official clients."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator

import pytest

from ragline.concurrency.deadlines import deadline
from ragline.concurrency.workers import Workers
from ragline.errors import BackendError, DeadlineError, NotFoundError, OverloadedError, RaglineError, SettingsError
from ragline.generation.base import Generated
from ragline.generation.chat import ChatGenerator
from ragline.generation.degradation import BROKEN_OFF, SENTENCES
from ragline.generation.extractive import NOT_FOUND
from tests.chat_models import QUESTION, answer_of, failed, open_chat
from tests.imitation.chat import ChatServer, Raw, Script
from tests.imitation.http import GARBAGE, GARBAGE_BODY, HANG, RESET, Fault, Reply, closed_port, half, slow, status

ANSWER = Script(["Keys rotate", " every ninety days [1]", "."])
QUOTED = "Keys rotate every ninety days. [1]"


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


def quotes_instead(answer: Generated, word: str) -> bool:
    return answer.text == f"{SENTENCES[word]}; these are quotations from the documents.\n\n{QUOTED}" and answer.degraded == (word,)


PASSING = [
    pytest.param(RESET, id="reset"),
    pytest.param(GARBAGE, id="garbage"),
    pytest.param(GARBAGE_BODY, id="garbage body"),
    pytest.param(status(500), id="500"),
    pytest.param(status(502), id="502"),
    pytest.param(status(503), id="503"),
    pytest.param(status(408), id="408"),
    pytest.param(status(429), id="429"),
    pytest.param(status(429, {"Retry-After": "0.1"}), id="429 with Retry-After"),
    pytest.param(half(20), id="half a stream"),
]


@pytest.mark.parametrize("fault", PASSING)
async def test_what_fails_in_passing_is_tried_again_unseen(server: ChatServer, generator: ChatGenerator, fault: Fault) -> None:
    server.fail_next(fault, fault)
    answer = await answer_of(generator)
    assert answer.text == "Keys rotate every ninety days [1]." and answer.degraded == ()
    assert len(server.asked) == 3


@pytest.mark.parametrize(("fault", "word", "error"), [
    (RESET, "llm_unavailable", BackendError),
    (GARBAGE, "llm_unavailable", BackendError),
    (GARBAGE_BODY, "llm_unavailable", BackendError),
    (status(500), "llm_unavailable", BackendError),
    (half(20), "llm_unavailable", BackendError),
    (status(429), "llm_rate_limited", OverloadedError),
    (status(503), "llm_rate_limited", OverloadedError),
])  # fmt: skip
async def test_what_goes_on_failing_is_given_up_after_three_attempts_and_quoted_instead(
    server: ChatServer, workers: Workers, generator: ChatGenerator, fault: Fault, word: str, error: type[RaglineError]
) -> None:
    server.fail_next(*[fault] * 6)
    assert quotes_instead(await answer_of(generator), word)
    assert len(server.asked) == 3
    assert type(await failed(server, workers)) is error
    assert len(server.asked) == 6


async def test_json_that_is_nested_without_end_makes_no_sense(server: ChatServer, workers: Workers, generator: ChatGenerator) -> None:
    nested = b"[" * 100_000
    server.script = Script([Raw(b"data: " + nested + b"\n\n" if server.protocol == "openai" else nested + b"\n")])
    assert quotes_instead(await answer_of(generator), "llm_unavailable")
    server.fail_next(Fault(reply=Reply(nested, 400, {"content-type": "application/json"})))
    assert type(await failed(server, workers)) is SettingsError


@pytest.mark.parametrize(("fault", "error", "cure"), [
    (status(400), SettingsError, "settings under generation"),
    (status(401), SettingsError, "generation.api_key"),
    (status(403), SettingsError, "generation.api_key"),
    (status(404), NotFoundError, "generation.model"),
    (status(400, message="the context length is 4096"), SettingsError, "generation.prompt_tokens"),
    (status(413), SettingsError, "generation.prompt_tokens"),
    (status(307, {"location": "http://elsewhere/v1"}), SettingsError, "generation.base_url"),
    (status(429, message="You exceeded your current quota"), SettingsError, "account"),
])  # fmt: skip
async def test_what_cannot_be_helped_by_trying_is_tried_once_and_says_how_to_mend_it(
    server: ChatServer, workers: Workers, generator: ChatGenerator, fault: Fault, error: type[RaglineError], cure: str
) -> None:
    server.fail_next(fault)
    assert quotes_instead(await answer_of(generator), "llm_rejected")
    server.fail_next(fault)
    raised = await failed(server, workers)
    assert type(raised) is error and cure in raised.hint
    assert len(server.asked) == 2


async def test_a_server_that_is_not_there_is_quoted_for_at_once(workers: Workers, server: ChatServer) -> None:
    address = f"http://127.0.0.1:{closed_port()}"
    opened = open_chat(server, workers, base_url=address)
    started = time.monotonic()
    assert quotes_instead(await answer_of(opened), "llm_unavailable")
    assert time.monotonic() - started < 10  # of 120 that an answer may take
    raised = await failed(server, workers, base_url=address)
    assert type(raised) is BackendError and address in raised.message and "start it" in raised.hint
    await opened.close()


async def test_a_server_that_wants_us_later_than_there_is_time_is_not_waited_for(server: ChatServer, workers: Workers) -> None:
    opened = open_chat(server, workers, timeout_s=5.0)
    server.fail_next(status(429, {"Retry-After": "60"}))
    assert quotes_instead(await answer_of(opened), "llm_rate_limited")
    assert len(server.asked) == 1
    await opened.close()


async def test_retry_after_is_waited_out(server: ChatServer, generator: ChatGenerator) -> None:
    server.fail_next(status(429, {"Retry-After": "0.7"}))
    assert (await answer_of(generator)).degraded == ()
    first, second = server.requests
    assert second.at - first.at >= 0.69


@pytest.mark.parametrize("fault", [HANG, slow(5.0), half(5, then="hang")], ids=["hang", "slow", "half, then hang"])
async def test_a_model_that_does_not_begin_in_time_is_left_and_quoted_for(server: ChatServer, workers: Workers, fault: Fault) -> None:
    server.fail_next(*[fault] * 6)
    opened = open_chat(server, workers, first_token_timeout_s=0.15, timeout_s=2.0)
    assert quotes_instead(await answer_of(opened), "llm_timeout")
    assert len(server.asked) == 3 and server.wait_until_left(3)
    raised = await failed(server, workers, first_token_timeout_s=0.15, timeout_s=2.0)
    assert type(raised) is DeadlineError and "generation.first_token_timeout_s" in raised.hint and "0.15 s" in raised.message
    await opened.close()


async def test_a_model_that_begins_late_once_is_asked_again(server: ChatServer, workers: Workers) -> None:
    server.fail_next(HANG)
    opened = open_chat(server, workers, first_token_timeout_s=0.5)
    assert (await answer_of(opened)).degraded == ()
    await opened.close()


async def test_the_whole_time_counts_retries_and_waits(server: ChatServer, workers: Workers) -> None:
    server.fail_next(*[HANG] * 3)
    opened = open_chat(server, workers, first_token_timeout_s=30.0, timeout_s=0.3)
    started = time.monotonic()
    assert quotes_instead(await answer_of(opened), "llm_timeout")
    assert time.monotonic() - started < 5
    assert len(server.asked) == 1
    await opened.close()


async def test_where_the_request_had_less_time_than_the_model_that_is_what_is_said(server: ChatServer, workers: Workers) -> None:
    server.fail_next(HANG)
    with deadline(0.4):
        raised = await failed(server, workers, first_token_timeout_s=30.0, timeout_s=120.0)
    assert type(raised) is DeadlineError and "that its request left it" in raised.message and "120 s" not in raised.message
    assert "allow the request more time" in raised.hint and "generation.timeout_s" not in raised.hint


async def test_a_sign_of_life_is_a_beginning(server: ChatServer, workers: Workers) -> None:
    server.script = Script([0.4, "Ninety days [1]."], thinking=["Hm. ", "So."])
    opened = open_chat(server, workers, first_token_timeout_s=0.3)
    assert (await answer_of(opened)).text == "Ninety days [1]."
    assert len(server.asked) == 1
    await opened.close()


BROKEN = [
    pytest.param(Script(["Keys rotate", " dai", "ly [1"], error="out of memory"), id="error in mid-stream"),
    pytest.param(Script(["Keys rotate", " dai", "ly [1"], finish=None, done=False), id="end without an end"),
    pytest.param(Script(["Keys rotate", " dai", "ly [1", Raw(b"data: {]\n\n")]), id="garbage in mid-stream"),
    pytest.param(Script(["Keys rotate", " dai", "ly [1", 30.0]), id="silence"),
]


@pytest.mark.parametrize("script", BROKEN)
async def test_an_answer_that_breaks_off_stays_and_goes_on_with_quotations(server: ChatServer, workers: Workers, script: Script) -> None:
    server.script = script
    opened = open_chat(server, workers, timeout_s=0.3)
    answer = await answer_of(opened)
    assert answer.text == f"Keys rotate daily\n\n{BROKEN_OFF}; these are quotations from the documents.\n\n{QUOTED}"
    assert answer.degraded == ("llm_interrupted",) and answer.found
    assert len(server.asked) == 1
    assert isinstance(await failed(server, workers, timeout_s=0.3), BackendError | DeadlineError)
    await opened.close()


async def test_a_connection_that_breaks_in_mid_answer_is_an_answer_broken_off(server: ChatServer, generator: ChatGenerator) -> None:
    server.script = Script([*["word "] * 50, "end."])
    server.fail_next(half(4000))
    answer = await answer_of(generator)
    assert answer.text.startswith("word word ") and BROKEN_OFF in answer.text
    assert answer.degraded == ("llm_interrupted",)
    assert len(server.asked) == 1


async def test_quotations_after_a_broken_answer_are_counted_on(server: ChatServer, generator: ChatGenerator) -> None:
    server.script = Script(["The ferry leaves at noon [2]", " and"], error="gone")
    answer = await answer_of(generator)
    assert answer.text.startswith("The ferry leaves at noon [1] and\n\n") and answer.text.endswith("Keys rotate every ninety days. [2]")
    assert [citation.document_id for citation in answer.citations] == ["doc-1", "doc-0"]


@pytest.mark.parametrize("pieces", [[], ["", " \n"], ["[7]"]], ids=["no word", "blanks", "a marker that it made up"])
async def test_an_answer_without_a_word_does_not_say_that_nothing_was_found(
    server: ChatServer, generator: ChatGenerator, pieces: list[str]
) -> None:
    server.script = Script(pieces)
    assert quotes_instead(await answer_of(generator), "llm_refused")


async def test_where_there_is_nothing_to_quote_it_says_so(server: ChatServer, generator: ChatGenerator) -> None:
    server.fail_next(status(401), status(401))
    answer = await answer_of(generator, "Which orchestra performed the symphony?")
    assert answer == Generated(
        f"{SENTENCES['llm_rejected']}, and no quotation from the documents answers the question.",
        (),
        found=False,
        degraded=("llm_rejected",),
    )


async def test_a_question_that_does_not_fit_the_prompt_is_quoted_for_without_a_request(server: ChatServer, workers: Workers) -> None:
    opened = open_chat(server, workers, prompt_tokens=1024)
    answer = await answer_of(opened, f"{QUESTION} " * 300)
    assert answer.degraded == ("llm_over_budget",) and answer.found
    assert not server.asked
    await opened.close()


async def test_an_answer_cut_at_its_limit_says_so(server: ChatServer, generator: ChatGenerator) -> None:
    server.script = Script(["Keys rotate every ninety days [1] and"], finish="length")
    answer = await answer_of(generator)
    assert answer.text == "Keys rotate every ninety days [1] and" and answer.degraded == ("truncated",)


async def test_a_model_that_thinks_up_to_its_limit_is_quoted_for(server: ChatServer, workers: Workers, generator: ChatGenerator) -> None:
    server.script = Script(["<think>Hm, "], finish="length", thinking=["Hm."])
    assert quotes_instead(await answer_of(generator), "truncated")
    assert "generation.max_tokens" in (await failed(server, workers)).hint


async def test_a_server_that_does_not_keep_to_the_limit_is_left(server: ChatServer, workers: Workers) -> None:
    server.script = Script(["Keys rotate [1]. ", "and " * 400, 30.0])
    opened = open_chat(server, workers, max_tokens=20)
    answer = await answer_of(opened)
    assert answer.degraded == ("truncated",) and len(answer.text) <= 20 * 64
    await opened.close()
    assert server.wait_until_left(1)


async def test_an_answer_without_citations_says_so(server: ChatServer, generator: ChatGenerator) -> None:
    server.script = Script(["Ninety days [7]."])
    answer = await answer_of(generator)
    assert answer == Generated("Ninety days.", (), found=True, degraded=("uncited",), dropped_citations=1)


@pytest.mark.parametrize("written", [NOT_FOUND, f"**{NOT_FOUND[:-1]}** [1]", f"\n{NOT_FOUND} The texts are about ferries."])
async def test_what_a_model_does_not_find_is_not_found(server: ChatServer, generator: ChatGenerator, written: str) -> None:
    server.script = Script([written])
    answer = await answer_of(generator)
    assert not answer.found and not answer.citations and not answer.degraded
    assert NOT_FOUND[:-1] in answer.text
