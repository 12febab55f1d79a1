"""The runner over a real store, by a clock that only tests move."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ragline.concurrency.locks import ProcessLock
from ragline.concurrency.workers import Workers
from ragline.errors import BackendError, InputError
from ragline.jobs.runner import JobRunner
from ragline.jobs.uploads import Uploads
from ragline.settings import JobsSettings
from ragline.storage.jobs import Claim, Job, NewFile, NewJob, Settlement
from ragline.storage.sqlite import SqliteStore
from ragline.types import Scope

SCOPE = Scope()


@dataclass
class Bench:
    """A store, an uploads folder, and a handler that does what the test says."""

    store: SqliteStore
    uploads: Uploads
    folder: Path
    now: float = 1e6
    seen: list[list[str]] = field(default_factory=list)
    failures: list[BaseException | None] = field(default_factory=list)
    before: Callable[[Claim], object] = lambda claim: None

    async def handle(self, claim: Claim) -> Collection[int]:
        self.seen.append([file.document_id for file in claim.files])
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None:
            raise failure
        if asyncio.iscoroutine(waiting := self.before(claim)):
            await waiting
        async with self.store.transaction() as transaction:
            await transaction.settle(claim.leases, [Settlement(file.number, "added") for file in claim.files])
        return {file.number for file in claim.files}

    def runner(self, lock: ProcessLock | None = None, **settings: float) -> JobRunner:
        chosen = JobsSettings(**settings)
        return JobRunner(self.store.jobs, self.store.version, self.handle, self.uploads, chosen, lock=lock, clock=lambda: self.now)

    async def add(self, *ids: str, path: str = "") -> Job:
        files = [NewFile(id, id, "file", 1, body=None if path else b"x", path=path) for id in ids]
        return (await self.store.jobs.add(NewJob(SCOPE, files), max_jobs=100, max_bytes=1000))[0]

    async def job(self, id: str) -> Job:
        found = await self.store.jobs.get(SCOPE.tenant, id)
        assert found is not None
        return found

    async def renewed(self, until: float) -> None:
        """Waits until a lease was prolonged to then."""
        for _ in range(500):
            if await self.store.read(lambda connection: connection.execute("SELECT max(lease_until) FROM jobs").get) >= until:
                return
            await asyncio.sleep(0.01)
        raise AssertionError("no lease was prolonged")

    async def until(self, id: str, state: str) -> Job:
        for _ in range(500):
            if (job := await self.job(id)).state == state:
                return job
            await asyncio.sleep(0.01)
        raise AssertionError(f"the job is {job.state}, not {state}")


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    store = await SqliteStore.open(tmp_path)
    workers = Workers("test", 1)
    yield Bench(store, Uploads(tmp_path / "uploads", lambda name: "", workers), tmp_path / "uploads")
    await store.close()
    workers.close()


async def test_small_jobs_are_done_together(bench: Bench) -> None:
    jobs = [await bench.add(f"{number}") for number in range(5)]
    runner = bench.runner()
    assert await runner.run_once() and not await runner.run_once()
    assert bench.seen == [["0", "1", "2", "3", "4"]]
    assert [(await bench.job(job.id)).state for job in jobs] == ["succeeded"] * 5


async def test_a_failure_that_may_pass_is_tried_again_later_and_later_and_then_is_a_dead_letter(bench: Bench) -> None:
    job = await bench.add("a")
    bench.failures = [BackendError("http://10.0.0.7 is down")] * 3
    runner = bench.runner(max_attempts=3, first_wait_s=10, longest_wait_s=1000)
    waits = []
    for _ in range(2):
        assert await runner.run_once() and not await runner.run_once()
        waiting = await bench.job(job.id)
        assert waiting.state == "queued" and waiting.retry_at is not None and waiting.error and "10.0.0.7" not in waiting.error
        waits.append(waiting.retry_at - bench.now)
        bench.now = waiting.retry_at
    assert 5 <= waits[0] <= 10 and 20 <= waits[1] <= 40
    assert await runner.run_once()
    dead = await bench.job(job.id)
    assert (dead.state, dead.attempts, dead.files[0].outcome) == ("failed", 3, "failed")
    await bench.store.jobs.retry(SCOPE.tenant, job.id)
    assert await runner.run_once()
    assert (await bench.job(job.id)).state == "succeeded"


async def test_a_failure_that_cannot_pass_is_not_tried_again(bench: Bench) -> None:
    job = await bench.add("a")
    bench.failures = [InputError("no such model", hint="name another")]
    assert await bench.runner().run_once()
    failed = await bench.job(job.id)
    assert (failed.state, failed.attempts, failed.error, failed.hint) == ("failed", 1, "no such model", "name another")


@pytest.mark.parametrize("max_attempts", [1, 5])
async def test_of_a_batch_that_failed_each_job_is_tried_alone(bench: Bench, max_attempts: int) -> None:
    good, bad = await bench.add("good"), await bench.add("bad")
    bench.failures = [InputError("one of them"), None, InputError("this one")]
    runner = bench.runner(max_attempts=max_attempts)
    while await runner.run_once():
        pass
    assert bench.seen == [["good", "bad"], ["good"], ["bad"]]
    assert ((await bench.job(good.id)).state, (await bench.job(bad.id)).error) == ("succeeded", "this one")


async def test_a_fault_of_ours_does_not_end_the_runner_and_is_not_shown(bench: Bench) -> None:
    job = await bench.add("a")
    bench.failures = [ZeroDivisionError("secret")]
    await bench.runner(max_attempts=1).run_once()
    failed = await bench.job(job.id)
    assert failed.state == "failed" and "secret" not in failed.error and failed.hint


async def test_a_running_runner_does_jobs_as_they_come_from_any_process(bench: Bench, tmp_path: Path) -> None:
    runner = bench.runner(ProcessLock(tmp_path / "lock"))
    runner.start()
    first = await bench.add("a")
    runner.wake()
    await bench.until(first.id, "succeeded")
    other = await SqliteStore.open(tmp_path)
    second, _ = await other.jobs.add(NewJob(SCOPE, [NewFile("b", "b", "file", 1, body=b"x")]), max_jobs=9, max_bytes=99)
    await bench.until(second.id, "succeeded")
    await other.close()
    await runner.stop()
    await runner.stop()


async def test_one_process_works_and_another_takes_over_when_it_ends(bench: Bench, tmp_path: Path) -> None:
    first, second = bench.runner(ProcessLock(tmp_path / "lock")), bench.runner(ProcessLock(tmp_path / "lock"))
    first.start()
    await bench.until((await bench.add("a")).id, "succeeded")
    second.start()
    await asyncio.sleep(0.01)
    assert first.working and not second.working
    await first.stop()
    await bench.until((await bench.add("b")).id, "succeeded")
    assert second.working and not first.working
    await second.stop()


async def test_stopping_gives_back_what_is_under_way_without_counting_it(bench: Bench, tmp_path: Path) -> None:
    begun = asyncio.Event()

    async def hang(claim: Claim) -> None:
        begun.set()
        await asyncio.Event().wait()

    bench.before = hang
    job = await bench.add("a")
    runner = bench.runner(ProcessLock(tmp_path / "lock"))
    runner.start()
    await begun.wait()
    await runner.stop()
    stopped = await bench.job(job.id)
    assert (stopped.state, stopped.attempts, stopped.retry_at) == ("queued", 0, None)


async def test_what_a_dead_process_left_is_begun_again_at_once(bench: Bench, tmp_path: Path) -> None:
    job = await bench.add("a")
    assert await bench.store.jobs.claim("dead", now=bench.now, lease_s=9e9, max_files=9, max_bytes=9, max_attempts=9)
    runner = bench.runner(ProcessLock(tmp_path / "lock"))
    runner.start()
    assert (await bench.until(job.id, "succeeded")).attempts == 2
    await runner.stop()


async def test_work_on_a_cancelled_job_is_ended(bench: Bench, tmp_path: Path) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def hang(claim: Claim) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    bench.before = hang
    job = await bench.add("a")
    runner = bench.runner(ProcessLock(tmp_path / "lock"), lease_s=0.03)
    runner.start()
    await begun.wait()
    await bench.store.jobs.cancel(SCOPE.tenant, job.id)
    await asyncio.wait_for(ended.wait(), 5)
    await runner.stop()
    assert (await bench.job(job.id)).state == "cancelled"


async def test_a_lease_is_kept_while_the_work_goes_on(bench: Bench) -> None:
    other = bench.runner()

    async def steal(claim: Claim) -> None:
        for _ in range(3):
            bench.now += 0.2
            await bench.renewed(bench.now + 0.3)
            assert not await other.run_once()

    bench.before = steal
    job = await bench.add("a")
    await bench.runner(lease_s=0.3).run_once()
    assert (await bench.job(job.id)).state == "succeeded"


async def test_files_of_jobs_that_are_done_are_deleted_and_orphans_are_swept(bench: Bench, tmp_path: Path) -> None:
    body = bench.uploads.receive("a.txt")
    await body.write(b"x" * 100_000)
    content, path = await body.keep()
    assert content is None and (bench.folder / path).read_bytes() == b"x" * 100_000
    unfinished, unknown = bench.uploads.receive("b"), bench.uploads.receive("c")
    await unfinished.write(b"x" * 100_000)
    await unknown.write(b"x" * 100_000)
    await unknown.keep()
    job = await bench.add("a", path=path)
    assert await bench.uploads.sweep(bench.store.jobs) == 0, "they are too young to be nobody's"
    runner = bench.runner(ProcessLock(tmp_path / "lock"))
    runner.start()
    await bench.until(job.id, "succeeded")
    for _ in range(500):
        if not await bench.store.jobs.discarded():
            break
        await asyncio.sleep(0.01)
    await runner.stop()
    assert len(list(bench.folder.iterdir())) == 2
    assert await bench.uploads.sweep(bench.store.jobs, older_than_s=-1) == 2
    assert list(bench.folder.iterdir()) == []
    await unfinished.discard()


async def test_what_waits_for_the_rest_of_a_slow_upload_is_not_swept(bench: Bench) -> None:
    slow = Uploads(bench.folder, lambda name: "", bench.uploads.workers, longest_s=7200)
    body = slow.receive("first of two")
    await body.write(b"x" * 100_000)
    (file,) = bench.folder.iterdir()
    for hours, swept in ((3, 0), (5, 1)):
        os.utime(file, (time.time() - hours * 3600,) * 2)
        assert await slow.sweep(bench.store.jobs) == swept
    await body.discard()


async def test_small_bodies_stay_in_memory_and_discarded_ones_leave_nothing(bench: Bench) -> None:
    small = bench.uploads.receive("a")
    await small.write(b"hello ")
    await small.write(b"world")
    assert await small.keep() == (b"hello world", "") and not bench.folder.exists()
    for kept in (True, False):
        large = bench.uploads.receive("a")
        for _ in range(10):
            await large.write(b"x" * 50_000)
        if kept:
            await large.keep()
        await large.discard()
        await large.discard()
    assert list(bench.folder.iterdir()) == []


async def test_old_jobs_are_forgotten(bench: Bench, tmp_path: Path) -> None:
    job = await bench.add("a")
    await bench.runner().run_once()
    bench.now = 9e9
    runner = bench.runner(ProcessLock(tmp_path / "lock"), keep_s=1)
    runner.start()
    for _ in range(500):
        if await bench.store.jobs.get(SCOPE.tenant, job.id) is None:
            break
        await asyncio.sleep(0.01)
    else:
        raise AssertionError("it is still there")
    await runner.stop()
