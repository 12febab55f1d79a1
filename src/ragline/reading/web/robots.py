"""What a site asks robots to leave alone: robots.txt, and the marks on its pages.

Source: RFC 9309. `urllib.robotparser` takes the first rule that matches instead of the longest and knows no
wildcards, so it reads today's files wrongly.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ragline.reading.web.urls import Url, normal_escapes

MAX_BYTES = 512 * 1024
LONGEST_DELAY_S = 10.0
_MAX_RULES = 1000
_MAX_PATTERN_CHARS = 2000
_PRODUCT = re.compile(r"\*|[A-Za-z_-]*")


@dataclass(frozen=True, slots=True)
class Robots:
    """The rules for one robot.

    Attributes:
        rules: Pairs of whether and the pattern of paths that it is about.
        delay_s: How long to wait between two requests.
        sitemaps: URLs as the file has them.
        refusal: Why nothing at all may be read; "" where the rules decide.
    """

    rules: tuple[tuple[bool, str], ...] = ()
    delay_s: float = 0.0
    sitemaps: tuple[str, ...] = ()
    refusal: str = ""

    def why_not(self, url: Url) -> str | None:
        """Why a URL of this site must be left alone; None where it may be read. The longest rule decides, then the kinder."""
        if self.refusal:
            return self.refusal
        decisive = max(((len(pattern), allows) for allows, pattern in self.rules if _matches(pattern, url.target)), default=(0, True))
        return None if decisive[1] else "robots.txt asks not to read it"


def parse_robots(text: str, agent: str) -> Robots:
    """The rules of a robots.txt for the robot of this name, else those for all (`*`)."""
    groups: dict[str, list[tuple[bool, str]]] = {}
    delays: dict[str, float] = {}
    sitemaps: list[str] = []
    agents: set[str] = set()  # of the group at hand, those that concern us: there can be more than anyone wants to keep
    in_rules = False
    for key, value in _lines(text):
        if key == "sitemap":
            sitemaps.append(value)
        elif key == "user-agent":
            if in_rules:
                agents, in_rules = set(), False
            concerned = {_product(value)} & {agent, "*"}
            agents |= concerned
            groups.update({name: groups.get(name, []) for name in concerned})
        elif key in ("allow", "disallow"):
            in_rules = True
            for name in agents:
                if value and len(value) <= _MAX_PATTERN_CHARS and len(groups[name]) < _MAX_RULES:
                    groups[name].append((key == "allow", normal_escapes(value)))
        elif key == "crawl-delay":
            in_rules = True
            if re.fullmatch(r"\d{1,6}(\.\d{1,6})?", value, re.ASCII):
                delays.update(dict.fromkeys(agents, min(float(value), LONGEST_DELAY_S)))
    name = agent if agent in groups else "*"
    return Robots(tuple(groups.get(name, ())), delays.get(name, 0.0), tuple(dict.fromkeys(sitemaps)))


def tags(values: Iterable[str], agent: str) -> frozenset[str]:
    """The directives ("noindex", "nofollow") of robots meta tags and X-Robots-Tag headers, for the robot of this name."""
    found: set[str] = set()
    for value in values:
        addressed, colon, rest = value.partition(":")
        if colon and re.fullmatch(r"\s*[A-Za-z_-]+\s*", addressed) and "," not in addressed:
            if addressed.strip().lower() != agent:
                continue
            value = rest
        found.update(part.strip().lower() for part in value.split(","))
    return frozenset(found | ({"noindex", "nofollow"} if "none" in found else set()))


def _product(value: str) -> str:
    """The name that a User-agent line is for, without version, in lower case."""
    product = _PRODUCT.match(value)
    return product[0].lower() if product else ""


def _lines(text: str) -> Iterable[tuple[str, str]]:
    for line in text.removeprefix("\ufeff").splitlines():
        key, colon, value = line.partition("#")[0].partition(":")
        if colon:
            yield key.strip().lower(), value.strip()


def _matches(pattern: str, target: str) -> bool:
    """Whether a target begins as the pattern says: `*` stands for anything, a `$` at its end for the target's end.

    Each piece is taken at its first place, which is enough and cannot go back: a regular expression could be made to.
    """
    anchored = pattern.endswith("$")
    first, *pieces = pattern.removesuffix("$").split("*")
    if not target.startswith(first):
        return False
    place = len(first)
    if anchored and not pieces:
        return place == len(target)
    last = pieces.pop() if anchored else ""
    for piece in pieces:
        place = target.find(piece, place)
        if place < 0:
            return False
        place += len(piece)
    return target.endswith(last) and len(target) - len(last) >= place
