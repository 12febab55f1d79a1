from __future__ import annotations

from collections import Counter

import pytest

from ragline.bench import caching
from ragline.bench.caching import LeastRecentlyUsed, hit_ratio, zipf_stream


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"QUESTIONS": 500, "CAPACITY": 50, "ASKED": 20_000, "WARM_UP": 5_000, "CALLS": 100, "ROUNDS": 2}.items():
        monkeypatch.setattr(caching, name, value)


def test_the_optimum_is_the_share_of_the_hottest_tenth() -> None:
    stream = zipf_stream(1.0)
    counts = Counter(stream.asked)
    hottest = sum(count for _, count in counts.most_common(50)) / len(stream.asked)
    assert stream.optimum == pytest.approx(hottest, abs=0.02)


def test_a_scan_asks_each_question_once() -> None:
    stream = zipf_stream(1.0, scan=0.2)
    scanned = Counter(key for key in stream.asked if key >= 500)
    assert set(scanned.values()) == {1}
    assert len(scanned) == pytest.approx(0.2 * len(stream.asked), rel=0.05)
    assert len(stream.asked) == 20_000


def test_least_recently_used_keeps_what_was_asked_for_last() -> None:
    cache = LeastRecentlyUsed(5, {1: 2, 2: 2, 3: 3}.__getitem__)
    cache.set(1)
    cache.set(2)
    assert cache.get(1)
    cache.set(3)
    assert [cache.get(key) for key in (1, 2, 3)] == [True, False, True]


def test_the_warm_up_does_not_count() -> None:
    seen: set[int] = set()
    assert hit_ratio([1] * 5_000 + [1, 2, 1, 2], seen.__contains__, seen.add) == 0.75


def test_everything_is_measured() -> None:
    measured = caching.measure_caching()
    for ratios in measured["hit_ratio"].values():
        assert 0 < ratios["lru"] < ratios["w_tinylfu"] <= ratios["optimum"] + 0.02
    assert all(0 < value < 1e5 for value in measured["us"].values())
