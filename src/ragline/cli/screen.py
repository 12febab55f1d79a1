"""What a person reads: text that fits the terminal and cannot take it over. And the JSON that a program reads."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any, TextIO, TypeAlias

from rich.console import Console
from rich.table import Table
from rich.text import Text

Part: TypeAlias = str | tuple[str, str]
"""A piece of a line: a text, or a text and its style."""

UNBOUNDED_COLUMNS = 10_000
"""The width of what is not a terminal: a program reads whole lines."""

_CONTROLS = {code: "\ufffd" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"}
_BREAKS = {code: "\ufffd" for code in b"\n\t"}
_JSON_CONTROLS = {code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)}


def clean(text: str) -> str:
    """The text without control characters: what a document says must not move the cursor."""
    return text.translate(_CONTROLS)


def one_line(text: str, limit: int | None = None) -> str:
    """The text with white space collapsed, and cut at a word with an ellipsis after `limit` characters."""
    text = " ".join(text.split())
    if limit is None or len(text) <= limit:
        return text
    return text[:limit].rpartition(" ")[0] + " ..." if " " in text[:limit] else text[:limit] + " ..."


class Screen:
    """Lines and tables on a stream. Styles and wrapping are for terminals; elsewhere a line stays a line."""

    def __init__(self, stream: TextIO | None = None) -> None:
        stream = stream or sys.stdout
        self._is_terminal = stream.isatty()
        width = None if self._is_terminal else UNBOUNDED_COLUMNS
        self.console = Console(file=stream, width=width, markup=False, emoji=False, highlight=False)

    def line(self, *parts: Part, indent: int = 0) -> None:
        """Writes the parts as one line, wrapped to a terminal's width with every line indented alike."""
        text = Text()
        for part in parts:
            words, style = part if isinstance(part, tuple) else (part, "")
            text.append(clean(words), style)
        lines = text.wrap(self.console, max(self.console.width - indent, 1)) if self._is_terminal and text else [text]
        for line in lines:
            line.rstrip()
            self.console.print(Text(" " * indent) + line, soft_wrap=True)

    def piece(self, text: str) -> None:
        """Writes a piece of a text at once, but for control characters; the terminal wraps it."""
        self.console.file.write(clean(text))
        self.console.file.flush()

    def text(self, text: str) -> None:
        """Writes a text as it is, but for control characters."""
        self.console.file.write(clean(text).rstrip("\n") + "\n")

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Writes rows under headings; columns of numbers stand to the right."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        cells = [list(row) for row in rows]
        for number, column in enumerate(columns):
            numeric = bool(cells) and all(isinstance(row[number], int | float) for row in cells)
            table.add_column(column, justify="right" if numeric else "left", overflow="fold")
        for row in cells:
            table.add_row(*(Text(clean(_cell(value)).translate(_BREAKS)) for value in row))
        self.console.print(table)


def _cell(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)


def print_json(value: Any) -> None:
    """Writes one JSON document to standard output, as readable as the stream's encoding lets it be."""
    text = json.dumps(value, ensure_ascii=False, indent=2)
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:  # the locale cannot show it, or it holds a lone surrogate
        text = json.dumps(value, indent=2)
    sys.stdout.write(text.translate(_JSON_CONTROLS) + "\n")
