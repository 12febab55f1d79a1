"""Servers in processes of their own, started as people start them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import psutil

PATIENCE_S = 60.0


class Running:
    """A server's process.

    Attributes:
        url: Where it listens.
        log: What it has written so far, in this file.
    """

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.log = log
        self.url = ""

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def workers(self) -> set[int]:
        """The processes below that answer; helpers of Python's and parsers are not among them."""
        return {each.pid for each in psutil.Process(self.process.pid).children() if _works(each)}

    def post(self, path: str, body: Any, **headers: str) -> httpx2.Response:
        """On a connection of its own, so that any of the workers may answer."""
        return httpx2.post(self.url + path, json=body, headers=headers, timeout=30)

    def get(self, path: str, **headers: str) -> httpx2.Response:
        return httpx2.get(self.url + path, headers=headers, timeout=30)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Tells it to stop; returns its exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)


def until(met: Any, what: str) -> Any:
    """Waits until a condition is met, and returns what it gave."""
    ends = time.monotonic() + PATIENCE_S
    while not (found := met()):
        assert time.monotonic() < ends, f"waited in vain until {what}"
        time.sleep(0.05)
    return found


@contextmanager
def started(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Iterator[Running]:
    """A server while it lasts; it is killed with all of its children if it is still there at the end."""
    log = folder / "log.txt"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=folder,
            env={**os.environ, **environment},
            stdout=stream,
            stderr=stream,
            stdin=subprocess.DEVNULL,
        )
    running = Running(process, log)
    try:
        found = until(
            lambda: re.search(r"[Ll]istening (?:on|at):? (http://[\d.]+:\d+)", running.said()) or process.poll() is not None,
            f"the server listened: {running.said()}",
        )
        if not isinstance(found, bool):
            running.url = found[1]
            until(lambda: _is_ready(running) or process.poll() is not None, "the server was ready")
        yield running
    finally:
        if process.poll() is None:
            children = psutil.Process(process.pid).children(recursive=True)
            for each in [*children, psutil.Process(process.pid)]:
                if each.is_running():
                    each.kill()
        process.wait()


def _works(process: psutil.Process) -> bool:
    try:
        return "resource_tracker" not in " ".join(process.cmdline())
    except psutil.Error:  # it has just died
        return False


def _is_ready(running: Running) -> bool:
    try:
        return running.get("/readyz").status_code == 200
    except httpx2.TransportError:
        return False
