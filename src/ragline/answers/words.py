"""What a question says, word by word: what its reader may leave out is left out, all else is kept.

A question that does not look English is kept as it is written, but for case and punctuation, so that in other languages
nothing is left out that might tell.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from ragline.answers import english

_ASKS = r"(?:please )?(?=(?:wh|how|in wh)|[:,])[\s,:]*"
_POLITE = re.compile(
    r"(?:(?:hi|hello|hey|please|thanks|thank you|ok|okay)\b[\s,.!:]*"
    rf"|(?:can|could|would|will) you (?:please |kindly )?(?:tell me|let me know) ?{_ASKS}"
    rf"|(?:tell me|let me know) ?{_ASKS}"
    rf"|do you (?:happen to )?know ?{_ASKS}"
    rf"|i(?: would|'d)? (?:want|like|need) to know ?{_ASKS}"
    rf"|i(?: was|'m| am)(?: just)? wondering ?{_ASKS})",
    re.IGNORECASE,
)
_FAREWELL = re.compile(r"[\s,.!?]*\b(?:please|thanks|thank you)[\s.!?]*$", re.IGNORECASE)
_FAREWELL_CHARS = 24
_TOKEN = re.compile(
    r"(?:[^\W\d_]\.)+[^\W\d_]\b"  # U.S.
    r"|(?:(?<!\w)[-\u2212.]+)?\d+(?:[.,:]\d+)+!?|(?<!\w)[-\u2212.]+\d+!?|\d+!"  # 1,000 and -5 and 5!
    r"|\w+(?:'\w+)*|[^\w\s]"
)
_THOUSANDS = re.compile(r"\d{1,3}(?:,\d{3})+")
_PUNCTUATION = frozenset(
    ".,;:!?\"'()[]{}-\u2010\u2011\u2012\u2013\u2014\u2018\u2019\u201c\u201d\u2026\u00ab\u00bb\u00bf\u00a1\u3001\u3002\uff01\uff0c\uff1f"
)
_OPERATORS = frozenset("+*/^=<>\u2212\u00d7\u00f7")
_IS_AFTER = english.WH | {"that", "there", "here", "it", "he", "she"}
_CONTRACTED = {"re": "are", "ll": "will", "ve": "have", "m": "am"}
_MERE_NOUN = 2
"""A question after examples differs from one after a meaning: "What are some smart goals?", "What are smart goals?"."""

_NOT = {"can't": "can", "cannot": "can", "won't": "will", "shan't": "shall"}


@dataclass(frozen=True, slots=True)
class Reading:
    """A question as its words tell it.

    Attributes:
        words: In order, without case, articles, auxiliaries and courtesies.
        names: Those of `words` that were written with a capital: no other word stands for one.
        auxiliaries: "be" and modal verbs in order, apart from `words`: where they stand depends on how a question is put.
        tenses: "past" or "present" of each auxiliary that has one; without any, empty.
        supported: A form of "do" stood beside the verb, and was left out.
    """

    words: tuple[str, ...]
    names: frozenset[str]
    auxiliaries: tuple[str, ...] = ()
    tenses: tuple[str, ...] = ()
    supported: bool = False


@lru_cache(maxsize=512)
def read(question: str) -> Reading:
    """What a question says."""
    if not question.isascii():
        question = unicodedata.normalize("NFC", question).replace("\u2019", "'")
    written = [part for token in _tokens(_without_courtesies(question)) for part in _parts(token)]
    # Capitals tell a name only where not every word has one.
    capitals_tell = any(token[0].islower() for token in written)
    if any(token.lower() in english.SURELY for place, token in enumerate(written) if place == 0 or token[0].islower() or not capitals_tell):
        return _read_english(written, capitals_tell)
    words = tuple(token.casefold() for token in _tokens(question))
    return Reading(words, frozenset(words))


def _tokens(text: str) -> list[str]:
    tokens = _TOKEN.findall(text)
    brackets_tell = not _OPERATORS.isdisjoint(tokens)
    return [token for token in tokens if token not in _PUNCTUATION or (brackets_tell and token in "()")]


def _without_courtesies(question: str) -> str:
    start = 0
    while polite := _POLITE.match(question, start):
        start = polite.end()
    if farewell := _FAREWELL.search(question, max(start, len(question) - _FAREWELL_CHARS)):
        question = question[: farewell.start()]
    return question[start:]


def _read_english(written: Sequence[str], capitals_tell: bool) -> Reading:
    lowered = _asking_how([token.casefold() for token in written])
    # Words were only ever left out at the beginning, and none of them was a name.
    skipped = len(written) - len(lowered)
    told = _Telling()
    for place, word in enumerate(lowered):
        token = written[place + skipped] if place else written[0]
        told.take(
            token if token.isupper() and capitals_tell and word in english.OTHER_IN_CAPITALS else word,
            lowered[place - 1] if place else "",
            named=capitals_tell and token[0].isupper() and word != "i",
            first=place == 0,
            left=len(lowered) - place - 1,
        )
    return Reading(tuple(told.words), frozenset(told.names), tuple(told.auxiliaries), tuple(told.tenses), told.supported)


class _Telling:
    """Takes the words of a question one after the other, and keeps what tells."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.names: set[str] = set()
        self.auxiliaries: list[str] = []
        self.tenses: list[str] = []
        self.supported = False
        self._some = False

    def take(self, word: str, before: str, *, named: bool, first: bool, left: int) -> None:
        some, self._some = self._some, False
        if named and not first:
            self._keep(word, named=True)
        elif word in english.BE or word in english.MODALS:
            self.auxiliaries.append("be" if word in english.BE else word)
            if english.BE.get(word):
                self.tenses.append(english.BE[word])
        elif word in english.DO and not self.supported and left:
            self.supported = True
            self.tenses.append(english.DO[word])
        elif word == "some" and before in english.BE and self.words == ["what"] and left > _MERE_NOUN:
            self._some = True
        elif word in english.SAYS_NOTHING or (word == "a" and (first or before in english.BEFORE_ARTICLE)) or (some and word == "of"):
            pass
        else:
            plain = word.replace(",", "") if _THOUSANDS.fullmatch(word) else word
            self._keep(english.ONE_FOR_ANOTHER.get(plain, plain), named=named and word not in english.WH)

    def _keep(self, word: str, *, named: bool) -> None:
        self.words.append(word)
        if named:
            self.names.add(word)


def _asking_how(words: list[str]) -> list[str]:
    """As "How to reset it?": "How do I reset it?", "How can one reset it?", "What can I do to reset it?"."""
    opening = words[:3]
    if (
        len(words) > 4
        and words[0] == "what"
        and words[1] in ("can", "could")
        and words[2] in english.PERSONS
        and words[3:5] == ["do", "to"]
    ):
        person, rest = words[2], words[5:]
    elif len(opening) == 3 and opening[0] == "how" and opening[1] in ("do", "does", "can", "could") and opening[2] in english.PERSONS:
        person, rest = opening[2], words[3:]
    else:
        return words
    if not rest or rest[0] in english.OPINIONS:
        return words
    mine = dict(zip(english.PERSONS[person], english.PERSONS["i"], strict=True))
    return ["how", "to", *(mine.get(word, word) for word in rest)]


def _parts(token: str) -> tuple[str, ...]:
    """A token as the words it was contracted from."""
    if "." in token and token[0].isalpha():
        return (token.replace(".", ""),)
    whole = token.casefold()
    if whole in _NOT:
        return (_NOT[whole], "not")
    if "'" not in token:
        return (token,)
    if whole.endswith("n't"):
        return (token[:-3], "not")
    stem, _, ending = token.rpartition("'")
    ending = ending.casefold()
    if ending == "s":
        return (stem, "is") if stem.casefold() in _IS_AFTER else (stem, "'s")
    return (stem, _CONTRACTED[ending]) if ending in _CONTRACTED else (token,)
