from __future__ import annotations

import asyncio
import datetime
import enum
import gc
import itertools
import threading
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ragline
from ragline.caching.cached import cached
from ragline.caching.keys import cache_key
from ragline.caching.registry import CacheRegistry, get_cache_manager
from ragline.caching.tiny_lfu import TinyLfu
from ragline.errors import InputError, NotFoundError
from ragline.types import Scope


def test_it_is_found_where_people_look_for_it() -> None:
    assert ragline.cached is cached
    assert ragline.get_cache_manager is get_cache_manager


def test_a_plain_function_computes_once() -> None:
    calls: list[tuple[int, int]] = []

    @cached(ttl_s=60, maxsize=10)
    def add(one: int, other: int = 1) -> int:
        """Adds."""
        calls.append((one, other))
        return one + other

    assert [add(1), add(1), add(1, 2), add(1, other=2), add(1, other=2)] == [2, 2, 3, 3, 3]
    assert calls == [(1, 1), (1, 2), (1, 2)]
    assert (add.__name__, add.__doc__) == ("add", "Adds.")  # type: ignore[attr-defined]
    assert (add.stats().hits, add.stats().misses, add.stats().capacity) == (2, 3, 10)


async def test_an_async_function_computes_once_for_all_who_ask_at_a_time() -> None:
    calls = itertools.count()

    @cached
    async def fetch(url: str) -> str:
        await asyncio.sleep(0.01)
        return f"{url} {next(calls)}"

    assert await asyncio.gather(*(fetch("a") for _ in range(20))) == ["a 0"] * 20
    assert await fetch("a") == "a 0"
    assert await fetch("b") == "b 1"


def test_an_async_function_serves_one_loop_after_the_other_and_several_at_once() -> None:
    calls: list[str] = []
    together = threading.Barrier(3)

    @cached(maxsize=100)
    async def fetch(url: str) -> str:
        calls.append(url)
        await asyncio.sleep(0.01)
        return url

    assert asyncio.run(fetch("a")) == asyncio.run(fetch("a")) == "a"
    assert calls == ["a"]

    async def ask() -> list[str]:
        together.wait(10)
        return await asyncio.gather(*(fetch("b") for _ in range(5)))

    found: list[list[str]] = []
    threads = [threading.Thread(target=lambda: found.append(asyncio.run(ask()))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [["b"] * 5] * 3
    assert 1 <= calls.count("b") <= 3


def test_results_are_forgotten_when_their_time_is_over() -> None:
    now = 0.0
    numbers = itertools.count()

    @cached(ttl_s=10, clock=lambda: now)
    def number() -> int:
        return next(numbers)

    assert [number(), number()] == [0, 0]
    now = 10.0
    assert number() == 1


def test_none_is_a_result_and_an_error_is_not() -> None:
    results: Iterator[Any] = iter([ValueError("first"), None])

    @cached
    def find() -> None:
        result = next(results)
        if result is not None:
            raise result

    with pytest.raises(ValueError, match="first"):
        find()
    assert [find(), find()] == [None, None]


async def test_what_is_invalidated_is_computed_anew() -> None:
    numbers = itertools.count()

    @cached
    async def number(name: str) -> int:
        return next(numbers)

    assert [await number("a"), await number("b")] == [0, 1]
    number.invalidate("a")
    assert [await number("a"), await number("b")] == [2, 1]
    number.clear()
    assert [await number("a"), await number("b")] == [3, 4]


@pytest.mark.parametrize("everything", [False, True])
async def test_a_computation_that_began_before_an_invalidation_is_neither_kept_nor_joined(everything: bool) -> None:
    numbers = itertools.count()
    begun, go = asyncio.Event(), asyncio.Event()

    @cached
    async def number(name: str) -> int:
        mine = next(numbers)
        begun.set()
        await go.wait()
        return mine

    before = asyncio.ensure_future(number("a"))
    await begun.wait()
    if everything:
        number.clear()
    else:
        number.invalidate("a")
    after = asyncio.ensure_future(number("a"))
    await asyncio.sleep(0)
    go.set()
    assert [await before, await after, await number("a")] == [0, 1, 1]


def test_a_plain_computation_that_began_before_an_invalidation_is_not_kept() -> None:
    numbers = itertools.count()

    @cached
    def number() -> int:
        mine = next(numbers)
        if mine == 0:
            number.clear()
        return mine

    assert [number(), number(), number()] == [0, 1, 1]


def test_methods_need_a_key_that_leaves_self_out() -> None:
    class Places:
        @cached
        def careless(self, name: str) -> str:
            return name

        @cached(key=lambda self, name: name)
        def find(self, name: str) -> str:
            return f"here is {name}"

    with pytest.raises(InputError, match="Places") as refused:
        Places().careless("a")
    assert "leaves self out" in refused.value.hint
    assert Places().find("a") is Places().find("a")


def test_what_cannot_be_cached_is_refused() -> None:
    def generate() -> Iterator[int]:
        yield 1

    async def generate_async() -> AsyncIterator[int]:
        yield 1

    for generator in (generate, generate_async):
        with pytest.raises(InputError, match="generator"):
            cached(generator)

    @cached
    def hidden() -> Any:
        return asyncio.sleep(0)

    with pytest.raises(InputError, match="awaitable"):
        hidden()

    @cached(key=lambda number: number)
    def keyless(number: int) -> int:
        return number

    with pytest.raises(InputError, match="key="):
        keyless(1)
    for options in ({"ttl_s": 0}, {"ttl_s": -1}, {"maxsize": 0}):
        with pytest.raises(InputError):
            cached(**options)(len)  # type: ignore[call-overload]


def test_cached_functions_are_known_to_the_registry_while_they_live() -> None:
    @cached(maxsize=5)
    def known() -> int:
        return 1

    known()
    manager = get_cache_manager()
    assert known.name.endswith("known")
    assert manager.stats()[known.name].items == 1
    manager.clear(known.name)
    assert manager.stats()[known.name].items == 0
    known()
    manager.clear()
    assert manager.stats()[known.name].items == 0
    with pytest.raises(NotFoundError, match="nowhere"):
        manager.clear("nowhere")
    name = known.name
    del known
    gc.collect()
    assert name not in manager.stats()


def test_a_name_that_is_taken_gets_a_number() -> None:
    registry = CacheRegistry()
    caches: list[TinyLfu[str, int]] = [TinyLfu(1) for _ in range(3)]
    assert [registry.register("a", cache) for cache in caches] == ["a", "a#2", "a#3"]
    assert list(registry.stats()) == ["a", "a#2", "a#3"]


class Colour(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    ONE = 1


@dataclass(frozen=True)
class Point:
    x: int
    y: int


@dataclass(frozen=True)
class Pair:
    x: int
    y: int


def test_values_that_differ_make_keys_that_differ() -> None:
    values: list[Any] = [
        None, "", "None", b"", 0, 0.0, -0.0, False, "0", 1, 1.0, True, "1", b"1", Decimal(1), Level.ONE, Colour.RED, float("nan"),
        (), [], {}, set(), frozenset(), (1,), [1], {1}, frozenset({1}), {1: 1}, {"1": 1}, {1: "1"}, ((),), ([],), [()],
        Point(1, 2), Pair(1, 2), Point(2, 1), Scope("a", "b"), Scope("a b", "c"), Path("a"), "a", uuid.UUID(int=1),
        datetime.date(2024, 1, 1), datetime.datetime(2024, 1, 1), datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC), "2024-01-01",
        "\u00e9", "e\u0301", "\ud83d", 10**5000, "int 1:1",
    ]  # fmt: skip
    keys = [cache_key(value) for value in values]
    assert len(set(keys)) == len(values)
    assert keys == [cache_key(value) for value in values]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((("ab", "c"), {}), (("a", "bc"), {})),
        ((("a",), {}), (("a", "a"), {})),
        (((), {}), ((None,), {})),
        ((("a", "b"), {}), ((("a", "b"),), {})),
        ((("x", 1), {}), ((), {"x": 1})),
        (((), {"a": 1, "b": 2}), ((), {"a": 2, "b": 1})),
        ((({"a": 1},), {}), ((), {"a": 1})),
    ],
)
def test_argument_lists_that_differ_make_keys_that_differ(one: tuple[Any, Any], other: tuple[Any, Any]) -> None:
    assert cache_key(*one[0], **one[1]) != cache_key(*other[0], **other[1])


def test_order_does_not_matter_where_it_means_nothing() -> None:
    assert cache_key(a=1, b={"x": 1, "y": {2, 3}}) == cache_key(b={"y": {3, 2}, "x": 1}, a=1)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@given(PLAIN, PLAIN)
def test_keys_are_equal_where_values_are(one: Any, other: Any) -> None:
    assert (cache_key(one) == cache_key(other)) == (_exact(one) == _exact(other))


def _exact(value: Any) -> Any:
    """Equal only where type and bits are."""
    if isinstance(value, dict):
        return "dict", sorted((key, repr(_exact(one))) for key, one in value.items())
    if isinstance(value, (list, tuple)):
        return type(value).__name__, [_exact(one) for one in value]
    return type(value).__name__, value.hex() if isinstance(value, float) else value


@pytest.mark.parametrize("value", [object(), len, lambda: 1, {"a": [object()]}, int])
def test_what_may_look_alike_makes_no_key(value: Any) -> None:
    with pytest.raises(InputError, match="cannot be part") as refused:
        cache_key(value)
    assert "key=" in refused.value.hint


def test_what_holds_itself_makes_no_key() -> None:
    around: list[Any] = []
    around.append(around)
    with pytest.raises(InputError, match="levels"):
        cache_key(around)
