"""Handlers that are called without FastAPI answer as they do with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.types import Receive, Scope, Send

from ragline.server.app import ROUTERS
from ragline.server.guarding import Directly
from ragline.types import Document
from tests.server.serving import Served, serving

DIRECT = sorted(Directly(lambda *_: None, ROUTERS)._handlers)  # type: ignore[arg-type]
GOOD: dict[str, dict[str, Any]] = {
    "/api/v1/search": {"query": "keys", "top_k": 1.0, "filter": {"lang": "en"}},
    "/api/v1/query": {"query": "How often do keys rotate?", "history": [{"role": "user", "text": "Keys?"}]},
    "/api/v1/query/batch": {"queries": [{"query": "keys"}, {"query": "locks", "collections": ["none"]}]},
    "/api/v1/collections": {"name": "letters"},
    "/v1/chat/completions": {"model": "ragline", "messages": [{"role": "user", "content": "How often do keys rotate?"}]},
    "/v1/embeddings": {"model": "hash", "input": "keys"},
}
JSON = "application/json"


async def through_fastapi(directly: Directly, scope: Scope, receive: Receive, send: Send) -> None:
    await directly._app(scope, receive, send)


def told(reply: httpx2.Response) -> tuple[int, Any, dict[str, str]]:
    """Status, body and headers: errors whole, of answers the names, for their times differ."""
    value = reply.json()
    headers = {name: text for name, text in reply.headers.items() if name not in ("x-request-id", "content-length")}
    return reply.status_code, value if "error" in value else sorted(value), headers


async def asked_in_all_ways(served: Served, method: str, path: str) -> list[Any]:
    good = GOOD[path]
    bodies: list[Any] = [good, {**good, "no_such_field": 1}, {}, [], None, "text", 7, {key: 5 for key in good}, {key: None for key in good}]
    if "query" in good:
        wrong: list[dict[str, Any]] = [{"query": ""}, {"top_k": 0}, {"collections": ["none"]}, {"filter": {"x": {"near": 1}}}]
        bodies += [{**good, **each} for each in wrong]
    replies = [await served.client.request(method, path, content=json.dumps(body), headers={"content-type": JSON}) for body in bodies]
    replies += [
        await served.client.request(method, path, content="{", headers={"content-type": JSON}),
        await served.client.request(method, path, content=b"\xff", headers={"content-type": JSON}),
        await served.client.request(method, path, content="", headers={"content-type": JSON}),
        await served.client.request(method, path, content=json.dumps(good), headers={"content-type": "text/plain"}),
        await served.client.request(method, path, content=json.dumps(good), headers={"content-type": f"{JSON}; charset=utf-8"}),
        await served.client.request(method, path, content="[" * 90 + "]" * 90, headers={"content-type": JSON}),
        await served.client.request(method, path, content=json.dumps(good), headers={"content-type": JSON, "content-encoding": "gzip"}),
        await served.client.request(method, path, content=json.dumps(good), headers={"content-type": JSON, "x-request-timeout": "never"}),
        await served.client.request(method, f"{path}/", content=json.dumps(good), headers={"content-type": JSON}),
        await served.client.request("PATCH", path, content=json.dumps(good), headers={"content-type": JSON}),
    ]
    return [told(reply) for reply in replies]


@pytest.mark.parametrize(("method", "path"), DIRECT)
async def test_both_ways_give_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, path: str) -> None:
    outcomes = []
    for direct in (True, False):
        if not direct:
            monkeypatch.setattr(Directly, "__call__", through_fastapi)
        async with serving(tmp_path / f"{direct}") as served:
            await served.state.engine.ingest([Document("Keys rotate every ninety days.", id="a", metadata={"lang": "en"})])
            outcomes.append(await asked_in_all_ways(served, method, path))
    assert len(outcomes[0]) >= 19 and outcomes[0][0][0] in (200, 201)
    for one, other in zip(*outcomes, strict=True):
        assert one == other


def test_the_busiest_are_among_them() -> None:
    assert {("POST", "/api/v1/search"), ("POST", "/api/v1/query"), ("POST", "/v1/chat/completions")} <= set(DIRECT)
    assert {path for _, path in DIRECT} == set(GOOD)
