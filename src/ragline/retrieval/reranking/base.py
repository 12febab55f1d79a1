"""Which of these is it really? The seam between retrieval and models that read question and passage together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ragline.types import Float32


class Reranker(Protocol):
    """Scores passages against a question, each pair read together. Safe to use from many tasks."""

    is_local: bool

    @property
    def name(self) -> str:
        """What the user calls the model."""
        ...

    @property
    def fingerprint(self) -> str:
        """Names the model and every setting that can change its scores."""
        ...

    async def rerank(self, question: str, passages: Sequence[str]) -> Float32:
        """The relevance of each passage, `(n,)` float32, in the order given; higher is better.

        Scores compare within one call only. A pair longer than the model's window is cut at the passage's end.

        Raises:
            BackendError: The model or its server failed; also for good, after retries.
            DeadlineError: It took longer than it was allowed to.
        """
        ...

    async def close(self) -> None:
        """Lets go of what it holds. Twice is harmless."""
        ...
