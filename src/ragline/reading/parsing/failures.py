"""Why a file gives no text: what parsers raise becomes one sentence and its cure."""

from __future__ import annotations

import re
from typing import Any

from . import formats
from .nested import LimitError
from .packages import EncryptedError, UnreadableError, reason
from .texts import NotTextError

ENCRYPTED = {"error": "it is encrypted", "hint": "save it without a password"}
_PACK_AGAIN = "fetch it or pack it again"
_SAVE_AGAIN = "open it in its own program and save it again"
_OCR_HINT = (
    "install tesseract's language data for reading.ocr_language (English on Debian and Ubuntu: apt install tesseract-ocr-eng; "
    "macOS: brew install tesseract, all others with tesseract-lang), or set reading.ocr_data_dir"
)
# kreuzberg repeats the names of its error classes before what went wrong.
_NOISE = re.compile(r"^(?:\w*Error: |Invalid PDF: |(?:Extraction|Metadata extraction) failed: |Parsing error: )+")


def explain(exc: BaseException, media_type: str) -> dict[str, Any]:
    """`error` and `hint` for what was raised while a file of this type was parsed."""
    message = reason(exc)
    lower = message.lower()
    if isinstance(exc, LimitError):
        return {"error": message, "hint": exc.hint}
    if isinstance(exc, UnreadableError | NotTextError):
        return {"error": message, "hint": _PACK_AGAIN if media_type in formats.ARCHIVES else _SAVE_AGAIN}
    if isinstance(exc, EncryptedError) or "password" in lower or "encrypt" in lower or "decrypt" in lower:
        return ENCRYPTED
    if isinstance(exc, RecursionError):
        return {"error": "it is nested too deep", "hint": _SAVE_AGAIN}
    if "tesseract" in lower or "ocr" in type(exc).__name__.lower():
        return {"error": "it is an image, and there is no text recognition here", "hint": _OCR_HINT}
    said = _NOISE.sub("", message)
    if " " not in said or not isinstance(exc, Exception):  # a panic speaks of the parser's own arrays
        said = "it is damaged, or no such file"
    elif "boundar" in lower:
        said = "its pages are damaged, or there are none"
    return {"error": f"it cannot be parsed as {media_type}: {said}", "hint": _SAVE_AGAIN}


def without_text(media_type: str, *, recognition: bool) -> dict[str, Any]:
    """`error` and `hint` for a file that was parsed and gave no text; `recognition` is whether images are looked at."""
    if media_type == formats.PDF or media_type.startswith("image/"):
        if not recognition:
            return {"error": "it holds no text, only images or drawings", "hint": f"if it is a scan, {_OCR_HINT}"}
        return {"error": "it holds no text, and none was recognised in its images", "hint": "a sharper scan may help"}
    return {"error": "it holds no text", "hint": "there is nothing to ingest"}
