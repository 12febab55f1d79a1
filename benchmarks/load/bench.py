"""What every scenario of the load benchmark has: a store, its questions, a server over it, and a client in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from serving import Watched, serving

CONNECTIONS = (1, 2, 4, 8)
SECONDS = 6.0
"""Of a run that looks for the peak."""


class Bench:
    """One store, its questions, and the server that each scenario starts over it.

    Args:
        workers: How many processes the server has, where a scenario does not keep it to one core.
    """

    def __init__(self, store: Path, questions: Sequence[str], workers: int = 1) -> None:
        self.store = store
        self.workers = workers
        self._questions = questions
        self._asked = 0
        cores = sorted(os.sched_getaffinity(0))
        self.server_core, self.client_core = cores[0], cores[-1]

    def serving(self, settings: Mapping[str, object] | None = None, store: Path | None = None) -> AbstractContextManager[Watched]:
        """The server, with as many processes as it is to have."""
        return serving(store or self.store, {"server.workers": self.workers, **(settings or {})})

    def load(self, server: Watched, path: str, bodies: Sequence[str], **plan: Any) -> dict[str, Any]:
        """What a client of its own process measured, and what the server spent meanwhile."""
        told = {"host": server.host, "port": server.port, "path": path, "bodies": list(bodies), **plan}
        cpu, wall = server.cpu_s(), time.perf_counter()
        command = [sys.executable, str(Path(__file__).with_name("client.py"))]
        outcome = subprocess.run(command, input=json.dumps(told), stdout=subprocess.PIPE, text=True, check=True)
        spent = server.cpu_s() - cpu
        measured: dict[str, Any] = json.loads(outcome.stdout)
        return {**measured, "server_cpu": spent / (time.perf_counter() - wall)}

    def unseen(self, **more: Any) -> list[str]:
        """Bodies of all questions, those first that were not asked for longest."""
        start, self._asked = self._asked, (self._asked + 2000) % len(self._questions)
        turned = [*self._questions[start:], *self._questions[:start]]
        return [json.dumps({"query": question, **more}) for question in turned]

    def first(self, count: int) -> list[str]:
        """Bodies of the first so many questions."""
        return [json.dumps({"query": question}) for question in self._questions[:count]]

    def warm(self, server: Watched, *paths: str) -> None:
        """Loads model and views, and lets limits learn how long calls take when there is no crowd."""
        connections = 2 if self.workers == 1 else 8 * self.workers  # so many, that each process has some
        for path in paths or ("/api/v1/search", "/api/v1/query"):
            self.load(server, path, self.unseen(), connections=connections, rate=10 * self.workers, seconds=5)

    def peak(self, server: Watched, path: str, bodies: Callable[[], Sequence[str]], **plan: Any) -> dict[str, Any]:
        """The run with the most answers a second, of closed ones with more and more connections."""
        runs = [
            {"connections": count, **self.load(server, path, bodies(), connections=count, seconds=SECONDS, **plan)} for count in CONNECTIONS
        ]
        return max(runs, key=lambda run: float(run["good_per_s"]))
