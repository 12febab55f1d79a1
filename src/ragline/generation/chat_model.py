"""Who writes the answer? The seam between a finished prompt and the raw text of a language model."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from ragline.errors import RaglineError


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation."""

    role: Literal["system", "user"]
    content: str


@dataclass(frozen=True, slots=True)
class Finish:
    """Why a model stopped: it was done, it ran into `max_tokens`, or it (or its server's filter) would not answer."""

    reason: Literal["stop", "length", "refused"]


class ModelFailedError(Exception):
    """One request to a language model that failed.

    Attributes:
        error: What the caller is told, where nothing helps.
        degraded: What an answer without the model is marked with: one of the words in `degradation`.
        wait_s: How long to wait before it is tried again; None where that cannot help.
    """

    def __init__(self, error: RaglineError, degraded: str, *, wait_s: float | None = None) -> None:
        super().__init__(error.message)
        self.error = error
        self.degraded = degraded
        self.wait_s = wait_s


class ChatModel(Protocol):
    """A language model behind a server. Safe to use from many tasks; it neither tries again nor watches the clock."""

    @property
    def name(self) -> str:
        """The model's name, as its server knows it."""
        ...

    @property
    def fingerprint(self) -> str:
        """Names the server, the model and every setting sent along that can change what it writes."""
        ...

    def stream(self, messages: Sequence[Message]) -> AsyncGenerator[str | Finish, None]:
        """Yields the text as it comes, then a `Finish`, last and once.

        An empty piece is a sign of life: the model reasons and does not write yet. Closing the generator, or
        cancelling the task that waits for it, closes the connection.

        Raises:
            ModelFailedError: There is no answer, or it broke off before its end.
        """
        ...

    async def reachable(self) -> None:
        """Returns where the server answers and has the model. Costs no tokens and a few seconds at most.

        Raises:
            BackendError: The server does not answer, or not as such a server does.
            NotFoundError: It does not have the model.
            SettingsError: It refuses the key.
        """
        ...

    async def close(self) -> None:
        """Closes the connections. Twice is harmless."""
        ...
