"""Embedding servers: OpenAI's POST /v1/embeddings, and what others make of it.

with EmbeddingsServer(key="secret", latency_s=0.02) as server:
    server.fail_next(status(429, {"Retry-After": "1"}))
    ... use server.base_url ...
    assert server.inputs == [["a text", "another"]]
"""

from __future__ import annotations

import asyncio
import base64
from typing import Any, Literal

import numpy as np

from ragline.types import Float32
from tests.embedders import HashEmbedder
from tests.imitation.http import ImitationServer, Reply, Request

Treats = Literal["takes", "ignores", "refuses"]


class EmbeddingsServer(ImitationServer):
    """Gives texts the vectors of `HashEmbedder`, times `scale`: texts that share content words are near.

    Args:
        model: The one it has; every other is unknown.
        key: What it wants as a bearer token; None takes anybody.
        most_texts: In one request; more are refused with `too_many_status`.
        max_tokens: Of one text, words and signs.
        dimensions, base64: What it does with these parameters.
        requests_per_window, window_s: Its rate limit, told in OpenAI's headers; None has none.
        latency_s: Before each reply.

    Attributes:
        inputs: The texts of each request that was answered, in order of arrival.
        bodies: Every body that came, answered or not.
        at_once: The most requests that were ever under way together.
        shuffled: Whether the vectors come in another order than the texts; `index` tells which is whose.
        name_matters: Whether the model's name is looked at; some servers have one model and serve it under any name.
    """

    def __init__(
        self,
        *,
        model: str = "hash-embed",
        dimension: int = 64,
        key: str | None = None,
        most_texts: int = 2048,
        too_many_status: int = 413,
        max_tokens: int = 8192,
        dimensions: Treats = "takes",
        base64: Treats = "takes",
        scale: float = 1.0,
        requests_per_window: int | None = None,
        window_s: float = 1.0,
        latency_s: float = 0.0,
    ) -> None:
        super().__init__(self._handle)
        self.model = model
        self.key = key
        self.most_texts = most_texts
        self.too_many_status = too_many_status
        self.max_tokens = max_tokens
        self.dimensions = dimensions
        self.base64 = base64
        self.scale = scale
        self.requests_per_window = requests_per_window
        self.window_s = window_s
        self.latency_s = latency_s
        self.shuffled = False
        self.name_matters = True
        self.inputs: list[list[str]] = []
        self.bodies: list[dict[str, Any]] = []
        self.at_once = 0
        self._under_way = 0
        self._window_start = 0.0
        self._window_count = 0
        self.become(dimension)

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"

    def become(self, dimension: int, *, flavour: str = "") -> None:
        """Serves another model under the same name."""
        self._hashed = HashEmbedder(dimension, max_tokens=1_000_000)
        self._flavour = flavour

    async def _handle(self, request: Request) -> Reply:
        if request.method != "POST" or request.path.partition("?")[0] != "/v1/embeddings":
            return Reply.json({"detail": "Not Found"}, 404)
        if self.key is not None and request.headers.get("authorization") != f"Bearer {self.key}":
            message = f"Incorrect API key provided: {request.headers.get('authorization')}."
            return _error(401, message, code="invalid_api_key")
        headers, limited = self._rate(request.at)
        if limited is not None:
            return limited
        self._under_way += 1
        self.at_once = max(self.at_once, self._under_way)
        try:
            await asyncio.sleep(self.latency_s)
            body = request.json()
            self.bodies.append(body)
            return self._refused(body) or await self._vectors(body, headers)
        finally:
            self._under_way -= 1

    def _rate(self, at: float) -> tuple[dict[str, str], Reply | None]:
        if self.requests_per_window is None:
            return {}, None
        if at >= self._window_start + self.window_s:
            self._window_start, self._window_count = at, 0
        self._window_count += 1
        reset_s = self._window_start + self.window_s - at
        left = max(0, self.requests_per_window - self._window_count)
        headers = {
            "x-ratelimit-limit-requests": str(self.requests_per_window),
            "x-ratelimit-remaining-requests": str(left),
            "x-ratelimit-reset-requests": f"{reset_s * 1000:.0f}ms",
        }
        if self._window_count <= self.requests_per_window:
            return headers, None
        return headers, _error(429, "Rate limit reached", headers={**headers, "retry-after-ms": f"{reset_s * 1000 + 1:.0f}"})

    def _refused(self, body: dict[str, Any]) -> Reply | None:
        texts = body.get("input")
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text for text in texts):
            return _error(400, "'$.input' is invalid. Please check the API reference.")
        if self.name_matters and body.get("model") != self.model:
            return _error(404, f"The model `{body.get('model')}` does not exist or you do not have access to it.", code="model_not_found")
        if len(texts) > self.most_texts:
            return _error(self.too_many_status, f"batch size {len(texts)} > maximum allowed batch size {self.most_texts}")
        longest = max(len(self._hashed.tokenizer.spans([text])[0].ids) for text in texts)
        if longest > self.max_tokens:
            return _error(400, f"This model's maximum context length is {self.max_tokens} tokens, however you requested {longest} tokens.")
        if "dimensions" in body and self.dimensions == "refuses":
            return _error(400, "This model does not support specifying dimensions.")
        if body.get("encoding_format") == "base64" and self.base64 == "refuses":
            return _error(422, "encoding_format: only float is supported")
        return None

    async def _vectors(self, body: dict[str, Any], headers: dict[str, str]) -> Reply:
        texts = body["input"]
        self.inputs.append(texts)
        vectors = await self._hashed.embed_questions([text + self._flavour for text in texts])
        if self.dimensions == "takes":
            vectors = vectors[:, : body.get("dimensions")]
        as_base64 = body.get("encoding_format") == "base64" and self.base64 == "takes"
        rows = [
            {
                "object": "embedding",
                "index": index,
                "embedding": _encoded(self.scale * vector) if as_base64 else (self.scale * vector).tolist(),
            }
            for index, vector in enumerate(vectors)
        ]
        if self.shuffled:
            rows = rows[1::2] + rows[::2]
        tokens = sum(len(text.split()) for text in texts)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return Reply.json({"object": "list", "data": rows, "model": self.model, "usage": usage}, headers=headers)


def _encoded(vector: Float32) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


def _error(status: int, message: str, *, code: str | None = None, headers: dict[str, str] | None = None) -> Reply:
    return Reply.json({"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}, status, headers)


def one_vector(vector: Float32 | list[float] | list[list[float]] | str, index: Any = 0) -> Reply:
    """A reply with a single row, whatever it holds."""
    row = {"object": "embedding", "index": index, "embedding": np.asarray(vector).tolist() if not isinstance(vector, str) else vector}
    return Reply.json({"object": "list", "data": [row], "model": "m", "usage": {}})
