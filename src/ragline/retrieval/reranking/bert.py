"""Reranks on this machine's processor with onnxruntime."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ragline.concurrency.workers import Workers, on_worker
from ragline.embedding.bert_config import BertConfig
from ragline.embedding.graphs import load_graph
from ragline.embedding.layouts import CROSS_ENCODER
from ragline.embedding.models import ModelFolder, locate_model
from ragline.embedding.onnx_runtime import open_session
from ragline.embedding.precision import Precision, choose_precision
from ragline.embedding.tokenizer import ModelTokenizer
from ragline.errors import BackendError
from ragline.settings import RerankSettings
from ragline.types import Float32

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

_OUTPUTS = ["score"]


class OnnxReranker:
    """A cross-encoder on onnxruntime: one pair per run, never padded, so a score depends on nothing but its pair.

    Open it with `OnnxReranker.open`.
    """

    is_local = True

    def __init__(self, model: ModelFolder, config: BertConfig, precision: Precision, graph: Path | bytes, *, workers: Workers) -> None:
        self._name = model.name
        self._config = config
        self._workers = workers
        tokenizer_file = model.path / "tokenizer.json"
        self._tokenizer = ModelTokenizer(tokenizer_file)
        self._specials = self._tokenizer.around_pair()
        parts = (model.weights_sha256, hashlib.sha256(tokenizer_file.read_bytes()).hexdigest(), config, *config.beyond_bert)
        self._fingerprint = f"onnx-{precision}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:32]}"
        self._session: InferenceSession | None = open_session(graph)

    @classmethod
    def open(cls, settings: RerankSettings, cache_dir: Path, announce: Callable[[str], None], *, workers: Workers) -> OnnxReranker:
        """Finds the model, prepares it for this machine where that was not done yet, and loads it.

        Blocks: for a fraction of a second, or for as long as it takes to fetch the model the first time. The
        workers stay the caller's to close.

        Raises:
            InputError: The model is no cross-encoder, or one that is not supported.
            NotFoundError: There is no such model.
            BackendError: The model is not on this machine and cannot be fetched.
            CorruptionError: A file of the model is damaged.
        """
        model = locate_model(settings.model, cache_dir=cache_dir, announce=announce, layout=CROSS_ENCODER)
        config = BertConfig.read_cross_encoder(model.path)
        # Unlike an embedder's, a cross-encoder's scores were not compared in int8 on labelled data: nobody gets them unasked.
        precision = choose_precision("fp32" if settings.precision == "auto" else settings.precision)
        graph = load_graph(model, config, precision, cache_dir=cache_dir, announce=announce)
        return cls(model, config, precision, graph, workers=workers)

    @property
    def name(self) -> str:
        """The model's name on the hub, or the folder it was opened from."""
        return self._name

    @property
    def fingerprint(self) -> str:
        """Hash of the weights, the tokenizer, the configuration and the precision; not of where the model lies."""
        return self._fingerprint

    async def rerank(self, question: str, passages: Sequence[str]) -> Float32:
        """The relevance of each passage, `(n,)` float32, in the order given; as the model scores it, not from 0 to 1.

        A pair longer than the window is cut at the passage's end; a question longer than half of it is cut to that.
        Ends soon when it is cancelled: pairs not yet begun are left.

        Raises:
            InputError: A text holds lone surrogates.
            BackendError: onnxruntime failed.
        """
        scores: Float32 = np.empty(len(passages), np.float32)
        # As in OnnxEmbedder: the threads draw from one pile, the longest first.
        waiting = deque(sorted(range(len(passages)), key=lambda i: len(passages[i]), reverse=True))
        stop = threading.Event()

        def draw() -> None:
            question_ids = self._tokenizer.ids(question)
            while not stop.is_set():
                try:
                    i = waiting.popleft()
                except IndexError:
                    return
                scores[i] = self._score(question_ids, self._tokenizer.ids(passages[i]))

        if on_worker():
            draw()
        else:
            try:
                await asyncio.gather(*(self._workers.run(draw) for _ in range(min(self._workers.threads, len(passages)))))
            finally:
                stop.set()
        if self._config.sigmoid:
            np.tanh(scores / 2, out=scores)  # the same function, without overflow
            scores = (scores / 2 + 0.5).astype(np.float32)
        return scores

    async def close(self) -> None:
        """Lets go of the model; runs under way end as usual."""
        self._session = None

    def _score(self, question: Sequence[int], passage: Sequence[int]) -> float:
        session = self._session
        if session is None:
            raise BackendError(f"the reranker {self.name} is closed")
        before, between, after = self._specials
        room = self._config.max_tokens - len(before) - len(between) - len(after)
        question = question[: max(room // 2, room - len(passage))]
        first = [*before, *question, *between]
        ids = [*first, *passage[: room - len(question)], *after]
        inputs = {"input_ids": np.array([ids], np.int32)}
        if self._config.reads_segments:
            inputs["token_type_ids"] = (np.arange(len(ids), dtype=np.int32) >= len(first)).astype(np.int32)[None]
        try:
            return float(session.run(_OUTPUTS, inputs)[0][0, 0])
        except Exception as error:  # onnxruntime's errors have no common root
            raise BackendError(f"onnxruntime could not score a pair of {len(ids)} tokens with {self.name}: {error}") from error
