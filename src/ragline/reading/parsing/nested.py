"""What is in a file that holds files: its members become sections of one text, within bounds that all of them share."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from . import formats
from .blocks import Blocks, clean, one_line

MAX_DEPTH = 3
"""How many containers may lie within each other, the outermost counted: an archive in an archive in a mail."""
MAX_MEMBERS = 10_000
_MAX_NAMED = 50
_MAX_NAME_CHARS = 200
_UNPACK = "unpack it and ingest the folder"
_HIDDEN = re.compile(r"(?:^|/)(?:\.[^/]|__MACOSX/|~\$)")


class LimitError(Exception):
    """A file as a whole goes beyond a bound; `hint` says what to do about it."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


@dataclass
class Budget:
    """What may still be spent on one file and on all that is nested in it.

    Attributes:
        max_member_bytes: The most bytes of one member: it is held in memory.
        bytes_left: Bytes that may still be unpacked.
        chars_left: Characters of text that may still be given.
        hidden: Whether members whose name starts with a dot are read.
        at: Told the path of each member before it is read, so that it can be named should it crash the parser.
        inside: The names of the containers that are open, outermost first.
    """

    max_member_bytes: int
    bytes_left: int
    chars_left: int
    hidden: bool = False
    members_left: int = MAX_MEMBERS
    at: Callable[[str], None] = lambda path: None
    inside: list[str] = field(default_factory=list)

    def unpacked(self, size: int) -> None:
        """Counts unpacked bytes.

        Raises:
            LimitError: They are too many.
        """
        self.bytes_left -= size
        if self.bytes_left < 0:
            raise LimitError("it unpacks to too many bytes: it may be a bomb", f"if it is sound, {_UNPACK}")

    def member(self) -> None:
        """Counts a member.

        Raises:
            LimitError: They are too many.
        """
        self.members_left -= 1
        if self.members_left < 0:
            raise LimitError(f"it holds more than {MAX_MEMBERS:,} files or messages", _UNPACK)

    def text(self, chars: int) -> None:
        """Counts text.

        Raises:
            LimitError: It is too much.
        """
        self.chars_left -= chars
        if self.chars_left < 0:
            raise LimitError("its files give more text than is allowed", f"{_UNPACK}, or raise reading.max_text_chars")

    @contextmanager
    def within(self, name: str) -> Iterator[None]:
        """Goes into a container's member, and out again."""
        self.inside.append(name)
        self.at("/".join(self.inside))
        try:
            yield
        finally:
            self.inside.pop()


Extract: TypeAlias = Callable[[bytes, str, Budget], dict[str, Any]]
"""What is in these bytes of this name: `Contents.extract_bytes`."""


class Sections:
    """Collects the members of a container; each that gives text becomes a section under its name.

    Args:
        budget: Shared with the containers around and within.
        ordered: Whether sections come in the order of their names; else as they are added.
    """

    def __init__(self, budget: Budget, *, ordered: bool) -> None:
        self._budget = budget
        self._ordered = ordered
        self._read: list[tuple[str, dict[str, Any]]] = []
        self._unread: list[tuple[str, str, str]] = []  # name, error, hint
        self._skipped = 0

    def add(self, name: str, extract: Callable[[str], dict[str, Any]], *, shown: bool = False) -> None:
        """Reads a member with `extract`, which is given its name and returns what `Contents.extract_bytes` does.

        Args:
            shown: The name is a title or that of an attachment, and no path: it is taken as it is, and never hidden.

        Raises:
            LimitError: The container as a whole goes beyond a bound.
        """
        self._budget.member()
        name = short(one_line(name)) or "unnamed" if shown else shown_name(name)
        if not shown and is_hidden(name) and not self._budget.hidden:
            self._skipped += 1
            return
        with self._budget.within(name):
            answer = _without_memory_error(extract, name)
        if answer.get("unsupported"):
            self._skipped += 1
        elif "error" in answer:
            self._unread.append((name, answer["error"], answer.get("hint", "")))
        else:
            if answer["media_type"] not in formats.CONTAINERS:  # what they hold was counted already
                self._budget.text(len(answer["text"]))
            self._read.append((name, answer))
            for inner in answer["metadata"].get("unread", ()):
                path, _, why = inner.partition(": ")
                self._unread.append((f"{name}/{path}", why or "not read", ""))

    def unread(self) -> dict[str, Any]:
        """The metadata `unread`: members that should have given text and did not, with the reason; {} for none."""
        if not self._unread:
            return {}
        if self._ordered:
            self._unread.sort(key=lambda member: member[0].split("/"))
        more = len(self._unread) - _MAX_NAMED
        named = [f"{name}: {reason}" for name, reason, _ in self._unread[:_MAX_NAMED]]
        return {"unread": [*named, f"and {more:,} more"] if more > 0 else named}

    def why_empty(self) -> dict[str, Any]:
        """`error` and `hint` where no member gave text."""
        if self._unread:
            reasons = {reason for _, reason, _ in self._unread}
            if len(reasons) == 1 and (hint := self._unread[0][2]):
                return {"error": f"no file in it gives text: {reasons.pop()}", "hint": hint}
            named = "; ".join(f"{name}: {reason[:100]}" for name, reason, _ in self._unread[:3])
            more = f"; and {len(self._unread) - 3:,} more" if len(self._unread) > 3 else ""
            return {"error": f"no file in it gives text ({named}{more})", "hint": f"{_UNPACK} to see the cure for each file"}
        if self._skipped:
            return {"error": "no file in it is of a format that ragline reads", "hint": formats.HINT}
        return {"error": "there is no file in it", "hint": "there is nothing to ingest"}

    def write(self, blocks: Blocks) -> bool:
        """Writes the sections; False where there is none."""
        if self._ordered:
            self._read.sort(key=lambda member: member[0].split("/"))
        for name, answer in self._read:
            write_section(blocks, name, answer)
        return bool(self._read)


def write_section(blocks: Blocks, title: str, answer: dict[str, Any]) -> None:
    """A heading of level 1 and a text below it, whose own headings go one level down. Pages are not kept."""
    blocks.heading(title, 1)
    text = clean(answer["text"])
    blocks.add(text)
    kept = text.strip("\n").rstrip()
    shift = blocks.length - len(kept) - (len(text) - len(text.lstrip("\n")))
    for start, end, level, heading in answer["headings"]:
        blocks.headings.append((start + shift, min(end + shift, blocks.length), level + 1, heading))


def shown_name(name: str) -> str:
    """A member's name as a relative path with slashes, whatever the archive says.

    Nothing is ever written under it. Roots, drives, `..` and control characters go; a long name keeps its end.
    """
    name = one_line(name.replace("\\", "/"))
    parts = [part for part in re.sub(r"^[A-Za-z]:", "", name).split("/") if part.strip() not in ("", ".", "..")]
    return short("/".join(parts)) or "unnamed"


def short(name: str) -> str:
    """A name that keeps its end where it is too long to be shown."""
    return name if len(name) <= _MAX_NAME_CHARS else "\u2026" + name[1 - _MAX_NAME_CHARS :]


def is_hidden(path: str) -> bool:
    """Whether a member is one that walking a folder would skip as well."""
    return bool(_HIDDEN.search(path)) or not formats.TOOL_FOLDERS.isdisjoint(posixpath.dirname(path).split("/"))


def _without_memory_error(extract: Callable[[str], dict[str, Any]], name: str) -> dict[str, Any]:
    """One large allocation that failed leaves room for smaller members; a parser that is full is ended by `worker`."""
    try:
        return extract(name)
    except MemoryError:
        return {"error": "it takes too much memory"}
