"""An embedder for many callers: their texts share batches, and no text is embedded twice."""

from __future__ import annotations

import asyncio
import copy
import os
import time
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Self

import numpy as np

from ragline.caching.base import Cache
from ragline.caching.memory import MemoryCache
from ragline.chunking.base import Tokenizer
from ragline.concurrency.batching import BatchBudget, BatchProcessor, may_be_one_items_fault
from ragline.concurrency.workers import Workers, on_worker
from ragline.embedding.base import Embedder
from ragline.embedding.embedder_stats import EmbedderCounts, EmbedderStats
from ragline.embedding.shared_vectors import Flight, SharedVectors
from ragline.embedding.vector_cache import KINDS, Kind, Stored, VectorCache
from ragline.errors import BackendError, InputError, MissingExtraError, RaglineError, SettingsError
from ragline.types import Chunk, Float32, Scope

_LEAST_BATCH_TOKENS = 512
_BYTES_PER_TOKEN = 4
"""About, for the budget of a batch; whether a text is too long is counted exactly."""

_TOKENS_PER_CHARACTER = 4
"""At most, but for odd characters: a shorter text need not be counted."""


@dataclass(frozen=True, slots=True)
class _Text:
    """A text to embed; `tokens` is about how many it has."""

    text: str
    key: str
    scope: Scope
    tokens: int


class BatchEmbedder:
    """Wraps any `Embedder`, and is one: a cache in memory, and a queue in which concurrent callers' texts meet.

    A text that comes while nothing is under way is embedded at once; others gather while a batch is under way
    (`BatchProcessor`). The same text asked for by several at once is embedded once. A text that cannot be embedded fails
    alone; where the embedder itself fails, every caller of the batch is told. Texts of callers who left are dropped.

    How batches run depends on the embedder: for onnxruntime's a batch of questions is spread over the threads, one text per
    run; for a server, or torch, a batch holds as many tokens as are quickly done (`BatchBudget`), the longest texts first.

    Called on a worker thread (`concurrency.drive`) it looks into the cache and calls the embedder directly. Chunks that
    come with their token ids are on their way into the store, which keeps their vectors: they go to the embedder as they are.

    Args:
        embedder: What embeds; closed with this.
        batch_size: The most texts in one batch.
        max_wait_s: How long a text waits for company, at most, where it could be embedded.
        max_queue: How many texts of each kind wait at most; further ones are refused.
        max_batch_tokens: The most tokens in one batch, for servers and torch; at least the embedder's window.
        concurrency: Batches of each kind under way at once; unset takes 4 for a server, 2 for onnxruntime, 1 for torch.
        target_s: How long a batch should take at most, for servers and torch.
        cache: Where vectors are kept; closed by whoever made it. For a local embedder it must not suspend.
        cache_items: How many vectors a cache of its own keeps, where none is given; 0 keeps none.
        cache_ttl_s: How long a vector is kept; unset keeps it until others are more useful: a vector never gets stale.
        stored: Looks for passages in the store, whose vectors have 16-bit numbers.
        workers: Where tokens are counted; unset takes asyncio's own threads.

    Raises:
        InputError: An argument is out of range.

    Examples:
        async with BatchEmbedder(embedder) as embedder:
            vectors = await embedder.embed_batch(["a text", "another"])
    """

    def __init__(
        self,
        embedder: Embedder,
        *,
        batch_size: int = 32,
        max_wait_s: float = 0.01,
        max_queue: int = 4096,
        max_batch_tokens: int = 16_384,
        concurrency: int | None = None,
        target_s: float = 0.1,
        cache: Cache[bytes] | None = None,
        cache_items: int = 10_000,
        cache_ttl_s: float | None = None,
        stored: Stored | None = None,
        workers: Workers | None = None,
    ) -> None:
        if cache_items < 0 or max_batch_tokens < 1:
            raise InputError(f"cache_items is {cache_items}, max_batch_tokens {max_batch_tokens}", hint="use numbers from 0 and from 1")
        self.is_local = embedder.is_local
        self._embedder = embedder
        self._batch_size = batch_size
        self._tenant = Scope()
        self._stored = stored
        self._workers = workers
        self._own_cache = MemoryCache[bytes](cache_items) if cache is None and cache_items else None
        kept_in = cache if cache is not None else self._own_cache
        self._cache = VectorCache(kept_in, fingerprint=embedder.fingerprint, dimension=embedder.dimension, ttl_s=cache_ttl_s)
        self._counts = EmbedderCounts()
        self._shared = SharedVectors()
        one_by_one = embedder.is_local and embedder.description.get("runtime", "onnx") == "onnx"
        self._spread = (workers.threads if workers is not None else _cores()) if one_by_one else 1
        most = max(max_batch_tokens, embedder.max_tokens)
        self._queues: dict[Kind, BatchProcessor[_Text, bytes]] = {
            kind: BatchProcessor(
                batch_size,
                max_wait_s,
                partial(self._embed, kind),
                max_queue=max_queue,
                concurrency=concurrency or (4 if not embedder.is_local else 2 if one_by_one else 1),
                size_of=None if one_by_one else _tokens_of,
                max_size=None if one_by_one else BatchBudget(min(_LEAST_BATCH_TOKENS, most), most, target_s=target_s),
                splits=_is_texts_fault,
            )
            for kind in KINDS
        }
        before, after = embedder.tokenizer.special_ids
        self._special_tokens = len(before) + len(after)

    def for_tenant(self, tenant: str, stored: Stored | None = None) -> BatchEmbedder:
        """This embedder with that tenant's cache: it shares batches with the others, but neither vectors nor what is under way.

        Closing it closes it for all.

        Raises:
            InputError: No tenant can have that name.
        """
        mine = copy.copy(self)
        mine._tenant, mine._stored = Scope(tenant), stored
        return mine

    @property
    def wrapped(self) -> Embedder:
        """The embedder that does the work."""
        return self._embedder

    @property
    def name(self) -> str:
        """The wrapped embedder's."""
        return self._embedder.name

    @property
    def fingerprint(self) -> str:
        """The wrapped embedder's: the vectors are the same."""
        return self._embedder.fingerprint

    @property
    def description(self) -> Mapping[str, str]:
        """The wrapped embedder's."""
        return self._embedder.description

    @property
    def dimension(self) -> int:
        """The length of a vector."""
        return self._embedder.dimension

    @property
    def max_tokens(self) -> int:
        """The wrapped embedder's window."""
        return self._embedder.max_tokens

    @property
    def tokenizer(self) -> Tokenizer:
        """The wrapped embedder's."""
        return self._embedder.tokenizer

    async def embed_text(self, text: str, *, kind: Kind = "passage") -> Float32:
        """The unit vector of a text, `(dimension,)`.

        Args:
            kind: What the text is. Some models embed questions and passages differently. A passage longer than the window
                is refused; a question is cut to it.

        Raises:
            InputError: It is too long, or no text.
            OverloadedError: Too many texts wait already.
            RaglineError: What the embedder raises.
        """
        vector: Float32 = (await self._vectors([text], kind))[0]
        return vector

    async def embed_batch(self, texts: Sequence[str], *, kind: Kind = "passage") -> Float32:
        """The unit vectors of texts, `(n, dimension)`, in order.

        More than `batch_size` texts wait for room, where fewer would be refused, and leave room for other callers. Where a text
        fails, its error is raised, and those not yet embedded are taken back.

        Raises:
            InputError, OverloadedError, RaglineError: As `embed_text`.
        """
        if isinstance(texts, str):
            raise InputError("embed_batch takes a sequence of texts, and got one text", hint="use embed_text, or put it into a list")
        return await self._vectors(list(texts), kind)

    async def embed_questions(self, questions: Sequence[str]) -> Float32:
        """See `Embedder.embed_questions`; raises an OverloadedError besides where too many wait already."""
        return await self._vectors(questions, "question")

    async def embed_passages(self, chunks: Sequence[Chunk]) -> Float32:
        """See `Embedder.embed_passages`; raises an OverloadedError besides where too many wait already."""
        if any(chunk.token_ids is not None for chunk in chunks):
            return await self._timed(self._embedder.embed_passages(chunks), len(chunks))
        return await self._vectors([chunk.passage for chunk in chunks], "passage")

    async def start_background_processor(self) -> None:
        """Starts the queue now, not with the first text. Twice is harmless.

        Raises:
            BackendError: It runs on another event loop.
        """
        for queue in self._queues.values():
            queue.start()

    async def stop_background_processor(self) -> None:
        """Finishes what waits; from now on each call goes to the embedder by itself, until it is started again."""
        for queue in self._queues.values():
            await queue.close()

    def get_stats(self) -> EmbedderStats:
        """What it has done, and what waits."""
        return self._counts.stats([queue.stats() for queue in self._queues.values()], cache_items=self._cache.items)

    async def check(self) -> None:
        """Asks the embedder whether it is there, where it lives on a server; raises what it raises."""
        check = getattr(self._embedder, "check", None)
        if check is not None:
            await check()

    async def close(self) -> None:
        """Finishes what waits, and closes the embedder. Twice is harmless."""
        for queue in self._queues.values():
            await queue.close()
        await self._embedder.close()
        if self._own_cache is not None:
            await self._own_cache.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def _vectors(self, texts: Sequence[str], kind: Kind) -> Float32:
        if kind not in KINDS:
            raise InputError(f"a text of kind {kind!r}", hint=f"use {' or '.join(KINDS)}")
        keys = [self._cache.key(text, kind) for text in texts]
        rows: dict[str, bytes] = {}
        for key in keys:
            if key not in rows and (row := await self._cache.get(self._tenant, key)) is not None:
                rows[key] = row
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in rows}
        if missing:
            if kind == "passage" and self._stored is not None and not on_worker():
                found = await self._cache.look_up(self._stored, self._tenant, missing)
                self._counts.add(stored_hits=len(found))
                rows |= found
            lacking = sum(key not in rows for key in keys)
            self._counts.add(hits=len(keys) - lacking, misses=lacking)
            if missing := {key: text for key, text in missing.items() if key not in rows}:
                rows |= await self._compute(missing, kind)
        else:
            self._counts.add(hits=len(keys))
        # Of a copy that may be written to, as any embedder's.
        return np.frombuffer(bytearray().join([rows[key] for key in keys]), np.float32).reshape(len(keys), self.dimension)

    async def _compute(self, missing: Mapping[str, str], kind: Kind) -> dict[str, bytes]:
        if on_worker() and self.is_local:
            rows = await self._embed(kind, [_Text(text, key, self._tenant, 0) for key, text in missing.items()])
            return dict(zip(missing, rows, strict=True))
        texts = await self._sized(missing, kind)
        if self._queues[kind].closed:
            return dict(zip(missing, await self._embed(kind, texts), strict=True))
        flights: dict[str, Flight] = {}
        try:
            # The longest first, so that those of one batch are about as long.
            for text in sorted(texts, key=_tokens_of, reverse=True):
                flights[text.key] = await self._flight(text, kind, patient=len(texts) > self._batch_size)
            return {key: await flights[key].land() for key in missing}
        finally:
            for flight in flights.values():
                flight.leave()

    async def _flight(self, text: _Text, kind: Kind, *, patient: bool) -> Flight:
        """The text's vector on its way: another caller's where there is one, else through the queue.

        Args:
            patient: Whether to wait for room in the queue, where it would be refused.
        """
        key = (text.scope.tenant, kind, text.key)
        if patient and key not in self._shared:
            await self._queues[kind].room()
        if patient or kind == "passage":  # which had to wait since the cache was asked
            row = await self._cache.get(text.scope, text.key)
            if row is not None:
                return Flight.landed(row)
        flight = self._shared.join(key)
        if flight is not None:
            self._counts.add(shared=1)
            return flight
        return self._shared.begin(key, partial(self._queues[kind].submit, text, of_many=patient))

    async def _sized(self, missing: Mapping[str, str], kind: Kind) -> list[_Text]:
        """The texts with about how many tokens they have.

        Raises:
            InputError: A passage is longer than the window.
        """
        room = self.max_tokens - self._special_tokens
        texts = [
            _Text(text, key, self._tenant, min(self.max_tokens, len(text.encode("utf-8", "surrogatepass")) // _BYTES_PER_TOKEN + 2))
            for key, text in missing.items()
        ]
        unsure = [text.text for text in texts if len(text.text) * _TOKENS_PER_CHARACTER > room]
        if kind == "passage" and unsure:
            count = partial(_longest, self.tokenizer, unsure)
            longest = await (self._workers.run(count) if self._workers is not None else asyncio.to_thread(count))
            if longest > room:
                self._counts.add(refused=1)
                raise InputError(
                    f"a text of {longest + self._special_tokens} tokens is longer than the {self.max_tokens} that {self.name} takes",
                    hint="split it, or embed it as a question, which is cut",
                )
        return texts

    async def _embed(self, kind: Kind, texts: Sequence[_Text]) -> list[bytes]:
        """The vectors of a batch, also kept in the cache."""
        plain = [text.text for text in texts]
        if kind == "passage":
            work = self._embedder.embed_passages([Chunk(text, 0, len(text)) for text in plain])
        else:
            work = self._embed_questions(plain)
        vectors = np.ascontiguousarray(await self._timed(work, len(texts)), np.float32)
        if vectors.shape != (len(texts), self.dimension):
            raise BackendError(f"{self.name} gave {vectors.shape} numbers for {len(texts)} texts of {self.dimension} each")
        rows = [row.tobytes() for row in vectors]
        for text, row in zip(texts, rows, strict=True):
            await self._cache.keep(text.scope, text.key, row)
        return rows

    async def _embed_questions(self, questions: Sequence[str]) -> Float32:
        jobs = min(self._spread, len(questions))
        if jobs < 2 or on_worker():
            return await self._embedder.embed_questions(questions)
        # Dealt out, for they come in order of their lengths.
        parts = await asyncio.gather(*(self._embedder.embed_questions(questions[job::jobs]) for job in range(jobs)))
        vectors = np.empty((len(questions), self.dimension), np.float32)
        for job, part in enumerate(parts):
            vectors[job::jobs] = part
        return vectors

    async def _timed(self, work: Awaitable[Float32], texts: int) -> Float32:
        started = time.perf_counter()
        vectors = await work
        self._counts.call(texts, time.perf_counter() - started)
        return vectors


def _tokens_of(text: _Text) -> int:
    return text.tokens


def _longest(tokenizer: Tokenizer, texts: Sequence[str]) -> int:
    """The tokens of the longest text, without special ones."""
    return max(len(spans.ids) for spans in tokenizer.spans(texts))


def _is_texts_fault(error: Exception) -> bool:
    """Whether a batch may have failed because of one of its texts: not where the embedder cannot embed at all."""
    if isinstance(error, RaglineError):
        return isinstance(error, InputError) and not isinstance(error, (SettingsError, MissingExtraError))
    return may_be_one_items_fault(error)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
