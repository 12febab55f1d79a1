"""Runs the server: one process that answers, or several under a parent that replaces those that die."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import math
import multiprocessing
import os
import signal
import socket
import threading
from contextlib import suppress
from types import FrameType

import uvicorn
from fastapi import FastAPI
from uvicorn.supervisors import Multiprocess

from ragline.errors import BackendError, InputError
from ragline.observe.logs import configure_logging
from ragline.server.app import create_app
from ragline.server.protocol import BoundedHeads
from ragline.settings import Settings
from ragline.storage.sqlite import SqliteStore

_log = logging.getLogger("ragline.server")

_KEEP_ALIVE_S = 75
"""How long an idle connection stays open: longer than proxies keep theirs, so that they close it, not we."""

_HEALTHCHECK_S = 60
"""A process that starts on a busy machine, or computes, is not dead: it has this long to say so."""


def serve(settings: Settings) -> int:
    """Answers until it is told to stop; returns the exit code.

    Raises:
        InputError: An address that others can reach, and no keys.
        BackendError: The address cannot be listened on; the store cannot be opened.
    """
    configure_serving_logs(settings)
    listening = listen(settings.server.host, settings.server.port, settings.limits.write_timeout_s)
    try:
        has_keys = asyncio.run(_has_keys(settings))
        if not has_keys and not is_local(listening):
            raise InputError(
                f"{settings.server.host} can be reached by others, and there are no keys",
                hint="make one first with `ragline keys create`, or listen on 127.0.0.1",
            )
        host, port = listening.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        _log.info("listening on http://%s:%d", shown, port)
        config = config_of(settings)
        if settings.server.workers == 1:
            OneProcess(config).run([listening])
        else:
            Multiprocess(config, [listening]).run()
    finally:
        listening.close()
    _log.info("stopped")
    return 0


class OneProcess(uvicorn.Server):
    """Ends with exit code 0 when it is told to stop, and not by the signal."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stops when the work is done; a second Ctrl-C does not wait for it."""
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True


class Application:
    """Makes the application in the process that serves it; travels there by pickle."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def __call__(self) -> FastAPI:
        """The application."""
        configure_serving_logs(self.settings)
        if (parent := multiprocessing.parent_process()) is not None:
            threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
        return create_app(self.settings)


def config_of(settings: Settings) -> uvicorn.Config:
    """How uvicorn is to run."""
    return uvicorn.Config(
        Application(settings),
        factory=True,
        loop="uvloop",
        http=BoundedHeads,
        ws="none",
        lifespan="on",
        workers=settings.server.workers,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=math.ceil(settings.server.shutdown_s),
        timeout_worker_healthcheck=_HEALTHCHECK_S,
    )


def configure_serving_logs(settings: Settings) -> None:
    """Our own log as set, and uvicorn's warnings in the same form."""
    configure_logging(settings.server.log_level, settings.server.log_format == "json")
    theirs = logging.getLogger("uvicorn")
    theirs.handlers = logging.getLogger("ragline").handlers[:]
    theirs.setLevel(logging.WARNING)
    theirs.propagate = False


def listen(host: str, port: int, write_timeout_s: float = 0.0) -> socket.socket:
    """A socket on the first address of a host. Raises BackendError where that cannot be had.

    Args:
        write_timeout_s: Where the system can, connections whose client takes nothing for so long are ended by it; 0 is never.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if write_timeout_s and hasattr(socket, "TCP_USER_TIMEOUT"):
                with suppress(OSError):  # what was handed over whole is nobody's any more but the system's
                    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(write_timeout_s * 1000))
            listening.bind(address)
            listening.listen()  # the port is ours from now on, not only when the models are there
            listening.set_inheritable(True)
        except BaseException:
            listening.close()
            raise
    except (OSError, UnicodeError) as failure:
        reason = failure.strerror if isinstance(failure, OSError) else failure
        raise BackendError(
            f"{host}:{port} cannot be listened on: {reason}", hint="choose another --port, or --host; see who has this one"
        ) from failure
    return listening


def is_local(listening: socket.socket) -> bool:
    """Whether only this machine can reach a socket."""
    return ipaddress.ip_address(listening.getsockname()[0].partition("%")[0]).is_loopback


async def _has_keys(settings: Settings) -> bool:
    store = await SqliteStore.open(settings.data_dir, busy_timeout_s=settings.storage.busy_timeout_s)
    try:
        return await store.keys.in_force()
    finally:
        await store.close()


def _end_with(parent: int) -> None:
    """Stops this process when its parent has died: nobody would stop it otherwise, and it would keep the port."""
    from multiprocessing.connection import wait

    wait([parent])
    os.kill(os.getpid(), signal.SIGTERM)
