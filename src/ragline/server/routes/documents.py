"""The tenant's documents: uploaded, listed, looked at, deleted."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response

from ragline import json_shapes
from ragline.engine import Engine
from ragline.errors import NotFoundError
from ragline.server.access import Asker, TenantEngine
from ragline.server.audit import audited
from ragline.server.guarding import GuardedRoute, operation
from ragline.server.receiving import accept_upload
from ragline.server.replies import long_reply, reply
from ragline.server.schemas.documents import Accepted, ChunksReply, DocumentShape, DocumentsReply, SeveralAccepted, TextUpload
from ragline.server.schemas.errors import WITH_BODY
from ragline.server.schemas.things import Deleted
from ragline.server.state import state_of
from ragline.storage.jobs import Job

router = APIRouter(prefix="/api/v1/documents", route_class=GuardedRoute, tags=["documents"])

_CHUNKS = "/chunks"

Id = Annotated[
    str, Path(min_length=1, description="The document's id; slashes in it may be sent as they are or as %2F.", examples=["kb/42"])
]
Collection = Annotated[str | None, Query(min_length=1, max_length=200, description="Unset takes the default collection.")]


def _form(*, several: bool) -> dict[str, Any]:
    """What the OpenAPI document says of an upload's body."""
    one = {"type": "string", "format": "binary"}
    file = {"type": "array", "items": one, "description": "The files."} if several else {**one, "description": "The file."}
    properties = {
        "file": file,
        "id": {"type": "string", "description": "The document's id, of one file only. Unset takes the hash of its bytes."},
        "source": {"type": "string", "description": "Where it comes from; unset takes the file's name."},
        "metadata": {"type": "string", "description": "A JSON object, to filter by.", "examples": ['{"lang": "en"}']},
        "collection": {"type": "string", "description": "Unset takes the default collection."},
    }
    return {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": {"type": "object", "required": ["file"], "properties": properties}},
            "application/json": {"schema": TextUpload.model_json_schema()},
        },
    }


_IDEMPOTENCY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Your own name for this request: sent again under it, it is the same job.",
    "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
}


def _upload(*, several: bool) -> dict[str, Any]:
    described = operation("write", 409, *WITH_BODY, body=_form(several=several))
    described["openapi_extra"]["parameters"] = [_IDEMPOTENCY]
    return described


@router.post("", response_model=Accepted | SeveralAccepted, status_code=202, summary="Upload files or a text", **_upload(several=True))
async def upload(request: Request, engine: TenantEngine) -> Response:
    """Accepts files (a form) or a text (JSON). When this answers, they are stored durably; ingesting them is a job that you can follow.

    A document whose id is there already is replaced whole; the same again is no work. Uploads of one document are done in the order in
    which they were accepted.
    """
    job = await accept_upload(request, engine, state_of(request))
    return _accepted(job)


@router.get("", response_model=DocumentsReply, summary="List documents", **operation("read", 422))
async def list_documents(
    engine: TenantEngine,
    collection: Collection = None,
    after: Annotated[str, Query(description="Documents whose id is after this one: `next` of the page before.")] = "",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    """Documents by id, page by page."""
    found = list(await engine.documents(collection=collection, after=after, limit=limit + 1))
    more = len(found) > limit
    page = found[:limit]
    return reply({"documents": [json_shapes.document(each) for each in page], "next": page[-1].id if more else None})


@router.get("/{id:path}/chunks", response_model=ChunksReply, summary="Show a document's chunks", **operation("read", 404, 422))
async def show_chunks(id: Id, engine: TenantEngine, request: Request, collection: Collection = None) -> Response:
    """The pieces that the document was cut into, in their order."""
    if _is_part_of_id(request):
        return await _shown(engine, id + _CHUNKS, collection)
    chunks = await engine.chunks(id, collection=collection)
    return await long_reply({"document_id": id}, "chunks", chunks, json_shapes.chunk)


@router.get("/{id:path}", response_model=DocumentShape, summary="Show a document", **operation("read", 404, 422))
async def show_document(id: Id, engine: TenantEngine, collection: Collection = None) -> Response:
    """One document, without its text. An id that ends in `/chunks` is asked for with `%2Fchunks`."""
    return await _shown(engine, id, collection)


@router.put("/{id:path}", response_model=Accepted, status_code=202, summary="Replace a document", **_upload(several=False))
async def replace_document(id: Id, request: Request, engine: TenantEngine) -> Response:
    """Accepts one file (a form) or a text (JSON) under this id, as an upload. Until it is ingested, what was there is found."""
    job = await accept_upload(request, engine, state_of(request), id=id)
    return _accepted(job)


@router.delete("/{id:path}", response_model=Deleted, summary="Delete a document", **operation("write", 404, 422))
async def delete_document(id: Id, engine: TenantEngine, asker: Asker, collection: Collection = None) -> Response:
    """Deletes a document with all that was made of it. Uploads of it that were accepted before and are not done yet are cancelled."""
    name = collection or engine.settings.collection
    if not await audited(asker, "document.delete", id, engine.delete(id, collection=name), collection=name):
        raise _none(id)
    return reply({"deleted": id})


def _is_part_of_id(request: Request) -> bool:
    """Whether the last slash of the path was sent as %2F: then what follows it belongs to the id."""
    raw = bytes(request.scope.get("raw_path") or b"").partition(b"?")[0]
    return bool(raw) and not raw.endswith(_CHUNKS.encode())


async def _shown(engine: Engine, id: str, collection: str | None) -> Response:
    return reply(json_shapes.document(await engine.document(id, collection=collection)))


def _accepted(job: Job) -> Response:
    status = "processing" if job.ended_at is None else job.state
    ids = [file.document_id for file in job.files]
    answer = reply({**({"id": ids[0]} if len(ids) == 1 else {"ids": ids}), "job_id": job.id, "status": status}, 202)
    answer.headers["location"] = f"/api/v1/jobs/{job.id}"
    return answer


def _none(id: str) -> NotFoundError:
    return NotFoundError(f"there is no document {id!r}", hint="GET /api/v1/documents lists those there are")
