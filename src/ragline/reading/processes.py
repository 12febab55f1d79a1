"""Parser processes: started when needed, limited, and replaced when they crash, hang or grow."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from ragline.errors import BackendError, RaglineError, ReadError
from ragline.reading.parsing.frames import LENGTH, OUT_OF_MEMORY
from ragline.settings import ReadingSettings

_START_TIMEOUT_S = 60.0
_DYING_S = 2.0
"""How long a process that has let go of its pipes may take to end: killed before, it could not say what it died of."""
_FOLDER = str(Path(__file__).parent)
# Runs isolated (-I): no user site, no PYTHON* variables, nothing from the working folder. Only this folder and the one
# with kreuzberg are looked into; `parsing` imports nothing else of ragline.
_BOOT = "import sys; sys.path[:0] = sys.argv[2:]; from parsing.worker import main; del sys.path[0]; main()"
_ENVIRONMENT = {
    "HOME": "/nonexistent",
    "LANG": "C.UTF-8",
    "OMP_THREAD_LIMIT": "1",
    "PATH": "/usr/bin:/bin",
    "RAYON_NUM_THREADS": "1",
    "TOKIO_WORKER_THREADS": "1",
}


class ParserProcess:
    """One parser process. `parse` is called by one thread at a time; `kill` may be called by any.

    The process is spawned, never forked: FAISS and onnxruntime may be loaded here.
    """

    def __init__(self, settings: ReadingSettings) -> None:
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._closed = False
        self._at = ""  # the member of an archive that is being read

    @property
    def pid(self) -> int | None:
        """The process's id; None where none is running."""
        process = self._process
        return None if process is None else process.pid

    def parse(self, path: str, media_type: str) -> dict[str, Any]:
        """What the parser says of a file: `text`, `headings`, `pages`, `metadata`, `media_type`, or `error` and `hint`.

        Raises:
            ReadError: The parser crashed on it, or took too long or too much memory. The next call starts a new one.
            BackendError: No parser process can be started, or the reader was closed.
        """
        served_before = self._process is not None
        try:
            answer = self._ask(self._running(), path, media_type)
        except EOFError:
            failure = self._explain(self._end(wait_s=_DYING_S))
            if not served_before or self._closed:
                raise failure from None
            # A process that served other files may have died of them, or while it was idle: a new one tries again.
            return self.parse(path, media_type)
        if answer.get("memory_bytes", 0) > self._settings.max_memory_bytes // 2:
            self._end()  # what it did not give back would count against the next file
        return answer

    def kill(self) -> None:
        """Ends the process at once and starts none any more; a `parse` under way fails. Twice is harmless."""
        with self._lock:
            self._closed = True
            if self._process is not None:
                self._process.kill()

    def reap(self) -> None:
        """Lets go of the ended process. Not while a `parse` is under way."""
        self._end()

    def _ask(self, process: subprocess.Popen[bytes], path: str, media_type: str) -> dict[str, Any]:
        self._at = ""
        self._send(process, {"path": path, "media_type": media_type})
        deadline = time.monotonic() + self._settings.timeout_s
        try:
            while "at" in (answer := self._receive(process, deadline)):
                self._at = answer["at"]
        except TimeoutError:
            self._end()
            message = f"parsing took longer than {self._settings.timeout_s:g} s{self._where()}"
            raise ReadError(message, hint=self._cure("reading.timeout_s")) from None
        return answer

    def _where(self) -> str:
        return f", at {self._at!r} in it" if self._at else ""

    def _cure(self, setting: str) -> str:
        raise_it = f"raise {setting} if the file is sound"
        return f"unpack it and ingest the folder, or {raise_it}" if self._at else raise_it

    def _running(self) -> subprocess.Popen[bytes]:
        """The process, started where there is none (or where the last one was killed from outside)."""
        if self._process is not None and self._process.poll() is not None:
            self._end()
        if self._process is None:
            with self._lock:
                if self._closed:
                    raise BackendError("the reader is closed")
                self._process = _spawn(self._settings)
            try:
                self._receive(self._process, time.monotonic() + _START_TIMEOUT_S)
            except (TimeoutError, EOFError) as exc:
                status = self._end()
                raise BackendError(
                    f"a parser process could not be started (exit status {status})",
                    hint="run `ragline doctor`; is kreuzberg installed for this Python?",
                ) from exc
        return self._process

    def _end(self, *, wait_s: float = 0.0) -> int:
        """Ends and reaps the process; its exit status, negative for a signal.

        Args:
            wait_s: How long it may take to end by itself.
        """
        with self._lock:
            process, self._process = self._process, None
        if process is None:
            return 0
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(wait_s)
        process.kill()
        status = process.wait()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()  # type: ignore[union-attr]
        return status

    def _explain(self, status: int) -> RaglineError:
        if self._closed:
            return BackendError("the reader was closed while it read")
        if status == OUT_OF_MEMORY:
            megabytes = self._settings.max_memory_bytes // 2**20
            return ReadError(f"parsing took more than {megabytes} MB of memory{self._where()}", hint=self._cure("reading.max_memory_bytes"))
        reason = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        hint = "unpack it and ingest the folder" if self._at else "open it in its own program and save it again"
        return ReadError(f"the parser crashed on it ({reason}){self._where()}", hint=hint)

    def _send(self, process: subprocess.Popen[bytes], message: dict[str, Any]) -> None:
        assert process.stdin is not None
        body = json.dumps(message).encode()
        try:
            # A request is smaller than a pipe's buffer: this does not block, whatever the process does.
            process.stdin.write(LENGTH.pack(len(body)) + body)
            process.stdin.flush()
        except BrokenPipeError as exc:
            raise EOFError from exc

    def _receive(self, process: subprocess.Popen[bytes], deadline: float) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self._frame(process, deadline))
        return {**message, "text": self._frame(process, deadline).decode()}

    def _frame(self, process: subprocess.Popen[bytes], deadline: float) -> bytes:
        assert process.stdout is not None
        fd = process.stdout.fileno()
        length = LENGTH.unpack(_read_exactly(fd, LENGTH.size, deadline))[0]
        if length > 4 * self._settings.max_text_chars + 64 * 2**20:
            raise EOFError  # more than any sound parser sends
        return _read_exactly(fd, length, deadline)


def _spawn(settings: ReadingSettings) -> subprocess.Popen[bytes]:
    spec = importlib.util.find_spec("kreuzberg")
    if spec is None or spec.origin is None:
        raise BackendError("kreuzberg is not installed", hint="pip install kreuzberg")
    limits = {
        "max_memory_bytes": settings.max_memory_bytes,
        "max_text_chars": settings.max_text_chars,
        "max_file_bytes": settings.max_file_bytes,
        "hidden": settings.hidden,
        "ocr_language": settings.ocr_language,
        "ocr_data_dir": None if settings.ocr_data_dir is None else os.path.abspath(settings.ocr_data_dir),
        "temporary": tempfile.gettempdir(),
        "parent": os.getpid(),
    }
    packages = str(Path(spec.origin).parent.parent)
    try:
        return subprocess.Popen(
            [sys.executable, "-I", "-c", _BOOT, json.dumps(limits), _FOLDER, packages],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            close_fds=True,
            cwd="/",  # whatever a parser wants to write by a relative name, it does not write it here
            env=_ENVIRONMENT,
            bufsize=-1,
        )
    except OSError as exc:
        raise BackendError(f"a parser process could not be started: {exc}") from exc


def _read_exactly(fd: int, size: int, deadline: float) -> bytes:
    """Reads `size` bytes.

    Raises:
        TimeoutError: They did not come before `deadline` (monotonic seconds).
        EOFError: The other side has gone.
    """
    data = bytearray()
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while len(data) < size:
        remaining = deadline - time.monotonic()
        if remaining <= 0 or not poll.poll(remaining * 1000):
            raise TimeoutError
        piece = os.read(fd, min(size - len(data), 2**20))
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)
