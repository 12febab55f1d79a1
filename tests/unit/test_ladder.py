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
    ladder = Ladder(3, lambda: 0, up_s=0.5, down_s=3, clock=clock)
    assert pass_time(ladder, clock, 0.4, busy=True) == 0
    assert pass_time(ladder, clock, 0.3, busy=True) == 1
    assert pass_time(ladder, clock, 2, busy=True) == 1, "a step has its time to show what it gives"
    assert pass_time(ladder, clock, 10, busy=True) == 3


def test_a_moment_of_being_busy_changes_nothing() -> None:
    clock = Clock()
    ladder = Ladder(3, lambda: 0, up_s=0.5, down_s=3, clock=clock)
    for _ in range(50):
        pass_time(ladder, clock, 0.3, busy=True)
        pass_time(ladder, clock, 0.1, busy=False)
    assert ladder.level == 0


def test_it_falls_slower_than_it_rises() -> None:
    clock = Clock()
    ladder = Ladder(2, lambda: 0, up_s=0.5, down_s=3, clock=clock)
    pass_time(ladder, clock, 10, busy=True)
    assert pass_time(ladder, clock, 2.5, busy=False) == 2
    assert pass_time(ladder, clock, 1, busy=False) == 1
    assert pass_time(ladder, clock, 3, busy=False) == 0


def test_what_cannot_be_done_without_is_not_tried_again_every_few_seconds() -> None:
    clock = Clock()
    ladder = Ladder(1, lambda: 0, up_s=0.5, down_s=3, longest_s=24, clock=clock)
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


def test_a_step_after_which_less_gets_done_is_taken_back_and_left_alone() -> None:
    clock, done = Clock(), 0.0
    ladder = Ladder(3, lambda: int(done), up_s=0.5, down_s=3, longest_s=60, clock=clock)
    levels: list[int] = []
    for _ in range(1000):  # 50 s
        clock.now += 0.05
        done += (10, 11, 12, 4)[ladder.level] * 0.05
        levels.append(ladder.see(True))
    assert 3 in levels
    assert levels[-1] == 2 and levels.count(3) <= 45
    for _ in range(1000):
        clock.now += 0.05
        done += (10, 11, 12, 40)[ladder.level] * 0.05
        levels.append(ladder.see(True))
    assert levels[-1] == 3, "after a while it is tried again"


def test_a_step_that_only_came_when_less_could_be_done_is_taken_again() -> None:
    clock, done = Clock(), 0.0
    ladder = Ladder(1, lambda: int(done), up_s=0.5, down_s=3, longest_s=60, clock=clock)
    levels: list[int] = []
    for number in range(200):  # 10 s; after the first second all that comes takes long, with the step and without
        clock.now += 0.05
        done += (40 if number < 20 else 5) * 0.05
        levels.append(ladder.see(True))
    assert levels[0] == 0 and 1 in levels[:20] and 0 in levels[40:100]
    assert levels[-1] == 1
