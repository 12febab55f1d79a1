"""A language model whose server failed again and again is left alone for a while."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from ragline.concurrency.circuit import Circuit
from ragline.errors import BackendError
from ragline.generation.chat_model import ChatModel, Finish, Message, ModelFailedError
from ragline.generation.degradation import LLM_REJECTED, LLM_UNAVAILABLE


class GuardedChatModel:
    """A `ChatModel` behind a circuit: while that is open it fails at once, and the documents are quoted.

    Args:
        inner: Closed with this one.
        silence_s: A server that says nothing for so long, until its caller gives up, has failed. Who leaves earlier says nothing
            of the server.
    """

    def __init__(self, inner: ChatModel, circuit: Circuit, *, silence_s: float) -> None:
        self._inner = inner
        self._circuit = circuit
        self._silence_s = silence_s

    @property
    def name(self) -> str:
        """The model's."""
        return self._inner.name

    @property
    def fingerprint(self) -> str:
        """That of the model within: it writes the same."""
        return self._inner.fingerprint

    async def stream(self, messages: Sequence[Message]) -> AsyncGenerator[str | Finish, None]:
        """As `ChatModel.stream`.

        Raises:
            ModelFailedError: Also while the server is left alone.
        """
        if not self._circuit.allows():
            raise ModelFailedError(
                BackendError(f"the server of the language model {self.name!r} failed again and again", hint=self._circuit.hint),
                LLM_UNAVAILABLE,
            )
        asked, answers = time.monotonic(), False
        try:
            async with aclosing(self._inner.stream(messages)) as pieces:
                async for piece in pieces:
                    if not answers:
                        answers = True
                        self._circuit.succeeded()
                    yield piece
        except ModelFailedError as failed:
            if failed.degraded == LLM_UNAVAILABLE:
                self._circuit.failed()
            elif failed.degraded == LLM_REJECTED:  # by a server that is there
                self._circuit.succeeded()
            raise
        except (asyncio.CancelledError, GeneratorExit):
            if not answers and time.monotonic() - asked >= self._silence_s:
                self._circuit.failed()
            raise

    async def reachable(self) -> None:
        """Asks the server itself, whatever the circuit says."""
        await self._inner.reachable()

    async def close(self) -> None:
        """Closes the model within."""
        await self._inner.close()
