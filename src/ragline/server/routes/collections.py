"""The tenant's collections."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response

from ragline import json_shapes
from ragline.engine import Engine
from ragline.errors import ConflictError, NotFoundError
from ragline.server.access import Asker, TenantEngine
from ragline.server.audit import audited
from ragline.server.guarding import GuardedRoute, operation
from ragline.server.replies import reply
from ragline.server.schemas.errors import WITH_BODY
from ragline.server.schemas.things import CollectionShape, CollectionsReply, CreateCollection, Deleted
from ragline.storage.base import CollectionInfo

router = APIRouter(prefix="/api/v1/collections", route_class=GuardedRoute, tags=["collections"])

Name = Annotated[str, Path(min_length=1, max_length=200, description="The collection's name.", examples=["handbook"])]


@router.get("", response_model=CollectionsReply, summary="List collections", **operation("read"))
async def list_collections(engine: TenantEngine) -> Response:
    """The tenant's collections by name."""
    return reply({"collections": [json_shapes.collection(each) for each in await engine.collections()]})


@router.post("", response_model=CollectionShape, status_code=201, summary="Make a collection", **operation("write", 409, *WITH_BODY))
async def create_collection(body: CreateCollection, engine: TenantEngine, asker: Asker) -> Response:
    """Makes an empty collection. Uploading into one makes it too."""
    if not await audited(asker, "collection.create", body.name, engine.create_collection(body.name)):
        raise ConflictError(f"there is a collection {body.name!r} already", hint="choose another name, or delete that one first")
    return reply(json_shapes.collection(await _one(engine, body.name)), 201)


@router.get("/{name:path}", response_model=CollectionShape, summary="Show a collection", **operation("read", 404, 422))
async def show_collection(name: Name, engine: TenantEngine) -> Response:
    """One collection and its size."""
    return reply(json_shapes.collection(await _one(engine, name)))


@router.delete("/{name:path}", response_model=Deleted, summary="Delete a collection", **operation("admin", 404, 422))
async def delete_collection(name: Name, engine: TenantEngine, asker: Asker) -> Response:
    """Deletes a collection with all of its documents."""
    if not await audited(asker, "collection.delete", name, engine.delete_collection(name)):
        raise _none(name)
    return reply({"deleted": name})


async def _one(engine: Engine, name: str) -> CollectionInfo:
    for each in await engine.collections():
        if each.name == name:
            return each
    raise _none(name)


def _none(name: str) -> NotFoundError:
    return NotFoundError(f"there is no collection {name!r}", hint="GET /api/v1/collections lists those there are")
