"""A server with OpenAI's /v1/embeddings, asked through OpenAI's own client."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from ragline.concurrency.pacing import Pace
from ragline.concurrency.retries import Retries, retried, retry_after_s
from ragline.concurrency.workers import Workers
from ragline.embedding.following import OPENAI_URL
from ragline.embedding.openai_replies import ReplyError, complains_of, read_vectors, translated, unit_length, wait_after, without
from ragline.errors import BackendError, DeadlineError, MissingExtraError, SettingsError
from ragline.settings import EmbeddingSettings, PoolSettings
from ragline.settings.addresses import is_this_machine
from ragline.types import Float32

if TYPE_CHECKING:
    import openai

_CONNECT_S = 5.0
"""A server that is there accepts sooner, whatever it computes."""

_IDLE_S = 60.0


class EmbeddingServer:
    """Sends texts, gets unit vectors; knows what this server has refused, and what is left of its rate limit.

    Raises:
        SettingsError: OpenAI's own server is asked without a key.
        MissingExtraError: The extra `openai` is not installed.
    """

    def __init__(self, settings: EmbeddingSettings, pool: PoolSettings) -> None:
        self.url = _shown(settings.base_url or OPENAI_URL)
        self._model = settings.model
        self._dimension = settings.dimension
        self._timeout_s = settings.timeout_s
        self._retry_s = settings.retry_s
        self._key = _checked_key(settings, self.url)
        self._client = _client(settings.base_url or OPENAI_URL, self._key, pool)
        # Left out of each request as well, or the client would insist on a key.
        self._headers: dict[str, Any] = {} if self._key else {"Authorization": _omitted()}
        self._pace = Pace()
        # Until it refuses them: base64 is a third of the size, and read in no time.
        self._optional: dict[str, Any] = {"encoding_format": "base64"}
        if settings.dimension:
            self._optional["dimensions"] = settings.dimension
        self._closed = False

    async def embed(self, texts: Sequence[str], tokens: int, retries: Retries, workers: Workers, *, patient: bool) -> Float32:
        """The vectors of texts, `(n, length)`, unit length, in order.

        Args:
            tokens: Of all texts together, about.
            patient: Whether to wait before the rate limit is reached, and leave what remains to others.
            workers: Where the reply is read.

        Raises:
            RefusedError: The server does not take these texts.
            SettingsError: It does not take the key, or has no such model.
            BackendError: It cannot be reached, or fails, or answers what is not vectors.
            DeadlineError: It did not answer in time.
        """
        if patient:
            await self._wait_for_pace(tokens)
        content = await self._content(texts, tokens, retries)
        try:
            return await workers.run(lambda: unit_length(read_vectors(content, len(texts)), self._dimension))
        except ReplyError as error:
            raise BackendError(
                f"the embedding server at {self.url} gave {without(self._key, str(error))}",
                hint=f"check that embedding.base_url is a server of embeddings, and that {self._model!r} is a model for them",
            ) from self._shown(error)

    async def close(self) -> None:
        """Closes the connections. Twice is harmless."""
        self._closed = True
        await self._client.close()

    async def _content(self, texts: Sequence[str], tokens: int, retries: Retries) -> bytes:
        import openai

        while True:
            optional = self._optional
            try:
                return await retried(partial(self._post, texts, tokens, optional), retries, wait_of=wait_after)
            except openai.APIError as error:
                less = _without_refused(optional, error)
                if less is None:
                    raise translated(error, self.url, self._model, self._key) from self._shown(error)
                self._optional = less

    def _shown(self, error: Exception) -> Exception | None:
        """The error as a cause; None where the server repeats the key in it, which a traceback would show."""
        return None if self._key and self._key in str(error) else error

    async def _post(self, texts: Sequence[str], tokens: int, optional: dict[str, Any], left_s: float) -> bytes:
        """The body of one reply of status 200."""
        import httpx2
        import openai

        if self._closed:
            raise BackendError(f"the embedder {self._model} is closed")
        limit_s = min(self._timeout_s, left_s)
        headers, wait_s = None, None
        self._pace.sent(tokens)
        try:
            async with asyncio.timeout(limit_s):
                timeout = httpx2.Timeout(limit_s, connect=min(_CONNECT_S, limit_s))
                reply = await self._client.embeddings.with_raw_response.create(
                    model=self._model, input=list(texts), timeout=timeout, extra_headers=self._headers, **optional
                )
            headers = reply.headers
            return reply.content
        except openai.APIStatusError as error:
            headers = error.response.headers
            wait_s = retry_after_s(headers) if error.status_code in (429, 503) else None
            raise
        except (TimeoutError, openai.APITimeoutError) as error:
            raise DeadlineError(
                f"the embedding server at {self.url} did not answer within {limit_s:.3g} s",
                hint="see whether it is busy, lower embedding.batch_tokens, or raise embedding.timeout_s",
            ) from error
        finally:
            self._pace.done(tokens, headers, wait_s)

    async def _wait_for_pace(self, tokens: int) -> None:
        """Waits while the rate limit is used up. Where that takes too long, the server is to say so itself."""
        left_s = self._retry_s
        while 0 < (wait_s := self._pace.wait_s(tokens)) <= left_s:
            await asyncio.sleep(wait_s)
            left_s -= wait_s


def _without_refused(optional: dict[str, Any], error: openai.APIError) -> dict[str, Any] | None:
    """What to ask for instead where the server complains of an optional parameter; None where it does not."""
    if optional["encoding_format"] == "base64" and complains_of(error, "encoding_format"):
        return {**optional, "encoding_format": "float"}
    # Servers say "dimension", "dimensions" or "output dimensions".
    if "dimensions" in optional and complains_of(error, "dimension"):
        return {"encoding_format": optional["encoding_format"]}
    return None


def _shown(base_url: str) -> str:
    """The address without its query, which may hold a key; settings let no name and password in."""
    parts = urlsplit(base_url)
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def _checked_key(settings: EmbeddingSettings, url: str) -> str:
    key = settings.api_key.get_secret_value().strip() if settings.api_key is not None else ""
    if not key and url == OPENAI_URL:
        raise SettingsError(
            "embedding.api_key is not set, and OpenAI's server wants one",
            hint="set OPENAI_API_KEY; for a server of your own, set embedding.base_url to its address",
        )
    return key


def _omitted() -> openai.Omit:
    import openai

    return openai.Omit()


def _client(base_url: str, key: str, pool: PoolSettings) -> openai.AsyncOpenAI:
    try:
        import httpx2
        import openai
    except ImportError as error:
        raise MissingExtraError("the client of embedding servers is not installed", hint="pip install 'ragline[openai]'") from error
    # The client reads more of the environment than we want: whatever it would send of that is left out.
    authorization = f"Bearer {key}" if key else openai.Omit()
    headers: dict[str, Any] = {"OpenAI-Organization": openai.Omit(), "OpenAI-Project": openai.Omit(), "Authorization": authorization}
    limits = httpx2.Limits(
        max_connections=pool.max_size, max_keepalive_connections=min(pool.min_size, pool.max_size), keepalive_expiry=_IDLE_S
    )
    client = openai.AsyncOpenAI(
        api_key=key or "none",
        base_url=_shown(base_url),
        # Left in the address, it would stand before the path of a request.
        default_query=dict(parse_qsl(urlsplit(base_url).query, keep_blank_values=True)),
        max_retries=0,  # `retried` does it, within its budget
        http_client=httpx2.AsyncClient(limits=limits, follow_redirects=False, trust_env=not is_this_machine(base_url)),
    )
    client.admin_api_key = None
    client._custom_headers = headers  # and not those of OPENAI_CUSTOM_HEADERS, which can hold a key
    return client
