"""An embedder for tests that need no model: texts that share content words are near, the rest are far."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

from ragline.chunking.base import TokenSpans
from ragline.errors import InputError
from ragline.types import Chunk, Float32

_WORD = re.compile(r"\w+|[^\w\s]")
_BEFORE, _AFTER = 1, 2  # the special ids
_FIRST_WORD = 1000  # ids below are special or punctuation


@lru_cache(maxsize=100_000)
def _token_id(token: str) -> int:
    digest = int.from_bytes(hashlib.blake2b(token.casefold().encode("utf-8", "surrogatepass"), digest_size=4).digest(), "big")
    if token[0].isalnum() or token[0] == "_":
        return _FIRST_WORD + digest % (2**31 - _FIRST_WORD)
    return 3 + digest % (_FIRST_WORD - 3)


_STOP_WORDS = """a an and are as at be by can do does for from had has have how i in is it its of on or that the this to was we
were what when where which who why will with you"""
_STOP_IDS = frozenset(map(_token_id, _WORD.findall(_STOP_WORDS)))


@lru_cache(maxsize=100_000)
def _direction(token_id: int, dimension: int) -> Float32:
    weight = 1.0 if token_id >= _FIRST_WORD and token_id not in _STOP_IDS else 0.02
    direction = np.random.default_rng(token_id).standard_normal(dimension)
    return (weight * direction / np.linalg.norm(direction)).astype(np.float32)


class WordTokenizer:
    """Words and single signs are tokens; the rest is white space."""

    special_ids = ((_BEFORE,), (_AFTER,))
    sliceable = True

    def spans(self, texts: Sequence[str]) -> Sequence[TokenSpans]:
        found = [list(_WORD.finditer(text)) for text in texts]
        return [
            TokenSpans(
                np.array([_token_id(match[0]) for match in matches], np.int32),
                np.array([match.start() for match in matches], np.int64),
                np.array([match.end() for match in matches], np.int64),
            )
            for matches in found
        ]


class HashEmbedder:
    """The whole `Embedder` seam without a model: unit vectors that depend on nothing but the token ids.

    Attributes:
        embedded: How many passages were embedded, to prove that none was embedded twice.
    """

    is_local = True

    def __init__(self, dimension: int = 64, *, max_tokens: int = 256, name: str = "hash") -> None:
        self.name = name
        self.dimension = dimension
        self.max_tokens = max_tokens
        self.tokenizer = WordTokenizer()
        self.embedded = 0

    @property
    def fingerprint(self) -> str:
        return f"{self.name}:{self.dimension}:{self.max_tokens}"

    @property
    def description(self) -> Mapping[str, str]:
        return {"model": self.name, "dimension": str(self.dimension), "max_tokens": str(self.max_tokens)}

    async def embed_passages(self, chunks: Sequence[Chunk]) -> Float32:
        rows = [chunk.token_ids if chunk.token_ids is not None else self._ids(chunk.passage) for chunk in chunks]
        for ids in rows:
            if len(ids) > self.max_tokens:
                raise InputError(f"a chunk of {len(ids)} tokens is longer than the window of {self.max_tokens}")
        self.embedded += len(chunks)
        return self._embed(rows)

    async def embed_questions(self, questions: Sequence[str]) -> Float32:
        return self._embed([(*ids[:-1][: self.max_tokens - 1], _AFTER) for ids in map(self._ids, questions)])

    async def close(self) -> None:
        pass

    def _ids(self, text: str) -> tuple[int, ...]:
        return (_BEFORE, *self.tokenizer.spans([text])[0].ids.tolist(), _AFTER)

    def _embed(self, rows: Sequence[Sequence[int]]) -> Float32:
        vectors = np.empty((len(rows), self.dimension), np.float32)
        for vector, ids in zip(vectors, rows, strict=True):
            # Repeats count less and less, so that one word cannot drown the others. The special ids keep an empty text off zero.
            unique, counts = np.unique(np.asarray(ids, np.int64), return_counts=True)
            vector[:] = np.sqrt(counts).astype(np.float32) @ np.stack([_direction(int(i), self.dimension) for i in unique])
            vector /= np.linalg.norm(vector)
        return vectors
