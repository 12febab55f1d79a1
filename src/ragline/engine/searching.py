"""One search: views at the head, both legs as one job on one thread, texts that are surely alive."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pyroaring import BitMap64

from ragline.concurrency.workers import drive
from ragline.embedding.base import Embedder
from ragline.engine.resources import Resources
from ragline.errors import CorruptionError, ModelMismatchError
from ragline.filters import Filter
from ragline.retrieval.hybrid import COLLECTION_SHIFT, Mode, Ranked, Target, search_views
from ragline.storage.base import Head, StoredChunk
from ragline.types import Float32, Scope, ScoredChunk, SearchResult

VIEW_WAIT_S = 0.05
"""How long a question waits for the views to reach the store's head before it is answered with the lag stated."""

ATTEMPTS = 3
"""A search that met a row deleted meanwhile runs again at the new head, twice at most."""


@dataclass(frozen=True, slots=True)
class Search:
    """A question ready to be searched: normalised, its filter parsed, its scopes known."""

    question: str
    top_k: int
    mode: Mode
    filter: Filter | None
    documents: Sequence[str] | None
    scopes: Sequence[Scope]

    async def run(self, resources: Resources) -> SearchResult:
        """Searches; again where a document changed or an index file proved damaged while it ran."""
        started = time.perf_counter()
        for attempt in range(ATTEMPTS):
            targets, heads = await self._targets(resources)
            embedder = await self._embedder(resources, heads)
            epochs = [target.views.epoch for target in targets]
            waited = time.perf_counter()
            try:
                job = self._search_once(resources, embedder, targets, waited)
                if embedder is None or (embedder.is_local and resources.store.is_local):
                    ranked, chunks, timings = await resources.question_workers.run(drive, job)
                else:
                    ranked, chunks, timings = await job
            except CorruptionError:
                if attempt == ATTEMPTS - 1:
                    raise
                for target, epoch in zip(targets, epochs, strict=True):
                    await resources.follower.mend(target.views, epoch)
                continue
            if None not in chunks:
                break
        dropped = chunks.count(None)
        lags = [max(0, head.lsn - lsn) for head, lsn in zip(heads, ranked.lsns, strict=True)]
        timings = {"wait_ms": (waited - started) * 1000, **timings}
        timings["total_ms"] = (time.perf_counter() - started) * 1000
        return SearchResult(
            hits=tuple(self._hits(ranked, chunks)),
            lsn=ranked.lsns[0] if len(self.scopes) == 1 else {s.collection: lsn for s, lsn in zip(self.scopes, ranked.lsns, strict=True)},
            lag=max(max(lags), 1 if dropped else 0),
            degraded=ranked.degraded,
            timings=timings,
        )

    async def _targets(self, resources: Resources) -> tuple[list[Target], list[Head]]:
        targets, heads = [], []
        for scope in self.scopes:
            views, head = await resources.follower.views(scope, wait_s=VIEW_WAIT_S)
            rows = None
            if self.documents is not None:
                rows = BitMap64(await resources.store.rows(scope, self.documents))
            targets.append(Target(views, rows))
            heads.append(head)
        return targets, heads

    async def _embedder(self, resources: Resources, heads: Sequence[Head]) -> Embedder | None:
        """The embedder of the collections searched; None where there is nothing to embed for."""
        scopes = [scope for scope, head in zip(self.scopes, heads, strict=True) if head.model]
        if self.mode == "lexical" or not scopes:
            return None
        embedders = [await resources.embedder_for(scope) for scope in scopes]
        if len({embedder.fingerprint for embedder in embedders}) > 1:
            names = ", ".join(f"{scope.collection} ({embedder.name})" for scope, embedder in zip(scopes, embedders, strict=True))
            raise ModelMismatchError(
                f"these collections were embedded with different models: {names}",
                hint="search them one by one, or bring them to one model with `ragline reindex --model X`",
            )
        return embedders[0]

    async def _search_once(
        self, resources: Resources, embedder: Embedder | None, targets: Sequence[Target], queued: float
    ) -> tuple[Ranked, list[StoredChunk | None], dict[str, float]]:
        """Embeds, searches and fetches. With local parts it never suspends and runs as one job on a worker."""
        started = time.perf_counter()
        vector: Float32 | None = None
        if embedder is not None:
            vector = (await embedder.embed_questions([self.question]))[0]
        embedded = time.perf_counter()
        ranked = await resources.question_workers.run(
            search_views,
            targets,
            self.question,
            vector,
            top_k=self.top_k,
            mode=self.mode,
            filter=self.filter,
            settings=resources.settings.retrieval,
        )
        searched = time.perf_counter()
        chunks = await self._fetch(resources, ranked)
        timings = {"queue_ms": (started - queued) * 1000, "embed_ms": (embedded - started) * 1000, **ranked.timings}
        timings["fetch_ms"] = (time.perf_counter() - searched) * 1000
        return ranked, chunks, timings

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
                dense_score=None if np.isnan(dense) else dense,
                lexical_score=None if np.isnan(lexical) else lexical,
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
