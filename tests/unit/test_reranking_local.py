"""Cross-encoders on this machine: our own graphs and sentence-transformers' CrossEncoder give the same scores."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder

from ragline.concurrency.workers import Workers
from ragline.embedding.tokenizer import ModelTokenizer
from ragline.errors import BackendError, InputError, MissingExtraError, SettingsError
from ragline.retrieval.reranking.bert import OnnxReranker
from ragline.retrieval.reranking.sentence_transformers import CrossEncoderReranker
from ragline.settings import RerankSettings
from tests.tiny_bert import write_cross_encoder as write_bert
from tests.tiny_bert import write_model
from tests.tiny_transformers import FAMILIES, write_cross_encoder, write_encoder

QUESTION = "how do we rotate keys?"
PASSAGES = ["rotate keys every day", "every day", "", "café 24, keys rotate: (we do)", "中文 keys", "keys " * 100 + "day"]


class Opener:
    def __init__(self, cache_dir: Path) -> None:
        self.cache_dir = cache_dir
        self.workers = Workers("rerank", 2)

    def onnx(self, model: Path, precision: str = "fp32") -> OnnxReranker:
        settings = RerankSettings.model_validate({"model": str(model), "precision": precision})
        return OnnxReranker.open(settings, self.cache_dir, lambda _: None, workers=self.workers)

    def torch(self, model: Path, **more: Any) -> CrossEncoderReranker:
        settings = RerankSettings.model_validate({"model": str(model), "device": "cpu", **more})
        return CrossEncoderReranker.open(settings, self.cache_dir, lambda _: None, workers=self.workers)


@pytest.fixture
def opener(tmp_path: Path) -> Iterator[Opener]:
    opened = Opener(tmp_path / "cache")
    yield opened
    opened.workers.close()


@pytest.mark.parametrize("family", [*FAMILIES, "modernbert"])
async def test_scores_are_those_of_sentence_transformers(family: str, opener: Opener, tmp_path: Path) -> None:
    model = write_cross_encoder(tmp_path / "model", family)
    pairs = [(QUESTION, passage) for passage in PASSAGES]
    expected = CrossEncoder(str(model), device="cpu").predict(pairs, activation_fn=torch.nn.Identity())
    assert expected.std() > 0.05
    np.testing.assert_allclose(await opener.torch(model).rerank(QUESTION, PASSAGES), expected, atol=1e-5)
    if family == "modernbert":
        with pytest.raises(InputError, match="modernbert") as raised:
            opener.onnx(model)
        assert 'rerank.reranker = "sentence-transformers"' in raised.value.hint
        return
    np.testing.assert_allclose(await opener.onnx(model).rerank(QUESTION, PASSAGES), expected, atol=1e-5)
    near = await opener.onnx(model, "int8").rerank(QUESTION, PASSAGES)
    assert (near != expected).any() and np.corrcoef(near, expected)[0, 1] > 0.9


@pytest.mark.parametrize("sigmoid", [None, False, True])
async def test_scores_are_between_0_and_1_only_where_the_model_asks_for_it(sigmoid: bool | None, opener: Opener, tmp_path: Path) -> None:
    raw = await opener.onnx(write_bert(tmp_path / "raw")).rerank(QUESTION, PASSAGES)
    model = write_bert(tmp_path / "model", sigmoid=sigmoid)
    expected = 1 / (1 + np.exp(-raw)) if sigmoid else raw
    for scores in (await opener.onnx(model).rerank(QUESTION, PASSAGES), await opener.torch(model).rerank(QUESTION, PASSAGES)):
        np.testing.assert_allclose(scores, expected, atol=1e-5)
    pairs = [(QUESTION, passage) for passage in PASSAGES]
    if sigmoid is not None:  # without a word on it, sentence-transformers takes the sigmoid
        np.testing.assert_allclose(CrossEncoder(str(model), device="cpu").predict(pairs), expected, atol=1e-5)


def test_what_gives_not_one_score_is_refused(opener: Opener, tmp_path: Path) -> None:
    two = write_cross_encoder(tmp_path / "two", labels=2)
    with pytest.raises(InputError, match="2 labels"):
        opener.onnx(two)
    with pytest.raises(InputError, match="2 scores for a pair"):
        opener.torch(two)
    encoder = write_encoder(tmp_path / "encoder")
    with pytest.raises(InputError, match="no cross-encoder"):
        opener.onnx(encoder)
    with pytest.raises(InputError, match=r"lack 'classifier\.weight', so it cannot score"):
        opener.torch(encoder)
    with pytest.raises(InputError, match="no cross-encoder"):
        opener.onnx(write_model(tmp_path / "tiny"))


def test_a_head_that_is_lost_is_found_and_not_made_up(opener: Opener, tmp_path: Path) -> None:
    model = write_bert(tmp_path / "model")
    shutil.copy(write_model(tmp_path / "encoder", prefix="bert.") / "model.safetensors", model)
    with pytest.raises(InputError, match=r"pooler\.dense"):
        opener.onnx(model)
    with pytest.raises(InputError, match=r"classifier\.weight"):
        opener.torch(model)


def test_a_model_with_more_than_a_graph_would_do_is_refused(opener: Opener, tmp_path: Path) -> None:
    model = write_bert(tmp_path / "model")
    (model / "config_sentence_transformers.json").write_text('{"prompts": {"rank": "judge: "}, "default_prompt_name": "rank"}')
    with pytest.raises(InputError, match="prompt"):
        opener.onnx(model)
    (model / "modules.json").write_text('[{"type": "sentence_transformers.cross_encoder.modules.LogitScore", "path": "1"}]')
    with pytest.raises(InputError, match="LogitScore"):
        opener.onnx(model)


def test_a_tokenizer_for_single_texts_is_refused(opener: Opener, tmp_path: Path) -> None:
    model = write_bert(tmp_path / "model")
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    tokenizer["post_processor"]["pair"] = [{"Sequence": {"id": "A", "type_id": 0}}]
    (model / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(InputError, match="two texts"):
        opener.onnx(model)


def test_the_special_tokens_of_a_pair_are_found(tmp_path: Path) -> None:
    assert ModelTokenizer(write_bert(tmp_path / "bert") / "tokenizer.json").around_pair() == ((2,), (3,), (3,))
    roberta = write_cross_encoder(tmp_path / "roberta", "roberta")
    assert ModelTokenizer(roberta / "tokenizer.json").around_pair() == ((0,), (2, 2), (2,))


def test_the_fingerprint_tells_what_makes_scores_differ_and_nothing_else(opener: Opener, tmp_path: Path) -> None:
    first, same = write_bert(tmp_path / "a"), write_bert(tmp_path / "b")
    others = [
        write_bert(tmp_path / "c", seed=1),
        write_bert(tmp_path / "d", sigmoid=True),
        write_bert(tmp_path / "e", hidden_act="gelu_new"),
    ]
    for opened in (opener.onnx, opener.torch):
        assert opened(first).fingerprint == opened(same).fingerprint
        assert len({opened(model).fingerprint for model in (first, *others)}) == 4
    assert len({opener.onnx(first).fingerprint, opener.onnx(first, "int8").fingerprint, opener.torch(first).fingerprint}) == 3


async def test_cancelling_leaves_the_pairs_not_yet_begun(opener: Opener, tmp_path: Path) -> None:
    reranker = opener.onnx(write_bert(tmp_path / "model"))
    begun, ran = threading.Semaphore(0), 0
    score = reranker._score

    def counting(*pair: Any) -> float:
        nonlocal ran
        ran += 1
        begun.release()
        return score(*pair)

    reranker._score = counting  # type: ignore[method-assign,assignment]
    task = asyncio.create_task(reranker.rerank(QUESTION, ["rotate keys"] * 20_000))
    await asyncio.to_thread(begun.acquire)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.gather(*(opener.workers.run(lambda: None) for _ in range(2)))
    assert ran < 20_000


async def test_cancelling_leaves_the_batches_not_yet_begun(opener: Opener, tmp_path: Path) -> None:
    reranker = opener.torch(write_bert(tmp_path / "model"))
    begun, go, ran = threading.Event(), threading.Event(), 0
    predict = reranker._model.predict

    def waiting(*arguments: Any, **more: Any) -> Any:
        nonlocal ran
        ran += 1
        begun.set()
        assert go.wait(30)
        return predict(*arguments, **more)

    reranker._model.predict = waiting
    task = asyncio.create_task(reranker.rerank(QUESTION, ["rotate keys"] * 100))
    await asyncio.to_thread(begun.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go.set()
    await asyncio.gather(*(opener.workers.run(lambda: None) for _ in range(2)))
    assert ran == 1


@pytest.mark.parametrize("kind", ["onnx", "torch"])
async def test_lone_surrogates_and_a_closed_reranker_are_clear_errors(kind: str, opener: Opener, tmp_path: Path) -> None:
    reranker = getattr(opener, kind)(write_bert(tmp_path / "model"))
    for question, passage in (("keys \ud800", "keys"), ("keys", "keys \ud800")):
        with pytest.raises(InputError, match="surrogates"):
            await reranker.rerank(question, [passage])
    await reranker.close()
    with pytest.raises(BackendError, match="closed"):
        await reranker.rerank("keys", ["keys"])


async def test_scores_that_are_not_numbers_are_an_error(opener: Opener, tmp_path: Path) -> None:
    reranker = opener.torch(write_bert(tmp_path / "model"))
    with torch.no_grad():
        next(reranker._model.parameters()).fill_(float("nan"))
    with pytest.raises(BackendError, match="not numbers"):
        await reranker.rerank("keys", ["keys"])


def test_settings_that_do_not_fit_are_refused(opener: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = write_bert(tmp_path / "model")
    for precision in ("int8", "fp16"):
        with pytest.raises(SettingsError, match=precision):
            opener.torch(model, precision=precision)
    with pytest.raises(SettingsError, match="fp16"):
        opener.onnx(model, "fp16")
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingExtraError, match="sentence-transformers") as raised:
        opener.torch(model)
    assert raised.value.hint == "pip install 'ragline[sentence-transformers]'"
