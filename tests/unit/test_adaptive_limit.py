"""Admission under more than can be served, in virtual time: nothing is measured here, all is computed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from ragline.concurrency.adaptive_limit import AdaptiveLimit
from ragline.concurrency.admission import Admission
from ragline.errors import OverloadedError
from tests.virtual_time import run_in_virtual_time

Work = Callable[[random.Random], Awaitable[None]]


class Servers:
    """So many at once; the others queue, as behind threads or connections."""

    def __init__(self, count: int) -> None:
        self._free = asyncio.Semaphore(count)

    async def serve(self, seconds: float) -> None:
        async with self._free:
            await asyncio.sleep(seconds)


def searches() -> Work:
    """Two cores: 667 a second."""
    cores = Servers(2)
    return lambda chance: cores.serve(chance.gammavariate(4, 0.003 / 4))


def answers() -> Work:
    """A language model that takes 0.2 s over 20 connections: 100 a second."""
    cores, connections = Servers(2), Servers(20)

    async def work(chance: random.Random) -> None:
        await cores.serve(0.003)
        await connections.serve(chance.gauss(0.2, 0.01))

    return work


@dataclass
class Outcome:
    """Of the requests after the first seconds."""

    served_s: list[float] = field(default_factory=list)
    refused_s: list[float] = field(default_factory=list)
    retry_after_s: list[float] = field(default_factory=list)
    limit: int = 0

    @property
    def p99_s(self) -> float:
        return sorted(self.served_s)[int(0.99 * len(self.served_s))]


async def _offered(make: Callable[[], Work], rate: float, seconds: float, skip_s: float) -> Outcome:
    loop, chance, outcome = asyncio.get_running_loop(), random.Random(1), Outcome()
    limit = AdaptiveLimit(clock=loop.time)
    admission, work = Admission("tests", limit, clock=loop.time), make()

    async def one(counted: bool) -> None:
        came = loop.time()
        try:
            async with await admission.enter("work"):
                await work(chance)
        except OverloadedError as refusal:
            if counted:
                outcome.refused_s.append(loop.time() - came)
                outcome.retry_after_s.append(refusal.retry_after_s or 0)
        else:
            if counted:
                outcome.served_s.append(loop.time() - came)

    begun = loop.time()
    async with asyncio.TaskGroup() as group:
        while loop.time() - begun < seconds:
            early = loop.time() - begun < 2  # as a server wakes up: not at once with all that can come
            await asyncio.sleep(chance.expovariate(rate / 10 if early else rate))
            group.create_task(one(loop.time() - begun > skip_s))
    outcome.limit = limit.now
    assert admission.in_flight == 0 and admission.waiting == 0
    return outcome


def offered(make: Callable[[], Work], rate: float, *, seconds: float = 12, skip_s: float = 6) -> Outcome:
    return run_in_virtual_time(_offered(make, rate, seconds, skip_s))


@pytest.mark.parametrize(("work", "capacity"), [(searches, 667.0), (answers, 100.0)])
def test_four_times_what_can_be_served_is_served_at_peak_and_in_time(work: Callable[[], Work], capacity: float) -> None:
    alone = offered(work, capacity / 20, seconds=30, skip_s=0)
    assert not alone.refused_s
    crowd = offered(work, capacity * 4)
    assert len(crowd.served_s) / 6 >= 0.9 * capacity
    assert crowd.p99_s <= 2.7 * alone.p99_s
    assert sorted(crowd.refused_s)[len(crowd.refused_s) // 2] == 0, "most are refused at the door"
    assert all(1 <= seconds <= 60 for seconds in crowd.retry_after_s)


@pytest.mark.parametrize(("work", "rate"), [(searches, 400.0), (answers, 70.0)])
def test_what_can_be_served_is_not_refused(work: Callable[[], Work], rate: float) -> None:
    assert not offered(work, rate, skip_s=0).refused_s


def test_the_limit_grows_to_what_there_is() -> None:
    def many() -> Work:
        connections = Servers(100)
        return lambda chance: connections.serve(chance.gauss(0.2, 0.01))

    crowd = offered(many, 600, seconds=20, skip_s=10)
    assert 90 <= crowd.limit <= 180
    assert len(crowd.served_s) / 10 >= 450


@pytest.mark.parametrize(("quick_s", "grows"), [(0.0, False), (0.1, True)])
def test_what_is_quick_enough_does_not_shrink_it(quick_s: float, grows: bool) -> None:
    limit = AdaptiveLimit(quick_s=quick_s, clock=lambda: 0.0)
    for took_s in (0.005, *[0.05] * 20):  # alone, then in a crowd
        crowd = 1 if took_s == 0.005 else limit.now
        for _ in range(max(8, crowd)):
            limit.began(crowd)
            limit.ended("work", took_s, crowd)
    assert (limit.now > 16) == grows and (limit.now <= 4) == (not grows)
    for _ in range(40):
        for _ in range(limit.now + 8):
            limit.began(limit.now)
            limit.ended("work", 0.25 * limit.now, limit.now)
    assert limit.now <= 4, "what takes the longer the more there are does"


@pytest.mark.parametrize("leaves", [True, False])
def test_it_grows_from_the_lowest_again_where_that_is_not_all_there_is(leaves: bool) -> None:
    limit = AdaptiveLimit(16, lowest=2, leaves_lowest=leaves, clock=lambda: 0.0)
    for took_s, crowd in ((0.1, 1), *[(2.0, 16)] * 20):
        for _ in range(16):
            limit.began(crowd)
            limit.ended("work", took_s, crowd)
    assert limit.now == 2
    for _ in range(50):
        for _ in range(16):
            limit.began(limit.now)
            limit.ended("work", 0.1, limit.now)
    assert limit.now > 8 if leaves else limit.now == 2


@pytest.mark.parametrize(("took_s", "soon"), [(0.05, True), (0.15, False)])
def test_what_is_far_quicker_than_it_must_be_has_a_small_limit_grow_by_halves(took_s: float, soon: bool) -> None:
    limit = AdaptiveLimit(16, quick_s=0.2, clock=lambda: 0.0)
    for slow_s, crowd in ((0.05, 1), *[(3.0, 16)] * 20):
        for _ in range(16):
            limit.began(crowd)
            limit.ended("work", slow_s, crowd)
    assert limit.now == 2
    needed = 0
    while limit.now < 8:
        needed += 1
        for _ in range(8):
            limit.began(limit.now)
            limit.ended("work", took_s, limit.now)
    assert (needed < 12) == soon


def test_it_does_not_grow_by_halves_for_new_kinds_while_a_known_one_is_slow() -> None:
    limit = AdaptiveLimit(16, quick_s=0.2, clock=lambda: 0.0)
    for slow_s, crowd in ((0.05, 1), *[(3.0, 16)] * 20):
        for _ in range(16):
            limit.began(crowd)
            limit.ended("known", slow_s, crowd)
    limit.began(limit.now)
    for number in range(7):
        limit.ended(f"new {number}", 0.001, limit.now)
    limit.ended("known", 0.6, limit.now)
    assert limit.now == 2


def test_the_first_calls_that_open_models_are_soon_one_among_others() -> None:
    limit = AdaptiveLimit(clock=lambda: 0.0)
    for took_s in (1.0, 0.2, 0.2, 0.2):
        for _ in range(limit.now):
            limit.began(1)
            limit.ended("work", took_s, 1)
    assert limit.base_s("work") == pytest.approx(0.4)


def test_a_limit_with_a_fraction_is_used_up_by_whole_calls() -> None:
    limit = AdaptiveLimit(4, clock=lambda: 0.0)
    limit._limit = 3.9
    for crowd in (1, *[limit.now] * 8):
        for _ in range(8):
            limit.began(crowd)
            limit.ended("work", 0.01, crowd)
    assert limit.now > 3


def test_known_lengths_are_of_their_kind() -> None:
    limit = AdaptiveLimit(clock=lambda: 0.0)
    for _ in range(16):
        limit.began(1)
        limit.ended("short", 0.001, 1)
        limit.ended("long", 1.0, 1)
    assert limit.base_s("short") == pytest.approx(0.001)
    assert limit.base_s("long") == pytest.approx(1.0)
    assert limit.base_s("never seen") is None


def test_kinds_without_end_are_not_remembered() -> None:
    limit = AdaptiveLimit(clock=lambda: 0.0)
    for number in range(1000):
        limit.ended(str(number), 0.1, 1)
    assert sum(limit.base_s(str(number)) is not None for number in range(1000)) <= 64
