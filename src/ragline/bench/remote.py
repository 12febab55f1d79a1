"""What do batches and parallel requests save where each request to an embedding server takes its time?"""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

from ragline.bench.timing import Stopwatch
from ragline.concurrency.workers import Workers
from ragline.embedding.openai import OpenAIEmbedder
from ragline.settings import EmbeddingSettings, PoolSettings
from ragline.types import Chunk

LATENCY_S = 0.02
DIMENSION = 384
TEXTS = 2048
ONE_BY_ONE = 100
ROUNDS = 3


def measure_remote(texts: Sequence[str]) -> dict[str, Any]:
    """Texts a second from a server on this machine that answers each request after `LATENCY_S`, however many texts it holds.

    One by one, each text waits for the one before; in batches, with one request at a time and with as many as the
    settings' defaults. In turn, the best of `ROUNDS`.
    """
    chunks = [Chunk(text, 0, len(text)) for text in texts[:TEXTS]]
    with vector_server(LATENCY_S) as address:
        rates = asyncio.run(_rates(address, chunks))
    ratios = {f"{name}_over_one_by_one": rate / rates["one_by_one"] for name, rate in rates.items() if name != "one_by_one"}
    options = {"latency_ms": LATENCY_S * 1000, "texts": len(chunks), "one_by_one": ONE_BY_ONE, "rounds": ROUNDS, "dimension": DIMENSION}
    return {"options": options, "texts_per_s": rates, **ratios}


async def _rates(address: str, chunks: Sequence[Chunk]) -> dict[str, float]:
    questions, bulk = Workers("questions", 1), Workers("bulk", 2)
    pool = PoolSettings()
    settings = EmbeddingSettings(runtime="openai", model="bench", base_url=address)
    both = {"batches": settings.model_copy(update={"parallel_requests": 1}), "parallel_batches": settings}
    opened = {
        name: await questions.run(
            OpenAIEmbedder.open, each, Path(), lambda _: None, pool=pool, question_workers=questions, bulk_workers=bulk
        )
        for name, each in both.items()
    }
    rates = dict.fromkeys(("one_by_one", *opened), 0.0)
    for _ in range(ROUNDS):
        watch = Stopwatch()
        for chunk in chunks[:ONE_BY_ONE]:
            await opened["batches"].embed_passages([chunk])
        rates["one_by_one"] = max(rates["one_by_one"], min(ONE_BY_ONE, len(chunks)) / watch.stop().wall_s)
        for name, embedder in opened.items():
            watch = Stopwatch()
            await embedder.embed_passages(chunks)
            rates[name] = max(rates[name], len(chunks) / watch.stop().wall_s)
    for embedder in opened.values():
        await embedder.close()
    questions.close()
    bulk.close()
    return rates


@contextmanager
def vector_server(latency_s: float) -> Iterator[str]:
    """The address of a server that gives every text some vector, while it lasts."""
    vector = base64.b64encode(np.random.default_rng(0).standard_normal(DIMENSION).astype("<f4").tobytes()).decode()

    class Answering(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # or head and body would wait for each other

        def do_POST(self) -> None:
            texts = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["input"]
            time.sleep(latency_s)
            body = json.dumps({"data": [{"index": index, "embedding": vector} for index in range(len(texts))]}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
