"""Haystack as its documentation shows it, in memory: `python with_haystack.py CORE dense|hybrid`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from calls import BlockingSystem, now, peak_mb, pin, serve, spent

pin(int(sys.argv[1]))
_imported = now()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from haystack import Document, Pipeline  # noqa: E402
from haystack.components.joiners import DocumentJoiner  # noqa: E402
from haystack.components.preprocessors import DocumentSplitter  # noqa: E402
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever, InMemoryEmbeddingRetriever  # noqa: E402
from haystack.components.writers import DocumentWriter  # noqa: E402
from haystack.document_stores.in_memory import InMemoryDocumentStore  # noqa: E402
from haystack.utils import ComponentDevice  # noqa: E402
from haystack_integrations.components.embedders.sentence_transformers import (  # noqa: E402
    SentenceTransformersDocumentEmbedder,
    SentenceTransformersTextEmbedder,
)

_IMPORT = spent(_imported)
torch.set_num_threads(1)


class Haystack(BlockingSystem):
    def __init__(self, mode: str) -> None:
        self._mode = mode

    def open(self, model: str, top_k: int) -> dict[str, object]:
        start = now()
        self._model, self._device = model, ComponentDevice.from_str("cpu")
        self._documents = SentenceTransformersDocumentEmbedder(model=model, device=self._device, progress_bar=False)
        self._documents.warm_up()
        self._top_k = top_k
        return {"import": _IMPORT, "load": spent(start)}

    def ingest(self, texts: list[str], ids: list[str]) -> dict[str, object]:
        """Its own way from documents to an index in memory; what it takes to make that durable stands apart."""
        start = now()
        store = InMemoryDocumentStore()
        pipeline = Pipeline()
        pipeline.add_component("splitter", DocumentSplitter())
        pipeline.add_component("embedder", self._new_document_embedder())
        pipeline.add_component("writer", DocumentWriter(store))
        pipeline.connect("splitter", "embedder")
        pipeline.connect("embedder", "writer")
        pipeline.run({"splitter": {"documents": [Document(id=id, content=text) for text, id in zip(texts, ids, strict=True)]}})
        ingested = spent(start)
        start = now()
        with tempfile.TemporaryDirectory() as folder:
            store.save_to_disk(str(Path(folder, "store.json")))
            saved = spent(start)
        return {"ingest": ingested, "save": saved, "chunks": store.count_documents()}

    def build(self, texts: list[str], ids: list[str], vectors: str) -> dict[str, object]:
        """An index to search: the vectors are its model's own, made beforehand."""
        start = now()
        store = InMemoryDocumentStore()
        rows = zip(texts, ids, np.load(vectors).tolist(), strict=True)
        store.write_documents([Document(id=id, content=text, embedding=vector) for text, id, vector in rows])
        self._pipeline = Pipeline()
        self._pipeline.add_component(
            "embedder", SentenceTransformersTextEmbedder(model=self._model, device=self._device, progress_bar=False)
        )
        self._pipeline.add_component("dense", InMemoryEmbeddingRetriever(store, top_k=self._top_k))
        self._pipeline.connect("embedder.embedding", "dense.query_embedding")
        if self._mode == "hybrid":
            self._pipeline.add_component("words", InMemoryBM25Retriever(store, top_k=self._top_k))
            self._pipeline.add_component("join", DocumentJoiner(join_mode="reciprocal_rank_fusion", top_k=self._top_k))
            self._pipeline.connect("dense", "join")
            self._pipeline.connect("words", "join")
        return {"build": spent(start), "peak_mb": peak_mb()}

    def retrieve(self, question: str) -> list[str]:
        if self._mode == "hybrid":
            answer = self._pipeline.run({"embedder": {"text": question}, "words": {"query": question}})["join"]
        else:
            answer = self._pipeline.run({"embedder": {"text": question}})["dense"]
        return [document.id for document in answer["documents"]]

    def _new_document_embedder(self) -> SentenceTransformersDocumentEmbedder:
        """A component belongs to one pipeline; this one shares the model that `open` has loaded."""
        embedder = SentenceTransformersDocumentEmbedder(model=self._model, device=self._device, progress_bar=False)
        embedder.embedding_backend = self._documents.embedding_backend
        return embedder


serve(Haystack(sys.argv[2]))
