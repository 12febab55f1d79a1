"""Searches and questions."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request, Response

from ragline import json_shapes
from ragline.engine import Engine
from ragline.errors import InputError, RaglineError
from ragline.server.access import TenantEngine
from ragline.server.door import Visit, visit_of
from ragline.server.errors import shown
from ragline.server.guarding import GuardedRoute, operation
from ragline.server.replies import reply
from ragline.server.schemas.asking import AnswerReply, BatchReply, BatchRequest, QueryRequest, SearchReply, SearchRequest
from ragline.server.schemas.errors import WITH_BODY
from ragline.server.state import state_of
from ragline.server.streaming import EventStream, sse
from ragline.types import StreamEvent, Turn

router = APIRouter(prefix="/api/v1", route_class=GuardedRoute, tags=["asking"])

_BATCH_PARALLEL = 4
"""So many questions of a batch at once, at most."""
_EVENT = {
    "type": "object",
    "description": "Each event; its data is JSON.",
    "properties": {"event": {"enum": ["hits", "token", "citation", "answer", "error"]}, "data": {"type": "string"}},
    "required": ["event", "data"],
}
_STREAMED = {"text/event-stream": {"schema": _EVENT, "example": 'event: token\ndata: "Keys rotate"\n\n'}}


@router.post("/search", response_model=SearchReply, summary="Find passages", **operation("read", 404, 409, *WITH_BODY))
async def search(body: SearchRequest, engine: TenantEngine) -> Response:
    """The passages that answer a question best, by meaning and by words."""
    return reply(json_shapes.search(await engine.search(body.query, **_where(body))))


_query = operation("read", 404, 409, *WITH_BODY)
_query["responses"][200] = {"description": "The answer; with `stream`, its events.", "content": _STREAMED}


@router.post("/query", response_model=AnswerReply, summary="Ask a question", **_query)
async def query(body: QueryRequest, engine: TenantEngine, request: Request) -> Response:
    """An answer from the documents, with citations.

    With `stream` it comes as server-sent events: `hits`, then `token` and `citation` as they come, then `answer` or `error`. What goes
    wrong before the hits are found has its status, as without.
    """
    if not body.stream:
        answer = await engine.ask(body.query, history=_said(body), **_where(body))
        visit_of(request).turned_out(answer.cache)
        return reply(json_shapes.answer(answer))
    events = _events(engine, body, visit_of(request))
    await anext(events)  # the evidence is found: what went wrong up to here has a status of its own
    return EventStream(events, heartbeat_s=state_of(request).settings.server.heartbeat_s)


@router.post("/query/batch", response_model=BatchReply, summary="Ask several questions", **operation("read", *WITH_BODY))
async def query_batch(body: BatchRequest, engine: TenantEngine, request: Request) -> Response:
    """The answers in the order of the questions. One that fails has an `error` in its place, and the others go on."""
    most = state_of(request).settings.server.max_batch_queries
    if len(body.queries) > most:
        raise InputError(f"a batch of {len(body.queries)} questions is too large", hint=f"send at most {most} at once")
    return reply({"results": await _Batch(engine, body.queries, visit_of(request)).answered()})


class _Batch:
    """Questions that are answered one after the other in the place of their request, and beside it where places are free."""

    def __init__(self, engine: Engine, questions: Sequence[SearchRequest], visit: Visit) -> None:
        self._engine = engine
        self._visit = visit
        self._left = deque(enumerate(questions))
        self._results: list[dict[str, Any]] = [{} for _ in questions]

    async def answered(self) -> list[dict[str, Any]]:
        """The answers, or their errors, in the order of the questions."""
        beside: set[asyncio.Task[None]] = set()
        async with asyncio.TaskGroup() as group:
            while self._left:
                beside = {task for task in beside if not task.done()}
                beside |= {group.create_task(self._answer_beside()) for _ in range(_BATCH_PARALLEL - 1 - len(beside))}
                await self._answer_next(self._visit)
        return self._results

    async def _answer_beside(self) -> None:
        # A place for each question: others who came since have their turn in between.
        while self._left and (place := self._visit.beside()) is not None:
            ended = False
            try:
                await self._answer_next(place)
                ended = True
            finally:
                place.leave(counts=ended)

    async def _answer_next(self, place: Visit) -> None:
        number, question = self._left.popleft()
        cached: str | None = None
        try:
            answer = await self._engine.ask(question.query, **_where(question))
            self._results[number], cached = json_shapes.answer(answer), answer.cache
        except RaglineError as failure:
            self._results[number] = dict(shown(failure).to_dict())
        place.part_turned_out(cached)


async def _events(engine: Engine, body: QueryRequest, visit: Visit) -> AsyncGenerator[bytes, None]:
    """First nothing, when there is something to answer from; then the events."""
    async with aclosing(engine.stream(body.query, history=_said(body), **_where(body))) as events:
        hits = await anext(events)
        if hits.kind == "error":
            raise hits.data
        yield b""
        yield sse(hits.kind, _data(hits))
        async for event in events:
            if event.kind == "answer":
                visit.turned_out(event.data.cache)
            yield sse(event.kind, _data(event))


def _data(event: StreamEvent) -> Any:
    match event.kind:
        case "hits":
            return json_shapes.search(event.data)
        case "citation":
            return json_shapes.citation(event.data)
        case "answer":
            return json_shapes.answer(event.data)
        case "error":
            return shown(event.data).to_dict()
        case _:
            return event.data


def _said(body: QueryRequest) -> list[Turn]:
    return [Turn(each.role, each.text) for each in body.history]


def _where(body: SearchRequest) -> dict[str, Any]:
    return {"top_k": body.top_k, "collections": body.collections, "filter": body.filter}
