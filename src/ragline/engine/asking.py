"""A question on its way to hits and to an answer: what is known already, what is under way, and only then the work itself.

Nothing is served that a search of now would not give: hits are kept with the position of the log that they are of, answers by
the rules of `answers.cache`. Hits found under lag are not kept, nor is anything degraded. An answer from such hits is kept, for it holds
wherever its evidence is found again; but not as one that holds at some position.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace

from ragline.answers.cache import AnswerCache, Asked, Kept, Position
from ragline.caching.memory import MemoryCache
from ragline.caching.sizes import plain_bytes
from ragline.concurrency.deadlines import remaining_s, size_of_deadline, within_deadline
from ragline.concurrency.entering import entered
from ragline.concurrency.single_flight import SharedStream, SingleFlight
from ragline.engine.answering import by_words_first, gather_evidence, stages_of, write_answer
from ragline.engine.resources import Resources
from ragline.engine.searching import Search
from ragline.errors import DeadlineError
from ragline.generation.base import Generator, evidence_fingerprint
from ragline.generation.degradation import LLM_INTERRUPTED, LLM_TIMEOUT
from ragline.observe.records import RequestRecord
from ragline.observe.request_ids import request
from ragline.observe.tally import Tally
from ragline.types import Answer, Effort, Float32, Scope, ScoredChunk, SearchResult, StreamEvent

_Flight = tuple[Scope, str, tuple[int, ...], Effort, int | None]
"""What callers share a computation by: the question with all its result depends on, the LSNs they arrived at, the effort, and about
how much time they have: the computation keeps to the deadline of the one who began it.
"""

_LATE = 0.25
"""With less than this part of its time left, a computation ends because of its deadline."""


class Asking:
    """Gives hits and answers, from what is known where that still holds. One for all tenants of an engine."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._settings = resources.settings.cache
        items, max_bytes = self._settings.items, self._settings.max_bytes
        self.results: MemoryCache[tuple[Position, SearchResult]] = MemoryCache(
            items, max_bytes=max_bytes, size_of=lambda kept: _size_of(kept[1].hits)
        )
        answers: MemoryCache[Kept] = MemoryCache(
            items, max_bytes=max_bytes, size_of=lambda kept: 4 * len(kept.answer.text) + _size_of(kept.answer.hits)
        )
        self.tally = Tally()
        self.answers = AnswerCache(answers, MemoryCache(items), max_age_s=self._settings.ttl_s, tally=self.tally)
        self._searches: SingleFlight[_Flight, SearchResult] = SingleFlight()
        self._streams: dict[_Flight, _UnderWay] = {}

    async def search(self, search: Search, record: RequestRecord, *, shared: bool = False) -> SearchResult:
        """The hits of a search: those kept if nothing has changed since, those of a search under way, or new ones.

        Args:
            record: The request's; its timings become the result's.
            shared: Whether who asks is a computation that callers share already: it needs no further one for its search, whose
                beginning and end would each wait for the loop's next turns.
        """
        if not self._settings.enabled:
            await entered()
            result = await search.run(self._resources)
            record.mark("handover", stages_of(result.timings))
            return replace(result, timings=record.timings())
        asked = self._asked(search)
        lsns, position = await self._position(search.scopes)
        kept = await self.results.get(asked.scope, asked.key) if position is not None else None
        if kept is not None and kept[0] == position:
            await asyncio.sleep(0)  # nothing else here suspends: who asks in a loop would keep all others from running
            record.mark("cache")
            self.tally.add(asked.scope.tenant, "search_hit")
            return replace(kept[1], timings=record.timings())
        record.mark("cache")
        await entered()
        flight = (asked.scope, asked.key, lsns, search.effort, size_of_deadline())
        joined = flight in self._searches
        self.tally.add(asked.scope.tenant, "search_shared" if joined else "search_miss")
        async with within_deadline():
            try:
                if shared and not joined:
                    result = await self._searched(search, asked)
                else:
                    result = await self._searches.run(flight, lambda: self._searched(search, asked))
            except DeadlineError:
                if not joined:
                    raise
                result = await self._searches.run(flight, lambda: self._searched(search, asked))  # it had less time than we have
        _mark_whole(record, result.timings, joined=joined)
        return replace(result, timings=record.timings())

    async def answer(self, search: Search, record: RequestRecord) -> Answer:
        """The answer to a question, whole; arguments as of `search`."""
        async with within_deadline(), aclosing(self.events(search, record, whole=True)) as events:
            async for event in events:
                if event.kind == "answer":
                    assert isinstance(event.data, Answer)
                    return event.data
        raise AssertionError("a generator ended without an answer")

    async def known(self, search: Search, record: RequestRecord) -> Answer | None:
        """The answer that holds for certain, because nothing has changed since it was known to; None for none.

        With a history there is none: its answers are always checked against a search.
        """
        if not self._settings.enabled or search.history:
            return None
        lsns, position = await self._position(search.scopes)
        answer = None if position is None else await self.answers.current(self._answering(search), position)
        if answer is not None:
            await asyncio.sleep(0)  # as in `search`
        record.mark("cache")
        return answer if answer is None else replace(answer, lsn=search.named(lsns), timings=record.timings())

    async def events(self, search: Search, record: RequestRecord, *, whole: bool = False) -> AsyncGenerator[StreamEvent, None]:
        """The answer in steps. Who asks what is being answered already joins in, and gets the steps so far.

        Args:
            whole: Only the last step counts. Until then all can be begun anew where another's deadline cut the answer short;
                otherwise only until the first word was told.
        """
        known = await self.known(search, record)
        if known is not None:
            for event in _replayed(known):
                yield event
            return
        await entered()
        joined, made = False, self._made(search, None)
        if self._settings.enabled:
            joined, shared = self._shared(search, await self._heads(search.scopes))
            made = self._joined(search, shared, whole) if joined else shared.stream.read()
        async with aclosing(made) as events:
            async for event in events:
                if isinstance(event.data, Answer):
                    _mark_whole(record, event.data.timings, joined=joined)
                    event = StreamEvent("answer", replace(event.data, timings=record.timings()))
                yield event

    async def clear(self, scopes: Sequence[Scope]) -> None:
        """Forgets hits and answers of these collections; what is being computed for them is not joined any more."""
        for scope in scopes:
            await self.results.clear(scope)
            await self.answers.clear(scope)
            self._resources.pieces.forget(scope.tenant, scope.collection)
        self._searches.forget(lambda flight: flight[0] in scopes)
        for flight in [flight for flight in self._streams if flight[0] in scopes]:
            del self._streams[flight]

    async def _joined(self, search: Search, shared: _UnderWay, whole: bool) -> AsyncGenerator[StreamEvent, None]:
        """What another asked for, or once more where that one's deadline ended it and we have time left."""
        hits, told = None, False
        try:
            async with aclosing(shared.stream.read()) as events:
                async for event in events:
                    if whole and isinstance(event.data, Answer) and shared.cut_short(event.data):
                        break
                    if isinstance(event.data, SearchResult):
                        hits = event.data.hits
                    else:
                        told = True
                    yield event
                else:
                    return
        except DeadlineError:
            left_s = remaining_s()
            if (told and not whole) or (left_s is not None and left_s <= 0):
                raise
        self._landed(shared)
        _, anew = self._shared(search, await self._heads(search.scopes))
        async with aclosing(anew.stream.read()) as events:
            async for event in events:
                if not (isinstance(event.data, SearchResult) and event.data.hits == hits):
                    yield event

    def _shared(self, search: Search, lsns: tuple[int, ...]) -> tuple[bool, _UnderWay]:
        """Whether that answer is under way already, with time enough, and its steps."""
        asked = self._answering(search)
        flight = (asked.scope, asked.key, lsns, search.effort, size_of_deadline())
        shared = self._streams.get(flight)
        if shared is not None and shared.can_be_joined:
            self.tally.add(asked.scope.tenant, "shared")
            return True, shared
        with request():  # whose id the work logs under, whoever joins it
            begun = self._streams[flight] = _UnderWay(flight, SharedStream(self._made(search, asked)))
        begun.stream.add_done_callback(lambda: self._landed(begun))
        return False, begun

    def _landed(self, shared: _UnderWay) -> None:
        if self._streams.get(shared.flight) is shared:
            del self._streams[shared.flight]

    async def _heads(self, scopes: Sequence[Scope]) -> tuple[int, ...]:
        return tuple([(await self._resources.store.head(scope)).lsn for scope in scopes])

    async def _position(self, scopes: Sequence[Scope]) -> tuple[tuple[int, ...], Position | None]:
        """The heads of the collections, and where this process's views stand if that is at these heads; takes microseconds."""
        store, follower = self._resources.store, self._resources.follower
        heads = [await store.head(scope) for scope in scopes]
        lsns = tuple(head.lsn for head in heads)
        epochs = tuple(follower.epoch_at(scope, head) for scope, head in zip(scopes, heads, strict=True))
        known = tuple(epoch for epoch in epochs if epoch is not None)
        return lsns, Position(lsns, known) if len(known) == len(epochs) else None

    def _asked(self, search: Search) -> Asked:
        """The question, and what its result depends on beside; the settings do not change while an engine is open."""
        depends_on = (
            self._resources.store.incarnation,
            [scope.collection for scope in search.scopes],
            search.top_k,
            search.mode,
            search.filter,
            search.documents and list(search.documents),
        )
        # repr tells any two of these apart, and takes a third of the time of JSON.
        partition = hashlib.blake2b(repr(depends_on).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
        return Asked(search.scopes[0], partition, search.question)

    def _answering(self, search: Search) -> Asked:
        """The same of its answer, which depends on what was said before: no answer is shared with another history, or with none."""
        asked = self._asked(search)
        if not search.history:
            return asked
        said = json.dumps([asked.partition, [(turn.role, turn.text) for turn in search.history]])
        return Asked(asked.scope, hashlib.blake2b(said.encode(), digest_size=16).hexdigest(), search.asked)

    async def _searched(self, search: Search, asked: Asked) -> SearchResult:
        with self._resources.in_use():
            result = await search.run(self._resources)
        if _keepable(result):
            await self.results.set(asked.scope, asked.key, (_position_of(result), result), ttl_s=self._settings.ttl_s)
        return result

    async def _made(self, search: Search, asked: Asked | None) -> AsyncGenerator[StreamEvent, None]:
        """The answer from a search of now: one that was given before if its evidence is the same, else a new one."""
        record = RequestRecord("ask")
        if asked is not None and await self.answers.has(asked):  # only a full search can say that it holds, and any new answer costs more
            search = replace(search, effort=replace(search.effort, rerank=True, full_depth=True))
        with self._resources.in_use():
            result = await self.search(search, record, shared=True)
        yield StreamEvent("hits", result)
        with self._resources.in_use():  # between two steps its reader may have closed the engine
            generator, evidence = await gather_evidence(search, result, self._resources, record)
        keeps = asked is not None and not result.degraded
        if asked is not None and keeps:
            record.mark("evidence")
            fingerprint = evidence_fingerprint(generator, evidence, search.history)
            with self._resources.in_use():
                known = await self._still_true(search, asked, result, generator, fingerprint)
            record.mark("cache")
            if known is not None:
                for event in _replayed(replace(known, hits=result.hits, lsn=result.lsn, lag=result.lag, timings=record.timings()))[1:]:
                    yield event
                return
            self.tally.add(asked.scope.tenant, "miss")
        if not search.effort.language_model:
            generator = by_words_first(generator, self._resources, search.scopes[0].tenant)
        async with aclosing(write_answer(generator, search, evidence, result, record)) as events:
            async for event in events:
                if asked is not None and isinstance(event.data, Answer):
                    answer = replace(event.data, cache="miss")
                    if keeps and not answer.degraded:
                        vector = await self._vector(search, generator)
                        await self.answers.keep(asked, answer, _holds_at(result), fingerprint, vector)
                    yield StreamEvent("answer", answer)
                else:
                    yield event

    async def _still_true(
        self, search: Search, asked: Asked, result: SearchResult, generator: Generator, fingerprint: str
    ) -> Answer | None:
        """An answer given before, to this question or to one that means the same, that the evidence of now still bears."""
        position = _holds_at(result)
        known = await self.answers.revalidated(asked, position, fingerprint)
        if known is None and position is not None and (vector := await self._vector(search, generator)) is not None:
            known = await self.answers.alike(asked, position, result.hits, vector)
        return known

    async def _vector(self, search: Search, generator: Generator) -> Float32 | None:
        """The question's, where its answer may be shared by meaning."""
        if not (self._settings.semantic and generator.shares_answers) or search.mode == "lexical" or search.history:
            return None
        embedder = await self._resources.embedder_for(search.scopes[0])
        vector: Float32 = (await embedder.embed_questions([search.question]))[0]
        return vector


class _UnderWay:
    """An answer that is being made, by the deadline of the one who began it."""

    def __init__(self, flight: _Flight, stream: SharedStream[StreamEvent]) -> None:
        self.flight = flight
        self.stream = stream
        left_s = remaining_s()
        self._had_s = math.inf if left_s is None else left_s
        self._ends = time.monotonic() + self._had_s

    @property
    def can_be_joined(self) -> bool:
        """Whether it still goes on, and has at least half as much time as we have."""
        mine_s = remaining_s()
        has_time = mine_s is None or 2 * (self._ends - time.monotonic()) >= mine_s
        return has_time and not self.stream.done and not self.stream.abandoned

    def cut_short(self, answer: Answer) -> bool:
        """Whether its deadline, and no limit of the language model's, kept the model from answering, and we have time to ask it again."""
        mine_s = remaining_s()
        if mine_s is None or not {LLM_TIMEOUT, LLM_INTERRUPTED} & set(answer.degraded):
            return False
        # A model is given most of the time: what fails earlier has failed by itself, and would again.
        return self._ends - time.monotonic() <= self._had_s * _LATE and mine_s >= self._had_s / 2


def _size_of(hits: Sequence[ScoredChunk]) -> int:
    """About what hits weigh in memory: their texts and metadata, and a kilobyte each for the rest."""
    return 1024 * (len(hits) + 1) + sum(len(hit.text) + plain_bytes(hit.metadata) for hit in hits)


def _keepable(result: SearchResult) -> bool:
    return result.lag == 0 and not result.degraded


def _position_of(result: SearchResult) -> Position:
    lsns = (result.lsn,) if isinstance(result.lsn, int) else tuple(result.lsn.values())
    return Position(lsns, result.epochs)


def _holds_at(result: SearchResult) -> Position | None:
    """Where what is made from these hits is known to hold; None under lag: something may be there already that the views lack."""
    return None if result.lag else _position_of(result)


def _replayed(answer: Answer) -> list[StreamEvent]:
    """A known answer, in the steps of a new one."""
    hits = SearchResult(answer.hits, answer.lsn, answer.lag, answer.degraded, answer.timings)
    return [
        StreamEvent("hits", hits),
        StreamEvent("token", answer.text),
        *(StreamEvent("citation", citation) for citation in answer.citations),
        StreamEvent("answer", answer),
    ]


def _mark_whole(record: RequestRecord, timings: Mapping[str, float], *, joined: bool) -> None:
    """Marks a computation that is over: its stages where it was this request's own, else how long it was waited for."""
    if joined:
        record.mark("shared")
    else:
        record.mark("handover", stages_of(timings))
