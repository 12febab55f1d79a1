"""What servers of this kind were attacked with, by class of published advisory. Each class has its test here, or is named with its place.

- Code that runs, or a model that is loaded, before authorisation (Chroma CVE-2026-45829, Langflow CVE-2025-3248):
  `test_access.py` shows that nothing of a body is read before; here, that no request can name a model, a file or an address.
- Keys that can be derived (RAGFlow CVE-2025-69286): `contract/test_keys.py`. Suspended keys that work (AnythingLLM CVE-2026-32717):
  `test_access.py`.
- Other people's objects by id (Open WebUI CVE-2026-45398, -45402, -45671, -45349): `test_two_tenants.py`, at every route.
- Bombs: `test_bodies.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ragline.types import Document
from tests.imitation.http import ImitationServer, Reply, Request
from tests.server.serving import Served, serving

NAMED_ELSEWHERE = {"model"}
"""Under /v1 the model is the name of a collection; nothing is loaded by it."""


def _properties(document: dict[str, Any], schema: dict[str, Any], seen: frozenset[str] = frozenset()) -> Iterator[str]:
    name = schema.get("$ref", "").rpartition("/")[2]
    if name:
        if name not in seen:
            yield from _properties(document, document["components"]["schemas"][name], seen | {name})
        return
    for field, inner in schema.get("properties", {}).items():
        yield field
        yield from _properties(document, inner, seen)
    for part in (schema.get("items"), *schema.get("anyOf", ()), *schema.get("allOf", ()), *schema.get("oneOf", ())):
        if isinstance(part, dict):
            yield from _properties(document, part, seen)


async def test_no_request_can_name_a_model_a_file_an_address_or_a_secret(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        document = served.app.openapi()
        for path, methods in document["paths"].items():
            for operation in methods.values():
                for content in operation.get("requestBody", {}).get("content", {}).values():
                    fields = set(_properties(document, content.get("schema", {})))
                    if path.startswith("/v1/"):
                        fields -= NAMED_ELSEWHERE
                    suspect = {
                        name for name in fields if any(word in name for word in ("model", "path", "url", "uri", "host", "api_key", "base"))
                    }
                    assert not suspect, (path, suspect)


async def test_addresses_in_a_request_are_never_gone_to(tmp_path: Path) -> None:
    """Server-side request forgery (Open WebUI CVE-2026-45401, -45400): there is nothing that would fetch."""

    async def caught(request: Request) -> Reply:
        return Reply(b"caught")

    with ImitationServer(caught) as elsewhere:
        url = f"{elsewhere.url}/secret"
        async with serving(tmp_path, web={"private_addresses": True}) as served:
            await served.state.engine.ingest(Document(text="The ferry will leave at nine.", id="a"))
            for path, body in (
                ("/api/v1/search", {"query": url, "collections": [url], "filter": {"source": url}}),
                ("/api/v1/query", {"query": f"summarise {url}", "filter": {url: {"in": [url]}}}),
                ("/api/v1/query/batch", {"queries": [{"query": url}]}),
                ("/api/v1/collections", {"name": url}),
            ):
                answer = await served.client.post(path, json=body, headers={"x-forwarded-host": elsewhere.url, "referer": url})
                assert answer.status_code < 500
            await served.client.get(f"/api/v1/collections/{url}")
        assert elsewhere.requests == []


@pytest.mark.parametrize(
    "name", ["../../evil", "/etc/passwd", "..", ".", "a/../../b", "C:\\evil", "views/1", "~/.ssh", "%2e%2e%2fevil", "con"]
)
async def test_names_are_not_places_on_the_disk(tmp_path: Path, name: str) -> None:
    """Path traversal (Spring AI CVE-2026-41863) and files overwritten (Open WebUI CVE-2026-28788)."""
    data = tmp_path / "data"
    (tmp_path / "evil").write_text("untouched")
    before = files(tmp_path)
    async with serving(data) as served:
        created = await served.client.post("/api/v1/collections", json={"name": name})
        assert created.status_code == 201, created.text
        await served.state.engine.ingest(Document(text="The ferry will leave at nine.", id=name), collection=name)
        found = await served.client.post("/api/v1/search", json={"query": "ferry", "collections": [name]})
        assert found.json()["hits"][0]["document_id"] == name
    after = files(tmp_path)
    assert {path: after[path] for path in before} == before
    assert all(path.is_relative_to(data) for path in after.keys() - before.keys())
    assert not any(part in str(path) for path in after.keys() - before.keys() for part in ("passwd", "ssh", "evil"))


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


HOSTILE_KEYS = [
    "lang' OR '1'='1",
    'lang"]) OR 1=1 --',
    "$where",
    "__proto__",
    "a.b.c",
    "lang:en OR *",
    "{{7*7}}",
    "${jndi:ldap://x}",
    "lang; DROP TABLE documents",
]


@pytest.mark.parametrize("text", HOSTILE_KEYS)
async def test_filters_cannot_be_broken_out_of(tmp_path: Path, text: str) -> None:
    """Injection through keys and values (LangGraph CVE-2025-67644, Spring AI CVE-2026-22729, -22730, -41705)."""
    async with serving(tmp_path) as served:
        await served.state.engine.ingest([Document(text="common a", id="a", metadata={"lang": "en"}), Document(text="common b", id="b")])
        for condition in (
            {text: "en"},
            {"lang": text},
            {"lang": {"in": [text]}},
            {text: {"exists": True}},
            {"and": [{"lang": text}, {"not": {text: "en"}}]},
        ):
            answer = await served.client.post("/api/v1/search", json={"query": "common", "filter": condition})
            assert answer.status_code == 200 and answer.json()["hits"] == [], (condition, answer.text)
        for wrong in ({"lang": {text: "en"}}, {"or": text}, {"not": [text]}):
            assert (await served.client.post("/api/v1/search", json={"query": "common", "filter": wrong})).status_code == 422
        found = (await served.client.post("/api/v1/search", json={"query": "common", "filter": {"not": {text: "en"}}})).json()
        assert {hit["document_id"] for hit in found["hits"]} == {"a", "b"}, "nothing was dropped"


async def test_what_differs_is_never_one_entry_of_the_cache(tmp_path: Path) -> None:
    """Cache-key collisions: texts that would be one when put together without care, and values that Python calls equal."""
    async with serving(tmp_path) as served:
        engine = served.state.engine
        values: list[Any] = [1, "1", True, 1.5, "true", None, "null", ""]
        await engine.ingest([Document(text="common word", id=repr(value), metadata={"n": value}) for value in values])
        for _ in range(2):  # the second time from the cache, where it is the same
            for value in (1, "1", True, 1.5, "true", "null", ""):
                found = (await served.client.post("/api/v1/search", json={"query": "common", "filter": {"n": value}})).json()
                plain = await engine.tenant("default").search("common", filter={"n": value}, mode="lexical")
                assert {hit["document_id"] for hit in found["hits"]} == {hit.document_id for hit in plain}, value
                assert repr(value) in {hit["document_id"] for hit in found["hits"]}
        for name in ("a", "b", 'a","b', "a,b", "a/b", "a b"):
            await engine.ingest(Document(text=f"common of {name}", id=name), collection=name)
        for _ in range(2):
            for names in (["a", "b"], ['a","b'], ["a,b"], ["a/b"], ["a b"], ["b", "a"]):
                found = (await served.client.post("/api/v1/search", json={"query": "common", "collections": names})).json()
                assert {hit["collection"] for hit in found["hits"]} == set(names)


async def test_headers_cannot_be_split(served_at: Served) -> None:
    for value in ("a\r\nset-cookie: x=1", "a\nb", "a\0b"):
        answer = await served_at.client.get("/livez", headers={b"x-request-id": value.encode()})
        assert "set-cookie" not in answer.headers and answer.headers["x-request-id"].isalnum()
        answer = await served_at.client.get(f"/api/v1/collections/{json.dumps(value)[1:-1]}")
        assert "set-cookie" not in answer.headers


@pytest.fixture
async def served_at(tmp_path: Path) -> Any:
    async with serving(tmp_path) as served:
        yield served
