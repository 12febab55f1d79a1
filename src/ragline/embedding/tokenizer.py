"""The model's tokenizer: ids and where in the text they stand."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ragline.chunking.base import TokenSpans
from ragline.errors import CorruptionError, InputError

if TYPE_CHECKING:
    from tokenizers import Encoding
    from tokenizers import Tokenizer as Backend

_PIECE_CHARACTERS = 2000
_CUT = re.compile(r"[ \n]")
# White space that BertNormalizer drops as control characters, which would join the words on both sides. A form feed
# stands between the pages of many texts.
_SEPARATORS = dict.fromkeys((0x0B, 0x0C, 0x1C, 0x1D, 0x1E, 0x1F, 0x85), " ")


class ModelTokenizer:
    """Tokenises as the model was trained to, without truncation and padding. Safe to share between threads.

    Args:
        path: A `tokenizer.json`.
        passage_prompt: What the model wants before each passage. Its tokens count among the special ones before
            the text, so that a chunker leaves room for them.

    Raises:
        CorruptionError: The file cannot be read.
    """

    def __init__(self, path: Path, passage_prompt: str = "") -> None:
        from tokenizers import Tokenizer as Backend

        try:
            content = path.read_text(encoding="utf-8")
            self._backend: Backend = Backend.from_str(content)
            self._sliceable = _cuts_at_white_space(json.loads(content))
        except Exception as error:  # the driver raises bare Exception
            raise CorruptionError(f"{path} is not a tokenizer: {error}", hint="fetch the model again") from error
        # Files on the hub carry the limits of their training.
        self._backend.no_padding()
        self._backend.no_truncation()
        self._special_ids = self.surrounding(passage_prompt)

    @property
    def special_ids(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The ids before a passage ([CLS] and the model's prompt, if any) and after it ([SEP])."""
        return self._special_ids

    @property
    def sliceable(self) -> bool:
        """True for WordPiece over words as BERT splits them: then no token depends on what is beyond white space."""
        return self._sliceable

    def surrounding(self, prompt: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The ids before and after a text that is put behind `prompt`."""
        encoding = self._backend.encode("a", add_special_tokens=True)
        special = encoding.special_tokens_mask
        first = special.index(0)
        last = len(special) - special[::-1].index(0)
        return (*encoding.ids[:first], *self.ids(prompt)), tuple(encoding.ids[last:])

    def ids(self, text: str) -> list[int]:
        """The ids of a text, without special ones."""
        return [i for _, encoding in self._encode(text) for i in encoding.ids]

    def spans(self, texts: Sequence[str]) -> Sequence[TokenSpans]:
        """The tokens of each text, without special ones; offsets are code points.

        Raises:
            InputError: A text holds lone surrogates.
        """
        return [self._spans(text) for text in texts]

    def _spans(self, text: str) -> TokenSpans:
        ids: list[int] = []
        offsets = [np.empty((0, 2), np.int64)]
        for start, encoding in self._encode(text):
            ids += encoding.ids
            flat = np.fromiter(chain.from_iterable(encoding.offsets), np.int64, 2 * len(encoding))
            offsets.append(flat.reshape(-1, 2) + start)
        starts, ends = np.ascontiguousarray(np.concatenate(offsets).T)
        return TokenSpans(np.array(ids, np.int32), starts, ends)

    def _encode(self, text: str) -> Iterator[tuple[int, Encoding]]:
        """Pieces of the text, tokenised, with where they start.

        `encode` holds the interpreter's lock and an encoding takes some 200 bytes a token, so a long text is cut at
        white space where that changes nothing. (`encode_batch` would start a pool of threads of its own.)
        """
        if self._sliceable:
            text = text.translate(_SEPARATORS)
        start = 0
        while start < len(text):
            cut = _CUT.search(text, start + _PIECE_CHARACTERS) if self._sliceable else None
            end = cut.start() if cut else len(text)
            try:
                yield start, self._backend.encode(text[start:end], add_special_tokens=False)
            except TypeError as error:
                raise InputError(
                    "the text holds lone surrogates, which are not characters", hint="decode its bytes as what they are"
                ) from error
            start = end


def _cuts_at_white_space(tokenizer: dict[str, Any]) -> bool:
    normalizer = (tokenizer.get("normalizer") or {}).get("type", "BertNormalizer")
    return (
        tokenizer["model"].get("type") == "WordPiece"
        and (tokenizer.get("pre_tokenizer") or {}).get("type") == "BertPreTokenizer"
        and normalizer == "BertNormalizer"
        and not any(character.isspace() for token in tokenizer.get("added_tokens") or () for character in token["content"])
    )
