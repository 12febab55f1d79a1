"""Searches a second over HTTP, beside LangChain and FAISS behind FastAPI over the same passages, with the same client, in turn."""

from __future__ import annotations

import asyncio
import json
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from bench import Bench
from serving import Watched, running

from benchmarks.environments import TORCH, environment
from ragline.embedding.models import DEFAULT_MODEL, locate_model
from ragline.settings import Settings
from ragline.storage.sqlite import SqliteStore
from ragline.types import Scope

ROUNDS = 3
SECONDS = 6.0

_HERE = Path(__file__).parent


def beside_langchain(bench: Bench) -> dict[str, Any]:
    """Both keep their caches off, as there are none in the other, and use as many cores as there are, one server at a time.

    The other has one process, whose matrices are spread over the cores, and then as many as ragline: what gives it more counts.
    """
    asyncio.run(_export(bench.store))
    ours, theirs = list[dict[str, Any]](), list[dict[str, Any]]()
    for _ in range(ROUNDS):
        with bench.serving({"cache.enabled": "false"}) as server:
            bench.warm(server, "/api/v1/search")
            ours.append(bench.peak(server, "/api/v1/search", bench.unseen))
        tried = []
        for processes in sorted({1, bench.workers}):
            with _peer(bench.store, processes) as server:
                bench.warm(server, "/api/v1/search")
                tried.append({"processes": processes, **bench.peak(server, "/api/v1/search", bench.unseen)})
        theirs.append(max(tried, key=lambda run: float(run["good_per_s"])))
    names = {"ragline": ours, "LangChain + FAISS + FastAPI": theirs}
    per_s = [statistics.median(run["good_per_s"] for run in runs) for runs in names.values()]
    rounds = {f"{name}, round {n + 1}": run for name, runs in names.items() for n, run in enumerate(runs)}
    return {**rounds, "times_as_many": per_s[0] / per_s[1]}


@contextmanager
def _peer(folder: Path, processes: int) -> Iterator[Watched]:
    python = environment("langchain", _HERE.parent / "adapters" / "requirements-langchain.txt", first=[TORCH]) / "python"
    model = locate_model(DEFAULT_MODEL, cache_dir=Settings().model_cache_dir(), announce=print).path
    command = [str(python), str(_HERE / "peer_app.py"), str(model), str(folder), str(processes)]
    quiet = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "PYTHONWARNINGS": "ignore"}
    with running(command, folder / "peer.log", quiet) as server:
        yield server


async def _export(folder: Path) -> None:
    """The passages and their vectors, which this model made: how fast they are searched does not depend on who embedded them."""
    store = await SqliteStore.open(folder)
    try:
        scope = Scope("default", "default")
        head = await store.head(scope)
        ids, texts, vectors = [], [], []
        async for page in store.changes(scope, 0, head.lsn, model=head.model, with_passages=True):
            ids += [str(row) for row in page.rows.tolist()]
            texts += page.passages
            vectors.append(page.vectors.astype(np.float32))
    finally:
        await store.close()
    (folder / "passages.json").write_text(json.dumps({"ids": ids, "texts": texts}), encoding="utf-8")
    np.save(folder / "vectors.npy", np.concatenate(vectors))
