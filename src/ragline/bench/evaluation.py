"""How good is retrieval? A labelled set in BEIR's layout becomes figures for each way of searching."""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

from ragline.errors import InputError
from ragline.types import Document, IngestProgress, IngestReport, ScoredChunk, SearchResult

Mode: TypeAlias = Literal["dense", "lexical", "hybrid"]
Qrels: TypeAlias = Mapping[str, Mapping[str, int]]
"""Relevance by query id and document id; above 0 is relevant."""

MODES: tuple[Mode, ...] = ("dense", "lexical", "hybrid")
DEPTH = 100
"""Documents ranked for each query."""

MAX_TOP_K = 1000
"""The most chunks one search may be asked for."""


@dataclass(frozen=True, slots=True)
class LabelledSet:
    """Documents, queries, and which documents answer which query.

    Attributes:
        documents: As ingested: the title is the first line of the text, so that it counts on both legs.
        queries: Texts by id, of those queries that have a relevant document, in the order of the file.
        qrels: Of these queries.
    """

    documents: tuple[Document, ...]
    queries: Mapping[str, str]
    qrels: Qrels


@dataclass(frozen=True, slots=True)
class Figures:
    """Means over the queries of a labelled set.

    Attributes:
        ndcg_at_10, recall_at_10, recall_at_100: From 0 to 1, as trec_eval computes them.
        mrr: Mean of 1 / rank of the first relevant document among the first 100; 0 where there is none.
        p50_ms: The median time of one search for 100 chunks, in milliseconds.
    """

    ndcg_at_10: float
    recall_at_10: float
    recall_at_100: float
    mrr: float
    p50_ms: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What an evaluation found, and what it was made from."""

    figures: Mapping[Mode, Figures]
    queries: int
    report: IngestReport


class Engine(Protocol):
    """What an evaluation needs of `ragline.Engine`."""

    async def ingest(
        self, sources: Sequence[Document], *, collection: str | None = None, progress: Callable[[IngestProgress], None] | None = None
    ) -> IngestReport:
        """Stores documents."""
        ...

    async def search(
        self, question: str, *, top_k: int | None = None, collections: str | None = None, mode: Mode | None = None
    ) -> SearchResult:
        """Finds chunks."""
        ...


async def evaluate(
    engine: Engine,
    labelled: LabelledSet,
    *,
    collection: str | None = None,
    progress: Callable[[IngestProgress], None] | None = None,
    announce: Callable[[str], None] | None = None,
) -> Evaluation:
    """Ingests a labelled set and measures each mode of searching on it, one query at a time.

    A document ranks where its best chunk does. Documents that give no text are never found and count against
    recall, as they should. Anything else in the collection is ranked with them. `announce` is given a
    sentence before each step.
    """
    say = announce or (lambda _: None)
    say(f"ingesting {len(labelled.documents)} documents")
    report = await engine.ingest(labelled.documents, collection=collection, progress=progress)
    if report.failed and len(report.failed) == len(labelled.documents):
        raise InputError(f"no document could be ingested; the first: {report.failed[0].error}", hint=report.failed[0].hint)
    figures: dict[Mode, Figures] = {}
    for mode in MODES:
        say(f"searching {len(labelled.queries)} queries ({mode})")
        run: dict[str, Sequence[str]] = {}
        milliseconds: list[float] = []
        for query_id, query in labelled.queries.items():
            run[query_id], spent = await _ranked_documents(engine, query, collection, mode)
            milliseconds.append(spent)
        figures[mode] = measure(run, labelled.qrels, p50_ms=statistics.median(milliseconds))
    return Evaluation(figures, len(labelled.queries), report)


async def _ranked_documents(engine: Engine, query: str, collection: str | None, mode: Mode) -> tuple[list[str], float]:
    """The first documents for a query, and the milliseconds of the first search.

    Where the first chunks are of too few documents, wider searches only add documents below: the head of the
    ranking stays what a user of the engine sees.
    """
    top_k = DEPTH
    start = time.perf_counter()
    hits = await engine.search(query, top_k=top_k, collections=collection, mode=mode)
    spent = 1000 * (time.perf_counter() - start)
    ranking = rank_documents(hits)
    while len(ranking) < DEPTH and len(hits) == top_k and top_k < MAX_TOP_K:
        top_k = min(2 * top_k, MAX_TOP_K)
        hits = await engine.search(query, top_k=top_k, collections=collection, mode=mode)
        ranking = list(dict.fromkeys([*ranking, *rank_documents(hits)]))
    return ranking[:DEPTH], spent


def rank_documents(hits: Sequence[ScoredChunk]) -> list[str]:
    """Document ids by their best chunk, best first; ties stay in the order of the hits."""
    return list(dict.fromkeys(hit.document_id for hit in hits))


def measure(run: Mapping[str, Sequence[str]], qrels: Qrels, *, p50_ms: float) -> Figures:
    """The figures of rankings: document ids by query id, best first.

    The mean is over the queries of `qrels`; one without a ranking counts as 0.
    """

    def mean(metric: Callable[[Sequence[str], Mapping[str, int]], float]) -> float:
        return statistics.fmean(metric(run.get(query_id, ()), relevance) for query_id, relevance in qrels.items())

    return Figures(
        ndcg_at_10=mean(lambda ranking, relevance: ndcg(ranking, relevance, 10)),
        recall_at_10=mean(lambda ranking, relevance: recall(ranking, relevance, 10)),
        recall_at_100=mean(lambda ranking, relevance: recall(ranking, relevance, 100)),
        mrr=mean(reciprocal_rank),
        p50_ms=p50_ms,
    )


def ndcg(ranking: Sequence[str], relevance: Mapping[str, int], k: int) -> float:
    """Normalised discounted cumulative gain of the first k: gain is the relevance, discount log2(rank + 1).

    The ideal ranking holds all relevant documents, those not in the corpus too. Relevance below 0 counts as 0.

    Source: Järvelin and Kekäläinen 2002, with trec_eval's linear gain (`ndcg_cut`).
    """
    gained = _dcg([relevance.get(document_id, 0) for document_id in ranking[:k]])
    ideal = _dcg(sorted(relevance.values(), reverse=True)[:k])
    return gained / ideal if ideal else 0.0


def _dcg(gains: Sequence[int]) -> float:
    return math.fsum(max(gain, 0) / math.log2(rank + 1) for rank, gain in enumerate(gains, start=1))


def recall(ranking: Sequence[str], relevance: Mapping[str, int], k: int) -> float:
    """The share of the relevant documents that stand among the first k; 0 where there is none."""
    relevant = {document_id for document_id, grade in relevance.items() if grade > 0}
    return len(relevant.intersection(ranking[:k])) / len(relevant) if relevant else 0.0


def reciprocal_rank(ranking: Sequence[str], relevance: Mapping[str, int]) -> float:
    """1 / the rank of the first relevant document, 0 where there is none."""
    return next((1 / rank for rank, document_id in enumerate(ranking, start=1) if relevance.get(document_id, 0) > 0), 0.0)


def load_labelled_set(folder: Path, *, split: str = "test") -> LabelledSet:
    """Reads a folder in BEIR's layout: `corpus.jsonl`, `queries.jsonl`, `qrels/{split}.tsv`.

    Queries without a relevant document are left out: nothing can be said about them.

    Raises:
        InputError: A file is missing or not in the layout, or the labels name a query that is not there; the
            message names file and line.
    """
    _must_be_labelled_set(folder, split)
    documents = tuple(_document(entry, where) for entry, where in _json_lines(folder / "corpus.jsonl"))
    texts = {_string(entry, "_id", where): _string(entry, "text", where) for entry, where in _json_lines(folder / "queries.jsonl")}
    labels_file = folder / "qrels" / f"{split}.tsv"
    labels = _labels(labels_file)
    unknown = [query_id for query_id in labels if query_id not in texts]
    if unknown:
        more = f" (and {len(unknown) - 1:,} more)" if len(unknown) > 1 else ""
        raise InputError(
            f"{labels_file} labels the query {unknown[0]!r}{more}, which queries.jsonl lacks", hint="the files belong to different sets"
        )
    qrels = {query_id: grades for query_id, grades in labels.items() if any(grade > 0 for grade in grades.values())}
    if not documents or not qrels:
        raise InputError(f"{folder} holds no {'relevant labels' if documents else 'documents'}", hint="nothing can be measured on it")
    queries = {query_id: text for query_id, text in texts.items() if query_id in qrels}
    return LabelledSet(documents, queries, {query_id: qrels[query_id] for query_id in queries})


def _must_be_labelled_set(folder: Path, split: str) -> None:
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder", hint="name a folder with corpus.jsonl, queries.jsonl and qrels/test.tsv")
    missing = [name for name in ("corpus.jsonl", "queries.jsonl", f"qrels/{split}.tsv") if not (folder / name).is_file()]
    if missing:
        splits = sorted(file.stem for file in (folder / "qrels").glob("*.tsv"))
        hint = "a labelled set has corpus.jsonl, queries.jsonl and qrels/test.tsv: see that it was unpacked whole"
        if splits and missing == [f"qrels/{split}.tsv"]:
            hint = f"its qrels are {', '.join(splits)}; choose with --split"
        raise InputError(f"{folder} is not in BEIR's layout: {', '.join(missing)} is missing", hint=hint)


def _lines(file: Path) -> Iterator[tuple[str, str]]:
    """The lines of a file that are not blank, each with its place for messages."""
    try:
        with file.open(encoding="utf-8-sig") as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    yield line.rstrip("\r\n"), f"{file}, line {number}"
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror or error}", hint="make it readable") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not UTF-8: {error}", hint="convert it to UTF-8") from error


def _json_lines(file: Path) -> Iterator[tuple[Mapping[str, Any], str]]:
    for line, where in _lines(file):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
            raise InputError(f"{where} is not JSON: {reason}", hint="each line is one JSON object") from error
        if not isinstance(entry, dict):
            raise InputError(f"{where} is not a JSON object", hint='each line is one JSON object, such as {"_id": "1", "text": "..."}')
        yield entry, where


def _string(entry: Mapping[str, Any], key: str, where: str) -> str:
    value = entry.get(key)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)  # numbers stand for ids in some sets
    if not isinstance(value, str):
        raise InputError(f"{where} has no text under {key!r}", hint=f"each line needs {key!r}")
    return value


def _document(entry: Mapping[str, Any], where: str) -> Document:
    title, text = entry.get("title") or "", _string(entry, "text", where)
    return Document(text=f"{title}\n{text}" if title else text, id=_string(entry, "_id", where))


def _labels(file: Path) -> dict[str, dict[str, int]]:
    qrels: dict[str, dict[str, int]] = {}
    for number, (line, where) in enumerate(_lines(file)):
        cells = line.split("\t")
        try:
            query_id, document_id, grade = cells
            qrels.setdefault(query_id, {})[document_id] = int(grade)
        except ValueError as error:
            if number == 0:
                continue  # the heading: query-id, corpus-id, score
            raise InputError(
                f"{where} is not a label: {line[:80]!r}", hint="each line is query id, document id and a whole number, split by tabs"
            ) from error
    return qrels
