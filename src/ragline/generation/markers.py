"""Where does a model cite? `[1]` and what models write instead of it, found while the text comes in."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

_LABELS = ("source", "sources", "document", "documents", "doc", "docs", "passage", "passages", "reference", "ref", "citation")
_LABEL = f"(?:{'|'.join(sorted(_LABELS, key=len, reverse=True))})"
_BEGUN_LABEL = f"(?:{'|'.join(sorted({label[:n] for label in _LABELS for n in range(1, len(label) + 1)}, key=len, reverse=True))})"
_NUMBER = r"\^?\d{1,3}"
_BETWEEN = r" *(?:,|;|&|and\b|,? and\b|[-\u2010-\u2014]) *"

_MARKER = re.compile(rf" *(?:{_LABEL}\.? *[#:]? *)?(?P<numbers>{_NUMBER}(?:{_BETWEEN}{_NUMBER})*) *(?:\u2020[^\n]*)?", re.IGNORECASE)
_FOREIGN = re.compile(r"\d+:\d+\u2020[^\n]*")
"""How OpenAI's file search cites: a message and a place in it, which mean nothing here."""
_BEGUN = re.compile(
    rf" *(?:{_BEGUN_LABEL}|(?:{_LABEL}\.? *[#:]? *)?(?:\^|\^?\d[\d ,;&:^and\u2010-\u2014-]*(?:\u2020[^\n]*)?)?)", re.IGNORECASE
)
_FOREIGN_BEGUN = re.compile(r"\d+(?::\d*(?:\u2020[^\n]*)?)?")
_PART = re.compile(r"(\d+)|([-\u2010-\u2014])")
_WIDEST = 50
"""A range of more numbers was not meant."""

_CLOSING = {"[": "]", "\u3010": "\u3011"}
_LONGEST = 80
"""A marker is no longer than this; what goes on is text."""

_LONGEST_CODE = 400
"""An inline code span that holds what looks like a marker closes within so many characters of it, or is none."""

_SPECIAL = re.compile(r"[\[\u3010\n`~]")
_BEFORE_FENCE = re.compile(r"[\s>*+\-\d.)]*")

_Undecided: TypeAlias = Literal["undecided"]
_UNDECIDED: Final = "undecided"
"""What follows decides."""


@dataclass(frozen=True, slots=True)
class Marker:
    """A citation as the model wrote it: the numbers, ranges written out; 0 stands for what cannot be meant."""

    numbers: tuple[int, ...]


@dataclass(slots=True)
class _Code:
    """Whether a place stands in code, by Markdown's rules.

    Attributes:
        fence: The sign that opened a block of code, and how often; ("", 0) outside.
        opening: Whether that was in this line.
        ticks: How many backticks opened a span of code that may close; 0 outside.
        indent: Whether a fence may follow what stands in this line.
        run: The sign of a run of backticks or tildes that may go on, and how often it stands there.
    """

    fence: tuple[str, int] = ("", 0)
    opening: bool = False
    ticks: int = 0
    indent: bool = True
    run: tuple[str, int] = ("", 0)

    def signs(self, sign: str, count: int) -> None:
        """More backticks or tildes."""
        if self.run[0] != sign:
            self.other()
        self.run = (sign, self.run[1] + count)

    def text(self, text: str) -> None:
        self.other()
        self.indent = self.indent and _BEFORE_FENCE.fullmatch(text) is not None

    def newline(self) -> None:
        self.other()
        self.opening, self.ticks, self.indent = False, 0, True

    def other(self) -> None:
        """Something else than the run of signs, if there was one, which is complete now."""
        (sign, count), self.run = self.run, ("", 0)
        if not count:
            return
        opener, length = self.fence
        if opener:
            # Another run of backticks in the opening line: it was a span of code, not a block.
            if sign == opener and ((self.indent and count >= length) or (self.opening and sign == "`")):
                self.fence = ("", 0)
        elif self.indent and count >= 3:
            self.fence, self.opening = (sign, count), True
        elif sign == "`":
            self.ticks = 0 if self.ticks == count else self.ticks or count
        self.indent = False


class Markers:
    """A stream of text taken apart into text and markers. What stands in Markdown's code is text.

    Any way of cutting the text into pieces gives the same, texts joined.

    Examples:
        "Yes [1, 3]."               # "Yes ", Marker((1, 3)), "."
        "[^1][Source 2]"           # Marker((1,)), Marker((2,))
        "`a[1]` (2) [x] [2024]"     # text
    """

    def __init__(self) -> None:
        self._held = ""
        self._code = _Code()

    def feed(self, piece: str) -> list[str | Marker]:
        """What can be told apart after this piece; some of it may be held until the next."""
        return self._read(self._held + piece, ended=False)

    def end(self) -> list[str | Marker]:
        """What was held, now that nothing follows."""
        return self._read(self._held, ended=True)

    def _read(self, text: str, *, ended: bool) -> list[str | Marker]:
        self._held = ""
        found: list[str | Marker] = []
        at = 0
        while at < len(text):
            special = _SPECIAL.search(text, at)
            until = special.start() if special else len(text)
            if until > at:
                self._code.text(text[at:until])
                found.append(text[at:until])
                at = until
                continue
            step = self._special(text, at, ended)
            if step is None:
                self._held = text[at:]
                break
            at, part = step
            found.append(part)
        return found

    def _special(self, text: str, at: int, ended: bool) -> tuple[int, str | Marker] | None:
        """Where to go on and what stood there; None where what follows decides."""
        sign = text[at]
        if sign == "\n":
            self._code.newline()
            return at + 1, sign
        if sign in "`~":
            rest = text[at:]
            count = len(rest) - len(rest.lstrip(sign))
            self._code.signs(sign, count)
            return at + count, sign * count
        self._code.other()
        marked = None if self._code.fence[0] else _marker_at(text, at, ended)
        if marked is None:
            self._code.text(sign)
            return at + 1, sign
        if marked == _UNDECIDED:
            return None
        end, marker = marked
        in_code = self._code.ticks > 0 and _closes(text, end, self._code.ticks, ended)
        if in_code == _UNDECIDED:
            return None
        self._code.indent = False
        if in_code:
            return end, text[at:end]
        self._code.ticks = 0
        return end, marker


def _marker_at(text: str, at: int, ended: bool) -> tuple[int, Marker] | _Undecided | None:
    """The marker that begins here and where it ends; None for text."""
    window = text[at + 1 : at + 1 + _LONGEST]
    body, closing, _ = window.partition(_CLOSING[text[at]])
    if closing:
        end = at + 1 + len(body) + 1
        if match := _MARKER.fullmatch(body):
            return end, Marker(_numbers(match["numbers"]))
        return (end, Marker((0,))) if _FOREIGN.fullmatch(body) else None
    if ended or len(window) == _LONGEST or not (_BEGUN.fullmatch(body) or _FOREIGN_BEGUN.fullmatch(body)):
        return None
    return _UNDECIDED


def _closes(text: str, at: int, ticks: int, ended: bool) -> bool | _Undecided:
    """Whether a span of code that so many backticks opened closes in the rest of this line."""
    window = text[at : at + _LONGEST_CODE]
    line, newline, _ = window.partition("\n")
    closer = re.search(rf"(?<!`)`{{{ticks}}}(?!`)", line)
    certain = ended or bool(newline) or len(window) == _LONGEST_CODE
    if closer is not None and (certain or closer.end() < len(line)):
        return True
    return False if certain else _UNDECIDED


def _numbers(written: str) -> tuple[int, ...]:
    numbers: list[int] = []
    ranged = False
    for number, _ in _PART.findall(written):
        if not number:
            ranged = True
            continue
        last = int(number)
        first = numbers[-1] + 1 if ranged and numbers[-1] < last else last
        numbers += range(first, last + 1) if last - first < _WIDEST else (0,)
        ranged = False
    return tuple(numbers)
