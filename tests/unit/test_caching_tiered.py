from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from ragline.caching.base import CacheStats
from ragline.caching.forgotten import Forgotten
from ragline.caching.memory import MemoryCache
from ragline.caching.sealing import Sealed, seal, unseal
from ragline.caching.tiered import TieredCache
from ragline.errors import InputError
from ragline.types import Scope
from tests.imitation.second_tier import Fault, SecondTier

HERE = Scope("acme", "handbook")
FAULTS: list[Fault] = ["fails", "hangs", "ignores cancelling", "cancels", "late"]


def encode(value: Any) -> bytes:
    return json.dumps(value).encode()


class Tiers:
    def __init__(self, **options: Any) -> None:
        self.first: MemoryCache[Any] = MemoryCache(1000)
        self.second = SecondTier()
        self.cache: TieredCache[Any] = TieredCache(
            self.first, self.second, encode, json.loads, **{"timeout_s": 0.02, "rest_s": 0.05, **options}
        )

    async def from_second(self, key: str) -> Any:
        """What the tiers give once the first one has forgotten it."""
        await self.first.clear()
        return await self.cache.get(HERE, key)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.002)


@pytest.fixture
async def tiers() -> AsyncIterator[Tiers]:
    made = Tiers()
    yield made
    made.second.release.set()
    await made.cache.close()


async def written(tiers: Tiers, key: str, value: Any, **options: Any) -> None:
    await tiers.cache.set(HERE, key, value, **options)
    await until(lambda: tiers.cache.stats().waiting == 0)


async def test_what_the_first_tier_let_go_comes_from_the_second(tiers: Tiers) -> None:
    await written(tiers, "a", {"n": 1})
    assert await tiers.from_second("a") == {"n": 1}
    assert await tiers.cache.get(HERE, "a") == {"n": 1}
    stats = tiers.cache.stats()
    assert (stats.first_hits, stats.second_hits, stats.hits, stats.misses, tiers.second.calls["get"]) == (1, 1, 2, 0, 1)


async def test_what_the_first_tier_let_go_before_it_was_written_is_not_lost(tiers: Tiers) -> None:
    tiers.second.fault, tiers.second.only = "hangs", ("set",)
    await tiers.cache.set(HERE, "a", 1)
    await tiers.cache.set(HERE, "b", 2)
    assert await tiers.from_second("b") == 2
    assert tiers.second.calls["get"] == 0


async def test_a_hit_of_the_first_tier_asks_the_second_nothing(tiers: Tiers) -> None:
    await written(tiers, "a", 1)
    tiers.second.calls.clear()
    for _ in range(5):
        assert await tiers.cache.get(HERE, "a") == 1
    assert not tiers.second.calls


async def test_callers_of_one_key_share_one_lookup(tiers: Tiers) -> None:
    await written(tiers, "a", 1)
    await tiers.first.clear()
    assert await asyncio.gather(*(tiers.cache.get(HERE, "a") for _ in range(50))) == [1] * 50
    assert tiers.second.calls["get"] == 1


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_second_tier_that_fails_is_a_miss_and_then_left_alone(tiers: Tiers, fault: Fault, caplog: pytest.LogCaptureFixture) -> None:
    tiers.second.fault = fault
    with caplog.at_level(logging.WARNING):
        for number in range(30):
            assert await tiers.cache.get(HERE, f"key {number}") is None
    stats = tiers.cache.stats()
    assert stats.resting
    assert 5 <= stats.failures <= 12
    assert stats.unasked == 30 - stats.failures
    assert len(caplog.records) == 1
    assert "secret" not in caplog.text


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_second_tier_that_fails_is_in_nobodys_way(tiers: Tiers, fault: Fault) -> None:
    tiers.second.fault = fault
    for number in range(50):
        await tiers.cache.set(HERE, f"key {number}", number)
        assert await tiers.cache.get(HERE, f"key {number}") == number
    await tiers.cache.delete(HERE, "key 1")
    await tiers.cache.clear(HERE, prefix="key 2")
    found = [await tiers.first.get(HERE, f"key {number}") for number in (0, 1, 2, 20, 3)]
    assert found == [0, None, None, None, 3]
    async with asyncio.timeout(5):
        await tiers.cache.close()


async def test_a_second_tier_that_is_well_again_is_used_again(tiers: Tiers) -> None:
    await written(tiers, "a", 1)
    tiers.second.fault = "fails"
    for _ in range(10):
        assert await tiers.from_second("a") is None
    tiers.second.fault = ""
    async with asyncio.timeout(10):
        while await tiers.from_second("a") is None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert not tiers.cache.stats().resting


@pytest.mark.parametrize(
    "garbage",
    [b"", b"garbage", b"rgl1", bytes(1000), seal(Sealed(b"not json", 1 << 61, None)), seal(Sealed(b"\xff\xfe", 1 << 61, None))],
)
async def test_garbage_is_a_miss(tiers: Tiers, garbage: bytes) -> None:
    await tiers.second.values.set(HERE, "a", garbage)
    assert await tiers.cache.get(HERE, "a") is None
    assert tiers.cache.stats().garbage == 1
    await written(tiers, "a", 1)
    assert await tiers.from_second("a") == 1


async def test_every_cut_and_every_flipped_bit_is_garbage() -> None:
    stored = seal(Sealed(b"payload", 5, 7))
    assert unseal(stored) == Sealed(b"payload", 5, 7)
    assert unseal(seal(Sealed(b"", 5, None))) == Sealed(b"", 5, None)
    assert not any(unseal(stored[:length]) for length in range(len(stored)))
    for place in range(len(stored) * 8):
        flipped = bytearray(stored)
        flipped[place // 8] ^= 1 << place % 8
        assert unseal(bytes(flipped)) is None


async def test_a_second_tier_that_gives_other_things_than_bytes_is_a_miss(tiers: Tiers) -> None:
    await tiers.second.values.set(HERE, "a", "text")  # type: ignore[arg-type]
    assert await tiers.cache.get(HERE, "a") is None
    assert tiers.cache.stats().garbage == 1


async def test_a_value_that_cannot_be_encoded_stays_in_the_first_tier(tiers: Tiers) -> None:
    value = object()
    await written(tiers, "a", value)
    assert await tiers.cache.get(HERE, "a") is value
    assert tiers.cache.stats().dropped == 1
    assert tiers.cache.stats().failures == 0


async def test_what_comes_from_the_second_tier_lives_no_longer_than_it_was_meant_to(tiers: Tiers, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    await written(tiers, "a", 1, ttl_s=100)
    now_ns = time.time_ns()
    monkeypatch.setattr("ragline.caching.tiered.time.time_ns", lambda: now_ns + 99_000_000_000)
    assert await tiers.from_second("a") == 1
    monkeypatch.setattr("ragline.caching.tiered.time.time_ns", lambda: now_ns + 101_000_000_000)
    assert await tiers.from_second("a") is None
    assert tiers.cache.stats().outdated == 1


async def test_the_first_tier_may_be_bounded_further() -> None:
    tiers = Tiers(first_ttl_s=0.01)
    await written(tiers, "a", 1)
    await asyncio.sleep(0.02)
    assert await tiers.cache.get(HERE, "a") == 1
    assert tiers.cache.stats().second_hits == 1
    await tiers.cache.close()


async def test_clear_reaches_both_tiers(tiers: Tiers) -> None:
    for key in ("a/1", "a/2", "b"):
        await written(tiers, key, key)
    await tiers.cache.clear(HERE, prefix="a/")
    assert [await tiers.second.values.get(HERE, key) is None for key in ("a/1", "a/2", "b")] == [True, True, False]
    assert [await tiers.from_second(key) for key in ("a/1", "a/2", "b")] == [None, None, "b"]


Forgetting = Callable[[TieredCache[Any]], Awaitable[None]]
FORGETTING: list[Forgetting] = [
    lambda cache: cache.clear(),
    lambda cache: cache.clear(HERE),
    lambda cache: cache.clear(None, prefix="a"),
    lambda cache: cache.clear(HERE, prefix="a"),
    lambda cache: cache.delete(HERE, "a"),
    lambda cache: cache.set(HERE, "a", "old", ttl_s=0),
]


@pytest.mark.parametrize("forget", FORGETTING)
@pytest.mark.parametrize("fault", FAULTS)
async def test_what_was_cleared_does_not_come_back_though_the_second_tier_did_not_hear_of_it(
    tiers: Tiers, fault: Fault, forget: Forgetting
) -> None:
    await written(tiers, "a", "old")
    tiers.second.fault, tiers.second.only = fault, ("clear", "delete")
    await forget(tiers.cache)
    assert await tiers.second.values.get(HERE, "a") is not None
    assert await tiers.from_second("a") is None
    await tiers.cache.set(HERE, "a", "new")
    assert await tiers.from_second("a") == "new"


@pytest.mark.parametrize("forget", FORGETTING)
async def test_a_second_tier_hears_of_a_clear_when_it_is_well_again(tiers: Tiers, forget: Forgetting) -> None:
    await written(tiers, "a", "old")
    tiers.second.fault = "fails"
    await forget(tiers.cache)
    for _ in range(10):
        assert await tiers.from_second("a") is None
    tiers.second.fault = ""
    await until(lambda: tiers.cache.stats().waiting == 0)
    assert await tiers.second.values.get(HERE, "a") is None


@pytest.mark.parametrize("forget", FORGETTING)
async def test_a_write_that_lands_after_the_clear_does_not_come_back(tiers: Tiers, forget: Forgetting) -> None:
    tiers.second.fault, tiers.second.only = "late", ("set",)
    await tiers.cache.set(HERE, "a", "old")
    await until(lambda: tiers.second.calls["set"] == 1)
    await forget(tiers.cache)
    await until(lambda: tiers.cache.stats().waiting == 0)
    await tiers.second.finish_late()
    assert await tiers.second.values.get(HERE, "a") is not None
    assert await tiers.from_second("a") is None


@pytest.mark.parametrize("forget", FORGETTING)
async def test_a_lookup_that_was_under_way_brings_nothing_back(forget: Forgetting) -> None:
    tiers = Tiers(timeout_s=5)
    await written(tiers, "a", "old")
    await tiers.first.clear()
    tiers.second.fault, tiers.second.only = "hangs", ("get",)
    looking = asyncio.ensure_future(tiers.cache.get(HERE, "a"))
    await until(lambda: tiers.second.calls["get"] == 1)
    await forget(tiers.cache)
    later = asyncio.ensure_future(tiers.cache.get(HERE, "a"))
    tiers.second.release.set()
    assert [await looking, await later, await tiers.cache.get(HERE, "a")] == [None, None, None]
    await tiers.cache.close()


@pytest.mark.parametrize("forget", FORGETTING)
async def test_a_write_that_waits_is_not_done_after_the_clear(forget: Forgetting) -> None:
    tiers = Tiers(timeout_s=5)
    tiers.second.fault, tiers.second.only = "hangs", ("set",)
    await tiers.cache.set(HERE, "other", 1)
    await until(lambda: tiers.second.calls["set"] == 1)
    await tiers.cache.set(HERE, "a", "old")
    forgetting = asyncio.ensure_future(forget(tiers.cache))
    await asyncio.sleep(0)
    await tiers.cache.set(HERE, "b", "new")
    tiers.second.release.set()
    await forgetting
    await until(lambda: tiers.cache.stats().waiting == 0)
    assert await tiers.second.values.get(HERE, "a") is None
    assert await tiers.second.values.get(HERE, "b") is not None
    await tiers.cache.close()


@pytest.mark.parametrize("forget", FORGETTING)
async def test_a_clear_that_is_asked_for_during_another_reaches_the_second_tier_too(forget: Forgetting) -> None:
    tiers = Tiers(timeout_s=5)
    tiers.second.fault, tiers.second.only = "hangs", ("clear", "delete")
    forgetting = [asyncio.ensure_future(forget(tiers.cache))]
    await until(lambda: tiers.second.calls.total() == 1)
    forgetting.append(asyncio.ensure_future(forget(tiers.cache)))
    await asyncio.sleep(0)
    tiers.second.release.set()
    await asyncio.gather(*forgetting)
    await until(lambda: tiers.cache.stats().waiting == 0)
    assert tiers.second.calls.total() == 2
    await tiers.cache.close()


async def test_a_lookup_that_was_under_way_does_not_replace_a_newer_value() -> None:
    tiers = Tiers(timeout_s=5)
    await written(tiers, "a", "old")
    await tiers.first.clear()
    tiers.second.fault, tiers.second.only = "hangs", ("get",)
    looking = asyncio.ensure_future(tiers.cache.get(HERE, "a"))
    await until(lambda: tiers.second.calls["get"] == 1)
    await tiers.cache.set(HERE, "a", "new")
    tiers.second.release.set()
    assert [await looking, await tiers.cache.get(HERE, "a")] == ["new", "new"]
    await tiers.cache.close()


@pytest.mark.parametrize("fault", FAULTS)
async def test_an_older_value_does_not_come_back_where_the_newer_one_could_not_be_written(tiers: Tiers, fault: Fault) -> None:
    await written(tiers, "a", "old")
    tiers.second.fault, tiers.second.only = fault, ("set",)
    await written(tiers, "a", "new")
    assert tiers.cache.stats().dropped == 1
    assert await tiers.second.values.get(HERE, "a") is not None
    assert await tiers.from_second("a") is None


async def test_writes_that_wait_are_bounded() -> None:
    tiers = Tiers(max_waiting=10)
    tiers.second.fault = "hangs"
    for number in range(100):
        await tiers.cache.set(HERE, f"{number}", number)
    stats = tiers.cache.stats()
    assert (stats.waiting, stats.dropped) == (10, 90)
    tiers.second.fault = ""
    tiers.second.release.set()
    await until(lambda: tiers.cache.stats().waiting == 0)
    await tiers.cache.close()


async def test_deletes_that_wait_are_bounded(tiers: Tiers) -> None:
    await written(tiers, "a", 1)
    tiers.second.fault = "fails"
    for number in range(1000):
        await tiers.cache.delete(HERE, f"{number}")
    assert tiers.cache.stats().waiting <= 256
    tiers.second.fault = ""
    await until(lambda: tiers.cache.stats().waiting == 0)
    assert tiers.second.calls["clear"] == 1


async def test_a_key_that_is_set_often_is_written_once(tiers: Tiers) -> None:
    tiers.second.fault, tiers.second.only = "hangs", ("set",)
    for value in range(1000):
        await tiers.cache.set(HERE, "a", value)
    assert tiers.cache.stats().waiting == 1
    tiers.second.release.set()
    await until(lambda: tiers.cache.stats().waiting == 0)
    assert tiers.second.calls["set"] <= 2
    assert await tiers.from_second("a") == 999


async def test_closing_tells_the_second_tier_what_it_has_yet_to_hear_of(tiers: Tiers) -> None:
    for number in range(20):
        await tiers.cache.set(HERE, f"{number}", number)
    other = tiers.second.values
    await tiers.cache.close()
    assert tiers.second.calls["set"] == 20
    assert tiers.second.calls["close"] == 1
    await tiers.cache.set(HERE, "late", 1)
    await tiers.cache.clear()
    assert await tiers.cache.get(HERE, "unknown") is None
    assert other.stats().items == 0


async def test_callers_who_leave_end_nothing_for_the_others() -> None:
    tiers = Tiers(timeout_s=5)
    await written(tiers, "a", 1)
    await tiers.first.clear()
    tiers.second.fault, tiers.second.only = "hangs", ("get",)
    leaving, staying = (asyncio.ensure_future(tiers.cache.get(HERE, "a")) for _ in range(2))
    await until(lambda: tiers.second.calls["get"] == 1)
    leaving.cancel()
    tiers.second.release.set()
    assert await staying == 1
    assert tiers.second.calls["get"] == 1
    await tiers.cache.close()


@pytest.mark.parametrize("options", [{"timeout_s": 0}, {"rest_s": -1}, {"max_waiting": 0}, {"first_ttl_s": 0}])
def test_limits_are_positive(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        TieredCache(MemoryCache[Any](1), MemoryCache[bytes](1), encode, json.loads, **options)


def test_what_was_forgotten_stays_forgotten_however_much_is_forgotten_after_it() -> None:
    forgotten = Forgotten()
    for number in range(2000):
        forgotten.forget_key(HERE, f"key {number}", 10 * number)
        forgotten.forget_prefix(HERE, f"prefix {number}/", 10 * number)
    assert all(forgotten.covers(HERE, f"key {number}", 10 * number) for number in range(2000))
    assert all(forgotten.covers(HERE, f"prefix {number}/x", 10 * number) for number in range(2000))
    assert not forgotten.covers(HERE, "key 1999", 10 * 1999 + 1)
    assert not forgotten.covers(HERE, "another", 10 * 1999)
    assert not forgotten.covers(Scope("other"), "prefix 1999/x", 10 * 1999)
    forgotten.forget_prefix(None, "", 100_000)
    assert forgotten.covers(Scope("other"), "another", 100_000)


async def test_two_tiers_may_be_three() -> None:
    lowest: MemoryCache[bytes] = MemoryCache(10)
    middle: TieredCache[bytes] = TieredCache(MemoryCache(10), lowest, bytes, bytes)
    upper: MemoryCache[Any] = MemoryCache(10)
    cache: TieredCache[Any] = TieredCache(upper, middle, encode, json.loads)
    await cache.set(HERE, "a", [1])
    await until(lambda: lowest.stats().items == 1)
    await upper.clear()
    assert await cache.get(HERE, "a") == [1]
    assert isinstance(cache.stats(), CacheStats)
    await cache.close()


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_fails_what_comes_out_is_the_last_value_or_none(seed: int) -> None:
    draw = random.Random(seed)
    second = SecondTier()
    first: MemoryCache[int] = MemoryCache(5)
    cache: TieredCache[int] = TieredCache(first, second, encode, json.loads, timeout_s=0.002, rest_s=0.004, max_waiting=8)
    truth: dict[str, int] = {}
    found = 0
    for step in range(1500):
        key = f"{draw.randrange(3)}/{draw.randrange(6)}"
        chance = draw.random()
        if chance < 0.06:
            second.fault = draw.choice(("", "", "", *FAULTS))
            second.only = draw.choice(((), ("set",), ("clear", "delete"), ("get",), ("set", "delete")))
        elif chance < 0.08:
            second.release.set()
            await asyncio.sleep(0)
            second.release = asyncio.Event()
        elif chance < 0.12:
            await cache.delete(HERE, key)
            truth.pop(key, None)
        elif chance < 0.13:
            prefix = key[: draw.randrange(3)]
            await cache.clear(draw.choice((None, HERE)), prefix=prefix)
            truth = {one: value for one, value in truth.items() if not one.startswith(prefix)}
        elif chance < 0.5:
            await cache.set(HERE, key, step)
            truth[key] = step
        elif chance < 0.55:
            await asyncio.sleep(0.001)
        else:
            values = await asyncio.gather(*(cache.get(HERE, key) for _ in range(draw.randrange(1, 4))))
            assert set(values) <= {None, truth.get(key)}
            found += values[0] is not None
    assert found > 100
    assert cache.stats().second_hits > 0
    second.fault = ""
    second.release.set()
    await cache.close()
