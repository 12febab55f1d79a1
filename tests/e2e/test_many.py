"""Many questions at once, and what the engine tells of itself."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from ragline.errors import InputError
from ragline.observe.logs import RequestIdFilter
from ragline.observe.request_ids import request
from ragline.types import Answer, Document, SearchResult
from tests.engines import engine

TEXTS = [Document(f"The vault of house {number} opens at {number} o'clock.", id=str(number)) for number in range(12)]


async def test_many_questions_come_back_in_order_and_one_failure_ends_no_other(tmp_path: Path) -> None:
    async with engine(tmp_path) as opened:
        await opened.ingest(TEXTS)
        questions = ["When does the vault of house 3 open?", " ", "When does the vault of house 5 open?"]
        answers = await opened.ask_many(questions, max_concurrent=2)
        results = await opened.search_many(questions, top_k=1)
        assert [type(each) for each in answers] == [Answer, InputError, Answer]
        assert [type(each) for each in results] == [SearchResult, InputError, SearchResult]
        assert isinstance(results[2], SearchResult) and results[2][0].document_id == "5"
        assert await opened.ask_many([]) == []
        for wrong, at_once in (("one text", 2), (["a"], 0), (["a"], True)):
            with pytest.raises(InputError):
                await opened.ask_many(wrong, max_concurrent=at_once)


async def test_no_more_questions_than_told_are_under_way_at_once(tmp_path: Path) -> None:
    async with engine(tmp_path) as opened:
        await opened.ingest(TEXTS)
        under_way, most = 0, 0
        search = opened.search

        async def watched(question: str, **options: object) -> SearchResult:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            try:
                await asyncio.sleep(0)
                return await search(question)
            finally:
                under_way -= 1

        opened.search = watched  # type: ignore[method-assign]
        results = await opened.search_many([f"vault {number}" for number in range(20)], max_concurrent=3)
        assert len(results) == 20 and most == 3


async def test_leaving_many_questions_ends_those_under_way(tmp_path: Path) -> None:
    async with engine(tmp_path) as opened:
        await opened.ingest(TEXTS)
        asking = asyncio.create_task(opened.ask_many([f"vault {number}" for number in range(500)], max_concurrent=4))
        await asyncio.sleep(0.01)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    # Closing the engine waited for nothing that was left behind: it would hang otherwise.


async def test_every_request_is_measured_once_with_stages_that_add_up(tmp_path: Path) -> None:
    async with engine(tmp_path) as opened:
        await opened.ingest(TEXTS)
        results: list[SearchResult | Answer] = [await opened.search("vault of house 3"), await opened.search("vault of house 3")]
        results += [await opened.ask("When does the vault of house 3 open?") for _ in range(2)]
        events = [event async for event in opened.stream("When does the vault of house 4 open?")]
        results.append(events[-1].data)
        with pytest.raises(InputError):
            await opened.ask("")
        for result in results:
            stages = sum(took for stage, took in result.timings.items() if stage != "total_ms")
            assert stages == pytest.approx(result.timings["total_ms"], abs=0.05)
            assert all(took >= 0 for took in result.timings.values())
        stats = opened.monitor.get_stats()
        assert {name: (each.count, each.errors) for name, each in stats.items()} == {
            "ingest": (1, 0),
            "search": (2, 0),
            "ask": (3, 1),
            "stream": (1, 0),
        }
        assert stats["ask"].errors_by_kind == {"InputError": 1}
        assert {"cache", "embed", "dense", "lexical", "fetch", "evidence", "generate"} <= set(stats["ask"].stages)
        assert stats["search"].stages["cache"].count == 2 and stats["search"].stages["embed"].count == 1


async def test_every_request_has_an_id_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.handler.addFilter(RequestIdFilter())
    async with engine(tmp_path) as opened:
        await opened.ingest(TEXTS)
        with caplog.at_level(logging.DEBUG, "ragline"):
            for _ in range(2):
                async for _ in opened.stream("When does the vault of house 4 open?"):
                    pass
            await opened.ask("When does the vault of house 5 open?")
            with request("mine"):
                async for _ in opened.stream("When does the vault of house 6 open?"):
                    pass
    ids = [record.__dict__["request_id"] for record in caplog.records if "answered after" in record.getMessage()]
    assert len(set(ids)) == 4 and all(ids) and ids[-1] == "mine"


async def test_who_joins_a_computation_is_told_of_the_wait_and_not_of_its_stages(tmp_path: Path) -> None:
    async with engine(tmp_path) as opened:
        await opened.ingest(TEXTS)
        first, second = await asyncio.gather(*(opened.ask("When does the vault of house 3 open?") for _ in range(2)))
        assert "generate_ms" in first.timings
        assert set(second.timings) == {"cache_ms", "shared_ms", "total_ms"}
        assert (await opened.stats())["answers"]["shared"] == 1


async def test_a_tenant_is_told_of_its_own_requests_and_the_operator_of_all(tmp_path: Path) -> None:
    async with engine(tmp_path) as opened:
        await opened.ingest(TEXTS)
        other = opened.tenant("other")
        await other.ingest(TEXTS[:1])
        for _ in range(2):
            await opened.ask("When does the vault of house 3 open?")
            await other.search("vault")
        assert (await opened.stats())["answers"] == {
            "hit": 1,
            "revalidated": 0,
            "semantic": 0,
            "stale_prevented": 0,
            "miss": 1,
            "shared": 0,
        }
        assert (await other.stats()) == {
            "searches": {"hit": 1, "shared": 0, "miss": 1},
            "answers": {"hit": 0, "revalidated": 0, "semantic": 0, "stale_prevented": 0, "miss": 0, "shared": 0},
        }
        whole = await opened.process_stats()
        assert whole["operations"]["search"]["count"] == 2 and whole["caches"]["answers"]["items"] == 1
        await opened.clear_cache()
        assert (await opened.ask("When does the vault of house 3 open?")).cache == "miss"


@pytest.mark.parametrize("enabled", [True, False])
async def test_chunks_taken_apart_to_quote_from_are_kept_until_the_cache_is_cleared_if_anything_is(tmp_path: Path, enabled: bool) -> None:
    async with engine(tmp_path, cache={"enabled": enabled}) as opened:
        other = opened.tenant("other")
        for each in (opened, other):
            await each.ingest(TEXTS[:1])
            assert (await each.ask("When does the vault of house 3 open?")).hits
        pieces = opened._resources.pieces
        assert len(pieces) == (2 if enabled else 0)
        await opened.clear_cache()
        assert len(pieces) == (1 if enabled else 0), "another tenant's stay"


async def test_monitoring_can_be_switched_off(tmp_path: Path) -> None:
    async with engine(tmp_path, monitoring={"enabled": False}) as opened:
        await opened.ingest(TEXTS)
        assert (await opened.search("vault")).timings["total_ms"] > 0
        assert opened.monitor.get_stats() == {}


class Heard(logging.Handler):
    """Waits for a line of the log."""

    def __init__(self, words: str) -> None:
        super().__init__()
        self.words, self.heard = words, asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        if self.words in record.getMessage():
            self.heard.set()


async def test_a_report_goes_to_the_log_at_the_interval_set(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="ragline.monitoring")
    heard = Heard("ingest: 1")
    logging.getLogger("ragline.monitoring").addHandler(heard)
    async with engine(tmp_path, monitoring={"report_interval_s": 0.02}) as opened:
        await opened.ingest(TEXTS)
        async with asyncio.timeout(10):
            await heard.heard.wait()
    logging.getLogger("ragline.monitoring").removeHandler(heard)


async def test_what_is_logged_of_a_request_carries_its_id(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="ragline")
    tagging = RequestIdFilter()
    caplog.handler.addFilter(tagging)
    async with engine(tmp_path) as opened:
        await opened.ingest(TEXTS)
        with request("mine"):
            await opened.ask("When does the vault of house 3 open?")
        await opened.ask("When does the vault of house 4 open?")
    caplog.handler.removeFilter(tagging)
    ids = [getattr(line, "request_id", "") for line in caplog.records if line.message.startswith("ask answered")]
    assert len(ids) == 2 and ids[0] == "mine" and len(ids[1]) == 16
