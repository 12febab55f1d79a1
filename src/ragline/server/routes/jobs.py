"""The tenant's jobs: what becomes of uploads."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from ragline import json_shapes
from ragline.engine import Engine
from ragline.server.access import Asker, TenantEngine
from ragline.server.audit import audited
from ragline.server.guarding import GuardedRoute, operation
from ragline.server.replies import reply
from ragline.server.schemas.documents import JobShape, JobsReply, State
from ragline.server.state import state_of
from ragline.server.streaming import EventStream, sse
from ragline.storage.jobs import Job

router = APIRouter(prefix="/api/v1/jobs", route_class=GuardedRoute, tags=["jobs"])

Id = Annotated[str, Path(min_length=1, max_length=100, description="The job's id.", examples=["job_4f2c8e0b9a7d6c5e4f3a2b1c"])]

_events = operation("read", 404, 422)
_events["responses"][200] = {
    "description": (
        "An event `progress` now and after each change, then one `end`; each has the job as JSON. A stream that ends without `end` is "
        "to be asked for anew: the server was told to stop."
    ),
    "content": {
        "text/event-stream": {"schema": {"type": "string"}, "example": 'event: end\ndata: {"id": "job_4f2c", "state": "succeeded"}\n\n'}
    },
}


@router.get("", response_model=JobsReply, summary="List jobs", **operation("read", 422))
async def list_jobs(
    engine: TenantEngine,
    state: Annotated[State | None, Query(description="Only those in this state.")] = None,
    after: Annotated[str, Query(max_length=100, description="Jobs before this one: `next` of the page before.")] = "",
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> Response:
    """Jobs, the latest first, page by page."""
    found = list(await engine.jobs.list(state=state, after=after, limit=limit + 1))
    page = found[:limit]
    return reply({"jobs": [json_shapes.job_summary(each) for each in page], "next": page[-1].id if len(found) > limit else None})


@router.get("/{id}", response_model=JobShape, summary="Show a job", **operation("read", 404, 422))
async def show_job(id: Id, engine: TenantEngine) -> Response:
    """How far a job is, and what became of each of its files."""
    return reply(json_shapes.job(await engine.jobs.get(id)))


@router.get("/{id}/events", summary="Follow a job", response_class=Response, **_events)
async def follow_job(id: Id, engine: TenantEngine, request: Request) -> Response:
    """The job as server-sent events, until it has ended or the server is told to stop: then follow it anew."""
    job = await engine.jobs.get(id)  # refused here, where that still has a status of its own
    state = state_of(request)
    return EventStream(_updates(engine, job.id), heartbeat_s=state.settings.server.heartbeat_s, until=state.told_to_stop)


@router.delete("/{id}", response_model=JobShape, summary="Cancel a job", **operation("write", 404, 409, 422))
async def cancel_job(id: Id, engine: TenantEngine, asker: Asker) -> Response:
    """Cancels what is not done yet of a job; what was done stays. Where a file failed before, the job has failed, and can be retried."""
    job = await engine.jobs.get(id)
    if job.state != "cancelled":
        job = await audited(asker, "job.cancel", id, engine.jobs.cancel(id), collection=job.collection)
    return reply(json_shapes.job(job))


@router.post("/{id}/retry", response_model=JobShape, status_code=202, summary="Retry a job", **operation("write", 404, 409, 422))
async def retry_job(id: Id, engine: TenantEngine, asker: Asker) -> Response:
    """Queues a failed job again, with the files that failed. One whose document was uploaded again since is cancelled."""
    job = await audited(asker, "job.retry", id, engine.jobs.retry(id))
    return reply(json_shapes.job(job), 202)


async def _updates(engine: Engine, id: str) -> AsyncGenerator[bytes, None]:
    async with aclosing(engine.jobs.updates(id)) as jobs:
        async for job in jobs:
            yield sse(_event(job), json_shapes.job(job))


def _event(job: Job) -> str:
    return "progress" if job.ended_at is None else "end"
