"""Uploads of one tenant: accepted in a moment, ingested in the background, remembered for some days."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import stat
from collections.abc import AsyncGenerator, Iterable, MutableSequence, Sequence
from typing import BinaryIO, Literal, get_args

from ragline.engine.job_work import new_job_runner
from ragline.engine.resources import Resources
from ragline.engine.sources import one_by_one
from ragline.errors import InputError, NotFoundError
from ragline.jobs.uploads import Body
from ragline.storage.jobs import Job, JobState, NewFile, NewJob
from ragline.types import Document, Metadata, Scope, Upload

_PIECE_BYTES = 256 * 1024
"""The event loop hashes no more than this at once."""

_LOOK_S, _LONGEST_LOOK_S = 0.05, 0.5
_LISTED = 1000


class EngineJobs:
    """The jobs of an engine's tenant: `engine.jobs`.

    A job is worked on by one of the processes that have the data folder open and have submitted or started jobs: this one, if it is
    the first. Jobs for the same document are done in the order in which they were accepted. Deleting a document cancels the
    uploads of it that were accepted before and are not done yet.

    Examples:
        job = await engine.jobs.submit(Upload("report.pdf", id="report-7"))
        job = await engine.jobs.wait(job.id)
        print(job.state, [file.outcome for file in job.files])
    """

    def __init__(self, resources: Resources, tenant: str) -> None:
        self._resources = resources
        self._tenant = tenant

    def start(self) -> None:
        """Works on the waiting jobs of every tenant as long as the engine is open. `submit` does it by itself."""
        with self._resources.in_use():
            if self._resources.job_runner is None:
                self._resources.job_runner = new_job_runner(self._resources)
                self._resources.job_runner.start()
            self._resources.job_runner.wake()

    async def submit(
        self,
        sources: Document | Upload | Iterable[Document | Upload],
        *,
        collection: str | None = None,
        idempotency_key: str | None = None,
    ) -> Job:
        """Accepts texts and files; returns when they are stored durably, whatever happens then.

        Args:
            idempotency_key: The caller's own name for this request: the same again under the same key is the same job.

        Raises:
            InputError: There is nothing to ingest, or what cannot be stored.
            ConflictError: The same key came with another request.
            OverloadedError: Too much is waiting already.
            BackendError: The store or the folder of uploads cannot be written.
        """
        sources = list(one_by_one(sources))
        with self._resources.in_use():
            bodies: list[Body] = []
            try:
                files = [await self._new_file(source, bodies) for source in sources]
            except BaseException:
                await discard(bodies)
                raise
            return await self.accept(files, bodies, collection=collection, idempotency_key=idempotency_key)

    async def accept(
        self, files: Sequence[NewFile], bodies: Sequence[Body], *, collection: str | None = None, idempotency_key: str | None = None
    ) -> Job:
        """Accepts files whose bodies were received already; these are the job's then, or gone. Errors are those of `submit`."""
        settings = self._resources.settings
        kept = False
        with self._resources.in_use():
            try:
                scope = Scope(self._tenant, settings.collection if collection is None else collection)
                new = NewJob(scope, files, idempotency_key, _request_hash(scope, files, bodies))
                limits = settings.jobs
                job, kept = await self._resources.store.jobs.add(new, max_jobs=limits.max_queued, max_bytes=limits.max_queued_bytes)
            except asyncio.CancelledError:
                kept = True  # the commit may stand; a file that nobody knows is swept later
                raise
            finally:
                if not kept:
                    await discard(bodies)
            self.start()
            return job

    async def must_have_room(self, size_bytes: int, *, idempotency_key: str | None = None) -> None:
        """Raises OverloadedError where `accept` would for so many bytes: to be asked before they are received."""
        limits = self._resources.settings.jobs
        with self._resources.in_use():
            await self._resources.store.jobs.must_have_room(
                self._tenant, size_bytes, idempotency_key=idempotency_key, max_jobs=limits.max_queued, max_bytes=limits.max_queued_bytes
            )

    def receive(self, name: str) -> Body:
        """A body that comes in pieces, for `accept`."""
        return self._resources.uploads.receive(name)

    async def get(self, job_id: str) -> Job:
        """A job with its files. Raises NotFoundError where there is none of this id, or not any more."""
        with self._resources.in_use():
            job = await self._resources.store.jobs.get(self._tenant, job_id)
        if job is None:
            raise NotFoundError(f"there is no job {job_id!r}", hint="jobs are forgotten some time after their end: see jobs.keep_s")
        return job

    async def list(self, *, state: JobState | None = None, after: str = "", limit: int = 100) -> Sequence[Job]:
        """Jobs without their files, the latest first: at most `limit`, older than the job `after`."""
        if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= _LISTED:
            raise InputError(f"limit is {limit!r}", hint=f"use a number from 1 to {_LISTED}")
        if state is not None and state not in get_args(JobState):
            raise InputError(f"there is no state {state!r}", hint=f"use one of {', '.join(get_args(JobState))}")
        with self._resources.in_use():
            return await self._resources.store.jobs.list(self._tenant, state=state, after=after, limit=limit)

    async def cancel(self, job_id: str) -> Job:
        """Cancels what is not done yet of a job; what was done stays. Where a file failed before, the job has failed, and can be retried.

        Raises:
            NotFoundError: There is no such job.
            ConflictError: It has succeeded or failed already.
        """
        with self._resources.in_use():
            return await self._resources.store.jobs.cancel(self._tenant, job_id)

    async def retry(self, job_id: str) -> Job:
        """Queues a failed job again, with the files that failed. One whose document was uploaded again since is cancelled.

        Raises:
            NotFoundError: There is no such job.
            ConflictError: It has not failed.
        """
        with self._resources.in_use():
            job = await self._resources.store.jobs.retry(self._tenant, job_id)
            self.start()
            return job

    async def updates(self, job_id: str) -> AsyncGenerator[Job, None]:
        """The job now and after each change, until it has ended. Raises NotFoundError as `get` does."""
        last: Job | None = None
        pause_s = _LOOK_S
        while last is None or last.ended_at is None:
            version = self._resources.store.version()
            job = await self.get(job_id)
            if job != last:
                last = job
                yield job
                pause_s = _LOOK_S
                continue
            while self._resources.store.version() == version:
                await asyncio.sleep(pause_s)
                pause_s = min(1.2 * pause_s, _LONGEST_LOOK_S)

    async def wait(self, job_id: str) -> Job:
        """The job when it has ended. It may wait for long: bound it with `asyncio.timeout`."""
        async for job in self.updates(job_id):
            if job.ended_at is not None:
                return job
        raise AssertionError("updates end with the job")

    async def _new_file(self, source: Document | Upload, bodies: MutableSequence[Body]) -> NewFile:
        if isinstance(source, Document):
            name = source.source or source.id or "text"
            body = self.receive("")
        elif isinstance(source, Upload):
            name = source.shown_name
            body = self.receive(name)
        else:
            raise InputError(
                f"{type(source).__name__} cannot be submitted",
                hint="give ragline.Document(text=...), or ragline.Upload(path) or ragline.Upload(content=..., name=...)",
            )
        bodies.append(body)
        if isinstance(source, Upload) and source.path is not None:
            await self._copy(source, body)
        else:
            content = await self._resources.uploads.workers.run(_content, source)
            for start in range(0, len(content), _PIECE_BYTES):
                await body.write(content[start : start + _PIECE_BYTES])
        return await new_file(
            body, name, "text" if isinstance(source, Document) else "file", id=source.id, source=source.source, metadata=source.metadata
        )

    async def _copy(self, upload: Upload, body: Body) -> None:
        workers, most = self._resources.uploads.workers, self._resources.settings.reading.max_file_bytes
        try:
            file: BinaryIO = await workers.run(_open, str(upload.path))
            try:
                while piece := await workers.run(file.read, _PIECE_BYTES):
                    await body.write(piece)
                    if body.size_bytes > most:
                        raise InputError(
                            f"{upload.shown_name} holds more than the {most:,} bytes allowed", hint="raise reading.max_file_bytes"
                        )
            finally:
                file.close()
        except (OSError, ValueError) as failure:
            reason = failure.strerror if isinstance(failure, OSError) and failure.strerror else failure
            raise InputError(
                f"{upload.shown_name} cannot be read: {reason}", hint="check that it exists and that you may read it"
            ) from failure


async def new_file(
    body: Body,
    name: str,
    kind: Literal["text", "file"],
    *,
    id: str | None = None,
    source: str | None = None,
    metadata: Metadata | None = None,
) -> NewFile:
    """A file to accept, whose bytes are all there; its id is the one given, else the hash of its bytes."""
    if not body.size_bytes:
        raise InputError(f"{name} is empty", hint="there is nothing to ingest")
    content, path = await body.keep()
    return NewFile(
        body.content_id if id is None else id,
        name,
        kind,
        body.size_bytes,
        source=source,
        metadata=metadata or {},
        body=content,
        path=path,
    )


async def discard(bodies: Iterable[Body]) -> None:
    """Lets go of bodies that no job needs."""
    for body in bodies:
        await body.discard()


def _request_hash(scope: Scope, files: Sequence[NewFile], bodies: Sequence[Body]) -> bytes:
    """Equal for equal requests: the same bytes, ids, names, sources and metadata, into the same collection."""
    parts = [
        [file.document_id, file.name, file.kind, file.source, dict(file.metadata), body.content_id]
        for file, body in zip(files, bodies, strict=True)
    ]
    whole = json.dumps([scope.collection, parts], sort_keys=True, default=str)
    return hashlib.blake2b(whole.encode(), digest_size=16).digest()


def _content(source: Document | Upload) -> bytes:
    """The bytes of what was handed over; of a text in UTF-8, without what no encoding can write."""
    return source.text.encode("utf-8", "replace") if isinstance(source, Document) else source.content or b""


def _open(path: str) -> BinaryIO:
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError("it is not a regular file")
    return open(path, "rb")
