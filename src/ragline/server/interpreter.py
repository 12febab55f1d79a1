"""How the interpreter is set while it serves."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_SWITCH_S = 0.0002
"""How soon a thread that computes hands over the interpreter's lock; the default, 5 ms, is what the event loop waits for it at worst, and a
search several times over.
"""

_YOUNG_OBJECTS = 10_000
"""After so many more objects than before (700 in Python 3.11) the collector looks for cycles among the young ones."""


@contextmanager
def set_for_serving() -> Iterator[None]:
    """Short turns for threads, and a collector of cycles that looks at what requests leave, not at modules and models over and over.

    Under 500 users the collector took 2 to 3 % of the processor, and a look at the whole heap in one go holds up everybody. Enter it
    once what stays has been loaded. What somebody else had frozen before stays frozen.
    """
    switch_s, thresholds, frozen = sys.getswitchinterval(), gc.get_threshold(), gc.get_freeze_count()
    sys.setswitchinterval(min(_SWITCH_S, switch_s))
    gc.collect()
    gc.freeze()
    gc.set_threshold(max(_YOUNG_OBJECTS, thresholds[0]), *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        if not frozen:
            gc.unfreeze()
        sys.setswitchinterval(switch_s)
