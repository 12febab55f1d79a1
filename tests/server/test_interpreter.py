"""How the interpreter is set while it serves."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator

import pytest

from ragline.server.interpreter import set_for_serving


def as_it_is() -> tuple[float, tuple[int, int, int], bool]:
    return sys.getswitchinterval(), gc.get_threshold(), gc.get_freeze_count() > 10_000


@pytest.fixture(autouse=True)
def nothing_frozen() -> Iterator[None]:
    gc.unfreeze()
    yield
    gc.unfreeze()


def test_what_is_set_for_serving_is_put_back() -> None:
    before = as_it_is()
    with set_for_serving():
        assert sys.getswitchinterval() <= 0.001
        assert gc.get_threshold()[0] >= 10_000
        assert gc.get_freeze_count() > 10_000, "what was there is not looked at again"
    assert as_it_is() == before


def test_servers_that_overlap_put_back_what_the_first_one_found() -> None:
    before = as_it_is()
    first, second = set_for_serving(), set_for_serving()
    first.__enter__()
    serving = as_it_is()
    second.__enter__()
    first.__exit__(None, None, None)
    assert as_it_is() == serving, "the second still serves"
    second.__exit__(None, None, None)
    assert as_it_is() == before


def test_what_somebody_else_froze_stays_frozen() -> None:
    gc.freeze()
    with set_for_serving():
        pass
    assert gc.get_freeze_count() > 10_000
