"""What happens on a connection before a request is known."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn

from ragline.server import lingering
from ragline.server.protocol import BoundedHeads

Connect = Any


class Impatient(BoundedHeads):
    within_s = 0.3
    max_bytes = 10_000


async def echo(scope: Any, receive: Any, send: Any) -> None:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(len(body)).encode())]})
    await send({"type": "http.response.body", "body": body})


async def echo_or_refuse(scope: Any, receive: Any, send: Any) -> None:
    if scope["path"] != "/refused":
        await echo(scope, receive, send)
        return
    await receive()
    await send({"type": "http.response.start", "status": 413, "headers": [(b"content-length", b"5"), (b"connection", b"close")]})
    await send({"type": "http.response.body", "body": b"large"})


@pytest.fixture
def state() -> uvicorn.server.ServerState:
    return uvicorn.server.ServerState()


@pytest.fixture
async def address(state: uvicorn.server.ServerState) -> AsyncIterator[tuple[str, int]]:
    config = uvicorn.Config(echo_or_refuse, http=Impatient, lifespan="off", log_config=None, access_log=False)
    config.load()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Impatient(config=config, server_state=state, app_state={}), "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[:2]


async def sent(address: tuple[str, int], *parts: bytes | float) -> bytes:
    """All that comes back, until the other side closes."""
    reader, writer = await asyncio.open_connection(*address)
    with contextlib.suppress(ConnectionError):
        for part in parts:
            if isinstance(part, float):
                await asyncio.sleep(part)
            else:
                writer.write(part)
                await writer.drain()
    answer = b""
    with contextlib.suppress(ConnectionError):
        answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return answer


async def test_who_says_nothing_or_never_comes_to_an_end_is_cut_off(address: tuple[str, int]) -> None:
    assert await sent(address) == b""
    assert await sent(address, b"GET / HTTP/1.1\r\nhost: a\r\n", 0.05, b"x: 1\r\n", 0.05, b"y: 1\r\n") == b""


async def test_a_head_without_end_is_refused(address: tuple[str, int]) -> None:
    for part in (b"x" * 1000, b"x: " + b"y" * 1000, b"a: b\r\n" * 200):
        answer = await sent(address, b"GET / HTTP/1.1\r\n", *[part] * 200)
        assert answer.startswith((b"HTTP/1.1 431", b"HTTP/1.1 400")) or answer == b""


@pytest.mark.parametrize("part", [b"a: b\r\n" * 200, b"x" * 1000, b"x: " + b"y" * 1000])
async def test_headers_without_end_after_a_body_are_refused(address: tuple[str, int], part: bytes) -> None:
    head = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
    parts: list[bytes | float] = [part, 0.001]
    assert b"200" not in await sent(address, head + b"1\r\na\r\n0\r\n", *parts * 40, b"\r\n\r\n")


async def test_a_body_may_come_in_many_chunks(address: tuple[str, int]) -> None:
    head = b"POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
    chunk: list[bytes | float] = [b"1;" + b"x" * 500 + b"\r\n", 0.001, b"a", 0.001, b"\r\n", 0.001]
    answer = await sent(address, head, *chunk * 40, b"0\r\n", b"x: y\r\n", b"\r\n")
    assert answer.startswith(b"HTTP/1.1 200") and answer.endswith(b"a" * 40)


async def test_a_body_may_take_its_time_and_be_large(address: tuple[str, int]) -> None:
    head = b"POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 50000\r\n\r\n"
    answer = await sent(address, head, 0.5, b"a" * 25_000, 0.2, b"a" * 25_000)
    assert answer.startswith(b"HTTP/1.1 200") and answer.endswith(b"a" * 50_000)


async def test_the_next_request_of_a_connection_has_its_own_time(address: tuple[str, int]) -> None:
    request = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
    answer = await sent(address, request, 0.4, request, 0.4, b"GET / HTTP/1.1\r\nhost: a\r\nx: ")
    assert answer.count(b"HTTP/1.1 200") == 2


@pytest.mark.parametrize("request_", [b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", b""], ids=["a request on its way", "none"])
async def test_a_connection_just_taken_may_bring_one_request_when_the_process_stops(
    address: tuple[str, int], state: uvicorn.server.ServerState, request_: bytes
) -> None:
    reader, writer = await asyncio.open_connection(*address)
    async with asyncio.timeout(10):
        for _ in iter(lambda: bool(state.connections), True):
            await asyncio.sleep(0.01)
        for connection in list(state.connections):
            connection.shutdown()
        writer.write(2 * request_)
        answer = await reader.read()
    assert answer.count(b"HTTP/1.1 200") == bool(request_) == bool(answer)
    writer.close()


REFUSED = b"POST /refused HTTP/1.1\r\nhost: a\r\ncontent-length: 100000000\r\n\r\n"


def told(address: tuple[str, int], *, then: int = 0) -> tuple[bytes, bool]:
    """The whole answer to a client that sends on after it was refused, and sends `then` bytes more; and whether it was cut off."""
    with socket.create_connection(address, timeout=10) as client:
        try:
            client.sendall(REFUSED + b"x" * 70_000)
            select.select([client], [], [], 10)
            for _ in range(20):
                client.sendall(b"x" * 50_000)
                time.sleep(0.001)  # what a reset would overtake is still unread
            client.sendall(b"x" * then)
            answer = b"".join(iter(lambda: client.recv(1000), b""))
        except ConnectionError:
            return b"", True
        return answer, False


async def test_who_is_refused_while_sending_hears_why(address: tuple[str, int]) -> None:
    answer, cut_off = await asyncio.to_thread(told, address)
    assert not cut_off
    assert answer.startswith(b"HTTP/1.1 413") and answer.endswith(b"\r\n\r\nlarge")


async def test_who_sends_on_too_much_is_cut_off(address: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lingering, "_LINGER_BYTES", 2_000_000)
    monkeypatch.setattr(lingering, "_LINGER_S", 60.0)  # so that it is not the time that cuts off
    _, cut_off = await asyncio.to_thread(told, address, then=64_000_000)  # several times what the system takes in for a reader
    assert cut_off


async def test_who_sends_on_for_too_long_is_cut_off(address: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lingering, "_LINGER_S", 0.2)
    reader, writer = await asyncio.open_connection(*address)
    writer.write(REFUSED + b"x")
    assert (await reader.read()).endswith(b"large")
    with pytest.raises(ConnectionError):
        async with asyncio.timeout(10):
            while True:  # until the other side is gone
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.01)
    writer.close()
