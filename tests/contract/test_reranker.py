"""What every reranker promises (`ragline.retrieval.reranking.base.Reranker`).

`RERANKERS` lists how to open each kind: an entry takes a folder for its files and gives the reranker within `async with`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from ragline.concurrency.workers import Workers, drive
from ragline.retrieval.reranking.base import Reranker
from ragline.retrieval.reranking.bert import OnnxReranker
from ragline.retrieval.reranking.endpoint import EndpointReranker
from ragline.settings import PoolSettings, RerankSettings
from tests.imitation.rerank import RerankServer
from tests.tiny_bert import write_cross_encoder

QUESTION = "how do we rotate keys?"
PASSAGES = ["rotate keys every day", "every day", "", "café 中文 😀", "keys. rotate! keys? (every) day: 24, 7", "a b c d e f g h"]

OpenReranker = Callable[[Path], AbstractAsyncContextManager[Reranker]]


def _onnx(precision: str) -> OpenReranker:
    @asynccontextmanager
    async def opened(folder: Path) -> AsyncIterator[Reranker]:
        settings = RerankSettings.model_validate({"model": str(write_cross_encoder(folder / "model")), "precision": precision})
        workers = Workers("rerank", 3)
        reranker = OnnxReranker.open(settings, folder / "cache", lambda _: None, workers=workers)
        yield reranker
        await reranker.close()
        workers.close()

    return opened


@asynccontextmanager
async def _cross_encoder(folder: Path) -> AsyncIterator[Reranker]:
    from ragline.retrieval.reranking.sentence_transformers import CrossEncoderReranker

    settings = RerankSettings(model=str(write_cross_encoder(folder / "model")), device="cpu")
    workers = Workers("rerank", 2)
    reranker = CrossEncoderReranker.open(settings, folder / "cache", lambda _: None, workers=workers)
    yield reranker
    await reranker.close()
    workers.close()


def _endpoint(style: Literal["tei", "cohere"]) -> OpenReranker:
    @asynccontextmanager
    async def opened(folder: Path) -> AsyncIterator[Reranker]:
        with RerankServer(style, most=4) as server:
            reranker = EndpointReranker(RerankSettings(base_url=server.url, style=style), PoolSettings())
            yield reranker
            await reranker.close()

    return opened


RERANKERS: dict[str, OpenReranker] = {
    "onnx-fp32": _onnx("fp32"),
    "onnx-int8": _onnx("int8"),
    "sentence-transformers": _cross_encoder,
    "tei": _endpoint("tei"),
    "cohere": _endpoint("cohere"),
}


@pytest.fixture(params=list(RERANKERS.values()), ids=list(RERANKERS))
async def reranker(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Reranker]:
    opener: OpenReranker = request.param
    async with opener(tmp_path) as opened:
        yield opened


async def test_scores_are_finite_float32_numbers_in_the_order_given(reranker: Reranker) -> None:
    scores = await reranker.rerank(QUESTION, PASSAGES)
    assert scores.shape == (len(PASSAGES),) and scores.dtype == np.float32
    assert np.isfinite(scores).all() and len(np.unique(scores.round(4))) > 1
    backwards = await reranker.rerank(QUESTION, PASSAGES[::-1])
    np.testing.assert_allclose(backwards[::-1], scores, atol=1e-5)


async def test_nothing_in_gives_no_scores(reranker: Reranker) -> None:
    scores = await reranker.rerank(QUESTION, [])
    assert scores.shape == (0,) and scores.dtype == np.float32


async def test_a_passage_has_the_same_score_alone_and_among_others(reranker: Reranker) -> None:
    together = await reranker.rerank(QUESTION, PASSAGES * 4)
    for i, passage in enumerate(PASSAGES):
        (alone,) = await reranker.rerank(QUESTION, [passage])
        np.testing.assert_allclose(together[i :: len(PASSAGES)], alone, atol=1e-5)


async def test_the_question_is_part_of_what_is_read(reranker: Reranker) -> None:
    assert (np.abs(await reranker.rerank(QUESTION, PASSAGES) - await reranker.rerank("passage", PASSAGES)) > 1e-4).any()


async def test_many_tasks_at_once_get_their_own_scores(reranker: Reranker) -> None:
    questions = [QUESTION, "every day", "passage"]
    expected = [await reranker.rerank(question, PASSAGES) for question in questions]
    got = await asyncio.gather(*(reranker.rerank(question, PASSAGES) for question in questions * 4))
    for i, scores in enumerate(got):
        np.testing.assert_allclose(scores, expected[i % len(questions)], atol=1e-5)


async def test_a_pair_longer_than_the_window_is_cut_at_the_passages_end(reranker: Reranker) -> None:
    long = "keys " * 20_000
    same, other, alike = await reranker.rerank(QUESTION, [long + "rotate", "rotate " * 20_000, long + "day"])
    assert same == pytest.approx(alike, abs=1e-6) and abs(same - other) > 1e-5


async def test_a_question_longer_than_the_window_leaves_something_of_the_passages(reranker: Reranker) -> None:
    scores = await reranker.rerank("keys " * 20_000, ["rotate " * 100, "every day " * 100])
    assert np.isfinite(scores).all() and abs(scores[0] - scores[1]) > 1e-5


async def test_where_it_is_local_it_never_suspends_on_a_worker_thread(reranker: Reranker) -> None:
    if not reranker.is_local:
        return
    workers = Workers("search", 1)
    scores = await workers.run(lambda: drive(reranker.rerank(QUESTION, PASSAGES)))
    np.testing.assert_allclose(scores, await reranker.rerank(QUESTION, PASSAGES), atol=1e-5)
    workers.close()


async def test_says_what_it_is(reranker: Reranker) -> None:
    assert reranker.name and reranker.fingerprint


async def test_closing_twice_is_harmless(reranker: Reranker) -> None:
    await reranker.close()
    await reranker.close()
