from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from ragline.caching.memory import MemoryCache
from ragline.caching.query_optimizer import QueryOptimizer
from ragline.caching.tiered import TieredCache
from ragline.caching.transitions import Transitions
from ragline.errors import InputError
from ragline.types import Scope
from tests.imitation.second_tier import SecondTier


class Queries:
    """Queries that count how often they are computed, and wait where they are told to."""

    def __init__(self) -> None:
        self.computed: list[str] = []
        self.go = asyncio.Event()
        self.go.set()
        self.begun = asyncio.Event()
        self.fails: set[str] = set()

    async def __call__(self, key: str) -> str:
        self.computed.append(key)
        self.begun.set()
        number = len(self.computed)
        await self.go.wait()
        if key in self.fails:
            raise ConnectionError(key)
        return f"{key} #{number}"

    def of(self, key: str) -> Callable[[], Awaitable[str]]:
        return lambda: self(key)


@pytest.fixture
def queries() -> Queries:
    return Queries()


async def test_a_query_is_computed_once_and_then_kept(queries: Queries) -> None:
    async with QueryOptimizer[str]() as optimizer:
        assert [await optimizer.execute_query("a", queries.of("a")) for _ in range(3)] == ["a #1"] * 3
        stats = optimizer.get_stats()
        assert (stats.queries, stats.hits, stats.computed, stats.joined, stats.under_way) == (3, 2, 1, 0, 0)
        assert stats.hit_rate == pytest.approx(2 / 3)
        assert stats.as_dict()["average_compute_s"] > 0


async def test_a_hundred_callers_share_one_computation(queries: Queries) -> None:
    async with QueryOptimizer[str]() as optimizer:
        found = await asyncio.gather(*(optimizer.execute_query("a", queries.of("a")) for _ in range(100)))
        assert found == ["a #1"] * 100
        assert optimizer.get_stats().joined == 99


async def test_the_first_callers_leaving_harms_nobody(queries: Queries) -> None:
    queries.go.clear()
    async with QueryOptimizer[str]() as optimizer:
        first, second = (asyncio.ensure_future(optimizer.execute_query("a", queries.of("a"))) for _ in range(2))
        await queries.begun.wait()
        first.cancel()
        queries.go.set()
        assert await second == "a #1"
        assert await optimizer.execute_query("a", queries.of("a")) == "a #1"


async def test_when_all_callers_leave_the_computation_ends_and_nothing_is_kept(queries: Queries) -> None:
    queries.go.clear()
    async with QueryOptimizer[str]() as optimizer:
        caller = asyncio.ensure_future(optimizer.execute_query("a", queries.of("a")))
        await queries.begun.wait()
        caller.cancel()
        await asyncio.wait({caller})
        queries.go.set()
        assert await optimizer.execute_query("a", queries.of("a")) == "a #2"


async def test_a_result_is_gone_when_its_time_is_over(queries: Queries) -> None:
    now = 0.0
    optimizer = QueryOptimizer[str](MemoryCache(10, clock=lambda: now), ttl_s=60)
    await optimizer.execute_query("a", queries.of("a"))
    await optimizer.execute_query("b", queries.of("b"), ttl_s=5)
    now = 59.0
    assert await optimizer.execute_query("a", queries.of("a")) == "a #1"
    assert await optimizer.execute_query("b", queries.of("b"), ttl_s=5) == "b #3"
    now = 60.0
    assert await optimizer.execute_query("a", queries.of("a")) == "a #4"


async def test_failures_reach_every_caller_and_are_not_kept(queries: Queries) -> None:
    queries.fails = {"a"}
    async with QueryOptimizer[str]() as optimizer:
        found = await asyncio.gather(*(optimizer.execute_query("a", queries.of("a")) for _ in range(5)), return_exceptions=True)
        assert [type(one) for one in found] == [ConnectionError] * 5
        queries.fails = set()
        assert await optimizer.execute_query("a", queries.of("a")) == "a #2"
        assert optimizer.get_stats().failures == 1


async def test_none_is_not_kept(queries: Queries) -> None:
    results = iter([None, 7])

    async def find() -> int | None:
        return next(results)

    async with QueryOptimizer[int | None]() as optimizer:
        assert [await optimizer.execute_query("a", find) for _ in range(3)] == [None, 7, 7]


async def test_what_cannot_be_awaited_is_refused() -> None:
    async with QueryOptimizer[int]() as optimizer:
        with pytest.raises(InputError, match="nothing to await") as refused:
            await optimizer.execute_query("a", lambda: 7)  # type: ignore[arg-type,return-value]
        assert "to_thread" in refused.value.hint


@pytest.mark.parametrize(
    ("arguments", "gone"),
    [
        ({"key": "a"}, {"a"}),
        ({"prefix": "a"}, {"a", "a/b"}),
        ({"prefix": ""}, {"a", "a/b", "b"}),
        ({}, {"a", "a/b", "b"}),
        ({"key": ""}, set()),
    ],
)
async def test_one_key_a_prefix_or_all_are_invalidated(queries: Queries, arguments: dict[str, str], gone: set[str]) -> None:
    async with QueryOptimizer[str]() as optimizer:
        for key in ("a", "a/b", "b"):
            await optimizer.execute_query(key, queries.of(key))
        queries.computed.clear()
        await optimizer.invalidate_cache(**arguments)
        for key in ("a", "a/b", "b"):
            await optimizer.execute_query(key, queries.of(key))
        assert set(queries.computed) == gone


async def test_a_key_and_a_prefix_together_are_refused() -> None:
    with pytest.raises(InputError, match="both"):
        await QueryOptimizer[str]().invalidate_cache("a", prefix="b")


@pytest.mark.parametrize("arguments", [{"key": "a"}, {"prefix": "a"}, {}])
@pytest.mark.parametrize("tiered", [False, True])
async def test_a_computation_that_began_before_an_invalidation_is_neither_kept_nor_joined(
    queries: Queries, arguments: dict[str, str], tiered: bool
) -> None:
    second = SecondTier()
    memory: MemoryCache[str] = MemoryCache(10)
    cache = TieredCache(memory, second, str.encode, bytes.decode) if tiered else memory
    queries.go.clear()
    async with QueryOptimizer[str](cache) as optimizer:
        before = asyncio.ensure_future(optimizer.execute_query("a", queries.of("a")))
        await queries.begun.wait()
        queries.begun.clear()
        await optimizer.invalidate_cache(**arguments)
        after = asyncio.ensure_future(optimizer.execute_query("a", queries.of("a")))
        await queries.begun.wait()
        queries.go.set()
        assert await after == "a #2"
        assert await before == "a #1"
        assert await optimizer.execute_query("a", queries.of("a")) == "a #2"
        assert optimizer.get_stats().invalidated == 1
    await cache.close()


async def test_an_invalidation_of_other_keys_disturbs_no_computation(queries: Queries) -> None:
    queries.go.clear()
    async with QueryOptimizer[str]() as optimizer:
        computing = asyncio.ensure_future(optimizer.execute_query("a", queries.of("a")))
        await queries.begun.wait()
        await optimizer.invalidate_cache(prefix="b")
        queries.go.set()
        assert await computing == await optimizer.execute_query("a", queries.of("a")) == "a #1"


async def test_a_value_that_is_written_while_its_key_is_invalidated_is_not_kept(queries: Queries) -> None:
    class Slow(MemoryCache[str]):
        entered, go = asyncio.Event(), asyncio.Event()

        async def set(self, scope: Scope, key: str, value: str, *, ttl_s: float | None = None) -> None:
            self.entered.set()
            await self.go.wait()
            await super().set(scope, key, value, ttl_s=ttl_s)

    slow = Slow(10)
    async with QueryOptimizer[str](slow) as optimizer:
        computing = asyncio.ensure_future(optimizer.execute_query("a", queries.of("a")))
        await slow.entered.wait()
        await optimizer.invalidate_cache("a")
        slow.go.set()
        await computing
        assert await optimizer.execute_query("a", queries.of("a")) == "a #2"


async def test_scopes_share_a_cache_but_no_result(queries: Queries) -> None:
    cache: MemoryCache[str] = MemoryCache(10)
    one, other = (QueryOptimizer[str](cache, scope=Scope(tenant)) for tenant in ("one", "other"))
    assert await one.execute_query("a", queries.of("a")) == "a #1"
    assert await other.execute_query("a", queries.of("a")) == "a #2"
    await one.invalidate_cache()
    await one.close()
    assert await other.execute_query("a", queries.of("a")) == "a #2"


async def test_warming_computes_what_is_not_kept_yet(queries: Queries, tmp_path: Path) -> None:
    queries.fails = {"bad"}
    file = tmp_path / "questions.txt"
    file.write_text("\ufeffa\n\n  b \nbad\na\nwhat is ż?\r\n", encoding="utf-8")
    async with QueryOptimizer[str]() as optimizer:
        await optimizer.execute_query("b", queries.of("b"))
        report = await optimizer.warm(file, queries, concurrency=2)
        assert (report.computed, report.known, report.failed) == (2, 1, {"bad": "ConnectionError: bad"})
        assert sorted(queries.computed) == ["a", "b", "bad", "what is ż?"]
        assert (await optimizer.warm(["a", "b"], queries)).known == 2
        assert optimizer.get_stats().prefetched == 3


@pytest.mark.parametrize("content", [None, b"\xff\xfe\xff"])
async def test_a_file_that_cannot_be_read_is_named(queries: Queries, tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "questions.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=r"questions\.txt"):
        await QueryOptimizer[str]().warm(file, queries)


async def test_warming_goes_no_wider_than_told(queries: Queries) -> None:
    queries.go.clear()
    async with QueryOptimizer[str]() as optimizer:
        warming = asyncio.ensure_future(optimizer.warm((str(number) for number in range(20)), queries, concurrency=3))
        for _ in range(20):
            await asyncio.sleep(0)
        assert optimizer.get_stats().under_way == 3
        queries.go.set()
        assert (await warming).computed == 20
        with pytest.raises(InputError, match="concurrency"):
            await optimizer.warm([], queries, concurrency=0)


async def test_the_query_that_followed_most_often_is_likely_next(queries: Queries) -> None:
    async with QueryOptimizer[str]() as optimizer:
        for key in ("a", "b", "a", "b", "a", "b", "a", "c", "a", "c", "a", "d"):
            await optimizer.execute_query(key, queries.of(key))
        assert optimizer.likely_next("a") == ["b", "c"]
        assert optimizer.likely_next("a", 1) == ["b"]
        assert optimizer.likely_next("never asked") == []


async def test_sequences_of_two_sessions_are_not_mixed(queries: Queries) -> None:
    async with QueryOptimizer[str]() as optimizer:
        for _ in range(3):
            for key in ("a", "b"):
                for session in ("one", "other"):
                    await optimizer.execute_query(f"{key} of {session}", queries.of(key), session=session)
        assert optimizer.likely_next("a of one") == ["b of one"]


async def test_the_likely_next_query_is_ready_before_it_is_asked(queries: Queries) -> None:
    optimizer = QueryOptimizer[str](prefetch=queries)
    for key in ("a", "b", "a", "b"):
        await optimizer.execute_query(key, queries.of(key))
    await optimizer.invalidate_cache()
    queries.computed.clear()
    await optimizer.execute_query("a", queries.of("a"))
    async with asyncio.timeout(10):
        while queries.computed != ["a", "b"] or optimizer.get_stats().under_way:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    await optimizer.execute_query("b", queries.of("b"))
    assert queries.computed == ["a", "b"]
    await optimizer.close()


async def test_prefetching_is_bounded_its_failures_are_counted_and_closing_ends_it(queries: Queries) -> None:
    optimizer = QueryOptimizer[str](prefetch=queries, most_ahead=1)
    for key in ("a", "b", "a", "b", "c", "d", "c", "d"):
        await optimizer.execute_query(key, queries.of(key))
    await optimizer.invalidate_cache()
    queries.fails = {"b"}
    await optimizer.execute_query("a", queries.of("a"))
    async with asyncio.timeout(10):
        while not optimizer.get_stats().failures:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    queries.go.clear()
    waiting = [asyncio.ensure_future(optimizer.execute_query(key, queries.of(key))) for key in ("a", "c")]
    await asyncio.sleep(0.01)
    assert optimizer.get_stats().under_way == 2  # one of a query that is asked, one ahead: "b" after "a", which was kept
    await optimizer.close()
    queries.go.set()
    assert await asyncio.gather(*waiting)
    await optimizer.close()
    assert optimizer.get_stats().under_way == 0


@pytest.mark.parametrize("options", [{"ttl_s": 0}, {"ttl_s": -1}, {"most_ahead": 0}, {"maxsize": 0}])
def test_limits_are_positive(options: dict[str, int]) -> None:
    with pytest.raises(InputError):
        QueryOptimizer[str](**options)  # type: ignore[arg-type]


def test_transitions_take_bounded_memory_and_find_what_is_frequent() -> None:
    transitions = Transitions(most_keys=100, most_followers=4)
    for number in range(20_000):
        transitions.met("hub", session=str(number % 5000))
        transitions.met("favourite" if number % 3 == 0 else f"rare {number}", session=str(number % 5000))
    assert len(transitions) <= 100
    assert transitions.likely_next("hub", 1) == ["favourite"]
    assert len(transitions.likely_next("hub", 100)) <= 4


def test_asking_the_same_again_predicts_nothing() -> None:
    transitions = Transitions()
    for _ in range(10):
        transitions.met("a")
    assert transitions.likely_next("a") == []


async def test_a_second_tier_of_plain_json_serves_a_new_process(queries: Queries) -> None:
    second = SecondTier()
    for _ in range(2):
        cache: TieredCache[str] = TieredCache(MemoryCache(10), second, lambda value: json.dumps(value).encode(), json.loads)
        async with QueryOptimizer[str](cache) as optimizer:
            assert await optimizer.execute_query("a", queries.of("a")) == "a #1"
            async with asyncio.timeout(10):
                while cache.stats().waiting:  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
