"""How passages and questions become the terms of the lexical view: the same way for both.

`normalised` rewrites in Python what tantivy's tokenizer would lose; the `TextAnalyzer` does the rest in Rust. A text
that needs no rewriting (ASCII, no identifiers) costs a third of a microsecond.
"""

from __future__ import annotations

import re
import unicodedata

from tantivy import Filter, TextAnalyzer, TextAnalyzerBuilder, Tokenizer

from ragline.errors import SettingsError

_STOPPED_AND_STEMMED = {
    *("danish", "dutch", "english", "finnish", "french", "german", "hungarian"),
    *("italian", "norwegian", "portuguese", "russian", "spanish", "swedish"),
}
_STEMMED = {"arabic", "greek", "romanian", "tamil", "turkish"}
LANGUAGES = (*sorted(_STOPPED_AND_STEMMED | _STEMMED), "none")

MAX_TERM_BYTES = 256
"""Longer runs of letters and digits (encoded data) are not indexed; a SHA-512 in hex, 128 bytes, is."""

_JOINT = "\ua78f"
"""A letter that no text uses (Latin letter sinological dot), so that a joined identifier stays one token."""

PADDING_TERM = _JOINT
PADDING_TERMS = 60
"""How often a passage holds `PADDING_TERM` besides its own words: it lowers BM25's `b`, which tantivy fixes at 0.75.

With every length longer by P, the norm 1 - b + b * (length + P) / (mean + P) is that of b' = b * mean / (mean + P):
about 0.4 for passages of 70 words, which suits passages cut to about one length better (docs/decisions/0002-fusion.md).
"""
_PADDING = "\n" + " ".join([PADDING_TERM] * PADDING_TERMS)

_IDENTIFIER = re.compile(r"[^\W_]+(?:(?:\.|__?)[^\W_]+)+")
_ABBREVIATION = re.compile(r"(?:[^\W\d_]+\.)*[^\W\d_](?:\.[^\W\d_]+)*")  # e.g, U.S, Ph.D: rare, they would outweigh better words
_INNER_DOT = re.compile(r"\.\w")
_DROPPED = re.compile("[\u00ad\ud800-\udfff]")  # soft hyphens part words; lone surrogates are not text
_UNSPACED = re.compile(
    "["
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
    "\u3005-\u3007\u3041-\u3096\u30a1-\u30fa\u30fc-\u30fe"  # Japanese
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
    "\uac00-\ud7a3"  # Korean: spaced, but with particles attached to words
    "]+"
)


def text_analyzer(language: str) -> TextAnalyzer:
    """Splits at all but letters and digits, lowercases, drops stop words, stems, folds accents.

    Accents are folded last: the stop words and stemmers of other languages than English expect them.

    Args:
        language: One of `LANGUAGES`. "none" leaves all words as they are; a language without a list of stop
            words is only stemmed.

    Raises:
        SettingsError: There is no such language; the hint lists all.
    """
    if language not in LANGUAGES:
        raise SettingsError(f"index.language is {language!r}, which cannot be analysed", hint=f"use one of: {', '.join(LANGUAGES)}")
    builder = TextAnalyzerBuilder(Tokenizer.simple()).filter(Filter.remove_long(MAX_TERM_BYTES + 1)).filter(Filter.lowercase())
    if language in _STOPPED_AND_STEMMED:
        builder = builder.filter(Filter.stopword(language))
    if language != "none":
        builder = builder.filter(Filter.stemmer(language))
    return builder.filter(Filter.ascii_fold()).build()


def normalised(text: str) -> str:
    """The text as it is handed to the analyzer.

    - Unicode's compatible forms become one (NFKC: full-width letters, ligatures, combined accents).
    - Scripts written without spaces become single characters and overlapping pairs of them: one character
      finds its texts, and a word of two ranks above the same characters apart.
    - Identifiers with inner dots or underscores (`max_batch_tokens`, `3.11`, `os.path`; not `e.g`) are added once
      more as one word, so that the exact one ranks above its parts.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", _DROPPED.sub("", text))
        text = _UNSPACED.sub(_characters_and_pairs, text)
    if "_" in text or _INNER_DOT.search(text):
        joined = " ".join(
            name.replace(".", _JOINT).replace("_", _JOINT)
            for word in text.split()
            if "_" in word or "." in word  # far cheaper than letting the expression look at every word
            for name in _IDENTIFIER.findall(word)
            if not _ABBREVIATION.fullmatch(name)
        )
        if joined:
            text = f"{text}\n{joined}"
    return text


def padded(passage: str) -> str:
    """A passage as it is indexed: normalised, and longer by `PADDING_TERMS`."""
    return normalised(passage) + _PADDING


def _characters_and_pairs(run: re.Match[str]) -> str:
    characters = run.group()
    pairs = (characters[at : at + 2] for at in range(len(characters) - 1))
    return f" {' '.join([*characters, *pairs])} "
