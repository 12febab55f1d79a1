"""Hundreds of people at once, imitated by locust in an environment of its own."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import Bench

from benchmarks.environments import environment

USERS = (500, 250)
"""At once; fewer after more, on a store of its own each, to say what a machine can do that cannot do the first."""
SPAWN_PER_S = 50
SECONDS = 60
DISTINCT = 300
"""As in `locustfile.py`."""
WARM = ((12, 50), (60, 30))
"""Rates a second, and for how many seconds: each process answers most questions itself, for what one has answered, another has not."""

_HERE = Path(__file__).parent


def users(bench: Bench) -> dict[str, Any]:
    """Three questions to one upload of a text of one chunk, with 1 to 3 s between, from each of so many.

    Before, each process has answered most of the questions.
    """
    found = {}
    for count in USERS:
        with tempfile.TemporaryDirectory() as folder:
            store = Path(folder) / "store"
            shutil.copytree(bench.store, store)
            found[f"{count} users"] = _together(bench, store, count)
    return found


def _together(bench: Bench, store: Path, count: int) -> dict[str, Any]:
    locust = environment("locust", _HERE.parent / "adapters" / "requirements-locust.txt") / "locust"
    with bench.serving(store=store) as server, tempfile.TemporaryDirectory() as folder:
        bench.warm(server)
        for rate, seconds in WARM:
            bench.load(server, "/api/v1/query", bench.first(DISTINCT), connections=16, rate=rate, seconds=seconds)
        command = [str(locust), "-f", str(_HERE / "locustfile.py"), "--headless", "--host", f"http://{server.host}:{server.port}"]
        command += ["-u", str(count), "-r", str(SPAWN_PER_S), "-t", f"{SECONDS}s", "--csv", f"{folder}/users", "--reset-stats"]
        cpu, wall = server.cpu_s(), time.perf_counter()
        variables = {**os.environ, "RAGLINE_QUESTIONS": str(store / "questions.json")}
        before = os.times()
        subprocess.run(command, check=False, env=variables, stdout=subprocess.DEVNULL)
        after, took_s = os.times(), time.perf_counter() - wall
        with Path(folder, "users_stats.csv").open(encoding="utf-8") as lines:
            found = {row["Name"]: _figures(row) for row in csv.DictReader(lines)}
        return {
            **found,
            "server_cpu": (server.cpu_s() - cpu) / took_s,
            "client_cpu": (after.children_user - before.children_user + after.children_system - before.children_system) / took_s,
            "memory_mb": max(server.memory_bytes) / 1e6,
        }


def _figures(row: dict[str, str]) -> dict[str, Any]:
    return {
        "good_per_s": float(row["Requests/s"]) - float(row["Failures/s"]),
        "statuses": {"requests": int(row["Request Count"]), "failures": int(row["Failure Count"])},
        **{f"p{q}_ms": float(row[f"{q}%"]) for q in (50, 95, 99)},
    }
