"""What is it measured on? Real sentences, recombined into as much text as a measurement needs, the same each time."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ragline.errors import InputError

SEED = 20261121
DOCUMENT_TOKENS = (180, 250)
"""Below the 256 of a chunk, special tokens included: one chunk each, so that systems can be compared by chunk."""
QUESTION_TOKENS = (15, 25)

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n\s*\n")
_SENTENCE_WORDS = (6, 60)


@dataclass(frozen=True, slots=True)
class Workload:
    """Documents of one chunk each, and questions of about 20 tokens, all different."""

    documents: tuple[str, ...]
    questions: tuple[str, ...]


def read_sentences(folder: Path) -> list[str]:
    """The sentences of all texts below a folder, each once, in an order that depends on `SEED` alone.

    Texts are the `corpus.jsonl` of labelled sets, `.md` and `.txt` files. White space is collapsed; sentences of fewer
    than 6 or more than 60 words are left out.

    Raises:
        InputError: There is no text.
    """
    found: dict[str, None] = {}
    for text in _texts(folder):
        for piece in _SENTENCE_END.split(text):
            words = piece.split()
            if _SENTENCE_WORDS[0] <= len(words) <= _SENTENCE_WORDS[1]:
                found[" ".join(words)] = None
    if not found:
        raise InputError(
            f"{folder} holds no text", hint="name one with --data that has labelled sets in BEIR's layout, or .md or .txt files"
        )
    sentences = list(found)
    random.Random(SEED).shuffle(sentences)
    return sentences


def _texts(folder: Path) -> Iterator[str]:
    for file in sorted(folder.rglob("*")):
        if file.name == "corpus.jsonl":
            with file.open(encoding="utf-8") as lines:
                for line in lines:
                    yield json.loads(line)["text"]
        elif file.suffix in (".md", ".txt"):
            yield file.read_text(encoding="utf-8")


def make_workload(sentences: Sequence[str], count_tokens: Callable[[str], int], *, documents: int, questions: int) -> Workload:
    """Documents and questions of the lengths above. No document holds the sentence that a question is.

    Args:
        count_tokens: The model's, without special tokens.

    Raises:
        InputError: There are too few sentences of a question's length.
    """
    asked: dict[str, None] = {}
    for sentence in sentences:
        if len(asked) < questions and QUESTION_TOKENS[0] <= count_tokens(sentence) <= QUESTION_TOKENS[1]:
            asked[sentence] = None
    if len(asked) < questions:
        raise InputError(f"the texts give {len(asked)} questions, not {questions}", hint="name a folder with more text with --data")
    rest = [sentence for sentence in sentences if sentence not in asked]
    return Workload(tuple(_documents(rest, count_tokens, documents)), tuple(asked))


def _documents(sentences: Sequence[str], count_tokens: Callable[[str], int], count: int) -> Iterator[str]:
    draw = random.Random(SEED)
    lowest, highest = DOCUMENT_TOKENS
    for _ in range(count):
        text, tokens = "", 0
        while tokens < lowest:
            longer = f"{text} {draw.choice(sentences)}".strip()
            length = count_tokens(longer)
            if length <= highest:
                text, tokens = longer, length
        yield text


def passages(sentences: Sequence[str], count: int, words: int) -> Iterator[str]:
    """`count` passages of sentences drawn at random, each of `words` words at least."""
    draw = random.Random(SEED)
    for _ in range(count):
        chosen: list[str] = []
        length = 0
        while length < words:
            chosen.append(draw.choice(sentences))
            length += chosen[-1].count(" ") + 1
        yield " ".join(chosen)


def write_text_files(sentences: Sequence[str], folder: Path, *, total_bytes: int, file_bytes: int) -> int:
    """Fills a folder with `.txt` files of paragraphs, `total_bytes` in all or a little more; returns how many."""
    paragraphs = passages(sentences, total_bytes, 80)  # more than enough: each has hundreds of bytes
    written = files = 0
    while written < total_bytes:
        size = 0
        with (folder / f"{files:05d}.txt").open("wb") as file:
            while size < min(file_bytes, total_bytes - written):
                size += file.write(next(paragraphs).encode() + b"\n\n")
        written += size
        files += 1
    return files
