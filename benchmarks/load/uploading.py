"""Files of 100 kB as fast as they are taken, while somebody searches."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx2
from bench import Bench
from serving import Watched
from workload import large_text

from ragline.bench.machine import usable_cores
from ragline.chunking.chunker import Chunker
from ragline.concurrency.workers import Workers
from ragline.embedding.onnx_runtime import OnnxEmbedder
from ragline.settings import Settings

FILE_BYTES = 100_000
FILES = 40
SEARCHES_PER_S = 5
MOST_SECONDS = 600.0
EMBEDDED_ALONE = 6
"""Files of which the rate of embedding alone is measured: some hundred chunks."""


def upload_while_searching(bench: Bench) -> dict[str, Any]:
    """How fast files are accepted, how fast they can be found, and what that does to searches."""
    sentences = json.loads((bench.store / "questions.json").read_text(encoding="utf-8"))
    files = [large_text(number, sentences, FILE_BYTES) for number in range(FILES)]
    size_mb = sum(len(text.encode()) for text in files) / 1e6
    with bench.serving({"cache.enabled": "false"}) as server:
        bench.warm(server)
        with httpx2.Client(base_url=f"http://{server.host}:{server.port}", timeout=60, trust_env=False) as client:
            chunks = _chunks(client)
            alone = bench.load(server, "/api/v1/search", bench.unseen(), connections=4, rate=SEARCHES_PER_S, seconds=10)
            searching = _searching(bench, server)
            began = time.perf_counter()
            for number, text in enumerate(files):
                answer = client.post("/api/v1/documents", files={"file": (f"file-{number}.txt", text.encode(), "text/plain")})
                answer.raise_for_status()
            accepted_s = time.perf_counter() - began
            while (left := _under_way(client)) and time.perf_counter() - began < MOST_SECONDS:
                time.sleep(0.25)
            searchable_s = time.perf_counter() - began
            searching.terminate()
            told = searching.communicate()[0]
            new = _chunks(client) - chunks
        memory = max(server.memory_bytes) / 1e6
    alone_per_s = asyncio.run(_embedded_alone(files[:EMBEDDED_ALONE]))
    return {
        "searches alone": alone,
        "searches meanwhile": json.loads(told) if told.strip() else {},
        "accepted_mb_per_s": size_mb / accepted_s,
        "searchable_chunks_per_s": new / searchable_s,
        "embedded_alone_chunks_per_s": alone_per_s,
        "searchable_of_embedded_alone": new / searchable_s / alone_per_s,
        "searchable_mb_per_s": size_mb / searchable_s,
        "files_left": left,
        "memory_mb": memory,
    }


def _searching(bench: Bench, server: Watched) -> subprocess.Popen[str]:
    plan = {"host": server.host, "port": server.port, "path": "/api/v1/search", "bodies": bench.unseen(), "connections": 4}
    plan |= {"rate": SEARCHES_PER_S, "seconds": MOST_SECONDS}
    command = [sys.executable, str(Path(__file__).with_name("client.py"))]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    process.stdin.write(json.dumps(plan))
    process.stdin.close()
    process.stdin = None
    return process


async def _embedded_alone(texts: Sequence[str]) -> float:
    """Chunks a second of texts like these where nothing else is done, on all cores."""
    settings, workers = Settings(), Workers("alone", usable_cores())
    embedder = OnnxEmbedder.open(settings.embedding, settings.model_cache_dir(), print, question_workers=workers, bulk_workers=workers)
    most = min(settings.chunking.max_tokens, embedder.max_tokens)
    chunker = Chunker(embedder.tokenizer, max_tokens=most, overlap_tokens=settings.chunking.overlap_tokens)
    chunks = [chunk for text in texts for chunk in chunker.chunk(text)]
    await embedder.embed_passages(chunks[:20])
    began = time.perf_counter()
    await embedder.embed_passages(chunks)
    took_s = time.perf_counter() - began
    await embedder.close()
    workers.close()
    return len(chunks) / took_s


def _under_way(client: httpx2.Client) -> int:
    jobs = client.get("/api/v1/jobs", params={"limit": 200}).raise_for_status().json()["jobs"]
    return sum(job["state"] in ("queued", "running") for job in jobs)


def _chunks(client: httpx2.Client) -> int:
    return int(client.get("/api/v1/stats").raise_for_status().json()["chunks"])
