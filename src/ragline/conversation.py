"""What is a question about that goes on with a conversation? Rules without a model: cheap, and the same each time."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

from ragline.errors import InputError
from ragline.types import Turn

MAX_TURNS = 200
"""Of a longer history the newest turns count: no prompt has room for the others."""

_MAX_BEFORE = 3
_MAX_WORDS = 24
"""Of earlier questions: enough to say what is talked about, without drowning the new one."""

_MAX_NAMES = 4
_MAX_SAID = 4
_SAID_CHARS = 500
_SHORT_CHARS = 200
_ANTECEDENT_WORDS = 2
"""So many telling words before a pronoun, and it is likelier to mean one of them than something said before."""

_FEW = 2
"""So few telling words are no question of their own, unless one is a name."""

_FEW_EARLIER = 1
"""The same of an earlier question: one too many would drown the new one."""

_FEWEST_WORDS = 3
_UNSPACED_LETTERS = 4

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")
_NAME = re.compile(r"(?<![.!?:*#\u2026\n] )(?<=[^\n] )[A-Z\u00c0-\u00de][^\W_]+")
_MARKER = re.compile(r" ?\[\d{1,4}\]")
_UNSPACED = re.compile("[\u0e00-\u0eff\u3041-\u30ff\u3400-\u9fff]")
_OPENS = re.compile(r"(?:(?:ok(?:ay)?|yes|no|thanks|well)\b[\s,.!]*)?(?:and|but|or|also|what about|how about|as for)\b", re.IGNORECASE)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_MEANS_ANOTHER = _words(
    """he she it they him her them his hers its their theirs himself herself itself themselves
    this that these those one ones there same such former latter previous above else another other others"""
)
_PERSONS = _words("he she him her his hers himself herself")
_EXPLETIVE = _words("is was does did has will would can could should may might")
""" "Is there a fee?", "Is it possible?": what follows on one of these at the beginning means nothing said before."""

_SAYS_LITTLE = _MEANS_ANOTHER | _words(
    """a an the of in on at to for from by with about as into over under than then so too very just only also
    and or but not no yes if because while when where which who whom whose what why how
    is are am was were be been being do does did done have has had can could may might must shall should will would
    i me my mine you your yours we us our ours much many more most less few some any all both each every long often far
    please tell give show explain say know mean ok okay thanks now still again exactly sure really oh hmm wow cool great interesting
    like want wanted need heard see think thought sounds got let's lot good better best worse first second third last next
    kind kinds type types sort example examples way ways thing things something anything everything
    isn't aren't wasn't weren't don't doesn't didn't hasn't haven't can't couldn't won't wouldn't shouldn't
    what's who's where's when's how's why's that's it's there's he's she's they're i'm you're i'd i've it'll"""
)


def conversation(history: Iterable[Turn]) -> tuple[Turn, ...]:
    """The turns of a conversation that count: without empty ones, in Unicode's NFC, the newest where there are too many.

    Raises:
        InputError: There is something else among them.
    """
    if isinstance(history, str | bytes):
        raise InputError("the history is a text", hint='pass a list of turns, such as [ragline.Turn("user", "How often do keys rotate?")]')
    turns: list[Turn] = []
    for turn in history:
        if not isinstance(turn, Turn):
            raise InputError(f"the history holds a {type(turn).__name__}", hint='pass turns, such as ragline.Turn("user", "...")')
        text = turn.text.strip()
        if not _is_storable(text):
            text = _UNSTORABLE.sub(" ", text).strip()
        if not unicodedata.is_normalized("NFC", text):
            text = unicodedata.normalize("NFC", text)
        if text:
            turns.append(turn if text == turn.text else Turn(turn.role, text))
    wishes = [turn for turn in turns if turn.role == "system"]
    said = [turn for turn in turns if turn.role != "system"]
    return (*wishes[-MAX_TURNS:], *said[-MAX_TURNS:])


def _is_storable(text: str) -> bool:
    try:
        text.encode()  # many times faster than looking for what is not
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def without_markers(text: str) -> str:
    """An earlier answer without its `[1]`, which named what is not numbered so any more."""
    return _MARKER.sub("", text)


def standalone(question: str, history: Sequence[Turn]) -> str:
    """The question with what it refers to, for those who see nothing but it: the search, and who quotes.

    A question that goes on with what was said (it begins with "and" or "what about", says next to nothing by itself, or has a
    pronoun with nothing before it to mean) gets the telling words of the user's questions before it, back to one that stands alone,
    three at most; numbers only where it has none itself. "He" and "she" are told by the names in the answers, else the first words of
    the first, where that is short. Any other question is left as it is. The words are English; of questions in other languages only
    very short ones are taken to go on. Source: docs/decisions/0011, with what other rules find.
    """
    asked, answered = _last_talk(history)
    if not asked or not _goes_on(question, _FEW):
        return question
    words = _words_of(question)
    before = [word for text in asked for word in _telling(text)]
    if answered and not _PERSONS.isdisjoint(words) and len(answered[0]) <= _SHORT_CHARS:
        names = [name for text in answered for name in _NAME.findall(text)[:_MAX_NAMES]]
        before = names or _telling(answered[0])[:_MAX_SAID] or before
    known = set(words)
    numbered = any(word.isdigit() for word in words)
    told: list[str] = []
    for word in before:
        folded = word.casefold()
        if folded not in known and not (numbered and folded.isdigit()):
            known.add(folded)
            told.append(word)
    return f"{' '.join(told[:_MAX_WORDS])}: {question}" if told else question


def _last_talk(history: Sequence[Turn]) -> tuple[list[str], list[str]]:
    """The user's last questions, from one that stands alone on, and the beginnings of the answers to them."""
    asked: list[str] = []
    answered: list[str] = []
    for turn in reversed(history):
        if turn.role == "user":
            asked.insert(0, turn.text[:_SAID_CHARS])
            if len(asked) == _MAX_BEFORE or not _goes_on(asked[0], _FEW_EARLIER):
                break
        elif turn.role == "assistant":
            answered.insert(0, without_markers(turn.text[:_SAID_CHARS]))
    return asked, answered


def _goes_on(question: str, few: int) -> bool:
    words = _words_of(question)
    if _OPENS.match(question):
        return True
    telling = [word for word in words if word not in _SAYS_LITTLE]
    named = len(words) > _FEWEST_WORDS and _NAME.search(question) is not None
    if len(telling) <= few and not named and len(_UNSPACED.findall(question)) <= _UNSPACED_LETTERS:
        return True
    place = _pronoun(words)
    return place is not None and sum(word not in _SAYS_LITTLE for word in words[:place]) < _ANTECEDENT_WORDS


def _pronoun(words: Sequence[str]) -> int | None:
    """Where the first word stands that may mean something said before; None for none."""
    for place, word in enumerate(words):
        if word in _MEANS_ANOTHER and not (place == 1 and word in ("it", "there") and words[0] in _EXPLETIVE):
            return place
    return None


def _telling(text: str) -> list[str]:
    return [word for word in _WORD.findall(text) if word.casefold().replace("\u2019", "'") not in _SAYS_LITTLE]


def _words_of(text: str) -> list[str]:
    return [word.replace("\u2019", "'") for word in _WORD.findall(text.casefold())]
