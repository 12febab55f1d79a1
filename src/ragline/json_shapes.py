"""The JSON of the command line and of HTTP: values become plain dicts, with the same names."""

from __future__ import annotations

from typing import Any

from ragline.storage.base import CollectionInfo, StoredChunk, StoredDocument
from ragline.storage.jobs import Job
from ragline.storage.keys import AuditLine, StoredKey
from ragline.types import Answer, Citation, Finding, IngestReport, ReindexReport, ScoredChunk, SearchResult, Status


def search(result: SearchResult) -> dict[str, Any]:
    """`{hits, lsn, lag, degraded, timings}`."""
    return {
        "hits": [hit(chunk) for chunk in result],
        "lsn": _lsn(result.lsn),
        "lag": result.lag,
        "degraded": list(result.degraded),
        "timings": dict(result.timings),
    }


def hit(chunk: ScoredChunk) -> dict[str, Any]:
    """One hit: the chunk, its scores and where it stands."""
    return {
        "chunk_id": chunk.chunk_id,
        "document_id": chunk.document_id,
        "score": chunk.score,
        "dense_score": chunk.dense_score,
        "lexical_score": chunk.lexical_score,
        "text": chunk.text,
        "source": chunk.source,
        "metadata": dict(chunk.metadata),
        "document_version": chunk.document_version,
        "collection": chunk.collection,
        "heading": chunk.heading,
        "page": chunk.page,
        "start": chunk.start,
        "end": chunk.end,
    }


def answer(given: Answer) -> dict[str, Any]:
    """`{answer, citations, found, hits, cache, lsn, lag, degraded, timings, dropped_citations}`."""
    return {
        "answer": given.text,
        "citations": [citation(each) for each in given.citations],
        "found": given.found,
        "hits": [hit(chunk) for chunk in given.hits],
        "cache": given.cache,
        "lsn": _lsn(given.lsn),
        "lag": given.lag,
        "degraded": list(given.degraded),
        "timings": dict(given.timings),
        "dropped_citations": given.dropped_citations,
    }


def citation(quoted: Citation) -> dict[str, Any]:
    """One quotation and where it stands."""
    return {
        "chunk_id": quoted.chunk_id,
        "document_id": quoted.document_id,
        "document_version": quoted.document_version,
        "start": quoted.start,
        "end": quoted.end,
        "quote": quoted.quote,
        "source": quoted.source,
        "heading": quoted.heading,
        "page": quoted.page,
    }


def ingest(report: IngestReport) -> dict[str, Any]:
    """`{added, replaced, unchanged, skipped, failed, chunks, seconds, pruned, lag}`; the first three are counts."""
    return {
        "added": report.added,
        "replaced": report.replaced,
        "unchanged": report.unchanged,
        "skipped": [{"source": each.source, "reason": each.reason} for each in report.skipped],
        "failed": [{"source": each.source, "error": each.error, "hint": each.hint} for each in report.failed],
        "chunks": report.chunks,
        "seconds": report.seconds,
        "pruned": report.pruned,
        "lag": report.lag,
    }


def document(stored: StoredDocument) -> dict[str, Any]:
    """A document without its text; `updated_at` is seconds since 1970."""
    return {
        "id": stored.id,
        "version": stored.version,
        "source": stored.source,
        "metadata": dict(stored.metadata),
        "media_type": stored.media_type,
        "characters": stored.characters,
        "chunks": stored.chunk_count,
        "lsn": stored.lsn,
        "updated_at": stored.updated_at,
    }


def chunk(stored: StoredChunk) -> dict[str, Any]:
    """A chunk of a document."""
    return {
        "chunk_id": stored.row,
        "start": stored.start,
        "end": stored.end,
        "heading": stored.heading,
        "page": stored.page,
        "text": stored.text,
    }


def collection(info: CollectionInfo) -> dict[str, Any]:
    """A collection, its size and its embedding model."""
    return {
        "name": info.name,
        "documents": info.documents,
        "chunks": info.chunks,
        "lsn": info.lsn,
        "embedder": dict(info.embedder),
    }


def status(found: Status) -> dict[str, Any]:
    """What a data folder holds."""
    return {
        "data_dir": found.data_dir,
        "incarnation": found.incarnation,
        "collections": [
            {
                "name": each.name,
                "documents": each.documents,
                "chunks": each.chunks,
                "lsn": each.lsn,
                "view_lsn": each.view_lsn,
                "model": each.model,
                "precision": each.precision,
            }
            for each in found.collections
        ],
        "indexer": found.indexer,
        "store_bytes": found.store_bytes,
        "views_bytes": found.views_bytes,
    }


def finding(found: Finding) -> dict[str, Any]:
    """One line of a health check."""
    return {"level": found.level, "what": found.what, "hint": found.hint}


def key(stored: StoredKey) -> dict[str, Any]:
    """A key without its secret; times are seconds since 1970."""
    return {
        "id": stored.id,
        "tenant": stored.tenant,
        "name": stored.name,
        "scopes": sorted(stored.scopes),
        "rate_per_s": stored.rate_per_s,
        "burst": stored.burst,
        "created_at": stored.created_at,
        "last_used_at": stored.last_used_at,
        "revoked_at": stored.revoked_at,
    }


def audit_line(line: AuditLine) -> dict[str, Any]:
    """Who did what, when (seconds since 1970)."""
    return {
        "id": line.id,
        "at": line.at,
        "actor": line.actor,
        "act": line.act,
        "target": line.target,
        "details": dict(line.details),
    }


def reindex(report: ReindexReport) -> dict[str, Any]:
    """What a reindex did."""
    return {
        "documents": report.documents,
        "chunks": report.chunks,
        "embedded": report.embedded,
        "seconds": report.seconds,
        "model": report.model,
        "lsn": report.lsn,
    }


def job_summary(found: Job) -> dict[str, Any]:
    """A job without its files; times are seconds since 1970."""
    problem = {"code": "job_failed", "message": found.error, "hint": found.hint} if found.error else None
    return {
        "id": found.id,
        "collection": found.collection,
        "state": found.state,
        "attempts": found.attempts,
        "progress": {"files": found.files_total, "done": found.files_done},
        "accepted_at": found.accepted_at,
        "started_at": found.started_at,
        "ended_at": found.ended_at,
        "retry_at": found.retry_at,
        "error": problem,
    }


def job(found: Job) -> dict[str, Any]:
    """A job and what became of each of its files."""
    files = [
        {
            "id": file.document_id,
            "name": file.name,
            "source": file.source,
            "size_bytes": file.size_bytes,
            "outcome": file.outcome,
            "error": file.error,
            "hint": file.hint,
        }
        for file in found.files
    ]
    return {**job_summary(found), "files": files}


def _lsn(lsn: Any) -> Any:
    return lsn if isinstance(lsn, int) else dict(lsn)
