"""Chat completions over documents, as OpenAI's clients ask for them."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from fastapi import APIRouter, Request, Response

from ragline import json_shapes
from ragline.embedding.estimated_tokenizer import EstimatedTokenizer
from ragline.engine import Engine
from ragline.errors import FilterError, NotFoundError, RaglineError
from ragline.server.access import TenantEngine
from ragline.server.door import Visit, visit_of
from ragline.server.errors import HttpError, about, error_body, shown, status_of
from ragline.server.guarding import GuardedRoute
from ragline.server.replies import encoded, reply
from ragline.server.routes.openai.models import DEFAULT, no_model
from ragline.server.routes.openai.telling import Cut, Telling
from ragline.server.schemas.errors import WITH_BODY
from ragline.server.schemas.openai.base import openai_operation
from ragline.server.schemas.openai.chat import ChatCompletion, ChatRequest, Where
from ragline.server.state import state_of
from ragline.server.streaming import EventStream
from ragline.types import Citation, Scope, Turn

router = APIRouter(prefix="/v1", route_class=GuardedRoute, tags=["OpenAI"])

_PATH = "/v1/chat/completions"
_MARKER = re.compile(r"\[(\d{1,4})\]")
_STREAMED = {"text/event-stream": {"schema": {"type": "string"}, "example": 'data: {"object":"chat.completion.chunk", ...}\n\n'}}

_tokens = EstimatedTokenizer()
_completions = openai_operation("read", 404, 409, *WITH_BODY)
_completions["responses"][200] = {"description": "The answer; with `stream`, its chunks.", "content": _STREAMED}


@router.post("/chat/completions", response_model=ChatCompletion, summary="Answer in a conversation", **_completions)
async def complete(body: ChatRequest, engine: TenantEngine, request: Request) -> Response:
    """The answer to the last message from the documents of the collection that `model` names, with citations.

    The messages before it are the history: a question that goes on with them is searched with what it refers to. System messages say what
    answers should be like, where a language model writes them; no message changes that answers rest on documents and cite them.
    """
    settings = state_of(request).settings.server
    where = body.ragline or Where()
    named = settings.sources_in_text if where.sources is None else where.sources
    completion = _Completion(body, engine, visit_of(request), names_sources=named)
    if not body.stream:
        return reply(await completion.whole())
    pieces = completion.chunks()
    await anext(pieces)  # the evidence is found: what went wrong up to here has a status of its own
    return EventStream(pieces, heartbeat_s=settings.heartbeat_s)


def _count(text: str) -> int:
    return _tokens.count(text.encode("utf-8", "replace").decode())


class _Completion:
    """One answer in OpenAI's shapes."""

    def __init__(self, body: ChatRequest, engine: Engine, visit: Visit, *, names_sources: bool) -> None:
        self._body = body
        self._visit = visit
        self._names_sources = names_sources
        self._tells_usage = bool(body.stream_options is not None and body.stream_options.include_usage)
        self._head = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": body.model}
        question, history = _conversation(body)
        where = body.ragline or Where()
        with about("model"):
            Scope(collection=body.model)
        collection = None if body.model == DEFAULT else body.model
        events = engine.stream(question, collections=collection, top_k=where.top_k, filter=where.filter, history=history)
        self._telling = Telling(events, Cut(body.longest, body.stops, _count))

    async def whole(self) -> dict[str, Any]:
        """The answer in one."""
        telling = self._telling
        try:
            await self._begin()
            async for _ in telling.pieces():
                pass
        finally:
            await self._close()
        message = {"role": "assistant", "content": telling.text + self._sources(), "refusal": None, **self._evidence()}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": telling.finish_reason}
        usage = await _usage(self._body, telling.text)
        return {**self._head, "object": "chat.completion", "choices": [choice], "usage": usage, "ragline": self._details()}

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """First nothing, when there is something to answer from; then the answer as the events of a stream."""
        telling = self._telling
        try:
            await self._begin()
            yield b""
            yield self._chunk({"role": "assistant", "content": "", "refusal": None})
            try:
                async for piece in telling.pieces():
                    yield self._chunk({"content": piece})
                if sources := self._sources():
                    yield self._chunk({"content": sources})
            except RaglineError as failure:
                yield b"data: " + error_body(_PATH, status_of(failure), shown(failure)) + b"\n\n"
                return
            await self._close()
            yield self._chunk(self._evidence(), finish_reason=telling.finish_reason, ragline=self._details())
            if self._tells_usage:
                usage = await _usage(self._body, telling.text)
                yield _event({**self._head, "object": "chat.completion.chunk", "choices": [], "usage": usage})
            yield b"data: [DONE]\n\n"
        finally:
            await self._close()

    async def _close(self) -> None:
        await self._telling.close()
        if self._telling.answer is not None:
            self._visit.turned_out(self._telling.answer.cache)

    async def _begin(self) -> None:
        try:
            with about("messages"), about("ragline.filter", FilterError):
                await self._telling.begin()
        except NotFoundError as missing:
            raise no_model(self._body.model) from missing

    def _chunk(self, delta: dict[str, Any], *, finish_reason: str | None = None, **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        if self._tells_usage:
            more["usage"] = None
        return _event({**self._head, "object": "chat.completion.chunk", "choices": [choice], **more})

    def _evidence(self) -> dict[str, Any]:
        citations = self._telling.citations
        return {"annotations": _annotations(self._telling.text, citations), "citations": [json_shapes.citation(each) for each in citations]}

    def _details(self) -> dict[str, Any]:
        answer = self._telling.answer
        if answer is None:  # it was cut: whether it would have held to its end is not known
            return {"found": bool(self._telling.citations), "cache": None, "lsn": None, "lag": 0, "degraded": []}
        lsn = answer.lsn if isinstance(answer.lsn, int) else dict(answer.lsn)
        return {"found": answer.found, "cache": answer.cache, "lsn": lsn, "lag": answer.lag, "degraded": list(answer.degraded)}

    def _sources(self) -> str:
        """What the citations are of, for people, where that is wanted and the answer was not cut."""
        citations = self._telling.citations if self._names_sources and self._telling.answer is not None else ()
        return "\n\nSources:" + "".join(map(_named, range(1, len(citations) + 1), citations)) if citations else ""


def _conversation(body: ChatRequest) -> tuple[str, list[Turn]]:
    """The question, and what was said before."""
    turns = [Turn("system" if each.role in ("system", "developer") else each.role, each.text) for each in body.messages]  # type: ignore[arg-type]
    last = next((place for place in range(len(turns) - 1, -1, -1) if turns[place].role != "system"), None)
    if last is None or turns[last].role != "user":
        raise HttpError(
            400,
            "invalid_messages",
            "the last message must be the user's question",
            hint="end messages with one of role user",
            param="messages",
        )
    question = turns.pop(last)
    return question.text, turns


async def _usage(body: ChatRequest, text: str) -> dict[str, int]:
    asked = "\n".join(message.text for message in body.messages)
    prompt = await asyncio.to_thread(_count, asked) if len(asked) > 10_000 else _count(asked)
    completion = _count(text)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _annotations(text: str, citations: Sequence[Citation]) -> list[dict[str, Any]]:
    """Where the text cites URLs, in the shape that OpenAI has for that."""
    found = []
    for marker in _MARKER.finditer(text):
        cited = citations[int(marker[1]) - 1] if 0 < int(marker[1]) <= len(citations) else None
        if cited is not None and (cited.source or "").startswith(("http://", "https://")):
            place = {"start_index": marker.start(), "end_index": marker.end(), "title": cited.heading or cited.source, "url": cited.source}
            found.append({"type": "url_citation", "url_citation": place})
    return found


def _named(number: int, citation: Citation) -> str:
    source = citation.source or citation.document_id
    name = source if "://" in source else re.split(r"[/\\]", source)[-1]
    page = f"page {citation.page}" if citation.page is not None else ""
    return f"\n[{number}] " + ", ".join(" ".join(part.split()) for part in (name, citation.heading, page) if part)


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + encoded(value) + b"\n\n"
