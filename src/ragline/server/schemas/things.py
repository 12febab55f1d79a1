"""Collections, the cache, figures of a tenant, the audit."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from ragline.server.schemas.asking import RequestBody


class CollectionShape(BaseModel):
    """A collection, its size and the model of its vectors."""

    name: str = Field(examples=["handbook"])
    documents: int
    chunks: int
    lsn: int = Field(description="The position of its log: one more with each change.")
    embedder: dict[str, str]


class CollectionsReply(BaseModel):
    """The tenant's collections by name."""

    collections: list[CollectionShape]


class CreateCollection(RequestBody):
    """A collection to be made."""

    name: str = Field(min_length=1, max_length=200, examples=["handbook"])


class Deleted(BaseModel):
    """What was deleted."""

    deleted: str = Field(examples=["handbook"])


class CacheReply(BaseModel):
    """What of this tenant's questions was known already, in the process that answers."""

    enabled: bool
    searches: dict[str, int] = Field(examples=[{"hit": 12, "shared": 1, "miss": 40}])
    answers: dict[str, int] = Field(examples=[{"hit": 9, "revalidated": 3, "semantic": 0, "stale_prevented": 1, "miss": 20, "shared": 0}])


class Cleared(BaseModel):
    """Done, in every process of the server within a second."""

    cleared: bool


class StatsReply(BaseModel):
    """What a tenant has, and asked since the process that answers was started."""

    tenant: str
    documents: int
    chunks: int
    collections: list[CollectionShape]
    searches: dict[str, int]
    answers: dict[str, int]


class AuditLineShape(BaseModel):
    """Who did what."""

    id: int
    at: float = Field(description="Seconds since 1970, UTC.")
    actor: str = Field(description="The id of a key, `command line`, or `local` for a server without keys.")
    act: str = Field(examples=["document.delete"])
    target: str
    details: dict[str, Any]


class AuditReply(BaseModel):
    """The tenant's audit, the newest line first."""

    lines: list[AuditLineShape]
