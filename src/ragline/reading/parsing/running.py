"""Running heads and feet: which lines at the edges of a document's pages are repeated on most of them?"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

_EDGE = 3  # lines at the top and at the bottom of a page
_LEAST_PAGES = 4
_MAX_CHARS = 150
_FIGURES = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class Edges:
    """Lines repeated at the top and at the bottom of pages, with "#" for their figures."""

    top: frozenset[str] = frozenset()
    bottom: frozenset[str] = frozenset()

    def without(self, text: str, *, top: bool = True, bottom: bool = True) -> str:
        """The text of a page (or of its first or last part) without these lines."""
        lines = text.split("\n")
        first, last = 0, len(lines)
        while top and first < last and (not lines[first].strip() or _pattern(lines[first]) in self.top):
            first += 1
        while bottom and last > first and (not lines[last - 1].strip() or _pattern(lines[last - 1]) in self.bottom):
            last -= 1
        return "\n".join(lines[first:last]) if self.top or self.bottom else text


def repeated_edges(pages: Sequence[str]) -> Edges:
    """The running heads and feet of a document from the texts of its pages.

    Conservative: a document of fewer than four pages has none; others have those that more than half of its pages repeat
    word by word. Their figures are the same as well, or count the pages: a sum that differs from page to page is text.
    """
    if len(pages) < _LEAST_PAGES:
        return Edges()
    tops: dict[str, list[tuple[int, ...]]] = {}
    bottoms: dict[str, list[tuple[int, ...]]] = {}
    counted = 0
    for number, page in enumerate(pages):
        lines = [line for line in page.split("\n") if line.strip()]
        if len(lines) > 1:  # what stands alone on its page is its text
            counted += 1
            for found, edge in ((tops, lines[:_EDGE]), (bottoms, lines[-_EDGE:])):
                for line in {_pattern(line): line for line in edge}.values():
                    found.setdefault(_pattern(line), []).append((number, *_figures(line)))
    least = max(_LEAST_PAGES - 1, counted // 2 + 1)
    top, bottom = (
        frozenset(line for line, seen in found.items() if len(seen) >= least and _is_running(line, seen)) for found in (tops, bottoms)
    )
    return Edges(top, bottom)


def _is_running(pattern: str, seen: Sequence[tuple[int, ...]]) -> bool:
    """Whether the figures of a line are the same on most pages, or tell the page.

    Args:
        seen: By page: its number, then the line's figures.
    """
    if len(pattern) > _MAX_CHARS:
        return False
    for figures in zip(*(figures for _, *figures in seen), strict=False):
        same = Counter(figures).most_common(1)[0][1]
        counting = Counter(figure - seen[i][0] for i, figure in enumerate(figures)).most_common(1)[0][1]
        if 10 * max(same, counting) < 8 * len(seen):
            return False
    return True


def _pattern(line: str) -> str:
    return _FIGURES.sub("#", " ".join(line[: 2 * _MAX_CHARS].split()))


def _figures(line: str) -> list[int]:
    return [int(figure[:9]) for figure in _FIGURES.findall(line[: 2 * _MAX_CHARS])]
