"""Texts that need no parser, read in this process: what was handed over, and small text files."""

from __future__ import annotations

from ragline.errors import ReadError
from ragline.reading.base import ReadText
from ragline.reading.parsing import formats, plain
from ragline.reading.parsing.blocks import clean
from ragline.reading.parsing.texts import NotTextError
from ragline.types import Heading, Layout


def read_text(text: str, source: str | None = None) -> ReadText:
    """A text that the user handed over, cleaned, with its Markdown headings.

    Raises:
        ReadError: There is nothing in it.
    """
    cleaned = clean(text)
    if not cleaned.strip():
        raise ReadError(f"{source or 'the document'} has no text", hint="there is nothing to ingest")
    return ReadText(cleaned, Layout(markdown_headings(cleaned)), {}, formats.MARKDOWN)


def read_plain(data: bytes, media_type: str, suffix: str = "") -> ReadText:
    """The text in the bytes of a file that needs no parser (see `plain.read_plain`).

    Raises:
        ReadError: The bytes are not those of a text, or hold none.
    """
    try:
        read = plain.read_plain(data, media_type, suffix)
    except NotTextError as exc:
        raise ReadError(str(exc), hint="give it the extension of its format, or save it as UTF-8 text") from exc
    except Exception as exc:  # as in a parser's process: it concerns this file only
        from ragline.reading.parsing.failures import explain  # with it come the parsers of packages

        told = explain(exc, media_type)
        raise ReadError(told["error"], hint=told["hint"]) from exc
    if not read["text"].strip():
        raise ReadError("it holds no text", hint="there is nothing to ingest")
    headings = tuple(Heading(*heading) for heading in read["headings"])
    return ReadText(read["text"], Layout(headings), read["metadata"], media_type)


def markdown_headings(text: str) -> tuple[Heading, ...]:
    """The headings of a Markdown text (CommonMark 4.2 and 4.3), without those inside fenced code and front matter."""
    return tuple(Heading(*heading) for heading in plain.markdown_headings(text))
