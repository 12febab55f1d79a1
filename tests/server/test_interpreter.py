"""How the interpreter is set while it serves."""

from __future__ import annotations

import gc
import sys

from ragline.server.interpreter import set_for_serving


def test_what_is_set_for_serving_is_put_back() -> None:
    gc.unfreeze()
    before = sys.getswitchinterval(), gc.get_threshold(), gc.get_freeze_count()
    with set_for_serving():
        assert sys.getswitchinterval() <= 0.001
        assert gc.get_threshold()[0] >= 10_000
        assert gc.get_freeze_count() > 10_000, "what was there is not looked at again"
    assert (sys.getswitchinterval(), gc.get_threshold(), gc.get_freeze_count()) == before
