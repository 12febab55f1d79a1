"""Language models served by Ollama, by its own protocol."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import httpx
import ollama

from ragline.generation.chat_model import Finish, Message, ModelFailedError
from ragline.generation.serving import CONNECT_TIMEOUT_S, LAST_WORDS_S, REACHABLE_TIMEOUT_S, Server
from ragline.settings import GenerationSettings, PoolSettings

USUAL_URL = "http://127.0.0.1:11434"


class OllamaChat:
    """A `ChatModel` behind Ollama's `/api/chat`.

    The context is set to what prompt and answer take at most: Ollama's own default is smaller than many prompts, and
    it cuts them without a word. It is the same in every request, for another one loads the model anew.

    Raises:
        SettingsError: No model is named.
    """

    def __init__(self, settings: GenerationSettings, pool: PoolSettings) -> None:
        model = (settings.model or "").strip()
        self._server = Server.of(
            settings, USUAL_URL, missing_hint=f"`ollama pull {model}`, or set generation.model to one of `ollama list`"
        )
        self._options: dict[str, Any] = {"num_predict": settings.max_tokens, "num_ctx": settings.prompt_tokens + settings.max_tokens}
        if settings.temperature is not None:
            self._options["temperature"] = settings.temperature
        if settings.top_k is not None:
            self._options["top_k"] = settings.top_k
        self._slots = asyncio.Semaphore(pool.max_size)
        self._client = ollama.AsyncClient(
            host=settings.base_url or USUAL_URL,
            auth=_key_auth(self._server.key),
            # Every request stands under the deadline of its answer.
            timeout=httpx.Timeout(None, connect=min(CONNECT_TIMEOUT_S, settings.first_token_timeout_s)),
            # Not bounded here: a request cancelled while it connects would keep its place in this client's pool for good.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=min(pool.min_size, pool.max_size)),
            trust_env=not self._server.is_local,
            # Documents and key go to the address that the settings name and to no other.
            follow_redirects=False,
            verify=self._server.is_encrypted,
            event_hooks={"response": [self._check]},
        )

    @property
    def name(self) -> str:
        """The model's name, as its server knows it."""
        return self._server.model

    @property
    def fingerprint(self) -> str:
        """Server, model, and what is sent along."""
        sent = json.dumps([self._server.url, self.name, self._options], sort_keys=True)
        return f"ollama:{hashlib.sha256(sent.encode()).hexdigest()[:16]}"

    async def stream(self, messages: Sequence[Message]) -> AsyncGenerator[str | Finish, None]:
        """Yields the text as it comes, then a `Finish`. See `ChatModel.stream`."""
        async with self._slots:
            asked = [{"role": message.role, "content": message.content} for message in messages]
            parts: Any = await self._client.chat(model=self.name, messages=asked, stream=True, options=self._options)
            try:
                async for piece in self._pieces(parts):
                    yield piece
            finally:
                await parts.aclose()

    async def _pieces(self, parts: AsyncIterator[ollama.ChatResponse]) -> AsyncIterator[str | Finish]:
        begun = False
        while True:
            with self._translated(begun):
                try:
                    part = await anext(parts)
                except StopAsyncIteration:
                    break
            if part.message.content or part.message.thinking:
                begun = True
                yield part.message.content or ""
            if part.done:
                with contextlib.suppress(Exception):
                    async with asyncio.timeout(LAST_WORDS_S):
                        await anext(parts)
                yield Finish("length" if part.done_reason == "length" else "stop")
                return
        why = "the stream ended without saying that the answer is whole"
        raise self._server.broke_off(why) if begun else self._server.nonsense("a stream without an answer")

    async def reachable(self) -> None:
        """Looks the model up in the server's list. See `ChatModel.reachable`."""
        try:
            async with asyncio.timeout(REACHABLE_TIMEOUT_S):
                with self._translated(begun=False):
                    models = (await self._client.list()).models
        except ModelFailedError as failed:
            raise failed.error from failed.__cause__
        except TimeoutError as error:
            raise self._server.unreachable(f"no answer within {REACHABLE_TIMEOUT_S:g} s").error from error
        names = {str(model.model) for model in models}
        if not names & {self.name, f"{self.name}:latest"}:
            raise self._server.missing()

    async def close(self) -> None:
        """Closes the connections. Twice is harmless."""
        await self._client.close()  # type: ignore[no-untyped-call]

    async def _check(self, response: httpx.Response) -> None:
        """Raises for a reply that is no answer; here, for the client's own errors do not tell its headers."""
        if response.status_code >= 300:
            await response.aread()
            said = response.text
            with contextlib.suppress(ValueError, AttributeError, RecursionError):
                said = json.loads(said).get("error", said)
            raise self._server.refusal(response.status_code, said, response.headers)

    @contextlib.contextmanager
    def _translated(self, begun: bool) -> Iterator[None]:
        server = self._server
        try:
            yield
        except ollama.ResponseError as error:  # in mid-stream
            raise server.broke_off(error.error) from error
        except (httpx.DecodingError, httpx.InvalidURL) as error:
            raise server.nonsense(error) from error
        except (httpx.HTTPError, httpx.StreamError, OSError) as error:
            raise (server.broke_off if begun else server.unreachable)(error) from error
        except (ollama.RequestError, ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
            raise server.nonsense(f"{type(error).__name__}: {error}") from error


def _key_auth(key: str) -> Callable[[httpx.Request], httpx.Request]:
    """Puts this key into requests, and no other: the client would take OLLAMA_API_KEY, whoever runs the server."""

    def authorize(request: httpx.Request) -> httpx.Request:
        request.headers.pop("authorization", None)
        if key:
            request.headers["authorization"] = f"Bearer {key}"
        return request

    return authorize
