"""A hit brings the text around it, so that an answer is made from passages and not from snippets."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from ragline.concurrency.workers import Workers
from ragline.embedding.estimated_tokenizer import EstimatedTokenizer
from ragline.storage.base import Span, Store, StoredChunk
from ragline.types import Scope, ScoredChunk

Key: TypeAlias = tuple[str, int]
"""Collection and row."""

Rows: TypeAlias = Mapping[Key, StoredChunk]

_PROMPT_SHARE = 0.75
"""Of the prompt's tokens, what texts may take: question, instructions and sources need room too."""

_TOKENIZER = EstimatedTokenizer()

_FAR_CHARS = 1000
"""Between chunks there is nothing but white space. So much of it, and they are not read as one."""


@dataclass(slots=True)
class _Passage:
    """Neighbouring rows of one document version, and the places of the hits among them, best first."""

    rows: range
    places: list[int] = field(default_factory=list)


async def widen(
    store: Store, workers: Workers, tenant: str, hits: Sequence[ScoredChunk], *, neighbours: int, prompt_tokens: int
) -> tuple[ScoredChunk, ...]:
    """The hits, each with up to `neighbours` chunks of its document before and after it as one text.

    Hits whose chunks overlap or touch become one, in the place and under the name of the best of them, so that no text
    comes twice. Of every one, `document_text[start:end] == text` holds; `heading` is what the paths of its chunks have
    in common, and `page` is the first. A hit whose document was replaced or deleted meanwhile stays as it is.

    Args:
        workers: Where texts are counted. Stay the caller's to close.
        tenant: Whose hits they are.
        neighbours: Chunks on either side; they are taken nearest first, for the best hit first.
        prompt_tokens: The longest prompt. Neighbours are added only while all texts fit it well, so that none pushes
            another hit out; where the hits alone do not, they stay as they are.
    """
    if neighbours < 1 or not hits:
        return tuple(hits)
    rows = await _rows_around(store, tenant, hits, neighbours)
    chosen = await workers.run(_chosen, hits, rows, neighbours, int(_PROMPT_SHARE * prompt_tokens))
    if chosen is None:
        return tuple(hits)
    passages = _passages(hits, chosen, rows)
    texts = await _texts(store, tenant, hits, passages, rows)
    widened: dict[int, ScoredChunk] = {}
    for passage, text in zip(passages, texts, strict=True):
        best = passage.places[0]
        if text is None:
            widened |= {place: hits[place] for place in passage.places}
        else:
            widened[best] = _as_one(hits[best], [rows[hits[best].collection, row] for row in passage.rows], text)
    return tuple(widened[place] for place in sorted(widened))


async def _rows_around(store: Store, tenant: str, hits: Sequence[ScoredChunk], neighbours: int) -> Rows:
    wanted = defaultdict[str, set[int]](set)
    for hit in hits:
        wanted[hit.collection].update(range(hit.chunk_id - neighbours, hit.chunk_id + neighbours + 1))
    return {
        (collection, chunk.row): chunk
        for collection, numbers in wanted.items()
        for chunk in await store.fetch(Scope(tenant, collection), sorted(numbers))
    }


def _chosen(hits: Sequence[ScoredChunk], rows: Rows, neighbours: int, max_tokens: int) -> set[Key] | None:
    """The rows of the hits, and those of their neighbours that there is room for; None where the hits alone take more.

    Then they stay apart: as one long passage they might not fit the prompt, where the best of them does.
    """
    chosen = {(hit.collection, hit.chunk_id) for hit in hits}
    room = max_tokens - sum(_tokens(hit.text) for hit in hits)
    if room < 0:
        return None
    ends = {(place, side) for place, hit in enumerate(hits) for side in (-1, 1) if _is_current(hit, rows)}
    for distance in range(1, neighbours + 1):
        for place, side in sorted(ends):
            collection, row = hits[place].collection, hits[place].chunk_id + side * distance
            key = collection, row
            cost = _tokens(rows[key].text) if key in rows and key not in chosen else 0
            if cost <= room and _is_joined(rows, collection, min(row, row - side)):
                chosen.add(key)
                room -= cost
            else:
                ends.discard((place, side))
    return chosen


def _tokens(text: str) -> int:
    return len(_TOKENIZER.spans([text])[0].ids)


def _passages(hits: Sequence[ScoredChunk], chosen: set[Key], rows: Rows) -> list[_Passage]:
    """Each hit's run of chosen rows; one where it is that of a better hit."""
    passages: list[_Passage] = []
    passage_of: dict[Key, _Passage] = {}
    for place, hit in enumerate(hits):
        key = hit.collection, hit.chunk_id
        if key not in passage_of:
            passages.append(_Passage(_run(hit, chosen, rows)))
            passage_of |= {(hit.collection, row): passages[-1] for row in passages[-1].rows}
        passage_of[key].places.append(place)
    return passages


def _run(hit: ScoredChunk, chosen: set[Key], rows: Rows) -> range:
    first = last = hit.chunk_id
    if _is_current(hit, rows):
        while (hit.collection, first - 1) in chosen and _is_joined(rows, hit.collection, first - 1):
            first -= 1
        while (hit.collection, last + 1) in chosen and _is_joined(rows, hit.collection, last):
            last += 1
    return range(first, last + 1)


def _is_current(hit: ScoredChunk, rows: Rows) -> bool:
    chunk = rows.get((hit.collection, hit.chunk_id))
    return chunk is not None and (chunk.document_id, chunk.document_version) == (hit.document_id, hit.document_version)


def _is_joined(rows: Rows, collection: str, row: int) -> bool:
    """Whether this row and the next one are neighbours in one text."""
    one, other = rows.get((collection, row)), rows.get((collection, row + 1))
    return one is not None and other is not None and one.document_id == other.document_id and other.start - one.end <= _FAR_CHARS


async def _texts(store: Store, tenant: str, hits: Sequence[ScoredChunk], passages: Sequence[_Passage], rows: Rows) -> list[str | None]:
    """The text of each passage; None where it is a single chunk, or its document is not what it was."""
    spans = defaultdict[str, dict[int, Span]](dict)
    for number, passage in enumerate(passages):
        hit = hits[passage.places[0]]
        if len(passage.rows) > 1:
            start, end = rows[hit.collection, passage.rows[0]].start, rows[hit.collection, passage.rows[-1]].end
            spans[hit.collection][number] = Span(hit.document_id, hit.document_version, start, end)
    texts: list[str | None] = [None] * len(passages)
    for collection, of_collection in spans.items():
        found = await store.slices(Scope(tenant, collection), list(of_collection.values()))
        for number, text in zip(of_collection, found, strict=True):
            texts[number] = text
    return texts


def _as_one(hit: ScoredChunk, chunks: Sequence[StoredChunk], text: str) -> ScoredChunk:
    start = chunks[0].start
    heading = " > ".join(_common([chunk.heading.split(" > ") for chunk in chunks]))
    return replace(hit, text=text, start=start, end=start + len(text), heading=heading, page=chunks[0].page)


def _common(paths: Sequence[Sequence[str]]) -> Iterator[str]:
    for titles in zip(*paths, strict=False):
        if len(set(titles)) > 1:
            return
        yield titles[0]
