"""How much later than the language model does a streamed answer begin? By a server whose tokens carry the moment they left."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import httpx2

import ragline
from ragline.bench.served import served
from ragline.bench.timing import Spent, latency
from ragline.concurrency.workers import Workers
from ragline.embedding.estimated_tokenizer import EstimatedTokenizer
from ragline.generation.base import Generator
from ragline.generation.opening import open_generator
from ragline.settings import GenerationSettings, PoolSettings, Settings, load_settings
from ragline.types import Document, ScoredChunk

ANSWERS = 200
WARM_UP = 10
TOKENS = 20
PAUSE_S = 0.002
PASSAGES = 8
SENTENCES = 10

_QUESTION = "What time is it?"

_Run = Callable[[], AsyncIterator[str]]


def measure_first_token(sentences: Sequence[str]) -> dict[str, Any]:
    """Milliseconds from a token's leaving the model's server to its arrival, each way in turn.

    `ragline` is through the generator, `client_alone` through the bare client; `served_events` and `served_openai` through `ragline serve`,
    a third process: the events of /api/v1/query, and the chunks of /v1/chat/completions as the official client gives them.
    `before_request` is what passes between a question and its arrival at the model's server.

    Args:
        sentences: What the answers are made from.
    """
    passages = [" ".join(sentences[at : at + SENTENCES]) for at in range(0, PASSAGES * SENTENCES, SENTENCES)]
    with _server() as port, tempfile.TemporaryDirectory(prefix="ragline-bench-") as folder:
        base_url = f"http://127.0.0.1:{port}/v1"
        settings = ["generation.generator=openai", "generation.model=clock", f"generation.base_url={base_url}", "cache.enabled=false"]
        with ragline.open(folder, settings=Settings(cache_dir=load_settings().settings.cache_dir)) as engine:
            engine.ingest([Document(passage, id=str(place)) for place, passage in enumerate(passages)])
        with served(Path(folder), settings) as url:
            return {
                "options": {"answers": ANSWERS, "tokens": TOKENS, "pause_ms": 1000 * PAUSE_S, "passages": PASSAGES},
                **asyncio.run(_measure(base_url, url, passages)),
            }


async def _measure(base_url: str, url: str, passages: Sequence[str]) -> dict[str, Any]:
    settings = GenerationSettings(generator="openai", model="clock", base_url=base_url)
    workers = Workers("bench", 1)
    generator = open_generator(settings, PoolSettings(), count_tokens=EstimatedTokenizer().count, fallback=None, workers=workers)
    evidence = [
        ScoredChunk(place, str(place), 1, 1.0, None, None, text, f"{place}.txt", {}, 0, len(text)) for place, text in enumerate(passages)
    ]
    import openai

    client = openai.AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0)
    served_client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    browser = httpx2.AsyncClient(base_url=url)
    runs: dict[str, _Run] = {
        "ragline": lambda: _through_ragline(generator, evidence),
        "client_alone": lambda: _through_client(client, "clock"),
        "served_events": lambda: _through_events(browser),
        "served_openai": lambda: _through_client(served_client, "ragline"),
    }
    delays = {name: defaultdict[str, list[Spent]](list) for name in runs}
    for number in range(WARM_UP + ANSWERS):
        for name, run in runs.items():
            spent = await _delays(run)
            if number >= WARM_UP:
                for kind, values in spent.items():
                    delays[name][kind] += values
    await generator.close()
    await client.close()
    await served_client.close()
    await browser.aclose()
    workers.close()
    return {name: {kind: _figures(values) for kind, values in kinds.items()} for name, kinds in delays.items()}


async def _delays(run: _Run) -> dict[str, list[Spent]]:
    asked = time.monotonic_ns()
    seen: list[tuple[int, int, int]] = []  # when the request arrived, when the token left, when it is here
    async for piece in run():
        here = time.monotonic_ns()
        arrived, _, left = piece.strip().partition("at")
        if left:
            seen.append((int(arrived), int(left), here))
    assert len(seen) == TOKENS
    late = [Spent((here - left) / 1e9, 0.0) for _, left, here in seen]
    return {"before_request": [Spent((seen[0][0] - asked) / 1e9, 0.0)], "first_token": late[:1], "every_token": late}


def _figures(spent: Sequence[Spent]) -> dict[str, float]:
    return {name: value for name, value in asdict(latency(spent)).items() if name != "cpu_p50_ms"}


async def _through_ragline(generator: Generator, evidence: Sequence[ScoredChunk]) -> AsyncIterator[str]:
    async for piece in generator.generate(_QUESTION, evidence):
        if isinstance(piece, str):
            yield piece


async def _through_client(client: Any, model: str) -> AsyncIterator[str]:
    async for chunk in await client.chat.completions.create(model=model, messages=[{"role": "user", "content": _QUESTION}], stream=True):
        if chunk.choices and chunk.choices[0].delta.content:
            yield chunk.choices[0].delta.content


async def _through_events(browser: httpx2.AsyncClient) -> AsyncIterator[str]:
    async with browser.stream("POST", "/api/v1/query", json={"query": _QUESTION, "stream": True}) as response:
        kind = ""
        async for line in response.aiter_lines():
            if line.startswith("event: "):
                kind = line.removeprefix("event: ")
            elif kind == "token" and line.startswith("data: "):
                yield json.loads(line.removeprefix("data: "))


@contextmanager
def _server() -> Iterator[int]:
    """A server in a process of its own, so that it shares no interpreter with what is measured; gives its port."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
    try:
        yield int(ours.recv())
    finally:
        process.terminate()
        process.join()


def _serve(ready: Connection) -> None:
    async def run() -> None:
        server = await asyncio.start_server(_answer, "127.0.0.1", 0)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers each request of a connection with `TOKENS` tokens, each the moment it leaves."""
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            await reader.readexactly(int(head.partition(b"content-length:")[2].partition(b"\r\n")[0]))
            arrived = time.monotonic_ns()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
            for _ in range(TOKENS):
                await asyncio.sleep(PAUSE_S)
                _send(writer, f'{{"content": "{arrived}at{time.monotonic_ns()} "}}, "finish_reason": null')
            _send(writer, '{}, "finish_reason": "stop"')
            writer.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


def _send(writer: asyncio.StreamWriter, delta: str) -> None:
    event = f'data: {{"id": "1", "object": "chat.completion.chunk", "choices": [{{"index": 0, "delta": {delta}}}]}}\n\n'.encode()
    writer.write(b"%x\r\n%s\r\n" % (len(event), event))
