from __future__ import annotations

import fcntl
import multiprocessing
import os
from pathlib import Path

import pytest

from ragline.concurrency.rates import LocalRates, SharedRates, open_rates


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(params=["local", "shared"])
def rates(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> LocalRates | SharedRates:
    return LocalRates(clock) if request.param == "local" else SharedRates(tmp_path / "rates", clock=clock)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_burst_goes_through_and_then_a_steady_rate(rates: LocalRates | SharedRates, clock: Clock) -> None:
    assert [rates.take("a", 2, 3) for _ in range(3)] == [0, 0, 0]
    assert rates.take("a", 2, 3) == pytest.approx(0.5)
    clock.now += 0.5
    assert rates.take("a", 2, 3) == 0
    assert rates.take("a", 2, 3) > 0
    clock.now += 100
    assert [rates.take("a", 2, 3) == 0 for _ in range(4)] == [True, True, True, False]


def test_keys_do_not_share(rates: LocalRates | SharedRates) -> None:
    assert rates.take("a", 1, 1) == 0
    assert rates.take("b", 1, 1) == 0
    assert rates.take("a", 1, 1) > 0


def test_keys_without_end_are_forgotten_oldest_first(rates: LocalRates | SharedRates, clock: Clock) -> None:
    for number in range(20_000):
        clock.now += 0.001
        assert rates.take(str(number), 0.001, 1) == 0
    assert rates.take("19999", 0.001, 1) > 0


def test_two_who_share_a_file_share_a_rate(tmp_path: Path) -> None:
    one, other = SharedRates(tmp_path / "rates"), SharedRates(tmp_path / "rates")
    taken = [rates.take("a", 0.001, 6) == 0 for _ in range(6) for rates in (one, other)]
    assert sum(taken) == 6
    one.close()
    one.close()
    other.close()


def _take_many(path: Path, taken: multiprocessing.Queue[int]) -> None:
    rates = SharedRates(path)
    taken.put(sum(rates.take("a", 0.001, 500) == 0 for _ in range(400)))


def test_a_rate_holds_for_processes_together(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    taken: multiprocessing.Queue[int] = context.Queue()
    peers = [context.Process(target=_take_many, args=(tmp_path / "rates", taken)) for _ in range(2)]
    for peer in peers:
        peer.start()
    total = sum(taken.get(timeout=60) for _ in peers)
    for peer in peers:
        peer.join()
    # One that did not get the lock in time asked buckets of its own, which may give a few more.
    assert 500 <= total <= 520


def test_who_holds_the_lock_for_ever_stops_nobody(tmp_path: Path) -> None:
    rates = SharedRates(tmp_path / "rates")
    held = os.open(tmp_path / "rates", os.O_RDWR)
    fcntl.flock(held, fcntl.LOCK_EX)
    assert [rates.take("a", 1, 2) == 0 for _ in range(3)] == [True, True, False]
    os.close(held)
    assert rates.take("a", 1, 2) == 0


@pytest.mark.parametrize("content", [b"", b"something else", os.urandom(200_000)])
def test_a_file_that_is_something_else_is_made_anew(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "rates").write_bytes(content)
    rates = SharedRates(tmp_path / "rates")
    assert rates.take("a", 1, 1) == 0
    assert rates.take("a", 1, 1) > 0


def test_a_clock_that_began_anew_forgets_debts(tmp_path: Path, clock: Clock) -> None:
    assert SharedRates(tmp_path / "rates", clock=clock).take("a", 1, 1) == 0
    clock.now = 5
    assert SharedRates(tmp_path / "rates", clock=clock).take("a", 1, 1) == 0


def test_without_a_file_rates_hold_for_the_process(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rates = open_rates(tmp_path / "no" / "folder")
    assert isinstance(rates, LocalRates) and "by itself" in caplog.text
    shared = open_rates(tmp_path / "rates")
    assert isinstance(shared, SharedRates)
    shared.close()
