"""What this process takes: memory and processor time, as the system tells it."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_STATM = Path("/proc/self/statm")


@dataclass(frozen=True, slots=True)
class ProcessUse:
    """What a process takes.

    Attributes:
        resident_bytes: Memory it holds now; None where the system does not tell.
        peak_bytes: The most it ever held; None where the system does not tell.
        cpu_user_s, cpu_system_s: Processor time since it began, over all its threads.
        cpu_percent: Processor time since the last look, of one core: 150 is one and a half cores.
    """

    resident_bytes: int | None
    peak_bytes: int | None
    cpu_user_s: float
    cpu_system_s: float
    cpu_percent: float


class ProcessMeter:
    """Looks at this process. Safe for several threads; each look begins a new stretch for `cpu_percent`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._looked, self._spent_s = clock(), sum(cpu_s())

    def look(self) -> ProcessUse:
        """What it takes, and what share of a core it took since the last look (the first: since this was made)."""
        user_s, system_s = cpu_s()
        with self._lock:
            now, spent_s = self._clock(), user_s + system_s
            passed_s, used_s = now - self._looked, spent_s - self._spent_s
            self._looked, self._spent_s = now, spent_s
        return ProcessUse(resident_bytes(), peak_bytes(), user_s, system_s, 100 * used_s / passed_s if passed_s > 0 else 0.0)


def cpu_s() -> tuple[float, float]:
    """Seconds of the processor that this process used: its own code's, and the system's for it."""
    times = os.times()
    return times.user, times.system


def resident_bytes() -> int | None:
    """Memory that this process holds now; None where the system does not tell (it does on Linux)."""
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


def peak_bytes() -> int | None:
    """The most memory that this process ever held; None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most
