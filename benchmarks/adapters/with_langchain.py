"""LangChain with FAISS as its documentation shows it: `python with_langchain.py CORE`."""

from __future__ import annotations

import sys
import tempfile

from calls import BlockingSystem, now, peak_mb, pin, serve, spent

pin(int(sys.argv[1]))
_imported = now()

import faiss  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from langchain_community.vectorstores import FAISS  # noqa: E402
from langchain_core.documents import Document  # noqa: E402
from langchain_huggingface import HuggingFaceEmbeddings  # noqa: E402
from langchain_text_splitters import RecursiveCharacterTextSplitter  # noqa: E402

_IMPORT = spent(_imported)
torch.set_num_threads(1)
faiss.omp_set_num_threads(1)


class LangChain(BlockingSystem):
    def open(self, model: str, top_k: int) -> dict[str, object]:
        start = now()
        self._embeddings = HuggingFaceEmbeddings(model_name=model, model_kwargs={"device": "cpu"})
        self._top_k = top_k
        return {"import": _IMPORT, "load": spent(start)}

    def ingest(self, texts: list[str], ids: list[str]) -> dict[str, object]:
        """Its own way from documents to an index in memory; what it takes to make that durable stands apart."""
        start = now()
        documents = [Document(page_content=text, id=id) for text, id in zip(texts, ids, strict=True)]
        chunks = RecursiveCharacterTextSplitter().split_documents(documents)
        index = FAISS.from_documents(chunks, self._embeddings)
        ingested = spent(start)
        start = now()
        with tempfile.TemporaryDirectory() as folder:
            index.save_local(folder)
            saved = spent(start)
        return {"ingest": ingested, "save": saved, "chunks": index.index.ntotal}

    def build(self, texts: list[str], ids: list[str], vectors: str) -> dict[str, object]:
        """An index to search: the vectors are its model's own, made beforehand."""
        start = now()
        index = FAISS.from_embeddings(list(zip(texts, np.load(vectors).tolist(), strict=True)), self._embeddings, ids=ids)
        self._retriever = index.as_retriever(search_kwargs={"k": self._top_k})
        return {"build": spent(start), "peak_mb": peak_mb()}

    def embed(self, texts: list[str], path: str) -> dict[str, object]:
        """The vectors of sentence-transformers, for all systems that embed with it."""
        start = now()
        np.save(path, np.array(self._embeddings.embed_documents(texts), np.float32))
        return spent(start)

    def retrieve(self, question: str) -> list[str]:
        return [found.id for found in self._retriever.invoke(question)]


serve(LangChain())
