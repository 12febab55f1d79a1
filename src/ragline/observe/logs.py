"""What is written to the log, and how. Library code only asks for loggers below "ragline"; this is for programs.

Levels: ERROR for what was lost, WARNING for what someone should look at, INFO for what a running server tells of itself,
DEBUG for everything else. The text of questions and documents is written at DEBUG only.
"""

from __future__ import annotations

import functools
import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

from ragline.observe.request_ids import request_id

Level = Literal["debug", "info", "warning", "error"]

_RESERVED = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "request_id", "taskName"}
_OWN = ("ts", "level", "logger", "message", "request_id", "exception")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def configure_logging(level: Level = "warning", json: bool = False, *, stream: TextIO | None = None) -> None:
    """Sends everything below the logger "ragline" to a stream. A second call replaces what the first one set up.

    Args:
        level: The least that is written.
        json: One JSON object a line instead of text for people: `ts` (ISO 8601, UTC), `level`, `logger`, `message`,
            `request_id`, `exception`, each where there is one, and whatever the line was given as `extra`.
        stream: Where to; unset takes standard error.
    """
    handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
    handler.setFormatter(JsonLines() if json else TextLines())
    handler.addFilter(RequestIdFilter())
    handler.set_name("ragline")
    root = logging.getLogger("ragline")
    for before in [each for each in root.handlers if each.get_name() == "ragline"]:
        root.removeHandler(before)
    root.addHandler(handler)
    root.setLevel(level.upper())
    root.propagate = False  # else a program's own handler would write each line again


class RequestIdFilter(logging.Filter):
    """Gives each line the id of the request that it was written for, as `request_id`, for handlers of your own too."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Lets everything through."""
        if not hasattr(record, "request_id"):
            record.request_id = request_id()
        return True


class JsonLines(logging.Formatter):
    """One JSON object for each line of the log, in ASCII and without line breaks."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, Any] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if asked := getattr(record, "request_id", ""):
            line["request_id"] = asked
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        for name, value in record.__dict__.items():
            if name not in _RESERVED:
                line[f"{name}_" if name in _OWN else name] = value
        try:
            return json.dumps(line, default=str, allow_nan=False)
        except (TypeError, ValueError, RecursionError):  # keys that are no strings, numbers that JSON lacks, a circle
            return json.dumps({name: value if isinstance(value, str) else repr(value) for name, value in line.items()})


@functools.lru_cache(maxsize=4)
def _clock_time(seconds: int) -> str:
    """What local clocks show; kept, for many lines are of one second."""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%H:%M:%S")


class TextLines(logging.Formatter):
    """Time, level, logger, request and message; of the message one line, whatever stands in it."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, and an exception's lines after it."""
        time = _clock_time(int(record.created))
        asked = getattr(record, "request_id", "")
        # A file's name may hold a line break: nobody shall write lines of their own, or move the cursor.
        shown = _UNPRINTABLE.sub(lambda sign: repr(sign[0])[1:-1], record.getMessage().replace("\n", " | "))
        line = f"{time} {record.levelname:<7} {record.name}{f' [{asked}]' if asked else ''}: {shown}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line
