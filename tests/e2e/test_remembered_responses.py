"""What a language model wrote is given again for the same prompt, and for nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ragline.engine import Engine
from ragline.types import Answer, Document
from tests.engines import engine
from tests.imitation.chat import MODEL, ChatServer, Script

KEYS = "The vault keys rotate every 90 days."
ASKED = "how often do vault keys rotate?"


def opened(folder: Path, server: ChatServer, **settings: Any) -> Engine:
    generation = {"generator": server.protocol, "model": MODEL, "base_url": server.base_url, "api_key": "k"}
    return engine(folder, generation=generation, **settings)


async def test_an_answer_is_made_anew_from_a_text_that_was_written_for_the_same_prompt(tmp_path: Path) -> None:
    with ChatServer("openai") as server:
        server.script = Script(["Every 90 days [1]."])
        async with opened(tmp_path, server) as asked:
            await asked.ingest(Document(KEYS, id="keys"))
            first = await asked.ask(ASKED)
            await asked.ingest(Document(KEYS.replace("90", "30"), id="keys"))
            server.script = Script(["Every 30 days [1]."])
            second = await asked.ask(ASKED)
            await asked.ingest(Document(KEYS, id="keys"))
            third = await asked.ask(ASKED)
            assert [each.cache for each in (first, second, third)] == ["miss"] * 3
            assert (third.text, len(server.asked)) == (first.text, 2) and "30" in second.text
            versions = [each.citations[0].document_version for each in (first, second, third)]
            assert versions == sorted(set(versions)), "each cites the version of its time"
            assert third.citations[0].quote == KEYS
            assert (await asked.process_stats())["caches"]["responses"]["hits"] == 1


async def test_nothing_that_was_written_for_one_tenant_is_given_to_another(tmp_path: Path) -> None:
    with ChatServer("openai") as server:
        server.script = Script(["Every 90 days [1]."])
        async with opened(tmp_path, server) as asked:
            for name in ("acme", "other"):
                await asked.tenant(name).ingest(Document(KEYS, id="keys", source="keys.md"))
                await asked.tenant(name).ask(ASKED)
            assert len(server.asked) == 2
            await asked.tenant("acme").clear_cache()
            await asked.tenant("acme").ask(ASKED)
            await asked.tenant("other").ask(ASKED)
            assert len(server.asked) == 3


async def test_texts_that_were_cut_off_or_cite_nothing_are_not_kept_nor_is_any_where_caching_is_off(tmp_path: Path) -> None:
    with ChatServer("openai") as server:
        async with opened(tmp_path / "on", server) as asked:
            await asked.ingest(Document(KEYS, id="keys"))
            for script in (Script(["Every 90 [1]"], finish="length"), Script(["Every 90 days."])):
                server.script = script
                before = len(server.asked)
                answers: list[Answer] = [await asked.ask(ASKED) for _ in range(2)]
                assert all(each.degraded for each in answers) and len(server.asked) == before + 2
        server.script = Script(["Every 90 days [1]."])
        async with opened(tmp_path / "off", server, cache={"enabled": False}) as asked:
            await asked.ingest(Document(KEYS, id="keys"))
            before = len(server.asked)
            for _ in range(2):
                await asked.ask(ASKED)
            assert len(server.asked) == before + 2
