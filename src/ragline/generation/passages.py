"""What can be quoted: the sentences of the evidence, each with what it needs to be understood."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeAlias

from ragline.caching.tiny_lfu import TinyLfu
from ragline.chunking.sentences import PROSE_LINE_CHARACTERS, sentence_spans
from ragline.generation import terms
from ragline.types import ScoredChunk

_LIST_ITEM = re.compile(r"(?:[-*+\u2022\u25e6\u2013\u2014]|\(?\d{1,3}[.)]|\(?[a-z][)])\s")
_HEADING_LINE = re.compile(r"#{1,6}\s")
_SPACES = "".join(filter(str.isspace, map(chr, range(0x3001))))
_LEADING_MARKUP, _CLOSING_MARKUP = _SPACES + "#>*_`|-", _SPACES + "#*_`|"
_QUESTION_MARKS = ("?", "\uff1f", "\u061f")
MOST_KEPT = 2048
MOST_BYTES_KEPT = 16 * 1024**2
"""So many chunks are kept taken apart at most, in so much memory: it takes 0.2 ms and some 7 kB each."""

Pieces: TypeAlias = tuple[tuple[Any, ...], ...]
"""What the sentences of a chunk are made of: the fields of `Sentence` behind its chunk, in their order."""

TakesApart: TypeAlias = Callable[[ScoredChunk], Pieces]


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence, list item or table row that may be quoted.

    Attributes:
        chunk: Which piece of the evidence it stands in.
        ordinal: Its place among the chunk's sentences; neighbours differ by one.
        start, end: Code points of the chunk's text.
        text: `chunk.text[start:end]`.
        context: What stands before it and may name what it speaks of: the sentence before it, or what
            introduces its list; "" for none.
        asked: The context is a question that it answers.
        plain: The text without case, and with single spaces.
        words, context_words: See `terms.words`; each once.
    """

    chunk: int
    ordinal: int
    start: int
    end: int
    text: str
    context: str = ""
    asked: bool = False
    plain: str = field(default="", compare=False, repr=False)
    words: Sequence[str] = field(default=(), compare=False, repr=False)
    context_words: Sequence[str] = field(default=(), compare=False, repr=False)


def take_apart(chunk: ScoredChunk) -> Pieces:
    """The sentences of a chunk and their words."""
    # Perhaps kept for long: each word once in memory, and no sets, which take ten times the room.
    words_of = lru_cache(2)(lambda told: tuple(map(sys.intern, dict.fromkeys(terms.words(told)))))  # mostly of the sentence before
    return tuple(
        (ordinal, start, end, told, context, asked, " ".join(told.casefold().split()), words_of(told), words_of(context))
        for ordinal, start, end, told, context, asked in _sentences(chunk.text, chunk.heading)
    )


class KeptPieces:
    """Chunks taken apart, for what one question finds, others find again. Each tenant finds its own only. Safe to share between threads.

    Args:
        chunks, max_bytes: How many are kept, and in how much memory; no more than `MOST_KEPT` and `MOST_BYTES_KEPT`.
    """

    def __init__(self, chunks: int = MOST_KEPT, *, max_bytes: int = MOST_BYTES_KEPT) -> None:
        self._pieces: TinyLfu[tuple[str, str, str, str], Pieces] = TinyLfu(
            min(chunks, MOST_KEPT), max_bytes=min(max_bytes, MOST_BYTES_KEPT), size_of=_weight
        )

    def __len__(self) -> int:
        return len(self._pieces)

    def of(self, tenant: str) -> TakesApart:
        """`take_apart`, for a tenant's chunks, which are kept."""

        def taken_apart(chunk: ScoredChunk) -> Pieces:
            key = (tenant, chunk.collection, chunk.heading, chunk.text)
            pieces = self._pieces.get(key, None)
            if pieces is None:
                pieces = take_apart(chunk)
                self._pieces.set(key, pieces)
            return pieces

        return taken_apart

    def forget(self, tenant: str, collection: str) -> None:
        """Lets go of a collection's chunks."""
        self._pieces.clear(lambda key: key[:2] == (tenant, collection))


def _weight(pieces: Pieces) -> int:
    """About how many bytes of memory, the text in the key included."""
    return 1024 + 6 * sum(len(told) for _, _, _, told, *_ in pieces)


def quotable(evidence: Sequence[ScoredChunk], take_apart: TakesApart = take_apart) -> list[Sentence]:
    """The sentences of all chunks in order, without headings, questions, rules and what was met before."""
    found: list[Sentence] = []
    met: set[str] = set()
    for number, chunk in enumerate(evidence):
        for pieces in take_apart(chunk):
            sentence = Sentence(number, *pieces)
            if sentence.plain not in met:
                met.add(sentence.plain)
                found.append(sentence)
    return found


def introduces(sentence: Sentence) -> bool:
    """Whether it announces a list."""
    return _introduces(sentence.text)


def is_list_item(sentence: Sentence) -> bool:
    """Whether it is an item of a list or a row of a table."""
    return _is_list_item(sentence.text)


def _sentences(whole: str, heading: str) -> Iterator[tuple[int, int, int, str, str, bool]]:
    headings = {_without_markup(title) for title in heading.split(" > ")}
    before = introduction = ""
    asked = False
    for ordinal, (start, end) in enumerate(_spans(whole)):
        text = whole[start:end]
        plain = _without_markup(text)
        is_heading = plain in headings or _is_heading_line(text)
        if text.endswith(_QUESTION_MARKS):
            before, introduction, asked = plain, "", True
        elif not is_heading and any(character.isalnum() for character in text):
            context = introduction if introduction and _is_list_item(text) else before
            yield ordinal, start, end, text, context, asked
            before, asked = text, False
            if _introduces(text):
                introduction = text
            elif not _is_list_item(text):
                introduction = ""


def _is_heading_line(text: str) -> bool:
    """Whether it is a heading of Markdown, and not a comment, which is of several lines or ends as sentences do."""
    return _HEADING_LINE.match(text) is not None and "\n" not in text and not text.endswith((".", "!", ";"))


def _without_markup(text: str) -> str:
    return text.lstrip(_LEADING_MARKUP).rstrip(_CLOSING_MARKUP)


def _introduces(text: str) -> bool:
    return text.endswith((":", "\uff1a"))


def _is_list_item(text: str) -> bool:
    return text.startswith("|") or _LIST_ITEM.match(text) is not None


def _spans(text: str) -> Iterator[tuple[int, int]]:
    """The sentences, and the rows of tables that came as plain lines."""
    for start, end in sentence_spans(text):
        lines = text[start:end].splitlines(keepends=True)
        if len(lines) > 2 and sorted(map(len, lines))[len(lines) // 2] < PROSE_LINE_CHARACTERS:
            for line in lines:
                if line.strip():
                    left = len(line) - len(line.lstrip())
                    yield start + left, start + len(line.rstrip())
                start += len(line)
        else:
            yield start, end
