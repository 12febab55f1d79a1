"""What one request spent its time on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping


class RequestRecord:
    """A stopwatch with laps: each stage ends where the next begins, so stages do not overlap and leave nothing out.

    For one request; may be handed from thread to thread, but is used by one at a time. `PerformanceMonitor.flush` takes it
    in as a whole when the request is over.

    Examples:
        record = RequestRecord("ask")
        ...
        record.mark("search")                        # from the start until here
        ...
        record.mark("generate")                      # from there until here
        monitor.flush(record)

    Attributes:
        name: The operation that the request was.
        started: When it began, by `clock`.
        stages: Seconds by stage, in the order in which they first ended; a stage that came twice has both.
    """

    __slots__ = ("_clock", "_marked", "name", "stages", "started")

    def __init__(self, name: str, clock: Callable[[], float] = time.perf_counter) -> None:
        self.name = name
        self.stages: dict[str, float] = {}
        self._clock = clock
        self.started = self._marked = clock()

    def mark(self, stage: str, parts_ms: Mapping[str, float] | None = None) -> None:
        """Ends a stage, which began when the one before it ended.

        Args:
            parts_ms: Parts of it that were timed where they ran, by `{part}_ms`: each becomes a stage of its own, and what
                they leave of the time, such as the way to another thread and back, is this stage's.
        """
        now = self._clock()
        left, self._marked = now - self._marked, now
        stages = self.stages
        if parts_ms is not None:
            for part, took_ms in parts_ms.items():
                part, seconds = part.removesuffix("_ms"), took_ms / 1000
                stages[part] = stages.get(part, 0.0) + seconds
                left -= seconds
        stages[stage] = stages.get(stage, 0.0) + max(0.0, left)

    def seconds(self) -> float:
        """From the start until now."""
        return self._clock() - self.started

    def timings(self) -> dict[str, float]:
        """Milliseconds: `{stage}_ms` of each stage, and `total_ms` from the start until now: what follows the last mark is in no stage."""
        timings = {f"{stage}_ms": 1000 * seconds for stage, seconds in self.stages.items()}
        timings["total_ms"] = 1000 * self.seconds()
        return timings
