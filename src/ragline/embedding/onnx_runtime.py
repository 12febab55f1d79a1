"""Embeds on this machine's processor with onnxruntime."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ragline.concurrency.workers import Workers, on_worker
from ragline.embedding.bert_config import BertConfig
from ragline.embedding.description import describe
from ragline.embedding.graphs import load_graph
from ragline.embedding.matryoshka import choose_dimension, shortened
from ragline.embedding.models import ModelFolder, locate_model
from ragline.embedding.precision import Precision, choose_precision, int8_instructions
from ragline.embedding.prefixes import Prefixes, check_prefixes, choose_prefixes
from ragline.embedding.tokenizer import ModelTokenizer, check_fits
from ragline.errors import BackendError
from ragline.settings import EmbeddingSettings
from ragline.types import Chunk, Float32

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

_OUTPUTS = ["embedding"]
"""Named, or onnxruntime would look the names up at each run."""

_GIVE_WAY_S = 0.25
"""So long a passage waits at most for questions: ingest goes on beside any crowd, if slowly."""
_LOOK_S = 0.01


class OnnxEmbedder:
    """A BERT encoder on onnxruntime: one text per run, never padded, so a vector depends on nothing but its text.

    Batches of several texts were measured slower on a processor (the intermediate values leave its cache), and
    int8 vectors would depend on their neighbours. One session serves all threads: `run` is thread-safe and uses
    only the thread that calls it. Open it with `OnnxEmbedder.open`.
    """

    is_local = True

    def __init__(
        self,
        model: ModelFolder,
        config: BertConfig,
        graph: Path | bytes,
        *,
        dimension: int,
        precision: Precision,
        description: Mapping[str, str],
        question_workers: Workers,
        bulk_workers: Workers,
    ) -> None:
        self._model = model
        self._config = config
        self._dimension = dimension
        self._description = description
        self._question_workers = question_workers
        self._bulk_workers = bulk_workers
        tokenizer_file = model.path / "tokenizer.json"
        self._tokenizer = ModelTokenizer(tokenizer_file, config.passage_prompt)
        check_prefixes(self._tokenizer, (config.question_prompt, config.passage_prompt), config.max_tokens)
        self._fingerprint = _fingerprint(model, config, precision, tokenizer_file, dimension)
        self._session: InferenceSession | None = open_session(graph)

    @classmethod
    def open(
        cls,
        settings: EmbeddingSettings,
        cache_dir: Path,
        announce: Callable[[str], None],
        *,
        question_workers: Workers,
        bulk_workers: Workers,
    ) -> OnnxEmbedder:
        """Finds the model, prepares it for this machine where that was not done yet, and loads it.

        Blocks: for a fraction of a second, or for as long as it takes to fetch the model the first time. The
        workers stay the caller's to close.

        Raises:
            InputError: The model is of a kind that is not supported, or a setting does not fit it.
            NotFoundError: There is no such model.
            BackendError: The model is not on this machine and cannot be fetched.
            CorruptionError: A file of the model is damaged.
        """
        model = locate_model(settings.model, cache_dir=cache_dir, announce=announce)
        config = BertConfig.read(model.path)
        prefixes = choose_prefixes(settings, model.name, Prefixes(config.question_prompt, config.passage_prompt))
        config = replace(config, question_prompt=prefixes.question, passage_prompt=prefixes.passage)
        precision = choose_precision(settings.precision)
        if precision == "int8" and not int8_instructions():
            announce("This processor has no instructions for int8: it is slow here. Use fp32 or auto.")
        dimension = choose_dimension(settings.dimension, config.hidden, model, announce)
        return cls(
            model,
            config,
            load_graph(model, config, precision, cache_dir=cache_dir, announce=announce),
            dimension=dimension,
            precision=precision,
            description=describe(settings, model=model.name, precision=precision),
            question_workers=question_workers,
            bulk_workers=bulk_workers,
        )

    @property
    def name(self) -> str:
        """The model's name on the hub, or the folder it was opened from."""
        return self._model.name

    @property
    def fingerprint(self) -> str:
        """Hash of weights, tokenizer, configuration, precision, prefixes and dimension; not of where the model lies."""
        return self._fingerprint

    @property
    def description(self) -> Mapping[str, str]:
        """The settings that open the same embedder again."""
        return self._description

    @property
    def dimension(self) -> int:
        """The length of a vector."""
        return self._dimension

    @property
    def max_tokens(self) -> int:
        """The window the model was trained for, special tokens and prompt included."""
        return self._config.max_tokens

    @property
    def tokenizer(self) -> ModelTokenizer:
        """The model's tokenizer; its special ids are those around a passage."""
        return self._tokenizer

    async def embed_passages(self, chunks: Sequence[Chunk]) -> Float32:
        """Embeds each chunk on the bulk workers: `(n, dimension)`, unit length, in order.

        Ends soon when it is cancelled: texts not yet begun are left.

        Raises:
            InputError: A chunk is longer than `max_tokens`; nothing is truncated.
            BackendError: onnxruntime failed.
        """
        vectors = np.empty((len(chunks), self.dimension), np.float32)
        # The threads draw from one pile, the longest texts first, so that they end at about the same time.
        waiting = deque(sorted(range(len(chunks)), key=lambda i: _length(chunks[i]), reverse=True))
        stop = threading.Event()

        def draw() -> None:
            while not stop.is_set():
                try:
                    i = waiting.popleft()
                except IndexError:
                    return
                self._give_way()
                vectors[i] = self._run(self._passage_ids(chunks[i]))

        if on_worker():
            draw()
            return vectors
        try:
            await asyncio.gather(*(self._bulk_workers.run(draw) for _ in range(min(self._bulk_workers.threads, len(chunks)))))
        finally:
            stop.set()
        return vectors

    async def embed_questions(self, questions: Sequence[str]) -> Float32:
        """Embeds each question in one job: `(n, dimension)`, unit length, in order; cut to `max_tokens`.

        Raises:
            InputError: A question holds lone surrogates.
            BackendError: onnxruntime failed.
        """
        return await self._question_workers.run(self._embed_questions, questions)

    async def close(self) -> None:
        """Lets go of the model; runs under way end as usual."""
        self._session = None

    def _give_way(self) -> None:
        """Waits a little while there are several questions: niceness shares the cores, but not the interpreter's lock."""
        ends = time.monotonic() + _GIVE_WAY_S
        while self._question_workers is not self._bulk_workers and self._question_workers.under_way > 1 and time.monotonic() < ends:
            time.sleep(_LOOK_S)

    def _embed_questions(self, questions: Sequence[str]) -> Float32:
        vectors = np.empty((len(questions), self.dimension), np.float32)
        for vector, question in zip(vectors, questions, strict=True):
            vector[:] = self._run(self._tokenizer.prompted_ids(self._config.question_prompt, question, self.max_tokens))
        return vectors

    def _passage_ids(self, chunk: Chunk) -> Sequence[int]:
        ids: Sequence[int] | None = chunk.token_ids
        if ids is None:
            ids = self._tokenizer.prompted_ids(self._config.passage_prompt, chunk.passage)
        check_fits(len(ids), self.max_tokens)
        return ids

    def _run(self, ids: Sequence[int]) -> Float32:
        """The vector of one text, `(dimension,)`."""
        session = self._session
        if session is None:
            raise BackendError(f"the embedder {self.name} is closed")
        try:
            vectors: Float32 = session.run(_OUTPUTS, {"input_ids": np.array([ids], np.int32)})[0]
        except Exception as error:  # onnxruntime's errors have no common root
            raise BackendError(f"onnxruntime could not embed a text of {len(ids)} tokens with {self.name}: {error}") from error
        vector: Float32 = shortened(vectors, self._dimension)[0]
        return vector


def _length(chunk: Chunk) -> float:
    """About how many tokens a chunk has."""
    return len(chunk.token_ids) if chunk.token_ids is not None else len(chunk.text) / 4


def open_session(graph: Path | bytes) -> InferenceSession:
    """A session for many threads at once, each of which computes alone.

    Raises:
        BackendError: onnxruntime cannot load the graph.
    """
    # Imported here so that `import ragline` stays quick.
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # Only the calling thread computes: texts, not matrices, are spread over the cores.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    # A plan of the memory for each length of text costs more than it saves where every text has another length.
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common root
        raise BackendError(f"onnxruntime {onnxruntime.__version__} cannot load the model: {error}") from error


def _fingerprint(model: ModelFolder, config: BertConfig, precision: Precision, tokenizer_file: Path, dimension: int) -> str:
    tokenizer_sha256 = hashlib.sha256(tokenizer_file.read_bytes()).hexdigest()
    parts: tuple[object, ...] = (model.weights_sha256, tokenizer_sha256, precision, config, *config.beyond_bert)
    if dimension != config.hidden:
        parts = (*parts, "dimension", dimension)
    return f"{precision}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:32]}"
