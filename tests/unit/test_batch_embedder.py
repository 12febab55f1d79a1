"""An embedder for many callers: merged requests, a cache, and nobody harmed by a neighbour."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragline.caching.memory import MemoryCache
from ragline.concurrency.workers import Workers, drive
from ragline.embedding.base import Embedder
from ragline.embedding.batch_embedder import BatchEmbedder
from ragline.errors import BackendError, InputError, OverloadedError, SettingsError
from ragline.types import Chunk, Float32, Scope
from tests.embedders import HashEmbedder
from tests.imitation.embeddings import EmbeddingsServer
from tests.imitation.http import status
from tests.opened import at, opened, passages
from tests.tiny_bert import write_model


class Gated(HashEmbedder):
    """A server of sorts: embeds when it is let go, and keeps what it was given."""

    def __init__(self, *, local: bool = False, open: bool = True, max_tokens: int = 256) -> None:
        super().__init__(max_tokens=max_tokens)
        self.is_local = local
        self.calls: list[list[str]] = []
        self.gate = asyncio.Event()
        self.bad: dict[str, Exception] = {}
        self.rows = 1
        if open:
            self.gate.set()

    async def embed_questions(self, questions: Sequence[str]) -> Float32:
        await self._begin(questions)
        return (await super().embed_questions(questions)).repeat(self.rows, axis=0)

    async def embed_passages(self, chunks: Sequence[Chunk]) -> Float32:
        await self._begin([chunk.passage for chunk in chunks])
        return await super().embed_passages(chunks)

    async def _begin(self, texts: Sequence[str]) -> None:
        self.calls.append(list(texts))
        await self.gate.wait()
        for text in texts:
            if text in self.bad:
                raise self.bad[text]


@asynccontextmanager
async def batched(embedder: Embedder, **options: Any) -> AsyncIterator[BatchEmbedder]:
    async with BatchEmbedder(embedder, **{"max_wait_s": 60.0, **options}) as wrapper:
        yield wrapper


async def settled() -> None:
    for _ in range(30):
        await asyncio.sleep(0)


async def one(embedder: Embedder, text: str) -> Float32:
    vector: Float32 = (await embedder.embed_questions([text]))[0]
    return vector


@pytest.fixture
def server() -> Iterator[EmbeddingsServer]:
    with EmbeddingsServer(latency_s=0.05) as imitation:
        yield imitation


async def test_concurrent_callers_of_a_server_are_merged_into_one_request(server: EmbeddingsServer) -> None:
    async with at(server) as embedder, batched(embedder) as wrapper:
        texts = [f"key {place}" for place in range(20)]
        vectors = await asyncio.gather(*(one(wrapper, text) for text in texts))
        assert [sorted(texts) for texts in server.inputs] == [sorted(texts)]
        np.testing.assert_array_equal(np.stack(vectors), await embedder.embed_questions(texts))


async def test_who_comes_while_a_request_is_under_way_shares_the_next(server: EmbeddingsServer) -> None:
    async with at(server) as embedder, batched(embedder) as wrapper:
        first = asyncio.create_task(wrapper.embed_text("first"))
        await asyncio.sleep(0.01)
        rest = [asyncio.create_task(wrapper.embed_text(f"later {place}")) for place in range(10)]
        await asyncio.gather(first, *rest)
        assert [len(texts) for texts in server.inputs] == [1, 10]


async def test_one_text_and_many_have_the_vectors_of_the_embedder_itself() -> None:
    plain = HashEmbedder()
    async with batched(HashEmbedder()) as wrapper:
        texts = ["rotate the keys", "", "every day", "rotate the keys"]
        chunks = [Chunk(text, 0, len(text)) for text in texts]
        passages_vectors = await plain.embed_passages(chunks)
        np.testing.assert_array_equal(await wrapper.embed_batch(texts), passages_vectors)
        np.testing.assert_array_equal(await wrapper.embed_text(texts[0]), passages_vectors[0])
        np.testing.assert_array_equal(await wrapper.embed_batch(texts, kind="question"), await plain.embed_questions(texts))
        assert (await wrapper.embed_text("keys")).shape == (wrapper.dimension,)
        assert (await wrapper.embed_batch([])).shape == (0, wrapper.dimension)


async def test_what_it_gives_may_be_written_to_without_harm() -> None:
    async with batched(HashEmbedder()) as wrapper:
        vector = await wrapper.embed_text("keys")
        kept = vector.copy()
        vector[:] = 0
        np.testing.assert_array_equal(await wrapper.embed_text("keys"), kept)


async def test_a_text_seen_before_comes_from_the_cache() -> None:
    embedder = Gated()
    async with batched(embedder) as wrapper:
        first = await wrapper.embed_batch(["a", "b", "a"])
        second = await wrapper.embed_batch(["b", "c"])
        np.testing.assert_array_equal(first[1], second[0])
        assert sorted(map(sorted, embedder.calls)) == [["a", "b"], ["c"]]
        stats = wrapper.get_stats()
        assert (stats.hits, stats.misses, stats.embedded, stats.cache_items) == (1, 4, 3, 3)
        assert stats.cache_hit_rate == 0.2 and stats.as_dict()["cache_hit_rate"] == 0.2


async def test_a_question_and_a_passage_of_the_same_words_are_two_things(tmp_path: Path) -> None:
    model = str(write_model(tmp_path / "model", prompts={"query": "query: ", "passage": "passage: "}))
    async with opened(tmp_path / "cache", model=model) as embedder, batched(embedder) as wrapper:
        as_question, as_passage = await wrapper.embed_text("keys", kind="question"), await wrapper.embed_text("keys")
        assert (as_question != as_passage).any()
        np.testing.assert_array_equal(await wrapper.embed_text("keys", kind="question"), as_question)
        assert wrapper.get_stats().hits == 1


async def test_two_models_share_a_cache_without_sharing_vectors() -> None:
    cache: MemoryCache[bytes] = MemoryCache(100)
    async with batched(HashEmbedder(64), cache=cache) as one_model, batched(HashEmbedder(32), cache=cache) as other:
        assert (await one_model.embed_text("keys")).shape == (64,)
        assert (await other.embed_text("keys")).shape == (32,)
        assert cache.stats().items == 2
        assert other.get_stats().hits == 0
    assert cache.stats().items == 2, "whoever made it closes it"


async def test_a_cache_that_gives_anything_but_a_vector_is_not_believed() -> None:
    cache: MemoryCache[bytes] = MemoryCache(100)
    async with batched(HashEmbedder(), cache=cache) as wrapper:
        right = await wrapper.embed_text("keys")
        await cache.set(Scope(), wrapper._cache.key("keys", "passage"), b"damaged")
        np.testing.assert_array_equal(await wrapper.embed_text("keys"), right)


async def test_without_a_cache_every_text_is_embedded() -> None:
    embedder = Gated()
    async with batched(embedder, cache_items=0) as wrapper:
        await wrapper.embed_text("a")
        await wrapper.embed_text("a")
        assert embedder.calls == [["a"], ["a"]]
        assert wrapper.get_stats().cache_hit_rate == 0 and wrapper.get_stats().cache_items == 0


async def test_the_same_text_asked_for_by_many_at_once_is_embedded_once() -> None:
    embedder = Gated(open=False)
    async with batched(embedder, cache_items=0) as wrapper:
        first = asyncio.create_task(wrapper.embed_text("same"))
        await settled()
        others = [asyncio.create_task(wrapper.embed_batch(["same", f"other {place}"])) for place in range(5)]
        await settled()
        first.cancel()  # whose leaving harms nobody
        await settled()
        embedder.gate.set()
        vectors = await asyncio.gather(*others)
        assert sum(texts.count("same") for texts in embedder.calls) == 1
        assert all((vector[0] == vectors[0][0]).all() for vector in vectors)
        assert wrapper.get_stats().shared == 5


async def test_long_passages_asked_for_at_once_are_embedded_once_too() -> None:
    embedder = Gated()  # quicker than the count of tokens on its thread
    async with batched(embedder) as wrapper:
        await asyncio.gather(*(wrapper.embed_text("rotate keys " * 100) for _ in range(20)))
        assert sum(map(len, embedder.calls)) == 1


async def test_texts_of_callers_who_left_are_not_embedded() -> None:
    embedder = Gated(open=False)
    async with batched(embedder) as wrapper:
        tasks = [asyncio.create_task(wrapper.embed_text(text)) for text in ("first",)]
        await settled()
        tasks += [asyncio.create_task(wrapper.embed_text(text)) for text in ("gone", "stays")]
        await settled()
        tasks[1].cancel()
        await settled()
        embedder.gate.set()
        await asyncio.gather(tasks[0], tasks[2])
        assert embedder.calls == [["first"], ["stays"]]
        assert wrapper.get_stats().dropped == 1


async def test_a_text_that_is_too_long_is_refused_at_the_door_and_a_question_is_cut() -> None:
    embedder = Gated(open=False, max_tokens=16)
    long = "keys " * 50
    async with batched(embedder) as wrapper:
        waiting = asyncio.create_task(wrapper.embed_text("short"))
        await settled()
        for refused in (wrapper.embed_text(long), wrapper.embed_batch(["fine", long])):
            with pytest.raises(InputError, match="52 tokens is longer than the 16") as error:
                async with asyncio.timeout(5):
                    await refused
            assert "split" in error.value.hint
        assert embedder.calls == [["short"]] and wrapper.get_stats().refused == 2
        embedder.gate.set()
        await waiting
        cut = await wrapper.embed_text(long, kind="question")
        np.testing.assert_array_equal(cut, await one(HashEmbedder(max_tokens=16), long))


@pytest.mark.parametrize("bad", [7, None, b"bytes", ["list"]])
async def test_what_is_no_text_is_refused(bad: Any) -> None:
    async with batched(HashEmbedder()) as wrapper:
        with pytest.raises(InputError, match="a text to embed is a"):
            await wrapper.embed_text(bad)
        with pytest.raises(InputError, match="one text"):
            await wrapper.embed_batch("one text")


async def test_one_failing_text_does_not_fail_its_neighbours() -> None:
    embedder = Gated()
    embedder.bad = {"bad": InputError("surrogates")}
    async with batched(embedder) as wrapper:
        got = await asyncio.gather(*(wrapper.embed_text(text) for text in ("a", "b", "bad", "c", "d")), return_exceptions=True)
        assert got[2] is embedder.bad["bad"]
        assert [isinstance(vector, np.ndarray) for vector in got] == [True, True, False, True, True]
        assert wrapper.get_stats().failed == 1


async def test_a_lone_surrogate_fails_alone_on_the_real_runtime(tmp_path: Path) -> None:
    model = str(write_model(tmp_path / "model"))
    async with opened(tmp_path / "cache", model=model) as embedder, batched(embedder) as wrapper:
        questions = ["keys", "\ud800", "rotate", "every day"]
        got = await asyncio.gather(*(one(wrapper, question) for question in questions), return_exceptions=True)
        assert isinstance(got[1], InputError) and all(isinstance(vector, np.ndarray) for vector in (got[0], got[2], got[3]))


async def test_a_text_that_the_server_refuses_fails_alone(server: EmbeddingsServer) -> None:
    server.max_tokens = 8
    async with at(server) as embedder, batched(embedder) as wrapper:
        texts = ["keys", "rotate", "much too long for this server, which takes no more than eight", "day"]
        got = await asyncio.gather(*map(wrapper.embed_text, texts), return_exceptions=True)
        assert isinstance(got[2], InputError)
        assert all(isinstance(vector, np.ndarray) for vector in (got[0], got[1], got[3]))


async def test_a_server_that_fails_tells_every_caller_and_is_not_asked_for_each_text(server: EmbeddingsServer) -> None:
    async with at(server, api_key="key") as embedder, batched(embedder) as wrapper:
        server.fail_next(status(401))
        got = await asyncio.gather(*(one(wrapper, f"key {place}") for place in range(8)), return_exceptions=True)
        assert all(isinstance(error, SettingsError) for error in got)
        assert len(server.requests) == 1
        assert (await one(wrapper, "key 0")).shape == (64,), "and nothing of it is remembered"


async def test_vectors_that_do_not_fit_the_texts_are_an_error_for_all() -> None:
    embedder = Gated()
    embedder.rows = 2
    async with batched(embedder) as wrapper:
        got = await asyncio.gather(*(one(wrapper, text) for text in "abc"), return_exceptions=True)
        assert all(isinstance(error, BackendError) for error in got) and len(embedder.calls) == 1


async def test_a_full_queue_refuses_and_what_was_asked_with_it_is_taken_back() -> None:
    embedder = Gated(open=False)
    async with batched(embedder, max_queue=4, concurrency=1) as wrapper:
        under_way = asyncio.create_task(wrapper.embed_text("first"))
        await settled()
        waiting = asyncio.create_task(wrapper.embed_batch(["a", "b", "c"]))
        await settled()
        with pytest.raises(OverloadedError) as refused:
            await wrapper.embed_batch(["d", "e"])
        await settled()
        assert refused.value.hint and wrapper.get_stats().queue_length == 3
        embedder.gate.set()
        await asyncio.gather(under_way, waiting)
        assert embedder.calls[0] == ["first"] and sorted(embedder.calls[1]) == ["a", "b", "c"]


async def test_many_texts_wait_for_room_in_a_short_queue_and_leave_some_to_others() -> None:
    embedder = Gated(open=False)
    async with batched(embedder, batch_size=4, concurrency=1, max_queue=64) as wrapper:
        texts = [f"key {place} " * (1 + place % 7) for place in range(100)]
        many = asyncio.create_task(wrapper.embed_batch(texts))
        await settled()
        assert wrapper.get_stats().queue_length == 4
        single = asyncio.create_task(wrapper.embed_text("single"))
        await settled()
        embedder.gate.set()
        await single
        assert not many.done()
        np.testing.assert_array_equal(await many, await HashEmbedder().embed_passages([Chunk(text, 0, len(text)) for text in texts]))
        assert all(len(texts) <= 4 for texts in embedder.calls)
        lengths = [len(text) // 4 for texts in embedder.calls for text in texts if text != "single"]
        assert lengths == sorted(lengths, reverse=True)


async def test_a_batch_for_a_server_holds_a_budget_of_tokens_that_grows_while_it_is_quick() -> None:
    embedder = Gated(max_tokens=512)
    async with batched(embedder, batch_size=1000, max_batch_tokens=4096) as wrapper:
        before = wrapper.get_stats().batch_tokens
        await wrapper.embed_batch([f"key{place} " * 100 for place in range(100)])
        after = wrapper.get_stats().batch_tokens
        assert after[1] > before[1] and after[0] == before[0]
        sizes = [sum(len(text) // 4 + 2 for text in texts) for texts in embedder.calls]
        assert max(sizes) <= after[1] <= 4096 and len(sizes) > 4


async def test_a_batch_for_the_local_model_is_spread_over_threads_one_text_per_run(tmp_path: Path) -> None:
    model = str(write_model(tmp_path / "model"))
    workers = Workers("spread", 3)
    async with opened(tmp_path / "cache", model=model) as embedder, batched(embedder, workers=workers) as wrapper:
        questions = [f"rotate key {place}" for place in range(10)]
        np.testing.assert_array_equal(await wrapper.embed_questions(questions), await embedder.embed_questions(questions))
        assert wrapper.get_stats().batch_tokens == ()
    local = Gated(local=True)
    async with batched(local, workers=workers) as wrapper:
        await wrapper.embed_questions(questions)
        assert sorted(map(len, local.calls)) == [3, 3, 4]
    workers.close()


async def test_a_torch_model_gets_whole_batches() -> None:
    class Torch(Gated):
        @property
        def description(self) -> dict[str, str]:
            return {"model": self.name, "runtime": "sentence-transformers"}

    embedder = Torch(local=True)
    async with batched(embedder) as wrapper:
        await wrapper.embed_questions([f"key {place}" for place in range(10)])
        assert [len(texts) for texts in embedder.calls] == [10] and len(wrapper.get_stats().batch_tokens) == 2


async def test_on_a_worker_thread_it_uses_the_cache_and_never_suspends() -> None:
    workers = Workers("search", 2)
    embedder = HashEmbedder()
    async with batched(embedder) as wrapper:
        first = await workers.run(lambda: drive(wrapper.embed_questions(["keys", "rotate"])))
        np.testing.assert_array_equal(await wrapper.embed_questions(["keys", "rotate"]), first)
        again = await workers.run(lambda: drive(wrapper.embed_questions(["keys"])))
        np.testing.assert_array_equal(again[0], first[0])
        chunks = passages(3)
        await workers.run(lambda: drive(wrapper.embed_passages(chunks)))
        stats = wrapper.get_stats()
        assert (stats.hits, stats.misses, stats.embedded) == (3, 5, 5)
    workers.close()


async def test_stored_vectors_of_passages_are_taken_before_the_embedder_is_asked() -> None:
    embedder, asked = Gated(), []
    (known,) = await HashEmbedder().embed_passages([Chunk("known", 0, 5)])

    async def stored(texts: Sequence[str]) -> list[Any]:
        asked.append(list(texts))
        return [known.astype(np.float16) if text == "known" else None for text in texts]

    async with batched(embedder, stored=stored) as wrapper:
        vectors = await wrapper.embed_batch(["known", "unknown"])
        np.testing.assert_allclose(vectors[0], known, atol=1e-3)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
        await wrapper.embed_text("known")
        await wrapper.embed_text("known", kind="question")
        assert asked == [["known", "unknown"]] and embedder.calls == [["unknown"], ["known"]]
        stats = wrapper.get_stats()
        assert (stats.hits, stats.stored_hits, stats.misses) == (2, 1, 2)


async def test_a_store_that_fails_is_a_miss() -> None:
    async def stored(texts: Sequence[str]) -> list[Any]:
        raise BackendError("the store is locked")

    async with batched(HashEmbedder(), stored=stored) as wrapper:
        assert (await wrapper.embed_text("keys")).shape == (wrapper.dimension,)


async def test_tenants_share_batches_but_no_vectors() -> None:
    embedder = Gated(open=False)
    async with batched(embedder) as wrapper:
        acme, other = wrapper.for_tenant("acme"), wrapper.for_tenant("other")
        both = [asyncio.create_task(tenant.embed_text("secret")) for tenant in (acme, other)]
        await settled()
        embedder.gate.set()
        await asyncio.gather(*both)
        assert embedder.calls == [["secret", "secret"]]
        await acme.embed_text("secret")
        await wrapper.embed_text("secret")
        assert embedder.calls[1:] == [["secret"]]
        stats = wrapper.get_stats()
        assert (stats.hits, stats.misses) == (1, 3) == (acme.get_stats().hits, acme.get_stats().misses)


async def test_chunks_on_their_way_into_the_store_go_to_the_embedder_as_they_are() -> None:
    embedder = Gated()
    async with batched(embedder) as wrapper:
        chunk = Chunk("keys", 0, 4, token_ids=(1, 2000, 2))
        for _ in range(2):
            np.testing.assert_array_equal(await wrapper.embed_passages([chunk]), await HashEmbedder().embed_passages([chunk]))
        assert len(embedder.calls) == 2 and wrapper.get_stats().cache_items == 0


async def test_with_the_background_processor_stopped_each_call_is_a_request_of_its_own_until_it_is_started_again() -> None:
    embedder = Gated()
    async with batched(embedder) as wrapper:
        await wrapper.start_background_processor()
        await asyncio.gather(*map(wrapper.embed_text, "ab"))
        await wrapper.stop_background_processor()
        await wrapper.stop_background_processor()
        await asyncio.gather(*map(wrapper.embed_text, "cde"))
        assert embedder.calls == [["a", "b"], ["c"], ["d"], ["e"]]
        await wrapper.start_background_processor()
        await asyncio.gather(*map(wrapper.embed_text, "fg"))
        assert embedder.calls[4:] == [["f", "g"]]


async def test_stopping_finishes_what_waits() -> None:
    embedder = Gated(open=False)
    async with batched(embedder, concurrency=1) as wrapper:
        tasks = []
        for text in "abc":
            tasks.append(asyncio.create_task(wrapper.embed_text(text)))
            await settled()
        stopping = asyncio.create_task(wrapper.stop_background_processor())
        await settled()
        assert not stopping.done() and wrapper.get_stats().queue_length == 2
        embedder.gate.set()
        await stopping
        assert [vector.shape for vector in await asyncio.gather(*tasks)] == [(wrapper.dimension,)] * 3


async def test_statistics_say_how_it_goes() -> None:
    async with batched(Gated()) as wrapper:
        assert wrapper.get_stats().cache_hit_rate == 0
        await wrapper.embed_batch([f"key {place}" for place in range(10)])
        stats = wrapper.get_stats()
        assert stats.average_batch_size == 10 and stats.embedding_ms > 0 and stats.queue_length == 0
        assert stats.longest_wait_ms >= stats.average_wait_ms > 0
        assert {"hits", "misses", "queue_length", "average_batch_size", "embedding_ms"} <= set(stats.as_dict())


async def test_it_asks_a_server_whether_it_is_there_and_a_local_model_nothing(server: EmbeddingsServer) -> None:
    async with at(server) as embedder, batched(embedder) as wrapper:
        await wrapper.check()
        assert len(server.requests) == 1
    async with batched(HashEmbedder()) as wrapper:
        await wrapper.check()


async def test_a_kind_of_text_that_there_is_not_is_refused() -> None:
    async with batched(HashEmbedder()) as wrapper:
        with pytest.raises(InputError, match="'query'") as refused:
            await wrapper.embed_text("keys", kind="query")  # type: ignore[arg-type]
        assert "question" in refused.value.hint


def test_arguments_out_of_range_are_refused() -> None:
    for options in ({"cache_items": -1}, {"batch_size": 0}, {"max_wait_s": -1}, {"max_queue": 0}, {"max_batch_tokens": 0}):
        with pytest.raises(InputError) as refused:
            BatchEmbedder(HashEmbedder(), **options)  # type: ignore[arg-type]
        assert refused.value.hint


def test_it_goes_on_in_the_next_event_loop() -> None:
    wrapper = BatchEmbedder(HashEmbedder())
    first = asyncio.run(wrapper.embed_batch(["a", "b"]))
    second = asyncio.run(wrapper.embed_batch(["a", "c"]))
    np.testing.assert_array_equal(first[0], second[0])
