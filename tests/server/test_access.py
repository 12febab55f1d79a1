"""Who is let in: decided from the headers alone."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ragline.server.access import OPEN_PATHS
from ragline.server.guarding import GuardedRoute
from ragline.server.routes.health import router as health_router
from ragline.storage.keys import new_key
from tests.server.raw import Exchange
from tests.server.serving import client_of, serving

SEARCH = "/api/v1/search"
QUESTION = {"query": "ferry"}
JSON = {"host": "localhost", "content-type": "application/json", "content-length": "1000"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "127.0.0.1:8000"}, 200),
        ({"host": "[::1]:8000"}, 200),
        ({"host": "rag.example.com"}, 200),
        ({"host": "evil.example.com"}, 403),
        ({"host": "localhost.evil.example.com"}, 403),
        ({"host": ""}, 403),
        ({"origin": "http://localhost"}, 200),
        ({"origin": "https://app.example.com"}, 200),
        ({"origin": "http://localhost:3000"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "https://evil.example.com"}, 403),
        ({"authorization": "Bearer whatever"}, 200),
    ],
)
async def test_without_keys_only_this_machine_is_answered_under_its_own_name(tmp_path: Path, headers: dict[str, str], status: int) -> None:
    server = {"allowed_hosts": "rag.example.com", "cors_origins": "https://app.example.com"}
    async with serving(tmp_path, server=server) as served:
        answer = await served.client.post(SEARCH, json=QUESTION, headers=headers)
        assert answer.status_code == status, answer.text


async def test_without_keys_another_machine_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        for address in ("192.168.1.7", "2001:db8::1", "testclient"):
            async with client_of(served.app, (address, 1)) as client:
                answer = await client.post(SEARCH, json=QUESTION)
                assert answer.status_code == 403 and answer.json()["error"]["code"] == "forbidden"
                assert (await client.get("/livez")).status_code == 200


async def test_from_the_first_key_on_a_key_is_wanted_and_revoked_it_is_worth_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        assert (await served.client.post(SEARCH, json=QUESTION)).status_code == 200
        key = await served.key("acme")
        bare = await served.client.post(SEARCH, json=QUESTION)
        assert bare.status_code == 401 and bare.headers["www-authenticate"].startswith("Bearer")
        async with client_of(served.app, ("192.168.1.7", 1)) as client:  # keys open from anywhere, under any name
            answer = await client.post(SEARCH, json=QUESTION, headers={**key, "host": "rag.example.com", "origin": "https://x.example"})
            assert answer.status_code == 200
        text = key["authorization"].split()[1]
        assert (await served.client.post(SEARCH, json=QUESTION, headers={"x-api-key": text})).status_code == 200
        for other in (text[:-1], text + "0", text[:-1] + ("0" if text[-1] != "0" else "1"), text.upper(), "rl_", "é", text.split("_")[2]):
            for headers in ({b"x-api-key": other.encode()}, {b"authorization": f"Bearer {other}".encode()}):
                assert (await served.client.post(SEARCH, json=QUESTION, headers=headers)).status_code == 401
        assert await served.state.keys.revoke(text.split("_")[1], tenant="acme", actor="test")
        assert (await served.client.post(SEARCH, json=QUESTION, headers=key)).status_code == 401
        assert (await served.client.post(SEARCH, json=QUESTION)).status_code == 401, "revoking the last key opens nothing"


async def test_a_key_revoked_by_another_process_is_worth_nothing_at_once(tmp_path: Path) -> None:
    async with serving(tmp_path) as served, serving(tmp_path) as other:
        key = await served.key("acme")
        for _ in range(2):
            assert (await other.client.post(SEARCH, json=QUESTION, headers=key)).status_code == 200
        await served.state.keys.revoke(key["authorization"].split("_")[1], tenant="acme", actor="test")
        assert (await other.client.post(SEARCH, json=QUESTION, headers=key)).status_code == 401


async def test_a_key_without_the_scope_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        read, write, admin = [await served.key("acme", scope) for scope in ("read", "write", "admin")]
        metrics = await served.key("acme", "metrics")

        async def statuses(method: str, path: str, **sent: object) -> list[int]:
            return [
                (await served.client.request(method, path, headers=key, **sent)).status_code  # type: ignore[arg-type]
                for key in (read, write, admin, metrics)
            ]

        assert await statuses("POST", SEARCH, json=QUESTION) == [200, 403, 200, 403]
        assert await statuses("POST", "/api/v1/collections", json={}) == [403, 422, 422, 403]
        assert await statuses("DELETE", "/api/v1/cache") == [403, 403, 200, 403]
        assert await statuses("GET", "/api/v1/audit") == [403, 403, 200, 403]
        assert await statuses("GET", "/docs") == [200] * 4
        assert await statuses("GET", "/nothing/here") == [404] * 4


async def test_with_keys_nothing_but_its_health_is_open(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        await served.key("acme")
        for path in ("/docs", "/openapi.json", "/nothing", "/", "/metrics", "/livez/", "//livez", "/api/v1/collections"):
            assert (await served.client.get(path)).status_code == 401, path
        for path in sorted(OPEN_PATHS):
            assert (await served.client.get(path)).status_code == 200, path


async def test_who_may_not_is_refused_before_any_of_the_body_is_read(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        read = await served.key("acme", "read")
        document = served.app.openapi()
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                if path in OPEN_PATHS:
                    continue
                refused = [({}, 401), ({"x-api-key": "rl_1_2"}, 401)]
                if operation["x-ragline-scope"] != "read":
                    refused.append((read, 403))
                for headers, status in refused:
                    exchange = Exchange(served.app, method.upper(), path, {**JSON, **headers})
                    await asyncio.wait_for(exchange.task, 10)
                    assert exchange.status == status, (method, path)
                    assert not exchange.body_wanted.is_set(), (method, path)


def test_a_route_that_names_no_scope_cannot_be_made() -> None:
    async def endpoint() -> None:
        pass

    with pytest.raises(TypeError, match="names no scope"):
        GuardedRoute("/things", endpoint)


async def test_every_route_is_guarded(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        open_routes = {route.path for route in health_router.routes}  # type: ignore[attr-defined]
        for path, methods in served.app.openapi()["paths"].items():
            for operation in methods.values():
                assert path in open_routes or operation["x-ragline-scope"] in ("read", "write", "admin", "metrics")


async def test_web_pages_are_let_in_by_name_alone(tmp_path: Path) -> None:
    async with serving(tmp_path, server={"cors_origins": "https://app.example.com, https://b.example"}) as served:
        key = await served.key("acme")
        asks = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}
        for origin in ("https://app.example.com", "https://b.example"):
            before = await served.client.options(SEARCH, headers={"origin": origin, **asks})
            assert before.status_code == 200 and before.headers["access-control-allow-origin"] == origin
            answer = await served.client.post(SEARCH, json=QUESTION, headers={"origin": origin, **key})
            assert answer.headers["access-control-allow-origin"] == origin
            assert "access-control-allow-credentials" not in answer.headers
        for origin in ("https://evil.example", "https://app.example.com.evil.example", "null", "http://app.example.com"):
            before = await served.client.options(SEARCH, headers={"origin": origin, **asks})
            assert before.status_code == 400 and "access-control-allow-origin" not in before.headers
            answer = await served.client.post(SEARCH, json=QUESTION, headers={"origin": origin, **key})
            assert "access-control-allow-origin" not in answer.headers
    async with serving(tmp_path / "closed") as served:
        before = await served.client.options(SEARCH, headers={"origin": "https://app.example.com", **asks})
        assert before.status_code == 403 and "access-control-allow-origin" not in before.headers


async def test_the_last_use_of_a_key_is_noted(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        text, stored = new_key("acme", created_at=1.0)
        await served.state.keys.add(stored, actor="test")
        await served.client.post(SEARCH, json=QUESTION, headers={"x-api-key": text})
        await served.state.key_uses.write(served.state.keys)
        found = await served.state.keys.find(stored.id)
        assert found is not None and found.last_used_at is not None and found.last_used_at > stored.created_at
