"""How a pool of connections ends, and where it may be used."""

from __future__ import annotations

import asyncio

import pytest

from ragline.concurrency.pool import ConnectionPool
from ragline.errors import BackendError
from tests.imitation.service import Connection, Service


async def test_closing_waits_for_those_in_use_and_refuses_others() -> None:
    service = Service(1)
    pool = ConnectionPool(service.connect, max_size=1)
    held = await pool.acquire()
    waiting = asyncio.ensure_future(pool.acquire())
    await asyncio.sleep(0)
    closing = [asyncio.create_task(pool.close()) for _ in range(2)]
    with pytest.raises(BackendError, match="closed"):
        await waiting
    with pytest.raises(BackendError, match="closed"):
        await pool.acquire()
    assert not closing[0].done() and held.alive
    pool.release(held)
    await asyncio.gather(*closing)
    await pool.close()
    assert not held.alive


async def test_closing_ends_also_where_a_connection_is_held_or_cannot_be_closed(caplog: pytest.LogCaptureFixture) -> None:
    async def hang(connection: Connection) -> None:
        await asyncio.sleep(3600)

    service = Service(1)
    pool = ConnectionPool(service.connect, max_size=1, close_timeout_s=0.03)
    held = await pool.acquire()
    await pool.close()
    assert not held.alive and "closed while a connection acquired at" in caplog.text
    stubborn = ConnectionPool(Service(1).connect, max_size=1, close=hang, close_timeout_s=0.03)
    async with stubborn, stubborn.acquire():
        pass
    assert stubborn.stats().size == 0


async def test_closing_while_a_connection_is_opened_leaves_none_open() -> None:
    service = Service(1, pause=lambda: asyncio.sleep(0.02))
    pool = ConnectionPool(service.connect, max_size=1)
    opening = asyncio.ensure_future(pool.acquire())
    await asyncio.sleep(0.001)
    await pool.close()
    with pytest.raises(BackendError, match="closed"):
        await opening
    assert service.open_now == 0


def test_a_pool_serves_one_event_loop() -> None:
    service = Service(1)
    pool = ConnectionPool(service.connect, max_size=1)

    async def use() -> None:
        async with pool.acquire():
            pass

    asyncio.run(use())
    with pytest.raises(BackendError, match="another event loop"):
        asyncio.run(use())
