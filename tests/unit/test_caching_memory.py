from __future__ import annotations

import gc
import random
import threading
import time
import tracemalloc
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import pytest

from ragline.caching.memory import MemoryCache
from ragline.caching.sizes import plain_bytes
from ragline.caching.tiny_lfu import TinyLfu
from ragline.errors import InputError
from ragline.types import Scope


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_value_is_gone_the_moment_its_time_is_over() -> None:
    clock = Clock()
    items: TinyLfu[str, int] = TinyLfu(10, clock=clock)
    items.set("a", 1, ttl_s=10)
    clock.now += 9.999
    assert items.get("a", None) == 1
    clock.now += 0.001
    assert items.get("a", None) is None
    assert len(items) == 0


def test_setting_anew_renews_the_time_to_live() -> None:
    clock = Clock()
    items: TinyLfu[str, int] = TinyLfu(10, clock=clock)
    items.set("a", 1, ttl_s=10)
    clock.now += 9
    items.set("a", 2, ttl_s=10)
    items.set("b", 1, ttl_s=1)
    items.set("b", 2)
    clock.now += 9
    assert (items.get("a", None), items.get("b", None)) == (2, 2)


def test_expired_values_that_nobody_asks_for_are_let_go() -> None:
    items: TinyLfu[str, int] = TinyLfu(100)
    for number in range(50):
        items.set(f"old {number}", number, ttl_s=0.01)
    items.set("lasting", 1)
    deadline = time.monotonic() + 10
    while len(items) > 2 and time.monotonic() < deadline:
        time.sleep(0.1)
        items.set("new", 1)
    assert len(items) == 2


@pytest.mark.parametrize("capacity", [1, 2, 3, 17])
def test_there_are_never_more_items_than_places(capacity: int) -> None:
    items: TinyLfu[int, int] = TinyLfu(capacity)
    for number in range(1000):
        items.set(number, number)
        assert len(items) <= capacity
    assert len(items) == capacity
    assert items.stats().evictions == 1000 - capacity


def test_a_cache_that_was_cleared_has_all_its_room_again() -> None:
    items: TinyLfu[int, int] = TinyLfu(100)
    for _ in range(5):
        for number in range(300):
            items.set(number, number)
        assert len(items) == 100
        items.clear()
        assert len(items) == 0
    for _ in range(5):
        for number in range(300):
            items.set(number, number)
        items.clear(lambda _: True)
    for number in range(100):
        items.set(number, number)
    assert len(items) == 100


def test_what_is_asked_for_often_survives_a_flood_of_what_is_asked_once() -> None:
    items: TinyLfu[str, int] = TinyLfu(100)
    recent: OrderedDict[str, int] = OrderedDict()
    for _ in range(20):
        for number in range(80):
            if items.get(f"often {number}", None) is None:
                items.set(f"often {number}", number)
    for number in range(1000):
        items.set(f"once {number}", number)
        recent[f"once {number}"] = number
        if len(recent) > 100:
            recent.popitem(last=False)
    assert sum(items.get(f"often {number}", None) is not None for number in range(80)) >= 70
    assert not any(key.startswith("often") for key in recent)


def test_two_keys_of_one_hash_are_two_keys() -> None:
    class Same(str):
        __slots__ = ()

        def __hash__(self) -> int:
            return 7

    items: TinyLfu[str, int] = TinyLfu(10)
    one, other = Same("one"), Same("other")
    items.set(one, 1)
    assert items.get(other, None) is None
    assert not items.delete(other)
    assert items.get(one, None) == 1
    items.set(other, 2)
    assert items.get(other, None) == 2
    assert items.get(one, None) is None
    assert len(items) == 1


def test_values_never_weigh_more_than_allowed() -> None:
    draw = random.Random(3)
    items: TinyLfu[int, bytes] = TinyLfu(100, max_bytes=100_000, size_of=len)
    kept: dict[int, bytes] = {}
    for step in range(5000):
        key = int(draw.paretovariate(0.6)) % 500
        if draw.random() < 0.05:
            items.delete(key)
        elif items.get(key, None) is None or draw.random() < 0.1:
            kept[key] = bytes([step % 256]) * draw.randrange(12_000)
            items.set(key, kept[key])
        stats = items.stats()
        assert stats.size_bytes <= 100_000
        assert stats.items <= 100
        assert items.get(key, kept.get(key)) == kept.get(key)
    present = [value for key in range(500) if (value := items.get(key, None)) is not None]
    stats = items.stats()
    assert (len(present), sum(map(len, present))) == (stats.items, stats.size_bytes)
    assert stats.items > 5
    items.clear(lambda _: True)
    assert (items.stats().items, items.stats().size_bytes) == (0, 0)


def test_a_value_of_more_than_a_tenth_of_the_room_is_not_kept() -> None:
    items: TinyLfu[str, bytes] = TinyLfu(100, max_bytes=1000, size_of=len)
    items.set("a", b"x" * 100)
    assert items.get("a", None) is not None
    items.set("a", b"x" * 101)
    assert items.get("a", None) is None


@pytest.mark.parametrize(
    ("capacity", "options"), [(0, {}), (-1, {}), (1, {"max_bytes": 0, "size_of": len}), (1, {"max_bytes": 10}), (1, {"size_of": len})]
)
def test_a_cache_without_room_is_refused(capacity: int, options: dict[str, object]) -> None:
    with pytest.raises(InputError) as refused:
        MemoryCache(capacity, **options)  # type: ignore[arg-type]
    assert refused.value.hint


async def test_an_item_costs_less_than_1_kb_beside_its_key_and_value() -> None:
    count = 10_000
    keys = [f"key {number}" for number in range(count)]
    values = [f"value {number}" for number in range(count)]
    scope = Scope()
    (await _filled(keys[:10], values[:10], scope)).stats()
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        cache = await _filled(keys, values, scope)
        gc.collect()
        overhead = (tracemalloc.get_traced_memory()[0] - before) / count
    finally:
        tracemalloc.stop()
    assert cache.stats().items == count
    assert overhead < 1024


async def _filled(keys: list[str], values: list[str], scope: Scope) -> MemoryCache[str]:
    cache: MemoryCache[str] = MemoryCache(len(keys))
    for key, value in zip(keys, values, strict=True):
        await cache.set(scope, key, value, ttl_s=3600)
    return cache


def test_a_cache_that_nobody_holds_is_freed_without_being_closed() -> None:
    class Value:
        freed = False

        def __del__(self) -> None:
            Value.freed = True

    items: TinyLfu[str, Value] = TinyLfu(10)
    items.set("a", Value())
    threads = threading.active_count()
    del items
    gc.collect()
    assert Value.freed
    assert threading.active_count() <= threads


def test_a_finaliser_may_use_the_cache_that_lets_its_value_go() -> None:
    items: TinyLfu[str, object] = TinyLfu(10)

    class Value:
        def __del__(self) -> None:
            items.set("last words", 1)

    items.set("a", Value())
    items.set("a", 2)
    items.delete("a")
    assert items.get("last words", None) == 1


def test_many_threads_may_use_one_cache() -> None:
    items: TinyLfu[int, int] = TinyLfu(50, max_bytes=5000, size_of=lambda value: value % 300)
    wrong: list[object] = []

    def use(seed: int) -> None:
        draw = random.Random(seed)
        try:
            for _ in range(3000):
                key = draw.randrange(200)
                match draw.randrange(6):
                    case 0 | 1:
                        items.set(key, key, ttl_s=draw.choice((None, 0.001, 60)))
                    case 2:
                        items.delete(key)
                    case 3 if draw.random() < 0.05:
                        items.clear(lambda one: one % 2 == 0)
                    case _:
                        if items.get(key, key) != key:
                            wrong.append(key)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=use, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    stats = items.stats()
    assert stats.items <= 50
    assert stats.size_bytes <= 5000


@dataclass(frozen=True)
class Page:
    title: str
    parts: tuple[str, ...]
    vector: np.ndarray[tuple[int], np.dtype[np.float32]]


def test_plain_data_is_weighed_with_all_that_it_holds() -> None:
    page = Page("t" * 100, ("a" * 1000, "b" * 2000), np.zeros(500, np.float32))
    assert 5100 <= plain_bytes(page) <= 6500
    assert plain_bytes({"a": [page, page]}) < 1.3 * plain_bytes(page)
    around: list[object] = []
    around.append(around)
    assert plain_bytes(around) < 1000
    deep: object = ()
    for _ in range(100_000):
        deep = (deep,)
    assert plain_bytes(deep) < 100_000
