"""Maximal marginal relevance: the kernel, and in searches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ragline.retrieval.diversity import most_diverse
from ragline.settings import RetrievalSettings
from ragline.types import Document, Float16
from tests.embedders import HashEmbedder
from tests.engines import engine

ALIKE = "The keys of the vault rotate every ninety days"
DOCUMENTS = [
    Document(f"{ALIKE}.", id="first"),
    Document(f"{ALIKE}!", id="again"),
    Document(f"{ALIKE}...", id="once more"),
    Document("Keys open doors; lost ones are reported to the porter.", id="porter"),
    Document("A vault has thick walls and one keeper.", id="walls"),
]


def unit(*vectors: list[float]) -> Float16:
    rows = np.array(vectors)
    lengths = np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
    return np.asarray(rows / lengths, np.float16)


def by_definition(scores: list[float], vectors: Float16, top_k: int, mmr_lambda: float) -> list[int]:
    """Carbonell and Goldstein's formula, word for word."""
    low, high = min(scores), max(scores)
    relevance = [(score - low) / (high - low) if high > low else 1.0 for score in scores]
    cosines = vectors.astype(np.float64) @ vectors.astype(np.float64).T
    taken: list[int] = []
    while len(taken) < min(top_k, len(scores)):
        left = [i for i in range(len(scores)) if i not in taken]
        taken.append(max(left, key=lambda i: (round(mmr_lambda * relevance[i] - (1 - mmr_lambda) * max([0.0, *cosines[i, taken]]), 5), -i)))
    return taken


def test_a_candidate_that_repeats_a_better_one_gives_way() -> None:
    vectors = unit([1, 0], [1, 0.01], [0, 1])
    assert most_diverse(np.array([0.9, 0.8, 0.5], np.float32), vectors, 2, mmr_lambda=0.5).tolist() == [0, 2]
    assert most_diverse(np.array([0.9, 0.8, 0.5], np.float32), vectors, 3, mmr_lambda=0.5).tolist() == [0, 2, 1]


@pytest.mark.parametrize("mmr_lambda", [0.0, 0.3, 0.7, 1.0])
def test_it_is_the_published_formula(mmr_lambda: float) -> None:
    random = np.random.default_rng(7)
    for count in (1, 2, 5, 40):
        scores = -np.sort(-random.random(count)).astype(np.float32)
        vectors = unit(*random.standard_normal((count, 3)).tolist())
        found = most_diverse(scores, vectors, 12, mmr_lambda=mmr_lambda)
        assert found.tolist() == by_definition(scores.tolist(), vectors, 12, mmr_lambda)


def test_relevance_alone_keeps_the_order_whatever_the_scale_of_the_scores() -> None:
    vectors = unit([1, 0], [1, 0], [1, 0], [0, 1])
    for scores in ([4.0, 3.0, 3.0, -11.0], [0.0164, 0.0161, 0.0159, 0.01], [1e30, 1e20, 0.0, -1e30], [2.0, 2.0, 2.0, 2.0]):
        assert most_diverse(np.array(scores, np.float32), vectors, 4, mmr_lambda=1).tolist() == [0, 1, 2, 3]


def test_equal_scores_and_texts_are_taken_in_their_order() -> None:
    vectors = np.repeat(unit(np.random.default_rng(1).standard_normal(384).tolist()), 37, axis=0)
    assert most_diverse(np.ones(37, np.float32), vectors, 37, mmr_lambda=0.5).tolist() == list(range(37))


def test_a_candidate_without_a_vector_is_like_none() -> None:
    vectors = unit([1, 0], [1, 0], [0, 0])
    assert most_diverse(np.array([1.0, 0.9, 0.8], np.float32), vectors, 3, mmr_lambda=0.5).tolist() == [0, 2, 1]


def test_nothing_gives_nothing_and_fewer_than_wanted_give_all() -> None:
    assert most_diverse(np.empty(0, np.float32), np.empty((0, 8), np.float16), 5, mmr_lambda=0.5).tolist() == []
    assert sorted(most_diverse(np.array([2, 1], np.float32), unit([1, 0], [0, 1]), 5, mmr_lambda=0.5).tolist()) == [0, 1]


async def search(folder: Path, mmr_lambda: float | None, *, mode: str = "hybrid", top_k: int = 3) -> list[str]:
    async with engine(folder, retrieval=RetrievalSettings(mmr_lambda=mmr_lambda)) as opened:
        await opened.ingest(DOCUMENTS)
        result = await opened.search("how often do the keys of the vault rotate", top_k=top_k, mode=mode)  # type: ignore[arg-type]
        assert ("diversify_ms" in result.timings) == (mmr_lambda is not None)
        return [hit.document_id for hit in result]


@pytest.mark.parametrize("mode", ["hybrid", "dense", "lexical"])
async def test_hits_that_say_the_same_give_way_in_every_mode(mode: str, tmp_path: Path) -> None:
    plain = await search(tmp_path, None, mode=mode)
    assert set(plain) == {"first", "again", "once more"}
    diverse = await search(tmp_path, 0.3, mode=mode)
    assert diverse[0] == plain[0] and set(diverse[1:]) == {"porter", "walls"}
    assert await search(tmp_path, 1.0, mode=mode) == plain


async def test_each_hit_keeps_its_score_and_none_comes_twice(tmp_path: Path) -> None:
    async with engine(tmp_path) as opened:
        await opened.ingest(DOCUMENTS)
        scores = {hit.document_id: hit.score for hit in await opened.search("keys of the vault", top_k=5)}
    async with engine(tmp_path, retrieval=RetrievalSettings(mmr_lambda=0.3)) as opened:
        result = await opened.search("keys of the vault", top_k=5)
        assert {hit.document_id: hit.score for hit in result} == scores
        assert (await opened.search("keys of the vault", top_k=5)).hits == result.hits


async def test_it_looks_over_several_collections_and_within_a_filter(tmp_path: Path) -> None:
    async with engine(tmp_path, retrieval=RetrievalSettings(mmr_lambda=0.3)) as opened:
        for document, collection in zip(DOCUMENTS, ["a", "b", "a", "b", "a"], strict=True):
            await opened.ingest(Document(document.text, id=document.id, metadata={"kind": collection}), collection=collection)
        result = await opened.search("how often do the keys of the vault rotate", top_k=3, collections=["a", "b"])
        found = {hit.document_id for hit in result}
        assert {"porter", "walls"} < found and len(found & {"first", "again", "once more"}) == 1
        filtered = await opened.search(
            "how often do the keys of the vault rotate",
            top_k=2,
            collections=["a", "b"],
            filter={"kind": "b"},
            documents=["again", "porter"],
        )
        assert [hit.document_id for hit in filtered] == ["again", "porter"]


async def test_collections_of_two_models_do_not_compare_and_still_answer_by_words(tmp_path: Path) -> None:
    async with engine(tmp_path, embedder=HashEmbedder(64)) as opened:
        await opened.ingest(DOCUMENTS[:2], collection="a")
    async with engine(tmp_path, embedder=HashEmbedder(32), retrieval=RetrievalSettings(mmr_lambda=0.5)) as opened:
        await opened.ingest(DOCUMENTS[2:], collection="b")
        result = await opened.search("keys of the vault", top_k=5, mode="lexical", collections=["a", "b"])
        assert {hit.document_id for hit in result} == {document.id for document in DOCUMENTS}
