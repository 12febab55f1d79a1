"""Documents, uploads and jobs."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ragline.server.schemas.asking import RequestBody
from ragline.server.schemas.errors import Problem

State = Literal["queued", "running", "succeeded", "failed", "cancelled"]
Outcome = Literal["pending", "added", "replaced", "unchanged", "failed", "cancelled"]


class TextUpload(RequestBody):
    """A text to ingest."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"text": "Keys rotate every 90 days.", "id": "kb/42", "metadata": {"lang": "en"}}]}
    )

    text: str = Field(min_length=1, description="The text; Markdown headings are understood.")
    id: str | None = Field(
        None, min_length=1, description="The document's id: what has it already is replaced. Unset takes the hash of the text."
    )
    source: str | None = Field(None, description="Where it comes from, as shown in citations.")
    metadata: dict[str, Any] | None = Field(None, description="JSON values by key, to filter by.")
    collection: str | None = Field(None, min_length=1, max_length=200, description="Unset takes the default collection.")


class Accepted(BaseModel):
    """An upload that is stored durably, and will be ingested."""

    id: str = Field(description="The document that it becomes.", examples=["kb/42"])
    job_id: str = Field(examples=["job_4f2c8e0b9a7d6c5e4f3a2b1c"])
    status: str = Field(
        description="`processing`; or, where the same request was accepted before, how its job ended.", examples=["processing"]
    )


class SeveralAccepted(BaseModel):
    """Uploads that are stored durably, and will be ingested."""

    ids: list[str] = Field(description="The documents that they become, in the order of the files.")
    job_id: str
    status: str = Field(examples=["processing"])


class DocumentShape(BaseModel):
    """A document, without its text."""

    id: str = Field(examples=["kb/42"])
    version: int
    source: str | None
    metadata: dict[str, Any]
    media_type: str
    characters: int
    chunks: int
    lsn: int
    updated_at: float = Field(description="Seconds since 1970, UTC.")


class DocumentsReply(BaseModel):
    """A page of documents."""

    documents: list[DocumentShape]
    next: str | None = Field(description="Pass it as `after` for the next page; null where this is the last.")


class ChunkShape(BaseModel):
    """A piece of a document; `start` and `end` count code points of its text."""

    chunk_id: int
    start: int
    end: int
    heading: str
    page: int | None
    text: str


class ChunksReply(BaseModel):
    """A document's chunks in the order of its text."""

    document_id: str
    chunks: list[ChunkShape]


class JobProgress(BaseModel):
    """How far a job is."""

    files: int
    done: int


class JobFileShape(BaseModel):
    """What became of one file."""

    id: str = Field(description="The document that it becomes.")
    name: str
    source: str | None
    size_bytes: int
    outcome: Outcome
    error: str
    hint: str


class JobSummary(BaseModel):
    """A job without its files."""

    id: str
    collection: str
    state: State
    attempts: int = Field(description="How often it was begun.")
    progress: JobProgress
    accepted_at: float = Field(description="Seconds since 1970, UTC.")
    started_at: float | None
    ended_at: float | None
    retry_at: float | None = Field(description="When it is tried again, after a failure that may pass.")
    error: Problem | None = Field(description="Why the last attempt failed.")


class JobShape(JobSummary):
    """A job and what became of each of its files."""

    files: list[JobFileShape]


class JobsReply(BaseModel):
    """A page of jobs, the latest first."""

    jobs: list[JobSummary]
    next: str | None = Field(description="Pass it as `after` for the next page; null where this is the last.")
