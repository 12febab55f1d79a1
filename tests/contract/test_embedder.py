"""What every embedder promises (`ragline.embedding.base.Embedder`)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from ragline.concurrency.workers import Workers, drive
from ragline.embedding.base import Embedder
from ragline.embedding.batch_embedder import BatchEmbedder
from ragline.errors import InputError
from ragline.types import Chunk, Float32
from tests.embedders import HashEmbedder
from tests.imitation.embeddings import EmbeddingsServer
from tests.opened import opened
from tests.tiny_bert import write_model

TEXTS = ["how do we rotate keys?", "every day", "", "café 中文 😀", "keys. rotate! keys? (every) day: 24, 7", "a b c d e f g h"]


def passage(text: str, heading: str = "") -> Chunk:
    return Chunk(text, 0, len(text), heading=heading)


def token_ids(embedder: Embedder, text: str) -> tuple[int, ...]:
    before, after = embedder.tokenizer.special_ids
    return (*before, *embedder.tokenizer.spans([text])[0].ids.tolist(), *after)


@asynccontextmanager
async def hashed(folder: Path) -> AsyncIterator[Embedder]:
    yield HashEmbedder(max_tokens=64)


@asynccontextmanager
async def onnx(folder: Path, precision: str, prompts: Mapping[str, str] | None = None) -> AsyncIterator[Embedder]:
    model = str(write_model(folder / "model", prompts=dict(prompts) if prompts else None))
    async with opened(folder / "cache", model=model, precision=precision) as embedder:
        yield embedder


@asynccontextmanager
async def torch(folder: Path, prompts: Mapping[str, str] | None = None) -> AsyncIterator[Embedder]:
    model = str(write_model(folder / "model", prompts=dict(prompts) if prompts else None))
    (folder / "model" / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]"}')
    async with opened(folder / "cache", runtime="sentence-transformers", model=model, device="cpu", batch_texts=4) as embedder:
        yield embedder


def assert_same(embedder: Embedder, ones: Float32, others: Float32) -> None:
    # In padded batches the last digits depend on the texts beside.
    atol = 2e-6 if embedder.description.get("runtime") == "sentence-transformers" else 0
    np.testing.assert_allclose(ones, others, rtol=0, atol=atol)


@asynccontextmanager
async def remote(folder: Path, *, server: Mapping[str, Any] = MappingProxyType({}), **settings: Any) -> AsyncIterator[Embedder]:
    with EmbeddingsServer(**server) as imitation:
        async with opened(
            folder / "cache", runtime="openai", model=imitation.model, base_url=imitation.base_url, max_tokens=64, batch_texts=4, **settings
        ) as embedder:
            yield embedder


@asynccontextmanager
async def remote_counting(folder: Path) -> AsyncIterator[Embedder]:
    tokenizer = str(write_model(folder / "model"))
    async with remote(folder, tokenizer=tokenizer, question_prefix="query: ", passage_prefix="passage: ") as embedder:
        yield embedder


@asynccontextmanager
async def batched(folder: Path, wrapped: Opener) -> AsyncIterator[Embedder]:
    async with wrapped(folder) as embedder:
        wrapper = BatchEmbedder(embedder, batch_size=4)
        yield wrapper
        await wrapper.close()


Opener = Callable[[Path], AbstractAsyncContextManager[Embedder]]
PROMPTS = {"query": "query: ", "passage": "passage: "}
LOCAL: dict[str, Opener] = {
    "hash": hashed,
    "onnx-fp32": partial(onnx, precision="fp32"),
    "onnx-int8": partial(onnx, precision="int8"),
    "onnx-prompts": partial(onnx, precision="int8", prompts=PROMPTS),
    "sentence-transformers": torch,
    "sentence-transformers-prompts": partial(torch, prompts=PROMPTS),
    "batched-hash": partial(batched, wrapped=hashed),
    "batched-onnx-prompts": partial(batched, wrapped=partial(onnx, precision="int8", prompts=PROMPTS)),
    "batched-sentence-transformers": partial(batched, wrapped=torch),
}
REMOTE: dict[str, Opener] = {
    "openai": remote,
    "openai-odd": partial(remote, server={"scale": 7.5, "base64": "ignores", "dimensions": "ignores", "most_texts": 3}, dimension=16),
    "openai-tokenizer": remote_counting,
    "batched-openai": partial(batched, wrapped=remote),
}


@pytest.fixture(params=[*LOCAL.values(), *REMOTE.values()], ids=[*LOCAL, *REMOTE])
async def embedder(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Embedder]:
    opener: Opener = request.param
    async with opener(tmp_path) as opened_embedder:
        yield opened_embedder


@pytest.fixture(params=[*LOCAL.values()], ids=[*LOCAL])
async def local_embedder(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Embedder]:
    opener: Opener = request.param
    async with opener(tmp_path) as opened_embedder:
        yield opened_embedder


async def test_vectors_are_unit_length_float32_rows_in_order(embedder: Embedder) -> None:
    for vectors in (await embedder.embed_passages([passage(text) for text in TEXTS]), await embedder.embed_questions(TEXTS)):
        assert vectors.shape == (len(TEXTS), embedder.dimension) and vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
        assert len(np.unique(vectors.round(4), axis=0)) == len(TEXTS)
    backwards = await embedder.embed_passages([passage(text) for text in reversed(TEXTS)])
    forwards = await embedder.embed_passages([passage(text) for text in TEXTS])
    assert_same(embedder, backwards[::-1], forwards)


async def test_nothing_in_gives_no_rows(embedder: Embedder) -> None:
    assert (await embedder.embed_passages([])).shape == (0, embedder.dimension)
    assert (await embedder.embed_questions([])).shape == (0, embedder.dimension)


async def test_a_text_has_the_same_vector_alone_and_among_others(embedder: Embedder) -> None:
    chunks = [passage(text) for text in TEXTS]
    together = await embedder.embed_passages(chunks * 5)
    for i, chunk in enumerate(chunks * 5):
        assert_same(embedder, (await embedder.embed_passages([chunk]))[0], together[i])
    questions = await embedder.embed_questions(TEXTS)
    for i, text in enumerate(TEXTS):
        assert_same(embedder, (await embedder.embed_questions([text]))[0], questions[i])


async def test_many_tasks_at_once_get_their_own_vectors(embedder: Embedder) -> None:
    expected = await embedder.embed_questions(TEXTS)
    expected_passages = await embedder.embed_passages([passage(text) for text in TEXTS])
    got = await asyncio.gather(*(embedder.embed_questions([text]) for text in TEXTS * 4))
    got_passages = await asyncio.gather(*(embedder.embed_passages([passage(text)]) for text in TEXTS * 4))
    assert_same(embedder, np.concatenate(got), np.tile(expected, (4, 1)))
    assert_same(embedder, np.concatenate(got_passages), np.tile(expected_passages, (4, 1)))


async def test_token_ids_give_the_vector_of_the_text_they_stand_for(local_embedder: Embedder) -> None:
    texts = await local_embedder.embed_passages([passage(text) for text in TEXTS])
    ids = await local_embedder.embed_passages([Chunk("unlike", 0, 6, token_ids=token_ids(local_embedder, text)) for text in TEXTS])
    assert_same(local_embedder, texts, ids)


async def test_the_heading_is_part_of_what_is_embedded(embedder: Embedder) -> None:
    bare, headed, written = await embedder.embed_passages([passage("rotate"), passage("rotate", "keys"), passage("keys\nrotate")])
    assert (bare != headed).any()
    assert_same(embedder, headed, written)


async def test_a_long_question_is_cut_to_the_window(embedder: Embedder) -> None:
    long, longer, other = await embedder.embed_questions(["keys " * 5000, "keys " * 5000 + "rotate", "rotate " * 5000])
    assert_same(embedder, long, longer)
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


async def test_driven_on_a_worker_thread_it_never_suspends(local_embedder: Embedder) -> None:
    assert local_embedder.is_local
    workers = Workers("search", 1)
    chunks = [passage(text) for text in TEXTS]
    questions = await workers.run(lambda: drive(local_embedder.embed_questions(TEXTS)))
    passages = await workers.run(lambda: drive(local_embedder.embed_passages(chunks)))
    assert_same(local_embedder, questions, await local_embedder.embed_questions(TEXTS))
    assert_same(local_embedder, passages, await local_embedder.embed_passages(chunks))
    workers.close()


async def test_texts_are_embedded_whether_or_not_their_token_ids_are_known(embedder: Embedder) -> None:
    chunks = [passage(text, "every day") for text in TEXTS]
    known = [replace(chunk, token_ids=token_ids(embedder, chunk.passage)) for chunk in chunks]
    assert_same(embedder, await embedder.embed_passages(chunks), await embedder.embed_passages(known))


async def test_says_what_it_is(embedder: Embedder) -> None:
    assert embedder.name and embedder.fingerprint
    assert embedder.description["model"] == embedder.name
    assert all(isinstance(value, str) for value in embedder.description.values())
    assert embedder.description == dict(embedder.description) and embedder.fingerprint == embedder.fingerprint


async def test_spans_of_the_tokenizer_hold_every_character_of_the_text_in_order(embedder: Embedder) -> None:
    text = "Keys: rotate 中文 😀\x0cdaily"
    spans = embedder.tokenizer.spans([text, ""])
    assert len(spans[1].ids) == len(spans[1].starts) == len(spans[1].ends) == 0
    starts, ends = spans[0].starts.tolist(), spans[0].ends.tolist()
    assert starts == sorted(starts) and ends == sorted(ends) and all(start < end for start, end in zip(starts, ends, strict=True))
    held = {place for start, end in zip(starts, ends, strict=True) for place in range(start, end)}
    assert {text[place] for place in set(range(len(text))) - held} <= set(" \x0c")
    assert embedder.tokenizer.sliceable is False or len(set(starts)) == len(starts), "a slice by places needs one token a place"


async def test_closing_twice_is_harmless(embedder: Embedder) -> None:
    await embedder.close()
    await embedder.close()


async def test_the_hashed_embedder_puts_texts_with_the_same_content_words_near() -> None:
    embedder = HashEmbedder()
    (question,) = await embedder.embed_questions(["how do I rotate the keys?"])
    near, far = await embedder.embed_passages([passage("Keys rotate every 90 days."), passage("The cat sat on a mat.")])
    assert question @ near > 0.4 > question @ far
