"""What is for a tenant as a whole: its cache, its figures, its audit."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from ragline import json_shapes
from ragline.server.access import Asker, TenantEngine
from ragline.server.audit import audited
from ragline.server.clearing import CLEAR_CACHE
from ragline.server.guarding import GuardedRoute, operation
from ragline.server.replies import reply
from ragline.server.schemas.things import AuditReply, CacheReply, Cleared, StatsReply
from ragline.server.state import state_of

router = APIRouter(prefix="/api/v1", route_class=GuardedRoute, tags=["tenant"])

Before = Annotated[int | None, Query(ge=1, le=2**63 - 1, description="Lines of ids below this: the last one of the page before.")]
Limit = Annotated[int, Query(ge=1, le=1000, description="At most so many lines.")]


@router.get("/cache", response_model=CacheReply, summary="See what the cache did", **operation("read"))
async def show_cache(engine: TenantEngine, request: Request) -> Response:
    """How many of the tenant's searches and answers were known already, in the process that answers this."""
    return reply({"enabled": state_of(request).settings.cache.enabled, **await engine.stats()})


@router.delete("/cache", response_model=Cleared, summary="Clear the cache", **operation("admin"))
async def clear_cache(engine: TenantEngine, asker: Asker) -> Response:
    """Forgets what was computed for the tenant before. It is never needed to get fresh answers: those that are kept are."""
    await audited(asker, CLEAR_CACHE, asker.tenant, engine.clear_cache())
    return reply({"cleared": True})


@router.get("/stats", response_model=StatsReply, summary="See the tenant's figures", **operation("read"))
async def show_stats(engine: TenantEngine, asker: Asker) -> Response:
    """What the tenant has, and what it asked since the process that answers this was started."""
    collections = [json_shapes.collection(each) for each in await engine.collections()]
    totals = {name: sum(each[name] for each in collections) for name in ("documents", "chunks")}
    return reply({"tenant": asker.tenant, **totals, "collections": collections, **await engine.stats()})


@router.get("/audit", response_model=AuditReply, summary="See who did what", **operation("admin", 422))
async def show_audit(engine: TenantEngine, asker: Asker, before: Before = None, limit: Limit = 100) -> Response:
    """The tenant's audit: keys made and revoked, what was deleted, what its admins did. The newest line first."""
    lines = await engine.store.keys.audited(asker.tenant, before=before, limit=limit)
    return reply({"lines": [json_shapes.audit_line(each) for each in lines]})
