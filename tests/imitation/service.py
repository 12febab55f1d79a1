"""Something to connect to, which counts who is connected and can be made to fail."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from ragline.errors import BackendError


class Connection:
    def __init__(self, service: Service, number: int) -> None:
        self.service, self.number, self.alive = service, number, True

    async def aclose(self) -> None:
        await self.service.pause()
        assert self.alive, "closed twice"
        self.alive = False
        self.service.open_now -= 1


class Service:
    def __init__(self, most: int, pause: Callable[[], Awaitable[None]] | None = None) -> None:
        self.most, self.open_now, self.opened, self.highest = most, 0, 0, 0
        self.pause = pause or (lambda: asyncio.sleep(0))
        self.failing = 0.0
        self.hanging = False
        self.random = random.Random(4)

    async def connect(self) -> Connection:
        self.open_now += 1
        self.highest = max(self.highest, self.open_now)
        assert self.open_now <= self.most, "more connections than allowed"
        try:
            await self.pause()
            if self.hanging:
                await asyncio.sleep(3600)
            if self.random.random() < self.failing:
                raise BackendError("the service is down", hint="start it")
        except BaseException:
            self.open_now -= 1
            raise
        self.opened += 1
        return Connection(self, self.opened)

    async def check(self, connection: Connection) -> bool:
        await self.pause()
        return connection.alive and self.random.random() >= self.failing
