"""Which words of a passage bear out what an answer says? Kernels: by shared words alone, as cheap as that."""

from __future__ import annotations

import re

import numpy as np

from ragline.chunking.sentences import sentence_spans
from ragline.generation import terms

_CLEAR = 0.3
"""A sentence of the passage that holds a smaller share of the cited sentence's words does not bear it out by itself."""

_ADDS = 0.15
"""A neighbour is quoted along that holds so large a further share of them,"""

_MOST = 3
"""up to so many sentences."""

_SAID = 1000
"""How far back the cited sentence may begin, in characters."""

_MARKER = re.compile(r"\[\d+\]")


def cited_sentence(answer: str) -> str:
    """The sentence that a marker at the end of this text stands for, without other markers."""
    said = _MARKER.sub("", answer[-_SAID:])
    spans = sentence_spans(said)
    return said[slice(*spans[-1])] if spans else ""


def supporting_span(sentence: str, passage: str) -> tuple[int, int]:
    """Where in a passage stands what best bears out a sentence: one to three sentences; all of it where that is unclear.

    Returns:
        `(start, end)` code points of the passage.
    """
    whole = (0, len(passage))
    spans = sentence_spans(passage)
    words = list(dict.fromkeys(terms.words(sentence)))
    if not words or len(spans) < 2:
        return whole
    held = terms.hits(words, [terms.words(passage[start:end]) for start, end in spans])
    weights = terms.weights(words, held)
    weights /= weights.sum()
    shares = held @ weights
    first = last = int(np.argmax(shares))
    if shares[first] < _CLEAR:
        return whole
    covered = held[first].copy()
    while last - first + 1 < _MOST:
        neighbours = [place for place in (first - 1, last + 1) if 0 <= place < len(spans)]
        gains = [float(weights[held[place] & ~covered].sum()) for place in neighbours]
        if not gains or max(gains) < _ADDS:
            break
        best = neighbours[int(np.argmax(gains))]
        first, last = min(first, best), max(last, best)
        covered |= held[best]
    return spans[first][0], spans[last][1]
