"""The tables, how they came to be, and how the store knows that it was copied.

A chunk's key is `scope_id << 40 | row`: chunks of a scope lie together, in row order, in a table whose rows of a kilobyte
or two need no overflow pages. Rows of one document version are consecutive, so documents and tombstones
name a range of rows and need no index on chunks.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path

import apsw

from ragline.errors import CorruptionError, SchemaTooNewError
from ragline.storage.sqlite.connections import immediate, snapshot
from ragline.storage.sqlite.file_identity import file_identity

ROW_BITS = 40
ROW_LIMIT = 1 << ROW_BITS

_APPLICATION_ID = 0x7261676C  # "ragl"; also written in the first migration

MIGRATIONS: tuple[str, ...] = (
    """
    PRAGMA application_id = 0x7261676C;

    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;

    -- Kept when a collection is deleted (live = 0): its LSN and rows go on where they were.
    -- version_floor: the highest version of any document deleted here, so that no (id, version) is given twice.
    CREATE TABLE scopes (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        tenant TEXT NOT NULL,
        collection TEXT NOT NULL,
        lsn INTEGER NOT NULL DEFAULT 0,
        oldest_lsn INTEGER NOT NULL DEFAULT 0,
        next_row INTEGER NOT NULL DEFAULT 1,
        version_floor INTEGER NOT NULL DEFAULT 0,
        live INTEGER NOT NULL DEFAULT 0,
        model TEXT NOT NULL DEFAULT '',
        embedder TEXT NOT NULL DEFAULT '{}',
        UNIQUE (tenant, collection)
    ) STRICT;

    CREATE TABLE documents (
        key INTEGER PRIMARY KEY,
        scope_id INTEGER NOT NULL,
        id TEXT NOT NULL,
        version INTEGER NOT NULL,
        lsn INTEGER NOT NULL,
        first_row INTEGER NOT NULL,
        chunk_count INTEGER NOT NULL,
        characters INTEGER NOT NULL,
        updated_at REAL NOT NULL,
        content_hash BLOB NOT NULL,
        media_type TEXT NOT NULL,
        source TEXT,
        metadata TEXT NOT NULL,
        UNIQUE (scope_id, id)
    ) STRICT;

    CREATE TABLE texts (document INTEGER PRIMARY KEY, layout TEXT NOT NULL, text BLOB NOT NULL) STRICT;

    CREATE TABLE chunks (
        id INTEGER PRIMARY KEY,
        document INTEGER NOT NULL,
        vector INTEGER NOT NULL,
        lsn INTEGER NOT NULL,
        ordinal INTEGER NOT NULL,
        span_start INTEGER NOT NULL,
        span_end INTEGER NOT NULL,
        page INTEGER,
        heading TEXT NOT NULL,
        text TEXT NOT NULL
    ) STRICT;
    CREATE INDEX chunks_by_vector ON chunks (vector);

    CREATE TABLE tombstones (
        scope_id INTEGER NOT NULL,
        lsn INTEGER NOT NULL,
        first_row INTEGER NOT NULL,
        row_count INTEGER NOT NULL,
        PRIMARY KEY (scope_id, lsn, first_row)
    ) STRICT, WITHOUT ROWID;

    -- A space is one tenant's vectors of one model.
    CREATE TABLE spaces (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        tenant TEXT NOT NULL,
        model TEXT NOT NULL,
        dimension INTEGER NOT NULL,
        UNIQUE (tenant, model)
    ) STRICT;

    -- With a key of its own, a vector is appended; only the small index on the hash is written at random.
    CREATE TABLE vectors (
        id INTEGER PRIMARY KEY,
        space_id INTEGER NOT NULL,
        hash BLOB NOT NULL,
        vector BLOB NOT NULL,
        UNIQUE (space_id, hash)
    ) STRICT;

    -- Vectors that may be without a chunk: new ones, and those that a chunk has left. Pruning looks only here.
    CREATE TABLE unchecked_vectors (
        space_id INTEGER NOT NULL,
        vector INTEGER NOT NULL,
        PRIMARY KEY (space_id, vector)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE files (
        scope_id INTEGER NOT NULL,
        uri TEXT NOT NULL,
        signature TEXT NOT NULL,
        document_id TEXT,
        error TEXT NOT NULL,
        hint TEXT NOT NULL,
        PRIMARY KEY (scope_id, uri)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX files_by_document ON files (scope_id, document_id);
    """,
    """
    -- number: the order of acceptance. owner, attempt and lease_until make the lease of a running job.
    CREATE TABLE jobs (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        tenant TEXT NOT NULL,
        collection TEXT NOT NULL,
        state TEXT NOT NULL DEFAULT 'queued',
        attempt INTEGER NOT NULL DEFAULT 0,
        not_before REAL NOT NULL DEFAULT 0,
        owner TEXT NOT NULL DEFAULT '',
        lease_until REAL NOT NULL DEFAULT 0,
        accepted_at REAL NOT NULL,
        started_at REAL,
        ended_at REAL,
        size_bytes INTEGER NOT NULL,
        file_count INTEGER NOT NULL,
        error TEXT NOT NULL DEFAULT '',
        hint TEXT NOT NULL DEFAULT '',
        idempotency_key TEXT,
        request_hash BLOB NOT NULL
    ) STRICT;
    CREATE INDEX jobs_open ON jobs (number, size_bytes) WHERE ended_at IS NULL;
    CREATE INDEX jobs_ended ON jobs (ended_at) WHERE ended_at IS NOT NULL;
    CREATE INDEX jobs_by_tenant ON jobs (tenant, number);
    CREATE UNIQUE INDEX jobs_by_key ON jobs (tenant, idempotency_key) WHERE idempotency_key IS NOT NULL;

    -- path: the file in the folder of uploads that holds what is too long for job_bodies.
    CREATE TABLE job_files (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        job INTEGER NOT NULL,
        document_id TEXT NOT NULL,
        name TEXT NOT NULL,
        kind TEXT NOT NULL,
        size_bytes INTEGER NOT NULL,
        source TEXT,
        metadata TEXT NOT NULL,
        path TEXT,
        outcome TEXT NOT NULL DEFAULT 'pending',
        error TEXT NOT NULL DEFAULT '',
        hint TEXT NOT NULL DEFAULT ''
    ) STRICT;
    CREATE INDEX job_files_by_job ON job_files (job);
    CREATE INDEX job_files_by_document ON job_files (document_id, job);
    CREATE INDEX job_files_pending ON job_files (document_id, job) WHERE outcome = 'pending';
    CREATE INDEX job_files_by_path ON job_files (path) WHERE path IS NOT NULL;

    CREATE TABLE job_bodies (file INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT;

    -- Files in the folder of uploads that no job needs any more and that may still be there.
    CREATE TABLE discarded_uploads (path TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
    """,
    """
    CREATE TABLE keys (
        id TEXT PRIMARY KEY,
        tenant TEXT NOT NULL,
        name TEXT NOT NULL,
        scopes TEXT NOT NULL,
        secret_hash BLOB NOT NULL,
        created_at REAL NOT NULL,
        last_used_at REAL,
        revoked_at REAL,
        rate_per_s REAL,
        burst INTEGER
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE audit (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        at REAL NOT NULL,
        tenant TEXT NOT NULL,
        actor TEXT NOT NULL,
        act TEXT NOT NULL,
        target TEXT NOT NULL,
        details TEXT NOT NULL
    ) STRICT;
    CREATE INDEX audit_by_tenant ON audit (tenant, id);
    """,
    """
    -- Both are asked for every second, among all that was ever done.
    CREATE INDEX jobs_failed ON jobs (number) WHERE state = 'failed';
    CREATE INDEX audit_by_act ON audit (act, id);
    """,
)


def migrate(connection: apsw.Connection, file: Path, migrations: Sequence[str] = MIGRATIONS) -> None:
    """Brings the file to the newest schema. Each migration and the record of it are one transaction.

    Raises:
        SchemaTooNewError: A newer ragline has written the file.
        CorruptionError: The file is the database of another program.
    """
    _check_owner(connection, file)
    while (number := schema_version(connection)) < len(migrations):
        with immediate(connection):
            if schema_version(connection) == number:  # else another process was quicker
                connection.execute("CREATE TABLE IF NOT EXISTS migrations (number INTEGER PRIMARY KEY, applied_at TEXT NOT NULL) STRICT")
                connection.execute(migrations[number])
                connection.execute("INSERT INTO migrations VALUES (?, datetime('now'))", (number + 1,))
    if number > len(migrations):
        raise SchemaTooNewError(
            f"{file} has schema {number}; this ragline knows schemas up to {len(migrations)}",
            hint="upgrade ragline (pip install --upgrade ragline), or open a store of your own with --data-dir",
        )


def schema_version(connection: apsw.Connection) -> int:
    """The number of the last migration applied; 0 for a new file."""
    if not connection.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'migrations'").get:
        return 0
    return int(connection.execute("SELECT coalesce(max(number), 0) FROM migrations").get)


def _check_owner(connection: apsw.Connection, file: Path) -> None:
    with snapshot(connection):  # another process may be writing the first migration
        owner = connection.execute("PRAGMA application_id").get
        tables = connection.execute("SELECT count(*) FROM sqlite_schema").get
    if tables and owner != _APPLICATION_ID:
        raise CorruptionError(f"{file} is not a ragline store", hint="name another folder with --data-dir, or move that file away")


def renew_incarnation(connection: apsw.Connection, file: Path) -> str:
    """The store's incarnation id: a new one where the file is not the one that the last id was written into.

    A copied or restored file has another inode, or was made at another time (see `file_identity`). Not noticed: a
    backup written over the file in place; restore by deleting the old file first. A file moved within its file
    system keeps its incarnation; a device that gets another number at mounting costs a rebuild of the views.
    """
    identity = file_identity(file)
    incarnation = _incarnation(connection, identity)
    if incarnation:
        return incarnation
    with immediate(connection):
        incarnation = _incarnation(connection, identity)  # another process may have been quicker
        if not incarnation:
            incarnation = secrets.token_hex(16)
            connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", (("incarnation", incarnation), ("file", identity)))
    return incarnation


def _incarnation(connection: apsw.Connection, identity: str) -> str:
    """The id written into this very file, or ""."""
    row = connection.execute(
        "SELECT a.value FROM meta AS a JOIN meta AS b WHERE a.key = 'incarnation' AND b.key = 'file' AND b.value = ?", (identity,)
    ).fetchone()
    return str(row[0]) if row else ""
