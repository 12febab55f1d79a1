"""Which words of a question does a text hold? Kernels without dictionaries: they serve any language.

There are no lists of stop words and no stemmers here, since the language of a question is not known. A word weighs
more the fewer sentences hold it and the longer it is, which drowns "the" and "der" well enough, and two words are
taken as one where they share their beginning, which finds most inflections.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from ragline.types import Float32

Hits = NDArray[np.bool_]

_WORD = re.compile(r"[^\W_]+")
_UNSPACED = re.compile(
    "["
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
    "\u3005-\u3007\u3041-\u3096\u30a1-\u30fa\u30fc-\u30fe"  # Japanese
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
    "\uac00-\ud7a3"  # Korean: spaced, but with particles attached to words
    "]+"
)
_FEWEST_LETTERS = 3
_STEM_LETTERS = 4
_ENDING_LETTERS = 3
_LONG_LETTERS = 8


def words(text: str) -> list[str]:
    """The words of a text in order, without case and compatibility forms; pairs of characters in unspaced scripts."""
    return _WORD.findall(_spaced(text).casefold())


def names(question: str) -> frozenset[str]:
    """The words of a question that hardly another can stand for: with a digit, or with a capital and not the first.

    Capitals tell nothing where every letter is one.
    """
    shouted = question.upper() == question
    return frozenset(
        word.casefold()
        for place, word in enumerate(_WORD.findall(_spaced(question)))
        if _has_digit(word) or (place > 0 and not shouted and len(word) > 1 and word[0].isupper())
    )


def hits(terms: Sequence[str], texts: Sequence[Iterable[str]]) -> Hits:
    """Which terms stand in which texts, in any inflection: `(texts, terms)`.

    Args:
        terms: As from `words`, each once.
        texts: The words of each text.
    """
    alike: dict[str, list[str]] = {term[:_FEWEST_LETTERS]: [] for term in terms}
    for word in frozenset().union(*texts):
        if (begun := word[:_FEWEST_LETTERS]) in alike:
            alike[begun].append(word)
    columns: dict[str, list[int]] = {}
    for column, term in enumerate(terms):
        for word in alike[term[:_FEWEST_LETTERS]]:
            if _same(term, word):
                columns.setdefault(word, []).append(column)
    found = bytearray(len(texts) * len(terms))  # single cells of an array take ten times as long
    for row, text in enumerate(texts):
        for word in text:
            if word in columns:
                for column in columns[word]:
                    found[row * len(terms) + column] = True
    return np.frombuffer(found, np.bool_).reshape(len(texts), len(terms))


def weights(terms: Sequence[str], found: Hits) -> Float32:
    """How much each term tells, `(terms,)`, above 0: its rarity among the texts times its length up to
    8 letters, which a number counts in full.

    Args:
        terms: As from `words`.
        found: `(texts, terms)`, see `hits`.
    """
    rarity = np.log(1.0 + (found.shape[0] + 5.0) / (found.sum(axis=0) + 1.0))
    letters = [_LONG_LETTERS if _has_digit(term) else min(len(term), _LONG_LETTERS) for term in terms]
    told: Float32 = (rarity * np.array(letters) / _LONG_LETTERS).astype(np.float32)
    return told


def _same(one: str, other: str) -> bool:
    """Whether two words that begin alike are forms of one: "key" and "keys", "rotate" and "rotation"."""
    if one == other:
        return True
    shorter, longer = sorted((len(one), len(other)))
    if shorter < _FEWEST_LETTERS or _has_digit(one) or _has_digit(other):
        return False
    if shorter < _STEM_LETTERS:
        return longer == shorter + 1 and one[:shorter] == other[:shorter]
    shared = max(_STEM_LETTERS, longer - _ENDING_LETTERS)
    return shared <= shorter and one[:shared] == other[:shared]


def _has_digit(word: str) -> bool:
    return not word.isalpha() and any(character.isdigit() for character in word)


def _spaced(text: str) -> str:
    return text if text.isascii() else _UNSPACED.sub(_pairs, unicodedata.normalize("NFKC", text))


def _pairs(run: re.Match[str]) -> str:
    characters = run.group()
    return f" {' '.join(characters[at : at + 2] for at in range(max(len(characters) - 1, 1)))} "
