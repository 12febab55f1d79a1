"""The onnxruntime embedder: its graph cache, its threads, and the default model."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import pytest

from ragline.concurrency.workers import Workers
from ragline.embedding.models import DEFAULT_MODEL
from ragline.embedding.onnx_runtime import OnnxEmbedder
from ragline.errors import BackendError, CorruptionError, InputError
from ragline.settings import EmbeddingSettings, load_settings
from ragline.types import Chunk, Float32
from tests.tiny_bert import part_weights, write_model

QUESTION = ["how do we rotate keys?"]


class Opener:
    """Opens embedders on one cache folder and notes what they announce."""

    def __init__(self, cache_dir: Path) -> None:
        self.cache_dir = cache_dir
        self.announced: list[str] = []
        self.questions = Workers("questions", 1)
        self.bulk = Workers("bulk", 1)

    def __call__(self, model: Path | str, precision: str = "int8", kind: Callable[..., OnnxEmbedder] = OnnxEmbedder.open) -> OnnxEmbedder:
        self.announced.clear()
        settings = EmbeddingSettings.model_validate({"model": str(model), "precision": precision})
        return kind(settings, self.cache_dir, self.announced.append, question_workers=self.questions, bulk_workers=self.bulk)

    @property
    def graphs(self) -> list[Path]:
        return sorted((self.cache_dir / "graphs").glob("*"))


@pytest.fixture
async def opener(tmp_path: Path) -> AsyncIterator[Opener]:
    opened = Opener(tmp_path / "cache")
    yield opened
    opened.questions.close()
    opened.bulk.close()


async def test_the_graph_is_built_once(opener: Opener, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    first = await opener(model).embed_questions(QUESTION)
    assert any("Preparing" in message for message in opener.announced)
    second = await opener(model).embed_questions(QUESTION)
    assert len(opener.graphs) == 1
    assert not any("Preparing" in message for message in opener.announced)
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("damage", ["flipped", "truncated", "empty"])
async def test_a_damaged_graph_is_built_anew(opener: Opener, tmp_path: Path, damage: str) -> None:
    model = write_model(tmp_path / "model")
    expected = await opener(model, "fp32").embed_questions(QUESTION)
    (graph,) = opener.graphs
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    graph.write_bytes({"flipped": bytes(content), "truncated": bytes(content[:-1]), "empty": b""}[damage])
    got = await opener(model, "fp32").embed_questions(QUESTION)
    assert any("damaged" in message for message in opener.announced)
    np.testing.assert_array_equal(got, expected)
    assert opener.graphs == [graph]
    opener(model, "fp32")
    assert not opener.announced


async def test_a_cache_folder_that_cannot_be_written_costs_time_only(opener: Opener, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    expected = await opener(model).embed_questions(QUESTION)
    opener.cache_dir = tmp_path / "file"
    opener.cache_dir.write_text("a file stands where the folder should")
    got = await opener(model).embed_questions(QUESTION)
    assert any("cannot be written" in message for message in opener.announced)
    np.testing.assert_array_equal(got, expected)


async def test_a_model_whose_weights_are_in_parts_gives_the_same_vectors(opener: Opener, tmp_path: Path) -> None:
    expected = await opener(write_model(tmp_path / "model"), "fp32").embed_questions(QUESTION)
    part_weights(tmp_path / "model")
    np.testing.assert_array_equal(await opener(tmp_path / "model", "fp32").embed_questions(QUESTION), expected)


async def test_weights_that_change_behind_an_unchanged_date_are_not_built_from(opener: Opener, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    opener(model, "fp32")
    weights = model / "model.safetensors"
    status = weights.stat()
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    os.utime(weights, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(CorruptionError, match=r"model\.safetensors"):
        opener(model, "int8")


async def test_other_weights_in_the_same_folder_give_other_vectors(opener: Opener, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    first = opener(model)
    write_model(tmp_path / "model", seed=1)
    second = opener(model)
    assert first.fingerprint != second.fingerprint
    assert (await first.embed_questions(QUESTION) != await second.embed_questions(QUESTION)).any()


async def test_the_fingerprint_tells_what_makes_vectors_differ_and_nothing_else(opener: Opener, tmp_path: Path) -> None:
    plain = opener(write_model(tmp_path / "a")).fingerprint
    assert plain == opener(write_model(tmp_path / "b")).fingerprint
    assert plain != opener(tmp_path / "a", "fp32").fingerprint
    assert plain != opener(write_model(tmp_path / "c", pooling="cls")).fingerprint
    assert plain != opener(write_model(tmp_path / "d", prompts={"query": "query: "})).fingerprint
    assert plain != opener(write_model(tmp_path / "e", max_position_embeddings=32)).fingerprint
    tokenizer = tmp_path / "b" / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace('"lowercase": true', '"lowercase": false'))
    assert plain != opener(tmp_path / "b").fingerprint


async def test_prompts_stand_before_questions_and_passages(opener: Opener, tmp_path: Path) -> None:
    plain = opener(write_model(tmp_path / "plain"))
    prompted = opener(write_model(tmp_path / "prompted", prompts={"query": "query: ", "document": "passage: "}))
    np.testing.assert_array_equal(await prompted.embed_questions(["keys"]), await plain.embed_questions(["query: keys"]))
    np.testing.assert_array_equal(
        await prompted.embed_passages([Chunk("keys", 0, 4)]), await plain.embed_passages([Chunk("passage: keys", 0, 13)])
    )


class Counting(OnnxEmbedder):
    """Counts the texts it has run, and says when it runs the first."""

    ran = 0
    first: Callable[[], object] = staticmethod(lambda: None)

    def _run(self, ids: object) -> Float32:
        self.ran += 1
        if self.ran == 1:
            self.first()
        return super()._run(ids)  # type: ignore[arg-type]


async def test_cancelling_leaves_the_texts_not_yet_begun(opener: Opener, tmp_path: Path) -> None:
    embedder = opener(write_model(tmp_path / "model"), kind=Counting.open)
    assert isinstance(embedder, Counting)
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()
    embedder.first = lambda: loop.call_soon_threadsafe(begun.set)
    task = asyncio.create_task(embedder.embed_passages([Chunk("rotate keys", 0, 11)] * 50_000))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await opener.bulk.run(lambda: None)  # its one thread is free again
    assert embedder.ran < 50_000


async def test_one_bad_chunk_stops_the_rest(opener: Opener, tmp_path: Path) -> None:
    embedder = opener(write_model(tmp_path / "model"), kind=Counting.open)
    assert isinstance(embedder, Counting)
    with pytest.raises(InputError, match="does not fit"):
        await embedder.embed_passages([Chunk("keys", 0, 4)] * 100 + [Chunk("", 0, 0, token_ids=(5,) * 1000)])
    await opener.bulk.run(lambda: None)
    assert embedder.ran == 0, "the longest come first"


async def test_ids_that_the_model_does_not_know_are_a_clear_error(opener: Opener, tmp_path: Path) -> None:
    embedder = opener(write_model(tmp_path / "model"))
    with pytest.raises(BackendError, match="onnxruntime"):
        await embedder.embed_passages([Chunk("", 0, 0, token_ids=(2, 10**6, 3))])


async def test_a_closed_embedder_says_so(opener: Opener, tmp_path: Path) -> None:
    embedder = opener(write_model(tmp_path / "model"))
    await embedder.close()
    with pytest.raises(BackendError, match="closed"):
        await embedder.embed_questions(QUESTION)


async def test_lone_surrogates_in_a_question_are_refused(opener: Opener, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="surrogates"):
        await opener(write_model(tmp_path / "model")).embed_questions(["keys \ud800"])


def test_nothing_heavy_is_imported_before_it_is_needed(opener: Opener, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    opener(model)
    program = """
import sys
from pathlib import Path
import ragline.embedding.base, ragline.embedding.onnx_runtime
heavy = {"onnx", "onnxruntime", "tokenizers", "huggingface_hub"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
from ragline.concurrency.workers import Workers
from ragline.settings import EmbeddingSettings
workers = Workers("w", 1)
ragline.embedding.onnx_runtime.OnnxEmbedder.open(
    EmbeddingSettings(model=sys.argv[1], precision="int8"), Path(sys.argv[2]), print, question_workers=workers, bulk_workers=workers)
assert "onnxruntime" in sys.modules and not {"onnx", "huggingface_hub"} & set(sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(model), str(opener.cache_dir)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr


# From sentence-transformers 6.2 on torch 2.13, fp32: the first six components.
CANONICAL = {
    "hello world": [-0.034477, 0.031023, 0.006735, 0.026109, -0.039362, -0.160302],
    "How do I rotate the signing keys?": [0.016300, -0.011317, -0.040668, -0.065780, -0.025373, 0.017088],
    "Ärger mit Überlänge: 中文 😀 naïve café": [-0.029149, 0.042609, 0.052416, -0.010470, -0.045352, -0.001754],
}


@pytest.fixture(scope="module")
def model_cache() -> Path:
    return load_settings().settings.model_cache_dir()


async def test_the_default_model_gives_its_canonical_vectors(opener: Opener, model_cache: Path) -> None:
    opener.cache_dir = model_cache
    exact, quantised = opener(DEFAULT_MODEL, "fp32"), opener(DEFAULT_MODEL, "int8")
    assert (exact.dimension, exact.max_tokens, exact.tokenizer.special_ids) == (384, 256, ((101,), (102,)))
    assert exact.tokenizer.sliceable
    vectors = await exact.embed_questions(list(CANONICAL))
    np.testing.assert_allclose(vectors[:, :6], list(CANONICAL.values()), atol=1e-5)
    near = await quantised.embed_questions(list(CANONICAL))
    assert (np.sum(vectors * near, axis=1) > 0.98).all()


async def test_the_default_model_puts_a_question_near_its_answer(opener: Opener, model_cache: Path) -> None:
    opener.cache_dir = model_cache
    embedder = opener(DEFAULT_MODEL, "auto")
    (question,) = await embedder.embed_questions(["How often are the signing keys changed?"])
    texts = ["Credentials are rotated every 90 days.", "The cafeteria opens at eight.", "Cats sleep most of the day."]
    scores = await embedder.embed_passages([Chunk(text, 0, len(text)) for text in texts]) @ question
    assert scores.argmax() == 0 and scores[0] > scores[1] + 0.1
