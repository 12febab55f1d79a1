"""The store in one SQLite file: what `storage.base.Store` promises, by way of the modules beside this one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import apsw
import numpy as np

from ragline.concurrency.workers import Workers, on_worker
from ragline.errors import BackendError, CorruptionError, RaglineError
from ragline.storage.base import (
    Changes,
    CollectionInfo,
    DocumentWrite,
    FileState,
    Head,
    PutOutcome,
    Span,
    StoredChunk,
    StoredDocument,
)
from ragline.storage.encoding import text_fault
from ragline.storage.jobs import Lease, Settlement
from ragline.storage.sqlite import pruning, reads
from ragline.storage.sqlite.changeset import Changeset
from ragline.storage.sqlite.connections import Readers, Watch, closed_error, open_writer, translated
from ragline.storage.sqlite.jobs import SqliteJobs
from ragline.storage.sqlite.key_rows import SqliteKeys
from ragline.storage.sqlite.schema import migrate, renew_incarnation
from ragline.storage.sqlite.writer import Turn, Writer
from ragline.types import Float16, Int64, Layout, Scope

P = ParamSpec("P")
T = TypeVar("T")

FILE_NAME = "store.sqlite3"

_READER_THREADS = 4
_POLL_S = 0.02
_HEADS_LIMIT = 10_000


class SqliteTransaction:
    """See `storage.base.Transaction`."""

    def __init__(self, turn: Turn, changeset: Changeset) -> None:
        self._turn = turn
        self._changeset = changeset

    async def put(
        self, scope: Scope, documents: Sequence[DocumentWrite], *, model: str, embedder: Mapping[str, str]
    ) -> Sequence[PutOutcome]:
        """Stores document versions, each replacing what stood under its id; returns one outcome for each."""
        return await self._turn.run(self._changeset.put, scope, documents, model, embedder)

    async def put_vectors(self, tenant: str, model: str, hashes: Sequence[bytes], vectors: Float16) -> None:
        """Stores vectors by the hash of the passage they embed. Known ones are kept."""
        await self._turn.run(self._changeset.put_vectors, tenant, model, hashes, vectors)

    async def delete(self, scope: Scope, ids: Sequence[str]) -> Sequence[str]:
        """Deletes documents; returns the ids that were there."""
        return await self._turn.run(self._changeset.delete, scope, ids)

    async def create_scope(self, scope: Scope, *, model: str, embedder: Mapping[str, str]) -> bool:
        """Makes an empty collection; False where there is one."""
        return await self._turn.run(self._changeset.create_scope, scope, model, embedder)

    async def delete_scope(self, scope: Scope) -> bool:
        """Deletes a collection with everything in it; False where there was none."""
        return await self._turn.run(self._changeset.delete_scope, scope)

    async def put_files(self, scope: Scope, files: Mapping[str, FileState]) -> None:
        """Remembers the state of files by URI."""
        await self._turn.run(self._changeset.put_files, scope, files)

    async def swap_model(
        self, scope: Scope, documents: Sequence[DocumentWrite], *, expected_lsn: int, model: str, embedder: Mapping[str, str]
    ) -> bool:
        """Replaces every document's chunks and the scope's model at one LSN."""
        return await self._turn.run(self._changeset.swap_model, scope, documents, expected_lsn, model, embedder)

    async def unsettled(self, leases: Sequence[Lease]) -> frozenset[int]:
        """The numbers of the files that are still pending in the jobs whose leases hold."""
        return await self._turn.run(self._changeset.unsettled, leases)

    async def settle(self, leases: Sequence[Lease], settlements: Sequence[Settlement]) -> None:
        """Writes what became of files of these jobs; a job with no file pending any more ends."""
        await self._turn.run(self._changeset.settle, leases, settlements)


class SqliteStore:
    """A `Store` in the file `store.sqlite3` of a folder. Made by `open`.

    Writes run on one thread with one connection; reads on threads of its own, or at once where the caller is on a worker
    thread already. Belongs to one event loop at a time.
    """

    is_local = True

    def __init__(self, file: Path, writer: Writer, writer_thread: ThreadPoolExecutor, incarnation: str, busy_timeout_s: float) -> None:
        self._file = file
        self._writer = writer
        self._writer_thread = writer_thread
        self._incarnation = incarnation
        self._readers = Readers(file, busy_timeout_s)
        self._watch = Watch(file)
        self._workers = Workers("ragline-store", _READER_THREADS)
        self._heads: dict[Scope, tuple[int, Head]] = {}
        self._scope_ids: dict[Scope, int] = {}
        self._changes_seen = self._watch.version()
        self._jobs = SqliteJobs(writer, self.read)
        self._closed = False
        self._keys = SqliteKeys(self)

    @classmethod
    async def open(cls, folder: Path, *, busy_timeout_s: float = 30.0) -> SqliteStore:
        """Opens the store in `folder`; makes both where they are not there.

        Raises:
            SchemaTooNewError: A newer ragline has written it.
            CorruptionError: The file is damaged, or is not a ragline store.
            BackendError: The folder cannot be made or written.
        """
        file = folder / FILE_NAME
        thread = ThreadPoolExecutor(1, "ragline-writer")
        try:
            connection, incarnation = await asyncio.get_running_loop().run_in_executor(thread, _prepare, file, busy_timeout_s)
            return cls(file, Writer(connection, thread, file), thread, incarnation, busy_timeout_s)
        except BaseException:
            thread.shutdown(wait=False)
            raise

    @property
    def jobs(self) -> SqliteJobs:
        """What was accepted and is still to be done."""
        return self._jobs

    @property
    def incarnation(self) -> str:
        """Renewed when the store is restored or copied."""
        return self._incarnation

    @property
    def keys(self) -> SqliteKeys:
        """The keys to a server on this store, and its audit."""
        return self._keys

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[SqliteTransaction]:
        """Begins a transaction; leaving it commits durably, or rolls back on an exception."""
        changeset = Changeset(self._writer.connection)
        async with self._writer.turn(changeset.finish) as turn:
            yield SqliteTransaction(turn, changeset)

    async def head(self, scope: Scope) -> Head:
        """Where the scope's log stands now."""
        version = self._watch.version()
        known = self._heads.get(scope)
        if known is not None and known[0] == version:
            return known[1]
        # The version was read first: a commit in between is seen again by the next call, never missed.
        head = await self.glance(reads.head, scope)
        if len(self._heads) >= _HEADS_LIMIT:
            self._heads.clear()
        self._heads[scope] = (version, head)
        return head

    async def changes(
        self, scope: Scope, after: int, upto: int, *, model: str = "", with_passages: bool = False, page_rows: int = 2048
    ) -> AsyncIterator[Changes]:
        """What turns a view at LSN `after` into one at LSN `upto`, page by page, each in a short read transaction."""
        scope_id = await self._scope_id(scope)
        feed = await self.read(reads.feed, scope, scope_id, after, upto)
        removed, first_row = feed.removed, feed.first_row
        while True:
            page = await self.read(reads.page, scope, scope_id, first_row, feed.end_row, model, with_passages, page_rows)
            if len(page.rows) or first_row == feed.first_row:
                yield replace(page, removed=removed)
            if len(page.rows) < page_rows:
                return
            removed, first_row = np.empty(0, np.int64), int(page.rows[-1]) + 1

    async def fetch(self, scope: Scope, rows: Sequence[int]) -> Sequence[StoredChunk]:
        """The live chunks among `rows`, in the order asked, read in one transaction."""
        return await self.read(reads.fetch, await self._scope_id(scope), rows)

    async def documents(
        self,
        scope: Scope,
        *,
        ids: Sequence[str] | None = None,
        after_id: str = "",
        limit: int | None = None,
        source_prefix: str | None = None,
    ) -> Sequence[StoredDocument]:
        """Documents by id ascending, at most `limit` after `after_id`."""
        if text_fault(after_id) or text_fault(source_prefix or ""):
            return []
        return await self.read(reads.documents, await self._scope_id(scope), ids, after_id, limit, source_prefix)

    async def text(self, scope: Scope, document_id: str) -> tuple[str, Layout] | None:
        """The stored text and its layout, or None where there is no such document."""
        if text_fault(document_id):
            return None
        return await self.read(reads.text, await self._scope_id(scope), document_id)

    async def slices(self, scope: Scope, spans: Sequence[Span]) -> Sequence[str | None]:
        """What stands at each span, in the order asked; None where that version is not the current one."""
        return await self.read(reads.slices, await self._scope_id(scope), spans)

    async def chunks(self, scope: Scope, document_id: str) -> Sequence[StoredChunk]:
        """The chunks of a document in the order of its text."""
        if text_fault(document_id):
            return []
        return await self.read(reads.chunks, await self._scope_id(scope), document_id)

    async def rows(self, scope: Scope, document_ids: Sequence[str]) -> Int64:
        """The live rows of these documents, ascending."""
        return await self.read(reads.rows, await self._scope_id(scope), document_ids)

    async def vectors(self, tenant: str, model: str, hashes: Sequence[bytes]) -> Mapping[bytes, Float16]:
        """Those of the vectors that are stored, by hash."""
        return await self.read(reads.vectors, tenant, model, hashes)

    async def vector_usage(self, tenant: str) -> Mapping[str, tuple[int, int]]:
        """How many vectors are stored and how many bytes they take, by model."""
        return await self.read(reads.vector_usage, tenant)

    async def files(self, scope: Scope, uris: Sequence[str]) -> Mapping[str, FileState]:
        """What is known of these files, by URI."""
        return await self.read(reads.files, await self._scope_id(scope), uris)

    async def files_under(self, scope: Scope, prefix: str) -> Mapping[str, FileState]:
        """What is known of the files whose URI begins with `prefix`, by URI."""
        if text_fault(prefix):
            return {}
        return await self.read(reads.files_under, await self._scope_id(scope), prefix)

    async def collections(self, tenant: str) -> Sequence[CollectionInfo]:
        """The tenant's collections by name."""
        return await self.read(reads.collections, tenant)

    async def heads(self) -> Mapping[Scope, Head]:
        """The head of every scope there is, of every tenant."""
        return await self.read(reads.heads)

    async def prune(self, scope: Scope, before: int) -> None:
        """Forgets tombstones up to LSN `before`, and vectors that no chunk uses, in several short transactions."""
        pruned = False
        while await self.read(pruning.prunable, scope, before):
            async with self._writer.turn() as turn:
                await turn.run(pruning.prune_some, self._writer.connection, scope, before)
            pruned = True
        if pruned:
            await self._workers.run(pruning.empty_log, self._file)

    def version(self) -> int:
        """A number that differs from the last one wherever any process has committed something since."""
        return self._watch.version()

    async def changed(self, timeout_s: float) -> bool:
        """Waits until any process has committed something since the last call; False after `timeout_s`."""
        until = time.monotonic() + timeout_s
        while True:
            version = self._watch.version()
            if version != self._changes_seen:
                self._changes_seen = version
                return True
            remaining_s = until - time.monotonic()
            if remaining_s <= 0:
                return False
            await asyncio.sleep(min(_POLL_S, remaining_s))

    async def check(self) -> Sequence[str]:
        """Verifies the store's file; one sentence per fault, empty where it is sound."""
        try:
            return await self.read(reads.faults)
        except CorruptionError as error:
            return [error.message]

    async def close(self) -> None:
        """Waits for transactions and reads under way and closes. Twice is harmless."""
        if self._closed:
            return
        self._closed = True
        await self._writer.close()
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._workers.close()
        self._readers.close()
        self._watch.close()
        # The last connection to leave writes the log back into the file, so the one that may write goes last.
        self._writer_thread.submit(self._writer.connection.close).result()
        self._writer_thread.shutdown()

    async def write(self, job: Callable[Concatenate[apsw.Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs `job` in a transaction of its own, for tables that move no log; returns when it is committed."""
        return await self._writer.write(job, self._writer.connection, *args, **kwargs)

    async def glance(self, question: Callable[Concatenate[apsw.Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Asks what takes microseconds, and no longer than a way to another thread and back."""
        if self._closed:
            raise closed_error(self._file)
        found = None if on_worker() else self._watch.glance(question, *args, **kwargs)
        return found if found is not None else await self.read(question, *args, **kwargs)

    async def read(self, question: Callable[Concatenate[apsw.Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Asks on a worker thread; at once where this is one."""
        if self._closed:
            raise closed_error(self._file)

        def ask() -> T:
            with self._readers.connection() as connection:
                return question(connection, *args, **kwargs)

        return await self._workers.run(ask)

    async def _scope_id(self, scope: Scope) -> int:
        """The scope's number, which never changes; 0 where the scope was never written, and then nothing is found."""
        known = self._scope_ids.get(scope)
        if known is None:
            known = (await self.read(reads.head, scope)).scope_id
            if known:
                self._scope_ids[scope] = known
        return known


def _prepare(file: Path, busy_timeout_s: float) -> tuple[apsw.Connection, str]:
    """The writer's connection to a file of the newest schema, and the store's incarnation."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BackendError(
            f"the folder {file.parent} cannot be made: {error.strerror}", hint="make it writable, or name another with --data-dir"
        ) from error
    with translated(file):
        connection = open_writer(file, busy_timeout_s)
        try:
            migrate(connection, file)
            return connection, renew_incarnation(connection, file)
        except (apsw.Error, RaglineError):
            connection.close()
            raise
