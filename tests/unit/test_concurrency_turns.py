"""Whose turn it is on what only one can use at a time."""

from __future__ import annotations

import threading
import time

import pytest

from ragline.concurrency.turns import Turns


def order_of(turns: Turns, waiting: list[bool], before_release: float = 0.0) -> list[tuple[bool, int]]:
    """Who came when, urgent or not, while one held the turn: the order in which they got theirs."""
    order: list[tuple[bool, int]] = []
    threads = []
    with turns.turn(urgent=True):
        for i, urgent in enumerate(waiting):

            def take(i: int = i, urgent: bool = urgent) -> None:
                with turns.turn(urgent=urgent):
                    order.append((urgent, i))

            thread = threading.Thread(target=take)
            thread.start()
            threads.append(thread)
            while len(turns._changed._waiters) < i + 1:  # type: ignore[attr-defined]
                time.sleep(0.001)
        time.sleep(before_release)
    for thread in threads:
        thread.join()
    return order


def test_the_urgent_go_before_those_who_wait_patiently_and_these_in_order_of_coming() -> None:
    order = order_of(Turns(patience_s=3600), [False, False, True, False, True])
    assert [urgent for urgent, _ in order] == [True, True, False, False, False]
    assert [i for urgent, i in order if not urgent] == [0, 1, 3]


def test_a_patient_one_is_not_passed_for_ever() -> None:
    order = order_of(Turns(patience_s=0.0), [False, True, True])
    assert order[0] == (False, 0)


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
