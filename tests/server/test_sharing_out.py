"""Connections are shared out among processes."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import multiprocessing
import socket
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import uvicorn

from ragline.server import sharing_out
from ragline.server.protocol import BoundedHeads
from ragline.server.running import OneOfSeveral, listen
from ragline.server.sharing_out import Census, Intake
from tests.server.processes import started, until
from tests.tiny_bert import write_model

CONTEXT = multiprocessing.get_context("spawn")


class Held(asyncio.Protocol):
    """A connection of one who counts them."""

    def __init__(self, all: set[Held], arrivals: asyncio.Semaphore) -> None:
        self._all = all
        self._arrivals = arrivals

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self._all.add(self)
        self._arrivals.release()

    def connection_lost(self, error: Exception | None) -> None:
        self._all.discard(self)


class Side:
    """One of those who take connections; each has a descriptor of its own of the one socket, as a process would."""

    def __init__(self, listening: socket.socket, census: Census, arrivals: asyncio.Semaphore) -> None:
        self.held: set[Held] = set()
        self.place = census.enter()
        self._mine = listening.dup()
        self._mine.setblocking(False)
        self.intake = Intake(self._mine, lambda: Held(self.held, arrivals), lambda: len(self.held), census, self.place)

    async def close(self) -> None:
        self.intake.close()
        await self.intake.wait_closed()
        for each in list(self.held):
            each.transport.close()
        self._mine.close()


class Street:
    """A socket, those who listen on it, and those who come."""

    def __init__(self) -> None:
        self.listening = listen("127.0.0.1", 0)
        self.census = Census(CONTEXT, 3)
        self.sides: list[Side] = []
        self._arrivals = asyncio.Semaphore(0)
        self.clients: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    def side(self) -> Side:
        self.sides.append(Side(self.listening, self.census, self._arrivals))
        return self.sides[-1]

    async def come(self, count: int, *, pause_s: float = 0.0) -> None:
        port = self.listening.getsockname()[1]
        for _ in range(count):
            self.clients.append(await asyncio.open_connection("127.0.0.1", port))
            await asyncio.sleep(pause_s)
        async with asyncio.timeout(10):
            for _ in range(count):
                await self._arrivals.acquire()

    async def close(self) -> None:
        for side in self.sides:
            await side.close()
        for _, client in self.clients:
            client.close()
            with contextlib.suppress(ConnectionError):
                await client.wait_closed()
        self.listening.close()


@pytest.fixture
async def street() -> AsyncIterator[Street]:
    street = Street()
    yield street
    await street.close()


@pytest.mark.parametrize("pause_s", [0.0, 0.003])
async def test_each_gets_about_as_many(street: Street, pause_s: float) -> None:
    one, other = street.side(), street.side()
    await street.come(120, pause_s=pause_s)
    assert abs(len(one.held) - len(other.held)) <= 24


async def test_one_that_comes_later_gets_the_new_ones(street: Street) -> None:
    one = street.side()
    await street.come(40)
    assert len(one.held) == 40
    other = street.side()
    await street.come(30, pause_s=0.003)
    assert len(other.held) >= 24


async def test_one_that_has_a_crowd_leaves_new_ones_to_another_that_has_none(street: Street) -> None:
    one, other = street.side(), street.side()
    street.census.tell_crowd(one.place, True)
    await street.come(20, pause_s=0.003)
    assert len(other.held) >= 15
    street.census.tell_crowd(other.place, True)  # where all have, it is as if none had
    await street.come(30, pause_s=0.003)
    assert len(one.held) >= 20


async def test_nobody_waits_for_one_that_does_not_take_what_it_might(street: Street) -> None:
    one, stopped = street.side(), street.side()
    asyncio.get_running_loop().remove_reader(stopped._mine)
    began = time.monotonic()
    await street.come(200)
    assert len(one.held) == 200 and not stopped.held
    assert time.monotonic() - began < 5, "and not one by one either"


async def test_one_that_has_ended_counts_no_more(street: Street) -> None:
    one, other = street.side(), street.side()
    other.intake.close()
    await street.come(20)
    assert len(one.held) == 20
    assert street.census.room(one.place) > 20, "there is nobody to leave room for"
    street.census.leave(other.place)
    assert street.census.enter() == other.place


async def test_one_that_says_nothing_any_more_is_left_nothing(street: Street, monkeypatch: pytest.MonkeyPatch) -> None:
    one, killed = street.side(), street.side()
    street.census.tell(one.place, 60)
    street.census.tell_crowd(one.place, True)
    assert street.census.gives_away(one.place) and not street.census.room(one.place)
    monkeypatch.setattr(sharing_out, "_STALE_S", -1.0)
    assert not street.census.gives_away(one.place) and street.census.room(one.place)
    monkeypatch.undo()
    street.census.leave(killed.place)
    assert not street.census.gives_away(one.place) and street.census.room(one.place)


async def test_one_that_will_stop_takes_what_nobody_else_does(street: Street) -> None:
    one, other = street.side(), street.side()
    one.intake.leaving = True
    one.intake.tell()
    await street.come(20, pause_s=0.003)
    assert len(other.held) >= 15
    other.intake.close()
    before = len(one.held)
    await street.come(3)
    assert len(one.held) == before + 3


async def test_a_connection_taken_in_the_moment_of_stopping_is_ended(street: Street) -> None:
    one = street.side()
    asyncio.get_running_loop().remove_reader(one._mine)
    coming = asyncio.create_task(street.come(1))
    await asyncio.sleep(0.05)
    one.intake._take(1)
    one.intake.close()
    await one.intake.wait_closed()
    await coming
    async with asyncio.timeout(10):
        assert await street.clients[0][0].read() == b""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_as_many_connections_may_wait_as_with_one_process() -> None:
    with listen("127.0.0.1", 0) as listening:
        told = listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)
        assert int.from_bytes(told[28:32], sys.byteorder) == min(2048, int(Path("/proc/sys/net/core/somaxconn").read_text()))


async def test_without_room_for_more_files_it_tries_again(street: Street, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    monkeypatch.setattr(sharing_out, "_TRY_AGAIN_S", 0.05)
    one = street.side()
    failed = 0

    class Full:
        def fileno(self) -> int:
            return one._mine.fileno()

        def accept(self) -> Any:
            nonlocal failed
            failed += 1
            if failed <= 2:
                raise OSError(errno.EMFILE, "Too many open files")
            return one._mine.accept()

    monkeypatch.setattr(one.intake, "_listening", Full())
    await street.come(3)
    assert len(one.held) == 3
    assert [record.message for record in caplog.records if "no connection" in record.message] == [
        "no connection can be taken: Too many open files"
    ] * 2


async def test_a_crowd_ends_connections_now_and_then_while_another_has_none() -> None:
    census, crowded, leaving = Census(CONTEXT, 2), True, False
    here, there = census.enter(), census.enter()
    census.tell(here, 10)

    async def app(scope: object, receive: object, send: object) -> None: ...

    config = uvicorn.Config(app, http=BoundedHeads)
    config.load()
    server = OneOfSeveral(config, lambda: None, census, here, crowded=lambda: crowded, leaving=lambda: leaving)

    async def ended() -> list[bool]:
        found = []
        for counter in range(16):
            await server.on_tick(counter)
            found.append((b"connection", b"close") in server.server_state.default_headers)
        assert len(server.server_state.default_headers) <= 4, "nothing piles up"
        return found

    assert not any(await ended()), "there is nobody to go to"
    census.tell(there, 10)
    assert 0 < sum(await ended()) <= 4
    census.tell_crowd(there, True)
    assert not any(await ended())
    census.tell_crowd(there, False)
    crowded = False
    assert not any(await ended())


def test_two_processes_have_half_of_the_connections_each(tmp_path: Path) -> None:
    environment = {
        "RAGLINE_DATA_DIR": str(tmp_path / "data"),
        "RAGLINE_CACHE_DIR": str(tmp_path / "models"),
        "RAGLINE_EMBEDDING__MODEL": str(write_model(tmp_path / "tiny")),
        "RAGLINE_SERVER__DRAIN_S": "0",
    }

    def count() -> dict[int, int]:
        return {worker: sum(map(is_ours, psutil.Process(worker).net_connections())) for worker in server.workers()}

    def is_ours(each: Any) -> bool:
        return bool(each.status == psutil.CONN_ESTABLISHED and each.laddr.port == port)

    def both_take() -> bool:
        with contextlib.ExitStack() as tried:
            connect(2, tried)
            return len(found := count()) == 2 and all(found.values())

    def connect(connections: int, open: contextlib.ExitStack) -> None:
        for _ in range(connections):
            open.enter_context(socket.create_connection(("127.0.0.1", port)))
            time.sleep(0.01)

    with started(["ragline", "serve", "--port", "0", "--workers", "2"], tmp_path, environment) as server, contextlib.ExitStack() as open:
        port = int(server.url.rpartition(":")[2])
        until(both_take, "both took connections: the first answers while the second still starts")
        connect(60, open)
        until(lambda: sum(count().values()) >= 60, "all were there")
        assert abs(max(count().values()) - min(count().values())) <= 2 + sum(count().values()) // 12, count()
