"""What is true? The seam between the engine and the place where documents are kept.

A store keeps, per scope, the current version of each document, its chunks, and a log sequence number
(LSN) that rises by one with each committed change of that scope. Views are pure functions of a store up
to some LSN; they learn of changes through `changes`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Literal, Protocol

from ragline.storage.jobs import Jobs, Lease, Settlement
from ragline.storage.keys import Keys
from ragline.types import Chunk, Float16, Int64, Layout, Metadata, Scope

PutOutcome = Literal["added", "replaced", "unchanged"]


@dataclass(frozen=True, slots=True)
class Head:
    """Where a scope's log stands.

    Attributes:
        lsn: The last committed change; 0 for a scope that was never written.
        oldest_lsn: A view that stands before this LSN has missed pruned tombstones and must be rebuilt.
        model: Fingerprint of the embedding model of the scope's vectors; "" until the first document, and after the
            collection was deleted.
        embedder: How to open that model again, as the first `put` gave it.
        scope_id: The store's number for the scope: names folders of views. Never given again. 0 for a scope never written.
    """

    lsn: int = 0
    oldest_lsn: int = 0
    model: str = ""
    embedder: Mapping[str, str] = field(default_factory=dict)
    scope_id: int = 0


@dataclass(frozen=True, slots=True)
class DocumentWrite:
    """A document version to be stored whole: it replaces what stood under its id, or nothing does.

    Attributes:
        content_hash: Hash of everything that makes this version (bytes read, source, metadata). Equal to
            that of the stored version: nothing is written and the outcome is `unchanged`.
        chunks: In the order of the text.
        passage_hashes: One per chunk, the key of its vector (see `Transaction.put_vectors`).
    """

    id: str
    text: str
    content_hash: bytes
    source: str | None = None
    metadata: Metadata = field(default_factory=dict)
    layout: Layout = Layout()
    media_type: str = "text/plain"
    chunks: Sequence[Chunk] = ()
    passage_hashes: Sequence[bytes] = ()


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """The current version of a document, without its text.

    Attributes:
        version: One more with each change of content or metadata. Starts at 1, or above every version deleted in the
            scope before: a cited (id, version) never comes to mean another text.
        lsn: The LSN of its last change.
        updated_at: Seconds since 1970, UTC.
    """

    id: str
    version: int
    source: str | None
    metadata: Metadata
    content_hash: bytes
    media_type: str
    characters: int
    chunk_count: int
    lsn: int
    updated_at: float


@dataclass(frozen=True, slots=True)
class StoredChunk:
    """A live chunk with what a hit needs of its document. Field meanings: `ragline.types.ScoredChunk`."""

    row: int
    document_id: str
    document_version: int
    ordinal: int
    start: int
    end: int
    heading: str
    page: int | None
    text: str
    source: str | None
    metadata: Metadata


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of a document version's text, in code points."""

    document_id: str
    document_version: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Changes:
    """A page of the difference between two LSNs of a scope.

    Attributes:
        removed: Row numbers that are dead now and may have been alive before, `(r,)` int64. Rows that a view
            never held may be among them.
        rows: Row numbers that came to be, ascending, `(n,)` int64.
        document_ids, metadata, passages: `n` each, of those rows. `passages` (heading path and text, what the
            lexical view indexes) is empty unless asked for.
        vectors: `(n, dimension)` float16, unit length, of the model asked for; `(0, 0)` unless asked for.
    """

    removed: Int64
    rows: Int64
    document_ids: Sequence[str]
    metadata: Sequence[Metadata]
    passages: Sequence[str]
    vectors: Float16


@dataclass(frozen=True, slots=True)
class CollectionInfo:
    """A collection and its size."""

    name: str
    documents: int
    chunks: int
    lsn: int
    model: str
    embedder: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class FileState:
    """What was known of a file when it was last read: equal again, the file need not be read.

    Attributes:
        signature: Size, modification time and the like, as the reader wrote it.
        document_id: The document it became; None where reading failed with `error` and `hint`.
    """

    signature: str
    document_id: str | None
    error: str = ""
    hint: str = ""


class Transaction(Protocol):
    """Changes that become visible together or not at all. Use it within one task; leave it soon.

    Each scope changed in it gets one new LSN, taken as the last statement before the commit.
    """

    async def put(
        self, scope: Scope, documents: Sequence[DocumentWrite], *, model: str, embedder: Mapping[str, str]
    ) -> Sequence[PutOutcome]:
        """Stores document versions, each replacing what stood under its id; returns one outcome for each.

        Old chunk rows become tombstones; new ones get new row numbers, ascending in the order given.
        The first put into a scope fixes its `model` (fingerprint) and `embedder` (how to open it again:
        plain strings, shown to people).

        Raises:
            ModelMismatchError: The scope's vectors were made by another model.
            MissingVectorsError: A chunk's vector is neither stored nor part of this transaction; embed it (again)
                and put it along.
        """
        ...

    async def put_vectors(self, tenant: str, model: str, hashes: Sequence[bytes], vectors: Float16) -> None:
        """Stores `(n, dimension)` float16 vectors by the hash of the passage they embed. Known ones are kept."""
        ...

    async def delete(self, scope: Scope, ids: Sequence[str]) -> Sequence[str]:
        """Deletes documents; returns the ids that were there or on their way, each once, in the order given.

        Content is gone, tombstones have none. The files they came from are unknown again, so that they can be
        ingested anew. Files of jobs that were to become these documents, or failed to, are cancelled.
        """
        ...

    async def create_scope(self, scope: Scope, *, model: str, embedder: Mapping[str, str]) -> bool:
        """Makes an empty collection for vectors of this model (`put` does so by itself); False where there is one."""
        ...

    async def delete_scope(self, scope: Scope) -> bool:
        """Deletes a collection with everything in it; False where there was none, nor anything on its way into it.

        Its LSN goes on rising if it is made again, and its row numbers are not given again. There are no tombstones:
        `oldest_lsn` moves to the new LSN, and views rebuild to nothing. Files of jobs that were to come into it are cancelled.
        """
        ...

    async def put_files(self, scope: Scope, files: Mapping[str, FileState]) -> None:
        """Remembers the state of files by URI. Moves no LSN."""
        ...

    async def swap_model(
        self, scope: Scope, documents: Sequence[DocumentWrite], *, expected_lsn: int, model: str, embedder: Mapping[str, str]
    ) -> bool:
        """Replaces every document's chunks and the scope's model at one LSN; ids, text and metadata stay.

        `documents` holds all of the scope; of each, only id, chunks and passage hashes are used. Versions rise by one.
        False, and nothing done, where the scope is not at `expected_lsn` any more.

        Raises:
            NotFoundError: There is no such collection.
            MissingVectorsError: As for `put`.
        """
        ...

    async def unsettled(self, leases: Sequence[Lease]) -> frozenset[int]:
        """The numbers of the files that are still pending in the jobs whose leases hold."""
        ...

    async def settle(self, leases: Sequence[Lease], settlements: Sequence[Settlement]) -> None:
        """Writes what became of files of these jobs; a job with no file pending any more ends. Moves no LSN.

        Raises:
            ConflictError: One of the files is not pending any more, or the lease of its job was lost.
        """
        ...


class Store(Protocol):
    """The only truth. Safe to use from many tasks; every process opens its own.

    Every method that reads sees committed changes only, its own and other processes'. Methods that read may
    be called from a worker thread through `concurrency.drive` (they then finish without suspending) where
    `is_local` is true.

    Raises (all methods):
        BackendError: The store cannot be reached or written (disk full, read-only, locked for longer than
            the busy time-out).
        CorruptionError: The store's own files are damaged.
    """

    is_local: bool

    @property
    def jobs(self) -> Jobs:
        """What was accepted and is still to be done."""
        ...

    @property
    def incarnation(self) -> str:
        """Renewed when the store is restored, copied or failed over; part of every snapshot and cache key."""
        ...

    @property
    def keys(self) -> Keys:
        """The keys to a server on this store, and its audit. They move no log."""
        ...

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """Begins a transaction; leaving it commits durably, or rolls back on an exception.

        Transactions that wait at the same time may share one commit; each still stands or falls alone.
        """
        ...

    async def head(self, scope: Scope) -> Head:
        """Where the scope's log stands now. Microseconds where nothing was committed since the last call."""
        ...

    def changes(
        self, scope: Scope, after: int, upto: int, *, model: str = "", with_passages: bool = False, page_rows: int = 2048
    ) -> AsyncIterator[Changes]:
        """What turns a view at LSN `after` into one at LSN `upto`, in pages of at most `page_rows` rows.

        All removals come with the first page. Rows that died after `upto` may be missing: they are dead anyway.
        Rows are in ascending order over all pages. `vectors` are filled for the `model` named. At least one
        page is given.

        Raises:
            ConflictError: `after` is before `oldest_lsn`, and not 0.
        """
        ...

    async def fetch(self, scope: Scope, rows: Sequence[int]) -> Sequence[StoredChunk]:
        """The live chunks among `rows`, in the order asked, read in one transaction. Dead rows are left out."""
        ...

    async def documents(
        self,
        scope: Scope,
        *,
        ids: Sequence[str] | None = None,
        after_id: str = "",
        limit: int | None = None,
        source_prefix: str | None = None,
    ) -> Sequence[StoredDocument]:
        """Documents by id ascending, at most `limit` after `after_id`; only those in `ids` where it is given."""
        ...

    async def text(self, scope: Scope, document_id: str) -> tuple[str, Layout] | None:
        """The stored text and its layout, or None where there is no such document."""
        ...

    async def slices(self, scope: Scope, spans: Sequence[Span]) -> Sequence[str | None]:
        """What stands at each span, in the order asked; None where that version is not the current one (any more)."""
        ...

    async def chunks(self, scope: Scope, document_id: str) -> Sequence[StoredChunk]:
        """The chunks of a document in the order of its text; empty where there is no such document."""
        ...

    async def rows(self, scope: Scope, document_ids: Sequence[str]) -> Int64:
        """The live rows of these documents, ascending, `(n,)` int64."""
        ...

    async def vectors(self, tenant: str, model: str, hashes: Sequence[bytes]) -> Mapping[bytes, Float16]:
        """Those of the vectors that are stored, by hash: `(dimension,)` float16 each. The embedding cache."""
        ...

    async def vector_usage(self, tenant: str) -> Mapping[str, tuple[int, int]]:
        """How many vectors are stored and how many bytes they take, by model."""
        ...

    async def files(self, scope: Scope, uris: Sequence[str]) -> Mapping[str, FileState]:
        """What is known of these files, by URI; unknown ones are left out."""
        ...

    async def collections(self, tenant: str) -> Sequence[CollectionInfo]:
        """The tenant's collections by name."""
        ...

    async def heads(self) -> Mapping[Scope, Head]:
        """The head of every scope that was ever changed, of every tenant: for the indexer and `doctor`.

        Deleted collections are among them: their views must become empty.
        """
        ...

    async def files_under(self, scope: Scope, prefix: str) -> Mapping[str, FileState]:
        """What is known of the files whose URI begins with `prefix`, by URI."""
        ...

    async def prune(self, scope: Scope, before: int) -> None:
        """Forgets tombstones of LSNs up to `before`, which becomes `oldest_lsn`; views behind it rebuild. Also
        drops vectors that no chunk of the tenant uses.
        """
        ...

    def version(self) -> int:
        """A number that differs from the last one wherever any process has committed something since. Microseconds."""
        ...

    async def changed(self, timeout_s: float) -> bool:
        """For the follower alone: waits until any process has committed something since the last call; False after `timeout_s`."""
        ...

    async def check(self) -> Sequence[str]:
        """Verifies the store's own files; one sentence per fault, empty where it is sound."""
        ...

    async def close(self) -> None:
        """Waits for transactions under way and closes. Twice is harmless."""
        ...
