"""A text line by line, with the place of each."""

from __future__ import annotations

from collections.abc import Iterator


def lines(text: str, start: int = 0) -> Iterator[tuple[int, str]]:
    """Where each line begins, and the line without its break; from the line that begins at `start`."""
    while start < len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        yield start, text[start:end]
        start = end + 1
