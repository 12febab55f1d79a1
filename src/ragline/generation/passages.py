"""What can be quoted: the sentences of the evidence, each with what it needs to be understood."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ragline.chunking.sentences import sentence_spans
from ragline.types import ScoredChunk

_LIST_ITEM = re.compile(r"(?:[-*+\u2022\u25e6\u2013\u2014]|\(?\d{1,3}[.)]|\(?[a-z][)])\s")
_MARKUP = re.compile(r"^[#\s>*_`|-]+|[#\s*_`|]+$")
_QUESTION_MARKS = ("?", "\uff1f", "\u061f")
_ROW_CHARACTERS = 50
"""Lines of prose are wrapped at 60 characters or more; where most are shorter, they are rows of a table."""


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
    """

    chunk: int
    ordinal: int
    start: int
    end: int
    text: str
    context: str = ""
    asked: bool = False


def quotable(evidence: Sequence[ScoredChunk]) -> list[Sentence]:
    """The sentences of all chunks in order, without headings, questions, rules and what was met before."""
    found: list[Sentence] = []
    met: set[str] = set()
    for number, chunk in enumerate(evidence):
        for sentence in _sentences(number, chunk):
            plain = " ".join(sentence.text.casefold().split())
            if plain not in met:
                met.add(plain)
                found.append(sentence)
    return found


def introduces(sentence: Sentence) -> bool:
    """Whether it announces a list."""
    return sentence.text.endswith((":", "\uff1a"))


def is_list_item(sentence: Sentence) -> bool:
    """Whether it is an item of a list or a row of a table."""
    return sentence.text.startswith("|") or _LIST_ITEM.match(sentence.text) is not None


def _sentences(number: int, chunk: ScoredChunk) -> Iterator[Sentence]:
    headings = {_MARKUP.sub("", title) for title in chunk.heading.split(" > ")}
    before = introduction = ""
    asked = False
    for ordinal, (start, end) in enumerate(_spans(chunk.text)):
        sentence = Sentence(number, ordinal, start, end, chunk.text[start:end])
        text = sentence.text
        plain = _MARKUP.sub("", text)
        heading = plain in headings or (text.startswith("#") and "\n" not in text)
        if text.endswith(_QUESTION_MARKS):
            before, introduction, asked = plain, "", True
        elif not heading and any(character.isalnum() for character in text):
            context = introduction if introduction and is_list_item(sentence) else before
            yield Sentence(number, ordinal, start, end, text, context, asked)
            before, asked = text, False
            if introduces(sentence):
                introduction = text
            elif not is_list_item(sentence):
                introduction = ""


def _spans(text: str) -> Iterator[tuple[int, int]]:
    """The sentences, and the rows of tables that came as plain lines."""
    for start, end in sentence_spans(text):
        lines = text[start:end].splitlines(keepends=True)
        if len(lines) > 2 and sorted(map(len, lines))[len(lines) // 2] < _ROW_CHARACTERS:
            for line in lines:
                if line.strip():
                    left = len(line) - len(line.lstrip())
                    yield start + left, start + len(line.rstrip())
                start += len(line)
        else:
            yield start, end
