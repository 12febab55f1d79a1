"""Chroma alone, on disk, as its documentation shows it: `python with_chroma.py CORE`."""

from __future__ import annotations

import sys
import tempfile

from calls import BlockingSystem, now, peak_mb, pin, serve, spent

pin(int(sys.argv[1]))
_imported = now()

import chromadb  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from chromadb.config import Settings  # noqa: E402
from chromadb.utils.embedding_functions import SentenceTransformerEmbeddingFunction  # noqa: E402

_IMPORT = spent(_imported)
torch.set_num_threads(1)
_AT_ONCE = 5000
"""Chroma refuses more in one call."""


class Chroma(BlockingSystem):
    def open(self, model: str, top_k: int) -> dict[str, object]:
        start = now()
        self._embed = SentenceTransformerEmbeddingFunction(model_name=model, device="cpu")
        self._folder = tempfile.TemporaryDirectory()
        self._client = chromadb.PersistentClient(self._folder.name, Settings(anonymized_telemetry=False))
        self._top_k = top_k
        self._built = 0
        return {"import": _IMPORT, "load": spent(start)}

    def ingest(self, texts: list[str], ids: list[str]) -> dict[str, object]:
        """Its own way from documents to a collection on disk; it does not cut texts."""
        start = now()
        collection = self._client.create_collection(f"ingest-{ids[0]}", embedding_function=self._embed)
        collection.add(ids=ids, documents=texts)
        return {"ingest": spent(start), "chunks": collection.count()}

    def build(self, texts: list[str], ids: list[str], vectors: str) -> dict[str, object]:
        """A collection to search: the vectors are its model's own, made beforehand."""
        start = now()
        self._built += 1
        self._collection = self._client.create_collection(f"built-{self._built}", embedding_function=self._embed)
        made = np.load(vectors)
        for at in range(0, len(texts), _AT_ONCE):
            some = slice(at, at + _AT_ONCE)
            self._collection.add(ids=ids[some], documents=texts[some], embeddings=made[some])
        return {"build": spent(start), "peak_mb": peak_mb()}

    def retrieve(self, question: str) -> list[str]:
        return list(self._collection.query(query_texts=[question], n_results=self._top_k)["ids"][0])


serve(Chroma())
