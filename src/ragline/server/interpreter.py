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
"""So many more objects than before, not 700, have the collector look for cycles among the young ones."""


@contextmanager
def set_for_serving() -> Iterator[None]:
    """Short turns for threads, and a collector of cycles that looks at what requests leave, not at modules and models over and over.

    Under 500 users it took 2 to 3 % of the processor, and the whole heap in one go holds up everybody for 0.1 s. Enter it when
    all has been loaded that stays.
    """
    switch_s, thresholds = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(min(_SWITCH_S, switch_s))
    gc.collect()
    gc.freeze()
    gc.set_threshold(max(_YOUNG_OBJECTS, thresholds[0]), *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()
        sys.setswitchinterval(switch_s)
