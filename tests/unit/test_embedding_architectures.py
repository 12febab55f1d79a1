"""Graphs of our own against sentence-transformers, on tiny models of every family that is served."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from ragline.concurrency.workers import Workers, drive
from ragline.embedding.bert import _buckets
from ragline.embedding.onnx_runtime import OnnxEmbedder
from ragline.errors import InputError
from ragline.settings import EmbeddingSettings
from ragline.types import Chunk, Float32
from tests.tiny_transformers import FAMILIES, WINDOW, write_encoder

TEXTS = ["how do we rotate keys?", "every day", "", "café 24, keys rotate: (we do)", "  keys  rotate ", "中文 keys"]


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    opened = Workers("questions", 1)
    yield opened
    opened.close()


def opened(model: Path, workers: Workers, precision: Literal["int8", "fp32"] = "fp32", **settings: Any) -> OnnxEmbedder:
    settings = {"model": str(model), "precision": precision, **settings}
    chosen = EmbeddingSettings.model_validate(settings)
    return OnnxEmbedder.open(chosen, model.parent / "cache", lambda _: None, question_workers=workers, bulk_workers=workers)


async def embedded(embedder: OnnxEmbedder, workers: Workers, texts: list[str]) -> Float32:
    return await workers.run(lambda: drive(embedder.embed_questions(texts)))


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("family", FAMILIES)
async def test_vectors_are_those_of_sentence_transformers(family: str, pooling: str, tmp_path: Path, workers: Workers) -> None:
    model = write_encoder(tmp_path / "model", family, pooling=pooling)
    reference = SentenceTransformer(str(model), device="cpu")
    texts = [*TEXTS, "keys " * 200]
    expected = reference.encode(texts)
    exact = opened(model, workers)
    np.testing.assert_allclose(await embedded(exact, workers, texts), expected, atol=2e-6)
    assert exact.max_tokens == reference.max_seq_length == WINDOW
    near = await embedded(opened(model, workers, "int8"), workers, texts)
    assert np.sum(near * expected, axis=1).min() > 0.99
    assert (near != expected).any()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
async def test_weights_in_sixteen_bits_are_computed_with_in_thirty_two(
    dtype: Literal["float16", "bfloat16"], tmp_path: Path, workers: Workers
) -> None:
    model = write_encoder(tmp_path / "model", "xlm-roberta", dtype=dtype)
    import torch

    expected = SentenceTransformer(str(model), device="cpu", model_kwargs={"dtype": torch.float32}).encode(TEXTS)
    np.testing.assert_allclose(await embedded(opened(model, workers), workers, TEXTS), expected, atol=2e-6)


async def test_vectors_have_unit_length_also_where_the_model_does_not_normalise(tmp_path: Path, workers: Workers) -> None:
    model = write_encoder(tmp_path / "model", "mpnet", normalize=False)
    vectors = SentenceTransformer(str(model), device="cpu").encode(TEXTS)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    assert (lengths > 1.1).all()
    np.testing.assert_allclose(await embedded(opened(model, workers), workers, TEXTS), vectors / lengths, atol=2e-6)


async def test_the_distances_of_a_long_text_are_those_of_mpnet(tmp_path: Path, workers: Workers) -> None:
    model = write_encoder(tmp_path / "model", "mpnet", max_position_embeddings=402)
    told = json.loads((model / "tokenizer_config.json").read_text())
    (model / "tokenizer_config.json").write_text(json.dumps(told | {"model_max_length": 400}))
    reference = SentenceTransformer(str(model), device="cpu")
    text = " ".join(np.random.default_rng(5).choice(["keys", "rotate", "every", "day", "how"], 390))
    assert len(reference.tokenizer(text)["input_ids"]) > 2 * 128, "farther apart than the farthest bucket"
    embedder = opened(model, workers)
    assert embedder.max_tokens == 400
    np.testing.assert_allclose(await embedded(embedder, workers, [text]), reference.encode([text]), atol=2e-6)


def test_buckets_are_fine_near_by_and_coarse_far_away() -> None:
    apart = np.arange(-600, 601)
    buckets = _buckets(apart, 32, 128)
    assert buckets.min() == 0 and buckets.max() == 31
    assert buckets[600:608].tolist() == [0, *range(17, 24)] and buckets[593:601].tolist() == [*range(7, 0, -1), 0]
    far = apart[601:] >= 8
    expected = [16 + min(15, 8 + int(math.log(d / 8) / math.log(128 / 8) * 8 + 1e-6)) for d in range(8, 601)]
    assert buckets[601:][far].tolist() == expected


@pytest.mark.parametrize("family", ["bert", "xlm-roberta"])
async def test_prompts_are_joined_to_texts_as_sentence_transformers_joins_them(family: str, tmp_path: Path, workers: Workers) -> None:
    model = write_encoder(tmp_path / "model", family, prompts={"query": "query: ", "document": "passage: "})
    reference = SentenceTransformer(str(model), device="cpu")
    embedder = opened(model, workers)
    np.testing.assert_allclose(await embedded(embedder, workers, TEXTS), reference.encode_query(TEXTS), atol=2e-6)
    passages = await embedder.embed_passages([Chunk(text, 0, len(text)) for text in TEXTS])
    np.testing.assert_allclose(passages, reference.encode_document(TEXTS), atol=2e-6)


@pytest.mark.parametrize(
    ("what", "named"),
    [
        ({"family": "modernbert"}, "modernbert"),
        ({"dense": 8}, "Dense"),
        ({"pooling": "max"}, "max"),
        ({"pooling": "lasttoken"}, "lasttoken"),
        ({"pooling": ["mean", "cls"]}, "cls, mean"),
    ],
)
def test_what_is_not_served_is_refused_with_what_serves_it(what: dict[str, Any], named: str, tmp_path: Path, workers: Workers) -> None:
    wide = isinstance(what.get("pooling"), list)  # such a vector is twice as wide; sentence-transformers minds with a Dense only
    model = write_encoder(tmp_path / "model", normalize=not wide, **what)
    with pytest.raises(InputError, match=named) as raised:
        opened(model, workers)
    assert 'embedding.runtime = "sentence-transformers"' in raised.value.hint


def test_a_model_that_leaves_its_prompt_out_of_the_mean_is_refused(tmp_path: Path, workers: Workers) -> None:
    model = write_encoder(tmp_path / "model")
    pooling = model / "1_Pooling" / "config.json"
    pooling.write_text(json.dumps(json.loads(pooling.read_text()) | {"include_prompt": False}))
    with pytest.raises(InputError, match="without its prompt"):
        opened(model, workers)
