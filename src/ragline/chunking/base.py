"""Where may a text be cut? What the chunker needs of a tokenizer, which is handed in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class TokenSpans:
    """The tokens of one text, without special tokens.

    Attributes:
        ids: `(n,)` int32.
        starts, ends: `(n,)` int64, code points of the text; `text[starts[i]:ends[i]]` is token i.
    """

    ids: NDArray[np.int32]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]


class Tokenizer(Protocol):
    """Counts and finds tokens as the embedding model does."""

    @property
    def special_ids(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The ids before and after a text, such as ([CLS],) and ([SEP],)."""
        ...

    @property
    def sliceable(self) -> bool:
        """Whether the tokens of a piece cut at white space equal a slice of the whole text's tokens."""
        ...

    def spans(self, texts: Sequence[str]) -> Sequence[TokenSpans]:
        """Tokenises whole texts: no truncation, no padding, no special tokens."""
        ...
