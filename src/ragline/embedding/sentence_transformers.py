"""Embeds with sentence-transformers: any of its models, on a graphics card where there is one."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ragline.concurrency.turns import Turns
from ragline.concurrency.workers import Workers, on_worker
from ragline.embedding.architectures import ARCHITECTURES
from ragline.embedding.bert_config import read_json
from ragline.embedding.description import describe
from ragline.embedding.files import file_sha256
from ragline.embedding.layouts import ANY_EMBEDDER
from ragline.embedding.matryoshka import choose_dimension, shortened
from ragline.embedding.models import ModelFolder, locate_model
from ragline.embedding.prefixes import Prefixes, check_prefixes, choose_prefixes, declared_prefixes
from ragline.embedding.tokenizer import ModelTokenizer, check_fits
from ragline.embedding.torch_models import (
    Device,
    TorchPrecision,
    batches,
    bound_threads,
    choose_device,
    choose_torch_precision,
    failures_named,
    import_torch,
    load_model,
    model_sha256,
    padded,
)
from ragline.errors import BackendError, InputError
from ragline.settings import EmbeddingSettings
from ragline.types import Chunk, Float32

_PROCESSOR_BATCH_TOKENS = 2048
"""On a processor larger batches are no faster, and a question waits for the one under way."""
_UNLIMITED_TOKENS = 8192
"""The window of a model that names none."""
_HINTS = {
    "memory": "lower embedding.batch_tokens, or free memory on the card",
    "else": "check that the model, torch and sentence-transformers fit together",
}


class SentenceTransformersEmbedder:
    """A model of sentence-transformers on torch. Open it with `SentenceTransformersEmbedder.open`.

    Texts run in padded batches, so a vector's last digits can depend on the texts beside it. One batch runs at a time, and
    questions go before passages.
    """

    is_local = True

    def __init__(
        self,
        folder: ModelFolder,
        model: Any,
        *,
        settings: EmbeddingSettings,
        prefixes: Prefixes,
        device: Device,
        precision: TorchPrecision,
        model_hash: str,
        announce: Callable[[str], None],
        question_workers: Workers,
        bulk_workers: Workers,
    ) -> None:
        model.truncate_dim = None  # which the model's files can set; `dimension` says how many numbers are kept
        self._name = folder.name
        self._model = model
        self._prefixes = prefixes
        self._device = device
        self._question_workers = question_workers
        self._bulk_workers = bulk_workers
        self._turns = Turns()
        self._batch_texts = settings.batch_texts
        self._batch_tokens = min(settings.batch_tokens, _PROCESSOR_BATCH_TOKENS) if device == "cpu" else settings.batch_tokens
        content = _tokenizer_json(model, folder)
        self._tokenizer = ModelTokenizer.parse(content, f"the tokenizer of {folder.name}", prefixes.passage)
        self._max_tokens = _window(model)
        check_prefixes(self._tokenizer, prefixes, self._max_tokens)
        self._takes_ids = _takes_ids(model)
        whole = self._run_texts(["a"], question=False).shape[1]  # by running a text: not every module tells
        self._dimension = choose_dimension(settings.dimension, whole, folder, announce)
        self._description = describe(settings, model=folder.name, precision=precision)
        parts = (model_hash, content, precision, tuple(prefixes), self._max_tokens, self._dimension)
        self._fingerprint = f"torch-{precision}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:32]}"

    @classmethod
    def open(
        cls,
        settings: EmbeddingSettings,
        cache_dir: Path,
        announce: Callable[[str], None],
        *,
        question_workers: Workers,
        bulk_workers: Workers,
    ) -> SentenceTransformersEmbedder:
        """Finds the model, fetches it where it is nowhere on this machine, and loads it.

        Blocks: for some seconds, most of which are torch's own start. The workers stay the caller's to close.

        Raises:
            MissingExtraError: sentence-transformers is not installed.
            InputError: The model needs code of its own, or a setting does not fit it.
            NotFoundError: There is no such model.
            BackendError: The model cannot be fetched or loaded, or there is no such device.
            CorruptionError: A file of the model is damaged.
        """
        import_torch()
        from sentence_transformers import SentenceTransformer

        device = choose_device(settings.device, "embedding.device")
        precision = choose_torch_precision(settings.precision, device, "embedding.precision")
        folder = locate_model(settings.model, cache_dir=cache_dir, announce=announce, layout=ANY_EMBEDDER)
        bound_threads(device, question_workers)
        declared = declared_prefixes(read_json(folder.path / "config_sentence_transformers.json"))
        return cls(
            folder,
            load_model(SentenceTransformer, folder.path, folder.name, device, precision),
            settings=settings,
            prefixes=choose_prefixes(settings, folder.name, declared),
            device=device,
            precision=precision,
            model_hash=model_sha256(folder.path, lambda file: file_sha256(file, cache_dir)),
            announce=announce,
            question_workers=question_workers,
            bulk_workers=bulk_workers,
        )

    @property
    def name(self) -> str:
        """The model's name on the hub, or the folder it was opened from."""
        return self._name

    @property
    def fingerprint(self) -> str:
        """Hash of weights, tokenizer, configuration, precision, prefixes, window and dimension; not of the device."""
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
        """The longest input that the model takes, special tokens and prompt included."""
        return self._max_tokens

    @property
    def tokenizer(self) -> ModelTokenizer:
        """The model's tokenizer; its special ids are those around a passage."""
        return self._tokenizer

    async def embed_passages(self, chunks: Sequence[Chunk]) -> Float32:
        """Embeds each chunk on a bulk worker: `(n, dimension)`, unit length, in order.

        Ends soon when it is cancelled: batches not yet begun are left.

        Raises:
            InputError: A chunk is longer than `max_tokens`; nothing is truncated.
            BackendError: torch failed.
        """
        stop = threading.Event()
        if on_worker():
            return self._embed_passages(chunks, stop)
        try:
            return await self._bulk_workers.run(self._embed_passages, chunks, stop)
        finally:
            stop.set()

    async def embed_questions(self, questions: Sequence[str]) -> Float32:
        """Embeds questions in one job: `(n, dimension)`, unit length, in order; cut to `max_tokens`.

        Raises:
            InputError: A question holds lone surrogates.
            BackendError: torch failed.
        """
        return await self._question_workers.run(self._embed_questions, questions)

    async def close(self) -> None:
        """Lets go of the model; batches under way end as usual."""
        self._model = None

    def _embed_passages(self, chunks: Sequence[Chunk], stop: threading.Event) -> Float32:
        rows = []
        for chunk in chunks:
            if stop.is_set():
                break
            given = chunk.token_ids if self._takes_ids else None
            rows.append(self._tokenizer.prompted_ids(self._prefixes.passage, chunk.passage) if given is None else given)
            check_fits(len(rows[-1]), self._max_tokens)
        return self._embed(rows, lambda i: chunks[i].passage, stop, question=False)

    def _embed_questions(self, questions: Sequence[str]) -> Float32:
        rows = [self._tokenizer.prompted_ids(self._prefixes.question, question, self._max_tokens) for question in questions]
        return self._embed(rows, questions.__getitem__, threading.Event(), question=True)

    def _embed(self, rows: Sequence[Sequence[int]], text: Callable[[int], str], stop: threading.Event, *, question: bool) -> Float32:
        vectors = np.empty((len(rows), self._dimension), np.float32)
        for batch in batches([len(row) for row in rows], most=self._batch_texts, most_tokens=self._batch_tokens):
            with self._turns.turn(urgent=question):
                if stop.is_set():
                    break
                whole = self._run_ids([rows[i] for i in batch]) if self._takes_ids else self._run_texts(list(map(text, batch)), question)
                vectors[batch] = shortened(whole, self._dimension)
        return vectors

    def _run_ids(self, rows: Sequence[Sequence[int]]) -> Float32:
        """The whole vectors of one batch, `(n, whole dimension)`, of unit length."""
        model, torch = self._opened(), import_torch()
        with failures_named(self.name, _HINTS), torch.inference_mode():
            embedding = model(padded(rows, model.tokenizer, self._device))["sentence_embedding"].float()
            vectors: Float32 = torch.nn.functional.normalize(embedding, dim=1).cpu().numpy()
        return self._checked(vectors)

    def _run_texts(self, texts: list[str], question: bool) -> Float32:
        """As `_run_ids`, for models that do not start with a transformer, or treat a prompt's tokens differently."""
        model = self._opened()
        encode, prefix = (model.encode_query, self._prefixes.question) if question else (model.encode_document, self._prefixes.passage)
        with failures_named(self.name, _HINTS):
            vectors = encode(texts, prompt=prefix, batch_size=len(texts), normalize_embeddings=True, show_progress_bar=False)
        return self._checked(np.asarray(vectors, np.float32))

    def _opened(self) -> Any:
        if self._model is None:
            raise BackendError(f"the embedder {self.name} is closed")
        return self._model

    def _checked(self, vectors: Float32) -> Float32:
        if not np.isfinite(vectors).all():
            raise BackendError(
                f"{self.name} gave vectors that are not numbers", hint='16 bits can be too few for it: set embedding.precision to "fp32"'
            )
        return vectors


def _tokenizer_json(model: Any, folder: ModelFolder) -> str:
    tokenizer = model.tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if not hasattr(backend, "to_str"):
        raise InputError(
            f"the model {folder.name} has no tokenizer that tells where tokens stand",
            hint="use a model with a tokenizer.json, or one that transformers makes one for",
        )
    return str(backend.to_str())


def _window(model: Any) -> int:
    config = model.config
    positions = getattr(config, "max_position_embeddings", None)
    architecture = ARCHITECTURES.get(getattr(config, "model_type", ""))
    if positions and architecture and architecture.counts_from_padding:
        positions -= (config.pad_token_id or 0) + 1
    told = [limit for limit in (model.max_seq_length, positions) if limit and limit < 10**9]  # no limit is told as 1e30
    return int(min(told, default=_UNLIMITED_TOKENS))


def _takes_ids(model: Any) -> bool:
    """Whether the model can be given token ids: a transformer that pools over all of them, the prompt's included."""
    from sentence_transformers.base.modules import Transformer

    return isinstance(model[0], Transformer) and all(getattr(module, "include_prompt", True) for module in model)
