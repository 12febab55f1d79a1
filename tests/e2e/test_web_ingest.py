"""URLs in `ingest` and `ask`: a real engine, real servers on this machine."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ragline.engine import Engine
from ragline.engine.sources import Source
from ragline.types import Document, IngestProgress
from tests.embedders import HashEmbedder
from tests.engines import engine
from tests.imitation.http import HANG, RESET, ImitationServer, Reply, Request, slow, status
from tests.imitation.site import HTML, Site, moved, page


@pytest.fixture
def site() -> Site:
    return Site({
        "/boats.html": Reply(
            b"<html><head><title>Boats</title></head><body><main><h1>Patrol boats</h1>"
            b"<p>The patrol boat Kittiwake is serviced in March.</p></main></body></html>", 200, {"content-type": HTML},
        ),
        "/keys.md": Reply(b"# Keys\n\nSigning keys are rotated every ninety days.\n", 200, {"content-type": "text/markdown"}),
    })  # fmt: skip


@pytest.fixture
def server(site: Site) -> Iterator[ImitationServer]:
    with ImitationServer(site) as server:
        yield server


def web_engine(folder: Path, *, embedder: HashEmbedder | None = None, **web: Any) -> Engine:
    return engine(folder / "data", embedder=embedder, web={"private_addresses": True, **web})


async def test_a_url_becomes_a_cited_answer(server: ImitationServer, tmp_path: Path) -> None:
    async with web_engine(tmp_path) as opened:
        report = await opened.ingest([server.url + "/boats.html#part", server.url + "/keys.md"])
        assert (report.added, report.failed, report.skipped) == (2, (), ())
        answer = await opened.ask("When is the Kittiwake serviced?")
        assert "March" in answer.text and answer.citations[0].source == server.url + "/boats.html"
        document = await opened.document(report.document_ids[0])
        assert document.metadata["title"] == "Boats" and "url" not in document.metadata and document.media_type == "text/html"


async def test_a_url_given_twice_is_read_once(server: ImitationServer, tmp_path: Path) -> None:
    async with web_engine(tmp_path) as opened:
        same = [server.url + "/keys.md", server.url.upper().replace("HTTP", "hTTp") + "/x/../keys.md#a", server.url + "/keys.md"]
        report = await opened.ingest(same)
        assert (report.added, len(server.requests)) == (1, 1)


@pytest.mark.parametrize("validator", [{"etag": '"v1"'}, {"etag": 'W/"v1"'}, {"last-modified": "Wed, 01 May 2024 10:00:00 GMT"}])
async def test_an_unchanged_page_costs_one_request_and_no_work(
    site: Site, server: ImitationServer, tmp_path: Path, validator: dict[str, str]
) -> None:
    site.validators["/keys.md"] = validator
    embedder = HashEmbedder()
    async with web_engine(tmp_path, embedder=embedder) as opened:
        first = await opened.ingest(server.url + "/keys.md")
        lsn, embedded, parsers = (await opened.search("keys")).lsn, embedder.embedded, opened._resources.reader.pids
        again = await opened.ingest(server.url + "/keys.md")
        assert (again.added, again.replaced, again.unchanged) == (0, 0, 1) and again.document_ids == first.document_ids
        assert len(server.requests) == 2 and (await opened.search("keys")).lsn == lsn
        assert embedder.embedded == embedded and opened._resources.reader.pids == parsers
        conditional = {"if-none-match": validator.get("etag"), "if-modified-since": validator.get("last-modified")}
        assert {name: server.requests[1].headers.get(name) for name in conditional} == conditional


async def test_same_bytes_are_unchanged_also_where_a_server_has_no_validators(server: ImitationServer, tmp_path: Path) -> None:
    async with web_engine(tmp_path) as opened:
        await opened.ingest(server.url + "/keys.md")
        again = await opened.ingest(server.url + "/keys.md")
        assert (again.replaced, again.unchanged) == (0, 1)


async def test_markup_that_changes_with_every_request_is_no_change_of_the_text(tmp_path: Path) -> None:
    tokens = itertools.count()

    async def handle(request: Request) -> Reply:
        return page("Kittiwake is a boat.", head=f'<meta name="csrf" content="{next(tokens)}">')

    embedder = HashEmbedder()
    with ImitationServer(handle) as server:
        async with web_engine(tmp_path, embedder=embedder) as opened:
            assert (await opened.ingest(server.url)).added == 1
            embedded = embedder.embedded
            assert (await opened.ingest(server.url)).unchanged == 1
            assert embedder.embedded == embedded and next(tokens) == 2


async def test_a_changed_page_is_replaced(site: Site, server: ImitationServer, tmp_path: Path) -> None:
    site.validators["/keys.md"] = {"etag": '"v1"'}
    async with web_engine(tmp_path) as opened:
        first = await opened.ingest(server.url + "/keys.md")
        site.validators["/keys.md"] = {"etag": '"v2"'}
        site.pages["/keys.md"] = Reply(b"# Keys\n\nSigning keys are rotated every sixty days.\n", 200, {"content-type": "text/markdown"})
        second = await opened.ingest(server.url + "/keys.md")
        assert (second.replaced, second.document_ids) == (1, first.document_ids)
        assert "sixty" in await opened.text(first.document_ids[0])
        assert (await opened.ingest(server.url + "/keys.md")).unchanged == 1
        assert server.requests[-1].headers["if-none-match"] == '"v2"'


async def test_a_deleted_document_is_fetched_without_validators(site: Site, server: ImitationServer, tmp_path: Path) -> None:
    site.validators["/keys.md"] = {"etag": '"v1"'}
    async with web_engine(tmp_path) as opened:
        report = await opened.ingest(server.url + "/keys.md")
        await opened.delete(report.document_ids[0])
        assert (await opened.ingest(server.url + "/keys.md")).added == 1
        assert all("if-none-match" not in request.headers for request in server.requests)
        assert (await opened.ingest(server.url + "/keys.md", collection="other")).added == 1


async def test_a_redirect_does_not_change_the_identity(site: Site, server: ImitationServer, tmp_path: Path) -> None:
    site.pages["/old"] = moved("/keys.md", 301)
    site.validators["/keys.md"] = {"etag": '"v1"'}
    async with web_engine(tmp_path) as opened:
        report = await opened.ingest(server.url + "/old")
        document = await opened.document(report.document_ids[0])
        assert document.source == server.url + "/old" and document.metadata["url"] == server.url + "/keys.md"
        assert (await opened.ingest(server.url + "/old")).unchanged == 1
        assert [request.headers.get("if-none-match") for request in server.requests] == [None, None, None, '"v1"']
        other = await opened.ingest(server.url + "/keys.md")
        assert other.added == 1 and other.document_ids != report.document_ids


async def test_a_page_that_fails_keeps_its_document_and_its_validators(site: Site, server: ImitationServer, tmp_path: Path) -> None:
    site.validators["/keys.md"] = {"etag": '"v1"'}
    async with web_engine(tmp_path) as opened:
        report = await opened.ingest(server.url + "/keys.md")
        server.fail_next(status(500))
        failed = await opened.ingest(server.url + "/keys.md")
        assert "HTTP 500" in failed.failed[0].error and failed.failed[0].source == server.url + "/keys.md"
        assert "ninety" in await opened.text(report.document_ids[0])
        assert (await opened.ingest(server.url + "/keys.md")).unchanged == 1
        assert server.requests[-1].headers["if-none-match"] == '"v1"'


async def test_a_page_without_text_is_tried_again_only_where_that_is_wanted(site: Site, server: ImitationServer, tmp_path: Path) -> None:
    site.pages["/empty"] = Reply(b"<html><body><script>1</script></body></html>", 200, {"content-type": HTML})
    site.validators["/empty"] = {"etag": '"v1"'}
    async with web_engine(tmp_path) as opened:
        first = await opened.ingest(server.url + "/empty")
        assert "no text" in first.failed[0].error
        quiet = await opened.ingest(server.url + "/empty", retry_failed=False)
        assert quiet.failed == first.failed and server.requests[-1].headers["if-none-match"] == '"v1"'
        assert (await opened.ingest(server.url + "/empty")).failed == first.failed and "if-none-match" not in server.requests[-1].headers
        site.pages["/empty"] = page("Now there is some.")
        site.validators["/empty"] = {"etag": '"v2"'}
        assert (await opened.ingest(server.url + "/empty", retry_failed=False)).added == 1


async def test_good_and_bad_sources_of_all_kinds_go_together(site: Site, server: ImitationServer, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("A note in a file.")
    site.pages["/film"] = Reply(b"\0\0\0", 200, {"content-type": "video/mp4"})
    site.pages["/broken.pdf"] = Reply(b"%PDF-1.4 nonsense", 200, {"content-type": "application/pdf"})
    bad = ["/missing", "/film", "/broken.pdf"]
    sources: list[Source] = [
        server.url + "/keys.md", tmp_path / "note.txt", *(server.url + path for path in bad), "ftp://127.0.0.1/x", "http://me:pw@127.0.0.1/",
        "http://127.0.0.1:22/", Document("A text.", id="t"), server.url + "/boats.html", tmp_path / "http://127.0.0.1", 
    ]  # fmt: skip
    async with web_engine(tmp_path) as opened:
        report = await opened.ingest(sources)
        assert report.added == 4
        failed = {failure.source.replace(server.url, ""): failure for failure in report.failed}
        assert set(bad) | {"ftp://127.0.0.1/x", "http://127.0.0.1/", "http://127.0.0.1:22/"} < set(failed) and len(failed) == 7
        assert "video/mp4" in failed["/film"].error and "http://" in failed["ftp://127.0.0.1/x"].hint
        assert all(failure.error and failure.hint for failure in report.failed) and "pw" not in str(report.failed)
        assert len(report.document_ids) == 4


async def test_a_path_object_is_never_a_url(server: ImitationServer, tmp_path: Path) -> None:
    async with web_engine(tmp_path) as opened:
        report = await opened.ingest(Path(server.url + "/keys.md"))
        assert report.failed and not server.requests


async def test_pruning_never_deletes_pages(server: ImitationServer, tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a.txt").write_text("one")
    (folder / "b.txt").write_text("two")
    async with web_engine(tmp_path) as opened:
        await opened.ingest([folder, server.url + "/keys.md"])
        (folder / "b.txt").unlink()
        assert (await opened.ingest(folder, prune=True)).pruned == 1
        assert {Path(document.source or "").name for document in await opened.documents()} == {"a.txt", "keys.md"}


async def test_progress_counts_pages(server: ImitationServer, tmp_path: Path) -> None:
    steps: list[IngestProgress] = []
    async with web_engine(tmp_path) as opened:
        await opened.ingest([server.url + "/keys.md", server.url + "/missing", server.url + "/boats.html"], progress=steps.append)
    assert (steps[-1].sources_done, steps[-1].sources_total) == (3, 3)


async def test_a_site_is_followed_into_documents(site: Site, server: ImitationServer, tmp_path: Path) -> None:
    site.pages["/"] = page("The way in.", "keys.md", "boats.html", "gone", "blank")
    site.pages["/blank"] = Reply(b"<html></html>", 200, {"content-type": HTML})
    site.validators = {path: {"etag": '"v1"'} for path in site.pages}
    steps: list[IngestProgress] = []
    async with web_engine(tmp_path, depth=1) as opened:
        report = await opened.ingest(server.url, progress=steps.append)
        assert report.added == 3 and steps[-1].sources_total is None
        assert [skipped.source for skipped in report.skipped] == [server.url + "/gone"]
        assert [failed.source for failed in report.failed] == [server.url + "/blank"]
        server.requests.clear()
        again = await opened.ingest(server.url)
        assert (again.unchanged, again.replaced, again.failed) == (3, 0, report.failed)
        assert sum("if-none-match" in request.headers for request in server.requests) == 3


async def test_only_so_many_pages_are_fetched_at_once(tmp_path: Path) -> None:
    now = most = 0

    async def handle(request: Request) -> Reply:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.02)
        now -= 1
        return page(f"Page {request.path} is one of many.")

    with ImitationServer(handle) as server:
        async with web_engine(tmp_path, parallel=3) as opened:
            report = await opened.ingest(f"{server.url}/{n}" for n in range(40))
            assert report.added == 40 and most == 3
            sources = [(await opened.document(id)).source for id in report.document_ids]
            assert sources == [f"{server.url}/{n}" for n in range(40)]


async def test_cancelling_keeps_what_was_committed_and_leaves_the_server(server: ImitationServer, site: Site, tmp_path: Path) -> None:
    async with web_engine(tmp_path) as opened:
        (tmp_path / "note.txt").write_text("common note")
        await opened.ingest(tmp_path / "note.txt")
        server.fail_next(HANG, HANG)
        task = asyncio.create_task(opened.ingest([server.url + "/keys.md", server.url + "/boats.html"]))
        async with asyncio.timeout(10):
            while len(server.requests) < 2:  # noqa: ASYNC110 - another thread's business
                await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(10):
            while server.left < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert len(await opened.documents()) == 1
        assert (await opened.ingest([server.url + "/keys.md", server.url + "/boats.html"])).added == 2


async def test_many_ingests_of_one_page_at_once_make_one_document(server: ImitationServer, tmp_path: Path) -> None:
    server.fail_next(slow(0.05), RESET, slow(0.02))
    async with web_engine(tmp_path) as opened:
        reports = await asyncio.gather(*(opened.ingest(server.url + "/keys.md") for _ in range(6)))
        assert len({report.document_ids for report in reports}) == 1 and not any(report.failed for report in reports)
        assert sum(report.added for report in reports) == 1 and len(await opened.documents()) == 1


async def test_a_new_engine_knows_what_the_last_one_read(site: Site, server: ImitationServer, tmp_path: Path) -> None:
    site.validators["/keys.md"] = {"etag": '"v1"'}
    for added in (1, 0):
        async with web_engine(tmp_path) as opened:
            assert (await opened.ingest(server.url + "/keys.md")).added == added
    assert server.requests[-1].headers["if-none-match"] == '"v1"'
