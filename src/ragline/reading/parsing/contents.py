"""The content of a file, whatever it is, becomes text: which parser reads which type."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, BinaryIO

import kreuzberg

from . import formats
from .archives import read_archive
from .book import read_book
from .documents import configuration, read_document
from .failures import explain, without_text
from .mail import read_mail, read_mailbox
from .markup import read_markup
from .nested import Budget, LimitError
from .notebook import read_notebook
from .opendocument import read_open_document
from .packages import EncryptedError, check_package
from .plain import read_plain
from .sheets import read_sheets
from .slides import read_slides
from .texts import decode
from .word import read_word

_PACKAGES: dict[str, Callable[..., dict[str, Any]]] = {
    formats.EPUB: read_book,
    formats.DOCX: read_word,
    formats.ODT: read_open_document,
    **dict.fromkeys(formats.SHEETS, read_sheets),
    **dict.fromkeys(formats.SLIDES, read_slides),
}
_MAX_HEADINGS = 100_000
_MAX_TITLE_CHARS = 1000
_MAX_VALUES = 200
_MAX_VALUE_CHARS = 4000
_CONVERT = "unpack it and ingest the folder, or save it in a format that ragline reads"
_NOT_TEXT = {"error": "it is neither text nor of a format that ragline reads", "hint": formats.HINT}


class Contents:
    """Reads contents of every type.

    Args:
        max_package_bytes: What an office file or book may unpack to.
        ocr_language: What the text in images is recognised in; None where tesseract has no data for it.
    """

    def __init__(self, *, max_package_bytes: int, ocr_language: str | None) -> None:
        self._max_package_bytes = max_package_bytes
        self._config: kreuzberg.ExtractionConfig = configuration(ocr_language)
        self._recognition = ocr_language is not None

    def extract_bytes(self, data: bytes, name: str, budget: Budget) -> dict[str, Any]:
        """What is in these bytes, as `extract` gives it; the type is told by content and name.

        With `unsupported` beside `error` where they are of no type that is read.

        Raises:
            LimitError: The file around it goes beyond a bound.
        """
        media_type = formats.by_content(data[: formats.HEAD_BYTES], name)
        if media_type is None:
            return {**_NOT_TEXT, "unsupported": True}
        if not data:
            return {"error": "it is empty", "hint": "there is nothing to ingest"}
        return self.extract(io.BytesIO(data), name, media_type, budget)

    def extract(self, file: BinaryIO, name: str, media_type: str, budget: Budget, *, path: str | None = None) -> dict[str, Any]:
        """What is in a file: `text`, `headings`, `pages`, `metadata` and `media_type`, or `error` and `hint`.

        Args:
            file: Its content; where it stands does not matter.
            media_type: By first bytes and name; looked at again where a type shares its first bytes with others.
            path: Where it is, if it is a file.

        Raises:
            LimitError: The file around it goes beyond a bound.
            MemoryError: It takes too much.
        """
        try:
            media_type = formats.inside(file, media_type)
            if media_type == formats.ENCRYPTED:
                raise EncryptedError("it is encrypted")
            if media_type in formats.UNREAD:
                return {"error": f"it is {formats.UNREAD[media_type]} ragline does not read", "hint": _CONVERT, "unsupported": True}
            file.seek(0)
            answer = self._read(file, name, media_type, budget, path)
        except (MemoryError, LimitError, SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:  # whatever a parser raises concerns this file only; a panic in Rust is no Exception
            return explain(exc, media_type)
        if "error" in answer:
            return answer
        if not answer["text"].strip():
            return without_text(media_type, recognition=self._recognition)
        return {"media_type": media_type, **_bounded(answer)}

    def _read(self, file: BinaryIO, name: str, media_type: str, budget: Budget, path: str | None) -> dict[str, Any]:
        if media_type in formats.ARCHIVES:
            return read_archive(file, name, media_type, budget, self.extract_bytes)
        if media_type == formats.HTML:
            return read_markup(decode(file.read(), markup=True).text)
        if media_type == formats.MAIL:
            return read_mail(file.read(), budget, self.extract_bytes)
        if media_type == formats.MAILBOX:
            return read_mailbox(file.read(), budget, self.extract_bytes)
        if formats.is_plain(media_type):
            return read_plain(file.read(), media_type, formats.suffix(name))
        if package := _PACKAGES.get(media_type):
            return package(file, max_bytes=self._max_package_bytes)
        if media_type == formats.NOTEBOOK:
            return read_notebook(decode(file.read()).text)
        if media_type in formats.ZIPPED:
            check_package(file, kind="office file", max_bytes=self._max_package_bytes)
        return read_document(file.read() if path is None else path, media_type, self._config)


def _bounded(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer that a title of a million words, or a million titles, do not make heavier than its text."""
    metadata = {key: _short(value) for key, value in answer["metadata"].items()}
    headings = answer["headings"]
    if len(headings) > _MAX_HEADINGS:
        headings = []  # no outline that anybody wrote
    return {**answer, "headings": [(*place, title[:_MAX_TITLE_CHARS]) for *place, title in headings], "metadata": metadata}


def _short(value: Any) -> Any:
    if isinstance(value, list):
        return [_short(item) for item in value[:_MAX_VALUES]]
    return value[:_MAX_VALUE_CHARS] if isinstance(value, str) else value
