"""Following a site: its links, its sitemap, and what it asks of robots."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from ragline.reading.reader import FileReader
from ragline.reading.web import robots
from ragline.reading.web.base import FoundPage, Page
from ragline.reading.web.urls import parse_url
from ragline.reading.web.visit import Visit
from ragline.settings import ReadingSettings, WebSettings
from ragline.types import FailedSource, SkippedSource
from tests.imitation.http import ImitationServer, Reply, Request
from tests.imitation.site import HTML, Site, moved, page


@pytest.fixture
def site() -> Site:
    return Site({
        "/": page("The way in.", "/docs/", "/docs/a.html"),
        "/docs/": page("Docs begin.", "a.html", "b.html#part", "/docs/b.html?v=2", "../about.html", "http://other.example/", "pic.png"),
        "/docs/a.html": page("Page a of the docs.", "c.html", "mailto:x@example.com", "javascript:void(0)", "http://[", "a.html", "./"),
        "/docs/b.html": page("Page b of the docs.", "/docs/a.html"),
        "/docs/b.html?v=2": page("Page b of the docs, spelled otherwise."),
        "/docs/c.html": page("Page c of the docs.", "d.html"),
        "/docs/d.html": page("Page d of the docs.", "e.html"),
        "/docs/e.html": page("Page e of the docs."),
        "/about.html": page("Not below the docs."),
    })  # fmt: skip


@pytest.fixture(scope="module")
def reader() -> Iterator[FileReader]:
    reader = FileReader(ReadingSettings(workers=1))
    yield reader
    asyncio.run(reader.close())


@pytest.fixture
def server(site: Site) -> Iterator[ImitationServer]:
    with ImitationServer(site) as server:
        yield server


@dataclass
class Walk:
    """What a visit met, by path: the pages in their order, and why others were not read."""

    pages: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    failed: dict[str, FailedSource] = field(default_factory=dict)
    signatures: dict[str, str] = field(default_factory=dict)


async def read(reader: FileReader, *urls: str, known: Walk | None = None, **web: Any) -> Walk:
    async def known_pages(uris: Sequence[str]) -> Mapping[str, str]:
        return known.signatures if known is not None else {}

    walk = Walk()
    async with Visit(WebSettings(private_addresses=True, **web), reader, known_pages) as visit:
        async for met in visit.pages([FoundPage(str(parse_url(url))) for url in urls]):
            path = parse_url(met.source).target
            if isinstance(met, Page):
                (walk.pages if met.path is not None else walk.unchanged).append(path)
                walk.signatures[met.uri] = met.signature
            elif isinstance(met, SkippedSource):
                walk.skipped[path] = met.reason
            else:
                walk.failed[path] = met
    return walk


async def test_a_page_alone_is_read_unless_more_is_wanted(server: ImitationServer, reader: FileReader) -> None:
    await read(reader, server.url + "/docs/")
    assert [request.path for request in server.requests] == ["/docs/"]


@pytest.mark.parametrize(
    ("depth", "found"), [(1, {"a.html", "b.html", "b.html?v=2"}), (2, {"a.html", "b.html", "b.html?v=2", "c.html"}), (9, set("abcde"))]
)
async def test_links_are_followed_so_many_deep_below_the_folder(
    server: ImitationServer, reader: FileReader, depth: int, found: set[str]
) -> None:
    walk = await read(reader, server.url + "/docs/", depth=depth)
    names = {name if "." in name else f"{name}.html" for name in found} | {"b.html?v=2"}
    assert set(walk.pages) == {"/docs/"} | {f"/docs/{name}" for name in names}
    assert not walk.failed and not walk.skipped
    asked = [request.path for request in server.requests]
    assert len(asked) == len(set(asked)), "a page was fetched twice"


async def test_the_root_is_the_whole_site(server: ImitationServer, reader: FileReader) -> None:
    walk = await read(reader, server.url, depth=2)
    assert {"/", "/docs/", "/about.html", "/docs/c.html"} <= set(walk.pages)


async def test_pages_come_level_by_level_and_in_their_order(server: ImitationServer, reader: FileReader) -> None:
    walk = await read(reader, server.url + "/docs/", depth=3, parallel=3)
    assert [path.removeprefix("/docs/") for path in walk.pages] == ["", "a.html", "b.html", "b.html?v=2", "c.html", "d.html"]


async def test_a_followed_site_that_has_not_changed_is_not_loaded_again(site: Site, server: ImitationServer, reader: FileReader) -> None:
    site.validators = {path: {"etag": '"v1"'} for path in site.pages}
    first = await read(reader, server.url + "/docs/", depth=2)
    server.requests.clear()
    again = await read(reader, server.url + "/docs/", depth=2, known=first)
    assert (again.pages, again.unchanged) == ([], first.pages)
    fetched = [request for request in server.requests if request.path != "/robots.txt"]
    assert len(fetched) == len(first.pages) and all("if-none-match" in request.headers for request in fetched)
    site.validators["/docs/a.html"] = {"etag": '"v2"'}
    site.pages["/docs/a.html"] = page("Page a leads on.", "e.html")
    third = await read(reader, server.url + "/docs/", depth=2, known=again)
    assert third.pages == ["/docs/a.html", "/docs/e.html"]


async def test_a_page_read_alone_first_is_followed_later(site: Site, server: ImitationServer, reader: FileReader) -> None:
    site.validators = {path: {"etag": '"v1"'} for path in site.pages}
    alone = await read(reader, server.url + "/docs/")
    later = await read(reader, server.url + "/docs/", depth=1, known=alone)
    assert len(later.pages) == 4, "its links were not kept, so that it is loaded again"


async def test_a_page_with_very_many_links_is_loaded_again_for_them(site: Site, server: ImitationServer, reader: FileReader) -> None:
    site.pages["/docs/"] = page("Many.", "a.html", *(f"{'x' * 100}{n}" for n in range(1000)))
    site.validators["/docs/"] = {"etag": '"v1"'}
    first = await read(reader, server.url + "/docs/", depth=1, max_pages=1)
    assert max(map(len, first.signatures.values())) < 1000
    assert (await read(reader, server.url + "/docs/", depth=1, max_pages=1, known=first)).pages == ["/docs/", "/docs/a.html"]


async def test_only_so_many_pages_are_followed(reader: FileReader) -> None:
    async def handle(request: Request) -> Reply:
        number = int(request.path.strip("/") or 0) if request.path != "/robots.txt" else 0
        return page(f"Page {number} of a site without end.", *(f"/{number * 10 + n}" for n in range(1, 11)))

    with ImitationServer(handle) as server:
        walk = await read(reader, server.url, depth=100, max_pages=25, robots=False)
    assert len(walk.pages) == len(server.requests) == 26
    assert ["web.max_pages is 25" in reason for reason in walk.skipped.values()] == [True], "that the site was cut is told, once"
    assert not walk.failed


async def test_dead_links_are_skipped_and_failures_are_told(site: Site, server: ImitationServer, reader: FileReader) -> None:
    site.pages["/"] = page("The way in.", "/gone", "/closed", "/film", "/broken", "/slow", "/docs/", "/picture")
    site.pages |= {
        "/film": Reply(b"\0", 200, {"content-type": "video/mp4"}),
        "/closed": Reply(b"no", 403),
        "/broken": Reply(b"no", 500),
        "/picture": Reply(b"\x89PNG\r\n\x1a\n", 200, {"content-type": "image/png"}),
    }
    walk = await read(reader, server.url, depth=1)
    assert set(walk.skipped) == {"/gone", "/closed", "/film", "/slow", "/picture"}
    assert set(walk.failed) == {"/broken"} and walk.pages == ["/", "/docs/"]


async def test_a_page_given_is_failed_not_skipped(server: ImitationServer, reader: FileReader) -> None:
    walk = await read(reader, server.url + "/gone", depth=3)
    assert not walk.skipped and "HTTP 404" in walk.failed["/gone"].error


async def test_marks_on_links_and_pages_are_respected(site: Site, server: ImitationServer, reader: FileReader) -> None:
    site.pages |= {
        "/": Reply(
            b'<base href="/x/"><a href="1">1</a><a rel="ugc nofollow" href="2">2</a><a href="3">3</a><a href="4">4</a><p>in',
            200, {"content-type": HTML},
        ),
        "/x/1": page("Not to be indexed.", "/x/5", head='<meta name="robots" content="noindex">'),
        "/x/2": page("Not to be followed to."),
        "/x/3": page("Leads nowhere.", "/x/6", head='<meta name="ROBOTS" content="NoFollow">'),
        "/x/4": Reply(b"secret", 200, {"content-type": "text/plain", "x-robots-tag": "noindex"}),
        "/x/5": page("Found through a page that is not indexed."),
        "/x/6": page("Found by nobody."),
    }  # fmt: skip
    walk = await read(reader, server.url, depth=2)
    assert walk.pages == ["/", "/x/3", "/x/5"]
    assert walk.skipped == {"/x/1": "it asks not to be indexed", "/x/4": "it asks not to be indexed"}


async def test_redirects_stay_on_the_site(site: Site, server: ImitationServer, reader: FileReader) -> None:
    with ImitationServer(Site({"/": page("another site")})) as other:
        site.pages |= {
            "/docs/": page("In.", "out", "again", "twice", "up", "a.html"),
            "/docs/out": moved(other.url),
            "/docs/again": moved("/docs/a.html"),
            "/docs/twice": moved("/docs/again"),
            "/docs/up": moved("/about.html"),
        }
        walk = await read(reader, server.url + "/docs/", depth=1)
        assert set(walk.skipped) == {"/docs/out", "/docs/up"} and not other.requests
    assert walk.pages == ["/docs/", "/docs/a.html"]


async def test_a_page_that_was_read_under_an_older_url_is_not_read_again(site: Site, server: ImitationServer, reader: FileReader) -> None:
    site.pages["/docs/old"] = moved("/docs/a.html")
    walk = await read(reader, server.url + "/docs/old", server.url + "/docs/b.html", depth=1)
    assert walk.pages == ["/docs/old", "/docs/b.html", "/docs/c.html", "/docs/"], "b.html links to a.html"


async def test_a_page_given_that_moves_is_followed_where_it_went(site: Site, server: ImitationServer, reader: FileReader) -> None:
    site.pages["/docs"] = moved("/docs/")
    elsewhere = server.url.replace("127.0.0.1", "localhost")
    with ImitationServer(Site({"/": moved(elsewhere + "/docs/")})) as short:
        assert len((await read(reader, short.url, depth=1)).pages) == 4
    assert len((await read(reader, server.url + "/docs", depth=1)).pages) == 4, "/about.html is not below it"


# -- robots.txt --------------------------------------------------------------------------------------------------------


def robots_txt(text: str) -> Reply:
    return Reply(text.encode(), 200, {"content-type": "text/plain"})


async def test_robots_txt_is_obeyed_while_following(site: Site, server: ImitationServer, reader: FileReader) -> None:
    site.pages["/robots.txt"] = robots_txt("User-agent: *\nDisallow: /docs/\nAllow: /docs/b")
    walk = await read(reader, server.url + "/docs/", depth=2)
    assert walk.pages == ["/docs/", "/docs/b.html", "/docs/b.html?v=2"], "the page given is read whatever robots.txt says"
    assert walk.skipped == {"/docs/a.html": "robots.txt asks not to read it"}
    assert sum(request.path == "/robots.txt" for request in server.requests) == 1


async def test_robots_txt_can_be_set_aside(site: Site, server: ImitationServer, reader: FileReader) -> None:
    site.pages["/robots.txt"] = robots_txt("User-agent: *\nDisallow: /")
    walk = await read(reader, server.url + "/docs/", depth=1, robots=False)
    assert len(walk.pages) == 4 and all(request.path != "/robots.txt" for request in server.requests)


async def test_a_redirect_does_not_lead_around_robots_txt(site: Site, server: ImitationServer, reader: FileReader) -> None:
    site.pages |= {
        "/robots.txt": robots_txt("User-agent: ragline\nDisallow: /about"),
        "/docs/": page("In.", "/moved"),
        "/moved": moved("/about.html"),
    }
    walk = await read(reader, server.url, depth=2)
    assert "robots.txt" in walk.skipped["/moved"] and "/about.html" not in {request.path for request in server.requests}


async def silence() -> AsyncIterator[bytes]:
    yield b"User-agent: *"
    await asyncio.sleep(60)


@pytest.mark.parametrize(("code", "allowed"), [(404, True), (403, True), (500, False), (429, False), (200, False)])
async def test_a_robots_txt_that_is_missing_allows_and_one_that_fails_forbids(
    site: Site, server: ImitationServer, reader: FileReader, code: int, allowed: bool
) -> None:
    site.pages["/robots.txt"] = Reply(silence() if code == 200 else b"", code, {"retry-after": "100"})
    walk = await read(reader, server.url + "/docs/c.html", depth=1, timeout_s=0.5)
    assert len(walk.pages) == 1 + allowed
    assert [reason.partition(":")[0] for reason in walk.skipped.values()] == ["its robots.txt cannot be read"] * (not allowed)


async def test_an_endless_robots_txt_is_read_as_far_as_it_counts(site: Site, server: ImitationServer, reader: FileReader) -> None:
    site.pages["/robots.txt"] = robots_txt("User-agent: *\nDisallow: /docs/a\n" + "# filler\n" * 200_000 + "Disallow: /\n")
    assert len(site.pages["/robots.txt"].body) > robots.MAX_BYTES  # type: ignore[arg-type]
    walk = await read(reader, server.url + "/docs/", depth=1)
    assert set(walk.skipped) == {"/docs/a.html"} and len(walk.pages) == 3


async def test_a_crawl_delay_is_kept_between_two_requests(site: Site, server: ImitationServer, reader: FileReader) -> None:
    site.pages["/robots.txt"] = robots_txt("User-agent: *\nCrawl-delay: 0.2")
    await read(reader, server.url + "/docs/", depth=1)
    times = [request.at for request in server.requests if request.path not in ("/robots.txt", "/docs/")]
    assert len(times) == 3 and times[-1] - times[0] > 0.25


# -- sitemaps ----------------------------------------------------------------------------------------------------------


def sitemap(*urls: str, of: str = "url") -> bytes:
    root = "urlset" if of == "url" else "sitemapindex"
    return f"<{root}>{''.join(f'<{of}><loc>{url}</loc></{of}>' for url in urls)}</{root}>".encode()


async def test_a_sitemap_names_the_pages(site: Site, server: ImitationServer, reader: FileReader) -> None:
    urls = [server.url + path for path in ("/docs/d.html", "/docs/e.html", "/gone")]
    site.pages["/sitemap.xml"] = Reply(sitemap(*urls, "http://elsewhere.example/x", "http://["), 200, {"content-type": "application/xml"})
    walk = await read(reader, server.url, sitemap=True)
    assert walk.pages == ["/", "/docs/d.html", "/docs/e.html"] and set(walk.skipped) == {"/gone"}
    below = await read(reader, server.url + "/docs/", sitemap=True, depth=1)
    assert set(below.pages) == {f"/docs/{name}" for name in ("", "a.html", "b.html", "b.html?v=2", "d.html", "e.html")}
    assert not below.failed


async def test_robots_txt_says_where_the_sitemaps_are(site: Site, server: ImitationServer, reader: FileReader) -> None:
    packed = gzip.compress(sitemap(server.url + "/docs/d.html"))
    site.pages |= {
        "/robots.txt": robots_txt(
            f"Sitemap: {server.url}/index.xml\nSitemap: http://elsewhere.example/x.xml\nUser-agent: *\nDisallow: /docs/e"
        ),
        "/index.xml": Reply(sitemap(server.url + "/1.xml.gz", server.url + "/2.txt", server.url + "/index.xml", of="sitemap")),
        "/1.xml.gz": Reply(packed, 200, {"content-type": "application/x-gzip"}),
        "/2.txt": Reply(f"{server.url}/docs/e.html\n{server.url}/docs/c.html\n".encode(), 200, {"content-type": "text/plain"}),
    }
    walk = await read(reader, server.url, sitemap=True)
    assert set(walk.pages) == {"/", "/docs/d.html", "/docs/c.html"}
    assert walk.skipped == {"/docs/e.html": "robots.txt asks not to read it"} and not walk.failed


async def test_the_sitemap_itself_can_be_given(site: Site, server: ImitationServer, reader: FileReader) -> None:
    site.pages["/docs/map.xml"] = Reply(sitemap(server.url + "/docs/d.html", server.url + "/about.html"))
    walk = await read(reader, server.url + "/docs/map.xml", sitemap=True)
    assert walk.pages == ["/docs/d.html"] and not walk.failed


async def test_a_missing_or_damaged_sitemap_is_told(site: Site, server: ImitationServer, reader: FileReader) -> None:
    missing = await read(reader, server.url, sitemap=True)
    assert missing.pages == ["/"] and "404" in missing.failed["/sitemap.xml"].error and "--depth" in missing.failed["/sitemap.xml"].hint
    site.pages["/sitemap.xml"] = page("not a sitemap")
    damaged = await read(reader, server.url, sitemap=True)
    assert "no sitemap" in damaged.failed["/sitemap.xml"].error and damaged.failed["/sitemap.xml"].hint
    site.pages["/sitemap.xml"] = Reply(sitemap("http://elsewhere.example/"))
    foreign = await read(reader, server.url, sitemap=True)
    assert "names no page" in foreign.failed["/"].error


async def test_sitemaps_without_end_end(reader: FileReader) -> None:
    async def handle(request: Request) -> Reply:
        if not request.path.endswith(".xml"):
            return page("Root of the site.")
        base = f"http://{request.headers['host']}"
        return Reply(sitemap(*(f"{base}/{request.path.strip('/')}-{n}.xml" for n in range(30)), of="sitemap"))

    with ImitationServer(handle) as server:
        walk = await read(reader, server.url, sitemap=True, robots=False)
        assert walk.pages == ["/"] and len(server.requests) <= 101


async def test_a_sitemap_is_followed_no_further_than_max_pages(site: Site, server: ImitationServer, reader: FileReader) -> None:
    site.pages["/sitemap.xml"] = Reply(sitemap(*(f"{server.url}/docs/{name}.html" for name in "abcde")))
    walk = await read(reader, server.url, sitemap=True, max_pages=2)
    assert walk.pages == ["/", "/docs/a.html", "/docs/b.html"]
    many = (f"{server.url}/elsewhere/{n}" for n in range(50))
    site.pages["/sitemap.xml"] = Reply(sitemap(*many, f"{server.url}/docs/d.html"))
    below = await read(reader, server.url + "/docs/", sitemap=True, max_pages=2)
    assert below.pages == ["/docs/", "/docs/d.html"], "pages elsewhere used up the room"
