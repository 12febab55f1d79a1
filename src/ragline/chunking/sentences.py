"""Where do sentences begin and end? Rules for European languages and for Chinese and Japanese."""

from __future__ import annotations

import re

_CLOSERS = "\"'\u2019\u201d\u00bb\u203a)\\]}*_"
_WIDE_CLOSERS = "\u300d\u300f\u201d\u2019\uff09\u3011\u300b\u3009)\\]"

_BREAK = re.compile(
    # A mark that ends a sentence, what closes with it, footnote marks such as [3], then white space. The look-behind keeps
    # a long run of marks linear.
    rf"(?<![.!?\u2026])(?P<mark>[.!?\u2026\u203d\u061f\u06d4\u0964\u0965\u1362\uff0e]++)(?:\[\d{{1,3}}\]|[{_CLOSERS}])*+(?=\s|$)"
    # Chinese and Japanese marks need no white space after them.
    rf"|[\u3002\uff01\uff1f\uff61]++[{_WIDE_CLOSERS}]*+"
    # A heading, a table row or a fence is a line of its own; comments of several lines are none.
    r"|(?m:^)[^\S\n]*+(?:(?P<marks>\#{1,6})\s[^\n]*+\n(?![^\S\n]*+(?P=marks)\s)|(?:\||```|~~~)[^\n]*+\n)"
    # A blank line, or a new line that begins a list item, a table row, a heading, a fence or a quotation.
    r"|\n(?=[^\S\n]*+(?:\n|[-*+\u2022\u25e6\u2013\u2014]\s|\(?[a-z][)]\s|\||(?P<heading>\#{1,6})\s|```|~~~|>\s))"
    # A number of a list, or a line of the form "name: value", which stands for itself; not where a line of prose was wrapped.
    r"|\n(?=[^\S\n]*+\(?(?P<number>\d{1,3})[.)]\s)"
    r"|\n(?=(?P<record>[^\W\d][\w ./-]{0,39}:\s))"
)
_RECORD = re.compile(r"[^\W\d][\w ./-]{0,39}:\s")
_ENDS_LINE = re.compile(rf"[.!?\u2026:;|][{_CLOSERS}]*$")

PROSE_LINE_CHARACTERS = 50
"""Lines of prose are wrapped at 60 characters or more; where most are shorter, they are rows of a table."""

_LIST_CHARACTERS = 2000
"""Within so many characters before an item of a list, the item before it begins."""

_OPENERS = "([{\"'\u2019\u201c\u2018\u00ab\u201e*_"
_NEXT = re.compile(r"[\s(\[{\"'\u201c\u2018\u00ab\u2039\u201e*_\u00bf\u00a1]*([^\s.,;:!?)\]]*)")
_LIST_NUMBER = re.compile(r"\(?(?:\d{1,3}|[ivxlc]{1,5}|[A-Za-z])")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Never the end of a sentence: a name or a figure follows.
_TITLES = _words(
    "dr mr mrs ms mme mlle mgr prof st ste sr sra srta dott dipl ing hr fr frl gen col lt sgt capt cmdr adm gov pres rev hon sen"
    " rep messrs vs cf viz resp ca bzw vgl sog evtl ggf insb inkl exkl zzgl abzgl bspw approx ca e.g i.e z.b d.h u.a o.ä s.o s.u"
    " p.ex c.-à-d p.ej i.d.r m.e n.b q.v a.k.a"
)
# Not the end of a sentence where a number, a numeral or a single letter follows.
_BEFORE_NUMBERS = _words(
    "no nos nr nrn núm num fig figs abb tab eq eqs sec sect ch chap kap art arts abs ziff vol vols bd p pp pg s ss para pt ed ex"
    " ref refs app appx ver v l ll n op chr min max sch"
)
# Sometimes the end of a sentence: it ends where a usual first word follows.
_SHORTENED = _words(
    "etc inc ltd co corp llc plc bros jr sr esq al usw dgl ag gmbh bzgl dept univ assn ave blvd rd jan feb mar apr jun jul aug sep"
    " sept oct nov dec mon tue wed thu fri sat sun a.m p.m ph.d u.s u.k u.n e.u u.s.a b.c a.d d.c m.d b.a m.a b.sc m.sc ft in lb oz"
    " mt"
)
_FIRST_WORDS = _words(
    "the a an this that these those it its he she we they you i there here in on at for from to by with as if when while after"
    " before since but and or so yet however thus therefore hence moreover also although because what why how who where which his"
    " her our their my no not all some many most each both another other such one der die das ein eine es er sie wir ihr ich und"
    " aber oder doch wenn als weil im am bei mit nach le la les un une il elle nous vous je et mais ou el los las una yo pero y si"
    " lo gli uno"
)
_MONTHS = _words(
    "januar jänner februar märz april mai juni juli august september oktober november dezember jahrhundert jahrhunderts jh januari"
    " februari maart mei augustus oktober december"
)


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Finds the sentences of a text.

    Returns:
        `(start, end)` code points of each, in order, without white space around them; together they hold every
        character that is not white space. Blank lines, list items, table rows and headings end a sentence as
        well; a single line break inside a paragraph does not. Linear in the length of the text.

    Not promised: that abbreviations which the rules do not list are seen as such.
    """
    spans: list[tuple[int, int]] = []
    start = 0
    for match in _BREAK.finditer(text):
        if match["mark"] is not None and not _ends_sentence(text, start, match):
            continue
        if (match["number"] or match["record"] or match["heading"]) and _is_wrapped(text, match):
            continue
        _append(spans, text, start, match.end())
        start = match.end()
    _append(spans, text, start, len(text))
    return spans


def _append(spans: list[tuple[int, int]], text: str, start: int, end: int) -> None:
    piece = text[start:end]
    left = len(piece) - len(piece.lstrip())
    if left < len(piece):
        spans.append((start + left, start + len(piece.rstrip())))


def _ends_sentence(text: str, start: int, match: re.Match[str]) -> bool:
    """Whether the mark that `match` found ends the sentence that began at `start`."""
    following = _NEXT.match(text, match.end())
    next_word = following[1] if following else ""
    if next_word[:1].islower():
        # "Really?" he said; e.g. this. A new paragraph begins anew all the same: the blank line is matched later.
        return False
    if match["mark"] != ".":
        return True
    at = match.start()
    if _begins_item(text, start, at):
        return False
    # 40 characters hold every abbreviation; a longer word is none.
    before = text[max(start, at - 40) : at].rsplit(None, 1)
    return not (before and _is_abbreviation(before[-1].lstrip(_OPENERS), next_word))


def _is_wrapped(text: str, match: re.Match[str]) -> bool:
    """Whether a line of prose, or a comment, goes on behind the line break that `match` found, though what follows looks like an item."""
    at = match.start()
    line = text[text.rfind("\n", 0, at) + 1 : at].strip()
    if match["heading"]:
        return line.startswith((match["heading"] + " ", match["heading"] + "\t"))
    if len(line) < PROSE_LINE_CHARACTERS or _ENDS_LINE.search(line):
        return False
    if match["record"]:
        return _RECORD.match(line) is None
    number = int(match["number"])
    before = re.compile(rf"^[^\S\n]*+\(?0*{number - 1}[.)]\s", re.MULTILINE)
    return number > 1 and before.search(text, max(0, at - _LIST_CHARACTERS), at) is None


def _begins_item(text: str, start: int, at: int) -> bool:
    """Whether all that stands before the full stop is the number of a list item: "3." or "a."."""
    return at - start < 24 and _LIST_NUMBER.fullmatch(text[start:at].strip()) is not None


def _is_abbreviation(word: str, next_word: str) -> bool:
    lower = word.lower()
    if lower in _TITLES:
        return True
    first = next_word.lower() in _FIRST_WORDS and len(next_word) > 1
    if lower in _BEFORE_NUMBERS:
        return next_word[:1].isdigit() or len(next_word) == 1 or (len(next_word) < 6 and set(next_word) <= set("IVXLC"))
    if lower in _SHORTENED or (len(word) > 2 and all(len(part) == 1 and part.isalpha() for part in word.split("."))):
        return bool(next_word) and not first and lower != "etc"
    if len(word) == 1 and word.isalpha():
        # An initial (J. Smith), or an abbreviation written apart (z. B.).
        return bool(next_word) and not first if word.isupper() else len(next_word) == 1
    return word.isdigit() and len(word) <= 2 and next_word.lower() in _MONTHS  # am 3. Oktober
