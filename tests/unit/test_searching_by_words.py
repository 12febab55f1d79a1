"""Searches whose embedding server is down: by words alone, and they say so."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from ragline.errors import BackendError, DeadlineError, InputError, OverloadedError, RaglineError
from ragline.settings import RetrievalSettings
from ragline.types import Document, Float32
from tests.embedders import HashEmbedder
from tests.engines import engine

DOCUMENTS = [Document("Keys rotate in the vault.", id="keys"), Document("Cats sleep all day.", id="cats")]
FAILURES = [BackendError("it is down"), DeadlineError("it is slow"), OverloadedError("it is busy")]


class ServedEmbedder(HashEmbedder):
    """The hashed embedder as a server is used: something may happen `meanwhile`, and it may fail with `failure`."""

    is_local = False

    def __init__(self) -> None:
        super().__init__()
        self.failure: RaglineError | None = None
        self.meanwhile: Callable[[], Awaitable[None]] | None = None
        self.asked = 0

    async def embed_questions(self, questions: Sequence[str]) -> Float32:
        self.asked += 1
        if self.meanwhile is not None:
            await self.meanwhile()
        if self.failure is not None:
            raise self.failure
        return await super().embed_questions(questions)


class FailingEmbedder(HashEmbedder):
    async def embed_questions(self, questions: Sequence[str]) -> Float32:
        raise BackendError("the model is broken")


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.code)
async def test_a_hybrid_search_goes_by_words_while_the_embedding_server_fails(
    failure: RaglineError, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    embedder = ServedEmbedder()
    async with engine(tmp_path, embedder=embedder, cache={"enabled": False}) as opened:
        await opened.ingest(DOCUMENTS)
        whole = await opened.search("rotate keys")
        assert not whole.degraded and len(whole) == 2
        embedder.failure = failure
        with caplog.at_level(logging.WARNING, "ragline.retrieval"):
            result = await opened.search("rotate keys")
        assert result.degraded == ("embedder_unavailable",) and failure.message in caplog.text
        assert [(hit.document_id, hit.dense_score) for hit in result] == [("keys", None)]
        assert result.hits == (await opened.search("rotate keys", mode="lexical")).hits
        embedder.failure = None
        assert (await opened.search("rotate keys")).hits == whole.hits


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.code)
async def test_a_dense_search_has_nothing_else_to_go_by(failure: RaglineError, tmp_path: Path) -> None:
    embedder = ServedEmbedder()
    async with engine(tmp_path, embedder=embedder) as opened:
        await opened.ingest(DOCUMENTS)
        embedder.failure = failure
        with pytest.raises(type(failure)):
            await opened.search("rotate keys", mode="dense")


async def test_a_lexical_search_never_asks_the_embedding_server(tmp_path: Path) -> None:
    embedder = ServedEmbedder()
    async with engine(tmp_path, embedder=embedder) as opened:
        await opened.ingest(DOCUMENTS)
        assert not (await opened.search("rotate keys", mode="lexical")).degraded
        assert embedder.asked == 0


async def test_what_the_user_did_wrong_is_an_error_and_not_a_lesser_answer(tmp_path: Path) -> None:
    embedder = ServedEmbedder()
    async with engine(tmp_path, embedder=embedder) as opened:
        await opened.ingest(DOCUMENTS)
        embedder.failure = InputError("no such model", hint="name another")
        with pytest.raises(InputError):
            await opened.search("rotate keys")


async def test_a_local_model_that_fails_is_an_error(tmp_path: Path) -> None:
    async with engine(tmp_path, embedder=FailingEmbedder()) as opened:
        await opened.ingest(DOCUMENTS)
        with pytest.raises(BackendError, match="broken"):
            await opened.search("rotate keys")


async def test_diversity_filters_and_several_collections_work_by_words_too(tmp_path: Path) -> None:
    embedder = ServedEmbedder()
    async with engine(tmp_path, embedder=embedder, retrieval=RetrievalSettings(mmr_lambda=0.3)) as opened:
        for collection in ("a", "b"):
            await opened.ingest([Document(each.text, id=each.id, metadata={"in": collection}) for each in DOCUMENTS], collection=collection)
        embedder.failure = FAILURES[0]
        both = await opened.search("keys cats", collections=["a", "b"])
        assert both.degraded == ("embedder_unavailable",)
        assert [hit.document_id for hit in both][:2] in (["keys", "cats"], ["cats", "keys"]) and len(both) == 4
        one = await opened.search("keys cats", collections=["a", "b"], filter={"in": "b"}, documents=["cats"])
        assert [(hit.collection, hit.document_id) for hit in one] == [("b", "cats")]


async def test_a_question_is_embedded_once_though_a_commit_overtakes_its_search(tmp_path: Path) -> None:
    embedder = ServedEmbedder()
    async with engine(tmp_path, embedder=embedder) as opened:
        await opened.ingest(DOCUMENTS)

        async def replace_document() -> None:
            await opened.ingest(Document("Keys rotate in another vault.", id="keys"))

        embedder.meanwhile = replace_document
        (hit,) = await opened.search("rotate keys", documents=["keys"])
        assert hit.document_version == 2, "the search ran again"
        assert embedder.asked == 1
