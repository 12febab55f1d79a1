"""Where can a piece of text be cut, and how well?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ragline.chunking.sentences import sentence_spans
from ragline.types import Int64

CHARS_PER_TOKEN = 16
"""A token (or what stands between two) of more characters counts as several: endless words and blank space are bounded too."""

WORD, LINE, SENTENCE, INDENTED_PARAGRAPH, PARAGRAPH = 1, 2, 3, 4, 5

_PARAGRAPH_GAP = re.compile(r"\n[^\S\n]*+\n\s*+")
# The white space at which every tokenizer that calls itself sliceable parts words. Others (U+001C, U+0085) are white
# space to Python and dropped without a trace by BERT's normaliser.
SPACES = " \t\n\r\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
_SPACE_CODES = np.array([ord(char) for char in SPACES], np.uint32)


@dataclass(frozen=True, slots=True)
class Cuts:
    """The places at which a span can be cut.

    Attributes:
        positions: `(n + 1,)` int64 code points, ascending: the starts of `n` units of a token each, and the end.
        strengths: `(n,)` int8: how good a cut before each unit is, from 0 (inside a word) to `PARAGRAPH`.
    """

    positions: Int64
    strengths: NDArray[np.int8]


def unit_starts(token_starts: Int64, start: int, end: int) -> Int64:
    """Where the units of `start:end` begin: at its tokens, and within long ones every `CHARS_PER_TOKEN` characters."""
    first, last = np.searchsorted(token_starts, (start, end))
    starts = token_starts[first:last]
    if not len(starts) or starts[0] > start:
        starts = np.concatenate(([start], starts))
    counts = np.maximum(1, -(-np.diff(starts, append=end) // CHARS_PER_TOKEN))
    units = np.repeat(starts, counts)
    within = np.arange(len(units)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.unique(units + within * CHARS_PER_TOKEN)


def find_cuts(text: str, starts: Int64, end: int, unwanted: Sequence[int] = ()) -> Cuts:
    """How good a cut is before each of the units that begin at `starts` and go on to `end`.

    At the places of `unwanted` (and so at the next unit) it is no better than inside a word.
    """
    begin = int(starts[0])
    piece = text[begin:end]
    codes = np.frombuffer(piece.encode("utf-32-le", "surrogatepass"), np.uint32)
    places = starts - begin
    before = codes[np.maximum(places - 1, 0)]
    strengths = np.where(np.isin(before, _SPACE_CODES) | np.isin(codes[places], _SPACE_CODES), WORD, 0).astype(np.int8)
    _strengthen(strengths, places, np.flatnonzero(codes == ord("\n")) + 1, LINE)
    _strengthen(strengths, places, np.array([span[0] for span in sentence_spans(piece)], np.int64), SENTENCE)
    gaps = [match.end() for match in _PARAGRAPH_GAP.finditer(piece)]
    indented = [place for place in gaps if piece[place - 1] in " \t"]
    _strengthen(strengths, places, np.array(indented, np.int64), INDENTED_PARAGRAPH)
    _strengthen(strengths, places, np.array([place for place in gaps if piece[place - 1] == "\n"], np.int64), PARAGRAPH)
    weak = np.searchsorted(places, np.array(unwanted, np.int64) - begin)
    strengths[weak[(weak > 0) & (weak < len(strengths))]] = 0
    return Cuts(np.append(starts, end), strengths)


def _strengthen(strengths: NDArray[np.int8], places: Int64, at: Int64, strength: int) -> None:
    """The first unit at or after each place of `at` is worth a cut of this strength."""
    found = np.searchsorted(places, at)
    found = found[found < len(strengths)]
    strengths[found] = np.maximum(strengths[found], strength)


def choose(cuts: Cuts, capacity: int, overlap: int) -> list[tuple[int, int]]:
    """Parts the units into pieces of at most `capacity`, each beginning with up to `overlap` of the one before.

    Each cut is the best there is in the latter half of what fits, the last of equals. What remains for the last
    two pieces is parted near its middle, so that no crumb is left over.

    Returns:
        The pieces as `(first, last + 1)` units, in order.
    """
    total = len(cuts.strengths)
    pieces = []
    start = done = 0
    while total - start > capacity:
        rest = total - start
        low, high, target = start + (capacity + 1) // 2, start + capacity, start + capacity
        if rest <= 2 * capacity:
            low, high, target = max(total - capacity, start + rest // 4), min(high, total - rest // 4), start + rest // 2
        low = max(low, done + 1)
        high = max(low, high)
        window = cuts.strengths[low : high + 1]
        best = np.flatnonzero(window == window.max()) + low
        cut = int(best[np.argmin(np.abs(best - target))])
        pieces.append((start, cut))
        done, start = cut, _overlap_start(cuts, cut, min(overlap, capacity // 2, cut - start - 1))
    pieces.append((start, total))
    return pieces


def _overlap_start(cuts: Cuts, cut: int, overlap: int) -> int:
    """Where the piece after `cut` begins: at the earliest sentence within `overlap` units before it, else a word."""
    window = cuts.strengths[cut - overlap : cut]
    for least in (SENTENCE, WORD):
        found = np.flatnonzero(window >= least)
        if len(found):
            return cut - overlap + int(found[0])
    return cut
