"""Figures for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from ragline.observe.prometheus import CONTENT_TYPE
from ragline.server.guarding import GuardedRoute, operation
from ragline.server.state import state_of

router = APIRouter(route_class=GuardedRoute, tags=["operation"])

_TEXT = {"text/plain": {"schema": {"type": "string"}, "example": "ragline_workers 2\n"}}
_metrics = operation("metrics")
_metrics["responses"][200] = {"description": "Prometheus' text format 0.0.4.", "content": _TEXT}


@router.get("/metrics", response_class=Response, summary="Figures for Prometheus", **_metrics)
async def metrics(request: Request) -> Response:
    """What all processes of the server have done, for all tenants together, as Prometheus reads it. Needs a key of scope `metrics`."""
    state = state_of(request)
    figures = await state.figures.whole(state.engine, state.requests)
    return Response("".join(f"{line}\n" for line in figures.lines()), headers={"content-type": CONTENT_TYPE})
