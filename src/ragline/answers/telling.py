"""May two questions share one answer? Only where no word that tells differs.

A cosine cannot say: "Who won in 2015?" and "Who won in 2016?" lie closer together than most pairs that do mean the same.
Measured in docs/decisions/0008-sharing-answers.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ragline.answers import english
from ragline.answers.words import Reading, read

MAX_CHARS = 1000
"""Longer questions share no answer with another: they are pasted texts, and comparing them takes time."""

MAX_WORDS = 40
"""In longer questions the words must stand in one order."""

_MAX_JOINED = 3
_MAX_OWNED = 4
_LONG_LETTERS = 8
_OUR = re.compile(r"(?<=[a-z]{3})our(?=(?:s|ed|ing|ites?|able|ful|al)?$)")
_ISE = re.compile(r"(?<=[a-z]{3}[iy])s(?=(?:e|es|ed|ing|ations?)$)")
_TRE = re.compile(r"(?<=[a-z]{2})tre(?=s?$)")


def may_share(question: str, other: str) -> bool:
    """Whether no telling word of two questions differs: numbers, negation, names, units, wh-words, content words, and their order.

    Courtesies, articles, contractions, plurals, a few words of one meaning, and where a phrase with a preposition stands may
    differ. Both questions must share their evidence besides: this looks at the words alone. What does not look
    English must agree word for word. Symmetric, and no relation of equivalence: two that may share with a third need not with each other.
    """
    if max(len(question), len(other)) > MAX_CHARS:
        return False
    one, two = read(question), read(other)
    if not one.words or one.auxiliaries != two.auxiliaries or len(one.words) != len(two.words):
        return False
    return _tenses_agree(one, two) and (_agree(one.words, one, two.words, two) or _agree_moved(one, two))


def _agree(words: Sequence[str], one: Reading, others: Sequence[str], two: Reading) -> bool:
    return len(words) == len(others) and all(
        word == other or _forms_of_one(word, one, other, two) for word, other in zip(words, others, strict=True)
    )


def _agree_moved(one: Reading, two: Reading) -> bool:
    if len(one.words) > MAX_WORDS or _initials(one) != _initials(two):
        return False
    return any(_agree(words, one, two.words, two) for words in _moved(one.words)) or any(
        _agree(one.words, one, words, two) for words in _moved(two.words)
    )


def _initials(reading: Reading) -> list[str]:
    """What no move and no other form of a word changes, so that most pairs are told apart at once."""
    return sorted(word[0] for word in reading.words if word not in ("'s", "of"))


def _moved(words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The same words as they may also stand."""
    if words[0] in english.PREPOSITIONS or (words[0] in english.WH and english.WH.isdisjoint(words[1:])):
        # "In 1990, who won?": "Who won in 1990?"; "What did it become?": "It became what?"
        yield from ((*words[k:], *words[:k]) for k in range(1, len(words)))
    for place, word in enumerate(words):
        if word in english.JOINS:
            for k in range(1, min(_MAX_JOINED, place, len(words) - place - 1) + 1):
                left, right = words[place - k : place], words[place + 1 : place + 1 + k]
                yield (*words[: place - k], *right, word, *left, *words[place + 1 + k :])
        elif word == "'s":
            for start in range(max(0, place - _MAX_OWNED), place):
                for end in range(place + 2, min(place + 1 + _MAX_OWNED, len(words)) + 1):
                    yield (*words[:start], *words[place + 1 : end], "of", *words[start:place], *words[end:])
        elif word == "not" and words.count("not") == 1 and english.CLAUSES.isdisjoint(words[1:]):
            bare = (*words[:place], *words[place + 1 :])
            yield from ((*bare[:k], "not", *bare[k:]) for k in range(1, len(words)))


def _tenses_agree(one: Reading, two: Reading) -> bool:
    if one.supported == two.supported:
        return one.tenses == two.tenses
    # "What did he invent?", "what he invented": the verb has the tense, and `_forms_of_one` compares the two.
    bare, supported = (two, one) if one.supported else (one, two)
    if bare.tenses or len(supported.tenses) != 1:
        return False
    return supported.tenses == ("present",) or sorted(bare.words) != sorted(supported.words)


def _forms_of_one(word: str, one: Reading, other: str, two: Reading) -> bool:
    """Whether two words are forms of one: plural and singular, or a verb with and without its "do"."""
    if word in one.names or other in two.names or not word.isalpha() or not other.isalpha():
        return False
    if one.supported != two.supported:
        verb, finite, tense = (word, other, one.tenses[0]) if one.supported else (other, word, two.tenses[0])
        if tense == "past":
            return english.PAST.get(finite) == verb or finite in (f"{verb}ed", f"{verb}d", f"{verb}{verb[-1]}ed", f"{verb[:-1]}ied")
    shorter, longer = sorted((word, other), key=len)
    return _plural(shorter, longer) or _slipped(word, other) or _british(word) == _british(other)


def _plural(one: str, many: str) -> bool:
    if len(one) < 3 or many in english.NOT_PLURALS:
        return False
    if one.endswith(("s", "x", "z", "ch", "sh", "o")):
        return many == f"{one}es" or (one.endswith("o") and many == f"{one}s")
    return many == f"{one}s" or (one.endswith("y") and many == f"{one[:-1]}ies")


def _slipped(word: str, other: str) -> bool:
    """Whether two neighbouring letters of a long word changed places. In shorter ones that may be another word: "casual", "causal"."""
    if len(word) < _LONG_LETTERS or len(word) != len(other):
        return False
    at = next((place for place, (a, b) in enumerate(zip(word, other, strict=True)) if a != b), 0)
    return word[at : at + 2] == other[at : at + 2][::-1] and word[at + 2 :] == other[at + 2 :]


def _british(word: str) -> str:
    """A spelling that British and American have in common."""
    return _TRE.sub("ter", _ISE.sub("z", _OUR.sub("or", word)))
