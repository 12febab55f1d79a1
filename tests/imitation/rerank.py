"""Rerank servers: `/rerank` as Hugging Face's text-embeddings-inference speaks it, and as Cohere, Jina and vLLM do.

with RerankServer("tei") as server:
    server.scores = {"keys rotate": 3.0}       # by passage; others score by the words they share with the question
    server.fail_next(RESET)
    ... use server.url ...
    assert server.asked[0].passages == [...]
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tests.imitation.http import ImitationServer, Reply, Request

_WORD = re.compile(r"\w+")
_WINDOW_WORDS = 500
"""What stands behind is not read, as in a model."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What one request asked for."""

    question: str
    passages: list[str]
    body: dict[str, Any]


class RerankServer(ImitationServer):
    """Scores passages, and sends them best first, as real servers do.

    Args:
        style: Which protocol it speaks; it refuses requests in the other one.
        most: Passages that it takes at once; more are refused as the real server does.
        key: What it wants as a bearer token; None takes anybody.

    Attributes:
        asked: The requests that it understood.
        scores: By passage.
    """

    def __init__(self, style: Literal["tei", "cohere"] = "tei", *, most: int = 32, key: str | None = None) -> None:
        super().__init__(self._handle)
        self.style = style
        self.most = most
        self.key = key
        self.scores: dict[str, float] = {}
        self.asked: list[Asked] = []

    async def _handle(self, request: Request) -> Reply:
        paths = ("/rerank",) if self.style == "tei" else ("/rerank", "/v1/rerank", "/v2/rerank")
        if request.method != "POST" or request.path.partition("?")[0] not in paths:
            return Reply(b"", 404)
        if self.key is not None and request.headers.get("authorization") != f"Bearer {self.key}":
            return Reply.json({"message": f"invalid api token {request.headers.get('authorization')}"}, 401)
        return self._tei(request.json()) if self.style == "tei" else self._cohere(request.json())

    def _tei(self, body: dict[str, Any]) -> Reply:
        if not _is_strings(body.get("texts")) or not isinstance(body.get("query"), str):
            return Reply(b"Failed to deserialize the JSON body into the target type: missing field `texts`", 422)
        if not body["texts"]:
            return Reply.json({"error": "`texts` cannot be empty", "error_type": "Empty"}, 400)
        if len(body["texts"]) > self.most:
            message = f"batch size {len(body['texts'])} > maximum allowed batch size {self.most}"
            return Reply.json({"error": message, "error_type": "Validation"}, 422)
        return Reply.json([{"index": index, "score": score} for index, score in self._ranked(body["query"], body["texts"], body)])

    def _cohere(self, body: dict[str, Any]) -> Reply:
        if not _is_strings(body.get("documents")) or not isinstance(body.get("query"), str) or not body.get("model"):
            return Reply.json({"message": "invalid request: model, query and documents are required"}, 400)
        if len(body["documents"]) > self.most:
            return Reply.json({"message": "request too large"}, 413)
        ranked = self._ranked(body["query"], body["documents"], body)[: body.get("top_n", 3)]
        results = [{"index": index, "relevance_score": score} for index, score in ranked]
        return Reply.json({"id": "rerank-1", "results": results, "meta": {"api_version": {"version": "2"}}})

    def _ranked(self, question: str, passages: Sequence[str], body: dict[str, Any]) -> list[tuple[int, float]]:
        self.asked.append(Asked(question, list(passages), body))
        scores = [self._score(question, passage) for passage in passages]
        return sorted(enumerate(scores), key=lambda scored: -scored[1])

    def _score(self, question: str, passage: str) -> float:
        if passage in self.scores:
            return self.scores[passage]
        asked, said = (set(_WORD.findall(text.lower())[:_WINDOW_WORDS]) for text in (question, passage))
        return (len(asked & said) + 0.1 / (1 + len("".join(said)))) / (1 + len(asked | said))


def _is_strings(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)
