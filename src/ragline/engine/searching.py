"""One search: views at the head, both legs as one job on one thread, texts that are surely alive, then a closer look."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from pyroaring import BitMap64

from ragline.concurrency.deadlines import capped_s, check_deadline, remaining_s
from ragline.concurrency.workers import drive
from ragline.embedding.base import Embedder
from ragline.embedding.description import in_words
from ragline.engine.resources import Resources
from ragline.errors import BackendError, CorruptionError, DeadlineError, ModelMismatchError, OverloadedError, RaglineError
from ragline.filters import Filter
from ragline.retrieval.diversity import most_diverse
from ragline.retrieval.hybrid import COLLECTION_SHIFT, DENSE_NOT_READY, Mode, Ranked, Target, search_views
from ragline.retrieval.reranking.base import Reranker
from ragline.retrieval.reranking.hits import rerank_hits
from ragline.settings import RetrievalSettings
from ragline.storage.base import Head, StoredChunk
from ragline.types import Effort, Float32, Scope, ScoredChunk, SearchResult, Turn

VIEW_WAIT_S = 0.05
"""How long a question waits for the views to reach the store's head before it is answered with the lag stated."""

OVERTAKEN_WAIT_S = 0.1
"""How long it waits, where the views are this process's own work, after a commit overtook it."""

ATTEMPTS = 3
"""A search that a commit overtook (it met a deleted row, or may lack a replaced one) runs again at the new head, twice at most."""

EMBEDDER_UNAVAILABLE = "embedder_unavailable"
"""Degraded: the embedding server failed, and the search went by words alone."""

LOAD_NO_RERANK = "load_no_rerank"
"""Degraded, because it was asked for with less effort: the hits were not reranked."""

LOAD_LESS_DEPTH = "load_less_depth"
"""Degraded, because it was asked for with less effort: each leg looked at fewer candidates."""

LESS_DEPTH_DIVISOR = 4

_DOWN = (BackendError, DeadlineError, OverloadedError)

log = logging.getLogger("ragline.retrieval")


@dataclass(slots=True)
class _Course:
    """How one search goes, and what it has found out so far; kept where it runs again.

    Attributes:
        mode: As asked for; by words alone once the embedding server has failed.
        depth: How many chunks are fused: those that a closer look chooses from, else those wanted.
        vectors: The question's, by fingerprint of the model.
    """

    mode: Mode
    depth: int
    reranker: Reranker | None
    mmr_lambda: float | None
    retrieval: RetrievalSettings
    rerank_candidates: int
    vectors: dict[str, Float32] = field(default_factory=dict)
    degraded: tuple[str, ...] = ()

    def go_without(self, error: RaglineError, *, remote: bool) -> None:
        """Goes on by words alone where both legs were to search and the embedder is a server; else raises the error."""
        if not remote or self.mode != "hybrid":
            raise error
        log.warning("searched by words alone: %s", error.message)
        self.mode, self.degraded = "lexical", (*self.degraded, EMBEDDER_UNAVAILABLE)


@dataclass(frozen=True, slots=True)
class Search:
    """A question ready to be searched: normalised, its filter parsed, its scopes known.

    Attributes:
        question: What is searched: what was asked, with what it refers to.
        history: What was said before it was asked.
        put: The question as it was put, where that is not what is searched.
    """

    question: str
    top_k: int
    mode: Mode
    filter: Filter | None
    documents: Sequence[str] | None
    scopes: Sequence[Scope]
    effort: Effort = field(default_factory=Effort)
    history: tuple[Turn, ...] = ()
    put: str = ""

    @property
    def asked(self) -> str:
        """The question as it was put."""
        return self.put or self.question

    def named(self, lsns: Sequence[int]) -> int | Mapping[str, int]:
        """Log positions as results tell them: by collection where there are several."""
        return lsns[0] if len(self.scopes) == 1 else {scope.collection: lsn for scope, lsn in zip(self.scopes, lsns, strict=True)}

    async def run(self, resources: Resources) -> SearchResult:
        """Searches; again where a commit overtook it or an index file proved damaged while it ran."""
        started = time.perf_counter()
        course = await self._course(resources)
        opened = time.perf_counter()
        for attempt in range(ATTEMPTS):
            # Views that this process itself brings to the head are on their way: better wait than miss a document. For another
            # process, which may be stopped, nobody waits twice.
            wait_s = OVERTAKEN_WAIT_S if attempt and resources.follower.is_indexer else VIEW_WAIT_S
            targets, heads = await self._targets(resources, wait_s)
            viewed = time.perf_counter()
            embedder = await self._embedder(resources, heads, course)
            epochs = [target.views.epoch for target in targets]
            waited = time.perf_counter()
            try:
                ranked, chunks, timings, ended = await self._job(resources, embedder, targets, course, waited)
            except CorruptionError:
                if attempt == ATTEMPTS - 1:
                    raise
                for target, epoch in zip(targets, epochs, strict=True):
                    await resources.follower.mend(target.views, epoch)
                continue
            lags = [head.lsn - max(lsn, 0) for head, lsn in zip(heads, ranked.lsns, strict=True)]
            ahead = self.documents is not None and min(lags) < 0  # of the commit that the documents' rows are of
            overtaken = ranked.torn or None in chunks or DENSE_NOT_READY in ranked.degraded or ahead
            if not overtaken or (max(lags) > 0 and not resources.follower.is_indexer):
                break
        # "model" is the time to open models: next to nothing but for the first question of a process.
        timings = {"wait_ms": (viewed - opened) * 1000, "model_ms": (opened - started + waited - viewed) * 1000, **timings}
        shaping = time.perf_counter()
        hits: Sequence[ScoredChunk] = self._hits(ranked, chunks)
        timings |= {"return_ms": (shaping - ended) * 1000, "shape_ms": (time.perf_counter() - shaping) * 1000}
        degraded = (*course.degraded, *ranked.degraded)
        if course.reranker is not None:
            hits, failed = await self._reranked(resources, course, course.reranker, ranked, chunks, hits, timings)
            degraded += failed
        timings["total_ms"] = (time.perf_counter() - started) * 1000
        return SearchResult(
            hits=tuple(hits),
            lsn=self.named(ranked.lsns),
            lag=max(*lags, 1 if overtaken else 0),
            degraded=degraded,
            timings=timings,
            epochs=ranked.epochs,
        )

    async def _course(self, resources: Resources) -> _Course:
        reranker, retrieval = await resources.reranker(), resources.settings.retrieval
        rerank_candidates, degraded = resources.settings.rerank.candidates, []
        if reranker is not None and not self.effort.rerank:
            reranker = None
            degraded.append(LOAD_NO_RERANK)
        if not self.effort.full_depth:
            fewer = max(self.top_k, retrieval.candidates // LESS_DEPTH_DIVISOR)
            rerank_candidates = max(1, min(rerank_candidates, fewer // 2))
            if fewer < retrieval.candidates:
                retrieval = retrieval.model_copy(update={"candidates": fewer})
                degraded.append(LOAD_LESS_DEPTH)
        depth = self.top_k
        if reranker is not None:
            depth = max(depth, rerank_candidates)
        elif retrieval.mmr_lambda is not None:
            depth = max(depth, retrieval.candidates)
        return _Course(self.mode, depth, reranker, retrieval.mmr_lambda, retrieval, rerank_candidates, degraded=tuple(degraded))

    async def _targets(self, resources: Resources, wait_s: float) -> tuple[list[Target], list[Head]]:
        if len(self.scopes) == 1:  # a task of its own would cost as much as the wait
            found = [await self._target(resources, self.scopes[0], wait_s)]
        else:
            found = await asyncio.gather(*(self._target(resources, scope, wait_s) for scope in self.scopes))
        return [target for target, _ in found], [head for _, head in found]

    async def _target(self, resources: Resources, scope: Scope, wait_s: float) -> tuple[Target, Head]:
        for _ in range(ATTEMPTS):
            views, head = await resources.follower.views(scope, wait_s=wait_s)
            if self.documents is None:
                return Target(views), head
            rows = BitMap64(await resources.store.rows(scope, self.documents))
            seen, head = head, await resources.store.head(scope)
            if seen.lsn == head.lsn:  # else the rows may be of another commit than the views
                break
        return Target(views, rows), head

    async def _job(
        self, resources: Resources, embedder: Embedder | None, targets: Sequence[Target], course: _Course, queued: float
    ) -> tuple[Ranked, list[StoredChunk | None], dict[str, float], float]:
        if embedder is None or (embedder.is_local and resources.store.is_local):
            return await resources.question_workers.run(lambda: drive(self._search_once(resources, embedder, targets, course, queued)))
        return await self._search_once(resources, embedder, targets, course, queued)

    async def _embedder(self, resources: Resources, heads: Sequence[Head], course: _Course) -> Embedder | None:
        """The embedder of the collections searched; None where there is nothing to embed for, or nothing to do it."""
        scopes = [scope for scope, head in zip(self.scopes, heads, strict=True) if head.model]
        if course.mode == "lexical" or not scopes:
            return None
        try:
            embedders = [await resources.embedder_for(scope) for scope in scopes]
        except _DOWN as error:
            course.go_without(error, remote=resources.own_embedder is None and resources.settings.embedding.runtime == "openai")
            return None
        if len({embedder.fingerprint for embedder in embedders}) > 1:
            made = zip(scopes, embedders, strict=True)
            names = "; ".join(f"{scope.collection} ({in_words(embedder.description)})" for scope, embedder in made)
            raise ModelMismatchError(
                f"these collections were embedded with different models: {names}",
                hint="search them one by one, or bring them to one model with `ragline reindex --model NAME`",
            )
        return embedders[0]

    async def _search_once(
        self, resources: Resources, embedder: Embedder | None, targets: Sequence[Target], course: _Course, queued: float
    ) -> tuple[Ranked, list[StoredChunk | None], dict[str, float], float]:
        """Embeds, searches and fetches, and says when it ended. With local parts it never suspends and runs as one job on a worker."""
        check_deadline()  # it may have waited long for a thread
        started = time.perf_counter()
        vector = await self._vector(embedder, course) if embedder is not None else None
        embedded = time.perf_counter()
        ranked = await resources.question_workers.run(
            search_views,
            targets,
            self.question,
            vector,
            model=embedder.fingerprint if embedder is not None else "",
            top_k=course.depth,
            mode=course.mode,
            filter=self.filter,
            settings=course.retrieval,
            with_vectors=course.mmr_lambda is not None,
        )
        if course.mmr_lambda is not None and course.reranker is None:
            ranked = await resources.question_workers.run(self._diversified, ranked, course.mmr_lambda)
        searched = time.perf_counter()
        chunks = await self._fetch(resources, ranked)
        ended = time.perf_counter()
        timings = {"queue_ms": (started - queued) * 1000, "embed_ms": (embedded - started) * 1000, **ranked.timings}
        timings["views_ms"] = max(0.0, (searched - embedded) * 1000 - sum(ranked.timings.values()))
        timings["fetch_ms"] = (ended - searched) * 1000
        return ranked, chunks, timings, ended

    async def _vector(self, embedder: Embedder, course: _Course) -> Float32 | None:
        if embedder.fingerprint not in course.vectors:
            try:
                course.vectors[embedder.fingerprint] = await self._embedded(embedder)
            except _DOWN as error:
                course.go_without(error, remote=not embedder.is_local)
                return None
        return course.vectors[embedder.fingerprint]

    async def _embedded(self, embedder: Embedder) -> Float32:
        if embedder.is_local or (left_s := remaining_s()) is None:
            vectors = await embedder.embed_questions([self.question])
        else:
            try:
                async with asyncio.timeout(left_s / 2):  # the rest is for the search by words
                    vectors = await embedder.embed_questions([self.question])
            except TimeoutError as error:
                raise DeadlineError("the embedding server did not answer in the time that this request has") from error
        vector: Float32 = vectors[0]
        return vector

    def _diversified(self, ranked: Ranked, mmr_lambda: float) -> Ranked:
        assert ranked.vectors is not None
        started = time.perf_counter()
        chosen = ranked.take(most_diverse(ranked.scores, ranked.vectors, self.top_k, mmr_lambda=mmr_lambda))
        return replace(chosen, timings={**ranked.timings, "diversify_ms": (time.perf_counter() - started) * 1000})

    async def _reranked(
        self,
        resources: Resources,
        course: _Course,
        reranker: Reranker,
        ranked: Ranked,
        chunks: Sequence[StoredChunk | None],
        hits: Sequence[ScoredChunk],
        timings: dict[str, float],
    ) -> tuple[Sequence[ScoredChunk], tuple[str, ...]]:
        """The `top_k` of the hits by a closer look, and by what they add to each other where that is set."""
        timeout_s, mmr_lambda = capped_s(resources.settings.rerank.timeout_s, share=0.5), course.mmr_lambda
        started = time.perf_counter()
        found = await rerank_hits(reranker, self.question, hits, candidates=course.rerank_candidates, timeout_s=timeout_s)
        reranked = time.perf_counter()
        timings["rerank_ms"] = (reranked - started) * 1000
        if mmr_lambda is None or ranked.vectors is None:
            return found.hits[: self.top_k], found.degraded
        alive = np.array([chunk is not None for chunk in chunks], np.bool_)
        scores, vectors = np.array([hit.score for hit in found.hits], np.float32), ranked.vectors[alive][found.places]
        chosen = await resources.question_workers.run(most_diverse, scores, vectors, self.top_k, mmr_lambda=mmr_lambda)
        timings["diversify_ms"] = (time.perf_counter() - reranked) * 1000
        return [found.hits[place] for place in chosen.tolist()], found.degraded

    async def _fetch(self, resources: Resources, ranked: Ranked) -> list[StoredChunk | None]:
        """The chunk of each key; None where it was deleted after the views were read."""
        numbers = ranked.keys >> COLLECTION_SHIFT
        rows = ranked.keys & ((1 << COLLECTION_SHIFT) - 1)
        found: dict[tuple[int, int], StoredChunk] = {}
        for number, scope in enumerate(self.scopes):
            for chunk in await resources.store.fetch(scope, rows[numbers == number].tolist()):
                found[number, chunk.row] = chunk
        return [found.get(key) for key in zip(numbers.tolist(), rows.tolist(), strict=True)]

    def _hits(self, ranked: Ranked, chunks: Sequence[StoredChunk | None]) -> list[ScoredChunk]:
        numbers = (ranked.keys >> COLLECTION_SHIFT).tolist()
        return [
            ScoredChunk(
                chunk_id=chunk.row,
                document_id=chunk.document_id,
                document_version=chunk.document_version,
                score=score,
                dense_score=None if math.isnan(dense) else dense,
                lexical_score=None if math.isnan(lexical) else lexical,
                text=chunk.text,
                source=chunk.source,
                metadata=chunk.metadata,
                start=chunk.start,
                end=chunk.end,
                heading=chunk.heading,
                page=chunk.page,
                collection=self.scopes[number].collection,
            )
            for number, chunk, score, dense, lexical in zip(
                numbers, chunks, ranked.scores.tolist(), ranked.dense.tolist(), ranked.lexical.tolist(), strict=True
            )
            if chunk is not None
        ]
