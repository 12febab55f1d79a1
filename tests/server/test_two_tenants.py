"""One tenant asks every route there is, with the other's ids and names: it sees, changes, counts and hastens nothing of the other's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ragline import json_shapes
from ragline.engine import Engine
from ragline.types import Document
from tests.server.serving import Served, serving
from tests.server.tenant_cases import CASES, COLLECTION, DOCUMENT, JOB, KEY, MINE, QUESTION, SECRET, UNSCOPED


async def snapshot(engine: Engine, tenant: str) -> dict[str, Any]:
    """All that can be seen of a tenant from within."""
    mine = engine.tenant(tenant)
    collections = await mine.collections()
    documents = {
        each.name: [
            (json_shapes.document(one), await mine.text(one.id, collection=each.name)) for one in await mine.documents(collection=each.name)
        ]
        for each in collections
    }
    keys = await engine.store.keys.list(tenant)
    return {
        "collections": collections,
        "documents": documents,
        "stats": await mine.stats(),
        "keys": [(key.id, key.revoked_at) for key in keys],
        "jobs": [await mine.jobs.get(job.id) for job in await mine.jobs.list()],
        "audit": await engine.store.keys.audited(tenant),
    }


async def prepared(served: Served) -> dict[str, str]:
    """Two tenants, each with a key that may do everything of its own; the other's headers."""
    await served.key(MINE, "admin")
    key = await served.key("other", "admin", "read", "write")
    mine = served.state.engine.tenant(MINE)
    for collection in ("default", COLLECTION):
        await mine.ingest(Document(text=f"The password of the vault is {SECRET}.", id=DOCUMENT), collection=collection)
    await mine.ask(QUESTION)
    await served.state.engine.tenant("other").ingest(Document(text="The vault of others is empty.", id="theirs"))
    return key


async def test_every_route_is_in_this_test(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        there = {f"{method.upper()} {path}" for path, methods in served.app.openapi()["paths"].items() for method in methods}
        assert there - UNSCOPED == set(CASES), "give each new route a case in tests/server/tenant_cases.py"


async def test_nothing_of_another_tenant_is_seen_changed_or_counted(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        key = await prepared(served)
        mine = served.state.engine.tenant(MINE)
        job = (await mine.jobs.wait((await mine.jobs.submit(Document(text=SECRET), idempotency_key=KEY)).id)).id
        before = await snapshot(served.state.engine, MINE)
        for name, cases in CASES.items():
            method, _, template = name.partition(" ")
            for case in cases:
                path = template.format(**{part.replace("-", "_"): value for part, value in case.path.items()}).replace(JOB, job)
                answer = await served.client.request(method, path, headers={**key, **case.headers}, **case.sent)
                assert answer.status_code in case.statuses, (name, answer.status_code, answer.text)
                assert SECRET not in answer.text, name
                if not case.names_it:
                    assert COLLECTION not in answer.text and DOCUMENT not in answer.text, name
        after = await snapshot(served.state.engine, MINE)
        assert after == before


async def test_an_answer_that_another_tenant_has_been_given_is_not_known(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        key = await prepared(served)
        for _ in range(2):
            await served.state.engine.tenant(MINE).ask(QUESTION)
        answer = (await served.client.post("/api/v1/query", json={"query": QUESTION}, headers=key)).json()
        assert answer["cache"] == "miss"
        seen = (await served.client.get("/api/v1/cache", headers=key)).json()
        assert seen["answers"]["miss"] == 1 and seen["answers"]["hit"] == 0
