"""What is written down of what was done."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from ragline.engine import Engine
from ragline.server import clearing
from ragline.types import Document
from tests.embedders import HashEmbedder
from tests.server.raw import Exchange
from tests.server.serving import serving


async def test_each_act_has_its_line_and_what_did_nothing_has_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "ragline")
    logging.getLogger("ragline").addHandler(caplog.handler)  # a server that finds a handler leaves the log as it is
    async with serving(tmp_path) as served:
        key = await served.key("acme", "admin")
        await served.state.engine.tenant("acme").ingest(Document(text="The ferry leaves.", id="a"))
        client = served.client
        for method, path, body in (
            ("POST", "/api/v1/collections", {"name": "plans"}),
            ("POST", "/api/v1/collections", {"name": "plans"}),
            ("DELETE", "/api/v1/collections/none", None),
            ("DELETE", "/api/v1/documents/none", None),
            ("DELETE", "/api/v1/documents/a", None),
            ("DELETE", "/api/v1/cache", None),
            ("DELETE", "/api/v1/collections/plans", None),
        ):
            await client.request(method, path, json=body, headers=key) if body else await client.request(method, path, headers=key)
        lines = (await client.get("/api/v1/audit", headers=key)).json()["lines"]
        assert [(line["act"], line["target"]) for line in reversed(lines)][1:] == [
            ("collection.create", "plans"),
            ("document.delete", "a"),
            ("cache.clear", "acme"),
            ("collection.delete", "plans"),
        ]
        assert {line["actor"] for line in lines[:-1]} == {key["authorization"].split("_")[1]}
        page = (await client.get(f"/api/v1/audit?limit=1&before={lines[1]['id']}", headers=key)).json()["lines"]
        assert page == lines[2:3]
    told = list(dict.fromkeys(record.getMessage() for record in caplog.records if record.name == "ragline.audit"))
    assert len(told) == 5 and any(line.startswith("document.delete a by ") for line in told)


async def test_an_upload_that_is_deleted_before_it_is_done_has_its_line(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        key = await served.key("acme", "admin")
        runner = served.state.engine._resources.job_runner
        assert runner is not None
        await runner.stop()
        await served.client.post("/api/v1/documents", json={"text": "It waits.", "id": "a"}, headers=key)
        deleted = [(await served.client.delete("/api/v1/documents/a", headers=key)).status_code for _ in range(2)]
        assert deleted == [200, 404]
        lines = (await served.client.get("/api/v1/audit", headers=key)).json()["lines"]
        assert [line["act"] for line in lines] == ["document.delete", "key.create"]


async def test_a_job_that_is_cancelled_or_retried_has_its_line(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        key = await served.key("acme", "admin")
        runner = served.state.engine._resources.job_runner
        assert runner is not None
        await runner.stop()
        jobs = served.state.engine.store.jobs
        waits, failed = [
            (await served.client.post("/api/v1/documents", json={"text": text}, headers=key)).json()["job_id"] for text in ("one", "two")
        ]
        for _ in range(2):
            assert (await served.client.delete(f"/api/v1/jobs/{waits}", headers=key)).json()["state"] == "cancelled"
        claimed = await jobs.claim("test", now=3e9, lease_s=60, max_files=1, max_bytes=1000, max_attempts=3)
        assert claimed is not None
        await jobs.fail(claimed.leases, error="down", hint="later")
        statuses = [(await served.client.post(f"/api/v1/jobs/{failed}/retry", headers=key)).status_code for _ in range(2)]
        assert statuses == [202, 409]
        assert (await served.client.delete("/api/v1/jobs/none", headers=key)).status_code == 404
        lines = (await served.client.get("/api/v1/audit", headers=key)).json()["lines"]
        assert [(line["act"], line["target"]) for line in lines[:-1]] == [("job.retry", failed), ("job.cancel", waits)]


async def test_a_failure_does_not_end_the_clearing_of_caches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(clearing, "_LOOK_EVERY_S", 0.01)
    async with Engine.open(tmp_path, embedder=HashEmbedder()) as engine:
        cleared, fails = asyncio.Event(), ["at first"]

        async def clear(self: Engine) -> None:
            if fails:
                raise RuntimeError(f"broken {fails.pop()}")
            cleared.set()

        monkeypatch.setattr(Engine, "clear_cache", clear)
        logging.getLogger("ragline").addHandler(caplog.handler)
        following = asyncio.create_task(clearing.follow_clears(engine))
        try:
            async with asyncio.timeout(10):
                while not cleared.is_set():  # what was cleared before it began is not its business
                    await engine.store.keys.audit("acme", "test", clearing.CLEAR_CACHE, "acme")
                    await asyncio.sleep(0.02)
        finally:
            following.cancel()
            logging.getLogger("ragline").removeHandler(caplog.handler)
    assert any(record.exc_info and "broken at first" in str(record.exc_info[1]) for record in caplog.records)


async def test_an_act_whose_client_leaves_is_done_and_written_down_or_neither(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        engine = served.state.engine
        await engine.create_collection("plans")
        async with engine.store.transaction():  # whoever wants to write waits for this one
            exchange = Exchange(served.app, "DELETE", "/api/v1/collections/plans", {"host": "localhost"}, b"")
            await asyncio.sleep(0.2)  # until it waits
            assert served.state.under_way
            exchange.leave.set()
            await asyncio.wait_for(exchange.task, 10)
        await asyncio.wait(served.state.under_way)
        assert [each.name for each in await engine.collections()] == []
        assert [(line.act, line.actor) for line in await engine.store.keys.audited("default")] == [("collection.delete", "local")]
