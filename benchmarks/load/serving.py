"""`ragline serve` and other servers as processes that are measured from outside."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread

import httpx2

from ragline.bench.machine import descendants, resident_bytes

_LISTENING = re.compile(r"listening on http://([^\s:]+):(\d+)")


@dataclass
class Watched:
    """A server that runs.

    Attributes:
        memory_bytes: What it and its children held, once a second.
    """

    host: str
    port: int
    pid: int
    memory_bytes: list[int] = field(default_factory=list)

    def cpu_s(self) -> float:
        """Processor time of it and its children so far."""
        return sum(_cpu_s(pid) for pid in (self.pid, *descendants(self.pid)))


@contextmanager
def serving(store: Path, settings: Mapping[str, object] | None = None, *, core: int | None = None) -> Iterator[Watched]:
    """Runs the server over a store while it lasts, kept to one core where that is given."""
    command = [sys.executable, "-m", "ragline", "serve", "--data-dir", str(store), "--port", "0"]
    for key, value in {"server.log_level": "info", **(settings or {})}.items():
        command += ["--set", f"{key}={value}"]
    with running(command, store / "serve.log", {"RAGLINE_SERVER__LOG_LEVEL": "info"}, core=core) as watched:
        yield watched


@contextmanager
def running(command: Sequence[str], log: Path, variables: Mapping[str, str], *, core: int | None = None) -> Iterator[Watched]:
    """Runs a server that tells where it listens and answers 200 at /readyz when it is ready."""
    with log.open("w") as written:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=subprocess.STDOUT,
            env={**os.environ, **variables},
            preexec_fn=(lambda: os.sched_setaffinity(0, {core})) if core is not None else None,
            start_new_session=True,
        )
    try:
        host, port = _address(process, log)
        with _watching(Watched(host, port, process.pid)) as watched:
            yield watched
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        with suppress(ProcessLookupError):  # where nobody is left
            os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def imitated_llm(seconds: float = 0.2) -> Iterator[str]:
    """The address of a language model's server that answers after so many seconds."""
    command = [sys.executable, str(Path(__file__).with_name("imitated_llm.py")), str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def _address(process: subprocess.Popen[bytes], log: Path) -> tuple[str, int]:
    while not (found := _LISTENING.search(log.read_text(encoding="utf-8"))):
        if process.poll() is not None:
            raise RuntimeError(f"the server ended: {log.read_text(encoding='utf-8')[-800:]}")
        time.sleep(0.05)
    host, port = found[1], int(found[2])
    with httpx2.Client(base_url=f"http://{host}:{port}", timeout=120, trust_env=False) as client:
        while client.get("/readyz").status_code != 200:
            time.sleep(0.05)
    return host, port


@contextmanager
def _watching(watched: Watched) -> Iterator[Watched]:
    over = Event()

    def look() -> None:
        while not over.wait(1.0):
            watched.memory_bytes.append(resident_bytes([watched.pid, *descendants(watched.pid)]))

    watcher = Thread(target=look)
    watcher.start()
    try:
        yield watched
    finally:
        over.set()
        watcher.join()


def _cpu_s(pid: int) -> float:
    try:
        fields: Sequence[str] = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
