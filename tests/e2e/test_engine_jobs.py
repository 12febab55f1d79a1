"""Uploads handed to the engine: accepted, ingested in the background, each file once and in order."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ragline.engine import Engine, job_work
from ragline.engine.batches import Ledger
from ragline.engine.ingestion import Ingestion, new_ingestion
from ragline.engine.resources import Resources
from ragline.errors import ConflictError, InputError, ModelMismatchError, NotFoundError
from ragline.storage.jobs import Job
from ragline.types import Chunk, Document, Float32, Scope, Upload
from tests.embedders import HashEmbedder
from tests.engines import engine, sync_engine


async def done(opened: Engine, job: Job) -> Job:
    async with asyncio.timeout(30):
        return await opened.jobs.wait(job.id)


def outcomes(job: Job) -> list[str]:
    return [file.outcome for file in job.files]


async def test_uploads_and_texts_are_ingested_and_told_of_file_by_file(tmp_path: Path) -> None:
    (tmp_path / "big.md").write_text("# Ferries\n\n" + "The ferry leaves at nine. " * 4000)
    async with engine(tmp_path / "data") as opened:
        job = await opened.jobs.submit(
            [
                Upload(tmp_path / "big.md", id="ferry", metadata={"lang": "en"}),
                Upload(content=b"Keys rotate every 90 days.", name="keys.txt"),
                Document(text="Tides turn twice a day.", source="tides"),
                Upload(content=b"\0\1\2\3" * 50, name="what.bin"),
            ],
            idempotency_key="k1",
        )
        assert (job.state, job.files_total) == ("queued", 4)
        ended = await done(opened, job)
        assert ended.state == "failed" and outcomes(ended) == ["added", "added", "added", "failed"]
        assert ended.files[3].error and ended.files[3].hint
        assert (await opened.document("ferry")).metadata == {"lang": "en"}
        assert {document.source for document in await opened.documents()} == {"big.md", "keys.txt", "tides"}
        assert (await opened.search("when do keys rotate?"))[0].document_id == ended.files[1].document_id
        same = await opened.jobs.submit([Upload(tmp_path / "big.md", id="ferry", metadata={"lang": "en"})])
        assert outcomes(await done(opened, same)) == ["unchanged"]
        with pytest.raises(ConflictError):
            await opened.jobs.submit(Document("another request"), idempotency_key="k1")
        assert [each.id for each in await opened.jobs.list()] == [same.id, job.id]
        for _ in range(500):
            if not await opened.store.jobs.discarded():
                break
            await asyncio.sleep(0.02)
    assert list((tmp_path / "data" / "uploads").iterdir()) == []


async def test_uploads_of_one_document_are_done_in_the_order_of_their_acceptance(tmp_path: Path) -> None:
    async with engine(tmp_path) as opened:
        jobs = [await opened.jobs.submit(Document(f"text {number}", id="a")) for number in range(20)]
        ended = [await done(opened, job) for job in jobs]
        assert [outcomes(job) for job in ended] == [["added"], *[["replaced"]] * 19]
        assert await opened.text("a") == "text 19" and (await opened.document("a")).version == 20
        assert {job.attempts for job in ended} == {1}


async def test_an_upload_outlives_a_switch_of_its_collections_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []

    async with Engine.open(tmp_path) as opened:
        await opened.ingest(Document("Keys rotate.", id="a"))

        async def overtaken(resources: Resources, scope: Scope, *, ledger: Ledger) -> Ingestion:
            ingestion = await new_ingestion(resources, scope, ledger=ledger)
            begun.append((await resources.store.head(scope)).model)
            if len(begun) == 1:
                async with Engine.open(tmp_path) as other:
                    await other.reindex(precision="fp32")
            return ingestion

        monkeypatch.setattr(job_work, "new_ingestion", overtaken)
        ended = await done(opened, await opened.jobs.submit(Document("Locks are oiled.", id="b")))
        assert (outcomes(ended), ended.attempts) == (["added"], 1)
        assert len(set(begun)) == 2, "begun again with the other model"
        for _ in range(500):
            if not (found := await opened.search("locks and keys")).lag:
                break
            await asyncio.sleep(0.02)
        assert {hit.document_id for hit in found} == {"a", "b"}


async def test_an_upload_whose_embedder_has_become_another_model_fails_and_says_so(tmp_path: Path) -> None:
    embedder = HashEmbedder()

    async def another(chunks: Sequence[Chunk]) -> Float32:
        raise ModelMismatchError("the server serves another model", hint="serve the former model again")

    async with engine(tmp_path, embedder=embedder) as opened:
        await opened.ingest(Document("Keys rotate.", id="a"))
        embedder.embed_passages = another  # type: ignore[method-assign]
        ended = await done(opened, await opened.jobs.submit(Document("Locks are oiled.", id="b")))
        assert (ended.state, ended.error) == ("failed", "the server serves another model")


async def test_many_small_uploads_share_commits(tmp_path: Path) -> None:
    async with engine(tmp_path) as opened:
        jobs = await asyncio.gather(*(opened.jobs.submit(Document(f"common {number}")) for number in range(100)))
        for job in jobs:
            assert (await done(opened, job)).state == "succeeded"
        assert len(await opened.search("common", top_k=200)) == 100
        status = await opened.status()
        assert status.collections[0].lsn < 60, "each upload had a commit of its own"


async def test_deleting_a_document_cancels_the_uploads_of_it_that_wait(tmp_path: Path) -> None:
    async with engine(tmp_path) as opened:
        await opened.ingest(Document("old", id="a"))
        job = await opened.jobs.submit(Document("new", id="a"))
        await opened.delete("a")
        ended = await done(opened, job)
        documents = await opened.documents()
        # It was deleted before it was done, or after.
        assert ended.state in ("cancelled", "succeeded") and documents == []
        assert (await opened.store.jobs.counts()).queued == 0
        again = await done(opened, await opened.jobs.submit(Document("new", id="a")))
        assert outcomes(again) == ["added"]


async def test_jobs_of_another_tenant_are_not_seen_cancelled_or_retried(tmp_path: Path) -> None:
    async with engine(tmp_path) as opened:
        job = await opened.jobs.submit(Document("mine", id="a"), idempotency_key="k")
        other = opened.tenant("other")
        for act in (other.jobs.get, other.jobs.cancel, other.jobs.retry, other.jobs.wait):
            with pytest.raises(NotFoundError):
                await act(job.id)
        assert await other.jobs.list() == []
        theirs = await other.jobs.submit(Document("theirs", id="a"), idempotency_key="k")
        assert theirs.id != job.id
        await done(opened, job)
        await done(other, theirs)
        assert await opened.text("a") == "mine" and await other.text("a") == "theirs"


async def test_a_failed_upload_can_be_retried_and_a_done_one_cannot_be_cancelled(tmp_path: Path) -> None:
    async with engine(tmp_path) as opened:
        job = await done(opened, await opened.jobs.submit(Document("   \n", id="blank")))
        assert job.state == "failed"
        again = await done(opened, await opened.jobs.retry(job.id))
        assert again.state == "failed" and again.attempts == 1
        fine = await done(opened, await opened.jobs.submit(Document("text")))
        with pytest.raises(ConflictError, match="succeeded"):
            await opened.jobs.cancel(fine.id)


async def test_what_waits_when_the_engine_closes_is_done_when_it_is_opened_again(tmp_path: Path) -> None:
    opened = engine(tmp_path)
    async with opened:
        jobs = [await opened.jobs.submit(Document(f"common {number}", id=f"{number}")) for number in range(50)]
    async with opened:
        opened.jobs.start()
        for job in jobs:
            ended = await done(opened, job)
            assert ended.state == "succeeded" and outcomes(ended) == ["added"]
        assert {document.version for document in await opened.documents()} == {1}


@pytest.mark.parametrize(
    "given",
    [
        [],
        [Upload(content=b"", name="empty")],
        [Document("a", id="")],
        [Document("a", id="\0")],
        [Document("a", metadata={"x": float("nan")})],
        [Upload("/dev/zero")],
        [Upload("missing.txt")],
        ["a path"],
    ],
    ids=["none", "empty", "empty id", "nul", "nan", "device", "missing", "path"],
)
async def test_what_cannot_be_ingested_is_refused_and_leaves_nothing(tmp_path: Path, given: list[Any]) -> None:
    async with engine(tmp_path) as opened:
        with pytest.raises(InputError) as refused:
            await opened.jobs.submit([Upload(content=b"x" * 100_000, name="large.txt"), *given] if given else given)
        assert refused.value.hint
        assert await opened.jobs.list() == []
    assert not any(files for _, _, files in os.walk(tmp_path / "uploads"))


async def test_lists_refuse_what_they_cannot_give(tmp_path: Path) -> None:
    async with engine(tmp_path) as opened:
        for wrong in ({"limit": 0}, {"limit": 10**6}, {"state": "lost"}):
            with pytest.raises(InputError):
                await opened.jobs.list(**wrong)


def test_blocking_code_submits_and_waits(tmp_path: Path) -> None:
    with sync_engine(tmp_path) as opened:
        job = opened.jobs.submit(Document("The ferry will leave at nine.", id="a"))
        assert [update.state for update in opened.jobs.updates(job.id)][-1] == "succeeded"
        assert opened.jobs.wait(job.id).files == opened.jobs.get(job.id).files
        assert "nine" in opened.ask("when does the ferry leave?").text
