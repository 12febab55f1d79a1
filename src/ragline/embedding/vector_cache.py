"""Vectors that were computed before: in memory, then in the store."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Literal, TypeAlias

import numpy as np

from ragline.caching.base import Cache
from ragline.errors import InputError, RaglineError
from ragline.types import Float16, Float32, Scope

Kind: TypeAlias = Literal["question", "passage"]
KINDS: tuple[Kind, ...] = ("question", "passage")

Stored: TypeAlias = Callable[[Sequence[str]], Awaitable[Sequence[Float16 | Float32 | None]]]
"""The stored vector of each passage, None where there is none."""

log = logging.getLogger("ragline.embedding")


class VectorCache:
    """Vectors as bytes, by a hash of the model's fingerprint, the kind of text and the text.

    Args:
        cache: None keeps nothing.
    """

    def __init__(self, cache: Cache[bytes] | None, *, fingerprint: str, dimension: int, ttl_s: float | None) -> None:
        self._cache = cache
        self._dimension = dimension
        self._ttl_s = ttl_s
        self._begun = {kind: _hash_of("embedding", fingerprint, kind) for kind in KINDS}

    @property
    def items(self) -> int:
        """How many it holds."""
        return self._cache.stats().items if self._cache is not None else 0

    def key(self, text: str, kind: Kind) -> str:
        """The key of a text's vector.

        Raises:
            InputError: It is no text.
        """
        if not isinstance(text, str):
            raise InputError(f"a text to embed is a {type(text).__name__}", hint="give strings")
        hash = self._begun[kind].copy()
        hash.update(text.encode("utf-8", "surrogatepass"))
        return f"embedding/{hash.hexdigest()}"

    async def get(self, scope: Scope, key: str) -> bytes | None:
        """The vector, or None. Suspends only where the cache does."""
        row = await self._cache.get(scope, key) if self._cache is not None else None
        # A tier outside this process may give anything.
        return row if row is not None and len(row) == 4 * self._dimension else None

    async def keep(self, scope: Scope, key: str, row: bytes) -> None:
        """Keeps a vector. Suspends only where the cache does."""
        if self._cache is not None:
            await self._cache.set(scope, key, row, ttl_s=self._ttl_s)

    async def look_up(self, stored: Stored, scope: Scope, passages: Mapping[str, str]) -> dict[str, bytes]:
        """What the store has of these passages by key, kept from now on. A store that fails has none."""
        try:
            vectors = await stored(list(passages.values()))
        except RaglineError as error:
            log.warning("stored vectors could not be looked up: %s", error.message)
            return {}
        found = {key: _unit_bytes(vector) for key, vector in zip(passages, vectors, strict=True) if vector is not None}
        for key, row in found.items():
            await self.keep(scope, key, row)
        return found


def _unit_bytes(vector: Float16 | Float32) -> bytes:
    whole = np.asarray(vector, np.float32)
    # Rounded to 16 bits it was no longer quite of unit length.
    return np.asarray(whole / (float(np.linalg.norm(whole)) or 1.0), np.float32).tobytes()


def _hash_of(*parts: str) -> hashlib.blake2b:
    """A hash of these parts, to be gone on with; no two lists of parts begin alike."""
    hash = hashlib.blake2b(digest_size=16)
    for part in parts:
        whole = part.encode("utf-8", "surrogatepass")
        hash.update(len(whole).to_bytes(8, "big") + whole)
    return hash
