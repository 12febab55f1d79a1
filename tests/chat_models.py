"""Generators over imitated language model servers, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import pytest
from pydantic import SecretStr

from ragline.concurrency.workers import Workers
from ragline.embedding.estimated_tokenizer import EstimatedTokenizer
from ragline.errors import RaglineError
from ragline.generation.base import Generated, Generator
from ragline.generation.chat import ChatGenerator
from ragline.generation.extractive import ExtractiveGenerator
from ragline.generation.opening import open_generator
from ragline.settings import GenerationSettings, PoolSettings
from ragline.types import Citation, ScoredChunk
from tests.embedders import HashEmbedder
from tests.imitation.chat import MODEL, ChatServer

QUESTION = "How often do keys rotate?"
TEXTS = (
    "Each buoy signs its records. Keys rotate every ninety days. A lost key is revoked within one hour.",
    "The ferry leaves at noon on Sundays. Dogs travel free on the lower deck.",
    "The harbour office opens at nine. It keeps no copy of a key.",
)


def evidence(*texts: str) -> list[ScoredChunk]:
    """Chunks that each begin at 1000 in a document of their own."""
    return [
        ScoredChunk(
            100 + place, f"doc-{place}", 3, 1 / (place + 1), None, None, text, f"docs/{place}.md", {}, 1000, 1000 + len(text), "", None
        )
        for place, text in enumerate(texts or TEXTS)
    ]


def settings_for(server: ChatServer, **settings: Any) -> GenerationSettings:
    if "api_key" in settings:
        settings["api_key"] = SecretStr(settings["api_key"])
    return GenerationSettings(**{"generator": server.protocol, "model": MODEL, "base_url": server.base_url, **settings})


def open_chat(server: ChatServer, workers: Workers, *, pool: PoolSettings | None = None, **settings: Any) -> ChatGenerator:
    opened = open_generator(
        settings_for(server, **settings),
        pool or PoolSettings(),
        count_tokens=EstimatedTokenizer().count,
        fallback=ExtractiveGenerator(HashEmbedder(256), max_sentences=4, workers=workers),
        workers=workers,
    )
    assert isinstance(opened, ChatGenerator)
    return opened


async def pieces_of(
    generator: Generator, question: str = QUESTION, hits: Sequence[ScoredChunk] | None = None
) -> list[str | Citation | Generated]:
    """All that is told, having checked what every generator promises of it."""
    hits = evidence() if hits is None else hits
    async with aclosing(generator.generate(question, hits)) as told:  # type: ignore[type-var]
        pieces = [piece async for piece in told]
    whole = pieces[-1]
    before = [piece for piece in pieces if not isinstance(piece, Generated)]
    assert isinstance(whole, Generated) and len(before) == len(pieces) - 1
    assert "".join(piece for piece in before if isinstance(piece, str)) == whole.text
    assert all(piece for piece in before)
    assert tuple(piece for piece in before if isinstance(piece, Citation)) == whole.citations
    texts = {chunk.chunk_id: chunk for chunk in hits}
    said = ""
    number = 0
    for piece in before:
        if isinstance(piece, str):
            said += piece
            continue
        number += 1
        assert said.endswith(f"[{number}]")
        chunk = texts[piece.chunk_id]
        assert piece.quote and (piece.document_id, piece.document_version) == (chunk.document_id, chunk.document_version)
        assert chunk.text[piece.start - chunk.start : piece.end - chunk.start] == piece.quote
    assert whole.found or not whole.citations
    return pieces


async def answer_of(generator: Generator, question: str = QUESTION, hits: Sequence[ScoredChunk] | None = None) -> Generated:
    whole = (await pieces_of(generator, question, hits))[-1]
    assert isinstance(whole, Generated)
    return whole


async def failed(server: ChatServer, workers: Workers, **settings: Any) -> RaglineError:
    """The error without a fallback."""
    opened = open_chat(server, workers, fallback=False, **settings)
    try:
        with pytest.raises(RaglineError) as caught:
            await answer_of(opened)
    finally:
        await opened.close()
    assert caught.value.message and caught.value.hint
    return caught.value
