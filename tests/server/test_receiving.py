"""Uploads on their way in: how much of them at once, and what becomes of what they took."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ragline.server.errors import HttpError
from tests.server.raw import Exchange
from tests.server.serving import Served, serving

PATH = "/api/v1/documents"
FORM = {"host": "localhost", "content-type": "multipart/form-data; boundary=b"}
HEAD = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n'
END = b"\r\n--b--\r\n"


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    limits = {"max_upload_bytes": 100_000, "max_receiving_bytes": 100_000, "max_receiving": 2, "upload_timeout_s": 30.0}
    async with serving(tmp_path, server=limits) as running:
        yield running


async def test_processes_share_what_a_server_receives_at_once(tmp_path: Path) -> None:
    limits = {"max_upload_bytes": 1000, "max_receiving_bytes": 9000, "max_receiving": 9}
    async with serving(tmp_path, server={**limits, "workers": 4}) as served:
        with served.state.reception.begin(2250), served.state.reception.begin(), pytest.raises(HttpError, match="2 uploads"):
            served.state.reception.begin()
        with pytest.raises(HttpError, match="bytes"):
            served.state.reception.begin(2251)
    async with serving(tmp_path, server={**limits, "workers": 100}) as served:
        with served.state.reception.begin(1000), pytest.raises(HttpError, match="1 uploads"):
            served.state.reception.begin()


async def sending(served: Served, **headers: str) -> Exchange:
    """An upload whose body is awaited and does not come."""
    exchange = Exchange(served.app, "POST", PATH, {**FORM, **headers})
    async with asyncio.timeout(10):
        await exchange.body_wanted.wait()
    return exchange


async def left(exchange: Exchange) -> None:
    exchange.leave.set()
    await asyncio.wait_for(exchange.task, 10)


def taken(served: Served) -> tuple[int, int]:
    return served.state.reception.uploads, served.state.reception.size_bytes


async def refused_unread(served: Served, **headers: str) -> None:
    exchange = Exchange(served.app, "POST", PATH, {**FORM, **headers})
    await asyncio.wait_for(exchange.task, 10)
    assert exchange.status == 503 and b'"overloaded"' in exchange.body and not exchange.body_wanted.is_set()
    assert int(exchange.headers["retry-after"]) >= 1 and exchange.headers["connection"] == "close"


async def test_only_so_many_uploads_are_received_at_once(served: Served) -> None:
    one, other = await sending(served), await sending(served)
    await refused_unread(served)
    assert (await served.client.post("/api/v1/search", json={"query": "a"})).status_code == 200
    await left(one)
    assert (await served.client.post(PATH, json={"text": "There is room again."})).status_code == 202
    await left(other)
    assert taken(served) == (0, 0)


async def test_what_uploads_announce_is_counted_together(served: Served) -> None:
    one = await sending(served, **{"content-length": "90000"})
    await refused_unread(served, **{"content-length": "20000"})
    assert taken(served) == (1, 90_000)
    await left(one)
    assert taken(served) == (0, 0)


async def test_what_comes_unannounced_is_refused_once_it_is_too_much(served: Served, tmp_path: Path) -> None:
    one = await sending(served, **{"content-length": "50000"})

    async def body() -> AsyncIterator[bytes]:
        yield HEAD
        for _ in range(9):
            yield b"x" * 10_000
        yield END

    async def post() -> int:
        return (await served.client.post(PATH, content=body(), headers=FORM)).status_code

    assert await post() == 503
    assert taken(served) == (1, 50_000) and not list((tmp_path / "uploads").glob("*"))
    await left(one)
    assert await post() == 202 and taken(served) == (0, 0)


@pytest.mark.parametrize("body", [b"no form", HEAD + b"cut off", HEAD + END])
async def test_an_upload_that_fails_gives_back_what_it_took(served: Served, body: bytes) -> None:
    assert (await served.client.post(PATH, content=body, headers=FORM)).status_code in (400, 422)
    assert taken(served) == (0, 0)


async def test_an_upload_that_takes_too_long_gives_back_what_it_took(tmp_path: Path) -> None:
    async with serving(tmp_path, server={"upload_timeout_s": 0.1}) as served:
        exchange = await sending(served, **{"content-length": "1000"})
        await asyncio.wait_for(exchange.task, 10)
        assert exchange.status == 408 and taken(served) == (0, 0)
        assert b"server.upload_timeout_s" in exchange.body


async def test_where_too_much_waits_an_upload_is_refused_before_it_is_received(tmp_path: Path) -> None:
    async with serving(tmp_path, jobs={"max_queued": 1}) as served:
        runner = served.state.engine._resources.job_runner
        assert runner is not None
        await runner.stop()
        again = {"idempotency-key": "k"}
        first = await served.client.post(PATH, json={"text": "It waits."}, headers=again)
        await refused_unread(served, **{"content-length": "1000"})
        await refused_unread(served, **{"content-length": "1000", "idempotency-key": "another"})
        assert taken(served) == (0, 0)
        known = await served.client.post(PATH, json={"text": "It waits."}, headers=again)
        assert known.status_code == 202 and known.json() == first.json()
