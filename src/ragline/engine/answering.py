"""Hits become an answer: their evidence is gathered, then quoted or written from."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace

from ragline.engine.resources import Resources
from ragline.engine.searching import Search
from ragline.generation.base import Generated, Generator
from ragline.observe.records import RequestRecord
from ragline.retrieval.neighbours import widen
from ragline.types import Answer, Citation, Scope, ScoredChunk, SearchResult, StreamEvent

LOAD_EXTRACTIVE = "load_extractive"
"""Degraded, because it was asked for with less effort: the documents are quoted, and no language model was asked."""

LIGHT_EVIDENCE = 3
"""So many of the best hits are quoted from then: each costs the embedding of its sentences."""


async def gather_evidence(search: Search, result: SearchResult, resources: Resources) -> tuple[Generator, Sequence[ScoredChunk]]:
    """Who answers, and from what: the hits, widened by their neighbours where that is set."""
    tenant = search.scopes[0].tenant
    generator = await resources.generator_for(_scopes(search, result))
    evidence = await widen(
        resources.store,
        resources.question_workers,
        tenant,
        result.hits,
        neighbours=resources.settings.retrieval.neighbours,
        prompt_tokens=resources.settings.generation.prompt_tokens,
    )
    return generator, evidence


async def without_language_model(
    search: Search, generator: Generator, evidence: Sequence[ScoredChunk], result: SearchResult, resources: Resources
) -> tuple[Generator, Sequence[ScoredChunk], SearchResult]:
    """A generator that quotes, from the best hits alone, and the result that says so.

    All as they are where the generator quotes already, where nothing can be quoted, and where no thread is free: quoting computes
    here, a language model mostly elsewhere, and where threads are what is scarce it would make things worse.
    """
    if not generator.shares_answers or resources.question_workers.waiting:  # not shared: its answers are cheap
        return generator, evidence, result
    quoting = await resources.extractive_for(_scopes(search, result))
    if quoting is None:
        return generator, evidence, result
    return quoting, evidence[:LIGHT_EVIDENCE], replace(result, degraded=(*result.degraded, LOAD_EXTRACTIVE))


def _scopes(search: Search, result: SearchResult) -> Sequence[Scope]:
    return [Scope(search.scopes[0].tenant, hit.collection) for hit in result] or search.scopes


async def write_answer(
    generator: Generator, search: Search, evidence: Sequence[ScoredChunk], result: SearchResult, record: RequestRecord
) -> AsyncGenerator[StreamEvent, None]:
    """Text and citations as they come, then the answer whole. Closing it ends the work.

    Args:
        record: Began when the question came; its timings become the answer's.
    """
    pieces = generator.generate(search.asked, evidence, search.history)
    try:
        async for piece in pieces:
            if isinstance(piece, str):
                yield StreamEvent("token", piece)
            elif isinstance(piece, Citation):
                yield StreamEvent("citation", piece)
            else:
                record.mark("generate")
                yield StreamEvent("answer", _finished(piece, result, record.timings()))
    finally:
        if isinstance(pieces, AsyncGenerator):  # at once, not when it is collected: a language model may be writing
            await pieces.aclose()


def stages_of(timings: Mapping[str, float]) -> dict[str, float]:
    """Timings as part of something larger."""
    return {stage: took for stage, took in timings.items() if stage != "total_ms"}


def _finished(generated: Generated, result: SearchResult, timings: Mapping[str, float]) -> Answer:
    return Answer(
        text=generated.text,
        citations=generated.citations,
        found=generated.found,
        hits=result.hits,
        lsn=result.lsn,
        lag=result.lag,
        degraded=(*result.degraded, *generated.degraded),
        timings=timings,
        dropped_citations=generated.dropped_citations,
    )
