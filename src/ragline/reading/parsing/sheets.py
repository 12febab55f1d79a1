"""A spreadsheet becomes text: sheet by sheet, each row with the names of its columns.

Read with calamine alone: kreuzberg reads with it too, but makes a tree of every cell, which a sheet of 100,000 rows
(2.5 MB) does not survive in 512 MB. Here it takes 45 MB and a second.
"""

from __future__ import annotations

import datetime
import itertools
import re
import zipfile
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import python_calamine

from .blocks import Blocks, clean_record_line, header_of, one_line
from .packages import EncryptedError, UnreadableError, open_package, reason
from .word import core_properties

_MAX_CELLS = 8_000_000
"""Of the rectangle that a sheet fills, which calamine holds as a whole: 32 bytes each."""
_MAX_MERGED_ROWS = 10_000
_LOOKAHEAD = 20
_BATCH = 1000
_ZIP = b"PK"
_REFERENCE = re.compile(rb'\sr="([A-Z]{1,3})([0-9]{1,7})"')
_READ_BYTES = 1 << 20
_NUMBER = re.compile(r"-?[\d.]+(?:e[+-]?\d+)?|\d{4}-\d\d-\d\d.*")

Row = list[str]


def read_sheets(file: BinaryIO, *, max_bytes: int) -> dict[str, Any]:
    """The text of a spreadsheet (.xlsx, .xlsm, .xlsb, .xls, .ods), with a heading for each sheet.

    Formulas give the values last computed. Empty rows and columns are left out, cells merged over rows are repeated in
    each.

    Raises:
        UnreadableError: It is damaged, or too large to hold.
        EncryptedError: It has a password.
    """
    metadata: dict[str, Any] = {}
    file.seek(0)
    if file.read(2) == _ZIP:
        with open_package(file, kind="spreadsheet", max_bytes=max_bytes) as archive:
            metadata = core_properties(archive)
            for name in archive.namelist():
                if name.startswith("xl/worksheets/") and name.endswith(".xml"):
                    _check_extent(archive, name)
    file.seek(0)
    blocks = Blocks()
    try:
        with python_calamine.load_workbook(file) as book:
            for name in book.sheet_names:
                _add_sheet(blocks, name, book)
    except python_calamine.PasswordError as exc:
        raise EncryptedError("it is encrypted") from exc
    except (python_calamine.CalamineError, ValueError) as exc:
        raise UnreadableError(f"it is damaged, or no spreadsheet: {reason(exc)}") from exc
    return {**blocks.result(), "metadata": metadata}


def _check_extent(archive: zipfile.ZipFile, name: str) -> None:
    """Refuses a sheet whose furthest cell makes its rectangle too large, before it is held."""
    rows, columns, rest = 0, 0, b""
    with archive.open(name) as part:
        while data := part.read(_READ_BYTES):
            found = _REFERENCE.findall(rest + data)
            rest = data[-32:]
            rows = max(rows, max((int(row) for _, row in found), default=0))
            columns = max(columns, max(map(_column, {column for column, _ in found}), default=0))
    if rows * columns > _MAX_CELLS:
        raise UnreadableError(f"a sheet reaches to row {rows:,} and column {columns:,}, more than can be held; save it as CSV")


def _column(letters: bytes) -> int:
    number = 0
    for letter in letters:
        number = 26 * number + letter - 64
    return number


def _add_sheet(blocks: Blocks, name: str, book: python_calamine.CalamineWorkbook) -> None:
    try:
        sheet = book.get_sheet_by_name(name)
    except python_calamine.WorksheetNotFound:
        return  # a chart has a sheet's name and no cells
    if not sheet.height:
        return
    blocks.heading(f"Sheet: {name}", 1)
    lines = sheet_lines(_rows(sheet))
    while batch := list(itertools.islice(lines, _BATCH)):
        for begins, group in itertools.groupby(batch, key=lambda line: line[1]):
            texts = [text for text, _ in group]
            if begins:
                for text in texts:
                    blocks.add(text)
            else:
                blocks.add("\n".join(texts), tight=True)


def _rows(sheet: python_calamine.CalamineSheet) -> Iterator[Row]:
    merged: dict[int, list[tuple[int, int]]] = {}  # by first row: last row and column
    first_row, first_column = sheet.start or (0, 0)
    for (top, left), (bottom, _) in sheet.merged_cell_ranges or ():
        if 0 < bottom - top <= _MAX_MERGED_ROWS:
            merged.setdefault(top - first_row, []).append((bottom - first_row, left - first_column))
    repeated: dict[int, tuple[int, str]] = {}  # by column: last row and text
    for number, cells in enumerate(sheet.iter_rows()):
        row = [_text(cell) for cell in cells]
        for column, (last, text) in list(repeated.items()):
            if number > last:
                del repeated[column]
            elif column < len(row) and not row[column] and any(row):
                row[column] = text
        for last, column in merged.get(number, ()):
            if 0 <= column < len(row):
                repeated[column] = (last, row[column])
        yield row


def _text(value: Any) -> str:
    """A cell as people write it: no ".0", no midnight, no digits that binary fractions add."""
    if isinstance(value, str):
        return one_line(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else f"{value:.15g}"
    if isinstance(value, datetime.datetime):
        return (
            value.date().isoformat()
            if value.time() == datetime.time()
            else value.isoformat(" ", "minutes" if not value.second else "seconds")
        )
    return str(value)


def sheet_lines(rows: Iterator[Row]) -> Iterator[tuple[str, bool]]:
    """The rows of a sheet as lines, and whether each begins a block.

    Blank rows part tables. Rows of one cell above a table are its title. A table's first row gives the names of its
    columns if it looks like it (see `header_of`); a table without such a row, in the columns of the one above, goes on
    with it. Without names, the cells stand between bars.
    """
    names: list[str] | None = None
    while True:
        row = next((row for row in rows if any(row)), None)
        if row is None:
            return
        table = itertools.chain([row], itertools.takewhile(any, rows))
        first = list(itertools.islice(table, _LOOKAHEAD))
        is_wide = any(_filled(row) > 1 for row in first)
        begins = True
        while is_wide and first and _filled(first[0]) == 1:
            yield next(filter(None, first.pop(0))), True
        names = _names(first, names)
        if names is not None and first and [*names] == [*first[0]]:
            first = first[1:]
        for row in itertools.chain(first, table):
            line = clean_record_line(names, row) if names is not None else _barred(row)
            yield line, begins
            begins = False


def _names(rows: Sequence[Row], before: list[str] | None) -> list[str] | None:
    """The names of a table's columns: in its first row, or those of the table above."""
    if not rows:
        return None
    found = header_of(rows[0]) if len(rows) > 1 else None
    columns = {i for row in rows for i, cell in enumerate(row) if cell}
    if before is not None and columns <= {i for i, name in enumerate(before) if name} and not (found and _is_above_figures(rows)):
        return before
    return found


def _is_above_figures(rows: Sequence[Row]) -> bool:
    """Whether a first row without figures stands above rows with some."""
    return not any(map(_NUMBER.fullmatch, rows[0])) and any(_NUMBER.fullmatch(cell) for row in rows[1:] for cell in row)


def _filled(row: Row) -> int:
    return sum(1 for cell in row if cell)


def _barred(row: Row) -> str:
    cells = [cell for cell in row if cell]
    return f"| {' | '.join(cells)} |" if len(cells) > 1 else cells[0]
