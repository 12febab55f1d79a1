"""Is the server alive, and may it be asked?"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from ragline.errors import RaglineError
from ragline.server.errors import HttpError
from ragline.server.replies import reply
from ragline.server.schemas.errors import ErrorBody
from ragline.server.state import state_of
from ragline.types import Scope

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """How the server is."""

    status: str


async def livez() -> Response:
    """Whether the process answers at all. Wants no key."""
    return reply({"status": "alive"})


async def readyz(request: Request) -> Response:
    """Whether questions may be sent here: not before the store is open, nor after the server was told to stop. Wants no key."""
    state = state_of(request)
    try:
        if state.ready:
            await state.engine.store.head(Scope(state.settings.tenant, state.settings.collection))
            return reply({"status": "ready"})
    except RaglineError as failure:
        hint = "the server's log says more, as does `ragline doctor` on its machine"
        raise HttpError(503, "not_ready", "the store cannot be read", hint=hint) from failure
    if state.stopping:
        raise HttpError(503, "not_ready", "the server is stopping", hint="ask another, or this one when it runs again")
    raise HttpError(503, "not_ready", "the server is starting", hint="ask again in a moment")


_NOT_READY: dict[int | str, dict[str, Any]] = {
    503: {"model": ErrorBody, "description": "It is starting, stopping, or its store cannot be read."}
}
router.add_api_route("/livez", livez, response_model=Health, summary="Is it alive?")
router.add_api_route("/readyz", readyz, response_model=Health, responses=_NOT_READY, summary="Is it ready?")
router.add_api_route("/health", livez, response_model=Health, summary="The same as /livez", operation_id="health")
router.add_api_route("/healthz", readyz, response_model=Health, responses=_NOT_READY, summary="The same as /readyz", operation_id="healthz")
