"""Whose turn it is on what only one can use at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from ragline.concurrency.turns import Turns
from tests.interrupting import ctrl_c


class Clock:
    """Stands still; the urgent look at it a moment later than the others."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s + (0.02 if threading.current_thread().name == "urgent" else 0.0)


def order_of(turns: Turns, waiting: list[bool], before_release: Callable[[], None] = lambda: None) -> list[tuple[bool, int]]:
    """Who came when, urgent or not, while one held the turn: the order in which they got theirs."""
    order: list[tuple[bool, int]] = []
    threads = []
    with turns.turn(urgent=True):
        for i, urgent in enumerate(waiting):

            def take(i: int = i, urgent: bool = urgent) -> None:
                with turns.turn(urgent=urgent):
                    order.append((urgent, i))

            thread = threading.Thread(target=take, name="urgent" if urgent else "patient", daemon=True)
            thread.start()
            threads.append(thread)
            while len(turns._urgent) + len(turns._patient) < i + 1:
                time.sleep(0.001)
        before_release()
    for thread in threads:
        thread.join(10)
    return order


def test_the_urgent_go_before_those_who_wait_patiently_and_these_in_order_of_coming() -> None:
    order = order_of(Turns(patience_s=3600), [False, False, True, False, True])
    assert [urgent for urgent, _ in order] == [True, True, False, False, False]
    assert [i for urgent, i in order if not urgent] == [0, 1, 3]


def test_a_patient_one_is_not_passed_for_ever() -> None:
    order = order_of(Turns(patience_s=0.0), [False, True, True])
    assert order[0] == (False, 0)


def test_whose_patience_ends_while_it_is_decided_who_is_next_keeps_nobody_waiting() -> None:
    clock = Clock()

    def just_before_patience_ends() -> None:
        clock.now_s = 0.99  # and to the urgent just after it

    order = order_of(Turns(patience_s=1.0, clock=clock), [False, True, False, True], just_before_patience_ends)
    assert sorted(order) == [(False, 0), (False, 2), (True, 1), (True, 3)]


def test_after_a_patient_one_that_was_overdue_the_urgent_go_first_again() -> None:
    clock = Clock()
    turns = Turns(patience_s=1.0, clock=clock)

    def later() -> None:
        clock.now_s = 1.0
        turns._patient[1].since = 0.5  # it came later

    assert order_of(turns, [False, False, True], later) == [(False, 0), (True, 2), (False, 1)]


def test_one_at_a_time() -> None:
    turns, inside, most = Turns(), 0, 0
    lock = threading.Lock()

    def work(urgent: bool) -> None:
        nonlocal inside, most
        for _ in range(50):
            with turns.turn(urgent=urgent):
                with lock:
                    inside += 1
                    most = max(most, inside)
                with lock:
                    inside -= 1

    threads = [threading.Thread(target=work, args=(i % 2 == 0,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert most == 1 and not any(thread.is_alive() for thread in threads)


def test_an_error_within_a_turn_ends_it() -> None:
    turns = Turns()
    with pytest.raises(ValueError, match="mine"), turns.turn(urgent=False):
        raise ValueError("mine")
    with turns.turn(urgent=True):
        pass


def test_who_is_interrupted_while_it_waits_is_not_waited_for() -> None:
    turns = Turns()
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with turns.turn(urgent=True):
            held.set()
            while not turns._patient:
                time.sleep(0.001)
            keys.press()
            release.wait(10)

    thread = threading.Thread(target=hold, daemon=True)
    with ctrl_c() as keys:
        thread.start()
        assert held.wait(10)
        with pytest.raises(KeyboardInterrupt), turns.turn(urgent=False):
            pass
    release.set()
    thread.join(10)
    with turns.turn(urgent=False):
        assert not turns._patient
