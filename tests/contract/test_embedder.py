"""What every embedder promises (`ragline.embedding.base.Embedder`)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from ragline.concurrency.workers import Workers, drive
from ragline.embedding.base import Embedder
from ragline.embedding.onnx_runtime import OnnxEmbedder
from ragline.errors import InputError
from ragline.settings import EmbeddingSettings
from ragline.types import Chunk
from tests.embedders import HashEmbedder
from tests.tiny_bert import write_model

TEXTS = ["how do we rotate keys?", "every day", "", "café 中文 😀", "keys. rotate! keys? (every) day: 24, 7", "a b c d e f g h"]


def passage(text: str, heading: str = "") -> Chunk:
    return Chunk(text, 0, len(text), heading=heading)


def token_ids(embedder: Embedder, text: str) -> tuple[int, ...]:
    before, after = embedder.tokenizer.special_ids
    return (*before, *embedder.tokenizer.spans([text])[0].ids.tolist(), *after)


@pytest.fixture(params=["hash", "onnx-fp32", "onnx-int8", "onnx-prompts"])
async def embedder(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Embedder]:
    if request.param == "hash":
        yield HashEmbedder(max_tokens=64)
        return
    prompts = {"query": "query: ", "passage": "passage: "} if request.param == "onnx-prompts" else None
    settings = EmbeddingSettings(
        model=str(write_model(tmp_path / "model", prompts=prompts)), precision="fp32" if request.param == "onnx-fp32" else "int8"
    )
    questions, bulk = Workers("questions", 1), Workers("bulk", 3)
    opened = OnnxEmbedder.open(settings, tmp_path / "cache", lambda _: None, question_workers=questions, bulk_workers=bulk)
    yield opened
    await opened.close()
    questions.close()
    bulk.close()


async def test_vectors_are_unit_length_float32_rows_in_order(embedder: Embedder) -> None:
    for vectors in (await embedder.embed_passages([passage(text) for text in TEXTS]), await embedder.embed_questions(TEXTS)):
        assert vectors.shape == (len(TEXTS), embedder.dimension) and vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
        assert len(np.unique(vectors.round(4), axis=0)) == len(TEXTS)
    backwards = await embedder.embed_passages([passage(text) for text in reversed(TEXTS)])
    forwards = await embedder.embed_passages([passage(text) for text in TEXTS])
    np.testing.assert_array_equal(backwards[::-1], forwards)


async def test_nothing_in_gives_no_rows(embedder: Embedder) -> None:
    assert (await embedder.embed_passages([])).shape == (0, embedder.dimension)
    assert (await embedder.embed_questions([])).shape == (0, embedder.dimension)


async def test_a_text_has_the_same_vector_alone_and_among_others(embedder: Embedder) -> None:
    chunks = [passage(text) for text in TEXTS]
    together = await embedder.embed_passages(chunks * 5)
    for i, chunk in enumerate(chunks * 5):
        np.testing.assert_array_equal((await embedder.embed_passages([chunk]))[0], together[i])
    questions = await embedder.embed_questions(TEXTS)
    for i, text in enumerate(TEXTS):
        np.testing.assert_array_equal((await embedder.embed_questions([text]))[0], questions[i])


async def test_many_tasks_at_once_get_their_own_vectors(embedder: Embedder) -> None:
    expected = await embedder.embed_questions(TEXTS)
    expected_passages = await embedder.embed_passages([passage(text) for text in TEXTS])
    got = await asyncio.gather(*(embedder.embed_questions([text]) for text in TEXTS * 4))
    got_passages = await asyncio.gather(*(embedder.embed_passages([passage(text)]) for text in TEXTS * 4))
    np.testing.assert_array_equal(np.concatenate(got), np.tile(expected, (4, 1)))
    np.testing.assert_array_equal(np.concatenate(got_passages), np.tile(expected_passages, (4, 1)))


async def test_token_ids_give_the_vector_of_the_text_they_stand_for(embedder: Embedder) -> None:
    texts = await embedder.embed_passages([passage(text) for text in TEXTS])
    ids = await embedder.embed_passages([Chunk("unlike", 0, 6, token_ids=token_ids(embedder, text)) for text in TEXTS])
    np.testing.assert_array_equal(texts, ids)


async def test_the_heading_is_part_of_what_is_embedded(embedder: Embedder) -> None:
    bare, headed, written = await embedder.embed_passages([passage("rotate"), passage("rotate", "keys"), passage("keys\nrotate")])
    assert (bare != headed).any()
    np.testing.assert_array_equal(headed, written)


async def test_a_long_question_is_cut_to_the_window(embedder: Embedder) -> None:
    long, longer, other = await embedder.embed_questions(["keys " * 5000, "keys " * 5000 + "rotate", "rotate " * 5000])
    np.testing.assert_array_equal(long, longer)
    assert (long != other).any()


async def test_a_chunk_as_long_as_the_window_fits_and_a_longer_one_is_refused(embedder: Embedder) -> None:
    before, after = embedder.tokenizer.special_ids
    room = embedder.max_tokens - len(before) - len(after)
    whole, shorter = await embedder.embed_passages([passage("keys " * (room - 1) + "day"), passage("keys " * (room - 1))])
    assert (whole != shorter).any()
    too_long = "keys " * (room + 1)
    for chunk in (passage(too_long), Chunk("", 0, 0, token_ids=token_ids(embedder, too_long))):
        with pytest.raises(InputError, match=str(embedder.max_tokens)):
            await embedder.embed_passages([passage("keys"), chunk, passage("rotate")])


async def test_driven_on_a_worker_thread_it_never_suspends(embedder: Embedder) -> None:
    assert embedder.is_local
    workers = Workers("search", 1)
    chunks = [passage(text) for text in TEXTS]
    questions = await workers.run(lambda: drive(embedder.embed_questions(TEXTS)))
    passages = await workers.run(lambda: drive(embedder.embed_passages(chunks)))
    np.testing.assert_array_equal(questions, await embedder.embed_questions(TEXTS))
    np.testing.assert_array_equal(passages, await embedder.embed_passages(chunks))
    workers.close()


async def test_says_what_it_is(embedder: Embedder) -> None:
    assert embedder.name and embedder.fingerprint
    assert embedder.description["model"] == embedder.name
    assert all(isinstance(value, str) for value in embedder.description.values())


async def test_spans_of_the_tokenizer_are_substrings_of_the_text(embedder: Embedder) -> None:
    text = "Keys: rotate 中文 😀\x0cdaily"
    spans = embedder.tokenizer.spans([text, ""])
    assert len(spans[1].ids) == 0
    joined = "".join(text[start:end] for start, end in zip(spans[0].starts, spans[0].ends, strict=True))
    assert joined == "".join(text.split())


async def test_closing_twice_is_harmless(embedder: Embedder) -> None:
    await embedder.close()
    await embedder.close()


async def test_the_hashed_embedder_puts_texts_with_the_same_content_words_near() -> None:
    embedder = HashEmbedder()
    (question,) = await embedder.embed_questions(["how do I rotate the keys?"])
    near, far = await embedder.embed_passages([passage("Keys rotate every 90 days."), passage("The cat sat on a mat.")])
    assert question @ near > 0.4 > question @ far
