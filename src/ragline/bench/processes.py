"""Each measurement that depends on the process (cores, memory, imports) gets one of its own."""

from __future__ import annotations

import multiprocessing
import os
import resource
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import ParamSpec, TypeVar

from ragline.bench.timing import Spent, Stopwatch

P = ParamSpec("P")
T = TypeVar("T")


def in_fresh_process(function: Callable[P, T], cores: int | None, /, *args: P.args, **kwargs: P.kwargs) -> T:
    """What a function at the top of a module gives when it is run in a new process.

    Args:
        cores: How many cores the process may use, the highest-numbered ones of this process's; None: as many as
            this one.
    """
    # Spawned: nothing of this process's libraries, threads and memory goes along.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=pin, initargs=(cores,)) as pool:
        return pool.submit(function, *args, **kwargs).result()


def pin(cores: int | None) -> None:
    """Keeps this thread, and the threads that it starts, to so many cores, where the system can."""
    if cores is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-cores:])


def run_command(command: Sequence[str]) -> Spent:
    """Runs a command to its end and says what it took, with the processor time of all that it started.

    Raises:
        subprocess.CalledProcessError: It failed.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    watch = Stopwatch()
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    wall_s = watch.stop().wall_s
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Spent(wall_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
