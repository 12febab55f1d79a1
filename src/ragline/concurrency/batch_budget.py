"""How much to process at once, found out by measuring."""

from __future__ import annotations

from collections import deque

from ragline.errors import InputError

_BACK_OFF = 0.9
_STEPS = 32
"""From `least` to `most`, where no step is given."""

_REMEMBERED = 64
"""Batches over which the quickest is looked for: what was quick long ago may not be so any more."""

_TOLERATED = 2.0


class BatchBudget:
    """The size a batch may have: it grows by a step while batches are quick, and shrinks by a tenth when one is slow.

    Slow is what takes longer than `target_s`, and longer than twice the quickest of the last batches: where every
    call takes its time, as over a network, small batches would help nobody. Only batches that use at least
    half of the budget tell anything about it.

    Source: Crankshaw et al., "Clipper: A Low-Latency Online Prediction Serving System", NSDI 2017, section 4.3.1
    (additive increase, multiplicative decrease with a small back-off).

    Args:
        least, most: Bounds, in the unit that sizes are counted in.
        start: The first budget; unset takes an eighth of the way from `least` to `most`.
        step: What it grows by; unset takes a 32nd of that way.
        target_s: How long a batch should take at most.

    Raises:
        InputError: The bounds do not fit together.
    """

    def __init__(self, least: int, most: int, *, start: int | None = None, step: int | None = None, target_s: float = 0.1) -> None:
        first = least + (most - least) // 8 if start is None else start
        if not 0 < least <= first <= most or (step is not None and step < 1) or not target_s > 0:
            raise InputError(
                f"a budget from {least} to {most} cannot start at {first} with a step of {step} and a target of {target_s} s",
                hint="use 0 < least <= start <= most, a step of at least 1, and a target above 0",
            )
        self.least = least
        self.most = most
        self.size = first
        self._step = step or max(1, (most - least) // _STEPS)
        self._target_s = target_s
        self._took_s: deque[float] = deque(maxlen=_REMEMBERED)

    def note(self, size: int, seconds: float) -> None:
        """A batch of this size took so long."""
        self._took_s.append(seconds)
        if 2 * size < self.size:
            return
        if seconds > max(self._target_s, _TOLERATED * min(self._took_s)):
            self.size = max(self.least, int(self.size * _BACK_OFF))
        else:
            self.size = min(self.most, self.size + self._step)
