"""A rerank server that failed again and again is left alone for a while."""

from __future__ import annotations

from collections.abc import Sequence

from ragline.concurrency.circuit import Circuit, watched
from ragline.retrieval.reranking.base import Reranker
from ragline.types import Float32


class GuardedReranker:
    """A `Reranker` on a server, behind a circuit: while that is open it fails at once, and hits keep their order.

    Args:
        inner: Closed with this one.
    """

    def __init__(self, inner: Reranker, circuit: Circuit) -> None:
        self._inner = inner
        self._circuit = circuit
        self.is_local = inner.is_local

    @property
    def name(self) -> str:
        """The model's."""
        return self._inner.name

    @property
    def fingerprint(self) -> str:
        """That of the reranker within: the scores are the same."""
        return self._inner.fingerprint

    async def rerank(self, question: str, passages: Sequence[str]) -> Float32:
        """As `Reranker.rerank`.

        Raises:
            BackendError: Also while the server is left alone.
        """
        with watched(self._circuit):
            return await self._inner.rerank(question, passages)

    async def check(self) -> None:
        """Asks the server itself, whatever the circuit says."""
        check = getattr(self._inner, "check", None)
        if check is not None:
            await check()

    async def close(self) -> None:
        """Closes the reranker within."""
        await self._inner.close()
