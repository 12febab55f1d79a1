"""What the driver and a system under test say to each other: one JSON object a line, calls in, answers out.

Standard library only: it is imported in every peer's own environment.
"""

from __future__ import annotations

import json
import os
import sys
import time
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor


def pin(core: int) -> None:
    """Before anything heavy is imported, so that every thread pool is made for one core."""
    os.sched_setaffinity(0, {core})
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"):
        os.environ[variable] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def spent(start: tuple[float, float]) -> dict[str, float]:
    return {"wall_s": time.perf_counter() - start[0], "cpu_s": time.process_time() - start[1]}


def now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def peak_mb() -> float:
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) / 1024


def serve(system: object) -> None:
    """Answers calls of the system's methods until standard input ends. Whatever a library prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        call = json.loads(line)
        result = getattr(system, call["method"])(**call["arguments"])
        answers.write(json.dumps(result) + "\n")
        answers.flush()


class BlockingSystem(ABC):
    """The measurements of a system with a blocking interface."""

    @abstractmethod
    def retrieve(self, question: str) -> list[str]:
        """The ids of what it finds, best first."""

    def search(self, questions: list[str]) -> dict[str, object]:
        calls, ids = [], []
        for question in questions:
            start = now()
            found = self.retrieve(question)
            calls.append(spent(start))
            ids.append(found)
        return {"calls": calls, "ids": ids}

    def callers(self, questions: list[str], callers: int) -> dict[str, object]:
        """So many callers at once, on threads; and the same questions one after the other, which may be quicker."""
        with ThreadPoolExecutor(callers) as pool:
            list(pool.map(self.retrieve, questions[:callers]))  # the threads are there
            start = now()
            list(pool.map(self.retrieve, questions))
            threads = spent(start)
        start = now()
        for question in questions:
            self.retrieve(question)
        return {"threads": threads, "one after the other": spent(start)}
