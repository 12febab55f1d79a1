"""Links of pages and entries of sitemaps, found in a parser process."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ragline.errors import ReadError
from ragline.reading.reader import FileReader
from ragline.settings import ReadingSettings


@pytest.fixture
async def reader() -> AsyncIterator[FileReader]:
    reader = FileReader(ReadingSettings(workers=1))
    yield reader
    await reader.close()


async def test_links_base_and_marks_of_a_page(reader: FileReader, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text(
        """<html><head><base href="/docs/"><base href="/second/"><META NAME="Robots" CONTENT="noindex"><meta name=description content=x>
        <body><a href="a.html">a</a><A HREF='b.html?x=1&amp;y=2' REL="next">b</A><area href=c><a name=d>no</a><a href="">no</a>
        <a rel="noopener NOFOLLOW" href="e">no</a><!-- <a href="f"> --><script>"<a href='g'>"</script><a href=a.html href=h>again</a>
        <a href="unfinished"""
    )
    assert await reader.links(str(file)) == {"links": ["a.html", "b.html?x=1&y=2", "c"], "base": ["/docs/"], "robots": ["noindex"]}


async def test_a_page_of_endless_links_gives_some(reader: FileReader, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text("".join(f"<a href=/{n}>" for n in range(20_000)) + "<" * 10_000)
    assert len((await reader.links(str(file)))["links"]) == 10_000


SITEMAP = """<?xml version="1.0"?><urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9" xmlns:i="http://www.google.com/schemas/sitemap-image/1.1">
<url><loc> http://example.com/a?x=1&amp;y=2
</loc><lastmod>2024-01-01</lastmod><i:image><i:loc>http://example.com/pic.png</i:loc></i:image></url>
<url><loc><![CDATA[http://example.com/b]]></loc></url></urlset>"""


@pytest.mark.parametrize("packed", [False, True])
async def test_pages_of_a_sitemap(reader: FileReader, tmp_path: Path, packed: bool) -> None:
    file = tmp_path / "0"
    file.write_bytes(gzip.compress(SITEMAP.encode()) if packed else SITEMAP.encode())
    found = await reader.sitemap(str(file))
    assert found["pages"] == ["http://example.com/a?x=1&y=2", "http://example.com/b"] and found["sitemaps"] == []


async def test_sitemaps_of_an_index(reader: FileReader, tmp_path: Path) -> None:
    file = tmp_path / "0"
    file.write_text("<sitemapindex><sitemap><loc>http://example.com/1.xml</loc></sitemap></sitemapindex>")
    found = await reader.sitemap(str(file))
    assert found["sitemaps"] == ["http://example.com/1.xml"] and found["pages"] == []


async def test_a_sitemap_can_be_a_list(reader: FileReader, tmp_path: Path) -> None:
    file = tmp_path / "0"
    file.write_text("\ufeffhttp://example.com/a\n\nnot a URL\nhttps://example.com/b\n")
    assert (await reader.sitemap(str(file)))["pages"] == ["http://example.com/a", "https://example.com/b"]


BOMB = (
    '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">' + "".join(f'<!ENTITY {chr(98 + n)} "{"&" + chr(97 + n) + ";" * 1}">' for n in range(9)) + "]>"
)


@pytest.mark.parametrize(
    "content",
    [
        BOMB.encode() + b"<urlset><url><loc>&j;</loc></url></urlset>",
        b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><urlset><url><loc>&e;</loc></url></urlset>',
        b"<html><body>not found</body></html>",
        b"<urlset><url><loc>http://example.com/</loc>",
        b"<urlset>" + b"<a>" * 100_000,
        b"plain words",
        gzip.compress(b"<urlset>" + b" " * 60_000_000 + b"</urlset>", mtime=0),
        gzip.compress(SITEMAP.encode(), mtime=0)[:50],
        b"\x1f\x8bnonsense",
    ],
)
async def test_what_is_no_sitemap_or_hides_something_is_refused(reader: FileReader, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "0"
    file.write_bytes(content)
    with pytest.raises(ReadError, match=r"sitemap|entities|gzip|damaged"):
        await reader.sitemap(str(file))
