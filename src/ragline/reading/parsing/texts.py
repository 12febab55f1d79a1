"""Bytes become text: which encoding is it, and is it text at all?"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

from .blocks import clean
from .encodings import codec_of, decoded
from .formats import looks_like_text

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF32_LE, "utf-32-le"), (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"),
)  # fmt: skip
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_XML_DECLARED = re.compile(rb"""\s*+<\?xml\b[^>]*?\bencoding\s*=\s*["']?\s*([A-Za-z0-9_.:-]+)""", re.IGNORECASE)
_HTML_DECLARED = re.compile(rb"""<meta\b[^>]*?\bcharset\s*=\s*["']?\s*([A-Za-z0-9_.:-]+)""", re.IGNORECASE)
_UNDERLINE = re.compile(r"_\x08|\x08_(?!\x08)")
_OVERSTRUCK = re.compile(r"[^\x00-\x1f\x7f]\x08(?=[^\x00-\x1f\x7f])")
_SAMPLE = 256 * 1024


class NotTextError(Exception):
    """The bytes are not those of a text; the message says why."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """A text and how it was read.

    Attributes:
        guessed: The encoding was inferred, not declared and not proven: some characters may be wrong.
    """

    text: str
    encoding: str
    guessed: bool = False


def decode(data: bytes, *, markup: bool = False) -> Decoded:
    """The text that bytes stand for, cleaned (see `clean`).

    Tried in this order: a byte-order mark; the encoding that XML or HTML (`markup`) declares; UTF-16 without a
    mark, seen by its NUL bytes; UTF-8; UTF-8 with a few damaged places; Windows-1252, for texts most of whose letters
    are ASCII. A DOS text ends before its end-of-file mark; what is printed bold or underlined by striking twice is there once.

    Raises:
        NotTextError: Binary content, or an encoding that cannot be told.
    """
    read = _decode(data, markup)
    text = _struck_once(read.text.rstrip("\x1a"))
    sample = text[:_SAMPLE]
    if len(_CONTROL.findall(sample)) * 100 > len(sample):
        raise NotTextError("it is not text but binary")
    return Decoded(clean(text), read.encoding, read.guessed)


def _decode(data: bytes, markup: bool) -> Decoded:
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            return Decoded(data[len(mark) :].decode(encoding, "replace"), encoding)
    label = _declared(data, markup)
    if label is not None and (found := decoded(data, label)) is not None:
        return Decoded(*found)
    wide = _utf16_without_mark(data)
    if wide:
        return Decoded(data.decode(wide, "replace"), wide, guessed=True)
    try:
        return Decoded(data.decode("utf-8"), "utf-8")
    except UnicodeDecodeError:
        return _guess(data)


def _struck_once(text: str) -> str:
    """The text without overstrikes, in which `man` prints: "x" for an "x" over an "x" or over an underscore."""
    return _OVERSTRUCK.sub("", _UNDERLINE.sub("", text)) if "\b" in text else text


def _declared(data: bytes, markup: bool) -> str | None:
    """The label of the encoding that XML or HTML declares; None for none, and for UTF-16, in which this could not be read."""
    head = data[:2048]
    found = _XML_DECLARED.match(head) or (_HTML_DECLARED.search(head) if markup else None)
    label = found[1].decode("ascii") if found else ""
    return label if label and not (codec_of(label) or "").startswith("utf-16") else None


def _utf16_without_mark(data: bytes) -> str | None:
    """Which UTF-16 it is, where nearly every second byte is NUL (as in Latin letters) and hardly any other."""
    sample = data[:_SAMPLE]
    half = len(sample) // 2
    even, odd = sample[0::2].count(0), sample[1::2].count(0)
    if odd * 10 > half * 7 and even * 20 < half:
        return "utf-16-le"
    if even * 10 > half * 7 and odd * 20 < half:
        return "utf-16-be"
    return None


def _guess(data: bytes) -> Decoded:
    sample = data[:_SAMPLE]
    if not looks_like_text(sample):
        raise NotTextError("it is not text but binary")
    high = sum(1 for byte in sample if byte >= 0x80)
    repaired = sample.decode("utf-8", "replace")
    wide = sum(1 for char in repaired if char > "\x7f" and char != "\ufffd")
    if wide > 10 * repaired.count("\ufffd"):
        return Decoded(data.decode("utf-8", "replace"), "utf-8", guessed=True)
    if high * 10 > 3 * len(sample):
        # Windows-1252 would give a word salad, and nobody would be told.
        raise NotTextError("its encoding is neither Unicode nor Western European")
    return Decoded(data.decode("windows-1252", "replace"), "windows-1252", guessed=True)
