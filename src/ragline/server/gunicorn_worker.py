"""How gunicorn runs the application: with our bounds on heads. Only gunicorn imports this; it needs `uvicorn-worker` beside it."""

from __future__ import annotations

from uvicorn_worker import UvicornWorker

from ragline.server.protocol import BoundedHeads


class Worker(UvicornWorker):  # type: ignore[misc]  # it has no types
    """A process of gunicorn's that speaks HTTP as those of `ragline serve` do; timeouts and logs are gunicorn's.

    Examples:
        gunicorn -k ragline.server.gunicorn_worker.Worker "ragline.server.app:create_app()"
    """

    CONFIG_KWARGS = {"loop": "uvloop", "http": BoundedHeads, "ws": "none", "lifespan": "on", "server_header": False}  # noqa: RUF012
