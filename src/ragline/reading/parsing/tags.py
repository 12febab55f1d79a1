"""Markup as a stream of tags and text, in time linear in its length, whatever is broken in it.

In the place of `html.parser`, which takes quadratic time on tags, comments and declarations that never end (Python
3.11.7: 75 kB of `<a ` take 80 s). Broken markup is read as browsers read it: what never ends swallows the rest.
"""

from __future__ import annotations

import re
from html import unescape

_MARK = re.compile(r"<(?:(?P<comment>!--)|[!?]|/(?P<end>[a-zA-Z][^\s/>]*+)|(?P<start>[a-zA-Z][^\s/>]*+))")
_COMMENT_END = re.compile(r"--!?>")
# A quotation mark counts after an equals sign only; one that nothing closes is a character like others.
_TAG_END = re.compile(r"(?:[^>=]++|=\s*+\"[^\"]*+\"|=\s*+'[^']*+'|=)*+>")
_ATTRIBUTE = re.compile(r"([^\s=>/\"']++)(?:\s*+=\s*+(?:\"([^\"]*+)\"|'([^']*+)'|([^\s>]*+)))?")
_RAW = frozenset("script style xmp noembed noframes iframe".split())  # noqa: SIM905
_ESCAPED = frozenset({"title", "textarea"})
_MAX_ATTRIBUTES = 200
_MAX_ENDLESS = 50


class TagStream:
    """Calls `handle_starttag`, `handle_endtag` and `handle_data` for what stands in a text.

    Names are in lower case; character references are resolved, in attributes as well. A tag that closes itself
    (`<a/>`) is started and ended. Comments, declarations, scripts and styles are passed over.
    """

    def handle_starttag(self, tag: str, attributes: dict[str, str]) -> None:
        """An element begins. Of attributes that stand twice, the first counts; those without a value have ""."""

    def handle_endtag(self, tag: str) -> None:
        """An element ends."""

    def handle_data(self, data: str) -> None:
        """Some text."""

    def feed(self, markup: str) -> None:
        """Reads a whole text. Again for the next one."""
        position = endless = 0
        without_end: set[str] = set()
        while mark := _MARK.search(markup, position):
            if mark.start() > position:
                self._text(markup[position : mark.start()])
            if mark["comment"]:
                # `<!-->` is a whole comment.
                end = _COMMENT_END.search(markup, mark.end() - 2)
                position = end.end() if end else len(markup)
                continue
            closing = _TAG_END.match(markup, mark.end())
            endless += closing is None
            position = closing.end() if closing else markup.find(">", mark.end()) + 1
            if not position or endless > _MAX_ENDLESS:
                return
            if mark["end"]:
                self.handle_endtag(mark["end"].lower())
            elif mark["start"]:
                position = self._start(markup, mark, position, without_end)
        if position < len(markup):
            self._text(markup[position:])

    def _start(self, markup: str, mark: re.Match[str], stop: int, without_end: set[str]) -> int:
        """Reads the start tag that ends at `stop`; where reading goes on."""
        tag = mark["start"].lower()
        self.handle_starttag(tag, _attributes(markup[mark.end() : stop - 1]))
        if markup.endswith("/", mark.end(), stop - 1):
            self.handle_endtag(tag)
        elif (tag in _RAW or tag in _ESCAPED) and tag not in without_end:
            return self._raw(markup, stop, tag, without_end)
        return stop

    def _raw(self, markup: str, start: int, tag: str, without_end: set[str]) -> int:
        """Reads the inside of an element that holds no markup; where its end tag stands."""
        end = re.compile(rf"</{tag}(?=[\s/>])", re.IGNORECASE).search(markup, start)
        if end is None:
            without_end.add(tag)
            return len(markup) if tag in _RAW else start
        if tag in _ESCAPED:
            self._text(markup[start : end.start()])
        return end.start()

    def _text(self, text: str) -> None:
        self.handle_data(unescape(text) if "&" in text else text)


def _attributes(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for match in _ATTRIBUTE.finditer(text):
        if len(found) >= _MAX_ATTRIBUTES:
            break
        value = match[2] or match[3] or match[4] or ""
        found.setdefault(match[1].lower(), unescape(value) if "&" in value else value)
    return found
