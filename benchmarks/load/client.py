"""A light HTTP client that asks as much as it is told to: `python client.py` reads a plan from standard input, and prints what came of it.

A closed plan keeps so many connections busy; an open one sends at a rate whatever comes back, and counts each wait from the moment at
which its request was due.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import uvloop

Done = Callable[[int, bytes], None]


@dataclass
class Plan:
    """What to send.

    Attributes:
        bodies: JSON texts, sent in turn.
        rate: Requests a second; None keeps all connections busy.
        seconds: How long; what was sent earlier than `skip_s` is not counted.
        core: The core to stay on; None for any.
    """

    host: str
    port: int
    path: str
    bodies: Sequence[str]
    connections: int
    seconds: float
    rate: float | None = None
    skip_s: float = 1.0
    core: int | None = None
    first: int = 0


@dataclass
class Tally:
    """What came back."""

    statuses: Counter[int] = field(default_factory=Counter)
    took_s: list[float] = field(default_factory=list)
    refused_s: list[float] = field(default_factory=list)
    degraded: int = 0
    counted_s: float = 0.0


class Connection(asyncio.Protocol):
    """One request at a time, over and over."""

    def __init__(self) -> None:
        self._buffer = b""
        self._done: Done | None = None
        self.transport: asyncio.Transport | None = None
        self.lost = False
        self.is_last = False  # the server said that it ends it after this answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        if self._done is not None:
            done, self._done = self._done, None
            done(0, b"")

    def send(self, request: bytes, done: Done) -> None:
        assert self.transport is not None
        self._done = done
        self.transport.write(request)

    def close(self) -> None:
        self._done = None
        if self.transport is not None:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head_end = self._buffer.find(b"\r\n\r\n")
        if head_end < 0:
            return
        head = self._buffer[:head_end].lower()
        at = head.find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(self._buffer) < head_end + 4 + length or self._done is None:
            return
        status, body = int(self._buffer[9:12]), self._buffer[head_end + 4 : head_end + 4 + length]
        self._buffer = self._buffer[head_end + 4 + length :]
        self.is_last = b"\r\nconnection: close" in head
        done, self._done = self._done, None
        done(status, body)


class Load:
    """Carries out a plan."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._tally = Tally()
        self._all: list[Connection] = []
        self._free: deque[Connection] = deque()
        self._due: deque[float] = deque()
        self._opening: set[asyncio.Task[None]] = set()
        self._number = plan.first
        head = f"POST {plan.path} HTTP/1.1\r\nHost: {plan.host}\r\nContent-Type: application/json\r\n"
        self._requests = [head.encode() + f"Content-Length: {len(body.encode())}\r\n\r\n".encode() + body.encode() for body in plan.bodies]

    async def run(self) -> Tally:
        plan, loop = self._plan, asyncio.get_running_loop()
        for _ in range(plan.connections):
            self._all.append((await loop.create_connection(Connection, plan.host, plan.port))[1])
        self._free.extend(self._all)
        self._started = time.perf_counter()
        self._ends = self._started + plan.seconds
        loop.add_signal_handler(signal.SIGTERM, self._stop)
        if plan.rate is None:
            for connection in list(self._free):
                self._next(connection, time.perf_counter())
            self._free.clear()
            await asyncio.sleep(plan.seconds)
        else:
            await self._at_rate(plan.rate)
        self._tally.counted_s = self._ends - self._started - plan.skip_s
        if self._opening:
            await asyncio.wait(self._opening)
        for connection in self._all:
            connection.close()
        await asyncio.sleep(0)  # in which they are
        return self._tally

    def _stop(self) -> None:
        self._ends = time.perf_counter()

    async def _at_rate(self, rate: float) -> None:
        sent = 0
        while (now := time.perf_counter()) < self._ends:
            due = int((now - self._started) * rate)
            while sent < due:
                sent += 1
                self._due.append(self._started + sent / rate)
            self._serve_due()
            await asyncio.sleep(0.001)

    def _serve_due(self) -> None:
        while self._due and self._free:
            connection = self._free.popleft()  # in turn: connections may be of different processes
            if connection.lost:  # while it was idle
                self._tally.statuses[0] += 1
            else:
                self._next(connection, self._due.popleft())

    def _next(self, connection: Connection, due: float) -> None:
        request = self._requests[self._number % len(self._requests)]
        self._number += 1

        def done(status: int, body: bytes) -> None:
            now = time.perf_counter()
            if now < self._ends and due - self._started >= self._plan.skip_s:
                self._tally.statuses[status] += 1
                if status in (200, 202):
                    self._tally.took_s.append(now - due)
                    self._tally.degraded += b'"load_' in body
                else:
                    self._tally.refused_s.append(now - due)
            if connection.is_last and now < self._ends:
                opening = asyncio.get_running_loop().create_task(self._instead_of(connection, now))
                self._opening.add(opening)
                opening.add_done_callback(self._opening.discard)
            elif not connection.lost and now < self._ends:
                self._go_on(connection, now)

        connection.send(request, done)

    def _go_on(self, connection: Connection, now: float) -> None:
        if self._plan.rate is None:
            self._next(connection, now)
        else:
            self._free.append(connection)
            self._serve_due()

    async def _instead_of(self, ended: Connection, due: float) -> None:
        """A new connection for one that the server ended, as it had said; to open it is part of the next request's time."""
        try:
            opened = (await asyncio.get_running_loop().create_connection(Connection, self._plan.host, self._plan.port))[1]
        except OSError:
            self._tally.statuses[0] += 1
            return
        self._all[self._all.index(ended)] = opened
        ended.close()
        if time.perf_counter() < self._ends:
            self._go_on(opened, due)


def summary(tally: Tally, cpu_s: float, wall_s: float) -> dict[str, Any]:
    """What is told of a run."""
    good = len(tally.took_s)
    return {
        "good_per_s": good / tally.counted_s,
        "statuses": {str(status): count for status, count in sorted(tally.statuses.items())},
        "degraded": tally.degraded,
        **{f"p{q}_ms": _percentile(tally.took_s, q) for q in (50, 95, 99)},
        "refusal_p50_ms": _percentile(tally.refused_s, 50),
        "client_cpu": cpu_s / wall_s,
    }


def _percentile(values: Sequence[float], percent: float) -> float | None:
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] * 1000, 2) if ordered else None


def main() -> None:
    plan = Plan(**json.load(sys.stdin))
    if plan.core is not None:
        os.sched_setaffinity(0, {plan.core})
    wall, cpu = time.perf_counter(), time.process_time()
    tally = uvloop.run(Load(plan).run())
    print(json.dumps(summary(tally, time.process_time() - cpu, time.perf_counter() - wall)))


if __name__ == "__main__":
    main()
