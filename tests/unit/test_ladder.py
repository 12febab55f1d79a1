from __future__ import annotations

from ragline.concurrency.ladder import Ladder


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def pass_time(ladder: Ladder, clock: Clock, seconds: float, *, busy: bool) -> int:
    ends = clock.now + seconds
    while clock.now < ends:
        clock.now += 0.05
        ladder.see(busy)
    return ladder.level


def test_it_rises_step_by_step_while_busy_and_no_higher_than_there_are_steps() -> None:
    clock = Clock()
    ladder = Ladder(3, up_s=0.5, down_s=3, clock=clock)
    assert pass_time(ladder, clock, 0.4, busy=True) == 0
    assert pass_time(ladder, clock, 0.3, busy=True) == 1
    assert pass_time(ladder, clock, 5, busy=True) == 3


def test_a_moment_of_being_busy_changes_nothing() -> None:
    clock = Clock()
    ladder = Ladder(3, up_s=0.5, down_s=3, clock=clock)
    for _ in range(50):
        pass_time(ladder, clock, 0.3, busy=True)
        pass_time(ladder, clock, 0.1, busy=False)
    assert ladder.level == 0


def test_it_falls_slower_than_it_rises() -> None:
    clock = Clock()
    ladder = Ladder(2, up_s=0.5, down_s=3, clock=clock)
    pass_time(ladder, clock, 2, busy=True)
    assert pass_time(ladder, clock, 2.5, busy=False) == 2
    assert pass_time(ladder, clock, 1, busy=False) == 1
    assert pass_time(ladder, clock, 3, busy=False) == 0


def test_what_cannot_be_done_without_is_not_tried_again_every_few_seconds() -> None:
    clock = Clock()
    ladder = Ladder(1, up_s=0.5, down_s=3, longest_down_s=24, clock=clock)
    changes = 0
    for _ in range(4000):  # 200 s in which it is busy whenever nothing is left out
        clock.now += 0.05
        before = ladder.level
        ladder.see(ladder.level == 0)
        changes += ladder.level != before
    assert changes <= 24
    pass_time(ladder, clock, 100, busy=False)
    pass_time(ladder, clock, 1, busy=True)
    assert pass_time(ladder, clock, 3.2, busy=False) == 0, "after a long calm it is as at first"
