"""Reranks with sentence-transformers' CrossEncoder, on a graphics card where there is one."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ragline.concurrency.workers import Workers, on_worker
from ragline.embedding.bert_config import asks_for_sigmoid
from ragline.embedding.files import file_sha256
from ragline.embedding.layouts import ANY_CROSS_ENCODER
from ragline.embedding.models import ModelFolder, locate_model
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
)
from ragline.embedding.weights import open_weights
from ragline.errors import BackendError, InputError
from ragline.settings import RerankSettings
from ragline.types import Float32

_BATCH = {"cuda": 64, "mps": 32, "cpu": 8}
"""How many pairs run together: on a processor few, since another question waits for them."""
_CHARACTERS_AT_MOST = 32_768
"""Of a passage: more than any model's window takes."""
_HINTS = {
    "memory": "lower rerank.candidates, or free memory on the card",
    "else": "check that the model, torch and sentence-transformers fit together",
}


class CrossEncoderReranker:
    """A CrossEncoder on torch. Open it with `CrossEncoderReranker.open`. One batch of pairs runs at a time."""

    is_local = True

    def __init__(
        self, folder: ModelFolder, model: Any, *, device: Device, precision: TorchPrecision, model_hash: str, workers: Workers
    ) -> None:
        torch = import_torch()
        self._name = folder.name
        self._model = model
        self._batch = _BATCH[device]
        self._workers = workers
        self._turn = threading.Lock()
        self._function = torch.nn.Sigmoid() if asks_for_sigmoid(folder.path) else torch.nn.Identity()
        parts = (model_hash, str(self._function), str(model.max_seq_length))
        self._fingerprint = f"torch-{precision}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:32]}"

    @classmethod
    def open(cls, settings: RerankSettings, cache_dir: Path, announce: Callable[[str], None], *, workers: Workers) -> CrossEncoderReranker:
        """Finds the model, fetches it where it is nowhere on this machine, and loads it.

        Blocks: for some seconds, most of which are torch's own start. The workers stay the caller's to close.

        Raises:
            MissingExtraError: sentence-transformers is not installed.
            InputError: The model gives not one score for a pair, needs code of its own, or a setting does not fit it.
            NotFoundError: There is no such model.
            BackendError: The model cannot be fetched or loaded, or there is no such device.
            CorruptionError: A file of the model is damaged.
        """
        import_torch()
        from sentence_transformers import CrossEncoder

        device = choose_device(settings.device, "rerank.device")
        precision = choose_torch_precision(settings.precision, device, "rerank.precision")
        folder = locate_model(settings.model, cache_dir=cache_dir, announce=announce, layout=ANY_CROSS_ENCODER)
        bound_threads(device, workers)
        model = load_model(CrossEncoder, folder.path, folder.name, device, precision)
        if model.num_labels != 1:
            raise InputError(
                f"{folder.name} gives {model.num_labels} scores for a pair, not one",
                hint="use a cross-encoder that was trained to rank, such as cross-encoder/ms-marco-MiniLM-L6-v2",
            )
        _check_head(model, folder)
        model_hash = model_sha256(folder.path, lambda file: file_sha256(file, cache_dir))
        return cls(folder, model, device=device, precision=precision, model_hash=model_hash, workers=workers)

    @property
    def name(self) -> str:
        """The model's name on the hub, or the folder it was opened from."""
        return self._name

    @property
    def fingerprint(self) -> str:
        """Hash of the weights, the configuration and the precision; not of the device."""
        return self._fingerprint

    async def rerank(self, question: str, passages: Sequence[str]) -> Float32:
        """The relevance of each passage, `(n,)` float32, in the order given; as the model scores it, not from 0 to 1.

        A pair longer than the window is cut at the passage's end, or at both ends where the question is the longer one.
        Ends soon when it is cancelled: batches not yet begun are left.

        Raises:
            InputError: A text holds lone surrogates.
            BackendError: torch failed.
        """
        stop = threading.Event()
        if on_worker():
            return self._score(question, passages, stop)
        try:
            return await self._workers.run(self._score, question, passages, stop)
        finally:
            stop.set()

    async def close(self) -> None:
        """Lets go of the model; batches under way end as usual."""
        self._model = None

    def _score(self, question: str, passages: Sequence[str], stop: threading.Event) -> Float32:
        _check_characters([question, *passages])
        scores = np.empty(len(passages), np.float32)
        pairs = [(question[:_CHARACTERS_AT_MOST], passage[:_CHARACTERS_AT_MOST]) for passage in passages]
        for batch in batches([len(passage) for passage in passages], most=self._batch, most_tokens=self._batch * _CHARACTERS_AT_MOST):
            with self._turn, failures_named(self.name, _HINTS):
                if stop.is_set():
                    break
                if self._model is None:
                    raise BackendError(f"the reranker {self.name} is closed")
                scores[batch] = self._model.predict(
                    [pairs[i] for i in batch], batch_size=len(batch), activation_fn=self._function, show_progress_bar=False
                )
        if not stop.is_set() and not np.isfinite(scores).all():
            raise BackendError(
                f"{self.name} gave scores that are not numbers", hint='16 bits can be too few for it: set rerank.precision to "fp32"'
            )
        return scores


def _check_head(model: Any, folder: ModelFolder) -> None:
    """Raises InputError where the files lack what turns a vector into a score: it would be made up at random."""
    inner = model.transformers_model
    if not type(inner).__name__.endswith("ForSequenceClassification"):
        return
    there = open_weights(folder.weights)
    lost = [name for name in inner.state_dict() if not name.startswith(inner.base_model_prefix + ".") and name not in there]
    if lost:
        raise InputError(f"the weights of {folder.name} lack {lost[0]!r}, so it cannot score", hint="use the weights of a cross-encoder")


def _check_characters(texts: Sequence[str]) -> None:
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InputError(
                "the text holds lone surrogates, which are not characters", hint="decode its bytes as what they are"
            ) from error
