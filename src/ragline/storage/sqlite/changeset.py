"""What one transaction changes, on the writer's connection and on its thread.

Everything that can be refused is refused before anything is written that can be seen, so that a transaction goes on
after an `InputError`, `ConflictError` or `NotFoundError` as if the call had not been made.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, overload

import apsw

from ragline.errors import InputError, MissingVectorsError, ModelMismatchError, NotFoundError
from ragline.storage.base import DocumentWrite, FileState, PutOutcome
from ragline.storage.encoding import (
    check_chunks,
    check_document,
    check_spans,
    check_text,
    compress,
    embedder_to_json,
    layout_to_json,
    metadata_to_json,
    storable,
    vector_blobs,
)
from ragline.storage.jobs import Lease, Settlement
from ragline.storage.sqlite import job_rows
from ragline.storage.sqlite.connections import query
from ragline.storage.sqlite.schema import ROW_BITS
from ragline.types import Float16, Scope


@dataclass(slots=True)
class _ScopeState:
    """A scope's row as this transaction will leave it. `lsn` is the one it takes if it changes anything."""

    id: int
    lsn: int
    oldest_lsn: int
    next_row: int
    version_floor: int
    live: int
    model: str
    embedder: str
    changed: bool = False

    @property
    def base(self) -> int:
        """What turns a row number into a chunk's key."""
        return self.id << ROW_BITS


@dataclass(frozen=True, slots=True)
class _Stored:
    """What stands under a document's id. `key` is 0 for one that this very call adds."""

    id: str
    key: int
    version: int
    content_hash: bytes
    first_row: int = 0
    chunk_count: int = 0


@dataclass(frozen=True, slots=True)
class _Version:
    """A document version to be written."""

    document: DocumentWrite
    key: int
    version: int
    first_row: int
    metadata: str


class Changeset:
    """The changes of one transaction."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._states: dict[Scope, _ScopeState] = {}

    def put(self, scope: Scope, documents: Sequence[DocumentWrite], model: str, embedder: Mapping[str, str]) -> list[PutOutcome]:
        """See `Transaction.put`. Of several versions of one document the last is written; each has its outcome."""
        if not documents:
            return []
        if not model:
            raise InputError("documents need the fingerprint of the model of their vectors", hint="pass the embedder's fingerprint")
        for document in documents:
            check_document(document)
            check_spans(document)
        metadata = {id(document): metadata_to_json(document.id, document.metadata) for document in documents}
        state = self._state(scope)
        if state.model not in ("", model):
            raise ModelMismatchError(
                f"the collection {scope.collection!r} was embedded with {state.model}, not with {model}",
                hint="try again with the collection's model, or switch with `ragline reindex --model NAME`",
            )
        stored = self._stored(state, [document.id for document in documents])
        outcomes, versions = _plan(documents, stored, state.version_floor)
        vector_ids = self._vector_ids(scope, model, [document for document, _ in versions])
        if versions:
            if not state.model:
                state.model, state.embedder = model, embedder_to_json(embedder)
            self._remove_chunks(scope, state, [stored[document.id] for document, _ in versions if document.id in stored])
            self._write(state, list(self._numbered(state, versions, stored, metadata)), vector_ids)
        return outcomes

    def put_vectors(self, tenant: str, model: str, hashes: Sequence[bytes], vectors: Float16) -> None:
        """See `Transaction.put_vectors`."""
        blobs = vector_blobs(hashes, vectors)
        if not blobs:
            return
        dimension = vectors.shape[1]
        space = self._connection.execute("SELECT id, dimension FROM spaces WHERE tenant = ? AND model = ?", (tenant, model)).fetchone()
        if space and space[1] != dimension:
            raise InputError(f"vectors of {model} have {space[1]} dimensions, not {dimension}", hint="give each model its own fingerprint")
        space_id = (
            space[0]
            if space
            else self._connection.execute(
                "INSERT INTO spaces (tenant, model, dimension) VALUES (?, ?, ?) RETURNING id", (tenant, model, dimension)
            ).get
        )
        last_id = self._connection.execute("SELECT coalesce(max(id), 0) FROM vectors").get
        self._connection.executemany(
            "INSERT INTO vectors (space_id, hash, vector) VALUES (?, ?, ?) ON CONFLICT (space_id, hash) DO NOTHING",
            ((space_id, key, blob) for key, blob in blobs),
        )
        self._connection.execute("INSERT INTO unchecked_vectors SELECT space_id, id FROM vectors WHERE id > ?", (last_id,))

    def delete(self, scope: Scope, ids: Sequence[str]) -> list[str]:
        """See `Transaction.delete`."""
        on_their_way = job_rows.cancel_deleted(self._connection, scope, ids, time.time())
        state = self._state(scope, create=False)
        stored = self._stored(state, ids) if state else {}
        if state and stored:
            self._remove_chunks(scope, state, stored.values())
            keys = [(document.key,) for document in stored.values()]
            self._connection.executemany("DELETE FROM texts WHERE document = ?", keys)
            self._connection.executemany("DELETE FROM documents WHERE key = ?", keys)
            self._connection.executemany("DELETE FROM files WHERE scope_id = ? AND document_id = ?", ((state.id, key) for key in stored))
            state.version_floor = max(state.version_floor, *(document.version for document in stored.values()))
            state.changed = True
        return [key for key in dict.fromkeys(ids) if key in stored or key in on_their_way]

    def create_scope(self, scope: Scope, model: str, embedder: Mapping[str, str]) -> bool:
        """See `Transaction.create_scope`."""
        state = self._state(scope)
        if state.live:
            return False
        state.model, state.embedder, state.live, state.changed = model, embedder_to_json(embedder), 1, True
        return True

    def delete_scope(self, scope: Scope) -> bool:
        """See `Transaction.delete_scope`. Views rebuild, which is cheaper than a tombstone for each row."""
        on_their_way = job_rows.cancel_deleted(self._connection, scope, None, time.time())
        state = self._state(scope, create=False)
        if state:
            self._connection.execute("DELETE FROM files WHERE scope_id = ?", (state.id,))
        if not state or not state.live:
            return bool(on_their_way)
        highest = self._connection.execute("SELECT coalesce(max(version), 0) FROM documents WHERE scope_id = ?", (state.id,)).get
        self._uncheck(scope, state, [(state.base, state.base + state.next_row)])
        self._connection.execute("DELETE FROM chunks WHERE id >= ? AND id < ?", (state.base, state.base + state.next_row))
        self._connection.execute("DELETE FROM texts WHERE document IN (SELECT key FROM documents WHERE scope_id = ?)", (state.id,))
        self._connection.execute("DELETE FROM documents WHERE scope_id = ?", (state.id,))
        self._connection.execute("DELETE FROM tombstones WHERE scope_id = ?", (state.id,))
        state.oldest_lsn = state.lsn
        state.version_floor = max(state.version_floor, highest)
        state.model, state.embedder, state.live, state.changed = "", "{}", 0, True
        return True

    def put_files(self, scope: Scope, files: Mapping[str, FileState]) -> None:
        """See `Transaction.put_files`."""
        for uri, file in files.items():
            for value in (uri, file.signature, file.document_id or "", file.error, file.hint):
                check_text(value, f"what is known of the file {uri!r}")
        state = self._state(scope)
        self._connection.executemany(
            "INSERT OR REPLACE INTO files (scope_id, uri, signature, document_id, error, hint) VALUES (?, ?, ?, ?, ?, ?)",
            ((state.id, uri, file.signature, file.document_id, file.error, file.hint) for uri, file in files.items()),
        )

    def swap_model(
        self, scope: Scope, documents: Sequence[DocumentWrite], expected_lsn: int, model: str, embedder: Mapping[str, str]
    ) -> bool:
        """See `Transaction.swap_model`."""
        for document in documents:
            check_chunks(document)
        state = self._state(scope, create=False)
        if not state or not state.live:
            raise NotFoundError(f"there is no collection {scope.collection!r}", hint="ingest documents into it first")
        if state.lsn - 1 != expected_lsn or state.changed:
            return False
        ids = [row[0] for row in self._connection.execute("SELECT id FROM documents WHERE scope_id = ?", (state.id,))]
        if sorted(ids) != sorted(document.id for document in documents):
            raise InputError(
                f"a change of model needs every document of {scope.collection!r} once: it has {len(ids)}, {len(documents)} were given",
                hint="read the collection's documents at the LSN that is passed as expected_lsn",
            )
        vector_ids = self._vector_ids(scope, model, documents)
        stored = self._stored(state, ids)
        self._remove_chunks(scope, state, stored.values())
        versions = [(document, stored[document.id].version + 1) for document in documents]
        numbered = list(self._numbered(state, versions, stored, {}))
        self._connection.executemany(
            "UPDATE documents SET version = ?, lsn = ?, first_row = ?, chunk_count = ? WHERE key = ?",
            ((new.version, state.lsn, new.first_row, len(new.document.chunks), new.key) for new in numbered),
        )
        self._write_chunks(state, numbered, vector_ids)
        state.model, state.embedder = model, embedder_to_json(embedder)
        return True

    def unsettled(self, leases: Sequence[Lease]) -> frozenset[int]:
        """See `Transaction.unsettled`."""
        return job_rows.unsettled(self._connection, leases)

    def settle(self, leases: Sequence[Lease], settlements: Sequence[Settlement]) -> None:
        """See `Transaction.settle`."""
        job_rows.settle(self._connection, leases, settlements, time.time())

    def finish(self) -> None:
        """Takes the new LSN of each scope that was changed: the last statement before the transaction counts."""
        self._connection.executemany(
            """
            UPDATE scopes SET lsn = ?, oldest_lsn = ?, next_row = ?, version_floor = ?, live = ?, model = ?, embedder = ?
            WHERE id = ?
            """,
            (
                (state.lsn, state.oldest_lsn, state.next_row, state.version_floor, state.live, state.model, state.embedder, state.id)
                for state in self._states.values()
                if state.changed
            ),
        )

    @overload
    def _state(self, scope: Scope, *, create: Literal[True] = True) -> _ScopeState: ...
    @overload
    def _state(self, scope: Scope, *, create: Literal[False]) -> _ScopeState | None: ...
    def _state(self, scope: Scope, *, create: bool = True) -> _ScopeState | None:
        if scope not in self._states:
            sql = """
                SELECT id, lsn + 1, oldest_lsn, next_row, version_floor, live, model, embedder
                FROM scopes WHERE tenant = ? AND collection = ?
                """
            names = (scope.tenant, scope.collection)
            found = query(self._connection, sql, names)
            if not found and not create:
                return None
            if not found:
                self._connection.execute("INSERT INTO scopes (tenant, collection) VALUES (?, ?)", names)
                found = query(self._connection, sql, names)
            self._states[scope] = _ScopeState(*found[0])
        return self._states[scope]

    def _stored(self, state: _ScopeState, ids: Sequence[str]) -> dict[str, _Stored]:
        if not (asked := storable(ids)):
            return {}
        found = query(
            self._connection,
            """
            SELECT id, key, version, content_hash, first_row, chunk_count
            FROM carray(:ids) AS asked CROSS JOIN documents ON scope_id = :scope_id AND id = asked.value
            """,
            {"ids": apsw.carray(asked), "scope_id": state.id},
        )
        return {row[0]: _Stored(*row) for row in found}

    def _vector_ids(self, scope: Scope, model: str, documents: Iterable[DocumentWrite]) -> dict[bytes, int]:
        """The keys of the vectors of these documents' chunks, by passage hash."""
        wanted = {key: document for document in documents for key in document.passage_hashes}
        if not wanted:
            return {}
        found: dict[bytes, int] = dict(
            query(
                self._connection,
                """
                SELECT v.hash, v.id
                FROM spaces AS s
                CROSS JOIN carray(:hashes) AS asked
                CROSS JOIN vectors AS v ON v.space_id = s.id AND v.hash = asked.value
                WHERE s.tenant = :tenant AND s.model = :model
                """,
                {"hashes": apsw.carray(tuple(wanted)), "tenant": scope.tenant, "model": model},
            )
        )
        if missing := [document.id for key, document in wanted.items() if key not in found]:
            raise MissingVectorsError(
                f"{len(missing)} chunks have no vector of {model}, one of them in document {missing[0]!r}",
                hint="vectors that no chunk used may have been pruned meanwhile: embed these passages and put their vectors first",
            )
        return found

    def _remove_chunks(self, scope: Scope, state: _ScopeState, stored: Iterable[_Stored]) -> None:
        """Leaves tombstones, without content, for the rows of these documents."""
        ranges = [(document.first_row, document.chunk_count) for document in stored if document.chunk_count]
        keys = [(state.base + first, state.base + first + count) for first, count in ranges]
        self._connection.executemany(
            "INSERT INTO tombstones (scope_id, lsn, first_row, row_count) VALUES (?, ?, ?, ?)",
            ((state.id, state.lsn, first, count) for first, count in ranges),
        )
        self._uncheck(scope, state, keys)
        self._connection.executemany("DELETE FROM chunks WHERE id >= ? AND id < ?", keys)

    def _uncheck(self, scope: Scope, state: _ScopeState, keys: Sequence[tuple[int, int]]) -> None:
        """Marks the vectors of chunks that are about to go: they may be without a chunk then."""
        space_id = self._connection.execute("SELECT id FROM spaces WHERE tenant = ? AND model = ?", (scope.tenant, state.model)).get
        self._connection.executemany(
            "INSERT OR IGNORE INTO unchecked_vectors SELECT ?, vector FROM chunks WHERE id >= ? AND id < ?",
            ((space_id, first, end) for first, end in keys),
        )

    def _numbered(
        self, state: _ScopeState, versions: Iterable[tuple[DocumentWrite, int]], stored: Mapping[str, _Stored], metadata: Mapping[int, str]
    ) -> Iterator[_Version]:
        """Gives each version its document's key and its rows, in order."""
        next_key = self._connection.execute("SELECT coalesce(max(key), 0) + 1 FROM documents").get
        for document, version in versions:
            known = stored.get(document.id)
            yield _Version(document, known.key if known else next_key, version, state.next_row, metadata.get(id(document), ""))
            next_key += known is None
            state.next_row += len(document.chunks)

    def _write(self, state: _ScopeState, versions: Sequence[_Version], vector_ids: Mapping[bytes, int]) -> None:
        now = time.time()
        self._connection.executemany(
            """
            INSERT OR REPLACE INTO documents (
                key, scope_id, id, version, lsn, first_row, chunk_count,
                characters, updated_at, content_hash, media_type, source, metadata
            ) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
            """,
            (
                (
                    new.key,
                    state.id,
                    new.document.id,
                    new.version,
                    state.lsn,
                    new.first_row,
                    len(new.document.chunks),
                    len(new.document.text),
                    now,
                    new.document.content_hash,
                    new.document.media_type,
                    new.document.source,
                    new.metadata,
                )
                for new in versions
            ),
        )
        self._connection.executemany(
            "INSERT OR REPLACE INTO texts (document, layout, text) VALUES (?, ?, ?)",
            ((new.key, layout_to_json(new.document.layout), compress(new.document.text)) for new in versions),
        )
        self._write_chunks(state, versions, vector_ids)

    def _write_chunks(self, state: _ScopeState, versions: Iterable[_Version], vector_ids: Mapping[bytes, int]) -> None:
        self._connection.executemany(
            """
            INSERT INTO chunks (id, document, vector, lsn, ordinal, span_start, span_end, page, heading, text)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
            """,
            (
                (
                    state.base + new.first_row + ordinal,
                    new.key,
                    vector_ids[passage_hash],
                    state.lsn,
                    ordinal,
                    chunk.start,
                    chunk.end,
                    chunk.page,
                    chunk.heading,
                    chunk.text,
                )
                for new in versions
                for ordinal, (chunk, passage_hash) in enumerate(zip(new.document.chunks, new.document.passage_hashes, strict=True))
            ),
        )
        state.live, state.changed = 1, True


def _plan(
    documents: Sequence[DocumentWrite], stored: Mapping[str, _Stored], version_floor: int
) -> tuple[list[PutOutcome], list[tuple[DocumentWrite, int]]]:
    """What becomes of each document, and the versions to be written, in order."""
    current = dict(stored)
    outcomes: list[PutOutcome] = []
    versions: dict[str, tuple[DocumentWrite, int]] = {}
    for document in documents:
        known = current.get(document.id)
        if known and known.content_hash == document.content_hash:
            outcomes.append("unchanged")
            continue
        outcomes.append("replaced" if known else "added")
        version = known.version + 1 if known else version_floor + 1
        current[document.id] = _Stored(document.id, 0, version, document.content_hash)
        versions.pop(document.id, None)
        versions[document.id] = (document, version)
    return outcomes, list(versions.values())
