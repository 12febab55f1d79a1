"""What a model writes becomes what a reader gets: no thinking, citations counted on from 1, no links that work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ragline.generation.extractive import NOT_FOUND
from ragline.generation.links import Defused
from ragline.generation.markers import Marker, Markers
from ragline.generation.thinking import WithoutThinking

_INVISIBLE = dict.fromkeys(
    (
        *(code for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"),
        *range(0x202A, 0x202F),  # turns the reading direction, which can hide where a link leads
        *range(0x2066, 0x206A),
        *range(0xE0000, 0xE0080),  # an invisible alphabet
    )
)


@dataclass(frozen=True, slots=True)
class FirstUse:
    """The marker that was just told cites this passage for the first time; counted from 0, as sent."""

    passage: int


class AnswerText:
    """Takes a model's text piece by piece and gives the answer's, with a `FirstUse` right after a passage's first marker.

    Passages are numbered anew in the order of their first use. What the model cites and was not sent is left out and
    counted. Any way of cutting the text into pieces gives the same, texts joined. White space at either end is
    left out.

    Args:
        passages: How many the model was sent.
        neutralise: Whether links are made harmless, see `links`.

    Attributes:
        text: What was told so far.
        dropped: How many citations were left out.
    """

    def __init__(self, passages: int, *, neutralise: bool) -> None:
        self.text = ""
        self.dropped = 0
        self._passages = passages
        self._numbers: dict[int, int] = {}
        self._thinking = WithoutThinking()
        self._markers = Markers()
        self._links = Defused() if neutralise else None
        self._space = ""
        self._half = ""

    def feed(self, piece: str) -> list[str | FirstUse]:
        """What can be told after this piece."""
        piece, self._half = _characters(self._half + piece)
        return self._read(self._markers.feed(self._thinking.feed(piece.translate(_INVISIBLE))))

    def end(self) -> list[str | FirstUse]:
        """What was held back, now that nothing follows."""
        last = self._thinking.feed("\ufffd" if self._half else "") + self._thinking.end()
        self._half = ""
        told = self._read([*self._markers.feed(last), *self._markers.end()])
        if self._links is not None:
            self._append(self._links.end(), told)
        return told

    def _read(self, parts: Sequence[str | Marker]) -> list[str | FirstUse]:
        told: list[str | FirstUse] = []
        for part in parts:
            if isinstance(part, str):
                self._tell(part, told)
            else:
                self._cite(part, told)
        return told

    def _tell(self, text: str, told: list[str | FirstUse]) -> None:
        """Tells a text but for the white space at its end, which waits for what follows."""
        if not self.text:
            text = text.lstrip()
        body = text.rstrip()
        if body:
            spaced = self._space + body
            self._append(spaced if self._links is None else self._links.feed(spaced), told)
            self._space = ""
        self._space += text[len(body) :]

    def _cite(self, marker: Marker, told: list[str | FirstUse]) -> None:
        if _plain(self.text) == _NOT_FOUND:
            return  # nothing was found in these
        asked = dict.fromkeys(marker.numbers)
        sent = [number - 1 for number in asked if 0 < number <= self._passages]
        self.dropped += len(asked) - len(sent)
        if not sent and "\n" not in self._space:
            self._space = ""
        for passage in sent:
            first = passage not in self._numbers
            number = self._numbers.setdefault(passage, len(self._numbers) + 1)
            self._tell(f"[{number}]", told)
            if first:
                told.append(FirstUse(passage))

    def _append(self, text: str, told: list[str | FirstUse]) -> None:
        if text:
            self.text += text
            told.append(text)


def _characters(text: str) -> tuple[str, str]:
    """The text in whole characters, and the half of one that it ends with, if it does.

    In JSON an emoji can come as two surrogates, and in a stream each of them in another piece. One that stays alone has no
    encoding: nobody could print or send the answer.
    """
    if text.isascii():
        return text, ""
    half = text[-1] if "\ud800" <= text[-1] <= "\udbff" else ""
    whole = text[: len(text) - len(half)].encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return whole, half


def says_not_found(text: str) -> bool:
    """Whether an answer begins with the sentence that nothing was found, give or take its dress."""
    return _plain(text).startswith(_NOT_FOUND)


def _plain(text: str) -> str:
    """The beginning of a text, long enough for that sentence, without what it may be dressed in."""
    return text[: 2 * len(NOT_FOUND)].strip("*_#>\"'`\u201c\u201d .!\n").casefold()


_NOT_FOUND = _plain(NOT_FOUND)
