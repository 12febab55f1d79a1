"""The headlines of an Org text, which stays as it is.

Read here and not by kreuzberg, which drops verses, centred blocks, notes and captions (4.10.4).
"""

from __future__ import annotations

import re
from typing import Any

from .code import Mark
from .lines import lines

_HEADLINE = re.compile(r"(\*++)[ \t]++(?:(?:TODO|DONE)[ \t]++)?(?:\[#[A-Za-z0-9]{1,2}\][ \t]++)?(?=\S)")
_TAGS = re.compile(r":[\w@#%:]++")
_KEYWORD = re.compile(r"#\+(title|subtitle|author|date|language|description|keywords):[ \t]*+(\S.*)", re.IGNORECASE)
_LINK = re.compile(r"\[\[([^\[\]]*)\](?:\[([^\[\]]*)\])?\]")
_EMPHASIS = re.compile(r"(?<![\w/])([*/_=~+])(\S(?:[^*/_=~+]*\S)?)\1(?![\w/])")
_MAX_LEVEL = 12
_MAX_TITLE_CHARS = 1000


def org_headings(text: str) -> list[Mark]:
    """The headlines of an Org text by their stars, without state (TODO, DONE), priority and tags.

    A line that begins with stars is a headline inside blocks as well, as Org has it: text there has a comma before them.
    """
    headings: list[Mark] = []
    for start, line in lines(text):
        if headline := _HEADLINE.match(line):
            title, begin = _untagged(line[headline.end() :]), start + headline.end()
            headings.append((begin, begin + len(title), min(len(headline[1]), _MAX_LEVEL), _plain_title(title)))
    return headings


def org_metadata(text: str) -> dict[str, Any]:
    """What an Org text says of itself above its first headline: `title`, `author`, `date`, `language`, ..."""
    metadata: dict[str, Any] = {}
    for _, line in lines(text):
        if _HEADLINE.match(line):
            break
        if keyword := _KEYWORD.match(line):
            metadata.setdefault(keyword[1].lower(), keyword[2].rstrip())
    return metadata


def _untagged(title: str) -> str:
    title = title.rstrip()
    words = title.rsplit(None, 1)
    return words[0] if len(words) == 2 and words[1][-1] == ":" and _TAGS.fullmatch(words[1]) else title


def _plain_title(title: str) -> str:
    """A title without the marks of links, emphasis and code around its words, and not longer than anyone writes."""
    title = title[:_MAX_TITLE_CHARS]
    words = _EMPHASIS.sub(r"\2", _LINK.sub(lambda link: link[2] or link[1], title))
    return " ".join(words.split()) or title
