"""Pairs of questions, labelled by whether they may share an answer; made by rule from labelled sets, the same each time."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import re
import zlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from ragline.bench.evaluation import LabelledSet

SEED = 20261121
TOPIC_PARAGRAPHS = 5
"""So many paragraphs of XQuAD in a row are of one article: it is never in both halves."""


@dataclass(frozen=True, slots=True)
class QuestionPair:
    """A question that has been answered, and one asked later.

    Attributes:
        share: Whether the answer to the first answers the second.
        kind: How the second came about.
        held_out: It belongs to the half that was set aside before anything was tuned.
    """

    stored: str
    asked: str
    share: bool
    kind: str
    held_out: bool


def passage_pairs(labelled: LabelledSet, same: Iterable[frozenset[str]]) -> list[QuestionPair]:
    """Pairs from questions on passages (XQuAD): each question with what the rules below make of it, and with the others on its passage.

    Args:
        same: Pairs of query ids that were judged to ask the same.
    """
    judged = set(same)
    texts = {document.id or "": document.text for document in labelled.documents}
    place = {id: number for number, id in enumerate(texts)}
    asked_of: dict[str, list[str]] = defaultdict(list)
    pairs: list[QuestionPair] = []
    for id, written in labelled.queries.items():
        passage = next(iter(labelled.qrels[id]))
        asked_of[passage].append(id)
        question = " ".join(written.split())
        held_out = _held_out(str(place[passage] // TOPIC_PARAGRAPHS))
        draw = random.Random(f"{SEED} {id}")
        for share, rules in ((True, PARAPHRASES), (False, NEAR_MISSES)):
            for kind, rule in rules.items():
                variant = rule(question, texts[passage], draw)
                if variant is not None and variant != question:
                    pairs.append(QuestionPair(question, variant, share, kind, held_out))
    for passage, ids in asked_of.items():
        held_out = _held_out(str(place[passage] // TOPIC_PARAGRAPHS))
        for one, other in combinations(ids, 2):
            stored, asked = (" ".join(labelled.queries[id].split()) for id in (one, other))
            if not only_typed_otherwise(stored, asked):
                share = frozenset((one, other)) in judged
                pairs.append(QuestionPair(stored, asked, share, "other words" if share else "same passage", held_out))
    return pairs


def labelled_pairs(file: Path, same: Collection[str]) -> list[QuestionPair]:
    """Pairs that people labelled (`pairs.jsonl.gz`), without those that differ in case and punctuation alone.

    No question is in both halves, nor one that a chain of pairs leads to from it.

    Args:
        same: `pair_key` of pairs that were labelled as different and judged to ask the same.
    """
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    texts = [(" ".join(row["text_a"].split()), " ".join(row["text_b"].split()), row["label"] == 1) for row in rows]
    root = _roots((one, other) for one, other, _ in texts)
    return [
        QuestionPair(one, other, label or pair_key(one, other) in same, "labelled", _held_out(root[one]))
        for one, other, label in texts
        if not only_typed_otherwise(one, other)
    ]


def pair_key(one: str, other: str) -> str:
    """What a pair of questions is known by where their text is not to be kept."""
    return hashlib.sha256("\n".join(sorted((one, other))).encode()).hexdigest()[:16]


def only_typed_otherwise(one: str, other: str) -> bool:
    """Whether two questions differ in case, punctuation and white space alone: no test of meaning."""
    return re.findall(r"\w+", one.casefold()) == re.findall(r"\w+", other.casefold())


def _held_out(group: str) -> bool:
    return zlib.crc32(f"{SEED} {group}".encode()) % 2 == 1


def _roots(edges: Iterable[tuple[str, str]]) -> dict[str, str]:
    """For each question the one that stands for all that are linked with it."""
    parent: dict[str, str] = {}

    def find(text: str) -> str:
        while parent.setdefault(text, text) != text:
            parent[text] = parent[parent[text]]
            text = parent[text]
        return text

    for one, other in edges:
        a, b = sorted((find(one), find(other)))
        parent[b] = a
    return {text: find(text) for text in list(parent)}


Rule = Callable[[str, str, random.Random], "str | None"]
"""Makes another question of a question and its passage; None where it does not apply."""

_COURTESIES = ("Can you tell me: {}", "Please tell me: {}", "Hi, {}", "{} Thanks!", "Hello! {}", "{} Please.", "I would like to know: {}")


def _pairs(text: str) -> dict[str, str]:
    return {one: other for pair in text.split() for one, _, other in [pair.partition("=")]}


def _both_ways(text: str) -> dict[str, str]:
    there = _pairs(text)
    return there | {other: one for one, other in there.items()}


_SYNONYMS = _pairs("""
    located=situated biggest=largest big=large film=movie kids=children started=began begin=start began=started start=begin finished=ended
    buy=purchase type=kind kind=type types=kinds died=passed_away happened=occurred occurred=happened happen=occur occur=happen called=named
    named=called help=assist main=primary primary=main built=constructed constructed=built defeated=beat beat=defeated country=nation
    nation=country countries=nations nations=countries area=region region=area created=made established=founded founded=established
    important=significant significant=important approximately=roughly famous=well-known obtain=get received=got largest=biggest
    large=big children=kids required=needed needed=required uses=employs used=employed job=occupation
    wrote=authored shows=displays choose=select chose=selected attempt=try tried=attempted become=turn_into
    """)
_OPPOSITES = _both_ways("""
    first=last largest=smallest most=least before=after highest=lowest north=south east=west northern=southern eastern=western more=less
    increase=decrease early=late oldest=youngest minimum=maximum start=end began=ended biggest=smallest public=private male=female
    positive=negative won=lost inside=outside above=below new=old high=low modern=ancient common=rare
    """)
_NUMBER_WORDS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_OTHER_WH = (
    (r"^When (did|was|were|is|does|do)\b", ("Where", "Why", "How")),
    (r"^Where (did|was|were|is|does|do)\b", ("When", "Why")),
    (r"^Why (did|was|were|is|does|do)\b", ("When", "How")),
    (r"^How (did|was|were|is|does|do)\b", ("Why", "When")),
    (r"^In what year\b", ("In what city", "In what country")),
    (r"^(?:What|Which) year\b", ("What month", "Which city")),
    (r"^How many\b", ("Which", "How few")),
    (r"^Who (?=\w+ed\b)", ("What ", "Which ")),
    (r"^What is\b", ("Who is", "Where is", "Why is")),
    (r"^What was\b", ("Who was", "Where was", "When was")),
)
_NAME = re.compile(r"(?<=[a-z,;] )[A-Z][\w'-]+(?: [A-Z][\w'-]+)*")
_AUXILIARY = re.compile(r"\b(did|does|do|is|are|was|were|can|could|will|would|should|has|have|had)\b")


def _courtesy(question: str, passage: str, draw: random.Random) -> str:
    return draw.choice(_COURTESIES).format(question)


def _embedded(question: str, passage: str, draw: random.Random) -> str | None:
    """As part of another sentence ("Do you know who won?"), only where the order of words stays."""
    found = re.match(r"(Who|What|Which|How many) (?!is\b|was\b|are\b|were\b|did\b|do\b|does\b|has\b|had\b)(?:\w+ )*?\w+", question)
    if found is None or _AUXILIARY.search(question):
        return None
    opening = draw.choice(("Do you know", "Could you tell me", "I want to know"))
    return f"{opening} {question[0].lower()}{question[1:]}"


def _typed(question: str, passage: str, draw: random.Random) -> str | None:
    """As typed in haste: no capitals, no mark at the end, one of the articles left out."""
    bare = question.rstrip(" ?.!").lower()
    return re.sub(r"(?<=\w) the (?=\w)", " ", bare, count=1)


def _contracted(question: str, passage: str, draw: random.Random) -> str | None:
    short = re.sub(r"^(What|Who|Where|How|When) is (?=\w+ )", r"\1's ", question)
    short = re.sub(r"\b(did|do|does|is|was|are|were|could|would|should) not\b", r"\1n't", short)
    long = re.sub(r"\b(did|do|does|is|was|are|were|could|would|should)n't\b", r"\1 not", short)
    return short if short != question else long


def _which(question: str, passage: str, draw: random.Random) -> str | None:
    if re.match(r"(In )?[Ww]hich \w", question):
        return re.sub(r"^(In )?[Ww]hich", lambda found: f"{found[1]}what" if found[1] else "What", question)
    return re.sub(
        r"^(In )?[Ww]hat (?=year|type|kind|city|country|team|company|group|person)",
        lambda f: f"{f[1]}which " if f[1] else "Which ",
        question,
    )


def _moved(question: str, passage: str, draw: random.Random) -> str | None:
    """With its last phrase first ("In 1990, what happened?"), and the other way round."""
    bare = question.rstrip(" ?")
    if found := re.fullmatch(r"(In|During|After|Before|At|On) ((?:\w+ ){0,5}\w+), (\w.*)", bare):
        return f"{found[3][0].upper()}{found[3][1:]} {found[1].lower()} {found[2]}?"
    if found := re.fullmatch(r"((?:Who|What|Where|Why|How) .{8,}) (in|during|after|before) ((?:the )?(?:\w+ ){0,1}\w+)", bare):
        return f"{found[2].capitalize()} {found[3]}, {found[1][0].lower()}{found[1][1:]}?"
    return None


def _synonym(question: str, passage: str, draw: random.Random) -> str | None:
    held = [word for word in re.findall(r"\b[a-z]+\b", question) if word in _SYNONYMS]
    if not held:
        return None
    word = draw.choice(held)
    return re.sub(rf"\b{word}\b", _SYNONYMS[word].replace("_", " "), question, count=1)


def _genitive(question: str, passage: str, draw: random.Random) -> str | None:
    """With "France's capital" for "the capital of France", and the other way round."""
    changed = re.sub(r"\bthe ([a-z]+) of (?:the )?([A-Z]\w+(?: [A-Z]\w+)*)(?=\?$)", r"\2's \1", question, count=1)
    return changed if changed != question else re.sub(r"\b([A-Z]\w+(?: [A-Z]\w+)*)'s ([a-z]+)(?=\?$)", r"the \2 of \1", question, count=1)


def _figures(question: str, passage: str, draw: random.Random) -> str | None:
    """Numbers in the other way of writing."""
    if found := re.search(r"\b\d{1,3}(?:,\d{3})+\b", question):
        return question.replace(found[0], found[0].replace(",", ""))
    for number, word in enumerate(_NUMBER_WORDS, start=2):
        changed = re.sub(rf"\b{word}\b", str(number), question)
        changed = changed if changed != question else re.sub(rf"(?<![\d.,:])\b{number}\b(?![\d.,:%])", word, question)
        if changed != question:
            return changed
    return None


def _slip(question: str, passage: str, draw: random.Random) -> str | None:
    """Two letters of a long word in the wrong order."""
    words = [found for found in re.finditer(r"\b[a-z]{7,}\b", question)]
    if not words:
        return None
    word = draw.choice(words)
    at = word.start() + draw.randrange(2, 5)
    return f"{question[:at]}{question[at + 1]}{question[at]}{question[at + 2 :]}"


def _number_changed(question: str, passage: str, draw: random.Random) -> str | None:
    numbers = list(re.finditer(r"\d+", question))
    if numbers:
        found = draw.choice(numbers)
        return f"{question[: found.start()]}{int(found[0]) + draw.choice((1, 2, 10))}{question[found.end() :]}"
    for word in _NUMBER_WORDS:
        if re.search(rf"\b{word}\b", question):
            return re.sub(rf"\b{word}\b", draw.choice([other for other in _NUMBER_WORDS if other != word]), question)
    return None


def _name_changed(question: str, passage: str, draw: random.Random) -> str | None:
    own = _NAME.findall(question)
    others = sorted({name for name in _NAME.findall(passage) if not set(name.split()) & set(question.split())})
    if not own or not others:
        return None
    return question.replace(draw.choice(own), draw.choice(others), 1)


def _negated(question: str, passage: str, draw: random.Random) -> str | None:
    if re.search(r"\bnot\b|n't\b", question):
        return re.sub(r" not\b|n't\b", "", question, count=1)
    return _AUXILIARY.sub(r"\1 not", question, count=1)


def _other_wh(question: str, passage: str, draw: random.Random) -> str | None:
    for pattern, others in _OTHER_WH:
        if found := re.match(pattern, question):
            kept = f" {found[1]}" if found.re.groups else ""
            return f"{draw.choice(others)}{kept}{question[found.end() :]}"
    return None


def _opposite(question: str, passage: str, draw: random.Random) -> str | None:
    held = [word for word in re.findall(r"\b[a-z]+\b", question) if word in _OPPOSITES]
    if not held:
        return None
    word = draw.choice(held)
    return re.sub(rf"\b{word}\b", _OPPOSITES[word], question, count=1)


def _swapped(question: str, passage: str, draw: random.Random) -> str | None:
    """Two names in each other's place."""
    found = list(_NAME.finditer(question))
    if len(found) < 2 or re.search(r"\b(and|or|between)\b", question):
        return None
    one, other = found[0], found[1]
    return f"{question[: one.start()]}{other[0]}{question[one.end() : other.start()]}{one[0]}{question[other.end() :]}"


PARAPHRASES: Mapping[str, Rule] = {
    "courtesy": _courtesy,
    "embedded": _embedded,
    "typed in haste": _typed,
    "contraction": _contracted,
    "which or what": _which,
    "phrase moved": _moved,
    "synonym": _synonym,
    "genitive": _genitive,
    "figures": _figures,
    "slip of the pen": _slip,
}
NEAR_MISSES: Mapping[str, Rule] = {
    "other number": _number_changed,
    "other name": _name_changed,
    "names swapped": _swapped,
    "negated": _negated,
    "other wh-word": _other_wh,
    "opposite": _opposite,
}
