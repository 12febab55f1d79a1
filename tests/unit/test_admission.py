from __future__ import annotations

import asyncio

import pytest

from ragline.concurrency.adaptive_limit import AdaptiveLimit
from ragline.concurrency.admission import BURST_S, STANDING_S, Admission
from ragline.errors import OverloadedError
from tests.virtual_time import run_in_virtual_time


def admission(places: int, **options: int) -> Admission:
    clock = asyncio.get_running_loop().time
    return Admission("tests", AdaptiveLimit(places, lowest=1, highest=places, clock=clock), clock=clock, **options)


def test_those_who_wait_come_in_by_turns() -> None:
    async def scene() -> None:
        door = admission(1)
        inside = await door.enter("a")
        order: list[int] = []

        async def come(number: int) -> None:
            async with await door.enter("a"):
                order.append(number)

        waiting = [asyncio.create_task(come(number)) for number in range(5)]
        await asyncio.sleep(0)
        assert door.waiting == 5
        inside.leave()
        await asyncio.gather(*waiting)
        assert order == [0, 1, 2, 3, 4]
        assert door.in_flight == door.waiting == 0

    run_in_virtual_time(scene())


def test_who_waits_in_vain_is_refused_and_told_when_to_come_back() -> None:
    async def scene() -> None:
        door = admission(1)
        inside = await door.enter("a")
        came = asyncio.get_running_loop().time()
        with pytest.raises(OverloadedError) as refused:
            await door.enter("a")
        assert asyncio.get_running_loop().time() - came == pytest.approx(BURST_S)
        assert refused.value.retry_after_s and refused.value.retry_after_s >= 1
        assert door.waiting == 0 and door.refused == 1
        inside.leave()
        async with await door.enter("a"):
            pass

    run_in_virtual_time(scene())


def test_more_of_a_call_comes_in_only_where_nobody_waits() -> None:
    async def scene() -> None:
        door = admission(2)
        first, more = await door.enter("a"), door.enter_now("a")
        assert more is not None and door.in_flight == 2 and door.enter_now("a") is None
        waiting = asyncio.create_task(door.enter("a"))
        await asyncio.sleep(0)
        more.leave()
        assert door.enter_now("a") is None, "who waited has it"
        first.leave()
        (await waiting).leave()
        assert door.in_flight == 0

    run_in_virtual_time(scene())


def test_of_calls_that_share_a_place_each_says_how_long_it_took() -> None:
    async def scene() -> None:
        door = admission(16)
        for parts in (1, 9):
            place = await door.enter("a")
            for number in range(parts):
                await asyncio.sleep(0.1)
                place.part_ended("a" if number != 3 else None)
            await asyncio.sleep(5)
            place.leave()
        assert door.limit.base_s("a") == pytest.approx(0.1) and door.served == 2

    run_in_virtual_time(scene())


def test_a_queue_has_an_end() -> None:
    async def scene() -> None:
        door = admission(1, most_waiting=2)
        inside = await door.enter("a")
        waiting = [asyncio.create_task(door.enter("a")) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError):
            await door.enter("a")
        inside.leave()
        (await waiting[0]).leave()
        (await waiting[1]).leave()
        assert door.in_flight == 0

    run_in_virtual_time(scene())


def test_who_leaves_the_queue_frees_its_place() -> None:
    async def scene() -> None:
        door = admission(1, most_waiting=2)
        inside = await door.enter("a")
        leaving, staying = asyncio.create_task(door.enter("a")), asyncio.create_task(door.enter("a"))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.wait({leaving})
        assert door.waiting == 1
        inside.leave()
        (await staying).leave()
        assert door.in_flight == door.waiting == 0

    run_in_virtual_time(scene())


def test_who_leaves_in_the_moment_of_being_let_in_keeps_no_place() -> None:
    async def scene() -> None:
        door = admission(1)
        inside = await door.enter("a")
        waiting = asyncio.create_task(door.enter("a"))
        await asyncio.sleep(0)
        inside.leave()
        waiting.cancel()
        await asyncio.wait({waiting})
        assert door.in_flight == 0

    run_in_virtual_time(scene())


def test_a_place_is_left_once_whatever_happens_inside() -> None:
    async def scene() -> None:
        door = admission(2)
        place = await door.enter("a")
        place.leave()
        place.leave()
        assert door.in_flight == 0
        with pytest.raises(ValueError, match="inside"):
            async with await door.enter("a"):
                raise ValueError("inside")
        assert door.in_flight == 0

    run_in_virtual_time(scene())


class Crowd:
    """Calls of 0.1 s each, and what became of them by the second in which they came."""

    def __init__(self, door: Admission) -> None:
        self._door = door
        self._under_way: set[asyncio.Task[None]] = set()
        self.refused: list[float] = []
        self.waited: dict[float, float] = {}

    async def come(self, bursts: int, many: int, every_s: float) -> None:
        for _ in range(bursts):
            self._under_way |= {asyncio.create_task(self._call()) for _ in range(many)}
            await asyncio.sleep(every_s)

    async def leave(self) -> None:
        await asyncio.gather(*self._under_way)

    async def _call(self) -> None:
        clock = asyncio.get_running_loop().time
        came = clock()
        try:
            async with await self._door.enter("a"):
                self.waited[came] = max(self.waited.get(came, 0.0), clock() - came)
                await asyncio.sleep(0.1)
        except OverloadedError:
            self.refused.append(came)


def test_a_burst_is_not_refused_for_how_few_came_before() -> None:
    async def scene() -> None:
        crowd = Crowd(door := admission(4))
        await crowd.come(60, 1, 1.0)
        await crowd.come(1, 16, 1.0)  # four times 0.1 s, within what one may wait
        await crowd.leave()
        assert not crowd.refused and max(crowd.waited.values()) == pytest.approx(0.3)
        assert not door.crowded

    run_in_virtual_time(scene())


def test_a_call_of_a_quick_kind_waits_for_those_before_it_as_any_other() -> None:
    async def scene() -> None:
        door = admission(4)
        for kind, takes_s in (("quick", 0.005), ("slow", 2.0)):
            for _ in range(8):
                async with await door.enter(kind):
                    await asyncio.sleep(takes_s)
        inside = [await door.enter("slow") for _ in range(4)]
        waiting = [asyncio.create_task(door.enter("slow")) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError):
            door.must_not_be_full("quick")
        for place in inside:
            place.leave()
        for place in await asyncio.gather(*waiting):
            place.leave()

    run_in_virtual_time(scene())


@pytest.mark.parametrize(("stood_s", "patient"), [(STANDING_S - 0.2, True), (STANDING_S + 0.4, False)])
def test_a_queue_that_stands_is_bursts_at_first_and_then_more_than_can_be_served(stood_s: float, patient: bool) -> None:
    async def scene() -> None:
        crowd = Crowd(admission(1))
        await crowd.come(60, 1, 1.0)
        began = asyncio.get_running_loop().time()
        await crowd.come(1, 3, 0.0)
        await crowd.come(round(stood_s / 0.1), 1, 0.1)  # one comes for each that leaves, so that two always wait
        await crowd.leave()
        assert bool(crowd.refused) == (not patient)
        assert min(crowd.refused, default=began + STANDING_S) >= began + STANDING_S - 0.1

    run_in_virtual_time(scene())


def test_after_a_crowd_bursts_are_waited_for_again_though_some_of_them_were_refused() -> None:
    async def scene() -> None:
        clock = asyncio.get_running_loop().time
        door = Admission("tests", AdaptiveLimit(10, lowest=10, highest=10, clock=clock), clock=clock)
        crowd, started = Crowd(door), asyncio.get_running_loop().time()
        await crowd.come(300, 3, 0.01)
        assert door.crowded
        calm = asyncio.get_running_loop().time()
        await crowd.come(25, 13, 0.4)
        await crowd.leave()
        refused = [came for came in crowd.refused if came > calm]
        assert refused and max(refused) < calm + 7 and not door.crowded
        assert min(crowd.refused) < started + 3

    run_in_virtual_time(scene())


def test_while_half_of_those_who_come_are_refused_nobody_waits_for_long() -> None:
    async def scene() -> None:
        door = admission(10)
        crowd, started = Crowd(door), asyncio.get_running_loop().time()
        await crowd.come(1000, 2, 0.01)
        await crowd.leave()
        late = [waited for came, waited in crowd.waited.items() if came > started + 3]
        assert door.crowded and max(late) < 0.2
        assert door.served > 800

    run_in_virtual_time(scene())
