"""fp16 on CUDA, where there is such a device; where there is none, that asking for one says what to do.

The report's last lines say which of the two was run (tests/conftest.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ragline.concurrency.workers import Workers
from ragline.embedding.sentence_transformers import SentenceTransformersEmbedder
from ragline.embedding.torch_models import choose_device, choose_torch_precision
from ragline.errors import BackendError, SettingsError
from ragline.retrieval.reranking.sentence_transformers import CrossEncoderReranker
from ragline.settings import EmbeddingSettings, RerankSettings
from ragline.types import Chunk
from tests.tiny_transformers import write_cross_encoder, write_encoder

TEXTS = ["how do we rotate keys?", "every day", "", "café 24, keys rotate: (we do)", "keys " * 50]


@pytest.fixture
def workers() -> Iterator[Workers]:
    opened = Workers("w", 1)
    yield opened
    opened.close()


def open_embedder(model: Path, workers: Workers, **settings: Any) -> SentenceTransformersEmbedder:
    chosen = EmbeddingSettings.model_validate({"model": str(model), **settings})
    return SentenceTransformersEmbedder.open(chosen, model.parent / "cache", lambda _: None, question_workers=workers, bulk_workers=workers)


def open_reranker(model: Path, workers: Workers, **settings: Any) -> CrossEncoderReranker:
    chosen = RerankSettings.model_validate({"model": str(model), **settings})
    return CrossEncoderReranker.open(chosen, model.parent / "cache", lambda _: None, workers=workers)


async def test_vectors_in_sixteen_bits_on_cuda_are_near_those_in_thirty_two(tmp_path: Path, workers: Workers) -> None:
    model = write_encoder(tmp_path / "model")
    if not torch.cuda.is_available():
        with pytest.raises(BackendError, match=r"embedding\.device is cuda") as raised:
            open_embedder(model, workers, device="cuda")
        assert '"auto" or "cpu"' in raised.value.hint
        return
    exact = open_embedder(model, workers, device="cpu")
    near = open_embedder(model, workers)  # cuda and fp16 by itself
    assert (exact.description["precision"], near.description["precision"]) == ("fp32", "fp16")
    assert next(near._model.parameters()).is_cuda and next(near._model.parameters()).dtype == torch.float16
    assert exact.fingerprint != near.fingerprint
    expected = await exact.embed_questions(TEXTS)
    assert np.sum(expected * await near.embed_questions(TEXTS), axis=1).min() > 0.999
    vectors = await near.embed_passages([Chunk(text, 0, len(text)) for text in TEXTS * 20])
    assert vectors.dtype == np.float32
    assert np.sum(np.tile(expected, (20, 1)) * vectors, axis=1).min() > 0.999
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    whole = open_embedder(model, workers, device="cuda", precision="fp32")
    np.testing.assert_allclose(await whole.embed_questions(TEXTS), expected, atol=1e-3)  # TF32, where torch allows it


async def test_scores_in_sixteen_bits_on_cuda_are_near_those_in_thirty_two(tmp_path: Path, workers: Workers) -> None:
    model = write_cross_encoder(tmp_path / "model")
    if not torch.cuda.is_available():
        with pytest.raises(BackendError, match=r"rerank\.device is cuda"):
            open_reranker(model, workers, device="cuda")
        return
    expected = await open_reranker(model, workers, device="cpu").rerank("how do we rotate keys?", TEXTS)
    scores = await open_reranker(model, workers).rerank("how do we rotate keys?", TEXTS)
    np.testing.assert_allclose(scores, expected, atol=0.02)


async def test_the_code_for_sixteen_bits_runs_on_a_processor_too(tmp_path: Path, workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused there by setting, since it is slow, is all the same the code that runs on CUDA."""
    model = write_encoder(tmp_path / "model", "mpnet", dense=10)
    exact = await open_embedder(model, workers, device="cpu", precision="fp32").embed_questions(TEXTS)
    monkeypatch.setattr("ragline.embedding.sentence_transformers.choose_torch_precision", lambda *_: "fp16")
    near = open_embedder(model, workers, device="cpu")
    assert next(near._model.parameters()).dtype == torch.float16
    vectors = await near.embed_questions(TEXTS)
    assert vectors.dtype == np.float32 and (vectors != exact).any()
    assert np.sum(vectors * exact, axis=1).min() > 0.999


@pytest.mark.parametrize(("cuda", "mps", "expected"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")])
def test_the_best_device_is_taken(cuda: bool, mps: bool, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert choose_device("auto", "embedding.device") == expected
    assert choose_device("cpu", "embedding.device") == "cpu"


def test_the_precision_follows_the_device() -> None:
    assert choose_torch_precision("auto", "cuda", "p") == "fp16"
    assert choose_torch_precision("auto", "mps", "p") == choose_torch_precision("auto", "cpu", "p") == "fp32"
    assert choose_torch_precision("fp16", "mps", "p") == "fp16"
    assert choose_torch_precision("fp32", "cuda", "p") == "fp32"
    with pytest.raises(SettingsError, match="graphics card"):
        choose_torch_precision("fp16", "cpu", "p")
