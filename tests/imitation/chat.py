"""Imitations of language model servers: OpenAI's `/v1/chat/completions` and Ollama's `/api/chat`, both streamed.

with ChatServer("openai") as server:
    server.script = Script(["Keys rotate", 0.05, " every 90 days [1]."])      # texts, and pauses in seconds
    server.fail_next(status(429, {"Retry-After": "1"}))
    ... use server.base_url with the official client ...
    assert server.asked[0]["messages"][0]["role"] == "system"
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.imitation.http import ImitationServer, Reply, Request

MODEL = "imitated-1"

Protocol = Literal["openai", "ollama"]


@dataclass(frozen=True, slots=True)
class Raw:
    """A line sent as it is, between the others."""

    line: bytes


@dataclass(frozen=True, slots=True)
class Script:
    """What a model answers.

    Attributes:
        pieces: In turn: texts that it writes, seconds that it waits, lines that are no text.
        finish: Why it ends, in OpenAI's words; None where it does not say.
        thinking: Written before, in the field that is meant for it.
        error: Sent in mid-stream instead of an end.
        done: Whether OpenAI's `[DONE]` follows.
        silent_end: Keeps the reply open when all is said.
    """

    pieces: Sequence[str | float | Raw] = ("Hello.",)
    finish: str | None = "stop"
    thinking: Sequence[str] = ()
    error: str | None = None
    done: bool = True
    silent_end: bool = False


@dataclass
class ChatServer(ImitationServer):
    """A server of one model, `MODEL`.

    Attributes:
        script: What the model answers from now on.
        key: The key that it wants; "" for none.
        refuses: Parameters that it answers with 400.
        sent_at: When each text was sent, on `time.perf_counter`.
    """

    protocol: Protocol
    script: Script = field(default_factory=Script)
    key: str = ""
    refuses: Sequence[str] = ()
    sent_at: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(self._reply)

    @property
    def base_url(self) -> str:
        """What a client of this protocol is given."""
        return f"{self.url}/v1" if self.protocol == "openai" else self.url

    @property
    def asked(self) -> list[Any]:
        """The bodies of the requests for an answer."""
        return [request.json() for request in self.requests if request.method == "POST"]

    def wait_until_left(self, count: int = 1, within_s: float = 2.0) -> bool:
        """Whether so many clients closed their connection before the reply was whole, or do so soon."""
        ends = time.monotonic() + within_s
        while self.left < count and time.monotonic() < ends:
            time.sleep(0.005)
        return self.left >= count

    async def _reply(self, request: Request) -> Reply:
        if self.key and request.headers.get("authorization") != f"Bearer {self.key}":
            return self._error(401, f"Incorrect API key provided: {request.headers.get('authorization', '')}")
        match (self.protocol, request.method, request.path):
            case ("openai", "GET", "/v1/models"):
                return Reply.json({"object": "list", "data": [{"id": MODEL, "object": "model", "created": 0, "owned_by": "tests"}]})
            case ("ollama", "GET", "/api/tags"):
                return Reply.json({"models": [{"model": f"{MODEL}:latest", "name": f"{MODEL}:latest", "size": 1}]})
            case ("openai", "POST", "/v1/chat/completions") | ("ollama", "POST", "/api/chat"):
                return self._chat(request.json())
        return self._error(404, "404 page not found")

    def _chat(self, asked: Any) -> Reply:
        if not isinstance(asked.get("messages"), list) or not asked.get("stream"):
            return self._error(400, "messages and stream are wanted")
        if asked.get("model") not in (MODEL, f"{MODEL}:latest"):
            return self._error(404, f"model '{asked.get('model')}' not found")
        for name in self.refuses:
            if name in asked or (name == "system" and asked["messages"][0]["role"] == "system"):
                said = (
                    "System role not supported"
                    if name == "system"
                    else f"Unsupported parameter: '{name}' is not supported with this model."
                )
                return self._error(400, said, None if name == "system" else name)
        if self.protocol == "openai":
            return Reply.events(self._paced(self._events(self.script)))
        return Reply(self._paced(self._lines(self.script)), headers={"content-type": "application/x-ndjson"})

    def _error(self, status: int, message: str, param: str | None = None) -> Reply:
        if self.protocol == "ollama":
            return Reply.json({"error": message}, status)
        return Reply.json({"error": {"message": message, "type": "invalid_request_error", "param": param, "code": None}}, status)

    async def _paced(self, lines: Iterator[bytes | float]) -> AsyncIterator[bytes]:
        for line in lines:
            if isinstance(line, bytes):
                self.sent_at.append(time.perf_counter())
                yield line
            else:
                await asyncio.sleep(line)
        if self.script.silent_end:
            await asyncio.Event().wait()

    def _events(self, script: Script) -> Iterator[bytes | float]:
        def event(delta: dict[str, Any], finish: str | None = None) -> bytes:
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
            chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": MODEL, "choices": [choice]}
            return f"data: {json.dumps(chunk)}\n\n".encode()

        yield event({"role": "assistant", "content": ""})
        for thought in script.thinking:
            yield event({"reasoning_content": thought})
        for piece in script.pieces:
            yield piece.line if isinstance(piece, Raw) else event({"content": piece}) if isinstance(piece, str) else piece
        if script.error is not None:
            yield f"data: {json.dumps({'error': {'message': script.error, 'type': 'server_error', 'code': 500}})}\n\n".encode()
            return
        if script.finish is not None:
            yield event({}, script.finish)
        if script.done:
            yield b"data: [DONE]\n\n"

    def _lines(self, script: Script) -> Iterator[bytes | float]:
        def line(**fields: Any) -> bytes:
            return json.dumps({"model": MODEL, "created_at": "2025-01-01T00:00:00Z", **fields}).encode() + b"\n"

        for thought in script.thinking:
            yield line(message={"role": "assistant", "content": "", "thinking": thought}, done=False)
        for piece in script.pieces:
            if isinstance(piece, str):
                yield line(message={"role": "assistant", "content": piece}, done=False)
            else:
                yield piece.line if isinstance(piece, Raw) else piece
        if script.error is not None:
            yield json.dumps({"error": script.error}).encode() + b"\n"
        elif script.finish is not None:
            yield line(
                message={"role": "assistant", "content": ""}, done=True, done_reason=script.finish, prompt_eval_count=9, eval_count=9
            )
