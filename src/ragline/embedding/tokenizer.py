"""The model's tokenizer: ids and where in the text they stand."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

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


class PairSpecials(NamedTuple):
    """The special ids before, between and after the two texts of a pair, such as ([CLS],), ([SEP],), ([SEP],)."""

    before: tuple[int, ...]
    between: tuple[int, ...]
    after: tuple[int, ...]


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
        try:
            content = path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise CorruptionError(f"{path} is not a tokenizer: {error}", hint="fetch the model again") from error
        self._read(content, str(path), passage_prompt)

    @classmethod
    def parse(cls, content: str, name: str, passage_prompt: str = "") -> ModelTokenizer:
        """A tokenizer from the content of a `tokenizer.json`; `name` stands for it in errors."""
        made = cls.__new__(cls)
        made._read(content, name, passage_prompt)
        return made

    def _read(self, content: str, name: str, passage_prompt: str) -> None:
        from tokenizers import Tokenizer as Backend

        try:
            self._backend: Backend = Backend.from_str(content)
            self._sliceable = _cuts_at_white_space(json.loads(content))
        except Exception as error:  # the driver raises bare Exception
            raise CorruptionError(f"{name} is not a tokenizer: {error}", hint="fetch the model again") from error
        # Files on the hub carry the limits of their training.
        self._backend.no_padding()
        self._backend.no_truncation()
        self._around: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {}
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
        if prompt not in self._around:
            self._around[prompt] = self._find_around(prompt)
        return self._around[prompt]

    def _find_around(self, prompt: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        encoding = self._backend.encode("a", add_special_tokens=True)
        special = encoding.special_tokens_mask
        if 0 not in special:
            raise InputError(
                "the model's tokenizer finds no token in the text 'a'", hint="use a model for text, with its own tokenizer.json"
            )
        first = special.index(0)
        last = len(special) - special[::-1].index(0)
        # White space at its end belongs to the text's first token, in tokenizers that keep white space at all.
        return (*encoding.ids[:first], *self.ids(prompt.rstrip())), tuple(encoding.ids[last:])

    def prompted_ids(self, prompt: str, text: str, limit: int | None = None) -> list[int]:
        """The ids of `prompt + text` within their special ones; with a limit, the text is cut to have so many in all.

        Raises:
            InputError: The text holds lone surrogates.
        """
        # A tokenizer that is not sliceable may join the end of the prompt and the start of the text.
        apart = self._sliceable or not prompt
        before, after = self.surrounding(prompt if apart else "")
        ids = self.ids(text if apart else prompt + text)
        return [*before, *(ids if limit is None else ids[: max(0, limit - len(before) - len(after))]), *after]

    def around_pair(self) -> PairSpecials:
        """The special ids around and between the two texts of a pair.

        Raises:
            InputError: The tokenizer does not know how to put two texts together.
        """
        encoding = self._backend.encode("a", "b", add_special_tokens=True)
        # 0 and 1 for the tokens of the texts, None for special ones
        of_text: list[int | None] = encoding.sequence_ids
        if 1 not in of_text or 0 not in of_text:
            raise InputError("the model's tokenizer does not put two texts together", hint="use the tokenizer.json of a cross-encoder")
        first, first_end = of_text.index(0), len(of_text) - of_text[::-1].index(0)
        second, second_end = of_text.index(1), len(of_text) - of_text[::-1].index(1)
        ids = encoding.ids
        return PairSpecials(tuple(ids[:first]), tuple(ids[first_end:second]), tuple(ids[second_end:]))

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


def check_fits(tokens: int, window: int) -> None:
    """Raises InputError for a chunk that is longer than the model's window, or empty even of special tokens."""
    if not 0 < tokens <= window:
        raise InputError(
            f"a chunk of {tokens} tokens does not fit the model's window of {window}",
            hint=f"set chunking.max_tokens to {window} or less",
        )


def _cuts_at_white_space(tokenizer: dict[str, Any]) -> bool:
    normalizer = (tokenizer.get("normalizer") or {}).get("type", "BertNormalizer")
    return (
        tokenizer["model"].get("type") == "WordPiece"
        and (tokenizer.get("pre_tokenizer") or {}).get("type") == "BertPreTokenizer"
        and normalizer == "BertNormalizer"
        and not any(character.isspace() for token in tokenizer.get("added_tokens") or () for character in token["content"])
    )
