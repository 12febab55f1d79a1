"""Every question that is asked of the file. Each function runs on a connection that is lent to it.

Functions that ask more than once do so within one snapshot.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import apsw
import numpy as np

from ragline.errors import ConflictError
from ragline.storage.base import Changes, CollectionInfo, FileState, Head, Span, StoredChunk, StoredDocument
from ragline.storage.encoding import decompress, decompress_slices, layout_from_json, storable, text_fault
from ragline.storage.sqlite.connections import query, snapshot
from ragline.storage.sqlite.schema import ROW_BITS, ROW_LIMIT
from ragline.types import Float16, Int64, Layout, Metadata, Scope

_NEVER = 1 << 62
_NO_ROWS: Int64 = np.empty(0, np.int64)
_NO_VECTORS: Float16 = np.empty((0, 0), np.float16)


def head(connection: apsw.Connection, scope: Scope) -> Head:
    """Where the scope's log stands."""
    found = query(
        connection,
        "SELECT lsn, oldest_lsn, model, embedder, id FROM scopes WHERE tenant = ? AND collection = ?",
        (scope.tenant, scope.collection),
    )
    return _head(*found[0]) if found else Head()


def heads(connection: apsw.Connection) -> dict[Scope, Head]:
    """The head of every scope that was ever written; deleted ones too, so that their views become empty."""
    found = query(
        connection,
        "SELECT tenant, collection, lsn, oldest_lsn, model, embedder, id FROM scopes WHERE lsn > 0 ORDER BY tenant, collection",
    )
    return {Scope(tenant, collection): _head(*row) for tenant, collection, *row in found}


def _head(lsn: int, oldest_lsn: int, model: str, embedder: str, scope_id: int) -> Head:
    return Head(lsn, oldest_lsn, model, json.loads(embedder), scope_id)


def fetch(connection: apsw.Connection, scope_id: int, rows: Sequence[int]) -> list[StoredChunk]:
    """The live chunks among `rows`, in the order asked."""
    asked = [row for row in map(int, rows) if 0 < row < ROW_LIMIT]
    if not asked:
        return []
    found = _stored_chunks(
        query(
            connection,
            """
            SELECT c.id - :base, d.id, d.version, c.ordinal, c.span_start, c.span_end, c.heading, c.page, c.text, d.source, d.metadata
            FROM carray(:rows) AS asked
            CROSS JOIN chunks AS c ON c.id = asked.value + :base
            CROSS JOIN documents AS d ON d.key = c.document
            """,
            {"base": scope_id << ROW_BITS, "rows": apsw.carray(np.array(asked, np.int64))},
        )
    )
    by_row = {chunk.row: chunk for chunk in found}
    return [by_row[row] for row in asked if row in by_row]


def chunks(connection: apsw.Connection, scope_id: int, document_id: str) -> list[StoredChunk]:
    """The chunks of a document in the order of its text."""
    return _stored_chunks(
        query(
            connection,
            """
            SELECT c.id - :base, d.id, d.version, c.ordinal, c.span_start, c.span_end, c.heading, c.page, c.text, d.source, d.metadata
            FROM documents AS d
            CROSS JOIN chunks AS c ON c.id >= :base + d.first_row AND c.id < :base + d.first_row + d.chunk_count
            WHERE d.scope_id = :scope_id AND d.id = :id
            ORDER BY c.id
            """,
            {"base": scope_id << ROW_BITS, "scope_id": scope_id, "id": document_id},
        )
    )


def _stored_chunks(found: Iterable[tuple[Any, ...]]) -> list[StoredChunk]:
    return [StoredChunk(*(*row, json.loads(metadata))) for *row, metadata in found]


@dataclass(frozen=True, slots=True)
class Feed:
    """The difference between two LSNs: what is gone, and the range of row numbers that came to be."""

    removed: Int64
    first_row: int
    end_row: int


def feed(connection: apsw.Connection, scope: Scope, scope_id: int, after: int, upto: int) -> Feed:
    """What changed after LSN `after` up to LSN `upto`.

    Raises:
        ConflictError: `after` is before `oldest_lsn`, and not 0.
    """
    with snapshot(connection):
        found = query(connection, "SELECT oldest_lsn, next_row FROM scopes WHERE id = ?", (scope_id,))
        oldest_lsn, next_row = found[0] if found else (0, 0)
        if 0 < after < oldest_lsn:
            raise ConflictError(
                f"the changes of {scope.tenant}/{scope.collection} after LSN {after} are gone; the oldest kept are after {oldest_lsn}",
                hint="rebuild the view from LSN 0",
            )

        def lsn_at(row: int) -> int:
            """The LSN of the first live row from `row` on. Row order is LSN order, so it never falls."""
            lsn = connection.execute(
                "SELECT lsn FROM chunks WHERE id >= ? AND id < ? ORDER BY id LIMIT 1",
                ((scope_id << ROW_BITS) + row, (scope_id + 1) << ROW_BITS),
            ).get
            return _NEVER if lsn is None else int(lsn)

        every_row = range(next_row)
        return Feed(
            removed=_removed(connection, scope_id, after, upto) if after else _NO_ROWS,
            first_row=bisect_right(every_row, after, key=lsn_at),
            end_row=bisect_right(every_row, upto, key=lsn_at),
        )


def _removed(connection: apsw.Connection, scope_id: int, after: int, upto: int) -> Int64:
    # Rows that were born after `after` stay in: a view that failed half way through a feed may hold some of them.
    sql = "SELECT first_row, row_count FROM tombstones WHERE scope_id = ? AND lsn > ? AND lsn <= ?"
    return _expand(query(connection, sql, (scope_id, after, upto)))


def _expand(ranges: Sequence[tuple[int, int]]) -> Int64:
    """The row numbers in `(first, count)` ranges, ascending."""
    if not ranges:
        return _NO_ROWS
    return np.sort(np.concatenate([np.arange(first, first + count, dtype=np.int64) for first, count in ranges]))


def page(
    connection: apsw.Connection, scope: Scope, scope_id: int, first_row: int, end_row: int, model: str, with_passages: bool, limit: int
) -> Changes:
    """The live rows from `first_row` on and below `end_row`, at most `limit`, without removals.

    Raises:
        ConflictError: A row has no vector of `model`.
    """
    with snapshot(connection):
        space_id, dimension = _space(connection, scope.tenant, model) if model else (None, 0)
        found = query(
            connection,
            """
            SELECT
                c.id - :base,
                d.id,
                d.metadata,
                CASE WHEN :with_passages THEN iif(c.heading = '', c.text, c.heading || char(10) || c.text) END,
                CASE WHEN :space_id IS NOT NULL THEN coalesce(
                    (SELECT v.vector FROM vectors AS v WHERE v.id = c.vector AND v.space_id = :space_id),
                    (
                        SELECT w.vector FROM vectors AS v JOIN vectors AS w ON w.space_id = :space_id AND w.hash = v.hash
                        WHERE v.id = c.vector
                    )
                ) END
            FROM chunks AS c CROSS JOIN documents AS d ON d.key = c.document
            WHERE c.id >= :base + :first_row AND c.id < :base + :end_row
            ORDER BY c.id
            LIMIT :limit
            """,
            {
                "base": scope_id << ROW_BITS,
                "first_row": first_row,
                "end_row": end_row,
                "with_passages": with_passages,
                "space_id": space_id,
                "limit": limit,
            },
        )
    rows, document_ids, metadata, passages, blobs = zip(*found, strict=True) if found else ((), (), (), (), ())
    if model and None in blobs:
        raise ConflictError(
            f"chunks of {scope.tenant}/{scope.collection} have no vectors of the model {model}",
            hint="ask for the model that the collection's head names, or reindex the collection with this one",
        )
    return Changes(
        removed=_NO_ROWS,
        rows=np.array(rows, np.int64),
        document_ids=document_ids,
        metadata=_parsed(metadata),
        passages=passages if with_passages else (),
        vectors=np.frombuffer(b"".join(blobs), "<f2").reshape(len(blobs), dimension) if model else _NO_VECTORS,
    )


def _parsed(metadata: Iterable[str]) -> list[Metadata]:
    """The metadata of neighbouring chunks is mostly that of one document: each distinct one is parsed once."""
    known: dict[str, Metadata] = {}
    return [known[text] if text in known else known.setdefault(text, json.loads(text)) for text in metadata]


def _space(connection: apsw.Connection, tenant: str, model: str) -> tuple[int, int]:
    """Number and dimension of the tenant's vectors of a model; `(0, 0)` where there are none."""
    found = connection.execute("SELECT id, dimension FROM spaces WHERE tenant = ? AND model = ?", (tenant, model)).fetchone()
    return found or (0, 0)


def documents(
    connection: apsw.Connection, scope_id: int, ids: Sequence[str] | None, after_id: str, limit: int | None, source_prefix: str | None
) -> list[StoredDocument]:
    """Documents by id ascending (code point order)."""
    bindings = {
        "scope_id": scope_id,
        "after_id": after_id,
        "prefix": source_prefix,
        "limit": -1 if limit is None else limit,
    }
    if ids is None:
        found = query(
            connection,
            """
            SELECT id, version, source, metadata, content_hash, media_type, characters, chunk_count, lsn, updated_at
            FROM documents
            WHERE scope_id = :scope_id AND id > :after_id AND (:prefix IS NULL OR substr(source, 1, length(:prefix)) = :prefix)
            ORDER BY id
            LIMIT :limit
            """,
            bindings,
        )
    elif asked := storable(ids):
        found = query(
            connection,
            """
            SELECT id, version, source, metadata, content_hash, media_type, characters, chunk_count, lsn, updated_at
            FROM carray(:ids) AS asked CROSS JOIN documents ON scope_id = :scope_id AND id = asked.value
            WHERE id > :after_id AND (:prefix IS NULL OR substr(source, 1, length(:prefix)) = :prefix)
            ORDER BY id
            LIMIT :limit
            """,
            {**bindings, "ids": apsw.carray(asked)},
        )
    else:
        return []
    return [StoredDocument(id, version, source, json.loads(metadata), *row) for id, version, source, metadata, *row in found]


def text(connection: apsw.Connection, scope_id: int, document_id: str) -> tuple[str, Layout] | None:
    """The stored text and its layout."""
    found = connection.execute(
        "SELECT t.text, t.layout FROM documents AS d JOIN texts AS t ON t.document = d.key WHERE d.scope_id = ? AND d.id = ?",
        (scope_id, document_id),
    ).fetchone()
    return (decompress(document_id, found[0]), layout_from_json(found[1])) if found else None


def slices(connection: apsw.Connection, scope_id: int, spans: Sequence[Span]) -> list[str | None]:
    """What stands at each span; None where the version is not the current one. One text is held at a time."""
    wanted = defaultdict[tuple[str, int], list[int]](list)
    for place, span in enumerate(spans):
        if not text_fault(span.document_id):
            wanted[span.document_id, span.document_version].append(place)
    found: list[str | None] = [None] * len(spans)
    for (document_id, version), places in wanted.items():
        blob = connection.execute(
            "SELECT t.text FROM documents AS d JOIN texts AS t ON t.document = d.key WHERE d.scope_id = ? AND d.id = ? AND d.version = ?",
            (scope_id, document_id, version),
        ).get
        if blob is not None:
            cut = decompress_slices(document_id, blob, [(spans[place].start, spans[place].end) for place in places])
            for place, text in zip(places, cut, strict=True):
                found[place] = text
    return found


def rows(connection: apsw.Connection, scope_id: int, document_ids: Sequence[str]) -> Int64:
    """The live rows of these documents, ascending."""
    if not (asked := storable(document_ids)):
        return _NO_ROWS
    ranges = query(
        connection,
        """
        SELECT first_row, chunk_count
        FROM carray(:ids) AS asked CROSS JOIN documents ON scope_id = :scope_id AND id = asked.value
        """,
        {"ids": apsw.carray(asked), "scope_id": scope_id},
    )
    return _expand(ranges)


def vector_usage(connection: apsw.Connection, tenant: str) -> dict[str, tuple[int, int]]:
    """How many vectors are stored and how many bytes they take, by model."""
    found = query(
        connection,
        """
        SELECT s.model, count(v.id), 2 * s.dimension * count(v.id)
        FROM spaces AS s LEFT JOIN vectors AS v ON v.space_id = s.id
        WHERE s.tenant = ? GROUP BY s.id ORDER BY s.model
        """,
        (tenant,),
    )
    return {model: (count, size) for model, count, size in found}


def vectors(connection: apsw.Connection, tenant: str, model: str, hashes: Sequence[bytes]) -> dict[bytes, Float16]:
    """Those of the vectors that are stored, by hash."""
    if not hashes:
        return {}
    found = query(
        connection,
        """
        SELECT v.hash, v.vector
        FROM spaces AS s
        CROSS JOIN carray(:hashes) AS asked
        CROSS JOIN vectors AS v ON v.space_id = s.id AND v.hash = asked.value
        WHERE s.tenant = :tenant AND s.model = :model
        """,
        {"hashes": apsw.carray(tuple(dict.fromkeys(hashes))), "tenant": tenant, "model": model},
    )
    return {key: np.frombuffer(blob, "<f2") for key, blob in found}


def files(connection: apsw.Connection, scope_id: int, uris: Sequence[str]) -> dict[str, FileState]:
    """What is known of these files, by URI."""
    if not (asked := storable(uris)):
        return {}
    found = query(
        connection,
        """
        SELECT uri, signature, document_id, error, hint
        FROM carray(:uris) AS asked CROSS JOIN files ON scope_id = :scope_id AND uri = asked.value
        """,
        {"uris": apsw.carray(asked), "scope_id": scope_id},
    )
    return {row[0]: FileState(*row[1:]) for row in found}


def files_under(connection: apsw.Connection, scope_id: int, prefix: str) -> dict[str, FileState]:
    """What is known of the files whose URI begins with `prefix`."""
    found = query(
        connection,
        """
        SELECT uri, signature, document_id, error, hint
        FROM files
        WHERE scope_id = :scope_id AND uri >= :prefix AND uri <= :prefix || char(0x10FFFF) AND substr(uri, 1, length(:prefix)) = :prefix
        ORDER BY uri
        """,
        {"scope_id": scope_id, "prefix": prefix},
    )
    return {row[0]: FileState(*row[1:]) for row in found}


def collections(connection: apsw.Connection, tenant: str) -> list[CollectionInfo]:
    """The tenant's collections by name."""
    found = query(
        connection,
        """
        SELECT s.collection, count(d.key), coalesce(sum(d.chunk_count), 0), s.lsn, s.model, s.embedder
        FROM scopes AS s LEFT JOIN documents AS d ON d.scope_id = s.id
        WHERE s.tenant = ? AND s.live
        GROUP BY s.id
        ORDER BY s.collection
        """,
        (tenant,),
    )
    return [CollectionInfo(*(*row, json.loads(embedder))) for *row, embedder in found]


_INVARIANTS: tuple[tuple[str, str], ...] = (
    (
        "{} documents do not have all of their chunks",
        """
        SELECT count(*)
        FROM (SELECT key, chunk_count, (scope_id << 40) + first_row AS first FROM documents) AS d
        WHERE chunk_count != (SELECT count(*) FROM chunks AS c WHERE c.id >= first AND c.id < first + chunk_count AND c.document = d.key)
        """,
    ),
    (
        "{} chunks belong to no document",
        "SELECT (SELECT count(*) FROM chunks) - (SELECT coalesce(sum(chunk_count), 0) FROM documents)",
    ),
    (
        "{} chunks have no vector",
        "SELECT count(*) FROM chunks AS c WHERE NOT EXISTS (SELECT 1 FROM vectors AS v WHERE v.id = c.vector)",
    ),
    (
        "{} documents have no text",
        "SELECT count(*) FROM documents AS d WHERE NOT EXISTS (SELECT 1 FROM texts AS t WHERE t.document = d.key)",
    ),
)


def faults(connection: apsw.Connection) -> list[str]:
    """What is wrong with the file, one sentence each."""
    with snapshot(connection):
        found = [f"the store's file is damaged: {row[0]}" for row in connection.execute("PRAGMA integrity_check") if row[0] != "ok"]
        if found:
            return found
        counts = [(sentence, connection.execute(sql).get) for sentence, sql in _INVARIANTS]
    return [f"the store is inconsistent: {sentence.format(count)}" for sentence, count in counts if count]
