"""The application: settings in, ASGI out."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.types import Receive, Scope, Send

from ragline import __version__
from ragline.engine import Engine
from ragline.errors import RaglineError
from ragline.observe.logs import configure_logging
from ragline.server import errors
from ragline.server.access import Access
from ragline.server.door import Door
from ragline.server.draining import drained_first
from ragline.server.guarding import Directly
from ragline.server.interpreter import set_for_serving
from ragline.server.openapi import DocumentedApp
from ragline.server.outermost import Outermost
from ragline.server.routes import asking, collections, docs, documents, health, jobs, metrics, openai, tenants
from ragline.server.slow_readers import SlowReaders
from ragline.server.state import OpenEngine, ServerState
from ragline.settings import Settings, load_settings
from ragline.settings.serving import split

_log = logging.getLogger("ragline.server")

ROUTERS = (
    asking.router,
    documents.router,
    jobs.router,
    collections.router,
    tenants.router,
    *openai.ROUTERS,
    metrics.router,
    health.router,
    docs.router,
)


def create_app(settings: Settings | None = None, *, open_engine: OpenEngine | None = None) -> FastAPI:
    """The server as an ASGI application, which opens its engine when it is started, in the process that serves.

    Examples:
        uvicorn --factory ragline.server.app:create_app --http ragline.server.protocol:BoundedHeads
        gunicorn -k ragline.server.gunicorn_worker.Worker "ragline.server.app:create_app()"

    Args:
        settings: Unset, they come from `RAGLINE_*` variables, `.env` and `ragline.toml`, as on the command line.
        open_engine: Opens another engine than the one that the settings describe.
    """
    settings = settings or load_settings().settings
    state = ServerState(settings, open_engine or (lambda given: Engine.open(settings=given)))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if not logging.getLogger("ragline").handlers:  # a program that has the server as a part of it has its own
            configure_logging(settings.server.log_level, settings.server.log_format == "json")
        try:
            async with state.running():
                with set_for_serving(), drained_first(state.stop, settings.server.drain_s):
                    yield
        except RaglineError as failure:
            _log.error("the server cannot run: %s (%s)", failure.message, failure.hint)
            raise

    app = _Application(
        write_timeout_s=settings.limits.write_timeout_s,
        title="ragline",
        version=__version__,
        summary="Documents in, cited answers out.",
        lifespan=lifespan,
        openapi_url=None,
        redirect_slashes=False,
        # FastAPI's own: it records what requests and errors say, and looks for somebody to take that with each request.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.state.ragline = state
    errors.install(app)
    for router in ROUTERS:
        app.include_router(router)
    # The last one added is the first one met.
    app.add_middleware(Directly, routers=ROUTERS)
    app.add_middleware(Door, budgets=state.budgets, settings=settings.limits, looks_up=settings.cache.enabled)
    app.add_middleware(Access, state=state)
    if settings.server.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=split(settings.server.cors_origins),
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=["authorization", "content-type", "idempotency-key", "x-api-key", "x-request-id"],
            expose_headers=["retry-after", "x-request-id"],
        )
    app.add_middleware(Outermost, requests=state.requests)
    return app


class _Application(DocumentedApp):
    """The application, with what must stand outside of all that FastAPI puts around it."""

    def __init__(self, *, write_timeout_s: float, **options: Any) -> None:
        super().__init__(**options)
        self._patient = SlowReaders(super().__call__, write_timeout_s)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        await self._patient(scope, receive, send)
