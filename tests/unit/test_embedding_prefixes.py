"""What is put before texts, how long vectors are, and how an embedder is opened again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragline.concurrency.workers import Workers
from ragline.embedding.onnx_runtime import OnnxEmbedder
from ragline.embedding.prefixes import Prefixes, choose_prefixes, known_prefixes
from ragline.errors import SettingsError
from ragline.settings import EmbeddingSettings
from ragline.types import Chunk
from tests.tiny_bert import HIDDEN, write_model

INSTRUCTION = "Represent this sentence for searching relevant passages: "


@pytest.fixture
def workers() -> Iterator[Workers]:
    made = Workers("w", 1)
    yield made
    made.close()


def opened(model: Path, workers: Workers, announced: list[str] | None = None, **settings: Any) -> OnnxEmbedder:
    chosen = EmbeddingSettings.model_validate({"model": str(model), "precision": "fp32", **settings})
    announce = announced.append if announced is not None else lambda _: None
    return OnnxEmbedder.open(chosen, model.parent / "cache", announce, question_workers=workers, bulk_workers=workers)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("intfloat/e5-small-v2", ("query: ", "passage: ")),
        ("intfloat/multilingual-e5-large", ("query: ", "passage: ")),
        ("/models/e5-base", ("query: ", "passage: ")),
        ("BAAI/bge-small-en-v1.5", (INSTRUCTION, "")),
        ("baai/BGE-large-en", (INSTRUCTION, "")),
        ("Snowflake/snowflake-arctic-embed-xs", (INSTRUCTION, "")),
        ("Snowflake/snowflake-arctic-embed-l-v2.0", ("query: ", "")),
        ("mixedbread-ai/mxbai-embed-large-v1/", (INSTRUCTION, "")),
        ("nomic-ai/nomic-embed-text-v1.5", ("search_query: ", "search_document: ")),
        ("intfloat/e5-mistral-7b-instruct", ("", "")),
        ("intfloat/multilingual-e5-large-instruct", ("", "")),
        ("BAAI/bge-m3", ("", "")),
        ("BAAI/bge-reranker-base", ("", "")),
        ("thenlper/gte-small", ("", "")),
        ("sentence-transformers/all-MiniLM-L6-v2", ("", "")),
        ("", ("", "")),
    ],
)
def test_widely_used_models_are_known_by_their_whole_names(name: str, expected: tuple[str, str]) -> None:
    assert known_prefixes(name) == expected


def test_a_setting_wins_over_what_is_declared_and_that_over_what_is_known() -> None:
    name, declared = "intfloat/e5-small", Prefixes("q: ", "")
    assert choose_prefixes(EmbeddingSettings(), name, Prefixes()) == ("query: ", "passage: ")
    assert choose_prefixes(EmbeddingSettings(), name, declared) == declared
    assert choose_prefixes(EmbeddingSettings(question_prefix="", passage_prefix="x"), name, declared) == ("", "x")
    assert choose_prefixes(EmbeddingSettings(passage_prefix=""), name, Prefixes()) == ("query: ", "")


async def test_prefixes_by_setting_stand_before_texts_and_in_the_fingerprint(workers: Workers, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    plain = opened(model, workers)
    prefixed = opened(model, workers, question_prefix="query: ", passage_prefix="passage: ")
    np.testing.assert_array_equal(await prefixed.embed_questions(["keys"]), await plain.embed_questions(["query: keys"]))
    chunks = [Chunk("passage: keys", 0, 13)]
    np.testing.assert_array_equal(await prefixed.embed_passages([Chunk("keys", 0, 4)]), await plain.embed_passages(chunks))
    assert prefixed.fingerprint != plain.fingerprint
    assert opened(model, workers, question_prefix="", passage_prefix="").fingerprint == plain.fingerprint
    assert len(list((tmp_path / "cache" / "graphs").iterdir())) == 1, "the graph does not depend on them"


async def test_an_empty_setting_takes_a_declared_prompt_away(workers: Workers, tmp_path: Path) -> None:
    prompted = write_model(tmp_path / "prompted", prompts={"query": "query: "})
    plain = opened(write_model(tmp_path / "plain"), workers)
    bare = opened(prompted, workers, question_prefix="")
    np.testing.assert_array_equal(await bare.embed_questions(["keys"]), await plain.embed_questions(["keys"]))
    assert bare.fingerprint == plain.fingerprint != opened(prompted, workers).fingerprint


async def test_a_model_in_a_folder_with_a_known_name_gets_its_prefixes(workers: Workers, tmp_path: Path) -> None:
    named, plain = (opened(write_model(tmp_path / name), workers) for name in ("e5-small-v2", "mine"))
    np.testing.assert_array_equal(await named.embed_questions(["keys"]), await plain.embed_questions(["query: keys"]))
    assert len(named.tokenizer.special_ids[0]) == len(plain.tokenizer.special_ids[0]) + 2


def test_a_prefix_that_leaves_no_room_for_text_is_refused(workers: Workers, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    for setting in ("question_prefix", "passage_prefix"):
        with pytest.raises(SettingsError, match=r"has 101 tokens, of the 64") as raised:
            opened(model, workers, None, **{setting: "keys " * 100})
        assert setting in raised.value.hint


async def test_fewer_numbers_are_the_first_ones_at_unit_length(workers: Workers, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    whole, short = opened(model, workers), opened(model, workers, dimension=8)
    assert (short.dimension, whole.dimension) == (8, HIDDEN)
    texts = ["keys", "rotate every day", ""]
    vectors, expected = await short.embed_questions(texts), (await whole.embed_questions(texts))[:, :8]
    np.testing.assert_allclose(vectors, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-6)
    passages = await short.embed_passages([Chunk(text, 0, len(text)) for text in texts])
    np.testing.assert_array_equal(passages, vectors)
    assert passages.shape == (3, 8) and passages.dtype == np.float32
    assert short.fingerprint != whole.fingerprint == opened(model, workers, dimension=HIDDEN).fingerprint


def test_more_numbers_than_the_model_has_are_refused(workers: Workers, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=f"dimension is {HIDDEN + 1}.*have {HIDDEN}"):
        opened(write_model(tmp_path / "model"), workers, dimension=HIDDEN + 1)


@pytest.mark.parametrize("told", [{"config.json": "matryoshka_dimensions"}, {"config_sentence_transformers.json": "truncate_dim"}, {}])
def test_a_model_that_does_not_declare_it_is_shortened_with_a_warning(told: dict[str, str], workers: Workers, tmp_path: Path) -> None:
    model, announced = write_model(tmp_path / "model"), list[str]()
    for file, key in told.items():
        content = json.loads((model / file).read_text())
        (model / file).write_text(json.dumps(content | {key: [8, 16] if "dimensions" in key else 16}))
    opened(model, workers, announced, dimension=8)
    assert any("Matryoshka" in message for message in announced) == (not told)
    announced.clear()
    opened(model, workers, announced)
    assert not announced


def test_the_description_opens_the_same_embedder_again(workers: Workers, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", prompts={"query": "query: "})
    first = opened(model, workers, dimension=8, question_prefix="", passage_prefix="passage: ")
    assert first.description == {
        "model": str(model),
        "precision": "fp32",
        "dimension": "8",
        "question_prefix": "",
        "passage_prefix": "passage: ",
    }
    again = EmbeddingSettings.model_validate({**first.description, "dimension": int(first.description["dimension"])})
    second = OnnxEmbedder.open(again, tmp_path / "cache", lambda _: None, question_workers=workers, bulk_workers=workers)
    assert (second.fingerprint, second.description) == (first.fingerprint, first.description)
    assert opened(model, workers).description == {"model": str(model), "precision": "fp32"}


def test_sixteen_bits_are_refused_where_nothing_computes_in_them(workers: Workers, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="fp16") as raised:
        opened(write_model(tmp_path / "model"), workers, precision="fp16")
    assert "sentence-transformers" in raised.value.hint


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_stores_of_the_first_release_keep_their_fingerprints(precision: str, workers: Workers, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", prompts={"query": "query: "})
    hashes = [hashlib.sha256((model / name).read_bytes()).hexdigest() for name in ("model.safetensors", "tokenizer.json")]
    config = (
        "BertConfig(hidden=24, layers=2, heads=3, gelu='none', epsilon=1e-12, pooling='mean', max_tokens=64, "
        "question_prompt='query: ', passage_prompt='')"
    )
    made_from = f"('{hashes[0]}', '{hashes[1]}', '{precision}', {config})"
    expected = f"{precision}-{hashlib.sha256(made_from.encode()).hexdigest()[:32]}"
    assert opened(model, workers, precision=precision).fingerprint == expected
