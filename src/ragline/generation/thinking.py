"""What a model thinks aloud before it answers is left out of the answer."""

from __future__ import annotations

import re

_NAMES = ("think", "thinking", "thought", "reasoning")
_OPENERS = tuple(f"<{name}>" for name in _NAMES)
_CLOSERS = tuple(f"</{name}>" for name in _NAMES)
_LINE = re.compile(r"[^\n]*\Z")


class WithoutThinking:
    """A stream of text without its `<think>...</think>` blocks.

    A block counts where it begins a line, so that an answer about such tags is left alone. A closing tag without an
    opening one is dropped; what stood before it has been passed on already (the server's own reasoning parser is the
    cure). A block that is never closed goes on to the end.
    """

    def __init__(self) -> None:
        self._held = ""
        self._closer = ""
        self._line_is_blank = True

    def feed(self, piece: str) -> str:
        """What can be passed on after this piece; some of it may be held until the next."""
        text, self._held = self._held + piece, ""
        passed: list[str] = []
        while text:
            text = self._skip(text) if self._closer else self._pass(text, passed)
        return "".join(passed)

    def end(self) -> str:
        """What was held, now that nothing follows."""
        held, self._held = self._held, ""
        return "" if self._closer else held

    def _skip(self, text: str) -> str:
        """Drops up to the closing tag; returns what is still to be read."""
        # Not by `lower()`, which makes some letters two: what it found would stand elsewhere in the text.
        closing = re.search(re.escape(self._closer), text, re.IGNORECASE | re.ASCII)
        if closing is None:
            self._held = text[-(len(self._closer) - 1) :]
            return ""
        rest = text[closing.end() :]
        self._closer = ""
        self._line_is_blank = True
        return rest

    def _pass(self, text: str, passed: list[str]) -> str:
        """Passes on up to the next tag; returns what is still to be read."""
        at = text.find("<")
        before = text if at < 0 else text[:at]
        passed.append(before)
        line = _LINE.search(before)
        assert line is not None
        blank = not line[0].strip()
        self._line_is_blank = blank if line.start() else self._line_is_blank and blank
        if at < 0:
            return ""
        rest = text[at:]
        tag = rest[: max(map(len, _CLOSERS))].lower()
        for opener, closer in zip(_OPENERS, _CLOSERS, strict=True):
            if self._line_is_blank and tag.startswith(opener):
                self._closer = closer
                return rest[len(opener) :]
            if self._line_is_blank and tag.startswith(closer):
                return rest[len(closer) :]
        if self._line_is_blank and any(name.startswith(tag) for name in (*_OPENERS, *_CLOSERS)):
            self._held = rest
            return ""
        passed.append("<")
        self._line_is_blank = False
        return rest[1:]
