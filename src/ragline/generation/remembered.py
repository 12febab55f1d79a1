"""A language model that is not asked twice for the same."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from ragline.caching.base import Cache
from ragline.generation.answer_text import says_not_found
from ragline.generation.chat_model import ChatModel, Finish, Message
from ragline.types import Scope

_CITES = re.compile(r"\[\s*\d")


class RememberedChatModel:
    """A `ChatModel` whose texts are kept by the whole prompt and all settings sent along; given again in one piece.

    A text that was cut off or refused, or that neither cites anything nor says that nothing was found, is not kept: the next
    one may be better. What is kept is what the model wrote, so that citations are made anew, of the versions of now.

    Args:
        inner: Closed with this one.
        responses: Where texts are kept. Stays the caller's to close.
        ttl_s: How long at most.
    """

    def __init__(self, inner: ChatModel, responses: Cache[str], *, ttl_s: float | None) -> None:
        self._inner = inner
        self._responses = responses
        self._ttl_s = ttl_s
        self._scope = Scope()

    def for_tenant(self, tenant: str) -> RememberedChatModel:
        """This model with what was written for that tenant. Closing it closes it for all."""
        mine = copy.copy(self)
        mine._scope = Scope(tenant)
        return mine

    @property
    def name(self) -> str:
        """The model's."""
        return self._inner.name

    @property
    def fingerprint(self) -> str:
        """That of the model within: it writes the same."""
        return self._inner.fingerprint

    async def stream(self, messages: Sequence[Message]) -> AsyncGenerator[str | Finish, None]:
        """As `ChatModel.stream`."""
        key = self._key(messages)
        known = await self._responses.get(self._scope, key)
        if known is not None:
            yield known
            yield Finish("stop")
            return
        written: list[str] = []
        async with aclosing(self._inner.stream(messages)) as pieces:
            async for piece in pieces:
                if isinstance(piece, str):
                    written.append(piece)
                elif piece.reason == "stop" and _worth_keeping(text := "".join(written)):
                    await self._responses.set(self._scope, key, text, ttl_s=self._ttl_s)
                yield piece

    async def reachable(self) -> None:
        """Asks the server itself."""
        await self._inner.reachable()

    async def close(self) -> None:
        """Closes the model within."""
        await self._inner.close()

    def _key(self, messages: Sequence[Message]) -> str:
        told = json.dumps([self._inner.fingerprint, *([message.role, message.content] for message in messages)])
        return f"response/{hashlib.blake2b(told.encode(), digest_size=16).hexdigest()}"


def _worth_keeping(text: str) -> bool:
    return _CITES.search(text) is not None or says_not_found(text)
