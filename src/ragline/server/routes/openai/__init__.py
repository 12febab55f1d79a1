"""OpenAI's API, so that its clients work unchanged."""

from __future__ import annotations

from fastapi import APIRouter

from ragline.server.routes.openai import chat, embeddings, models

router = APIRouter()
for part in (chat, models, embeddings):
    router.include_router(part.router)
