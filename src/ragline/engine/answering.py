"""Hits become an answer: their evidence is gathered, then quoted or written from."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence

from ragline.engine.resources import Resources
from ragline.engine.searching import Search
from ragline.generation.base import Generated, Generator
from ragline.generation.by_words import WordsFirst
from ragline.observe.records import RequestRecord
from ragline.retrieval.neighbours import widen
from ragline.types import Answer, Citation, Scope, ScoredChunk, SearchResult, StreamEvent


async def gather_evidence(
    search: Search, result: SearchResult, resources: Resources, record: RequestRecord
) -> tuple[Generator, Sequence[ScoredChunk]]:
    """Who answers, and from what: the hits, widened by their neighbours where that is set."""
    tenant = search.scopes[0].tenant
    generator = await resources.generator_for(_scopes(search, result))
    record.mark("model")  # a language model's client takes a second to open, once
    evidence = await widen(
        resources.store,
        resources.question_workers,
        tenant,
        result.hits,
        neighbours=resources.settings.retrieval.neighbours,
        prompt_tokens=resources.settings.generation.prompt_tokens,
    )
    return generator, evidence


def by_words_first(generator: Generator, resources: Resources, tenant: str) -> Generator:
    """A generator that spends little where it can: a language model, or comparing by meaning, only where words alone do not answer."""
    return WordsFirst(
        generator,
        max_sentences=resources.settings.generation.max_sentences,
        workers=resources.question_workers,
        take_apart=resources.takes_apart(tenant),
    )


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
