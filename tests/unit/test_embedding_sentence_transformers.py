"""sentence-transformers as an embedder: the same vectors as it gives alone, and nothing of a model's own code."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer

from ragline.concurrency.workers import Workers
from ragline.embedding.models import DEFAULT_MODEL
from ragline.embedding.onnx_runtime import OnnxEmbedder
from ragline.embedding.sentence_transformers import SentenceTransformersEmbedder
from ragline.embedding.torch_models import batches
from ragline.errors import BackendError, CorruptionError, InputError, MissingExtraError, NotFoundError, SettingsError
from ragline.settings import EmbeddingSettings, load_settings
from ragline.types import Chunk
from tests.tiny_transformers import HIDDEN, write_encoder

TEXTS = ["how do we rotate keys?", "every day", "", "café 24, keys rotate: (we do)", "  keys  rotate ", "中文 keys"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def model(folder: Path) -> Path:
    """A plain BERT encoder; tests that change it work on a copy."""
    return write_encoder(folder / "model")


class Opener:
    """Opens embedders on one cache folder."""

    def __init__(self, cache_dir: Path) -> None:
        self.cache_dir = cache_dir
        self.announced: list[str] = []
        self.questions, self.bulk = Workers("questions", 1), Workers("bulk", 1)

    def __call__(self, model: Path | str, **settings: Any) -> SentenceTransformersEmbedder:
        chosen = EmbeddingSettings.model_validate({"model": str(model), "runtime": "sentence-transformers", "device": "cpu", **settings})
        return SentenceTransformersEmbedder.open(
            chosen, self.cache_dir, self.announced.append, question_workers=self.questions, bulk_workers=self.bulk
        )

    def onnx(self, model: Path | str) -> OnnxEmbedder:
        chosen = EmbeddingSettings(model=str(model), precision="fp32")
        return OnnxEmbedder.open(chosen, self.cache_dir, self.announced.append, question_workers=self.questions, bulk_workers=self.bulk)


@pytest.fixture
def opener(tmp_path: Path) -> Iterator[Opener]:
    opened = Opener(tmp_path / "cache")
    yield opened
    opened.questions.close()
    opened.bulk.close()


def passages(*texts: str) -> list[Chunk]:
    return [Chunk(text, 0, len(text)) for text in texts]


@pytest.mark.parametrize(
    "what",
    [
        {"family": "modernbert"},
        {"family": "bert", "dense": 10},
        {"family": "bert", "pooling": "max"},
        {"family": "roberta", "pooling": "weightedmean", "normalize": False},
        {"family": "xlm-roberta", "prompts": {"query": "query: ", "document": "passage: "}},
        {"family": "bert", "dtype": "bfloat16"},
    ],
    ids=str,
)
async def test_any_of_its_models_gives_the_vectors_that_it_gives_alone(what: dict[str, Any], opener: Opener, tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "model", **what)
    reference = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": torch.float32})
    embedder = opener(folder)
    assert embedder.dimension == reference.get_embedding_dimension() and embedder.max_tokens == reference.max_seq_length
    expected = reference.encode_query(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(await embedder.embed_questions(TEXTS), expected, atol=2e-6)
    expected = reference.encode_document(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(await embedder.embed_passages(passages(*TEXTS)), expected, atol=2e-6)


async def test_it_and_our_own_graphs_agree(model: Path, opener: Opener) -> None:
    ours, theirs = opener.onnx(model), opener(model)
    assert np.sum(await ours.embed_questions(TEXTS) * await theirs.embed_questions(TEXTS), axis=1).min() > 0.9999
    chunks = passages(*TEXTS)
    assert np.sum(await ours.embed_passages(chunks) * await theirs.embed_passages(chunks), axis=1).min() > 0.9999
    assert ours.fingerprint != theirs.fingerprint, "their vectors are not the same to the last digit"


async def test_it_and_our_own_graphs_agree_on_the_default_model(opener: Opener) -> None:
    opener.cache_dir = load_settings().settings.model_cache_dir()
    ours, theirs = opener.onnx(DEFAULT_MODEL), opener(DEFAULT_MODEL)
    texts = ["How do I rotate the signing keys?", "Ärger mit Überlänge: 中文 😀 naïve café", "", "word " * 400]
    assert np.sum(await ours.embed_questions(texts) * await theirs.embed_questions(texts), axis=1).min() > 0.9999
    assert (ours.dimension, ours.max_tokens) == (theirs.dimension, theirs.max_tokens) == (384, 256)


async def test_models_that_leave_the_prompt_out_of_the_mean_do_so(opener: Opener, tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "model", prompts={"query": "how do we ", "document": "every day "})
    pooling = folder / "1_Pooling" / "config.json"
    pooling.write_text(json.dumps(json.loads(pooling.read_text()) | {"include_prompt": False}))
    reference = SentenceTransformer(str(folder), device="cpu")
    embedder = opener(folder)
    np.testing.assert_allclose(
        await embedder.embed_questions(["keys", "rotate keys"]), reference.encode_query(["keys", "rotate keys"]), atol=2e-6
    )
    np.testing.assert_allclose(await embedder.embed_passages(passages("keys")), reference.encode_document(["keys"]), atol=2e-6)
    np.testing.assert_allclose(await opener(folder, question_prefix="").embed_questions(["keys"]), reference.encode(["keys"]), atol=2e-6)


async def test_models_without_a_transformer_work(opener: Opener, model: Path, tmp_path: Path) -> None:
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    torch.manual_seed(1)
    static = StaticEmbedding(Tokenizer.from_file(str(model / "tokenizer.json")), embedding_dim=12)
    reference = SentenceTransformer(modules=[static], device="cpu")
    reference.save(str(tmp_path / "static"), create_model_card=False)
    embedder = opener(tmp_path / "static")
    texts = ["how do we rotate keys?", "every day " * 3000]
    np.testing.assert_allclose(await embedder.embed_questions(texts), reference.encode(texts, normalize_embeddings=True), atol=2e-6)
    assert embedder.dimension == 12 and embedder.max_tokens > 1000
    (nothing,) = await embedder.embed_passages(passages(""))
    assert np.isfinite(nothing).all()


async def test_fewer_numbers_are_the_first_ones_at_unit_length(model: Path, opener: Opener) -> None:
    whole, short = opener(model), opener(model, dimension=8)
    expected = (await whole.embed_questions(TEXTS))[:, :8]
    got = await short.embed_questions(TEXTS)
    np.testing.assert_allclose(got, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-6)
    assert short.dimension == 8 and short.fingerprint != whole.fingerprint
    with pytest.raises(SettingsError, match="dimension"):
        opener(model, dimension=HIDDEN + 1)


async def test_zero_keeps_all_numbers_also_where_the_model_asks_for_fewer(opener: Opener, model: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(model, tmp_path / "model")
    told = json.loads((copy / "config_sentence_transformers.json").read_text())
    (copy / "config_sentence_transformers.json").write_text(json.dumps(told | {"truncate_dim": 8}))
    embedder = opener(copy)
    assert embedder.dimension == HIDDEN and (await embedder.embed_questions(["keys"])).shape == (1, HIDDEN)


def test_the_fingerprint_tells_what_makes_vectors_differ_and_nothing_else(model: Path, opener: Opener, tmp_path: Path) -> None:
    plain = opener(model)
    copy = shutil.copytree(model, tmp_path / "copy")
    (copy / "README.md").write_text("a card")
    assert opener(copy).fingerprint == plain.fingerprint
    assert opener(model, batch_texts=1, threads=1).fingerprint == plain.fingerprint
    assert opener(model, question_prefix="q: ").fingerprint != plain.fingerprint
    assert opener(model, passage_prefix="p: ").fingerprint != plain.fingerprint
    assert opener(write_encoder(tmp_path / "seeded", seed=1)).fingerprint != plain.fingerprint
    pooling = copy / "1_Pooling" / "config.json"
    pooling.write_text(json.dumps(json.loads(pooling.read_text()) | {"pooling_mode": "cls"}))
    assert opener(copy).fingerprint != plain.fingerprint
    assert plain.description == {"model": str(model), "precision": "fp32", "runtime": "sentence-transformers"}


async def test_batches_are_bounded_and_change_nothing(model: Path, opener: Opener) -> None:
    texts = [" ".join(["keys", "rotate", "day"][: i % 3 + 1]) for i in range(40)]
    at_once, one_by_one = opener(model), opener(model, batch_texts=1, batch_tokens=16)
    expected = await one_by_one.embed_passages(passages(*texts))
    np.testing.assert_allclose(await at_once.embed_passages(passages(*texts)), expected, atol=2e-6)
    np.testing.assert_allclose(await at_once.embed_questions(texts), expected, atol=2e-6)


def test_batches_hold_so_many_texts_and_so_many_tokens_with_padding() -> None:
    lengths = [5, 100, 7, 30, 30, 30, 1, 1]
    found = list(batches(lengths, most=3, most_tokens=60))
    assert found == [[1], [3, 4], [5, 2], [0, 6, 7]]
    assert sorted(i for batch in found for i in batch) == list(range(len(lengths)))
    assert list(batches([], most=3, most_tokens=60)) == []


class Slow:
    """Stands before a model and lets each batch wait for a sign."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.begun = threading.Semaphore(0)
        self.go = threading.Semaphore(0)
        self.batches: list[int] = []

    def __call__(self, features: dict[str, Any]) -> Any:
        self.batches.append(len(features["input_ids"]))
        self.begun.release()
        assert self.go.acquire(timeout=30)
        return self.model(features)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)


def wait_until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.001)


async def test_a_question_goes_before_the_passages_that_wait(model: Path, opener: Opener) -> None:
    embedder = opener(model, batch_texts=2)
    slow = Slow(embedder._model)
    embedder._model = slow
    ingest = asyncio.create_task(embedder.embed_passages(passages(*["keys every day"] * 6)))
    await asyncio.to_thread(slow.begun.acquire)
    question = asyncio.create_task(embedder.embed_questions(["keys"]))
    await asyncio.to_thread(wait_until, lambda: embedder._turns._urgent)
    for _ in range(4):
        slow.go.release()
    await asyncio.gather(ingest, question)
    assert slow.batches == [2, 1, 2, 2]


async def test_cancelling_leaves_the_batches_not_yet_begun(model: Path, opener: Opener) -> None:
    embedder = opener(model, batch_texts=1)
    slow = Slow(embedder._model)
    embedder._model = slow
    task = asyncio.create_task(embedder.embed_passages(passages(*["keys"] * 100)))
    await asyncio.to_thread(slow.begun.acquire)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for _ in range(100):
        slow.go.release()
    await opener.bulk.run(lambda: None)  # its one thread is free again
    assert len(slow.batches) == 1


async def test_a_chunk_too_long_is_refused_before_any_is_run(model: Path, opener: Opener) -> None:
    embedder = opener(model)
    embedder._model = slow = Slow(embedder._model)
    with pytest.raises(InputError, match="does not fit the model's window of 64"):
        await embedder.embed_passages(passages("keys", "keys " * 100))
    assert not slow.batches


async def test_vectors_that_are_not_numbers_are_an_error_and_not_stored(opener: Opener, model: Path) -> None:
    embedder = opener(model)
    with torch.no_grad():
        next(embedder._model.parameters()).fill_(float("nan"))
    with pytest.raises(BackendError, match="not numbers") as raised:
        await embedder.embed_questions(["keys"])
    assert "fp32" in raised.value.hint


async def test_torchs_errors_are_named(opener: Opener, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = opener(model)
    with pytest.raises(BackendError, match="torch could not run"):
        await embedder.embed_passages([Chunk("", 0, 0, token_ids=(2, 10**6, 3))])

    def full(_: object) -> None:
        raise torch.OutOfMemoryError("no room")

    embedder._model = full
    monkeypatch.setattr("ragline.embedding.sentence_transformers.padded", lambda *_: {})
    embedder._opened = lambda: type("M", (), {"tokenizer": None, "__call__": lambda self, x: full(x)})()  # type: ignore[method-assign]
    with pytest.raises(BackendError, match="memory") as raised:
        await embedder.embed_questions(["keys"])
    assert "batch_tokens" in raised.value.hint


async def test_a_closed_embedder_says_so(opener: Opener, model: Path) -> None:
    embedder = opener(model)
    await embedder.close()
    with pytest.raises(BackendError, match="closed"):
        await embedder.embed_questions(["keys"])


async def test_lone_surrogates_are_refused(opener: Opener, model: Path) -> None:
    embedder = opener(model)
    with pytest.raises(InputError, match="surrogates"):
        await embedder.embed_questions(["keys \ud800"])
    with pytest.raises(InputError, match="surrogates"):
        await embedder.embed_passages(passages("keys \ud800"))


def test_without_the_extra_the_error_is_its_install_line(opener: Opener, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingExtraError) as raised:
        opener(model)
    assert raised.value.hint == "pip install 'ragline[sentence-transformers]'"


@pytest.mark.parametrize(("precision", "named"), [("int8", "int8"), ("fp16", "graphics card")])
def test_precisions_that_a_processor_is_no_good_at_are_refused(precision: str, named: str, opener: Opener, model: Path) -> None:
    with pytest.raises(SettingsError, match=named) as raised:
        opener(model, precision=precision)
    assert "embedding.precision" in raised.value.hint


def test_weights_that_only_unpickling_could_read_are_refused(opener: Opener, model: Path, tmp_path: Path) -> None:
    dense = write_encoder(tmp_path / "dense", dense=8)
    (dense / "2_Dense" / "model.safetensors").unlink()
    (dense / "2_Dense" / "pytorch_model.bin").write_bytes(b"a pickle")
    with pytest.raises(InputError, match=r"pytorch_model\.bin.*can hold code"):
        opener(dense)
    copy = shutil.copytree(model, tmp_path / "copy")
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"no model\.safetensors") as raised:
        opener(copy)
    assert "can run code" in raised.value.hint


def test_code_that_comes_with_a_model_is_not_run(opener: Opener, model: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(model, tmp_path / "module")
    (copy / "custom.py").write_text("raise SystemExit('run')")
    modules = json.loads((copy / "modules.json").read_text())
    (copy / "modules.json").write_text(json.dumps([{**modules[0], "type": "custom.Transformer"}, *modules[1:]]))
    with pytest.raises(InputError, match=r"custom\.Transformer"):
        opener(copy)
    copy = shutil.copytree(model, tmp_path / "architecture")
    (copy / "custom.py").write_text("raise SystemExit('run')")
    config = {"model_type": "mine", "auto_map": {"AutoConfig": "custom.Config", "AutoModel": "custom.Model"}}
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="needs code that comes with it"):
        opener(copy)


@pytest.mark.parametrize("content", ["{", "{}", "[1]", '[{"type": "sentence_transformers.models.Pooling"}]'])
def test_a_broken_list_of_modules_is_found(content: str, opener: Opener, model: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(model, tmp_path / "copy")
    (copy / "modules.json").write_text(content)
    with pytest.raises(CorruptionError, match=r"modules\.json"):
        opener(copy)


def test_a_module_outside_the_folder_is_refused(opener: Opener, model: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(model, tmp_path / "copy")
    modules = json.loads((copy / "modules.json").read_text())
    (copy / "modules.json").write_text(json.dumps([modules[0], {**modules[1], "path": "../1_Pooling"}]))
    with pytest.raises(CorruptionError, match="outside"):
        opener(copy)


def test_damaged_weights_are_a_clear_error(opener: Opener, model: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(model, tmp_path / "copy")
    (copy / "model.safetensors").write_bytes((copy / "model.safetensors").read_bytes()[:-100])
    with pytest.raises(BackendError, match="could not load"):
        opener(copy)


def test_what_is_no_model_is_not_found(opener: Opener) -> None:
    with pytest.raises(NotFoundError):
        opener("/no/such/folder")


def test_a_large_model_in_parts_opens(opener: Opener, model: Path, tmp_path: Path) -> None:
    from transformers import AutoModel

    copy = shutil.copytree(model, tmp_path / "copy")
    (copy / "model.safetensors").unlink()
    AutoModel.from_pretrained(model).save_pretrained(copy, max_shard_size="20KB")
    assert len(list(copy.glob("model-*.safetensors"))) > 1
    assert opener(copy).dimension == HIDDEN


def test_opening_leaves_the_screen_and_the_hosts_settings_alone(opener: Opener, model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from transformers.utils import logging as untyped

    logging: Any = untyped
    before = (logging.get_verbosity(), logging.is_progress_bar_enabled(), torch.get_default_dtype())
    capfd.readouterr()
    opener(model)
    assert capfd.readouterr() == ("", "")
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled(), torch.get_default_dtype()) == before
    assert torch.get_num_threads() == 1, "as many as the pool has"
