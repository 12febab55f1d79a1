"""A language model's server that takes 0.2 s for every answer: `python imitated_llm.py` prints its address and serves until it is ended."""

from __future__ import annotations

import asyncio
import json
import sys

import uvloop

_TEXT = "The documents say so [1]."
SECONDS = float(sys.argv[1]) if len(sys.argv) > 1 else 0.2


def _chunk(delta: dict[str, str], finish: str | None = None) -> bytes:
    told = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
    data = b"data: " + json.dumps({**told, "choices": choices}).encode() + b"\n\n"
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


_ANSWER = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    + _chunk({"role": "assistant", "content": _TEXT})
    + _chunk({}, "stop")
    + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
)


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0] or 0)
            await reader.readexactly(length)
            await asyncio.sleep(SECONDS)
            writer.write(_ANSWER)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def _main() -> None:
    server = await asyncio.start_server(_serve, "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_main())
