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
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.synchronize import Event
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from ragline.errors import BackendError, InputError
from ragline.observe.logs import configure_logging
from ragline.server.protocol import BoundedHeads
from ragline.server.sharing_out import Census, Intake
from ragline.server.supervising import Supervisor, Worker
from ragline.settings import Settings
from ragline.storage.sqlite import SqliteStore

if TYPE_CHECKING:  # the parent loads none of the engine's libraries
    from ragline.server.state import ServerState

_log = logging.getLogger("ragline.server")

_KEEP_ALIVE_S = 75
"""How long an idle connection stays open: longer than proxies keep theirs, so that they close it, not we."""

_STOPPING_S = 10.0
"""What a process may take to stop beyond the time that its work has."""

_BACKLOG = 2048
"""Connections that may wait to be taken, as uvicorn has it; the system may allow fewer."""

_CLOSE = (b"connection", b"close")
_GIVE_AWAY_TICKS = 8
"""A process with a crowd ends connections in one tick of so many: slowly, or the crowd would only move."""

_CONTEXT = multiprocessing.get_context("spawn")  # what threads and libraries hold does not survive a fork


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
        if settings.server.workers == 1:
            with _hanging_up_stops():
                well = _answered(settings, listening)
        else:
            patience_s = settings.server.drain_s + settings.server.shutdown_s + _STOPPING_S
            # While one takes the place of another, both are there.
            census = Census(_CONTEXT, settings.server.workers + 1)
            well = Supervisor(lambda: _started(settings, listening, census), settings.server.workers, patience_s=patience_s).run()
    finally:
        listening.close()
    _log.info("stopped")
    return 0 if well else 1


class OneProcess(uvicorn.Server):
    """Ends with exit code 0 when it is told to stop, and not by the signal.

    Args:
        tell: Called once it answers.
    """

    def __init__(self, config: uvicorn.Config, tell: Callable[[], None] = lambda: None) -> None:
        super().__init__(config)
        self._tell = tell

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Opens what it needs."""
        await super().startup(sockets=sockets)
        if self.started:
            self._tell()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stops when the work is done; a second Ctrl-C does not wait for it."""
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True


class OneOfSeveral(OneProcess):
    """Shares connections out with the others: new ones evenly, and while it has a crowd and another has none, some of its own.

    Args:
        place: This process's in the census.
        crowded: Whether more is asked of this process than it can do.
        leaving: Whether it was told to stop, and takes only what nobody else does.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        tell: Callable[[], None],
        census: Census,
        place: int,
        *,
        crowded: Callable[[], bool],
        leaving: Callable[[], bool],
    ) -> None:
        super().__init__(config, tell)
        self._census = census
        self._place = place
        self._crowded = crowded
        self._leaving = leaving
        self._intakes: list[Intake] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Opens what it needs, and takes connections."""
        await uvicorn.Server.startup(self, sockets=[])
        if self.started:
            self._intakes = [self._intake(listening) for listening in sockets or ()]
            self.servers.extend(self._intakes)  # type: ignore[arg-type]  # all of a server that is asked of it
            self._tell()

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second. In some of them what is answered ends its connection, and the client's next one goes elsewhere."""
        ends = await super().on_tick(counter)
        for intake in self._intakes:
            intake.leaving = self._leaving()
            intake.tell()
        self._census.tell_crowd(self._place, self._crowded())
        headers = [header for header in self.server_state.default_headers if header != _CLOSE]
        if counter % _GIVE_AWAY_TICKS == 0 and self._census.gives_away(self._place):
            headers.append(_CLOSE)
        self.server_state.default_headers = headers
        return ends

    def _intake(self, listening: socket.socket) -> Intake:
        def protocol() -> asyncio.Protocol:
            made: asyncio.Protocol = BoundedHeads(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)
            return made

        listening.setblocking(False)
        return Intake(listening, protocol, lambda: len(self.server_state.connections), self._census, self._place)


@contextmanager
def _hanging_up_stops() -> Iterator[None]:
    """SIGHUP, as when a terminal is closed, is a SIGTERM; where it would kill: under nohup it stays ignored."""
    kills = signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
    if kills:
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))
    try:
        yield
    finally:
        if kills:
            signal.signal(signal.SIGHUP, signal.SIG_DFL)


def _answered(settings: Settings, listening: socket.socket) -> bool:
    """Answers in this process until it is told to stop; False where it could not start."""
    try:
        OneProcess(config_of(settings)).run([listening])
    except SystemExit as ended:  # uvicorn's way to say so
        return not ended.code
    return True


def _started(settings: Settings, listening: socket.socket, census: Census) -> Worker:
    ready, place = _CONTEXT.Event(), census.enter()
    process = _CONTEXT.Process(target=_work, args=(settings, listening, ready, census, place))
    process.start()
    return Worker(process, ready, lambda: census.leave(place))


def _work(settings: Settings, listening: socket.socket, ready: Event, census: Census, place: int) -> None:
    """What a process under the supervisor does."""
    configure_serving_logs(settings)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    config = config_of(settings)
    state: ServerState = config.app.state.ragline  # type: ignore[union-attr]  # ours
    OneOfSeveral(config, ready.set, census, place, crowded=lambda: state.budgets.crowded, leaving=lambda: state.stopping).run([listening])


def config_of(settings: Settings) -> uvicorn.Config:
    """How uvicorn is to run."""
    from ragline.server.app import create_app  # where it is answered only: a supervisor needs none of the engine's libraries

    return uvicorn.Config(
        create_app(settings),
        loop="uvloop",
        http=BoundedHeads,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=math.ceil(settings.server.shutdown_s),
    )


def configure_serving_logs(settings: Settings) -> None:
    """Our own log as set, and uvicorn's warnings in the same form."""
    configure_logging(settings.server.log_level, settings.server.log_format == "json")
    theirs = logging.getLogger("uvicorn")
    theirs.handlers = logging.getLogger("ragline").handlers[:]
    theirs.setLevel(logging.WARNING)
    theirs.propagate = False
    logging.getLogger("uvicorn.error").addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    """Not the traceback of an error at the start that was told in a sentence already."""
    return not (record.getMessage().startswith("Traceback") and "\nragline.errors." in record.getMessage())


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
            listening.listen(_BACKLOG)  # the port is ours from now on, not only when the models are there
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
