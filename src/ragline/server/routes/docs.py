"""What can be asked, for programs and for people. Where there are keys, any opens it."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, FastAPI, Request, Response

from ragline.server.openapi import PAGE_POLICY, page
from ragline.server.replies import reply

router = APIRouter()


@router.get("/openapi.json", include_in_schema=False)
async def openapi(request: Request) -> Response:
    """The OpenAPI document."""
    return reply(await asyncio.to_thread(request.app.openapi))


@router.get("/docs", include_in_schema=False)
async def docs(request: Request) -> Response:
    """The same as a page."""
    headers = {"content-security-policy": PAGE_POLICY}
    return Response(await asyncio.to_thread(_page, request.app), media_type="text/html", headers=headers)


def _page(app: FastAPI) -> str:
    return page(app.openapi())
