"""Texts that need no parser: plain text, Markdown, reStructuredText, Org, source code, tables of comma-separated values."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from typing import Any, Literal

from . import formats
from .blocks import header_of, record_line, table_lines
from .code import Mark, code_headings, declares
from .lines import lines
from .org import org_headings, org_metadata
from .records import json_as_text, lines_as_text
from .restructured import restructured_headings
from .texts import decode

_FENCE = re.compile(r" {0,3}(`{3,}+(?!.*`)|~{3,})")
_ATX = re.compile(r" {0,3}(#{1,6})(?:[ \t]+|$)")
_SETEXT = re.compile(r" {0,3}(=+|-{2,})[ \t]*$")
_NO_PARAGRAPH = re.compile(r"\s*(?:[-*+>|]\s|\d+[.)]\s|\|)| {4}|\t")
_FRONT_MATTER = re.compile(r"---[ \t]*\n(.*?\n)(?:---|\.\.\.)[ \t]*(?:\n|$)", re.DOTALL)
_SEPARATOR = re.compile(r"sep=([^\w\s\"]|\t)\n")
"""The line in which Excel says what parts the cells."""
_FIELD = re.compile(r"([A-Za-z][\w-]*+):[ \t]++(\S.*)")
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
_EMPHASIS = re.compile(r"(?<!\w)(\*{1,3}|_{1,3})(\S(?:[^*_]*\S)?)\1(?!\w)")
_JSON_LINES = frozenset({"jsonl", "ndjson"})
_MAX_COLUMNS = 1000
_MAX_TITLE_CHARS = 1000
"""What is longer is no heading that anybody wrote; looking for links in it takes time in the square of its length."""


def read_plain(data: bytes, media_type: str, suffix: str = "") -> dict[str, Any]:
    """The text in the bytes of a file that needs no parser: `text`, `headings`, `pages`, `metadata`.

    Rows of CSV and TSV become lines that can be understood alone: "name: value; name: value"; so do records in JSON, one a
    paragraph. Source code has its
    declarations as headings, by the language that `suffix` (lower case, no dot) tells; its text stays as it is.

    Raises:
        NotTextError: The bytes are not those of a text.
    """
    decoded = decode(data)
    metadata: dict[str, Any] = {}
    if decoded.encoding != "utf-8" or decoded.guessed:
        metadata["encoding"] = decoded.encoding + (" (guessed)" if decoded.guessed else "")
    text = decoded.text
    if media_type in (formats.CSV, formats.TSV):
        text = _rows_as_text(text, media_type)
    elif media_type == formats.JSON:
        text = lines_as_text(text) if suffix in _JSON_LINES else json_as_text(text)
    headings: list[Mark] = []
    if declares(suffix):
        headings = code_headings(text, suffix)
    elif find := _HEADINGS.get(media_type):
        headings = find(text)
    if says := _METADATA.get(media_type):
        metadata = {**says(text), **metadata}
    return {"text": text, "headings": headings, "pages": [], "metadata": metadata}


def markdown_headings(text: str) -> list[Mark]:
    """The headings of a Markdown text (CommonMark 4.2 and 4.3), without those inside fenced code and front matter."""
    headings: list[Mark] = []
    front = _FRONT_MATTER.match(text)
    fence = ""
    previous = (0, "")  # the line before, where it can be the title of an underlined heading
    for start, line in lines(text, front.end() if front else 0):
        opening = _FENCE.match(line)
        if fence:
            if opening and opening[1].startswith(fence) and not line[opening.end() :].strip():
                fence = ""
            previous = (0, "")
        elif opening:
            fence, previous = opening[1], (0, "")
        elif atx := _ATX.match(line):
            title, begin = _atx_title(line[atx.end() :]), start + atx.end()
            if title.strip("# \t"):
                headings.append((begin, begin + len(title), len(atx[1]), _plain_title(title)))
            previous = (0, "")
        elif previous[1] and (underline := _SETEXT.match(line)):
            title = previous[1].strip()
            begin = previous[0] + previous[1].index(title)
            headings.append((begin, begin + len(title), 1 if underline[1][0] == "=" else 2, _plain_title(title)))
            previous = (0, "")
        else:
            previous = (start, line) if line.strip() and not _NO_PARAGRAPH.match(line) else (0, "")
    return headings


def _atx_title(rest: str) -> str:
    """The title of a heading's line after its opening marks: without blanks at its end and the closing marks (CommonMark 4.2)."""
    title = rest.rstrip(" \t")
    opened = title.rstrip("#")
    return opened.rstrip(" \t") if opened[-1:] in ("", " ", "\t") else title


def _plain_title(title: str) -> str:
    """A title without the marks of emphasis, code and links around its words, and not longer than anyone writes."""
    title = title[:_MAX_TITLE_CHARS]
    words = _EMPHASIS.sub(r"\2", _LINK.sub(r"\1", title)).replace("`", "")
    return " ".join(words.split()) or title


def _front_matter(text: str) -> dict[str, Any]:
    """The plain `name: value` lines of a Markdown file's front matter, as strings; lists and nesting are left out."""
    block = _FRONT_MATTER.match(text)
    fields = (_FIELD.match(line.rstrip(" \t")) for line in block[1].split("\n")) if block else ()
    return {field[1].lower(): field[2].strip("\"'") for field in fields if field and field[2][0] not in "[{|>&*"}


_HEADINGS: dict[str, Callable[[str], list[Mark]]] = {
    formats.MARKDOWN: markdown_headings,
    formats.PLAIN: markdown_headings,
    formats.RST: restructured_headings,
    formats.ORG: org_headings,
}
_METADATA: dict[str, Callable[[str], dict[str, Any]]] = {formats.MARKDOWN: _front_matter, formats.ORG: org_metadata}


def _rows_as_text(text: str, media_type: str) -> str:
    """The rows, one a line; the text as it is where it is no table."""
    named = _SEPARATOR.match(text) if media_type == formats.CSV else None
    rest = text[named.end() :] if named else text
    delimiter = "\t" if media_type == formats.TSV else named[1] if named else _delimiter(text)
    try:
        rows = csv.reader(io.StringIO(rest), delimiter=delimiter, quoting=_quoting(rest, media_type))
        first = next(rows, [])
        if len(first) < 2 or len(first) > _MAX_COLUMNS:
            return text
        header = header_of(first)
        if header is None:
            return "\n".join(table_lines([first, *rows], header=False))
        return "\n".join(line for line in (record_line(header, row) for row in rows) if line) or text
    except csv.Error:
        return text


def _quoting(text: str, media_type: str) -> Literal[0, 3]:
    """Whether quotation marks hold cells together; not those of a TSV where that would join lines that are whole rows without."""
    if media_type == formats.TSV and '"' in text:
        quoted = csv.reader(io.StringIO(text), delimiter="\t")
        if any("\n" in cell for row in quoted for cell in row):
            width = text.split("\n", 1)[0].count("\t")
            if all(line.count("\t") == width for line in text.split("\n") if line):
                return csv.QUOTE_NONE
    return csv.QUOTE_MINIMAL


def _delimiter(text: str) -> str:
    first = text[:65536].split("\n", 1)[0]
    return max(",;\t|", key=first.count)
