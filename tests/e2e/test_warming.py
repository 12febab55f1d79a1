"""An engine that was warmed up has loaded what questions need."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ragline.engine import Engine
from ragline.errors import SettingsError
from ragline.settings import Settings
from ragline.types import Document
from tests.embedders import HashEmbedder
from tests.engines import engine
from tests.tiny_bert import write_model


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


async def test_a_model_that_one_collection_alone_needs_and_that_is_gone_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gone, here = write_model(tmp_path / "gone", seed=1), write_model(tmp_path / "here", seed=2)
    for collection, model in (("old", gone), ("default", here)):
        settings = Settings(embedding={"model": str(model)}, collection=collection)
        async with Engine.open(tmp_path / "data", settings=settings) as first:
            await first.ingest(Document(text="common word", id="a"))
    shutil.rmtree(gone)
    for collection in ("default", "old"):
        async with Engine.open(tmp_path / "data", settings=Settings(collection=collection)) as second:
            await second.warm_up()
            assert "'old' of tenant 'default' cannot be made ready: there is no model" in caplog.text
            assert len(await second.search("common", collections="default")) == 1
        caplog.clear()
    async with Engine.open(tmp_path / "data", settings=Settings(embedding={"model": str(gone)})) as third:
        with pytest.raises(SettingsError, match="there is no model"):
            await third.warm_up()
