"""Language models behind OpenAI's protocol: OpenAI's own, vLLM, llama.cpp, LM Studio and whatever else speaks it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import httpx2
import openai
from openai.types.chat import ChatCompletionChunk

from ragline.errors import NotFoundError, SettingsError
from ragline.generation.chat_model import Finish, Message, ModelFailedError
from ragline.generation.serving import CONNECT_TIMEOUT_S, LAST_WORDS_S, REACHABLE_TIMEOUT_S, Server
from ragline.settings import GenerationSettings, PoolSettings

USUAL_URL = "https://api.openai.com/v1"

_REFUSED = frozenset({"content_filter", "refusal"})
_UNSUPPORTED = re.compile(
    r"unsupported|not supported|does not support|unrecognized|unknown|unexpected|extra inputs|not permitted", re.IGNORECASE
)


class OpenAIChat:
    """A `ChatModel` behind `/v1/chat/completions`.

    Servers differ in what they call the longest answer and in whether they take a temperature: what one refuses is
    left out or said otherwise, once, and remembered.

    Raises:
        SettingsError: The model is not named, or the key that the server wants is missing.
    """

    def __init__(self, settings: GenerationSettings, pool: PoolSettings) -> None:
        self._server = Server.of(
            settings, USUAL_URL, missing_hint="set generation.model to one that it has; generation.base_url usually ends in /v1"
        )
        official = _is_official(self._server.url)
        if official and not self._server.key:
            raise SettingsError(f"there is no key for {self._server.url}", hint="set generation.api_key or OPENAI_API_KEY")
        self._settings = settings
        self._dialect = _Dialect("max_completion_tokens" if official else "max_tokens")
        self._client = openai.AsyncOpenAI(
            base_url=settings.base_url or USUAL_URL,
            api_key=self._server.key or "none",
            max_retries=0,
            http_client=openai.DefaultAsyncHttpxClient(
                # Every request stands under the deadline of its answer.
                timeout=httpx2.Timeout(None, connect=min(CONNECT_TIMEOUT_S, settings.first_token_timeout_s)),
                limits=httpx2.Limits(max_connections=pool.max_size, max_keepalive_connections=min(pool.min_size, pool.max_size)),
                trust_env=not self._server.is_local,
                # Documents and key go to the address that the settings name and to no other.
                follow_redirects=False,
                verify=self._server.is_encrypted,
            ),
        )
        # The client has read more of the environment: keys of other kinds, and OPENAI_CUSTOM_HEADERS, which can hold one. Who gets
        # what stands there is for the settings to decide.
        self._client.admin_api_key = None
        self._client._custom_headers = {}
        self._headers: dict[str, Any] = {} if official else {"OpenAI-Organization": openai.Omit(), "OpenAI-Project": openai.Omit()}
        self._headers["Authorization"] = f"Bearer {self._server.key}" if self._server.key else openai.Omit()

    @property
    def name(self) -> str:
        """The model's name, as its server knows it."""
        return self._server.model

    @property
    def fingerprint(self) -> str:
        """Server, model, and what is sent along."""
        sent = [self._server.url, self.name, self._settings.temperature, self._settings.top_k, self._settings.max_tokens]
        return f"openai:{hashlib.sha256(json.dumps(sent).encode()).hexdigest()[:16]}"

    async def stream(self, messages: Sequence[Message]) -> AsyncGenerator[str | Finish, None]:
        """Yields the text as it comes, then a `Finish`. See `ChatModel.stream`."""
        response = await self._open(messages)
        begun = False
        try:
            while True:
                with self._translated(begun):
                    try:
                        text, finish = _read(await anext(response))
                    except StopAsyncIteration:
                        break
                if text is not None:
                    begun = True
                    yield text
                if finish is not None:
                    with contextlib.suppress(Exception):
                        async with asyncio.timeout(LAST_WORDS_S):
                            while True:
                                await anext(response)
                    yield finish
                    return
        finally:
            await response.close()
        why = "the stream ended without saying that the answer is whole"
        raise self._server.broke_off(why) if begun else self._server.nonsense("a stream without an answer")

    async def reachable(self) -> None:
        """Looks the model up in the server's list. See `ChatModel.reachable`."""
        try:
            async with asyncio.timeout(REACHABLE_TIMEOUT_S):
                with self._translated(begun=False):
                    models = (await self._client.models.list(extra_headers=self._headers)).data
                    served = {str(model.id): str(getattr(model, "owned_by", "")) for model in models or ()}
        except ModelFailedError as failed:
            raise failed.error from failed.__cause__
        except TimeoutError as error:
            raise self._server.unreachable(f"no answer within {REACHABLE_TIMEOUT_S:g} s").error from error
        # llama.cpp has one model and answers to any name.
        if served and self.name not in served and set(served.values()) != {"llamacpp"}:
            shown = ", ".join(sorted(served)[:10])
            raise NotFoundError(
                f"the model {self.name!r} is not there at {self._server.url}", hint=f"set generation.model to one that is: {shown}"
            )

    async def close(self) -> None:
        """Closes the connections. Twice is harmless."""
        await self._client.close()

    async def _open(self, messages: Sequence[Message]) -> openai.AsyncStream[ChatCompletionChunk]:
        dialect = self._dialect
        while True:
            try:
                with self._translated(begun=False):
                    request = dialect.request(self._settings, self.name, messages)
                    response = await self._client.chat.completions.create(extra_headers=self._headers, **request)
            except ModelFailedError as failed:
                refused = failed.__cause__
                other = dialect.without(refused) if isinstance(refused, openai.APIStatusError) else None
                if other is None:
                    raise
                dialect = other
            else:
                self._dialect = dialect
                return cast("openai.AsyncStream[ChatCompletionChunk]", response)

    @contextlib.contextmanager
    def _translated(self, begun: bool) -> Iterator[None]:
        server = self._server
        try:
            yield
        except openai.APIStatusError as error:
            told = error.body.get("message") if isinstance(error.body, dict) else error.body
            failed = server.refusal(error.status_code, told or error.message, error.response.headers, code=error.code)
            raise failed from (None if server.tells_key(error) else error)
        except openai.APITimeoutError as error:
            raise server.unreachable(error.__cause__ or error) from error
        except openai.APIConnectionError as error:
            raise (server.broke_off if begun else server.unreachable)(error.__cause__ or error) from error
        except openai.APIError as error:
            raise server.broke_off(error.message) from error
        except (openai.OpenAIError, httpx2.HTTPError, ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
            raise server.nonsense(f"{type(error).__name__}: {error}") from error


@dataclass(frozen=True, slots=True)
class _Dialect:
    """How one server wants to be asked.

    Attributes:
        limit: What it calls the longest answer: OpenAI's newer models know `max_completion_tokens` alone, others `max_tokens`.
        temperature: Whether it takes one.
        system: Whether it takes messages of that role.
        settled: Whether the other name for the limit was tried.
    """

    limit: str
    temperature: bool = True
    system: bool = True
    settled: bool = False

    def request(self, settings: GenerationSettings, model: str, messages: Sequence[Message]) -> dict[str, Any]:
        """The arguments of one request."""
        if not self.system:
            messages = [Message("user", "\n\n".join(message.content for message in messages))]
        asked: dict[str, Any] = {
            "model": model,
            "messages": [{"role": message.role, "content": message.content} for message in messages],
            "stream": True,
            self.limit: settings.max_tokens,
        }
        if self.temperature and settings.temperature is not None:
            asked["temperature"] = settings.temperature
        if settings.top_k is not None:
            asked["extra_body"] = {"top_k": settings.top_k}
        return asked

    def without(self, refused: openai.APIStatusError) -> _Dialect | None:
        """How to ask instead, where the server named what it does not take and that can be said otherwise; else None."""
        if refused.status_code not in (400, 422):
            return None
        said = refused.message
        if not self.settled and (refused.param == self.limit or _names(said, self.limit)):
            return replace(self, limit="max_completion_tokens" if self.limit == "max_tokens" else "max_tokens", settled=True)
        if self.temperature and (refused.param == "temperature" or _names(said, "temperature")):
            return replace(self, temperature=False)
        if self.system and re.search(r"\bsystem (?:role|message|prompt)s?\b", said, re.IGNORECASE) and _UNSUPPORTED.search(said):
            return replace(self, system=False)
        return None


def _names(said: str, parameter: str) -> bool:
    return re.search(rf"\b{parameter}\b", said) is not None and _UNSUPPORTED.search(said) is not None


def _read(chunk: Any) -> tuple[str | None, Finish | None]:
    """The text of a chunk ("" for a sign of life, None for nothing) and how the answer ended, if it did.

    The client does not check what it is sent, so everything may be of any kind or missing.
    """
    choices = getattr(chunk, "choices", None)
    if not choices:
        return None, None
    choice = choices[0]
    delta = getattr(choice, "delta", None)
    content = getattr(delta, "content", None)
    text = content if isinstance(content, str) and content else None
    if text is None and any(getattr(delta, name, None) for name in ("reasoning_content", "reasoning", "refusal")):
        text = ""
    reason = getattr(choice, "finish_reason", None)
    if getattr(delta, "refusal", None) or reason in _REFUSED:
        return text, Finish("refused")
    if not reason:
        return text, None
    return text, Finish("length" if reason == "length" else "stop")


def _is_official(url: str) -> bool:
    host = url.split("/")[2].partition(":")[0]
    return host == "api.openai.com" or host.endswith((".openai.com", ".openai.azure.com"))
