"""LlamaIndex as its documentation shows it: `python with_llamaindex.py CORE default|faiss`."""

from __future__ import annotations

import sys
import tempfile

from calls import BlockingSystem, now, peak_mb, pin, serve, spent

pin(int(sys.argv[1]))
_imported = now()

import faiss  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from llama_index.core import Document, Settings, StorageContext, VectorStoreIndex  # noqa: E402
from llama_index.core.schema import TextNode  # noqa: E402
from llama_index.embeddings.huggingface import HuggingFaceEmbedding  # noqa: E402
from llama_index.vector_stores.faiss import FaissVectorStore  # noqa: E402

_IMPORT = spent(_imported)
torch.set_num_threads(1)
faiss.omp_set_num_threads(1)
DIMENSION = 384


class LlamaIndex(BlockingSystem):
    def __init__(self, store: str) -> None:
        self._store = store

    def open(self, model: str, top_k: int) -> dict[str, object]:
        start = now()
        Settings.llm = None
        Settings.embed_model = HuggingFaceEmbedding(model_name=model, device="cpu")
        self._top_k = top_k
        return {"import": _IMPORT, "load": spent(start)}

    def ingest(self, texts: list[str], ids: list[str]) -> dict[str, object]:
        """Its own way from documents to an index in memory; what it takes to make that durable stands apart."""
        start = now()
        documents = [Document(text=text, id_=id) for text, id in zip(texts, ids, strict=True)]
        index = VectorStoreIndex.from_documents(documents, storage_context=self._storage())
        ingested = spent(start)
        start = now()
        with tempfile.TemporaryDirectory() as folder:
            index.storage_context.persist(folder)
            saved = spent(start)
        return {"ingest": ingested, "save": saved, "chunks": len(index.index_struct.nodes_dict)}

    def build(self, texts: list[str], ids: list[str], vectors: str) -> dict[str, object]:
        """An index to search: the vectors are its model's own, made beforehand."""
        start = now()
        nodes = [
            TextNode(text=text, id_=id, embedding=vector) for text, id, vector in zip(texts, ids, np.load(vectors).tolist(), strict=True)
        ]
        index = VectorStoreIndex(nodes, storage_context=self._storage())
        self._retriever = index.as_retriever(similarity_top_k=self._top_k)
        return {"build": spent(start), "peak_mb": peak_mb()}

    def _storage(self) -> StorageContext | None:
        if self._store == "default":
            return None
        return StorageContext.from_defaults(vector_store=FaissVectorStore(faiss_index=faiss.IndexFlatIP(DIMENSION)))

    def retrieve(self, question: str) -> list[str]:
        return [found.node.node_id for found in self._retriever.retrieve(question)]


serve(LlamaIndex(sys.argv[2]))
