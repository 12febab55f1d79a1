"""Hits that bring the text around them: what the generator sees, and what stays as it is."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from ragline.engine import Engine
from ragline.errors import CorruptionError
from ragline.generation.base import Generated
from ragline.retrieval.neighbours import widen
from ragline.settings import ChunkingSettings, GenerationSettings, RetrievalSettings
from ragline.storage.encoding import compress, decompress_slices
from ragline.types import Citation, Document, ScoredChunk, Turn
from tests.documents import write_pdf
from tests.engines import engine

TOPICS = ["lighthouse", "harbour", "granite", "orchard", "violin", "compass", "lantern", "meadow", "anvil", "teapot"]
TEXT = "\n\n \t".join(
    f"The {topic} was drawn by Ünal in part {n} 😀, and nobody knew why it stood there so long." for n, topic in enumerate(TOPICS)
)
CHUNKING = ChunkingSettings(max_tokens=24)
ROOM = 100_000


class Listener:
    """A generator that answers nothing and keeps the evidence it was given."""

    fingerprint = "listener"
    shares_answers = False

    def __init__(self) -> None:
        self.evidence: Sequence[ScoredChunk] = ()

    async def generate(
        self, question: str, evidence: Sequence[ScoredChunk], history: Sequence[Turn] = ()
    ) -> AsyncIterator[str | Citation | Generated]:
        self.evidence = evidence
        yield Generated("", (), found=False)

    async def close(self) -> None:
        pass


async def hits_of(opened: Engine, *topics: str, collection: str | None = None) -> list[ScoredChunk]:
    """The chunk of each topic, as hits in this order."""
    return [(await opened.search(topic, top_k=1, mode="lexical", collections=collection))[0] for topic in topics]


async def widened(
    opened: Engine, hits: Sequence[ScoredChunk], neighbours: int = 1, *, prompt_tokens: int = ROOM, tenant: str = "default"
) -> tuple[ScoredChunk, ...]:
    return await widen(
        opened._resources.store, opened._resources.question_workers, tenant, hits, neighbours=neighbours, prompt_tokens=prompt_tokens
    )


def topics_in(chunk: ScoredChunk) -> list[str]:
    return [topic for topic in TOPICS if topic in chunk.text]


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Engine]:
    async with engine(tmp_path, chunking=CHUNKING) as opened:
        await opened.ingest(Document(TEXT, id="story"))
        assert len(await opened.chunks("story")) == len(TOPICS)
        yield opened


async def test_a_hit_brings_the_chunks_on_either_side_as_one_text(opened: Engine) -> None:
    (hit,) = await hits_of(opened, "violin")
    (one,) = await widened(opened, [hit])
    assert topics_in(one) == ["orchard", "violin", "compass"]
    assert one.text == TEXT[one.start : one.end] and len(one.text) == one.end - one.start
    assert (one.chunk_id, one.document_id, one.document_version, one.score) == (
        hit.chunk_id,
        hit.document_id,
        hit.document_version,
        hit.score,
    )
    (three,) = await widened(opened, [hit], 3)
    assert topics_in(three) == TOPICS[1:8] and three.text == TEXT[three.start : three.end]


@pytest.mark.parametrize(("topic", "expected"), [("lighthouse", TOPICS[:3]), ("teapot", TOPICS[-3:])])
async def test_at_the_ends_of_a_document_there_is_less_to_bring(topic: str, expected: list[str], opened: Engine) -> None:
    await opened.ingest([Document("The cellar is empty.", id="before"), Document("The attic is full.", id="after")])
    (one,) = await widened(opened, await hits_of(opened, topic), 2)
    assert topics_in(one) == expected and one.text == TEXT[one.start : one.end]


async def test_without_neighbours_hits_stay_as_they_are_even_beside_each_other(opened: Engine) -> None:
    hits = await hits_of(opened, "violin", "compass")
    assert await widened(opened, hits, 0) == tuple(hits)
    assert await widened(opened, []) == ()


async def test_hits_near_each_other_become_one_in_the_place_of_the_best(opened: Engine) -> None:
    hits = await hits_of(opened, "teapot", "granite", "harbour", "violin")  # the last three overlap or touch
    evidence = await widened(opened, hits)
    assert [topics_in(chunk) for chunk in evidence] == [["anvil", "teapot"], TOPICS[:6]]
    assert [chunk.chunk_id for chunk in evidence] == [hits[0].chunk_id, hits[1].chunk_id]
    assert all(chunk.text == TEXT[chunk.start : chunk.end] for chunk in evidence)


async def test_no_text_comes_twice_whatever_the_hits(opened: Engine) -> None:
    for neighbours in (1, 2, 20):
        for chosen in (TOPICS, TOPICS[::-1], TOPICS[::2], TOPICS[1::3], [*TOPICS[5:], *TOPICS[:2]]):
            evidence = await widened(opened, await hits_of(opened, *chosen), neighbours)
            found = [topic for chunk in evidence for topic in topics_in(chunk)]
            assert len(found) == len(set(found)) and set(chosen) <= set(found)
            assert all(chunk.text == TEXT[chunk.start : chunk.end] for chunk in evidence)


async def test_neighbours_are_added_while_there_is_room_nearest_and_best_first(opened: Engine) -> None:
    hits = await hits_of(opened, "violin", "lighthouse")
    grown = [[topics_in(chunk) for chunk in await widened(opened, hits, 2, prompt_tokens=tokens)] for tokens in range(20, 400)]
    steps = [step for step, before in zip(grown[1:], grown, strict=False) if step != before]
    assert grown[0] == [["violin"], ["lighthouse"]]
    assert steps == [
        [["orchard", "violin"], ["lighthouse"]],
        [["orchard", "violin", "compass"], ["lighthouse"]],
        [["orchard", "violin", "compass"], ["lighthouse", "harbour"]],
        [TOPICS[:6]],
        [TOPICS[:7]],
    ]


async def test_texts_that_take_more_tokens_bring_fewer_neighbours(tmp_path: Path) -> None:
    async with engine(tmp_path, chunking=CHUNKING) as opened:
        letters, signs = ("".join(f"{sign * 40} w{n}.\n\n" for n in range(30)) for sign in ("abcd ", "鑰匙旋轉"))
        found = []
        for text in (letters, signs):
            await opened.ingest(Document(text, id="text"))
            (one,) = await widened(opened, await hits_of(opened, "w15"), 20, prompt_tokens=1500)
            assert one.text == text[one.start : one.end]
            found.append(len(one.text))
        assert found[0] > 1.5 * found[1]


async def test_chunks_that_overlap_are_not_repeated(tmp_path: Path) -> None:
    async with engine(tmp_path, chunking=ChunkingSettings(max_tokens=40, overlap_tokens=19)) as opened:
        await opened.ingest(Document(TEXT, id="story"))
        chunks = await opened.chunks("story")
        assert any(one.end > other.start for one, other in pairwise(chunks))
        (one,) = await widened(opened, await hits_of(opened, "violin"), 2)
        assert one.text == TEXT[one.start : one.end] and one.text.count("violin") == 1


async def test_a_document_replaced_or_deleted_meanwhile_keeps_the_plain_hit(opened: Engine) -> None:
    await opened.ingest(Document(TEXT.replace("The", "A"), id="other"), collection="second")
    hits = [*await hits_of(opened, "violin", "compass"), *await hits_of(opened, "granite", collection="second")]
    await opened.ingest(Document("Now " + TEXT, id="story"))
    await opened.delete("other", collection="second")
    assert await widened(opened, hits) == tuple(hits)


async def test_hits_of_several_collections_keep_to_their_own(opened: Engine) -> None:
    await opened.ingest(Document(TEXT.upper().lower(), id="story"), collection="second")
    hits = [*await hits_of(opened, "violin"), *await hits_of(opened, "violin", collection="second")]
    assert hits[0].chunk_id == hits[1].chunk_id
    first, second = await widened(opened, hits)
    assert first.text == TEXT[first.start : first.end] and "Ünal" in first.text
    assert second.collection == "second" and second.text == TEXT.upper().lower()[second.start : second.end]


async def test_neighbouring_rows_of_two_documents_are_no_neighbours(opened: Engine) -> None:
    await opened.ingest(Document("The attic is full.", id="attic"))
    hits = await hits_of(opened, "teapot", "attic")
    assert hits[0].chunk_id + 1 == hits[1].chunk_id
    assert [chunk.document_id for chunk in await widened(opened, hits, 2)] == ["story", "attic"]


async def test_another_tenants_text_is_never_brought(opened: Engine) -> None:
    hits = await hits_of(opened, "violin")
    assert await widened(opened, hits, 3, tenant="acme") == tuple(hits)


async def test_a_wide_gap_of_white_space_is_not_bridged(tmp_path: Path) -> None:
    text = TEXT.replace("\n\n \t", " " * 5000, 5)
    async with engine(tmp_path, chunking=CHUNKING) as opened:
        await opened.ingest(Document(text, id="story"))
        evidence = await widened(opened, await hits_of(opened, "granite", "harbour", "lantern"), 2)
        assert sorted(len(topics_in(chunk)) for chunk in evidence) == [1, 1, 4]
        assert all(chunk.text == text[chunk.start : chunk.end] for chunk in evidence)


async def test_the_heading_is_what_all_of_the_text_stands_under(tmp_path: Path) -> None:
    sections = [
        f"## {topic.title()}\n\nThe {topic} was drawn in part {n}, and nobody knew why it stood there so long."
        for n, topic in enumerate(TOPICS)
    ]
    text = "# Drawings\n\n" + "\n\n".join(sections)
    async with engine(tmp_path, chunking=ChunkingSettings(max_tokens=28)) as opened:
        await opened.ingest(Document(text, id="story"))
        (hit,) = await hits_of(opened, "violin drawn")
        assert hit.heading == "Drawings > Violin"
        (one,) = await widened(opened, [hit])
        assert one.heading == "Drawings" and "## Violin" in one.text and one.text == text[one.start : one.end]


async def test_the_page_is_the_one_on_which_the_text_begins(tmp_path: Path) -> None:
    pages = [[(12, f"The {topic} was drawn in part {n}, and nobody knew why it stood there so long.")] for n, topic in enumerate(TOPICS)]
    path = write_pdf(tmp_path / "story.pdf", pages)
    async with engine(tmp_path / "data", chunking=CHUNKING) as opened:
        report = await opened.ingest(path)
        (hit,) = await hits_of(opened, "violin")
        assert hit.page == 5
        (one,) = await widened(opened, [hit])
        assert one.page == 4 and one.text == (await opened.text(report.document_ids[0]))[one.start : one.end]


async def test_answers_are_made_from_the_wider_text_and_hits_stay_plain(tmp_path: Path) -> None:
    listener = Listener()
    async with engine(tmp_path, chunking=CHUNKING, retrieval=RetrievalSettings(neighbours=1, evidence=2)) as opened:
        opened._resources.own_generator = listener
        await opened.ingest(Document(TEXT, id="story"))
        plain = (await opened.search("violin compass", top_k=2)).hits
        answer = await opened.ask("violin compass")
        assert answer.hits == plain
        assert [topics_in(chunk) for chunk in listener.evidence] == [["orchard", "violin", "compass", "lantern"]]


async def test_extractive_citations_out_of_wider_text_point_at_what_they_quote(tmp_path: Path) -> None:
    settings = RetrievalSettings(neighbours=2, evidence=1)
    async with engine(tmp_path, chunking=CHUNKING, retrieval=settings, generation=GenerationSettings(prompt_tokens=2000)) as opened:
        await opened.ingest(Document(TEXT, id="story"))
        answer = await opened.ask("Why was the violin drawn in part 4, and the compass in part 5?")
        assert answer.found and answer.citations
        for citation in answer.citations:
            assert TEXT[citation.start : citation.end] == citation.quote


# The store's part


def test_slices_of_a_long_text_are_exact_across_every_window() -> None:
    text = "Ünï 中文 😀 the fox\n" * 200_000
    blob = compress(text)
    spans = [(at, at + 37) for at in range(0, len(text), 9973)] + [(0, len(text)), (len(text) - 3, len(text) + 9), (5, 5)]
    assert decompress_slices("d", blob, spans) == [text[start:end] for start, end in spans]


@pytest.mark.parametrize("damage", [lambda blob: blob[: len(blob) // 2], lambda blob: b"no zlib", lambda blob: zlib.compress(b"\xff" * 50)])
def test_slices_of_a_damaged_text_are_an_error(damage: object) -> None:
    assert callable(damage)
    with pytest.raises(CorruptionError, match="'d'"):
        decompress_slices("d", damage(compress(TEXT)), [(0, len(TEXT))])


async def test_hits_that_fill_the_prompt_by_themselves_stay_apart(tmp_path: Path) -> None:
    """As one passage they would be cut from the end, and the best of them may stand there."""
    async with engine(tmp_path, chunking=CHUNKING) as opened:
        await opened.ingest(Document(TEXT, id="story"))
        hits = await hits_of(opened, "compass", "violin")
        assert await widened(opened, hits, prompt_tokens=10) == tuple(hits)
        assert len(await widened(opened, hits)) == 1
