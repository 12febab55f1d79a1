"""OpenAI's API, so that its clients work unchanged."""

from __future__ import annotations

from ragline.server.routes.openai import chat, embeddings, models

ROUTERS = (chat.router, models.router, embeddings.router)
