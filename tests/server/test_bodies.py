"""What may be in a body, and how much of it."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.server.raw import Exchange
from tests.server.serving import Served, serving

SEARCH = "/api/v1/search"
JSON = {"content-type": "application/json"}


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with serving(tmp_path, server={"max_body_bytes": 10_000, "body_timeout_s": 0.2}) as running:
        yield running


def nested(depth: int) -> bytes:
    return b'{"query": "a", "filter": ' + b'{"not": ' * depth + b'{"a": 1}' + b"}" * depth + b"}"


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"", 400, "not JSON"),
        (b"{", 400, "not JSON"),
        (b'{"query": "a"} {"query": "b"}', 400, "not JSON"),
        (b'\xff\xfe{"query": "a"}', 400, "not JSON"),
        (b'{"query": "a", "filter": {"n": NaN}}', 400, "NaN"),
        (b'{"query": "a", "filter": {"n": -Infinity}}', 400, "Infinity"),
        (b'{"query": "a", "filter": {"n": ' + b"9" * 5000 + b"}}", 400, "not JSON"),
        (b"[" * 9000, 400, "not JSON"),
        (b'{"query": "a", "filter": {"n": 1e999}}', 422, "too large"),
        (b'{"query": "a", "filter": {"n": 9223372036854775808}}', 422, "64 bits"),
        (b'{"query": "a", "filter": {"n": -9223372036854775809}}', 422, "64 bits"),
        (b'{"query": "a\\u0000b"}', 422, "NUL"),
        (b'{"query": "\\u00e9\\u0000"}', 422, "NUL"),
        (b'{"query": "a", "filter": {"k\\u0000": 1}}', 422, "NUL"),
        (b'{"query": "a", "filter": {"\\ud800": 1}}', 422, "surrogate"),
        (b'{"query": "\\udfff"}', 422, "surrogate"),
        (nested(40), 422, "deeper than 32"),
        (b"[1, 2]", 422, "must be an object"),
        (b'"query"', 422, "must be an object"),
        (b"null", 422, "must be an object"),
        (b"{}", 422, "query: it must be given"),
        (b'{"query": ""}', 422, "query: it must not be empty"),
        (b'{"query": "a", "topk": 3}', 422, "topk: there is no such field"),
        (b'{"query": 1}', 422, "string"),
        (b'{"query": "a", "top_k": "3"}', 422, "integer"),
        (b'{"query": "a", "top_k": true}', 422, "integer"),
        (b'{"query": "a", "top_k": 1.5}', 422, "integer"),
        (b'{"query": "a", "top_k": 0}', 422, "greater"),
        (b'{"query": "a", "top_k": 9223372036854775807}', 422, "less"),
        (b'{"query": " "}', 422, "question"),
        (b'{"query": "a", "collections": []}', 422, "collections: it must not be empty"),
        (b'{"query": "a", "collections": ["' + b"a" * 201 + b'"]}', 422, "collections.0: it must have at most 200 characters"),
        (b'{"query": "a", "collections": ["a\\nb"]}', 422, "collection name"),
        (b'{"query": "a", "filter": []}', 422, "filter"),
        (b'{"query": "a", "unknown": 1}', 422, "unknown"),
        (b'{"query": "a", "filter": {"a": {"unheard": 1}}}', 422, "unheard"),
        (b'{"query": "' + b"a" * 9_990 + b'"}', 413, "10,000 bytes"),
    ],
    ids=str,
)
async def test_a_body_that_cannot_be_taken_is_refused_and_says_why(served: Served, body: bytes, status: int, says: str) -> None:
    answer = await served.client.post(SEARCH, content=body, headers=JSON)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"code", "message", "hint"} and says.lower() in error["message"].lower(), error
    assert error["hint"] and "after validation" not in error["message"]
    assert "Traceback" not in answer.text and "site-packages" not in answer.text


async def test_the_deepest_and_largest_that_may_be_is_taken(served: Served) -> None:
    assert (await served.client.post(SEARCH, content=nested(25), headers=JSON)).status_code == 200
    numbers = {"n": {"in": [2**63 - 1, -(2**63), 1.5, None, True]}}
    assert (await served.client.post(SEARCH, json={"query": "é 🎉", "filter": numbers})).status_code == 200


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/jsonp"]
)
async def test_json_is_wanted_as_json(served: Served, kind: str) -> None:
    """What a form of a foreign page can send without asking first is none of these."""
    answer = await served.client.post(SEARCH, content=b'{"query": "a"}', headers={"content-type": kind} if kind else {})
    assert answer.status_code == 415 and answer.json()["error"]["code"] == "unsupported_media_type"


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "identity, gzip", "x"])
async def test_a_packed_body_is_refused_unopened(served: Served, encoding: str) -> None:
    bomb = gzip.compress(b'{"query": "' + b"a" * 10_000_000 + b'"}')
    answer = await served.client.post(SEARCH, content=bomb, headers={**JSON, "content-encoding": encoding})
    assert answer.status_code in (413, 415)
    answer = await served.client.post(SEARCH, content=b"{}", headers={**JSON, "content-encoding": encoding})
    assert answer.status_code == 415 and answer.json()["error"]["code"] == "unsupported_encoding"


async def test_a_body_larger_than_it_says_is_cut_off(served: Served) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b" " * 1000

    answer = await served.client.post(SEARCH, content=endless(), headers=JSON)
    assert answer.status_code == 413 and answer.headers["connection"] == "close"
    assert "server.max_body_bytes" in answer.json()["error"]["hint"]


async def test_a_body_announced_too_large_is_refused_unread(served: Served) -> None:
    for length in ("10001", "9" * 40):
        exchange = Exchange(served.app, "POST", SEARCH, {**JSON, "host": "localhost", "content-length": length})
        await asyncio.wait_for(exchange.task, 10)
        assert exchange.status == 413 and not exchange.body_wanted.is_set()


async def test_a_body_that_does_not_come_is_given_up(served: Served) -> None:
    exchange = Exchange(served.app, "POST", SEARCH, {**JSON, "host": "localhost", "content-length": "10"})
    await asyncio.wait_for(exchange.task, 10)
    assert exchange.status == 408 and exchange.headers["connection"] == "close"
    assert "server.body_timeout_s" in json.loads(exchange.body)["error"]["hint"]


async def test_a_client_that_leaves_before_its_body_is_there_costs_nothing(served: Served) -> None:
    exchange = Exchange(served.app, "POST", SEARCH, {**JSON, "host": "localhost", "content-length": "10"})
    exchange.leave.set()
    await asyncio.wait_for(exchange.task, 10)
    assert exchange.status == 400


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "not_found"),
        ("GET", SEARCH, 405, "method_not_allowed"),
        ("GET", "/api/v1/collections/none", 404, "not_found"),
        ("GET", "/api/v1/collections/a%00b", 404, "not_found"),
        ("DELETE", "/api/v1/collections/a%00b", 422, "invalid_input"),
        ("GET", "/api/v1/collections/%ff%fe", 404, "not_found"),
        ("GET", "/api/v1/collections/..%2f..%2fetc%2fpasswd", 404, "not_found"),
        ("DELETE", "/api/v1/collections/none", 404, "not_found"),
        ("GET", "/api/v1/audit?limit=0", 422, "invalid_input"),
        ("GET", "/api/v1/audit?before=99999999999999999999", 422, "invalid_input"),
        ("GET", "/api/v1/audit?limit=1%00", 422, "invalid_input"),
    ],
)
async def test_errors_have_one_shape(served: Served, method: str, path: str, status: int, code: str) -> None:
    answer = await served.client.request(method, path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
    if status == 405:
        assert answer.headers["allow"] == "POST"


async def test_under_v1_errors_are_openais(served: Served) -> None:
    error = (await served.client.get("/v1/nothing")).json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["type"] == "not_found_error"


async def test_a_fault_of_ours_says_nothing_but_its_id(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    async def broken(*_: Any, **__: Any) -> None:
        raise ValueError("a secret of the inside")

    served.state.engine.collections = broken  # type: ignore[assignment,method-assign]
    answer = await served.client.get("/api/v1/collections", headers={"x-request-id": "abc-1"})
    assert answer.status_code == 500 and answer.json()["error"]["code"] == "internal"
    assert "secret" not in answer.text and answer.headers["x-request-id"] == "abc-1"
    assert "a secret of the inside" in caplog.text


async def test_what_failed_below_names_no_folder(served: Served, tmp_path: Path) -> None:
    (tmp_path / "store.sqlite3").rename(tmp_path / "elsewhere")
    answer = await served.client.post("/api/v1/collections", json={"name": "new"})
    assert answer.status_code == 503 and answer.json()["error"]["code"] == "backend_failed"
    assert str(tmp_path) not in answer.text and "sqlite" not in answer.text


@pytest.mark.parametrize("id", ["abc", "a" * 128, "x" * 129, "a b", "a\tb", "é", ""])
async def test_an_id_comes_back_if_it_can_stand_in_a_header(served: Served, id: str) -> None:
    exchange = Exchange(served.app, "GET", "/livez", {"x-request-id": id}, b"")
    await exchange.task
    given = exchange.headers["x-request-id"]
    assert (given == id) == (id in ("abc", "a" * 128))
    assert given.isascii() and " " not in given


async def test_every_answer_has_the_security_headers(served: Served) -> None:
    for path in ("/livez", "/docs", "/nothing", "/api/v1/collections", "/openapi.json"):
        answer = await served.client.get(path)
        assert answer.headers["x-content-type-options"] == "nosniff" and answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "no-referrer" and answer.headers["cache-control"] == "no-store"
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert "server" not in answer.headers and "access-control-allow-origin" not in answer.headers


async def test_the_access_log_has_no_secrets_and_no_bodies(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    key = await served.key("acme")
    with caplog.at_level("INFO", "ragline"):
        await served.client.post(f"{SEARCH}?token=hidden", json={"query": "the patient's name"}, headers=key)
    line = next(record for record in caplog.records if record.name == "ragline.access")
    assert line.getMessage().startswith(f"POST {SEARCH} 200 ")
    secret = key["authorization"].split("_")[2]
    written = json.dumps([{**record.__dict__, "text": record.getMessage()} for record in caplog.records], default=repr)
    assert secret not in written and "hidden" not in written and "patient" not in written
    assert line.__dict__["tenant"] == "acme" and line.__dict__["status"] == 200
