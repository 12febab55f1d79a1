"""An embedding server that failed again and again is left alone for a while."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ragline.chunking.base import Tokenizer
from ragline.concurrency.circuit import Circuit, watched
from ragline.embedding.base import Embedder
from ragline.types import Chunk, Float32


class GuardedEmbedder:
    """An `Embedder` on a server, behind a circuit: while that is open, questions fail at once, and searches go by words.

    Passages are sent all the same, for an ingest waits and tries again for as long as it is told to; how it went is noted.

    Args:
        inner: Closed with this one.
    """

    def __init__(self, inner: Embedder, circuit: Circuit) -> None:
        self._inner = inner
        self._circuit = circuit
        self.is_local = inner.is_local

    @property
    def name(self) -> str:
        """The model's."""
        return self._inner.name

    @property
    def fingerprint(self) -> str:
        """That of the embedder within: the vectors are the same."""
        return self._inner.fingerprint

    @property
    def description(self) -> Mapping[str, str]:
        """That of the embedder within."""
        return self._inner.description

    @property
    def dimension(self) -> int:
        """The length of a vector."""
        return self._inner.dimension

    @property
    def max_tokens(self) -> int:
        """The longest input in tokens."""
        return self._inner.max_tokens

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the model."""
        return self._inner.tokenizer

    async def embed_passages(self, chunks: Sequence[Chunk]) -> Float32:
        """As `Embedder.embed_passages`."""
        with watched(self._circuit, asks_anyway=True):
            return await self._inner.embed_passages(chunks)

    async def embed_questions(self, questions: Sequence[str]) -> Float32:
        """As `Embedder.embed_questions`.

        Raises:
            BackendError: Also while the server is left alone.
        """
        with watched(self._circuit):
            return await self._inner.embed_questions(questions)

    async def check(self) -> None:
        """Asks the server itself, whatever the circuit says."""
        check = getattr(self._inner, "check", None)
        if check is not None:
            await check()

    async def close(self) -> None:
        """Closes the embedder within."""
        await self._inner.close()
