"""What does it mean? The seam between the engine and embedding models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from ragline.chunking.base import Tokenizer
from ragline.types import Chunk, Float32


class Embedder(Protocol):
    """Turns texts into unit vectors. Safe to use from many tasks."""

    is_local: bool

    @property
    def name(self) -> str:
        """What the user calls the model, for example "sentence-transformers/all-MiniLM-L6-v2"."""
        ...

    @property
    def fingerprint(self) -> str:
        """Two embedders with one fingerprint give comparable vectors: model, weights' hash, precision, pooling,
        prefixes, window. Part of the key of every stored vector.
        """
        ...

    @property
    def description(self) -> Mapping[str, str]:
        """How to open the same embedder again (`model`, `precision`, ...), as plain strings for people and the store."""
        ...

    @property
    def dimension(self) -> int:
        """The length of a vector."""
        ...

    @property
    def max_tokens(self) -> int:
        """The longest input in tokens, special tokens included."""
        ...

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the model, for the chunker."""
        ...

    async def embed_passages(self, chunks: Sequence[Chunk]) -> Float32:
        """Embeds `Chunk.passage` of each (through `token_ids` where given): `(n, dimension)`, unit length, in order.

        Runs at low priority, spread over the cores. Does not truncate: the chunker keeps chunks within the window.
        """
        ...

    async def embed_questions(self, questions: Sequence[str]) -> Float32:
        """Embeds questions: `(n, dimension)`, unit length, in order. A question longer than the window is cut to it.

        Called on a worker thread (through `concurrency.drive`) it finishes without suspending where `is_local`.
        """
        ...

    async def close(self) -> None:
        """Lets go of threads and memory. Twice is harmless."""
        ...
