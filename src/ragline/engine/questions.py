"""Questions to the engine: searches and answers, one or many, whole or as they come."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, get_args

from ragline.concurrency.deadlines import within_deadline
from ragline.conversation import conversation, standalone
from ragline.engine.ids import id_list
from ragline.engine.many import each_of
from ragline.engine.measuring import Measured, flush
from ragline.engine.opened import OpenedEngine, while_open
from ragline.engine.searching import Search
from ragline.errors import InputError, NotFoundError, RaglineError
from ragline.filters import parse_filter
from ragline.observe.records import RequestRecord
from ragline.observe.request_ids import new_request_id, request, request_id
from ragline.retrieval.hybrid import Mode
from ragline.retrieval.question import normalise_question
from ragline.types import Answer, Effort, SearchResult, StreamEvent, Turn

MAX_TOP_K = 1000

_MODES = (None, *get_args(Mode))


class Questions(OpenedEngine):
    """The methods of `Engine` that answer."""

    @while_open
    async def search(
        self,
        question: str,
        *,
        top_k: int | None = None,
        filter: Mapping[str, Any] | None = None,
        collections: str | Sequence[str] | None = None,
        documents: Sequence[str] | None = None,
        mode: Mode | None = None,
        effort: Effort | None = None,
    ) -> SearchResult:
        """The chunks that answer a question best.

        Args:
            top_k: How many, 1 to 1000; unset takes `retrieval.top_k`. Fewer come back only where no more match.
            filter: Conditions on metadata, such as `{"lang": "en", "year": {"gte": 2020}}`.
            collections: One or several; unset takes the default collection.
            documents: Ids: search in these documents only.
            mode: "hybrid", "dense" or "lexical"; unset takes `retrieval.mode`.
            effort: What to leave out under load; unset leaves out nothing.

        Raises:
            InputError: An empty or endless question, `top_k` out of range, an unknown mode or filter operator.
            NotFoundError: A collection named does not exist.
            ModelMismatchError: A collection was embedded with another model.
        """
        with Measured(self.monitor, "search") as record:
            search = await self._prepared(question, top_k, filter, collections, documents, mode, effort)
            return await self._asking.search(search, record)

    @while_open
    async def ask(
        self,
        question: str,
        *,
        top_k: int | None = None,
        filter: Mapping[str, Any] | None = None,
        collections: str | Sequence[str] | None = None,
        documents: Sequence[str] | None = None,
        effort: Effort | None = None,
        history: Iterable[Turn] = (),
    ) -> Answer:
        """Answers a question from the documents, with citations; `found` is False where they do not say.

        Other arguments and errors are those of `search`; `top_k` is how many hits the answer is made from.

        Args:
            history: What was said before, oldest first. A question that goes on with it is searched with what it refers to, see
                `conversation.standalone`; a language model is shown as much of it as `generation.history_tokens` allows.
        """
        with Measured(self.monitor, "ask") as record:
            search = await self._prepared(question, top_k, filter, collections, documents, effort=effort, evidence=True, history=history)
            known = await self._asking.known(search, record)
            return known if known is not None else await self._asking.answer(search, record)

    @while_open
    async def search_many(
        self,
        questions: Sequence[str],
        *,
        max_concurrent: int | None = None,
        top_k: int | None = None,
        filter: Mapping[str, Any] | None = None,
        collections: str | Sequence[str] | None = None,
        documents: Sequence[str] | None = None,
        mode: Mode | None = None,
        effort: Effort | None = None,
    ) -> list[SearchResult | RaglineError]:
        """The hits of each question, in order; in the place of one that failed stands its error, which is not raised.

        Args:
            max_concurrent: How many are searched for at once; unset takes `retrieval.max_concurrent`.
                All other arguments are those of `search`, for every question.

        Raises:
            InputError: `questions` is one text, or `max_concurrent` less than 1.
        """

        async def one(question: str) -> SearchResult:
            return await self.search(
                question, top_k=top_k, filter=filter, collections=collections, documents=documents, mode=mode, effort=effort
            )

        return await each_of(questions, one, max_concurrent=self._at_once(max_concurrent))

    @while_open
    async def ask_many(
        self,
        questions: Sequence[str],
        *,
        max_concurrent: int | None = None,
        top_k: int | None = None,
        filter: Mapping[str, Any] | None = None,
        collections: str | Sequence[str] | None = None,
        documents: Sequence[str] | None = None,
        effort: Effort | None = None,
    ) -> list[Answer | RaglineError]:
        """The answer to each question, in order; in the place of one that failed stands its error, which is not raised.

        Args:
            max_concurrent: How many are answered at once; unset takes `retrieval.max_concurrent`.
                All other arguments are those of `ask`, for every question.

        Raises:
            InputError: `questions` is one text, or `max_concurrent` less than 1.

        Examples:
            for question, answer in zip(questions, await engine.ask_many(questions), strict=True):
                print(question, answer if isinstance(answer, ragline.RaglineError) else answer.text)
        """

        async def one(question: str) -> Answer:
            return await self.ask(question, top_k=top_k, filter=filter, collections=collections, documents=documents, effort=effort)

        return await each_of(questions, one, max_concurrent=self._at_once(max_concurrent))

    async def stream(
        self,
        question: str,
        *,
        top_k: int | None = None,
        filter: Mapping[str, Any] | None = None,
        collections: str | Sequence[str] | None = None,
        documents: Sequence[str] | None = None,
        effort: Effort | None = None,
        history: Iterable[Turn] = (),
    ) -> AsyncGenerator[StreamEvent, None]:
        """Answers a question in steps: hits, then tokens and citations as they come, then the answer.

        An error ends the stream as its last event, kind "error". Arguments are those of `ask`.
        """
        record = RequestRecord("stream")
        ended: type[BaseException] | None = None
        id = request_id() or new_request_id()  # not one that holds around a `yield`: see `request`
        try:
            with request(id), self._resources.in_use():
                search = await self._prepared(
                    question, top_k, filter, collections, documents, effort=effort, evidence=True, history=history
                )
            async with aclosing(self._asking.events(search, record)) as events:
                while True:
                    async with within_deadline():
                        with request(id):
                            event = await anext(events, None)
                    if event is None:
                        break
                    yield event
        except RaglineError as failure:
            ended = type(failure)
            yield StreamEvent("error", failure)
        except BaseException as failure:
            ended = type(failure)
            raise
        finally:
            with request(id):
                flush(self.monitor, record, ended)

    def _at_once(self, max_concurrent: int | None) -> int:
        return self.settings.retrieval.max_concurrent if max_concurrent is None else max_concurrent

    async def _prepared(
        self,
        question: str,
        top_k: int | None,
        filter: Mapping[str, Any] | None,
        collections: str | Sequence[str] | None,
        documents: Sequence[str] | None,
        mode: Mode | None = None,
        effort: Effort | None = None,
        *,
        evidence: bool = False,
        history: Iterable[Turn] = (),
    ) -> Search:
        """The search, with all that could be wrong with it refused; for the evidence of an answer, or for its own sake."""
        retrieval = self.settings.retrieval
        if top_k is None:
            top_k = retrieval.evidence if evidence else retrieval.top_k
        if mode not in _MODES:
            raise InputError(f"unknown mode {mode!r}", hint='use "hybrid", "dense" or "lexical"')
        if isinstance(top_k, bool) or not isinstance(top_k, int) or not 1 <= top_k <= MAX_TOP_K:
            raise InputError(f"top_k is {top_k!r}", hint=f"use a whole number from 1 to {MAX_TOP_K}")
        if collections is not None and not isinstance(collections, Iterable):
            raise InputError(f"{collections!r} names no collection", hint="give a name, or a list of names")
        names = [collections] if isinstance(collections, str) else list(dict.fromkeys(collections or [self.settings.collection]))
        scopes = [self._scope(name) for name in names]
        if collections is not None:
            for scope in scopes:
                if not (await self._resources.store.head(scope)).model:
                    raise NotFoundError(
                        f"there is no collection {scope.collection!r}", hint="`ragline collections list` shows those there are"
                    )
        question = normalise_question(question, max_chars=retrieval.max_question_chars)
        documents = id_list(documents) if documents is not None else None
        said = conversation(history)
        searched = standalone(question, said)
        return Search(
            searched, top_k, mode or retrieval.mode, parse_filter(filter), documents, scopes, effort or self._effort, said, question
        )
