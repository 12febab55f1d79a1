"""Evaluation: metric values worked out by hand, and sets that are not in the layout."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ragline.bench.evaluation import (
    DEPTH,
    LabelledSet,
    Mode,
    evaluate,
    load_labelled_set,
    measure,
    ndcg,
    rank_documents,
    recall,
    reciprocal_rank,
)
from ragline.errors import InputError
from ragline.types import Document, IngestProgress, IngestReport, ScoredChunk, SearchResult

CORPUS = [{"_id": "d1", "title": "Keys", "text": "They rotate."}, {"_id": "d2", "title": "", "text": "Apples."}, {"_id": 3, "text": ""}]
QUERIES = [{"_id": "q1", "text": "rotate keys?"}, {"_id": "q2", "text": "fruit?"}, {"_id": "q3", "text": "unlabelled"}]
LABELS = "query-id\tcorpus-id\tscore\nq1\td1\t2\nq2\td2\t1\nq2\td1\t0\nq3\td1\t0\n"


def chunk(document_id: str, score: float = 1.0, number: int = 0) -> ScoredChunk:
    return ScoredChunk(number, document_id, 1, score, None, None, "text", None, {}, 0, 4)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "corpus.jsonl").write_text("\n".join(json.dumps(entry) for entry in CORPUS) + "\n")
    (tmp_path / "queries.jsonl").write_text("\n\n".join(json.dumps(entry) for entry in QUERIES))
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text(LABELS)
    return tmp_path


def test_ndcg_uses_the_grade_as_gain_and_log2_as_discount() -> None:
    # Ranking gains 1, 0, 3 at ranks 1, 2, 3: 1/1 + 3/2. Ideal 3, 2, 1: 3/1 + 2/log2(3) + 1/2.
    relevance = {"a": 3, "b": 1, "c": 2}
    expected = (1 + 3 / 2) / (3 + 2 / math.log2(3) + 1 / 2)
    assert ndcg(["b", "x", "a"], relevance, 10) == pytest.approx(expected)
    assert expected == pytest.approx(0.5250, abs=5e-5)


def test_ndcg_looks_at_the_first_k_only() -> None:
    relevance = {"a": 1, "b": 1, "c": 1}
    assert ndcg(["x", "a", "b"], relevance, 2) == pytest.approx((1 / math.log2(3)) / (1 + 1 / math.log2(3)))
    assert ndcg(["x", "y", "a"], relevance, 2) == 0
    assert ndcg(["c", "b", "a"], relevance, 2) == 1


def test_negative_grades_neither_gain_nor_cost() -> None:
    assert ndcg(["bad", "good"], {"bad": -2, "good": 1}, 10) == pytest.approx(1 / math.log2(3))
    assert recall(["bad"], {"bad": -2, "good": 1}, 10) == 0
    assert reciprocal_rank(["bad", "good"], {"bad": -2, "good": 1}) == 0.5


def test_recall_is_the_share_of_relevant_documents_found() -> None:
    relevance = {"a": 1, "b": 2, "c": 1, "d": 0}
    assert recall(["x", "a", "b", "d"], relevance, 2) == pytest.approx(1 / 3)
    assert recall(["x", "a", "b", "d"], relevance, 10) == pytest.approx(2 / 3)
    assert recall([], relevance, 10) == 0


def test_reciprocal_rank_is_of_the_first_relevant_document() -> None:
    assert reciprocal_rank(["x", "y", "a", "b"], {"a": 1, "b": 1}) == pytest.approx(1 / 3)
    assert reciprocal_rank(["x"], {"a": 1}) == 0


def test_the_figures_are_means_over_labelled_queries() -> None:
    qrels = {"q1": {"a": 1}, "q2": {"b": 1}, "q3": {"c": 1}}
    deep = [f"x{number}" for number in range(10)]
    figures = measure({"q1": ["a"], "q2": [*deep, "b"]}, qrels, p50_ms=1.5)
    assert figures.ndcg_at_10 == pytest.approx(1 / 3)
    assert figures.recall_at_10 == pytest.approx(1 / 3)
    assert figures.recall_at_100 == pytest.approx(2 / 3)
    assert figures.mrr == pytest.approx((1 + 1 / 11) / 3)
    assert figures.p50_ms == 1.5


def test_documents_rank_by_their_best_chunk() -> None:
    hits = [chunk("b", 0.9, 1), chunk("a", 0.8, 2), chunk("b", 0.7, 3), chunk("c", 0.6, 4)]
    assert rank_documents(hits) == ["b", "a", "c"]


def test_a_set_is_read_with_titles_in_front_and_unlabelled_queries_left_out(folder: Path) -> None:
    labelled = load_labelled_set(folder)
    assert labelled.documents == (
        Document("Keys\nThey rotate.", id="d1"),
        Document("Apples.", id="d2"),
        Document("", id="3"),
    )
    assert labelled.queries == {"q1": "rotate keys?", "q2": "fruit?"}
    assert labelled.qrels == {"q1": {"d1": 2}, "q2": {"d2": 1, "d1": 0}}


def test_another_split_can_be_chosen(folder: Path) -> None:
    (folder / "qrels" / "dev.tsv").write_text("q3\td2\t1\n")  # and the heading may be missing
    assert load_labelled_set(folder, split="dev").qrels == {"q3": {"d2": 1}}


def drop(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def write(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (drop("corpus.jsonl"), "corpus.jsonl is missing"),
        (drop("qrels/test.tsv"), "qrels/test.tsv is missing"),
        (write("corpus.jsonl", b'{"_id": "1", "text": "x"}\n{"_id": '), "corpus.jsonl, line 2 is not JSON"),
        (write("corpus.jsonl", b"[1]\n"), "line 1 is not a JSON object"),
        (write("corpus.jsonl", b'{"text": "x"}\n'), "no text under '_id'"),
        (write("corpus.jsonl", b'{"_id": "1"}\n'), "no text under 'text'"),
        (write("corpus.jsonl", b"\n"), "holds no documents"),
        (write("queries.jsonl", b'{"_id": "q\xff"}'), "queries.jsonl is not UTF-8"),
        (write("queries.jsonl", b'{"_id": "q9", "text": "x"}\n'), "labels the query 'q1'"),
        (write("corpus.jsonl", b'{"_id": "1", "text": ' + b"[" * 100_000), "corpus.jsonl, line 1 is not JSON"),
        (write("corpus.jsonl", b'{"_id": "1", "text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"), "line 1 is not JSON: it is nested too"),
        (write("qrels/test.tsv", b"q1\td1\t1\nq9\td1\t0\nq8\td1\t1\n"), "labels the query 'q9' (and 1 more), which queries.jsonl lacks"),
        (write("qrels/test.tsv", b"query-id\tcorpus-id\tscore\nq1 d1 1\n"), "test.tsv, line 2 is not a label"),
        (write("qrels/test.tsv", b"query-id\tcorpus-id\tscore\nq1\td1\t0\n"), "holds no relevant labels"),
    ],
)
def test_a_folder_that_is_no_labelled_set_is_refused_by_file_and_line(folder: Path, spoil: Callable[[Path], object], words: str) -> None:
    spoil(folder)
    with pytest.raises(InputError) as caught:
        load_labelled_set(folder)
    assert words in caught.value.message
    assert caught.value.hint


def test_a_missing_split_names_those_there_are(folder: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_labelled_set(folder, split="train")
    assert "test" in caught.value.hint


def test_a_missing_corpus_is_not_blamed_on_the_split(folder: Path) -> None:
    (folder / "corpus.jsonl").unlink()
    with pytest.raises(InputError) as caught:
        load_labelled_set(folder)
    assert "--split" not in caught.value.hint
    assert "unpacked" in caught.value.hint


def test_a_path_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder"):
        load_labelled_set(tmp_path / "absent")


class ManyChunks:
    """Answers as an engine does whose documents d0, d1, ... have ten chunks each, all of d0's first."""

    def __init__(self, documents: int) -> None:
        self.chunks = [chunk(f"d{number // 10}", number=number) for number in range(10 * documents)]
        self.asked: list[tuple[str | None, int]] = []

    async def ingest(
        self, sources: Sequence[Document], *, collection: str | None = None, progress: Callable[[IngestProgress], None] | None = None
    ) -> IngestReport:
        return IngestReport(added=len(sources))

    async def search(
        self, question: str, *, top_k: int | None = None, collections: str | None = None, mode: Mode | None = None
    ) -> SearchResult:
        assert top_k is not None
        assert collections == "set"
        self.asked.append((mode, top_k))
        return SearchResult(tuple(self.chunks[:top_k]), lsn=1)


@pytest.mark.parametrize(("documents", "widths"), [(5, [100]), (30, [100, 200, 400]), (500, [100, 200, 400, 800, 1000])])
async def test_searches_widen_until_a_hundred_documents_are_ranked(documents: int, widths: list[int]) -> None:
    engine = ManyChunks(documents)
    last = f"d{min(documents, DEPTH) - 1}"
    labelled = LabelledSet((Document("x", id="d0"),), {"q": "what?"}, {"q": {"d1": 1, last: 1}})
    found = await evaluate(engine, labelled, collection="set")
    assert [top_k for mode, top_k in engine.asked if mode == "hybrid"] == widths
    assert list(found.figures) == ["dense", "lexical", "hybrid"]
    assert found.figures["dense"].recall_at_100 == 1
    assert found.figures["dense"].mrr == 0.5
    assert found.figures["dense"].p50_ms > 0
    assert (found.queries, found.report.added) == (1, 1)


async def test_a_wider_search_does_not_change_the_head_of_the_ranking() -> None:
    class Fickle(ManyChunks):
        async def search(self, question: str, **options: Any) -> SearchResult:
            result = await super().search(question, **options)
            return result if options["top_k"] == 100 else SearchResult(tuple(reversed(result.hits)), lsn=1)

    labelled = LabelledSet((), {"q": "what?"}, {"q": {"d0": 1}})
    assert (await evaluate(Fickle(30), labelled, collection="set")).figures["lexical"].mrr == 1
