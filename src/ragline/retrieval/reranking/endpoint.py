"""Reranking by a server: Hugging Face's text-embeddings-inference, or whatever speaks Cohere's protocol."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx2
import numpy as np

from ragline.concurrency.retries import Retries, retried, retry_after_s
from ragline.errors import BackendError, DeadlineError, OverloadedError, RaglineError, SettingsError
from ragline.settings import PoolSettings, RerankSettings
from ragline.settings.addresses import is_this_machine
from ragline.types import Float32

_ATTEMPTS = 3
"""A question waits for its hits: a server that is down is asked no more often, however much time is left."""

_FIRST_WAIT_S = 0.1

_MAX_REPLY_BYTES = 64 * 1024**2
"""Some servers send the passages back; a thousand long ones fit."""

_TOO_MANY = frozenset({413, 422})
"""What servers answer that take fewer passages at once (text-embeddings-inference: 32 unless told)."""

_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504, 529})
"""Statuses after which the same request may succeed."""

_BUSY = frozenset({429, 503, 529})

_GREATEST = float(np.finfo(np.float32).max)


class _FailedError(Exception):
    """One request that failed.

    Attributes:
        error: What the caller is told, where nothing helps.
        wait_s: How long to wait before it is tried again; None where that cannot help.
        too_many: Whether fewer passages may do.
    """

    def __init__(self, error: RaglineError, *, wait_s: float | None = None, too_many: bool = False) -> None:
        super().__init__(error.message)
        self.error = error
        self.wait_s = wait_s
        self.too_many = too_many


@dataclass(frozen=True, slots=True)
class Style:
    """How a server is asked, and where the scores stand in its reply.

    Attributes:
        body: What is posted, from the model's name, the question and the passages.
        results: The list of results in a reply; raises KeyError or TypeError where there is none.
        score: The key of a result's score.
    """

    body: Callable[[str, str, Sequence[str]], dict[str, Any]]
    results: Callable[[Any], Any]
    score: str


# Raw scores keep apart what a sigmoid in float32 makes equal.
_TEI = Style(
    body=lambda model, question, passages: {"query": question, "texts": passages, "raw_scores": True, "truncate": True},
    results=lambda reply: reply,
    score="score",
)
# Some servers score only a few unless `top_n` asks for all.
_COHERE = Style(
    body=lambda model, question, passages: {"model": model, "query": question, "documents": passages, "top_n": len(passages)},
    results=lambda reply: reply["results"],
    score="relevance_score",
)
STYLES = {"tei": _TEI, "cohere": _COHERE}


class EndpointReranker:
    """A `Reranker` behind `/rerank`.

    A request that fails in passing is tried again, at most twice and within `timeout_s`. Where the server takes fewer
    passages at once than it was sent, it is sent halves, and no more than that from then on.

    Raises:
        SettingsError: There is no address, or it cannot be used.
    """

    is_local = False

    def __init__(self, settings: RerankSettings, pool: PoolSettings) -> None:
        self._settings = settings
        self._style = STYLES[settings.style]
        self._url = _rerank_url(settings.base_url)
        self._shown_url = str(self._url.copy_with(query=None))  # it may hold a key
        self._key = settings.api_key.get_secret_value() if settings.api_key is not None else ""
        self._most: int | None = None
        authorization = {"authorization": f"Bearer {self._key}"} if self._key else {}
        self._client = httpx2.AsyncClient(
            headers={"content-type": "application/json", "accept": "application/json", **authorization},
            timeout=None,  # every request stands under the deadline of its rerank
            trust_env=not is_this_machine(str(self._url)),
            limits=httpx2.Limits(max_connections=pool.max_size, max_keepalive_connections=min(pool.min_size, pool.max_size)),
        )

    @property
    def name(self) -> str:
        """The model where the server has several, else the server."""
        return self._settings.model if self._settings.style == "cohere" else self._shown_url

    @property
    def fingerprint(self) -> str:
        """Server, protocol and model."""
        named = json.dumps([self._settings.style, self._shown_url, self.name]).encode()
        return f"rerank-endpoint:{hashlib.sha256(named).hexdigest()[:16]}"

    async def rerank(self, question: str, passages: Sequence[str]) -> Float32:
        """The relevance of each passage, `(n,)` float32. See `Reranker.rerank`.

        Raises:
            BackendError: The server cannot be reached, refuses, or answers what makes no sense.
            OverloadedError: It asked to come back later than there is time.
            DeadlineError: It took longer than `timeout_s`.
        """
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                return await self._scores(question, passages)
        except TimeoutError as error:
            raise DeadlineError(
                f"the rerank server at {self._shown_url} did not answer within {self._settings.timeout_s:g} s",
                hint="see whether it is busy, raise rerank.timeout_s, or lower rerank.candidates",
            ) from error

    async def check(self) -> str:
        """Asks the server for two scores, and says in a sentence that it gave them. Raises as `rerank` does."""
        await self.rerank("What is this?", ["A check of the rerank server.", "Something else."])
        return f"the rerank server at {self._shown_url} answers"

    async def close(self) -> None:
        """Closes the connections. Twice is harmless."""
        await self._client.aclose()

    async def _scores(self, question: str, passages: Sequence[str]) -> Float32:
        most = self._most or max(1, len(passages))
        batches = [passages[at : at + most] for at in range(0, len(passages), most)]
        # The first alone: what is wrong with it is wrong with all, and it may show that the server takes fewer at once.
        scores = [await self._batch(question, batch) for batch in batches[:1]]
        try:
            async with asyncio.TaskGroup() as group:
                rest = [group.create_task(self._batch(question, batch)) for batch in batches[1:]]
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return np.concatenate([np.empty(0, np.float32), *scores, *(task.result() for task in rest)])

    async def _batch(self, question: str, passages: Sequence[str]) -> Float32:
        """Scores of one batch, by halves where the server does not take as many."""
        count = len(passages)
        if self._most is None or count <= self._most:
            try:
                return await self._post(question, passages)
            except _FailedError as failed:
                if not failed.too_many or count == 1:
                    raise failed.error from failed.__cause__
        middle = (count + 1) // 2
        first = await self._batch(question, passages[:middle])
        self._most = min(self._most or middle, middle)
        return np.concatenate([first, await self._batch(question, passages[middle:])])

    async def _post(self, question: str, passages: Sequence[str]) -> Float32:
        asked = self._style.body(self._settings.model, question, list(passages))
        body = json.dumps(asked, ensure_ascii=False).encode("utf-8", "replace")  # of a lone surrogate, which has no encoding
        return await retried(
            lambda _: self._attempt(body, len(passages)),
            Retries(self._settings.timeout_s, first_wait_s=_FIRST_WAIT_S, attempts=_ATTEMPTS),
            wait_of=lambda error: error.wait_s if isinstance(error, _FailedError) else None,
        )

    async def _attempt(self, body: bytes, count: int) -> Float32:
        try:
            async with self._client.stream("POST", self._url, content=body) as response:
                content = await self._content(response)
        except httpx2.RequestError as error:
            raise _FailedError(
                BackendError(
                    f"the rerank server at {self._shown_url} cannot be reached: {self._shown(error)}",
                    hint="start it, or put its address right in rerank.base_url",
                ),
                wait_s=0.0,
            ) from error
        if response.status_code != 200:
            raise self._refusal(response, content)
        try:
            return _scores_of(json.loads(content), self._style, count)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise _FailedError(self._nonsense(f"{error.__class__.__name__}: {error}")) from error

    async def _content(self, response: httpx2.Response) -> bytes:
        content = bytearray()
        try:
            async for piece in response.aiter_bytes():
                content += piece
                if len(content) > _MAX_REPLY_BYTES:
                    raise _FailedError(self._nonsense(f"it is longer than {_MAX_REPLY_BYTES // 1024**2} MB"))
        except httpx2.DecodingError as error:
            raise _FailedError(self._nonsense(str(error))) from error
        return bytes(content)

    def _refusal(self, response: httpx2.Response, content: bytes) -> _FailedError:
        status = response.status_code
        said = self._shown(content[:2000].decode("utf-8", "replace"))
        what = f"the rerank server at {self._shown_url} answered with status {status}: {said}"
        hint = _HINTS.get(status, "read what it says; rerank.style and rerank.base_url must fit the server")
        error = OverloadedError(what, hint="try again later") if status in _BUSY else BackendError(what, hint=hint)
        wait_s = (retry_after_s(response.headers) or 0.0) if status in _PASSING else None
        return _FailedError(error, wait_s=wait_s, too_many=status in _TOO_MANY)

    def _nonsense(self, why: str) -> BackendError:
        return BackendError(
            f"the rerank server at {self._shown_url} answered what is no {self._settings.style} reply ({self._shown(why)})",
            hint='rerank.style must be what the server speaks ("tei" or "cohere"), and rerank.base_url lead to it',
        )

    def _shown(self, said: object) -> str:
        """What a server or driver said, on one line, cut short, and without the key, which some repeat."""
        line = " ".join(str(said).split())
        line = line.replace(self._key, "[key]") if self._key else line
        return line[:300] or "nothing"


_HINTS = {
    401: "put the server's key into rerank.api_key",
    403: "put a key that may rerank into rerank.api_key",
    404: "rerank.base_url is the part before /rerank; with the style cohere, rerank.model must be a model that the server has",
    413: "lower rerank.candidates or chunking.max_tokens, or raise what the server takes at once",
    422: "rerank.style must be what the server speaks, and its model a reranker",
    424: "the server's model is no reranker, or failed: read its log",
}


def _scores_of(reply: Any, style: Style, count: int) -> Float32:
    """The scores of a reply by passage.

    Raises:
        ValueError, TypeError, KeyError: It is not a list with one finite score for each passage.
    """
    scores = np.full(count, np.nan, np.float32)
    results = style.results(reply)
    if not isinstance(results, list):
        raise TypeError(f"a list of results was expected, not {type(results).__name__}")
    for result in results:
        index, score = result["index"], result[style.score]
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < count:
            raise ValueError(f"index {index!r} is none of {count} passages")
        if isinstance(score, bool) or not isinstance(score, int | float) or not abs(score) <= _GREATEST:
            raise ValueError(f"passage {index} has the score {score!r}")
        if not math.isnan(scores[index]):
            raise ValueError(f"passage {index} is scored twice")
        scores[index] = score
    if missing := np.flatnonzero(np.isnan(scores)).tolist():
        raise ValueError(f"{len(missing)} of {count} passages have no score, such as passage {missing[0]}")
    return scores


def _rerank_url(base_url: str | None) -> httpx2.URL:
    if base_url is None:
        raise SettingsError("rerank.base_url is not set", hint="name the rerank server, such as http://localhost:8080")
    try:
        url = httpx2.URL(base_url)
    except httpx2.InvalidURL as error:
        raise SettingsError(f"rerank.base_url is no address: {error}", hint="write it in full, such as http://localhost:8080") from error
    path = url.path.rstrip("/")
    return url.copy_with(path=path if path.endswith("/rerank") else f"{path}/rerank")
