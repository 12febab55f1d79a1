"""A text as its sections: what stands under each heading."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ragline.types import Layout

_BODY = re.compile(r"[^ \t\n=-]")


@dataclass(frozen=True, slots=True)
class Section:
    """The text from one heading's line up to the next one's.

    Attributes:
        start, end: Code points.
        body: Where the heading's line ends.
        path: The titles above it, outermost first, its own last. Empty before the first heading.
        has_body: Whether there is more to it than its heading (and the line under an underlined one).
    """

    start: int
    end: int
    body: int
    path: tuple[str, ...]
    has_body: bool


def split_sections(text: str, layout: Layout) -> list[Section]:
    """The sections of a text in order; together they are all of it. Headings out of place are moved into it.

    A heading without a title ends the section above it: what follows stands under the outer ones only.
    """
    starts: list[tuple[int, int, tuple[str, ...]]] = [(0, 0, ())]
    stack: list[tuple[int, str]] = []
    for heading in sorted(layout.headings, key=lambda heading: heading.start):
        while stack and stack[-1][0] >= heading.level:
            stack.pop()
        stack.append((heading.level, heading.title))
        before = starts[-1][0]
        title = min(max(heading.start, before), len(text))
        line = text.rfind("\n", before, title) + 1
        # Without a line break before it, it stands on the text's first line, or on the line of another heading.
        start = line or (title if len(starts) > 1 else 0)
        end = text.find("\n", max(title, min(heading.end, len(text)))) if heading.title else start
        starts.append((start, len(text) if end < 0 else end, tuple(title for _, title in stack if title)))
    ends = [start for start, _, _ in starts[1:]] + [len(text)]
    return [
        Section(start, end, min(body, end), path, _BODY.search(text, body, end) is not None)
        for (start, body, path), end in zip(starts, ends, strict=True)
        if start < end
    ]


def shared_path(sections: list[Section]) -> tuple[str, ...]:
    """The headings that stand above all of the sections that have a body; of all sections where none has."""
    paths = [section.path for section in sections if section.has_body] or [section.path for section in sections]
    shared = paths[0]
    for path in paths[1:]:
        same = 0
        while same < min(len(shared), len(path)) and shared[same] == path[same]:
            same += 1
        shared = shared[:same]
    return shared
