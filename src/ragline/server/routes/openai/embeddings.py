"""Embeddings, as OpenAI's clients ask for them."""

from __future__ import annotations

import asyncio
import base64

import numpy as np
from fastapi import APIRouter, Response

from ragline.errors import NotFoundError
from ragline.server.access import TenantEngine
from ragline.server.errors import HttpError, about
from ragline.server.guarding import GuardedRoute
from ragline.server.replies import encoded
from ragline.server.routes.openai.models import no_model
from ragline.server.schemas.errors import WITH_BODY
from ragline.server.schemas.openai.base import openai_operation
from ragline.server.schemas.openai.embeddings import EmbeddingsReply, EmbeddingsRequest
from ragline.types import Float32

router = APIRouter(prefix="/v1", route_class=GuardedRoute, tags=["OpenAI"])


@router.post("/embeddings", response_model=EmbeddingsReply, summary="Embed texts", **openai_operation("read", 404, 409, *WITH_BODY))
async def embeddings(body: EmbeddingsRequest, engine: TenantEngine) -> Response:
    """The vectors of texts, of unit length, by an embedding model that collections use; no other is ever opened."""
    try:
        with about("input"):
            made = await engine.embed(body.texts, model=body.model)
    except NotFoundError as missing:
        raise no_model(body.model) from missing
    dimension = made.vectors.shape[1]
    if body.dimensions not in (None, dimension):
        made_here = f"the vectors of {made.model} have {dimension} numbers here"
        raise HttpError(400, "unsupported_dimensions", made_here, hint="leave dimensions out", param="dimensions")
    parts = [await _part(index, vector, body.encoding_format == "base64") for index, vector in enumerate(made.vectors)]
    tokens = sum(made.tokens)
    rest = encoded({"model": made.model, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}})
    content = b'{"object":"list","data":[' + b",".join(parts) + b"]," + rest[1:]
    return Response(content, media_type="application/json")


async def _part(index: int, vector: Float32, packed: bool) -> bytes:
    """One vector as JSON. Between two of them others may run: writing numbers out takes long."""
    await asyncio.sleep(0)
    value = base64.b64encode(vector.astype(np.dtype("<f4")).tobytes()).decode() if packed else vector.tolist()
    return encoded({"object": "embedding", "index": index, "embedding": value})
