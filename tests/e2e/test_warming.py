"""An engine that was warmed up has loaded what questions need."""

from __future__ import annotations

from pathlib import Path

import pytest

from ragline.types import Document
from tests.embedders import HashEmbedder
from tests.engines import engine


async def test_warming_up_loads_models_and_views_of_all_tenants(tmp_path: Path) -> None:
    async with engine(tmp_path) as first:
        await first.warm_up()  # of nothing
        await first.ingest(Document(text="common word", id="a"))
        await first.tenant("acme").ingest(Document(text="common word", id="b"), collection="plans")
    embedder = HashEmbedder()
    asked: list[str] = []
    embed = embedder.embed_questions

    async def noted(questions: list[str]) -> object:
        asked.extend(questions)
        return await embed(questions)

    embedder.embed_questions = noted  # type: ignore[assignment,method-assign]
    async with engine(tmp_path, embedder=embedder) as second:
        await second.warm_up()
        assert asked == ["warm"], "one model, once"
        for tenant, collection in (("default", "default"), ("acme", "plans")):
            found = await second.tenant(tenant).search("common", collections=collection)
            assert len(found) == 1 and found.lag == 0


async def test_a_model_that_cannot_be_opened_is_told_and_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with engine(tmp_path) as first:
        await first.ingest(Document(text="common word", id="a"))
    async with engine(tmp_path, embedder=HashEmbedder(name="another")) as second:
        await second.warm_up()
        assert "cannot be made ready" in caplog.text
