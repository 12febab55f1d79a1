"""Tables of English: which words a question may do without, and which may stand for another."""

from __future__ import annotations

from collections.abc import Callable


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _numbered(text: str, ending: Callable[[int], str]) -> dict[str, str]:
    return {word: ending(number) for number, word in enumerate(text.split())}


_ENDINGS = {1: "st", 2: "nd", 3: "rd"}


def _ordinal(number: int) -> str:
    return f"{number}{_ENDINGS.get(number, 'th')}"


def _groups(text: str) -> dict[str, str]:
    """The first word of each line, by every other word of it."""
    return {word: first for line in text.strip().splitlines() for first, *others in [line.split()] for word in others}


def _pasts(text: str) -> dict[str, str]:
    return {past: verb for pair in text.split() for past, _, verb in [pair.partition("-")]}


SURELY = _words("what which who whom whose when where why how the does did should would could this your")
"""Words that hardly another language has."""

WH = _words("what which who whom whose when where why how")
BE = {"is": "present", "are": "present", "am": "present", "was": "past", "were": "past", "be": "", "been": "", "being": ""}
DO = {"do": "present", "does": "present", "did": "past"}
MODALS = _words("can could may might must shall should will would")
PREPOSITIONS = _words("about after against among at before between by during for from in into on of over since to under until with")
JOINS = _words("and or vs versus")
CLAUSES = WH | JOINS | _words("that but if because than while although to all any both each every many most only always ever")
"""Where one of these stands, it tells which side of it a "not" belongs to."""

SAYS_NOTHING = _words("please the an")
BEFORE_ARTICLE = (
    WH
    | BE.keys()
    | DO.keys()
    | MODALS
    | PREPOSITIONS
    | JOINS
    | _words("as have has had get buy make take use build find become create write need")
)
""" "a" is an article after these. After others it may be a name: vitamin a, plan a."""

PERSONS = {"i": ("my", "myself"), "you": ("your", "yourself"), "one": ("one", "oneself")}
"""Who may ask how to do a thing, and what is theirs. Not "we": how we become friends is not how I become a friend."""

OPINIONS = _words("feel think look like know see mean define do")
""" "How do you feel?" is not "How do I feel?"."""

ONE_FOR_ANOTHER = (
    _numbered("zero one two three four five six seven eight nine ten eleven twelve", str)
    | _numbered("0th first second third fourth fifth sixth seventh eighth ninth tenth", _ordinal)
    | _groups("""
what which
who whom
in during
and &
% percent
vs versus
start begin commence
started began commenced
starting beginning
happen occur
happened occurred
film movie
films movies
type kind
types kinds
large big
larger bigger
largest biggest
buy purchase
bought purchased
built constructed
located situated
children kids
country nation
countries nations
company firm
companies firms
beat defeat
defeated beaten
tv television
""")
)

PAST = _pasts("""
was-be became-become began-start bought-buy brought-bring built-build came-come chose-choose
did-do died-die drew-draw drove-drive fell-fall fought-fight found-find gave-give
got-get grew-grow had-have held-hold kept-keep knew-know led-lead left-leave
lost-lose made-make meant-mean met-meet paid-pay played-play ran-run rose-rise
said-say sang-sing saw-see sent-send sold-sell spent-spend spoke-speak stood-stand
taught-teach thought-think told-tell took-take understood-understand went-go won-win wore-wear
wrote-write
""")
"""Irregular verbs."""

NOT_PLURALS = _words(
    "arms customs damages economics ethics forces glasses goods manners means minutes news premises quarters remains savings securities"
)
""" "good" is not one of "goods"."""

OTHER_IN_CAPITALS = _words("us it who aids")
"""These words are others in capitals, though not at the beginning."""
