"""The tables of web pages become lines: with the names of their columns, or of their rows."""

from __future__ import annotations

from dataclasses import dataclass

from .blocks import table_lines

_MAX_SPAN = 100


@dataclass(slots=True)
class Cell:
    """A cell, whether it is a name (`<th>`), and how many columns and rows it spans."""

    text: str
    is_name: bool
    columns: int = 1
    rows: int = 1


def grid_lines(rows: list[list[Cell]]) -> list[str]:
    """The rows of a table that holds data, as lines: with the names of its columns, or with that of the row.

    A table of two columns that marks no names gives "first: second": right for lists of properties, and readable for
    the others.
    """
    marked = any(cell.is_name for row in rows for cell in row)
    heads = [row for row in rows if len(row) > 1 and all(cell.is_name for cell in row)]
    filled = _without_spans(rows)
    if heads and heads[0] is rows[0]:
        return table_lines(filled)
    if all(len(row) < 2 or (row[0].is_name and not row[1].is_name) for row in rows) or (not marked and max(map(len, filled)) == 2):
        flat = ([" ".join(cell.split()) for cell in row] for row in filled)
        return [": ".join(filter(None, (row[0], "; ".join(filter(None, row[1:]))))) for row in flat if any(row)]
    return table_lines(filled, header=not marked)


def _without_spans(rows: list[list[Cell]]) -> list[list[str]]:
    """The texts of a table's cells, those that span rows or columns repeated, so that each row can stand alone."""
    filled: list[list[str]] = []
    above: dict[int, tuple[str, int]] = {}  # by column: what goes on in the next rows, and in how many
    budget = 20 * sum(map(len, rows)) + 1000
    for row in rows:
        texts: list[str] = []
        cells = iter(row)
        while True:
            column = len(texts)
            if column in above and budget > 0:
                text, more = above.pop(column)
                if more > 1:
                    above[column] = (text, more - 1)
                texts.append(text)
                budget -= 1
                continue
            cell = next(cells, None)
            if cell is None:
                break
            for number in range(cell.columns if budget > 0 else 1):
                texts.append(cell.text if number == 0 or cell.is_name else "")
                if cell.rows > 1:
                    above[column + number] = (cell.text, cell.rows - 1)
                budget -= 1
        filled.append(texts)
    return filled


def span(value: str | None) -> int:
    """How many columns or rows an attribute says; 1 for nonsense."""
    return min(max(int(value), 1), _MAX_SPAN) if value and value.isascii() and value.isdigit() and len(value) < 9 else 1
