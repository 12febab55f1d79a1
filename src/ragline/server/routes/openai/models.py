"""Models: one for each collection, and those that texts are embedded with."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

from ragline.engine import Engine
from ragline.server.access import TenantEngine
from ragline.server.errors import HttpError
from ragline.server.guarding import GuardedRoute
from ragline.server.replies import reply
from ragline.server.schemas.openai.base import openai_operation
from ragline.server.schemas.openai.models import Model, ModelList

DEFAULT = "ragline"
"""The model that answers from the default collection."""

router = APIRouter(prefix="/v1", route_class=GuardedRoute, tags=["OpenAI"])


def no_model(name: str) -> HttpError:
    """The refusal of a name that is no model's, as OpenAI's API words it."""
    return HttpError(404, "model_not_found", f"The model {name[:200]!r} does not exist", hint="/v1/models lists those there are")


@router.get("/models", response_model=ModelList, summary="List models", **openai_operation("read"))
async def list_models(engine: TenantEngine) -> Response:
    """One for each collection, `ragline` for the default collection, and the embedding models that collections use."""
    return reply({"object": "list", "data": await _models(engine)})


@router.get("/models/{model:path}", response_model=Model, summary="Find a model", **openai_operation("read", 404))
async def find_model(model: str, engine: TenantEngine) -> Response:
    """The model of this name."""
    for each in await _models(engine):
        if each["id"] == model:
            return reply(each)
    raise no_model(model)


async def _models(engine: Engine) -> list[dict[str, Any]]:
    collections = await engine.collections()
    answering = dict.fromkeys([DEFAULT, *(each.name for each in collections)])
    embedding = dict.fromkeys(each.embedder["model"] for each in collections if each.embedder.get("model"))
    owners = {**dict.fromkeys(embedding, "ragline-embedding"), **dict.fromkeys(answering, "ragline")}
    return [{"id": name, "object": "model", "created": 0, "owned_by": owners[name]} for name in {**answering, **embedding}]
