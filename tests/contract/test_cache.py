"""What every cache does, whatever it is made of."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ragline.caching.base import Cache
from ragline.caching.memory import MemoryCache
from ragline.caching.tiered import TieredCache
from ragline.types import Scope
from tests.imitation.second_tier import SecondTier

HERE, THERE = Scope("acme", "handbook"), Scope("acme", "wiki")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def encode(value: Any) -> bytes:
    return json.dumps(value).encode()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "weighed", "tiered", "tiered, the second fails"])
async def cache(request: pytest.FixtureRequest, clock: Clock) -> AsyncIterator[Cache[Any]]:
    first: MemoryCache[Any] = MemoryCache(100, clock=clock)
    opened: Cache[Any] = first
    if request.param == "weighed":
        opened = MemoryCache(100, max_bytes=100_000, size_of=lambda value: len(encode(value)), clock=clock)
    elif request.param.startswith("tiered"):
        second = SecondTier()
        second.fault = "fails" if request.param.endswith("fails") else ""
        opened = TieredCache(first, second, encode, json.loads, timeout_s=1, rest_s=0.01)
    yield opened
    await opened.close()


async def test_what_is_set_is_got(cache: Cache[Any]) -> None:
    value = {"text": "Keys rotate every 90 days. \ud83d\udd11 ż", "numbers": [1, 2.5, None, True]}
    await cache.set(HERE, "a", value)
    assert await cache.get(HERE, "a") == value


async def test_an_unknown_key_is_none(cache: Cache[Any]) -> None:
    assert await cache.get(HERE, "a") is None


async def test_the_last_value_set_is_the_one_got(cache: Cache[Any]) -> None:
    for value in range(5):
        await cache.set(HERE, "a", value)
    assert await cache.get(HERE, "a") == 4


@pytest.mark.parametrize("value", [0, "", [], {}, False])
async def test_empty_values_are_values(cache: Cache[Any], value: Any) -> None:
    await cache.set(HERE, "a", value)
    assert await cache.get(HERE, "a") == value


@pytest.mark.parametrize("key", ["", "a\0b", "a\nb", "%s*?[]", "\u00e9", "e\u0301", "x" * 100_000])
async def test_any_string_is_a_key(cache: Cache[Any], key: str) -> None:
    await cache.set(HERE, key, 1)
    await cache.set(HERE, key + "\0", 2)
    assert [await cache.get(HERE, key), await cache.get(HERE, key + "\0"), await cache.get(HERE, "other")] == [1, 2, None]


async def test_scopes_share_nothing(cache: Cache[Any]) -> None:
    scopes = [Scope("a", "b c"), Scope("a b", "c"), Scope("ab", "c"), Scope("a", "bc")]
    for number, scope in enumerate(scopes):
        await cache.set(scope, "k", number)
    assert [await cache.get(scope, "k") for scope in scopes] == [0, 1, 2, 3]
    await cache.clear(scopes[0])
    await cache.delete(scopes[1], "k")
    assert [await cache.get(scope, "k") for scope in scopes] == [None, None, 2, 3]


async def test_a_deleted_key_is_gone_and_its_neighbours_stay(cache: Cache[Any]) -> None:
    for key in ("a", "ab", "b"):
        await cache.set(HERE, key, key)
    await cache.delete(HERE, "a")
    await cache.delete(HERE, "never there")
    assert [await cache.get(HERE, key) for key in ("a", "ab", "b")] == [None, "ab", "b"]


@pytest.mark.parametrize(
    ("scope", "prefix", "left"),
    [
        (None, "", []),
        (None, "a/", ["here b", "there b"]),
        (HERE, "", ["there a/1", "there a/2", "there b"]),
        (HERE, "a/", ["here b", "there a/1", "there a/2", "there b"]),
        (HERE, "a/2", ["here a/1", "here b", "there a/1", "there a/2", "there b"]),
        (HERE, "nothing", ["here a/1", "here a/2", "here b", "there a/1", "there a/2", "there b"]),
    ],
)
async def test_clear_forgets_a_prefix_of_one_scope_or_of_all(cache: Cache[Any], scope: Scope | None, prefix: str, left: list[str]) -> None:
    for of, name in ((HERE, "here"), (THERE, "there")):
        for key in ("a/1", "a/2", "b"):
            await cache.set(of, key, f"{name} {key}")
    await cache.clear(scope, prefix=prefix)
    found = [await cache.get(of, key) for of in (HERE, THERE) for key in ("a/1", "a/2", "b")]
    assert [value for value in found if value is not None] == left


async def test_what_is_set_after_a_clear_stays(cache: Cache[Any]) -> None:
    await cache.set(HERE, "a", 1)
    await cache.clear()
    await cache.clear(HERE, prefix="a")
    await cache.set(HERE, "a", 2)
    assert await cache.get(HERE, "a") == 2


@pytest.mark.parametrize("ttl_s", [0, -1, float("nan")])
async def test_a_value_without_time_to_live_is_not_kept_and_neither_is_the_one_before(cache: Cache[Any], ttl_s: float) -> None:
    await cache.set(HERE, "a", 1)
    await cache.set(HERE, "a", 2, ttl_s=ttl_s)
    assert await cache.get(HERE, "a") is None


@pytest.mark.parametrize("ttl_s", [None, 1e-3, 1e12, float("inf")])
async def test_any_time_to_live_is_understood(cache: Cache[Any], ttl_s: float | None) -> None:
    await cache.set(HERE, "a", 1, ttl_s=ttl_s)
    assert await cache.get(HERE, "a") in (1, None if ttl_s == 1e-3 else 1)


async def test_hits_and_misses_are_counted(cache: Cache[Any]) -> None:
    assert cache.stats().hit_rate == 0
    await cache.set(HERE, "a", 1)
    for key in ("a", "a", "b", "a"):
        await cache.get(HERE, key)
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.items, stats.capacity, stats.hit_rate) == (3, 1, 1, 100, 0.75)


async def test_closing_twice_is_harmless(cache: Cache[Any]) -> None:
    await cache.set(HERE, "a", 1)
    await cache.close()
    await cache.close()
    assert await cache.get(HERE, "a") is None


async def test_a_cache_may_forget_but_never_errs(cache: Cache[Any]) -> None:
    draw = random.Random(7)
    truth: dict[tuple[Scope, str], int] = {}
    found = 0
    for step in range(3000):
        scope, key = draw.choice((HERE, THERE)), f"{draw.randrange(3)}/{draw.randrange(100)}"
        match draw.randrange(200):
            case drawn if drawn < 10:
                await cache.delete(scope, key)
                truth.pop((scope, key), None)
            case 10 | 11:
                prefix, of = key[: draw.randrange(3)], draw.choice((scope, None))
                await cache.clear(of, prefix=prefix)
                truth = {one: value for one, value in truth.items() if not (of in (None, one[0]) and one[1].startswith(prefix))}
            case drawn if drawn < 100:
                await cache.set(scope, key, step)
                truth[scope, key] = step
            case _:
                value = await cache.get(scope, key)
                assert value in (None, truth.get((scope, key)))
                found += value is not None
        assert cache.stats().items <= 100
    assert found > 100
