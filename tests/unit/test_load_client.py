"""The client that measures the server under load counts right."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

_NAME, _FILE = "load_client", Path(__file__).parents[2] / "benchmarks" / "load" / "client.py"


def _imported() -> Any:
    spec = importlib.util.spec_from_file_location(_NAME, _FILE)
    assert spec is not None and spec.loader is not None
    module = sys.modules[_NAME] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


client = _imported()


def test_a_summary_tells_answers_from_refusals() -> None:
    tally = client.Tally(took_s=[0.001 * n for n in range(1, 101)], refused_s=[0.002], counted_s=10.0)
    tally.statuses.update({200: 100, 503: 1})
    told = client.summary(tally, cpu_s=2.0, wall_s=10.0)
    assert told["good_per_s"] == 10 and told["client_cpu"] == 0.2
    assert told["statuses"] == {"200": 100, "503": 1}
    assert told["p50_ms"] == pytest.approx(51) and told["p99_ms"] == pytest.approx(100) and told["refusal_p50_ms"] == 2


@pytest.mark.parametrize("rate", [None, 200.0])
async def test_every_answer_is_read_whole_however_it_is_cut(rate: float | None) -> None:
    served, left, all_left = 0, 0, asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served, left
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]))
                served += 1
                status = b"200 OK" if served % 2 else b"503 No"
                for part in (b"HTTP/1.1 " + status + b"\r\nContent-", b"Length: 5\r\n\r\nhe", b"llo"):
                    writer.write(part)
                    await writer.drain()
                    await asyncio.sleep(0)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client is done
        finally:
            left += 1
            writer.transport.abort()
            if left == 3:
                all_left.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port: Any = server.sockets[0].getsockname()[1]
    load = client.Load(client.Plan("127.0.0.1", port, "/", ['{"query": "ä"}'], connections=3, seconds=0.4, rate=rate, skip_s=0.0))
    tally = await load.run()
    server.close()
    await asyncio.wait_for(all_left.wait(), 10)
    await asyncio.sleep(0)
    assert abs(tally.statuses[200] - tally.statuses[503]) <= 1 and tally.statuses[200] > 5
    assert len(tally.took_s) == tally.statuses[200] and len(tally.refused_s) == tally.statuses[503]


async def test_a_connection_that_the_server_ends_as_it_said_is_opened_anew() -> None:
    opened, here, all_left = 0, 0, asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal opened, here
        opened, here = opened + 1, here + 1
        all_left.clear()
        try:
            for kept in (b"", b"Connection: close\r\n"):
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]))
                writer.write(b"HTTP/1.1 200 OK\r\n" + kept + b"Content-Length: 2\r\n\r\n{}")
                await writer.drain()
            writer.close()
            await writer.wait_closed()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.transport.abort()  # the client is done
        finally:
            here -= 1
            if not here:
                all_left.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port: Any = server.sockets[0].getsockname()[1]
    tally = await client.Load(client.Plan("127.0.0.1", port, "/", ["{}"], connections=2, seconds=0.4, rate=200.0, skip_s=0.0)).run()
    server.close()
    await asyncio.wait_for(all_left.wait(), 10)
    await asyncio.sleep(0)
    assert set(tally.statuses) == {200} and tally.statuses[200] > 2
    assert opened >= tally.statuses[200] // 2
