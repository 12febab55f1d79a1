"""What tantivy's fixed k1 and b cost: the same analysis, the same vectors and the same fusion with both pairs.

    .venv/bin/python benchmarks/lexical_parameters.py --data FOLDER

tantivy scores with k1 1.2 and b 0.75; the reference figures (`reference/retrieval-quality.json`) were made with 0.9 and 0.4.
The lexical view pads its passages to undo a part of that (`ragline.index.lexical_analysis`); this is what it has to undo.
Here BM25 is computed in full over ragline's own terms, with exact lengths, once with each pair; one text is one document, cut
to the model's window. nDCG@10 by set, and against the reference.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ragline.bench.evaluation import LabelledSet, load_labelled_set, ndcg
from ragline.bench.machine import describe_machine, usable_cores
from ragline.bench.quality import compare, read_reference
from ragline.concurrency.workers import Workers
from ragline.embedding.onnx_runtime import OnnxEmbedder
from ragline.index.lexical_analysis import normalised, text_analyzer
from ragline.retrieval.fusion import Leg, convex
from ragline.settings import Settings, load_settings
from ragline.types import Chunk, Float32

HERE = Path(__file__).resolve().parent
PAIRS = {"k1 1.2, b 0.75 (unpadded)": (1.2, 0.75), "k1 0.9, b 0.4": (0.9, 0.4)}


class Bm25:
    """Every document's score, with the Lucene variant's inverse document frequency."""

    def __init__(self, texts: Sequence[str], language: str) -> None:
        self._analyzer = text_analyzer(language)
        documents = [Counter(self._terms(text)) for text in texts]
        self._lengths = np.array([terms.total() for terms in documents], np.float64)
        postings: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for place, terms in enumerate(documents):
            for term, times in terms.items():
                postings[term].append((place, times))
        self._postings = {term: np.array(found).T for term, found in postings.items()}

    def _terms(self, text: str) -> list[str]:
        return self._analyzer.analyze(normalised(text))

    def search(self, question: str, top_k: int, k1: float, b: float) -> Leg:
        count = len(self._lengths)
        scores = np.zeros(count)
        around = k1 * (1 - b + b * self._lengths / self._lengths.mean())
        for term, asked in Counter(self._terms(question)).items():
            if term in self._postings:
                places, times = self._postings[term]
                rarity = math.log(1 + (count - len(places) + 0.5) / (len(places) + 0.5))
                scores[places] += asked * rarity * times * (k1 + 1) / (times + around[places])
        return _best(scores.astype(np.float32), top_k, above=0.0)


def _best(scores: Float32, top_k: int, *, above: float = -math.inf) -> Leg:
    order = np.lexsort((np.arange(len(scores)), -scores))[:top_k]
    order = order[scores[order] > above]
    return order.astype(np.int64), scores[order]


async def _vectors(labelled: LabelledSet, settings: Settings) -> tuple[Float32, Float32]:
    """Of the documents and of the queries."""
    workers = Workers("embed", usable_cores())
    embedder = OnnxEmbedder.open(settings.embedding, settings.model_cache_dir(), print, question_workers=workers, bulk_workers=workers)
    before, after = embedder.tokenizer.special_ids
    room = embedder.max_tokens - len(before) - len(after)
    chunks = []
    for document in labelled.documents:
        ids = embedder.tokenizer.ids(document.text)[:room]
        chunks.append(Chunk(document.text, 0, len(document.text), token_ids=(*before, *ids, *after)))
    vectors = await embedder.embed_passages(chunks), await embedder.embed_questions(list(labelled.queries.values()))
    await embedder.close()
    workers.close()
    return vectors


def measure(labelled: LabelledSet, settings: Settings) -> dict[str, dict[str, float]]:
    """nDCG@10 of the lexical leg and of the fusion, by pair of parameters."""
    documents, questions = asyncio.run(_vectors(labelled, settings))
    bm25 = Bm25([document.text for document in labelled.documents], settings.index.language)
    ids = [str(document.id) for document in labelled.documents]
    depth, weight = settings.retrieval.candidates, settings.retrieval.dense_weight
    found: dict[str, dict[str, float]] = {}
    for pair, (k1, b) in PAIRS.items():
        lexical_ndcg, hybrid_ndcg = [], []
        for (query_id, query), vector in zip(labelled.queries.items(), questions, strict=True):
            cosines = documents @ vector
            lexical = bm25.search(query, depth, k1, b)
            fused = convex(_best(cosines, depth), lexical, dense_weight=weight, score_dense=cosines.__getitem__)
            relevance = labelled.qrels[query_id]
            lexical_ndcg.append(ndcg([ids[row] for row in lexical[0]], relevance, 10))
            hybrid_ndcg.append(ndcg([ids[row] for row in fused.rows], relevance, 10))
        found[pair] = {"lexical": statistics.fmean(lexical_ndcg), "hybrid": statistics.fmean(hybrid_ndcg)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of labelled sets in BEIR's layout")
    parser.add_argument("--reference", type=Path, default=HERE / "reference" / "retrieval-quality.json")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder that the figures are written into")
    options = parser.parse_args()
    settings = Settings(cache_dir=load_settings().settings.cache_dir)
    sets = {file.parent.name: measure(load_labelled_set(file.parent), settings) for file in sorted(options.data.glob("*/corpus.jsonl"))}
    reference = read_reference(options.reference)
    against = {
        pair: {mode: compare({name: figures[pair] for name, figures in sets.items()}, reference, mode) for mode in ("lexical", "hybrid")}
        for pair in PAIRS
    }
    result = {"machine": describe_machine(), "settings": settings.retrieval.model_dump(), "sets": sets, "against_reference": against}
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "lexical-parameters.json").write_text(json.dumps(result, indent=1) + "\n")
    columns = [f"{mode}, {pair}" for pair in PAIRS for mode in ("lexical", "hybrid")]
    lines = ["# What tantivy's k1 and b cost", "", "nDCG@10, same terms, vectors and fusion (`benchmarks/lexical_parameters.py`)."]
    lines += [f"{result['machine']['date'][:10]}, commit {result['machine']['commit']}.", ""]
    lines += [f"| set | {' | '.join(columns)} | reference hybrid |", "|---" * (len(columns) + 2) + "|"]
    for name, figures in sets.items():
        cells = [f"{figures[pair][mode]:.3f}" for pair in PAIRS for mode in ("lexical", "hybrid")]
        lines.append(f"| {name} | {' | '.join(cells)} | {reference.get(name, {}).get('hybrid', math.nan):.3f} |")
    lines.append("")
    for pair, modes in against.items():
        if (hybrid := modes["hybrid"])["mean"] is not None:
            lines.append(f"- {pair}: hybrid against the reference {hybrid['mean']:+.4f} on average, {hybrid['worst']:+.4f} at worst.")
    table = "\n".join(lines) + "\n"
    (options.results / "lexical-parameters.md").write_text(table)
    print(table)


if __name__ == "__main__":
    main()
