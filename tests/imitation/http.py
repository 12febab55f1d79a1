"""A small HTTP server that can misbehave: what imitations of LLM, embedding and rerank servers are made of.

    async def handle(request: Request) -> Reply:
        return Reply.json({"ok": True})

    with ImitationServer(handle) as server:
        server.fail_next(status(429, {"Retry-After": "1"}), RESET)     # the next two requests; later ones succeed
        ... use server.url ...
        assert server.requests[0].json()["model"] == "m"

It runs on a thread of its own, so that blocking and async clients, and other processes, can use it.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import h11


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came. Header names are in lower case; `at` is the loop's clock when it was complete."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    at: float

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Reply:
    """What to send back; a body that is an iterator goes out piece by piece, chunked."""

    body: bytes | AsyncIterator[bytes] = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def json(cls, value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
        return cls(json.dumps(value).encode(), status, {"content-type": "application/json", **(headers or {})})

    @classmethod
    def events(cls, pieces: AsyncIterator[bytes]) -> Reply:
        """Server-sent events, each piece as it comes."""
        return cls(pieces, 200, {"content-type": "text/event-stream"})


@dataclass(frozen=True, slots=True)
class Fault:
    """How one request goes wrong.

    Attributes:
        wait_s: Before anything is sent.
        reply: Sent instead of the handler's.
        raw: Bytes sent instead of any HTTP; then the connection is closed.
        cut_after: How many bytes of the handler's body are sent before `then`.
        then: "reset" drops the connection without goodbye; "hang" keeps it open and silent until the client leaves.
    """

    wait_s: float = 0.0
    reply: Reply | None = None
    raw: bytes | None = None
    cut_after: int | None = None
    then: str = "reset"


RESET = Fault(raw=b"", then="reset")
HANG = Fault(raw=b"", then="hang")
GARBAGE = Fault(raw=b"\x00\x16 this is not HTTP at all \xff\xfe\r\n\r\n", then="close")
GARBAGE_BODY = Fault(reply=Reply(b"<html>surely not JSON", 200, {"content-type": "application/json"}))


def slow(wait_s: float) -> Fault:
    return Fault(wait_s=wait_s)


def status(code: int, headers: Mapping[str, str] | None = None, message: str = "imitated failure") -> Fault:
    return Fault(reply=Reply.json({"error": {"message": message, "type": "imitated", "code": str(code)}}, code, headers))


def half(cut_after: int, then: str = "reset") -> Fault:
    """Only so many bytes of the body, then a reset ("reset") or silence ("hang")."""
    return Fault(cut_after=cut_after, then=then)


def closed_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class ImitationServer:
    """Serves a handler on a loopback port until the `with` block ends.

    Attributes:
        requests: All that came, in order of completion, faults included.
        left: How many clients closed the connection before their reply was whole.
        connections: How many connections were ever accepted.
    """

    def __init__(self, handler: Callable[[Request], Awaitable[Reply]]) -> None:
        self._handler = handler
        self._faults: deque[Fault] = deque()
        self.requests: list[Request] = []
        self.left = 0
        self.connections = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="imitation", daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()
        self._port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def fail_next(self, *faults: Fault) -> None:
        """Each fault is for one coming request."""
        self._faults.extend(faults)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._port = self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        # A connection that asyncio has accepted but not begun to serve when the server closes is never closed.
        for listening in self._server.sockets:
            self._loop.remove_reader(listening.fileno())
        for _ in range(10):
            await asyncio.sleep(0)
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        connection = h11.Connection(h11.SERVER)
        try:
            while await self._exchange(connection, reader, writer):
                connection.start_next_cycle()
        except (ConnectionError, asyncio.CancelledError, h11.RemoteProtocolError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _exchange(self, connection: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request and its reply; False where the connection is not to be used again."""
        request = await self._read(connection, reader)
        if request is None:
            return False
        self.requests.append(request)
        fault = self._faults.popleft() if self._faults else Fault(then="")
        # The next bytes of a client that waits for its reply are its goodbye.
        gone = asyncio.ensure_future(reader.read(1))
        work = asyncio.ensure_future(self._answer(connection, writer, request, fault))
        try:
            await asyncio.wait({gone, work}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                self.left += 1
                return False
            return await work and connection.our_state is h11.DONE and not gone.done()
        finally:
            work.cancel()
            gone.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)

    async def _read(self, connection: h11.Connection, reader: asyncio.StreamReader) -> Request | None:
        head: h11.Request | None = None
        body = b""
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await reader.read(65_536))
            elif isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                headers = {name.decode().lower(): value.decode() for name, value in head.headers}
                return Request(head.method.decode(), head.target.decode(), headers, body, self._loop.time())
            else:
                return None

    async def _answer(self, connection: h11.Connection, writer: asyncio.StreamWriter, request: Request, fault: Fault) -> bool:
        await asyncio.sleep(fault.wait_s)
        if fault.raw is not None:
            writer.write(fault.raw)
            await writer.drain()
            return await self._end(writer, fault)
        reply = fault.reply or await self._handler(request)
        chunked = not isinstance(reply.body, bytes)
        length = {"transfer-encoding": "chunked"} if chunked else {"content-length": str(len(reply.body))}  # type: ignore[arg-type]
        headers = list({**length, **{name.lower(): value for name, value in reply.headers.items()}}.items())
        writer.write(connection.send(h11.Response(status_code=reply.status, headers=headers)) or b"")
        room = fault.cut_after
        async for piece in _pieces(reply.body):
            if room is not None and len(piece) >= room:
                writer.write(connection.send(h11.Data(data=piece[:room])) or b"")
                await writer.drain()
                return await self._end(writer, fault)
            room = None if room is None else room - len(piece)
            writer.write(connection.send(h11.Data(data=piece)) or b"")
            await writer.drain()
        writer.write(connection.send(h11.EndOfMessage()) or b"")
        await writer.drain()
        return True

    async def _end(self, writer: asyncio.StreamWriter, fault: Fault) -> bool:
        if fault.then == "hang":
            await asyncio.Event().wait()
        if fault.then == "reset":
            # Linger of zero: the kernel sends RST instead of FIN.
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        return False


async def _pieces(body: bytes | AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if isinstance(body, bytes):
        yield body
    else:
        async for piece in body:
            yield piece
