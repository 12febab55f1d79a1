"""Answers by a language model: written from the evidence, streamed, cited, and quoted instead where the model fails."""

from __future__ import annotations

import asyncio
import copy
import hashlib
import json
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from ragline.concurrency.deadlines import capped_s
from ragline.concurrency.retries import Retries, retried
from ragline.concurrency.workers import Workers
from ragline.errors import BackendError, DeadlineError, RaglineError
from ragline.generation import prompt as prompts
from ragline.generation.answer_text import AnswerText, FirstUse, says_not_found
from ragline.generation.base import Generated, Generator
from ragline.generation.chat_model import ChatModel, Finish, ModelFailedError
from ragline.generation.degradation import LLM_INTERRUPTED, LLM_REFUSED, LLM_TIMEOUT, TRUNCATED, UNCITED, quotations
from ragline.generation.extractive import NOT_FOUND
from ragline.generation.prompt import Passage, Prompt, Prompts
from ragline.generation.quoting import cited_sentence, supporting_span
from ragline.generation.remembered import RememberedChatModel
from ragline.generation.template import BUILT_IN, Template
from ragline.settings import GenerationSettings
from ragline.types import Citation, ScoredChunk, Turn

log = logging.getLogger("ragline.generation")

VERSION = 1
"""Rises when the same text of a model may give another answer."""

_ATTEMPTS = 3
"""Somebody waits: a server that is down is asked no more often, however much time is left."""

_FIRST_WAIT_S = 0.2

_SHARE_OF_DEADLINE = 0.85
"""The rest of the time that a request has is for the quotations that may have to stand in."""

_TOKEN_CHARACTERS = 64
"""No token is longer in the mean: a server that goes on for longer does not keep to `max_tokens`."""


class ChatGenerator:
    """Has a language model answer from the evidence.

    The model is asked at most three times, and only while the reader has nothing of its answer yet; all within
    `settings.timeout_s`. Where it fails, the fallback answers and says so, see `degradation`.

    Args:
        model: Writes the answer; the generator closes it.
        count_tokens: How many tokens a text has, estimated on the long side.
        fallback: Quotes instead where the model fails; None for an error. Stays the caller's to close.
        workers: Where prompts are made and quotations are chosen. Stay the caller's to close.

    Raises:
        SettingsError: `settings.prompt_file` is no prompt template.
    """

    shares_answers = True

    def __init__(
        self,
        model: ChatModel,
        count_tokens: Callable[[str], int],
        settings: GenerationSettings,
        fallback: Generator | None,
        *,
        workers: Workers,
    ) -> None:
        self._model = model
        self._settings = settings
        self._fallback = fallback if settings.fallback else None
        self._workers = workers
        self._life = _Life()
        self._template = Template.load(settings.prompt_file) if settings.prompt_file is not None else Template.parse(BUILT_IN)
        self._prompts = Prompts(self._template, count_tokens, prompt_tokens=settings.prompt_tokens, history_tokens=settings.history_tokens)

    def for_tenant(self, tenant: str) -> ChatGenerator:
        """This generator with what its model wrote for that tenant before. Closing it closes it for all."""
        mine = copy.copy(self)
        if isinstance(self._model, RememberedChatModel):
            mine._model = self._model.for_tenant(tenant)
        return mine

    @property
    def fingerprint(self) -> str:
        """Version, model, prompt and settings."""
        made_by = [
            VERSION,
            prompts.VERSION,
            self._model.fingerprint,
            self._template.text,
            self._settings.prompt_tokens,
            self._settings.history_tokens,
            self._settings.links,
        ]
        return f"chat:{self._model.name}:{hashlib.sha256(json.dumps(made_by).encode()).hexdigest()[:16]}"

    async def generate(
        self, question: str, evidence: Sequence[ScoredChunk], history: Sequence[Turn] = ()
    ) -> AsyncIterator[str | Citation | Generated]:
        """Yields text as the model writes it, each citation after its marker, then the whole. See `Generator.generate`.

        Raises:
            BackendError, DeadlineError, OverloadedError, NotFoundError, SettingsError: The model failed and there is
                no fallback, or the fallback failed too.
        """
        if self._life.closed:
            raise BackendError("the generator is closed", hint="use it before its engine is closed")
        evidence = [chunk for chunk in evidence if chunk.text.strip()]
        if not evidence:
            yield NOT_FOUND
            yield Generated(NOT_FOUND, (), found=False)
            return
        told = _Told()
        writing: _Writing | None = None
        try:
            whole_s = capped_s(self._settings.timeout_s, share=_SHARE_OF_DEADLINE)
            ends = time.monotonic() + whole_s
            asked = await self._workers.run(self._prompts.build, question, evidence, history)
            writing = await self._begin(asked, ends, whole_s)
            try:
                while True:
                    for part in writing.ready:
                        piece = await self._cite(asked.passages[part.passage], told.text) if isinstance(part, FirstUse) else part
                        told.add(piece)
                        yield piece
                    if writing.finish is not None:
                        break
                    await writing.read(ends - time.monotonic(), "timeout_s")
            finally:
                await writing.close()
            self._check(writing.finish, told)
        except ModelFailedError as failed:
            for rest in await self._quotations(failed, question, evidence, history, told.whole(writing)):
                yield rest
            return
        yield told.whole(writing)

    async def check(self) -> None:
        """Returns where the model's server answers and has the model; raises as `ChatModel.reachable`. Costs no tokens."""
        await self._model.reachable()

    async def close(self) -> None:
        """Closes the model's connections. Twice is harmless."""
        self._life.closed = True
        await self._model.close()

    async def _begin(self, asked: Prompt, ends: float, whole_s: float) -> _Writing:
        """An answer of which the first words are there. Tried again where that can help."""
        settings = self._settings

        async def attempt(left_s: float) -> _Writing:
            text = AnswerText(len(asked.passages), neutralise=settings.links == "neutralise")
            writing = _Writing(settings, self._model.stream(asked.messages), text, whole_s)
            first_s = settings.first_token_timeout_s
            try:
                await writing.read(min(first_s, left_s), "first_token_timeout_s" if first_s < left_s else "timeout_s")
                while not writing.ready and writing.finish is None:
                    await writing.read(ends - time.monotonic(), "timeout_s")
            except BaseException:
                await writing.close()
                raise
            return writing

        def wait_of(error: BaseException) -> float | None:
            return error.wait_s if isinstance(error, ModelFailedError) else None

        try:
            return await retried(attempt, Retries(ends - time.monotonic(), first_wait_s=_FIRST_WAIT_S, attempts=_ATTEMPTS), wait_of=wait_of)
        except DeadlineError as error:
            raise ModelFailedError(error, LLM_TIMEOUT) from error

    async def _cite(self, passage: Passage, told: str) -> Citation:
        return await self._workers.run(_citation, passage, told)

    def _check(self, finish: Finish, told: _Told) -> None:
        if finish.reason == "refused":
            raise ModelFailedError(
                BackendError(
                    f"the language model {self._model.name!r}, or its server's filter, declined to answer", hint="ask in other words"
                ),
                LLM_REFUSED,
            )
        if finish.reason == "length" and not told.text:
            raise ModelFailedError(
                BackendError(
                    f"the language model {self._model.name!r} used up its {self._settings.max_tokens} tokens before it answered",
                    hint="raise generation.max_tokens: models that reason need more",
                ),
                TRUNCATED,
            )
        if not told.text:  # which says nothing about the documents
            raise ModelFailedError(
                BackendError(
                    f"the language model {self._model.name!r} ended its answer before the first word",
                    hint="ask again; if that does not help, see whether its server's chat template fits the model",
                ),
                LLM_REFUSED,
            )

    async def _quotations(
        self, failed: ModelFailedError, question: str, evidence: Sequence[ScoredChunk], history: Sequence[Turn], told: Generated
    ) -> list[str | Citation | Generated]:
        if self._life.closed:
            raise BackendError("the engine was closed while the language model wrote", hint="let its streams end before you close it")
        if self._fallback is None:
            raise failed.error from failed.__cause__
        log.warning("quotations stand in for the language model: %s", failed.error)
        word = LLM_INTERRUPTED if told.text and failed.degraded != LLM_REFUSED else failed.degraded
        try:
            return await quotations(word, self._fallback, question, evidence, history, told)
        except RaglineError:
            raise failed.error from failed.__cause__  # both failed: the model's failure is the one to mend


@dataclass(slots=True)
class _Life:
    """Whether a generator was closed; all tenants' have one."""

    closed: bool = False


class _Writing:
    """An answer while the model writes it.

    Args:
        whole_s: How long the whole of it may take: less than `settings.timeout_s` where its request has less time.

    Attributes:
        ready: What the last reading gave to tell.
        finish: How the answer ended, once it has.
    """

    def __init__(self, settings: GenerationSettings, stream: AsyncGenerator[str | Finish, None], text: AnswerText, whole_s: float) -> None:
        self._settings = settings
        self._whole_s = whole_s
        self._stream = stream
        self.text = text
        self.ready: list[str | FirstUse] = []
        self.finish: Finish | None = None
        self._room = settings.max_tokens * _TOKEN_CHARACTERS

    async def read(self, left_s: float, limit: str) -> None:
        """Reads the next piece.

        Args:
            left_s: How long that may take.
            limit: The setting that says so.

        Raises:
            ModelFailedError: There is no next piece, or not in time.
        """
        try:
            async with asyncio.timeout(left_s):
                piece = await anext(self._stream)
        except TimeoutError as error:
            raise ModelFailedError(self._late(limit), LLM_TIMEOUT, wait_s=0.0) from error
        if isinstance(piece, str):
            self.ready = self.text.feed(piece[: self._room])
            self._room -= len(piece)
            if self._room > 0:
                return
            piece = Finish("length")
            self.ready += self.text.end()
        else:
            self.ready = self.text.end()
        self.finish = piece

    def _late(self, limit: str) -> DeadlineError:
        settings, look = self._settings, "see whether its server is busy or still loads the model"
        if limit == "timeout_s" and self._whole_s < settings.timeout_s:
            return DeadlineError(
                f"the language model {settings.model!r} did not finish within the {self._whole_s:.3g} s that its request left it",
                hint=f"allow the request more time, or {look}",
            )
        late = "begin" if limit == "first_token_timeout_s" else "finish"
        return DeadlineError(
            f"the language model {settings.model!r} did not {late} within {getattr(settings, limit):g} s",
            hint=f"{look}, or raise generation.{limit}",
        )

    async def close(self) -> None:
        """Leaves the server, whether or not it is done. Twice is harmless."""
        await self._stream.aclose()


@dataclass(slots=True)
class _Told:
    """What the reader has so far."""

    text: str = ""
    citations: list[Citation] = field(default_factory=list)

    def add(self, piece: str | Citation) -> None:
        """Notes what is passed on."""
        if isinstance(piece, str):
            self.text += piece
        else:
            self.citations.append(piece)

    def whole(self, writing: _Writing | None) -> Generated:
        """The answer as it is."""
        found = bool(self.citations) or not says_not_found(self.text)
        degraded = [TRUNCATED] if writing and writing.finish and writing.finish.reason == "length" else []
        if found and not self.citations:
            degraded.append(UNCITED)
        return Generated(self.text, tuple(self.citations), found, tuple(degraded), writing.text.dropped if writing else 0)


def _citation(passage: Passage, told: str) -> Citation:
    """Of the sentences of a passage that bear out what was told up to its marker."""
    chunk = passage.chunk
    start, end = supporting_span(cited_sentence(told), passage.text)
    return Citation(
        chunk_id=chunk.chunk_id,
        document_id=chunk.document_id,
        document_version=chunk.document_version,
        start=chunk.start + start,
        end=chunk.start + end,
        quote=passage.text[start:end],
        source=chunk.source,
        heading=chunk.heading,
        page=chunk.page,
    )
