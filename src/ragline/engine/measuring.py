"""A request to the engine: named, timed stage by stage, and taken in by the monitor once, when it is over."""

from __future__ import annotations

import logging
from types import TracebackType

from ragline.observe.performance import PerformanceMonitor
from ragline.observe.records import RequestRecord
from ragline.observe.request_ids import begin_request, end_request

log = logging.getLogger("ragline.engine")


class Measured:
    """For one `with`: what runs inside has a request's id, and is measured under a name.

    Cancelled requests are not counted; failed ones are, with the kind of their error.
    """

    __slots__ = ("_monitor", "_record", "_token")

    def __init__(self, monitor: PerformanceMonitor, name: str) -> None:
        self._monitor = monitor
        self._record = RequestRecord(name)

    def __enter__(self) -> RequestRecord:
        self._token = begin_request()
        return self._record

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        flush(self._monitor, self._record, kind)
        end_request(self._token)


def flush(monitor: PerformanceMonitor, record: RequestRecord, kind: type[BaseException] | None = None) -> None:
    """Takes in a request that is over; `kind` is what it ended with, where that was no answer."""
    if kind is None:
        monitor.flush(record)
    elif issubclass(kind, Exception):  # cancelled or interrupted says nothing of the request
        monitor.flush(record, ok=False, error=kind.__name__)
    if log.isEnabledFor(logging.DEBUG):
        timings = {stage: round(took_ms, 3) for stage, took_ms in record.timings().items()}
        ended = "answered" if kind is None else f"ended with {kind.__name__}"
        log.debug("%s %s after %.1f ms", record.name, ended, timings["total_ms"], extra={"timings": timings})
