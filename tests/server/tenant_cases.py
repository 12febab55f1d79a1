"""For every route, what one tenant sends to get at what is another's. A new route needs a case here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MINE = "acme"
COLLECTION = "acme-plans"
DOCUMENT = "acme-vault"
SECRET = "zanzibar"
KEY = "the-same-key"
JOB = "job_of_acme"
"""Stands for the id of a job of the other's, which is made by chance."""
QUESTION = "What is the password of the vault?"


@dataclass(frozen=True)
class Case:
    """What is sent, and the statuses that may come back.

    Attributes:
        names_it: Whether what is sent names the other's thing, so that the answer may name it too, as not being there.
    """

    statuses: set[int]
    sent: Mapping[str, Any] = field(default_factory=dict)
    path: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    names_it: bool = False


def _asked(**more: Any) -> dict[str, Any]:
    return {"json": {"query": QUESTION, **more}}


def _chat(**more: Any) -> dict[str, Any]:
    return {"json": {"model": "ragline", "messages": [{"role": "user", "content": QUESTION}], **more}}


_THERE = {"collections": [COLLECTION]}

CASES: Mapping[str, tuple[Case, ...]] = {
    "POST /api/v1/search": (Case({200}, _asked()), Case({404}, _asked(**_THERE), names_it=True)),
    "POST /api/v1/query": (
        Case({200}, _asked()),
        Case({404}, _asked(**_THERE), names_it=True),
        Case({200}, _asked(stream=True)),
        Case({200, 404}, _asked(stream=True, **_THERE), names_it=True),
    ),
    "POST /api/v1/query/batch": (Case({200}, {"json": {"queries": [{"query": QUESTION}, {"query": QUESTION, **_THERE}]}}, names_it=True),),
    "POST /v1/chat/completions": (
        Case({200}, _chat()),
        Case({200}, _chat(stream=True)),
        Case({404}, _chat(model=COLLECTION), names_it=True),
        Case({404}, _chat(model=COLLECTION, stream=True), names_it=True),
    ),
    "GET /v1/models": (Case({200}),),
    "GET /v1/models/{model}": (Case({200}, path={"model": "ragline"}), Case({404}, path={"model": COLLECTION}, names_it=True)),
    "POST /v1/embeddings": (Case({200}, {"json": {"model": "hash", "input": QUESTION}}),),
    "GET /api/v1/collections": (Case({200}),),
    "POST /api/v1/collections": (Case({201}, {"json": {"name": "acme-other"}}), Case({201}, {"json": {"name": COLLECTION}}, names_it=True)),
    "GET /api/v1/collections/{name}": (
        Case({404}, path={"name": "acme-secret-plans"}),
        Case({200}, path={"name": COLLECTION}, names_it=True),
    ),
    "DELETE /api/v1/collections/{name}": (
        Case({200}, path={"name": COLLECTION}, names_it=True),
        Case({404}, path={"name": COLLECTION}, names_it=True),
    ),
    "GET /api/v1/cache": (Case({200}),),
    "DELETE /api/v1/cache": (Case({200}),),
    "GET /api/v1/stats": (Case({200}),),
    "GET /api/v1/audit": (Case({200}, names_it=True),),
    "GET /metrics": (Case({403}),),
    # First, for what is sent after it is in it.
    "GET /api/v1/jobs": (Case({200}),),
    "GET /api/v1/documents": (Case({200}), Case({200}, {"params": {"collection": COLLECTION}})),
    "POST /api/v1/documents": (
        Case({202}, {"json": {"text": "ours", "id": DOCUMENT}}, names_it=True),
        Case({202}, {"json": {"text": "ours", "id": DOCUMENT, "collection": COLLECTION}}, names_it=True),
        Case({202}, {"files": {"file": ("a.txt", b"ours")}, "data": {"id": DOCUMENT}}, names_it=True),
        Case({202}, {"json": {"text": "ours"}}, headers={"idempotency-key": KEY}),
    ),
    "PUT /api/v1/documents/{id}": (Case({202}, {"json": {"text": "ours"}}, path={"id": DOCUMENT}, names_it=True),),
    "GET /api/v1/documents/{id}": (
        Case({200, 404}, path={"id": DOCUMENT}, names_it=True),
        Case({404}, {"params": {"collection": "acme-plans-2"}}, path={"id": DOCUMENT}, names_it=True),
    ),
    "GET /api/v1/documents/{id}/chunks": (Case({200, 404}, path={"id": DOCUMENT}, names_it=True),),
    "DELETE /api/v1/documents/{id}": (Case({200, 404}, path={"id": DOCUMENT}, names_it=True),),
    "GET /api/v1/jobs/{id}": (Case({404}, path={"id": JOB}),),
    "GET /api/v1/jobs/{id}/events": (Case({404}, path={"id": JOB}),),
    "DELETE /api/v1/jobs/{id}": (Case({404}, path={"id": JOB}),),
    "POST /api/v1/jobs/{id}/retry": (Case({404}, path={"id": JOB}),),
}

UNSCOPED = {"GET /livez", "GET /readyz", "GET /health", "GET /healthz"}
"""What tells of no tenant."""
