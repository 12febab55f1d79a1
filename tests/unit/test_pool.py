"""Connections that are lent: never too many, none lost, first come first served."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import threading
from collections.abc import Callable
from typing import Any

import pytest

from ragline.concurrency.pool import ConnectionPool
from ragline.concurrency.pool_stats import pool_size
from ragline.errors import BackendError, DeadlineError, InputError, OverloadedError
from tests.imitation.service import Connection, Service


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def settled(condition: Callable[[], bool]) -> None:
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.002)
    raise AssertionError("it did not come about")


async def test_a_connection_is_used_again() -> None:
    service = Service(3)
    async with ConnectionPool(service.connect, max_size=3) as pool:
        for _ in range(10):
            async with pool.acquire() as connection:
                assert connection.number == 1
        stats = pool.stats()
        assert (stats.created, stats.acquired, stats.reused, stats.reuse_rate) == (1, 10, 9, 0.9)
        assert (stats.size, stats.idle, stats.in_use, stats.waiting) == (1, 1, 0, 0)
    assert service.open_now == 0 and pool.stats().size == 0


async def test_opening_opens_the_smallest_number_and_closing_closes_all() -> None:
    service = Service(5)
    async with ConnectionPool(service.connect, min_size=3, max_size=5) as pool:
        assert service.open_now == 3 and pool.stats().idle == 3
        await pool.open()
        assert service.open_now == 3
    assert service.open_now == 0


async def test_opening_says_what_went_wrong_and_leaves_nothing_open() -> None:
    service = Service(5)
    service.failing = 0.5
    pool = ConnectionPool(service.connect, min_size=5, max_size=5)
    with pytest.raises(BackendError, match="down"):
        await pool.open()
    assert service.open_now == 0
    slow = Service(2)
    slow.hanging = True
    with pytest.raises(DeadlineError):
        await ConnectionPool(slow.connect, min_size=2, max_size=2, timeout_s=0.02).open()
    assert slow.open_now == 0


async def test_waiters_are_served_in_the_order_of_their_coming() -> None:
    service = Service(1)
    async with ConnectionPool(service.connect, max_size=1) as pool:
        order: list[int] = []

        async def use(number: int) -> None:
            async with pool.acquire():
                order.append(number)
                await asyncio.sleep(0)

        held = await pool.acquire()
        tasks = []
        for number in range(20):
            tasks.append(asyncio.create_task(use(number)))
            await asyncio.sleep(0)
        assert pool.stats().waiting == 20
        pool.release(held)
        # One who comes now finds it promised to another.
        tasks.append(asyncio.create_task(use(99)))
        await asyncio.gather(*tasks)
        assert order == [*range(20), 99]


async def test_who_waits_too_long_is_told_what_to_do() -> None:
    service = Service(1)
    async with ConnectionPool(service.connect, max_size=1, timeout_s=0.02) as pool:
        async with pool.acquire():
            with pytest.raises(OverloadedError, match=r"all 1 connections were in use for 0\.02 s") as failure:
                await pool.acquire()
            assert failure.value.hint
        assert pool.stats().timeouts == 1 and pool.stats().waiting == 0
        async with pool.acquire():
            pass


async def test_a_waiter_that_leaves_loses_no_connection() -> None:
    service = Service(1)
    async with ConnectionPool(service.connect, max_size=1) as pool:
        held = await pool.acquire()
        leaving = [asyncio.ensure_future(pool.acquire()) for _ in range(3)]
        staying = asyncio.ensure_future(pool.acquire())
        await asyncio.sleep(0)
        leaving[1].cancel()  # in the middle of the queue
        pool.release(held)  # handed to the first, which ...
        leaving[0].cancel()  # ... leaves before it can take it
        pool_of = await leaving[2]
        pool.release(pool_of)
        assert await staying is held
        pool.release(held)
        assert pool.stats().idle == 1 and service.opened == 1
        assert all(task.cancelled() for task in leaving[:2])


async def test_failures_of_the_factory_reach_who_waits_and_cost_no_room() -> None:
    service = Service(2)
    service.failing = 1.0
    async with ConnectionPool(service.connect, max_size=2) as pool:
        for outcome in await asyncio.gather(*(pool.acquire() for _ in range(10)), return_exceptions=True):
            assert isinstance(outcome, BackendError) and outcome.message == "the service is down"
        assert pool.stats().size == 0
        service.failing = 0.0
        first, second = await pool.acquire(), await pool.acquire()
        pool.release(first)
        pool.release(second)


async def test_a_factory_that_hangs_is_given_up_in_time() -> None:
    service = Service(1)
    service.hanging = True
    async with ConnectionPool(service.connect, max_size=1, timeout_s=0.02) as pool:
        with pytest.raises(DeadlineError, match="no connection could be opened within"):
            async with pool.acquire():
                pass
        service.hanging = False
        async with pool.acquire():
            pass


@pytest.mark.parametrize("outcome", ["no", "error", "hang"])
async def test_a_connection_that_fails_its_check_is_closed_and_replaced(outcome: str) -> None:
    service = Service(1)

    async def check(connection: Connection) -> bool:
        if connection.number > 1:
            return True
        if outcome == "error":
            raise OSError("gone")
        if outcome == "hang":
            await asyncio.sleep(3600)
        return False

    async with ConnectionPool(service.connect, max_size=1, validate=check, timeout_s=0.2) as pool:
        for expected in (1, 2, 2):
            async with pool.acquire() as connection:
                assert connection.number == expected
        assert pool.stats().failed_checks == 1 and pool.stats().reused == 1


async def test_old_connections_are_not_lent_again() -> None:
    service, clock = Service(1), Clock()
    async with ConnectionPool(service.connect, max_size=1, max_age_s=60, clock=clock) as pool:
        for clock.now, expected in ((0.0, 1), (59.0, 1), (60.0, 2), (70.0, 2)):
            async with pool.acquire() as connection:
                assert connection.number == expected
        assert pool.stats().recycled == 1 and service.open_now == 1


async def test_a_block_that_fails_or_is_cancelled_closes_its_connection() -> None:
    service = Service(1)
    async with ConnectionPool(service.connect, max_size=1) as pool:
        with pytest.raises(ValueError, match="mine"):
            async with pool.acquire():
                raise ValueError("mine")

        async def use() -> None:
            async with pool.acquire():
                await asyncio.sleep(3600)

        task = asyncio.create_task(use())
        await asyncio.sleep(0.01)
        task.cancel()
        async with pool.acquire() as connection:
            assert connection.number == 3
        assert task.cancelled() and service.open_now == 1


async def test_a_connection_is_given_back_once() -> None:
    service = Service(2)
    async with ConnectionPool(service.connect, max_size=2) as pool:
        async with pool.acquire() as connection:
            pool.release(connection)
            async with pool.acquire() as again:
                assert again is connection
                pool.release(again)
                other = await pool.acquire()
            # The outer block ends while another has the same connection: it is not taken from it.
        assert pool.stats().in_use == 1
        pool.release(other)
        for foreign in (other, Connection(service, 0)):
            with pytest.raises(InputError, match="not lent"):
                pool.release(foreign)


async def test_spare_connections_are_closed_when_idle_and_the_smallest_number_is_kept() -> None:
    service, clock = Service(4), Clock()
    async with ConnectionPool(service.connect, min_size=1, max_size=4, max_idle_s=10, tend_every_s=0.005, clock=clock) as pool:
        held = [await pool.acquire() for _ in range(4)]
        for connection in held:
            pool.release(connection)
        await asyncio.sleep(0.02)
        assert service.open_now == 4
        clock.now = 11
        await settled(lambda: service.open_now == 1)
        async with pool.acquire() as connection:
            pool.release(connection, broken=True)
        await settled(lambda: pool.stats().idle == 1)
        assert service.opened == 5


async def test_who_holds_a_connection_for_long_is_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    service, clock = Service(1), Clock()
    async with ConnectionPool(service.connect, max_size=1, leak_after_s=5, tend_every_s=0.005, clock=clock) as pool, pool.acquire():
        clock.now = 6
        await settled(lambda: bool(caplog.records))
        await asyncio.sleep(0.02)
        assert pool.stats().overdue == 1
    assert len(caplog.records) == 1 and "test_pool.py:" in caplog.text and "in use for 6 s" in caplog.text


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_a_forgotten_connection_frees_its_place(elsewhere: bool, caplog: pytest.LogCaptureFixture) -> None:
    service = Service(2)
    async with ConnectionPool(service.connect, max_size=1, timeout_s=30) as pool:
        held: list[Any] = [await pool.acquire()]
        waiting = asyncio.ensure_future(pool.acquire())
        await asyncio.sleep(0)

        def forget() -> None:
            held.clear()
            gc.collect()

        if elsewhere:
            thread = threading.Thread(target=forget)
            thread.start()
            thread.join()
        else:
            forget()
        pool.release(await waiting)
        assert pool.stats().leaked == 1 and pool.stats().size == 1
    assert "never given back" in caplog.text and "test_pool.py:" in caplog.text
    service.open_now -= 1  # the forgotten one


async def test_connections_that_cannot_be_watched_are_lent_all_the_same() -> None:
    closed: list[object] = []

    async def connect() -> tuple[int, int]:
        return (1, 2)

    async with ConnectionPool(connect, max_size=1, close=closed.append) as pool:
        async with pool.acquire() as connection:
            assert connection == (1, 2)
        pool.release(await pool.acquire())
    assert closed == [(1, 2)]


@pytest.mark.parametrize(("min_size", "max_size"), [(-1, 2), (3, 2), (0, 0)])
def test_sizes_that_make_no_sense_are_refused(min_size: int, max_size: int) -> None:
    with pytest.raises(InputError, match="a pool of"):
        ConnectionPool(Service(1).connect, min_size=min_size, max_size=max_size)


def test_what_fails_in_a_check_or_a_close_is_named_by_its_kind_alone(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def fail(_: object) -> bool:
        raise OSError("postgres://user:secret@host")

    async def use() -> None:
        async with ConnectionPool(Service(2).connect, max_size=1, validate=fail, close=fail) as pool:
            for _ in range(2):
                async with pool.acquire():
                    pass

    asyncio.run(use())
    assert "OSError" in caplog.text and "secret" not in caplog.text


@pytest.mark.parametrize("seed", range(8))
async def test_whatever_happens_there_are_never_too_many_and_none_is_lost(seed: int) -> None:
    chance = random.Random(seed)

    async def pause() -> None:
        for _ in range(chance.randrange(3)):
            await asyncio.sleep(0)

    most = chance.randrange(1, 6)
    service = Service(most, pause)
    service.failing = chance.choice([0.0, 0.1, 0.5])
    clock = Clock()
    users, too_many = 0, 0
    pool = ConnectionPool(
        service.connect,
        min_size=0,
        max_size=most,
        timeout_s=5,
        validate=service.check if chance.random() < 0.7 else None,
        max_age_s=20,
        max_idle_s=5,
        tend_every_s=0.001,
        clock=clock,
    )

    async def use() -> None:
        nonlocal users, too_many
        try:
            async with pool.acquire() as connection:
                users += 1
                too_many = max(too_many, users)
                clock.now += 1
                assert connection.alive
                try:
                    await pause()
                    if chance.random() < 0.1:
                        raise ValueError("mine")
                    assert connection.alive
                finally:
                    users -= 1
        except (BackendError, ValueError):
            pass

    tasks: list[asyncio.Task[None]] = []
    for _ in range(600):
        tasks.append(asyncio.create_task(use()))
        if chance.random() < 0.4:
            chance.choice(tasks[-20:]).cancel()
        if chance.random() < 0.5:
            await asyncio.sleep(0)
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(outcome is None or isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
    assert 0 < too_many <= most and service.highest <= most
    service.failing = 0.0
    everything = await asyncio.wait_for(asyncio.gather(*(pool.acquire() for _ in range(most))), 5)
    assert len({connection.number for connection in everything}) == most == pool.stats().in_use
    for connection in everything:
        pool.release(connection)
    await pool.close()
    assert service.open_now == 0 and pool.stats().size == 0 and pool.stats().leaked == 0


def test_the_size_of_a_pool_follows_from_its_load() -> None:
    assert pool_size(100, 0.05, headroom=0) == 5
    assert pool_size(30, 0.1, headroom=0) == 3
    assert pool_size(100, 0.05) == 10
    assert pool_size(10_000, 0.01, headroom=2) == 120
    assert pool_size(0, 5) == 1
    for rate, seconds in ((-1.0, 1.0), (1.0, float("nan")), (float("inf"), 1.0)):
        with pytest.raises(InputError):
            pool_size(rate, seconds)


async def test_a_server_that_drops_idle_connections_is_not_noticed_by_who_checks() -> None:
    streams: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        streams.append(writer)
        while line := await reader.readline():
            writer.write(line.upper())
        writer.close()

    async def connect() -> Stream:
        return Stream(*await asyncio.open_connection("127.0.0.1", port))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, ConnectionPool(connect, min_size=2, max_size=2, validate=Stream.ping, timeout_s=5) as pool:
        for _ in range(3):
            async with pool.acquire() as first, pool.acquire() as second:
                one, two = await asyncio.gather(first.ask("one"), second.ask("two"))
                assert (one, two) == ("ONE", "TWO")
            for stream in streams:
                stream.close()
        stats = pool.stats()
        assert (stats.failed_checks, stats.created) == (4, 6)


class Stream:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self, text: str) -> str:
        self.writer.write(f"{text}\n".encode())
        return (await self.reader.readline()).decode().strip()

    async def ping(self) -> bool:
        return await self.ask("ping") == "PING"

    async def close(self) -> None:
        self.writer.close()
