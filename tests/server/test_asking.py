"""Searches and questions over HTTP."""

from __future__ import annotations

from pathlib import Path

from ragline.types import Document
from tests.server.serving import serving


async def test_the_skeleton_answers(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        await served.state.engine.ingest(Document(text="The ferry will leave at nine.", id="a"))
        found = await served.client.post("/api/v1/search", json={"query": "when does the ferry leave?"})
        assert found.status_code == 200, found.text
        assert found.json()["hits"][0]["document_id"] == "a"
        answer = await served.client.post("/api/v1/query", json={"query": "when does the ferry leave?"})
        assert "nine" in answer.json()["answer"]
        streamed = await served.client.post("/api/v1/query", json={"query": "when does the ferry leave?", "stream": True})
        assert streamed.text.startswith("event: hits\ndata: {")
        batch = await served.client.post("/api/v1/query/batch", json={"queries": [{"query": "ferry"}, {"query": " "}]})
        assert [next(iter(each)) for each in batch.json()["results"]] == ["answer", "error"]
        key = await served.key("acme")
        assert (await served.client.post("/api/v1/search", json={"query": "ferry"})).status_code == 401
        mine = await served.client.post("/api/v1/search", json={"query": "ferry"}, headers=key)
        assert mine.status_code == 200 and mine.json()["hits"] == []
        print(mine.headers, (await served.client.get("/openapi.json", headers=key)).text[:300])
