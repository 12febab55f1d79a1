"""What every store promises of jobs: accepted once, begun in order, settled with the document or not at all."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ragline.errors import ConflictError, InputError, NotFoundError, OverloadedError
from ragline.storage.base import Store
from ragline.storage.jobs import Claim, Job, Lease, NewFile, NewJob, Settlement
from ragline.types import Scope
from tests.store_documents import EMBEDDER, SCOPE, delete, document, put

LATER = 4e9
"""A time in the future: whatever lease was given has run out by then."""


def file(id: str, body: bytes | None = b"text", **named: Any) -> NewFile:
    return NewFile(id, f"{id}.txt", "file", len(body or b""), body=body, **named)


async def add(store: Store, *ids: str, scope: Scope = SCOPE, key: str | None = None, request: bytes = b"", max_jobs: int = 1000) -> Job:
    job = NewJob(scope, [file(id) for id in ids], key, request)
    return (await store.jobs.add(job, max_jobs=max_jobs, max_bytes=10_000))[0]


async def claim(store: Store, now: float = 3e9, *, max_files: int = 64, max_bytes: int = 10_000, max_attempts: int = 3) -> Claim:
    claimed = await store.jobs.claim("me", now=now, lease_s=60, max_files=max_files, max_bytes=max_bytes, max_attempts=max_attempts)
    assert claimed is not None
    return claimed


async def nothing_to_claim(store: Store, now: float = 3e9) -> bool:
    return await store.jobs.claim("me", now=now, lease_s=60, max_files=64, max_bytes=10_000, max_attempts=3) is None


async def settle(store: Store, claimed: Claim, outcome: Any = "added", error: str = "") -> None:
    async with store.transaction() as transaction:
        await transaction.settle(claimed.leases, [Settlement(each.number, outcome, error) for each in claimed.files])


async def job(store: Store, id: str) -> Job:
    found = await store.jobs.get(SCOPE.tenant, id)
    assert found is not None
    return found


async def test_a_job_is_accepted_begun_and_settled(store: Store, other: Store) -> None:
    accepted = await add(store, "a", "b")
    assert (accepted.state, accepted.files_total, accepted.files_done) == ("queued", 2, 0)
    assert await job(other, accepted.id) == accepted
    claimed = await claim(other)
    assert [(each.document_id, each.body) for each in claimed.files] == [("a", b"text"), ("b", b"text")]
    assert (await job(store, accepted.id)).state == "running"
    async with other.transaction() as transaction:
        assert await transaction.unsettled(claimed.leases) == {each.number for each in claimed.files}
        await transaction.settle(claimed.leases, [Settlement(claimed.files[0].number, "added")])
    half = await job(store, accepted.id)
    assert (half.state, half.files_done, [each.outcome for each in half.files]) == ("running", 1, ["added", "pending"])
    async with other.transaction() as transaction:
        await transaction.settle(claimed.leases, [Settlement(claimed.files[1].number, "replaced")])
    ended = await job(store, accepted.id)
    assert ended.state == "succeeded" and ended.ended_at is not None and ended.attempts == 1
    assert await nothing_to_claim(store, LATER)


async def test_jobs_move_no_lsn(store: Store) -> None:
    await put(store, SCOPE, document("a", "one"))
    head = await store.head(SCOPE)
    await add(store, "b")
    await settle(store, await claim(store))
    assert await store.head(SCOPE) == head


async def test_a_file_is_settled_with_its_document_or_not_at_all(store: Store) -> None:
    await add(store, "a")
    claimed = await claim(store)
    with pytest.raises(ZeroDivisionError):
        async with store.transaction() as transaction:
            await transaction.put(SCOPE, [document("a")], model="m1", embedder=EMBEDDER)
            await transaction.settle(claimed.leases, [Settlement(claimed.files[0].number, "added")])
            raise ZeroDivisionError
    assert await store.documents(SCOPE) == []
    async with store.transaction() as transaction:
        assert await transaction.unsettled(claimed.leases) == {claimed.files[0].number}


async def test_who_lost_the_lease_commits_nothing(store: Store, other: Store) -> None:
    accepted = await add(store, "a")
    stalled = await claim(store)
    taken = await claim(other, LATER)
    assert taken.leases[0].attempt == 2
    with pytest.raises(ConflictError, match="taken over"):
        async with store.transaction() as transaction:
            assert await transaction.unsettled(stalled.leases) == frozenset()
            await transaction.put(SCOPE, [document("a")], model="m1", embedder=EMBEDDER)
            await transaction.settle(stalled.leases, [Settlement(stalled.files[0].number, "added")])
    assert await store.documents(SCOPE) == []
    assert await store.jobs.renew(stalled.leases, until=LATER) == []
    await store.jobs.release(stalled.leases)
    await store.jobs.fail(stalled.leases, error="no", hint="")
    assert (await job(store, accepted.id)).state == "running"
    await settle(other, taken)
    assert (await job(store, accepted.id)).state == "succeeded"


async def test_a_lease_that_is_renewed_is_not_taken_over(store: Store) -> None:
    await add(store, "a")
    claimed = await claim(store, 1000.0)
    assert await nothing_to_claim(store, 1059.0)
    assert await store.jobs.renew(claimed.leases, until=1200.0) == list(claimed.leases)
    assert await nothing_to_claim(store, 1100.0)
    assert (await claim(store, 1200.0)).leases[0].attempt == 2


async def test_small_jobs_of_a_scope_are_begun_together_in_the_order_of_their_acceptance(store: Store) -> None:
    elsewhere = Scope("acme", "elsewhere")
    for number in range(6):
        await add(store, f"{number}", scope=elsewhere if number == 2 else SCOPE)
    first = await claim(store, max_files=4)
    assert first.scope == SCOPE and [each.document_id for each in first.files] == ["0", "1", "3", "4"]
    assert (await claim(store)).scope == elsewhere
    assert [each.document_id for each in (await claim(store)).files] == ["5"]


async def test_a_batch_ends_at_its_bytes_but_one_job_is_always_begun(store: Store) -> None:
    await add(store, "a", "b", "c")
    await add(store, "d")
    assert [each.document_id for each in (await claim(store, max_files=1, max_bytes=1)).files] == ["a", "b", "c"]


async def test_of_jobs_for_one_document_the_later_waits_for_the_earlier(store: Store) -> None:
    first, second = await add(store, "a", "b"), await add(store, "b", "c")
    await add(store, "b", scope=Scope("acme", "elsewhere"))
    await add(store, "d")
    claimed = await claim(store)
    assert {each.document_id for each in claimed.files} == {"a", "b", "d"}
    assert (await claim(store)).scope.collection == "elsewhere"
    assert await nothing_to_claim(store)
    waiting = claimed.leases[:1]
    await store.jobs.release(waiting, not_before=3.5e9, error="the model is down", hint="wait")
    assert await nothing_to_claim(store), "the later must not pass the earlier while that waits to be tried again"
    again = await job(store, first.id)
    assert (again.state, again.retry_at, again.error) == ("queued", 3.5e9, "the model is down")
    await settle(store, await claim(store, 3.5e9))
    assert (await job(store, first.id)).state == "succeeded"
    last = await claim(store)
    assert [each.document_id for each in last.files] == ["b", "c"]
    await settle(store, last)
    assert (await job(store, second.id)).state == "succeeded"


async def test_a_job_that_was_begun_before_is_begun_alone(store: Store) -> None:
    for id in "abc":
        await add(store, id)
    assert len((await claim(store)).leases) == 3
    assert await store.jobs.recover() == 3
    assert [each.document_id for each in (await claim(store)).files] == ["a"]
    assert [each.document_id for each in (await claim(store)).files] == ["b"]


async def test_a_job_whose_process_dies_again_and_again_is_a_dead_letter(store: Store) -> None:
    poison, innocent = await add(store, "poison"), await add(store, "innocent")
    for _ in range(3):
        assert (await claim(store)).files[0].document_id == "poison"
        await store.jobs.recover()
    assert (await claim(store)).files[0].document_id == "innocent"
    ended = await job(store, poison.id)
    assert ended.state == "failed" and ended.files[0].outcome == "failed" and "ended 3 times" in ended.error and ended.hint
    assert (await job(store, innocent.id)).state == "running"


async def test_an_attempt_that_was_given_back_does_not_count(store: Store) -> None:
    accepted = await add(store, "a")
    for _ in range(10):
        await store.jobs.release((await claim(store)).leases, counted=False)
    assert (await job(store, accepted.id)).attempts == 0


async def test_a_failed_job_can_be_retried_with_what_failed_in_it(store: Store) -> None:
    accepted = await add(store, "good", "bad")
    with pytest.raises(ConflictError, match="queued"):
        await store.jobs.retry(SCOPE.tenant, accepted.id)
    claimed = await claim(store)
    async with store.transaction() as transaction:
        good, bad = (each.number for each in claimed.files)
        await transaction.settle(claimed.leases, [Settlement(good, "added"), Settlement(bad, "failed", "no text\0\ud800", "mend it")])
    failed = await job(store, accepted.id)
    assert failed.state == "failed" and failed.files[1].error == "no text?"
    assert (await store.jobs.retry(SCOPE.tenant, accepted.id)).state == "queued"
    again = await claim(store)
    assert [(each.document_id, each.body) for each in again.files] == [("bad", b"text")]
    await settle(store, again)
    assert (await job(store, accepted.id)).state == "succeeded"


async def test_a_retry_does_not_overwrite_what_was_uploaded_since(store: Store) -> None:
    old = await add(store, "a")
    await settle(store, await claim(store), "failed", "no text")
    await add(store, "a")
    retried = await store.jobs.retry(SCOPE.tenant, old.id)
    assert retried.state == "cancelled" and "later upload" in retried.files[0].error


async def test_a_job_is_cancelled_at_once_and_its_worker_commits_nothing_more(store: Store) -> None:
    queued, running = await add(store, "a"), await add(store, "b", "c")
    assert (await store.jobs.cancel(SCOPE.tenant, queued.id)).state == "cancelled"
    assert (await store.jobs.cancel(SCOPE.tenant, queued.id)).state == "cancelled"
    claimed = await claim(store)
    async with store.transaction() as transaction:
        await transaction.settle(claimed.leases, [Settlement(claimed.files[0].number, "added")])
    cancelled = await store.jobs.cancel(SCOPE.tenant, running.id)
    assert [each.outcome for each in cancelled.files] == ["added", "cancelled"]
    with pytest.raises(ConflictError):
        await settle(store, claimed)
    with pytest.raises(NotFoundError):
        await store.jobs.cancel("other", queued.id)
    done = await add(store, "d")
    await settle(store, await claim(store))
    with pytest.raises(ConflictError, match="succeeded"):
        await store.jobs.cancel(SCOPE.tenant, done.id)


async def test_a_job_that_is_cancelled_after_a_file_of_it_failed_has_failed_and_can_be_retried(store: Store) -> None:
    accepted = await add(store, "bad", "waits")
    claimed = await claim(store)
    async with store.transaction() as transaction:
        await transaction.settle(claimed.leases, [Settlement(claimed.files[0].number, "failed", "no text")])
    cancelled = await store.jobs.cancel(SCOPE.tenant, accepted.id)
    assert cancelled.state == "failed" and cancelled.ended_at is not None
    assert [each.outcome for each in cancelled.files] == ["failed", "cancelled"]
    with pytest.raises(ConflictError):
        await settle(store, claimed)
    await store.jobs.retry(SCOPE.tenant, accepted.id)
    again = await claim(store)
    assert [each.document_id for each in again.files] == ["bad"]
    await settle(store, again)
    assert (await job(store, accepted.id)).state == "cancelled"


async def test_a_document_that_is_deleted_takes_its_waiting_uploads_along(store: Store) -> None:
    one, two = await add(store, "a"), await add(store, "a", "b")
    claimed = await claim(store)
    assert list(await delete(store, SCOPE, "a", "none")) == ["a"]
    assert list(await delete(store, SCOPE, "a")) == []
    assert (await job(store, one.id)).state == "cancelled"
    with pytest.raises(ConflictError):
        await settle(store, claimed)
    rest = await claim(store)
    assert [each.document_id for each in rest.files] == ["b"]
    await settle(store, rest)
    ended = await job(store, two.id)
    assert ended.state == "cancelled" and [each.outcome for each in ended.files] == ["cancelled", "added"]
    after = await add(store, "a")
    await settle(store, await claim(store))
    assert (await job(store, after.id)).state == "succeeded"


async def test_what_failed_to_become_a_document_is_let_go_of_with_it(store: Store) -> None:
    failed = await add(store, "a")
    await settle(store, await claim(store), "failed", "no text")
    await delete(store, SCOPE, "a")
    retried = await store.jobs.retry(SCOPE.tenant, failed.id)
    assert retried.state == "cancelled" and "deleted" in retried.files[0].error


async def test_a_collection_that_is_deleted_takes_its_waiting_uploads_along(store: Store) -> None:
    mine, elsewhere = await add(store, "a"), await add(store, "a", scope=Scope("acme", "elsewhere"))
    async with store.transaction() as transaction:
        assert await transaction.delete_scope(SCOPE)
        assert not await transaction.delete_scope(SCOPE)
    assert (await job(store, mine.id)).state == "cancelled"
    assert (await job(store, elsewhere.id)).state == "queued"


async def test_tenants_take_turns(store: Store) -> None:
    for number in range(3):
        await add(store, f"{number}", scope=Scope("many"))
    await add(store, "a", scope=Scope("few"))
    claimed = [
        await store.jobs.claim("me", now=3e9, lease_s=60, max_files=1, max_bytes=100, max_attempts=3, served=served)
        for served in (["many"], ["many", "few"], [])
    ]
    assert [each.scope.tenant for each in claimed if each is not None] == ["few", "many", "many"]


async def test_the_same_request_under_the_same_key_is_accepted_once(store: Store, other: Store) -> None:
    same = await asyncio.gather(*(add(each, "a", key="k", request=b"1") for each in (store, other, store, other)))
    assert len({each.id for each in same}) == 1
    with pytest.raises(ConflictError, match="idempotency key 'k'"):
        await add(store, "b", key="k", request=b"2")
    assert (await add(store, "a", scope=Scope("other"), key="k", request=b"2")).id != same[0].id


async def test_jobs_are_listed_latest_first_page_by_page_and_by_tenant(store: Store) -> None:
    ids = [(await add(store, f"{number}")).id for number in range(5)]
    await add(store, "a", scope=Scope("other"))
    listed = await store.jobs.list(SCOPE.tenant, limit=3)
    assert [each.id for each in listed] == ids[:1:-1] and all(each.files == () and each.files_total == 1 for each in listed)
    assert [each.id for each in await store.jobs.list(SCOPE.tenant, after=ids[2])] == ids[1::-1]
    await store.jobs.cancel(SCOPE.tenant, ids[1])
    assert [each.id for each in await store.jobs.list(SCOPE.tenant, state="cancelled")] == [ids[1]]
    assert await store.jobs.list(SCOPE.tenant, after="unknown\0") == []
    assert await store.jobs.get("other", ids[0]) is None


async def test_more_than_may_wait_is_refused(store: Store) -> None:
    await add(store, "a", max_jobs=2)
    await add(store, "b", max_jobs=2)
    with pytest.raises(OverloadedError, match="2 uploads") as refused:
        await add(store, "c", max_jobs=2)
    assert refused.value.retry_after_s is not None and 1 <= refused.value.retry_after_s <= 60
    with pytest.raises(OverloadedError):
        await store.jobs.add(NewJob(SCOPE, [file("d", b"x" * 9_999)]), max_jobs=1000, max_bytes=10_000)
    await store.jobs.must_have_room(SCOPE.tenant, 4, max_jobs=3, max_bytes=10_000)
    for size_bytes, max_jobs in ((4, 2), (9_999, 3)):
        with pytest.raises(OverloadedError):
            await store.jobs.must_have_room(SCOPE.tenant, size_bytes, max_jobs=max_jobs, max_bytes=10_000)
    counted = await store.jobs.counts()
    assert (counted.queued, counted.running, counted.queued_bytes) == (2, 0, 8) and counted.oldest_queued_s >= 0


@pytest.mark.parametrize(
    "files",
    [[], [file("")], [file("a\0")], [file("a", source="\ud800")], [file("a", metadata={"x": float("nan")})], [file("a", None)]],
    ids=["none", "empty id", "nul", "surrogate", "nan", "no body"],
)
async def test_what_cannot_be_stored_is_refused(store: Store, files: list[NewFile]) -> None:
    with pytest.raises(InputError) as refused:
        await store.jobs.add(NewJob(SCOPE, files), max_jobs=10, max_bytes=10_000)
    assert refused.value.hint
    assert await store.jobs.list(SCOPE.tenant) == []


async def test_files_are_named_for_removal_once_no_job_needs_them(store: Store) -> None:
    async def accept(id: str, path: str) -> Job:
        new = NewJob(SCOPE, [NewFile(id, id, "file", 5, path=path)])
        return (await store.jobs.add(new, max_jobs=10, max_bytes=10_000))[0]

    await accept("a", "a.txt")
    await accept("b", "b.txt")
    cancelled = await accept("c", "c.txt")
    claimed = await claim(store, max_files=1)
    assert claimed.files[0].path == "a.txt" and claimed.files[0].body is None
    await settle(store, claimed)
    await settle(store, await claim(store, max_files=1), "failed")
    await store.jobs.cancel(SCOPE.tenant, cancelled.id)
    assert list(await store.jobs.discarded()) == ["a.txt", "c.txt"]
    assert await store.jobs.known_paths(["a.txt", "b.txt", "x.txt"]) == {"a.txt", "b.txt"}
    await store.jobs.forget(["a.txt", "c.txt"])
    assert await store.jobs.prune(before=LATER) == 3
    assert list(await store.jobs.discarded()) == ["b.txt"] and await store.jobs.list(SCOPE.tenant) == []
    assert await store.jobs.renew([Lease(1, "me", 1)], until=LATER) == []
