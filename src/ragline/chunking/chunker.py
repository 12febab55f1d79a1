"""A text becomes chunks that fit the embedding model and say where they come from."""

from __future__ import annotations

import bisect
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ragline.chunking.base import Tokenizer
from ragline.chunking.cuts import CHARS_PER_TOKEN, SPACES, choose, find_cuts, unit_starts
from ragline.chunking.sections import Section, shared_path, split_sections
from ragline.errors import InputError
from ragline.types import Chunk, Int64, Layout

_MAX_HEADING_TOKENS = 64
_WINDOW_CHARS = 65_536
_SPACES = frozenset(SPACES)


@dataclass(frozen=True, slots=True)
class _Heading:
    text: str
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Window:
    """A stretch of the text that is tokenised at once; `starts` are code points of the whole text."""

    start: int
    end: int
    ids: Sequence[int]
    starts: Int64


@dataclass(frozen=True, slots=True)
class _Piece:
    heading: _Heading
    start: int
    end: int


class Chunker:
    """Cuts texts along headings, paragraphs, sentences and words, by the tokens of the embedding model.

    Pure: the same text, layout, tokenizer and limits give the same chunks. Time is linear in the length of the text,
    and besides the chunks only a window of the text is held.

    Args:
        tokenizer: The embedding model's.
        max_tokens: The longest chunk, special tokens and heading prefix included.
        overlap_tokens: How much of a chunk is repeated at the start of the next one of its section, at most: whole
            sentences where they fit, else words. Never more than half a chunk.

    Raises:
        InputError: The limits leave no room for text.
    """

    def __init__(self, tokenizer: Tokenizer, *, max_tokens: int = 256, overlap_tokens: int = 0) -> None:
        if not 0 <= overlap_tokens < max_tokens:
            raise InputError(
                f"an overlap of {overlap_tokens} tokens does not fit chunks of {max_tokens}",
                hint="chunking.overlap_tokens must be smaller than chunking.max_tokens",
            )
        self._tokenizer = tokenizer
        self._before, self._after = tokenizer.special_ids
        # Counted in its passage, a piece can have a token or two more where the tokenizer is not sliceable.
        self._room = max_tokens - len(self._before) - len(self._after) - (0 if tokenizer.sliceable else 2)
        self._heading_room = min(_MAX_HEADING_TOKENS, max_tokens // 4)
        if self._room - self._heading_room < 4:
            raise InputError(f"chunks of {max_tokens} tokens leave no room for text", hint="raise chunking.max_tokens")
        self._max_tokens = max_tokens
        self._overlap = overlap_tokens
        self._known_ids: dict[int, int] = {}
        self._window_chars = max(_WINDOW_CHARS, 4 * CHARS_PER_TOKEN * max_tokens)

    def chunk(self, text: str, layout: Layout = Layout()) -> list[Chunk]:
        """The chunks of a text in order.

        Each is a span of the text without white space around it; together they hold every character that is not
        white space. A chunk keeps to one section, except that sections of a few words share one with their
        neighbours; its `heading` is true of all of it.
        """
        sections = split_sections(text, layout)
        chunks: list[Chunk] = []
        done = position = 0
        while done < len(sections):
            count, end = self._next_window(text, sections, done, position)
            window = self._tokenised(text, position, end)
            pieces = self._pieces(text, sections[done : done + count], window)
            is_part = end < sections[done + count - 1].end
            # The last piece of a section too long for one window may go on: it begins the next window.
            position = pieces.pop().start if is_part and pieces else end
            while done < len(sections) and sections[done].end <= position:
                done += 1
            self._append(chunks, text, pieces, window, layout)
        return chunks

    # -- windows ------------------------------------------------------------------------------------------------------

    def _next_window(self, text: str, sections: Sequence[Section], done: int, position: int) -> tuple[int, int]:
        """How many sections after `done` are tokenised at once, and up to where: whole ones, or else a part of one."""
        limit = position + self._window_chars
        if sections[done].end > limit:
            return 1, _last_gap(text, limit - self._window_chars // 2, limit)
        last = done + 1
        while last < len(sections) and sections[last].end <= limit:
            last += 1
        return last - done, sections[last - 1].end

    def _tokenised(self, text: str, start: int, end: int) -> _Window:
        tokens = self._tokenizer.spans([text[start:end]])[0]
        # One object for each id of the vocabulary, not one for each token of a long text.
        ids = [self._known_ids.setdefault(i, i) for i in tokens.ids.tolist()]
        return _Window(start, end, ids, tokens.starts + start)

    # -- pieces -------------------------------------------------------------------------------------------------------

    def _pieces(self, text: str, sections: Sequence[Section], window: _Window) -> list[_Piece]:
        pieces: list[_Piece] = []
        for group in self._groups(sections, window):
            start, end = max(group[0].start, window.start), min(group[-1].end, window.end)
            start += len(text[start:end]) - len(text[start:end].lstrip())
            if start == end:
                continue
            heading = self._heading(shared_path(group))
            starts = unit_starts(window.starts, start, end)
            capacity = self._room - len(heading.ids)
            if len(starts) <= capacity:
                pieces.append(_Piece(heading, start, end))
                continue
            # A heading is not parted from what stands below it.
            cuts = find_cuts(text, starts, end, unwanted=[section.body for section in group])
            for first, last in choose(cuts, capacity, self._overlap):
                pieces.append(_Piece(heading, int(cuts.positions[first]), int(cuts.positions[last])))
        return pieces

    def _groups(self, sections: Sequence[Section], window: _Window) -> Iterator[list[Section]]:
        """Sections that share chunks: a heading without a body goes with what follows below it, and sections of a
        few words, too short to mean anything alone, with their neighbours under the same heading.
        """
        bounds = np.searchsorted(window.starts, [section.start for section in sections] + [sections[-1].end])
        sizes = np.diff(bounds).tolist()
        group, size = [sections[0]], sizes[0]
        bare = not sections[0].has_body
        for section, more in zip(sections[1:], sizes[1:], strict=True):
            below = section.path[: len(group[0].path)] == group[0].path
            beside = section.path[: len(group[0].path) - 1] == group[0].path[:-1]
            tiny = min(size, more) < self._max_tokens // 16 and size + more <= self._max_tokens // 4
            if (bare and (below or beside)) or (tiny and beside):
                group.append(section)
                size += more
                bare = bare and not section.has_body
            else:
                yield group
                group, size, bare = [section], more, not section.has_body
        yield group

    def _heading(self, path: Sequence[str]) -> _Heading:
        """The heading prefix: the innermost titles that fit, the last one cut where even it does not."""
        for first in range(len(path)):
            joined = " > ".join(path[first:])
            tokens = self._tokenizer.spans([joined])[0]
            if len(tokens.ids) <= self._heading_room:
                return _Heading(joined, tuple(tokens.ids.tolist()))
        if not path:
            return _Heading("", ())
        for room in range(self._heading_room, 0, -1):
            short = path[-1][: int(tokens.ends[room - 1])].rstrip()
            ids = self._tokenizer.spans([short])[0].ids
            if len(ids) <= self._heading_room:
                return _Heading(short, tuple(ids.tolist()))
        return _Heading("", ())

    # -- chunks -------------------------------------------------------------------------------------------------------

    def _append(self, chunks: list[Chunk], text: str, pieces: Sequence[_Piece], window: _Window, layout: Layout) -> None:
        for piece in pieces:
            if chunks and piece.start <= chunks[-1].start:
                # The piece before was parted further, and this one's overlap reaches back beyond its last part.
                piece = _Piece(piece.heading, chunks[-1].end, piece.end)
            for start, end, ids in self._fitted(text, piece, window):
                if chunks and end <= chunks[-1].end:
                    continue  # an overlap and nothing new
                page = max(1, bisect.bisect_right(layout.pages, start)) if layout.pages else None
                token_ids = None if ids is None else array("i", (*self._before, *piece.heading.ids, *ids, *self._after))
                chunks.append(Chunk(text[start:end], start, end, piece.heading.text, page, token_ids))

    def _fitted(self, text: str, piece: _Piece, window: _Window) -> Iterator[tuple[int, int, Sequence[int] | None]]:
        """The piece without white space around it, with its token ids; in parts where it proves too long.

        Cut at white space, a piece has the tokens that it has in the window. Cut elsewhere, or with a tokenizer that
        is not sliceable, it is tokenised anew, and may have more of them.
        """
        start, end = _stripped(text, piece.start, piece.end)
        if start == end:
            return
        sliceable = self._tokenizer.sliceable
        if sliceable and _parts_words(text, start, window) and _parts_words(text, end, window):
            first, last = np.searchsorted(window.starts, (start, end))
            yield start, end, window.ids[first:last]
            return
        passage = text[start:end] if sliceable or not piece.heading.text else f"{piece.heading.text}\n{text[start:end]}"
        ids = self._tokenizer.spans([passage])[0].ids
        room = self._room - (len(piece.heading.ids) if sliceable else 0)
        if len(ids) <= room or end - start == 1:
            yield start, end, ids.tolist() if sliceable else None
            return
        middle = _middle(text, start, end)
        yield from self._fitted(text, _Piece(piece.heading, start, middle), window)
        yield from self._fitted(text, _Piece(piece.heading, middle, end), window)


def _stripped(text: str, start: int, end: int) -> tuple[int, int]:
    piece = text[start:end]
    left = start + len(piece) - len(piece.lstrip())
    return (start, start) if left == end else (left, start + len(piece.rstrip()))


def _parts_words(text: str, place: int, window: _Window) -> bool:
    """Whether a cut here leaves the tokens on both sides as they are."""
    return place in (window.start, window.end) or text[place - 1] in _SPACES or text[place] in _SPACES


def _last_gap(text: str, start: int, end: int) -> int:
    """The end of the last blank line, line or word within `start:end`; `end` where there is none."""
    for gap in ("\n\n", "\n", " "):
        found = text.rfind(gap, start, end)
        if found >= 0:
            return found + len(gap)
    return end


def _middle(text: str, start: int, end: int) -> int:
    """A place near the middle, at white space where there is some in the middle half."""
    quarter = (end - start) // 4
    middle = (start + end) // 2
    before = text.rfind(" ", start + quarter, middle)
    return before if before > start else middle
