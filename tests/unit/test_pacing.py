"""Slowing down by what a server's headers say, with a clock of the test's own."""

from __future__ import annotations

import pytest

from ragline.concurrency.pacing import Pace, duration_s


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def told(kind: str, left: object, reset: str) -> dict[str, str]:
    return {f"x-ratelimit-remaining-{kind}": str(left), f"x-ratelimit-reset-{kind}": reset}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1.0),
        ("20ms", 0.02),
        ("6m0s", 360.0),
        ("1h2m3.5s", 3723.5),
        ("1d", 86_400.0),
        ("2m", 120.0),
        ("59.7", 59.7),
        ("0s", 0.0),
        (" 1S ", 1.0),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("-5s", None),
        ("nan", None),
        ("inf", None),
        ("1e99", None),
        ("s", None),
    ],
)
def test_durations_are_read_as_openai_writes_them(text: str, seconds: float | None) -> None:
    assert duration_s(text) == (pytest.approx(seconds) if seconds is not None else None)


def test_without_a_word_of_the_server_nothing_is_waited_for() -> None:
    pace = Pace(Clock())
    assert pace.wait_s(10**9) == 0
    pace.sent(10)
    pace.done(10, {"content-type": "application/json"})
    assert pace.wait_s(10**9) == 0


@pytest.mark.parametrize("kind", ["requests", "tokens"])
def test_what_is_left_is_spent_then_it_waits_for_the_reset(kind: str) -> None:
    clock = Clock()
    pace = Pace(clock)
    pace.sent(100)
    pace.done(100, told(kind, 2 if kind == "requests" else 200, "30s"))
    for _ in range(2):
        assert pace.wait_s(100) == 0
        pace.sent(100)
    assert pace.wait_s(100) == pytest.approx(30)
    clock.now += 29
    assert pace.wait_s(100) == pytest.approx(1)
    clock.now += 1
    assert pace.wait_s(100) == 0


def test_requests_under_way_are_not_counted_as_left() -> None:
    pace = Pace(Clock())
    for _ in range(3):
        pace.sent(10)
    pace.done(10, told("requests", 3, "10s"))
    assert pace.wait_s(10) == 0
    pace.sent(10)
    assert pace.wait_s(10) > 0, "two of the three are under way already, and the third has just gone"


def test_a_small_request_goes_where_a_large_one_has_to_wait() -> None:
    pace = Pace(Clock())
    pace.sent(1)
    pace.done(1, told("tokens", 500, "10s"))
    assert pace.wait_s(501) > 0 and pace.wait_s(500) == 0


def test_told_to_come_back_later_all_wait() -> None:
    clock = Clock()
    pace = Pace(clock)
    pace.sent(1)
    pace.done(1, {}, 7.0)
    assert pace.wait_s(1) == pytest.approx(7)
    clock.now += 7
    assert pace.wait_s(1) == 0


def test_odd_headers_change_nothing() -> None:
    pace = Pace(Clock())
    for left, reset in (("many", "1s"), ("0", "soon"), ("-1", "1s"), ("nan", "1s"), ("0", "")):
        pace.sent(1)
        pace.done(1, told("requests", left, reset))
        assert pace.wait_s(1) == 0


def test_requests_that_end_without_a_reply_are_no_longer_under_way() -> None:
    pace = Pace(Clock())
    for _ in range(5):
        pace.sent(10)
        pace.done(10)
    pace.sent(10)
    pace.done(10, told("requests", 1, "10s"))
    assert pace.wait_s(10) == 0
