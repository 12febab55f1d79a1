"""Embeds at a server: OpenAI's, or any that speaks its /v1/embeddings (vLLM, TEI, llama.cpp, Ollama, LM Studio, Infinity, LiteLLM)."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ragline.chunking.base import Tokenizer
from ragline.concurrency.retries import Retries
from ragline.concurrency.workers import Workers
from ragline.embedding.estimated_tokenizer import EstimatedTokenizer
from ragline.embedding.following import FollowedSettings
from ragline.embedding.openai_replies import RefusedError
from ragline.embedding.openai_server import EmbeddingServer
from ragline.embedding.prefixes import Prefixes, choose_prefixes
from ragline.embedding.probe import PROBE, probe_of, recognises
from ragline.embedding.tokenizer import ModelTokenizer
from ragline.embedding.tokenizer_files import locate_tokenizer
from ragline.errors import InputError, ModelMismatchError
from ragline.settings import EmbeddingSettings, PoolSettings
from ragline.types import Chunk, Float32

_QUESTION_REQUESTS = 4
"""Requests of questions at once, beside those of passages: a question does not wait behind an ingest."""

_QUESTION_ATTEMPTS = 3
_QUESTION_WAIT_S = 0.1
"""Someone waits for the answer to a question, and a search can do without its vector: it is soon given up."""

_PROBE_TOKENS = 16

_OTHER_MODEL = (
    "serve the former model again; or give the new one a name of its own, "
    "and switch with `ragline reindex --model NAME --set embedding.runtime=openai`"
)


class OpenAIEmbedder:
    """A model behind a server. Open it with `OpenAIEmbedder.open`; use it on one event loop.

    Texts are sent, not token ids: the tokenizer only counts. Vectors are made unit length here, for servers differ.
    The fingerprint is of what the settings say and of the vectors' length, not of the server's address, which may change,
    and not of numbers that the server gave, which are not the same twice. That a server gives other vectors under the
    name of the same model is noticed by a probe that is stored with the collection, on the first use in a process.
    """

    is_local = False

    def __init__(
        self,
        settings: EmbeddingSettings,
        server: EmbeddingServer,
        tokenizer: Tokenizer,
        prefixes: Prefixes,
        *,
        dimension: int,
        probe: str,
        probed: bool,
        parallel_requests: int,
        question_workers: Workers,
        bulk_workers: Workers,
    ) -> None:
        self._settings = settings
        self._server = server
        self._tokenizer = tokenizer
        self._prefixes = prefixes
        self._dimension = dimension
        self._probe = probe
        self._probed = probed
        self._question_workers = question_workers
        self._bulk_workers = bulk_workers
        self._most_texts = settings.batch_texts
        self._passage_slots = asyncio.Semaphore(parallel_requests)
        self._question_slots = asyncio.Semaphore(_QUESTION_REQUESTS)
        self._passage_retries = Retries(settings.retry_s)
        self._question_retries = Retries(settings.timeout_s, first_wait_s=_QUESTION_WAIT_S, attempts=_QUESTION_ATTEMPTS)

    @classmethod
    def open(
        cls,
        settings: EmbeddingSettings,
        cache_dir: Path,
        announce: Callable[[str], None],
        *,
        pool: PoolSettings,
        question_workers: Workers,
        bulk_workers: Workers,
    ) -> OpenAIEmbedder:
        """Makes ready to ask the server. Asks it for one vector where the length of its vectors is not known yet.

        It is known for a collection that holds vectors (`FollowedSettings`): then nothing is asked, so that a server
        that is down stops only what needs it. Blocks; not for an event loop's thread.

        Raises:
            SettingsError: Address, key or model cannot be used.
            MissingExtraError: The extra `openai` is not installed.
            BackendError: The length of the vectors is not known, and the server cannot be asked.
            DeadlineError: It did not answer in time.
        """
        server = EmbeddingServer(settings, pool)
        prefixes = choose_prefixes(settings, settings.model, Prefixes())
        tokenizer = _tokenizer(settings, cache_dir, announce, prefixes.passage)
        known = settings if isinstance(settings, FollowedSettings) else None
        dimension, probe, probed = (known.vector_length, known.probe, not known.probe) if known is not None else (0, "", True)
        if not dimension:
            vector = asyncio.run(_ask_once(settings, pool, question_workers))
            dimension, probe, probed = len(vector), probe_of(vector), True
        return cls(
            settings,
            server,
            tokenizer,
            prefixes,
            dimension=dimension,
            probe=probe,
            probed=probed,
            # Of the connections, some are kept for questions.
            parallel_requests=max(1, min(settings.parallel_requests, pool.max_size - min(_QUESTION_REQUESTS, pool.max_size // 2))),
            question_workers=question_workers,
            bulk_workers=bulk_workers,
        )

    @property
    def name(self) -> str:
        """The model's name, as its server knows it."""
        return self._settings.model

    @property
    def fingerprint(self) -> str:
        """Hash of the model's name, the prefixes and the length of the vectors. The same wherever the server stands."""
        parts = ("openai", self.name, *self._prefixes, self.dimension)
        return f"openai-{hashlib.sha256(repr(parts).encode()).hexdigest()[:32]}"

    @property
    def description(self) -> Mapping[str, str]:
        """The settings that open the same embedder again, the server's address for people to read, and what was learnt of it."""
        told = {"model": self.name, "runtime": "openai", "base_url": self._server.url, "vector_length": str(self.dimension)}
        if self._settings.dimension:
            told["dimension"] = str(self._settings.dimension)
        told |= {"question_prefix": self._prefixes.question, "passage_prefix": self._prefixes.passage}
        return told | ({"probe": self._probe} if self._probe else {})

    @property
    def dimension(self) -> int:
        """The length of a vector."""
        return self._dimension

    @property
    def max_tokens(self) -> int:
        """`embedding.max_tokens`: servers do not say how much they take."""
        return self._settings.max_tokens

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that the settings name, else one that estimates; its special ids are those around a passage."""
        return self._tokenizer

    async def embed_passages(self, chunks: Sequence[Chunk]) -> Float32:
        """Embeds chunks in batches of texts about as long, several at once: `(n, dimension)`, unit length, in order.

        Raises:
            InputError: A chunk is longer than `max_tokens`, or than the server takes; nothing is truncated by us.
            SettingsError: The server does not take the key, or has no such model.
            ModelMismatchError: It serves another model than before under this name.
            BackendError: It cannot be reached, or fails, or answers what is not vectors.
            DeadlineError: It did not answer in time.
        """
        tokens = await self._bulk_workers.run(lambda: [self._tokens(chunk) for chunk in chunks])
        longest = max(tokens, default=0)
        if longest > self.max_tokens:
            raise InputError(
                f"a chunk of {longest} tokens does not fit embedding.max_tokens, {self.max_tokens}",
                hint=f"set chunking.max_tokens to {self.max_tokens} or less, or embedding.max_tokens to what the model takes",
            )
        vectors = np.empty((len(chunks), self.dimension), np.float32)

        async def embed(batch: Sequence[int]) -> None:
            texts = [self._prefixes.passage + chunks[place].passage for place in batch]
            vectors[batch] = await self._embed(texts, [tokens[place] for place in batch], questions=False)

        await self._all_of([embed(batch) for batch in self._batches(tokens)], questions=False)
        return vectors

    async def embed_questions(self, questions: Sequence[str]) -> Float32:
        """Embeds questions, before any passages that wait: `(n, dimension)`, unit length, in order; cut to `max_tokens`.

        Raises:
            SettingsError, ModelMismatchError, BackendError, DeadlineError: As `embed_passages`, but sooner.
        """
        cut = await self._question_workers.run(lambda: [self._cut(question) for question in questions])
        vectors = np.empty((len(questions), self.dimension), np.float32)

        async def embed(start: int) -> None:
            part = cut[start : start + self._settings.batch_texts]
            vectors[start : start + len(part)] = await self._embed(
                [text for text, _ in part], [tokens for _, tokens in part], questions=True
            )

        await self._all_of([embed(start) for start in range(0, len(cut), self._settings.batch_texts)], questions=True)
        return vectors

    async def check(self) -> None:
        """Asks the server for a vector, and raises what `embed_questions` raises where it gives none."""
        await self._recognise(questions=True)

    async def close(self) -> None:
        """Closes the connections. Twice is harmless."""
        await self._server.close()

    async def _all_of(self, requests: Sequence[Coroutine[Any, Any, None]], *, questions: bool) -> None:
        """Runs them at once; the first error ends the others. Beside the first of all, looks whether it is still the same model."""
        if not requests:
            return
        failed: BaseException | None = None
        try:
            async with asyncio.TaskGroup() as group:
                if not self._probed:
                    group.create_task(self._recognise(questions=questions))
                for request in requests:
                    group.create_task(request)
        except* Exception as failures:
            failed = failures.exceptions[0]
        if failed is not None:
            raise failed

    async def _recognise(self, *, questions: bool) -> None:
        (vector,) = await self._embed([PROBE], [_PROBE_TOKENS], questions=questions)
        if self._probe and not recognises(self._probe, vector):
            raise ModelMismatchError(
                f"the embedding server at {self._server.url} gives other vectors for {self.name!r} than those of the collection",
                hint=_OTHER_MODEL,
            )
        self._probed = True

    async def _embed(self, texts: Sequence[str], tokens: Sequence[int], *, questions: bool) -> Float32:
        """One batch, in parts where the server does not take it whole; how much it took is remembered."""
        refused = False
        if len(texts) <= self._most_texts:
            try:
                return await self._request(texts, sum(tokens), questions=questions)
            except RefusedError:
                if len(texts) == 1:
                    raise
                refused = True
        part = min(self._most_texts, (len(texts) + 1) // 2)
        first = await self._embed(texts[:part], tokens[:part], questions=questions)
        rest = await self._embed(texts[part:], tokens[part:], questions=questions)
        if refused:  # and both parts were taken, so that it was the number of texts
            self._most_texts = min(self._most_texts, part)
        return np.concatenate([first, rest])

    async def _request(self, texts: Sequence[str], tokens: int, *, questions: bool) -> Float32:
        slots, retries, workers = (
            (self._question_slots, self._question_retries, self._question_workers)
            if questions
            else (self._passage_slots, self._passage_retries, self._bulk_workers)
        )
        async with slots:
            # Servers refuse a text of nothing.
            vectors = await self._server.embed([text or " " for text in texts], tokens, retries, workers, patient=not questions)
        if vectors.shape[1] != self.dimension:
            raise ModelMismatchError(
                f"the embedding server at {self._server.url} gives vectors of {vectors.shape[1]} numbers for {self.name!r}, "
                f"and those of before have {self.dimension}",
                hint=_OTHER_MODEL,
            )
        return vectors

    def _batches(self, tokens: Sequence[int]) -> list[list[int]]:
        """Places of texts to be sent together: about as long, for servers pad; the longest first, for they take longest."""
        batches: list[list[int]] = []
        room = 0
        for place in sorted(range(len(tokens)), key=tokens.__getitem__, reverse=True):
            if not batches or len(batches[-1]) >= min(self._settings.batch_texts, self._most_texts) or tokens[place] > room:
                batches.append([])
                room = self._settings.batch_tokens
            batches[-1].append(place)
            room -= tokens[place]
        return batches

    def _tokens(self, chunk: Chunk) -> int:
        if chunk.token_ids is not None:
            return len(chunk.token_ids)
        before, after = self._tokenizer.special_ids
        return len(before) + len(self._tokenizer.spans([chunk.passage])[0].ids) + len(after)

    def _cut(self, question: str) -> tuple[str, int]:
        """The question behind its prefix, cut to the window, and how many tokens that is."""
        text = self._prefixes.question + question
        spans = self._tokenizer.spans([text])[0]
        room = max(1, self.max_tokens - 2)
        if len(spans.ids) > room:
            return text[: int(spans.starts[room])], self.max_tokens
        return text, len(spans.ids) + 2


async def _ask_once(settings: EmbeddingSettings, pool: PoolSettings, workers: Workers) -> Float32:
    """The vector of the probe, through a connection of its own: those of a server belong to one event loop."""
    server = EmbeddingServer(settings, pool)
    try:
        retries = Retries(settings.timeout_s, first_wait_s=_QUESTION_WAIT_S, attempts=_QUESTION_ATTEMPTS)
        vectors: Float32 = await server.embed([PROBE], _PROBE_TOKENS, retries, workers, patient=False)
    finally:
        await server.close()
    row: Float32 = vectors[0]
    return row


def _tokenizer(settings: EmbeddingSettings, cache_dir: Path, announce: Callable[[str], None], passage_prefix: str) -> Tokenizer:
    if settings.tokenizer is None:
        return EstimatedTokenizer(passage_prefix)
    return ModelTokenizer(locate_tokenizer(settings.tokenizer, cache_dir=cache_dir, announce=announce), passage_prefix)
