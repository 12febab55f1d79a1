"""txtai, hybrid, as its documentation shows it: `python with_txtai.py CORE`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from calls import BlockingSystem, now, peak_mb, pin, serve, spent

pin(int(sys.argv[1]))
_imported = now()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from txtai import Embeddings  # noqa: E402

_IMPORT = spent(_imported)
torch.set_num_threads(1)


class Txtai(BlockingSystem):
    def open(self, model: str, top_k: int) -> dict[str, object]:
        start = now()
        self._model = model
        self._embeddings = Embeddings(path=model, hybrid=True, gpu=False)
        self._embeddings.batchtransform(["a text that loads the model"])
        self._top_k = top_k
        return {"import": _IMPORT, "load": spent(start)}

    def ingest(self, texts: list[str], ids: list[str]) -> dict[str, object]:
        """Its own way from documents to an index in memory; it does not cut texts. What makes that durable stands apart."""
        start = now()
        self._embeddings.index(list(zip(ids, texts, strict=True)))
        ingested = spent(start)
        start = now()
        with tempfile.TemporaryDirectory() as folder:
            self._embeddings.save(str(Path(folder, "index")))
            saved = spent(start)
        return {"ingest": ingested, "save": saved, "chunks": self._embeddings.count()}

    def build(self, texts: list[str], ids: list[str], vectors: str) -> dict[str, object]:
        """An index to search: the vectors of its documents are its model's own, made beforehand; questions it embeds itself."""
        start = now()
        made = dict(zip(texts, np.load(vectors), strict=True))
        encode = self._embeddings.model.encode

        def known(batch: list[str], *arguments: object, **options: object) -> object:
            if all(text in made for text in batch):
                return np.stack([made[text] for text in batch])
            return encode(batch, *arguments, **options)

        self._embeddings.model.encode = known
        self._embeddings.index(list(zip(ids, texts, strict=True)))
        self._embeddings.model.encode = encode
        return {"build": spent(start), "peak_mb": peak_mb()}

    def retrieve(self, question: str) -> list[str]:
        return [id for id, _ in self._embeddings.search(question, self._top_k)]


serve(Txtai())
