"""Connections to the file: opening them, sharing them between threads, and turning SQLite's errors into ours."""

from __future__ import annotations

import asyncio
import itertools
import random
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar

import apsw

from ragline.errors import BackendError, CorruptionError, RaglineError

P = ParamSpec("P")
T = TypeVar("T")

# secure_delete: deleted text is overwritten with zeros, also on pages that become free.
_WRITER_PRAGMAS = (
    "PRAGMA synchronous = FULL",
    "PRAGMA secure_delete = ON",
    "PRAGMA cache_size = -65536",
    "PRAGMA wal_autocheckpoint = 4096",
    "PRAGMA journal_size_limit = 67108864",
)
_SHARED_MEMORY_BYTES = 65536
_READER_PRAGMAS = ("PRAGMA query_only = ON", "PRAGMA cache_size = -8192")

_RESTORE = "restore it from a backup, or ingest into a new folder; do not go on with it"

_FAULTS: tuple[tuple[type[apsw.Error], type[RaglineError], str, str], ...] = (
    (apsw.FullError, BackendError, "the disk is full", "free some space; nothing that was acknowledged is lost"),
    (apsw.ReadOnlyError, BackendError, "it is read-only", "make the folder and its files writable, or name another with --data-dir"),
    (apsw.CantOpenError, BackendError, "it cannot be opened", "check that the folder exists, is writable and is not full"),
    (apsw.PermissionsError, BackendError, "access is denied", "make the folder and its files readable and writable"),
    (apsw.AuthError, BackendError, "access is denied", "make the folder and its files readable and writable"),
    (apsw.BusyError, BackendError, "another process is writing to it for too long", "wait for it, or raise storage.busy_timeout_s"),
    (apsw.LockedError, BackendError, "it is locked", "wait for the other process, or raise storage.busy_timeout_s"),
    (apsw.NotADBError, CorruptionError, "it is not a SQLite database", "restore it from a backup, or name another folder with --data-dir"),
    (apsw.CorruptError, CorruptionError, "the file is damaged", _RESTORE),
    (apsw.FormatError, CorruptionError, "the file is damaged", _RESTORE),
    (apsw.IOError, BackendError, "reading or writing it failed", "check the disk (space, file size limits, hardware) and the system's log"),
    (apsw.NoMemError, BackendError, "there is not enough memory", "write fewer documents at once, or free memory"),
    (apsw.TooBigError, BackendError, "a value is larger than SQLite can hold (1 GB)", "split the document"),
    (apsw.ConnectionClosedError, BackendError, "it is closed", "open it again"),
    (apsw.CursorClosedError, BackendError, "it is closed", "open it again"),
)


def translate(error: apsw.Error, file: Path) -> RaglineError:
    """The error that callers see for an error of SQLite; every one has its place."""
    kind = type(error)
    if issubclass(kind, apsw.IOError) and _is_full(file):  # the log's shared memory could not be made, and SQLite does not say why
        kind = apsw.FullError
    for fault, ours, what, hint in _FAULTS:
        if issubclass(kind, fault):
            return ours(f"the store {file} failed: {what} ({error})", hint=hint)
    return BackendError(f"the store {file} failed: {type(error).__name__}: {error}", hint="run `ragline doctor --verify`")


def _is_full(file: Path) -> bool:
    try:
        return shutil.disk_usage(file.parent).free < _SHARED_MEMORY_BYTES
    except OSError:
        return False


def closed_error(file: Path) -> BackendError:
    """The error of a store that is used after `close`."""
    return BackendError(f"the store {file} is closed", hint="open it again")


def query(connection: apsw.Connection, sql: str, bindings: apsw.Bindings = ()) -> list[Any]:
    """All rows of a constant statement, read to the end: an unfinished one would keep its snapshot open."""
    return connection.execute(sql, bindings).fetchall()


class translated:
    """Within it, errors of SQLite leave as errors of ragline."""

    __slots__ = ("_file",)

    def __init__(self, file: Path) -> None:
        self._file = file

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if isinstance(error, apsw.Error):
            raise translate(error, self._file) from error


@contextmanager
def snapshot(connection: apsw.Connection) -> Iterator[None]:
    """Within it, every read sees the same commit."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        if connection.in_transaction:
            connection.execute("COMMIT")


@contextmanager
def immediate(connection: apsw.Connection) -> Iterator[None]:
    """A write transaction that waits for its turn at the start, where waiting can still help."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _patience(timeout_s: float) -> Callable[[int], bool]:
    """A busy handler that asks again every few milliseconds.

    SQLite's own waits up to 100 ms between attempts, and against a process that commits without a pause it hardly ever meets the
    moment in which the lock is free.
    """
    until = 0.0

    def wait(attempts: int) -> bool:
        nonlocal until
        if attempts == 0:
            until = time.monotonic() + timeout_s
        if time.monotonic() >= until:
            return False
        time.sleep(random.uniform(0.0003, 0.003))
        return True

    return wait


def open_writer(file: Path, busy_timeout_s: float) -> apsw.Connection:
    """The one connection that changes the file; creates it where there is none."""
    connection = apsw.Connection(str(file))
    connection.set_busy_handler(_patience(busy_timeout_s))
    connection.execute("PRAGMA page_size = 8192")
    _set_wal(connection, busy_timeout_s)
    for pragma in _WRITER_PRAGMAS:
        connection.execute(pragma)
    return connection


def _set_wal(connection: apsw.Connection, busy_timeout_s: float) -> None:
    """Turns the write-ahead log on. SQLite does not wait by itself where two processes do this at once."""
    until = time.monotonic() + busy_timeout_s
    while True:
        try:
            if connection.execute("PRAGMA journal_mode = WAL").get == "wal":
                return
        except apsw.BusyError:
            if time.monotonic() >= until:
                raise
        time.sleep(0.002)


def open_reader(file: Path, busy_timeout_s: float) -> apsw.Connection:
    """A connection that only reads, of a file that is there."""
    connection = apsw.Connection(str(file), flags=apsw.SQLITE_OPEN_READWRITE)
    connection.set_busy_timeout(int(busy_timeout_s * 1000))
    for pragma in _READER_PRAGMAS:
        connection.execute(pragma)
    return connection


class Readers:
    """Read connections, one for each thread that is reading right now."""

    def __init__(self, file: Path, busy_timeout_s: float) -> None:
        self._file = file
        self._busy_timeout_s = busy_timeout_s
        self._idle: deque[apsw.Connection] = deque()
        self._closed = False

    @contextmanager
    def connection(self) -> Iterator[apsw.Connection]:
        """Lends a connection to the thread that asks."""
        if self._closed:
            raise closed_error(self._file)
        with translated(self._file):
            try:
                connection = self._idle.pop()
            except IndexError:
                connection = open_reader(self._file, self._busy_timeout_s)
            try:
                yield connection
            finally:
                self._idle.append(connection)
                if self._closed:
                    self.close()

    def close(self) -> None:
        """Closes the idle connections now, and the others as they come back."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()


class Watch:
    """Tells in microseconds whether anyone has committed, and what little is asked for with each request.

    `PRAGMA data_version` moves with commits of other connections only, so this one writes nothing. On an event loop it is asked once in a
    turn: each time costs the interpreter's lock, for which other threads may be waiting. Whatever was committed before a callback of the
    loop began is seen by it all the same, for the answer is forgotten before those callbacks run that came to be after it.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._connection = open_reader(file, 0)
        self._cursor = self._connection.cursor()
        self._unknown = itertools.count(-1, -1)
        self._of_turn: tuple[asyncio.AbstractEventLoop, int] | None = None

    def version(self) -> int:
        """A number that differs from the last one where something was committed since."""
        loop = _running_loop()
        if loop is None:
            return self._version()
        if self._of_turn is None or self._of_turn[0] is not loop:
            self._of_turn = loop, self._version()
            loop.call_soon(self._turn_over)
        return self._of_turn[1]

    def _turn_over(self) -> None:
        self._of_turn = None

    def glance(self, question: Callable[Concatenate[apsw.Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T | None:
        """Asks on this thread, the event loop's, what takes microseconds. None: it would have to wait; ask on another."""
        with self._lock, translated(self._file):
            try:
                return question(self._connection, *args, **kwargs)
            except apsw.BusyError:
                return None

    def _version(self) -> int:
        with self._lock, translated(self._file):
            try:
                return int(self._cursor.execute("PRAGMA data_version").get)
            except apsw.BusyError:  # this runs on the event loop: not knowing is better than waiting
                return next(self._unknown)

    def close(self) -> None:
        """Twice is harmless."""
        with self._lock:
            self._connection.close()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
