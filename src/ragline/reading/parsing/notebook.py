"""A Jupyter notebook becomes text: its cells in order, with what they printed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from .blocks import Blocks, clean
from .packages import UnreadableError
from .plain import markdown_headings

_MAX_OUTPUT_CHARS = 2000


def read_notebook(text: str) -> dict[str, Any]:
    """The text of a notebook (nbformat 3 and 4), the headings of its Markdown cells, and its `language`.

    Of what a code cell printed, the first 2000 characters are read; pictures and HTML are not.

    Raises:
        UnreadableError: It is no notebook.
    """
    try:
        book = json.loads(text)
        sheets = book.get("worksheets") or [book]
        cells = [cell for sheet in sheets for cell in sheet["cells"]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
        raise UnreadableError(f"it is damaged, or no notebook: {exc}") from exc
    blocks = Blocks()
    for cell in cells:
        if isinstance(cell, dict):
            _add_cell(blocks, cell)
    language = (book.get("metadata") or {}).get("language_info") or {}
    metadata = {"code_language": language["name"]} if isinstance(language, dict) and isinstance(language.get("name"), str) else {}
    return {**blocks.result(), "metadata": metadata}


def _add_cell(blocks: Blocks, cell: dict[str, Any]) -> None:
    source = clean(_joined(cell.get("source", cell.get("input")))).strip("\n").rstrip()
    if cell.get("cell_type") == "heading":
        blocks.heading(source, cell["level"] if isinstance(cell.get("level"), int) else 1)
        return
    if source.strip():
        blocks.add(source)
        begin = blocks.length - len(source)
        if cell.get("cell_type") == "markdown":
            blocks.headings += [(begin + start, begin + end, level, title) for start, end, level, title in markdown_headings(source)]
    if cell.get("cell_type") == "code":
        for output in cell.get("outputs") or ():
            shown = "\n".join(filter(None, _output(output)))
            if len(shown) > _MAX_OUTPUT_CHARS:
                shown = f"{shown[:_MAX_OUTPUT_CHARS].rstrip()} [...]"
            blocks.add(shown)


def _output(output: Any) -> Iterator[str]:
    if not isinstance(output, dict):
        return
    data = output.get("data")
    yield _joined(output.get("text"))
    if isinstance(data, dict):
        yield _joined(data.get("text/plain"))
    if output.get("output_type") in ("error", "pyerr"):
        yield f"{output.get('ename', '')}: {output.get('evalue', '')}"


def _joined(text: Any) -> str:
    if isinstance(text, list):
        return "".join(line for line in text if isinstance(line, str))
    return text if isinstance(text, str) else ""
