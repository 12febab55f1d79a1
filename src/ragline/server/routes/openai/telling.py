"""An answer on its way to a client that may want only so much of it."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable

from ragline.generation.degradation import TRUNCATED
from ragline.types import Answer, Citation, StreamEvent

_MARKER = re.compile(r"\[(\d{1,4})\]")


class Cut:
    """Where an answer ends: after so many tokens, or before the first of some texts.

    Args:
        longest: Tokens; None for no such limit.
        stops: Texts, none of them empty.
        count_tokens: How many tokens a text has.

    Attributes:
        reason: Why nothing more is passed; "" while it is.
    """

    def __init__(self, longest: int | None, stops: tuple[str, ...], count_tokens: Callable[[str], int]) -> None:
        self.reason = ""
        self._left = longest
        self._stops = stops
        self._count = count_tokens
        self._held = ""

    def feed(self, piece: str) -> str:
        """What of the answer so far may be passed on. What may be the beginning of a stop is held back."""
        if self.reason:
            return ""
        text = self._held + piece
        self._held = ""
        places = [place for place in map(text.find, self._stops) if place >= 0]
        if places:
            self.reason = "stop"
            return self._within(text[: min(places)])
        held = max((_overlap(text, stop) for stop in self._stops), default=0)
        if held:
            text, self._held = text[:-held], text[-held:]
        return self._within(text)

    def end(self) -> str:
        """What was held back, now that nothing follows."""
        held, self._held = self._held, ""
        return "" if self.reason else self._within(held)

    def _within(self, text: str) -> str:
        if self._left is None or not text:
            return text
        tokens = self._count(text)
        if tokens <= self._left:
            self._left -= tokens
            return text
        self.reason = "length"
        low, high = 0, len(text)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self._count(text[:middle]) <= self._left else (low, middle - 1)
        if text[max(low - 1, 0) : low + 1].isalnum():  # in the middle of a word
            low = text.rfind(" ", 0, low) + 1 or low
        return text[:low]


class Telling:
    """An answer piece by piece, as far as it is wanted; the work ends with it.

    Attributes:
        text: What was passed on.
        citations: Those whose markers stand in `text`.
        finish_reason: OpenAI's: "stop" or "length".
        answer: The whole, where it came to its end.
    """

    def __init__(self, events: AsyncGenerator[StreamEvent, None], cut: Cut) -> None:
        self._events = events
        self._cut = cut
        self.text = ""
        self.citations: list[Citation] = []
        self.finish_reason = "stop"
        self.answer: Answer | None = None

    async def begin(self) -> None:
        """Returns when the evidence was found. Raises the error where it was not."""
        _data(await anext(self._events))

    async def pieces(self) -> AsyncIterator[str]:
        """The text as it comes. Raises the error that ends it."""
        async for event in self._events:
            data = _data(event)
            if isinstance(data, Citation):
                self.citations.append(data)
            elif isinstance(data, Answer):
                self.answer = data
            elif isinstance(data, str):
                if self._cut.reason:
                    break
                if text := self._passed(self._cut.feed(data)):
                    yield text
            if self._cut.reason and len(self.citations) >= self._marked():
                break
        if text := self._passed(self._cut.end()):
            yield text
        self._end()

    def _end(self) -> None:
        if self._cut.reason == "length" or (self.answer is not None and TRUNCATED in self.answer.degraded):
            self.finish_reason = "length"
        if self._cut.reason:
            self.citations = self.citations[: self._marked()]

    async def close(self) -> None:
        """Ends the work. Twice is harmless."""
        await self._events.aclose()

    def _passed(self, text: str) -> str:
        self.text += text
        return text

    def _marked(self) -> int:
        """How many citations the text has markers of; they are counted on from 1."""
        return max((int(number) for number in _MARKER.findall(self.text)), default=0)


def _data(event: StreamEvent) -> object:
    if event.kind == "error":
        assert isinstance(event.data, Exception)
        raise event.data
    return event.data


def _overlap(text: str, stop: str) -> int:
    """How much of the end of a text may be the beginning of a stop."""
    return next((size for size in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:size])), 0)
