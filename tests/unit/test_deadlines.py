from __future__ import annotations

import asyncio

import pytest

from ragline.concurrency.deadlines import capped_s, check_deadline, deadline, remaining_s, size_of_deadline
from ragline.errors import DeadlineError


def test_without_a_deadline_nothing_is_cut() -> None:
    assert remaining_s() is None and size_of_deadline() is None
    assert capped_s(7.0, share=0.5) == 7.0
    check_deadline()


def test_limits_are_cut_to_what_is_left() -> None:
    with deadline(10.0):
        assert 9 < capped_s(100.0) <= 10
        assert 4.5 < capped_s(100.0, share=0.5) <= 5
        assert capped_s(1.0) == 1.0
    assert remaining_s() is None


def test_an_inner_deadline_only_shortens() -> None:
    with deadline(10.0), deadline(100.0):
        assert capped_s(1000.0) <= 10
        with deadline(1.0):
            assert capped_s(1000.0) <= 1


def test_nothing_is_begun_when_the_time_is_over() -> None:
    with deadline(0.0):
        with pytest.raises(DeadlineError):
            check_deadline()
        with pytest.raises(DeadlineError):
            capped_s(1.0)


async def test_a_deadline_goes_along_with_tasks_begun_within() -> None:
    async def left() -> float | None:
        return remaining_s()

    with deadline(5.0):
        task = asyncio.create_task(left())
    assert await task is not None


def test_deadlines_of_about_the_same_length_have_one_size() -> None:
    sizes = []
    for seconds in (20.0, 30.0, 1.0, 0.0):
        with deadline(seconds):
            sizes.append(size_of_deadline())
    assert sizes[0] == sizes[1] != sizes[2] != sizes[3]
