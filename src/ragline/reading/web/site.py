"""One site: what it asks of robots, when it may be asked again, and the pages it names itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ragline.concurrency.workers import Workers
from ragline.errors import ReadError
from ragline.reading.reader import FileReader
from ragline.reading.web import robots
from ragline.reading.web.base import PageError
from ragline.reading.web.fetching import AGENT, Fetcher
from ragline.reading.web.robots import Robots, parse_robots
from ragline.reading.web.urls import Url, join_url
from ragline.types import FailedSource

MAX_SITEMAPS = 100
SITEMAP_BYTES = 50 * 1024**2


@dataclass(slots=True)
class _Turn:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    free_at: float = 0.0


class Sites:
    """The sites that one visit meets.

    Args:
        obey: Whether robots.txt is asked for at all.
    """

    def __init__(self, fetcher: Fetcher, reader: FileReader, workers: Workers, *, obey: bool) -> None:
        self._fetcher = fetcher
        self._reader = reader
        self._workers = workers
        self._obey = obey
        self._robots: dict[str, Robots] = {}
        self._turns: dict[str, _Turn] = {}

    async def learn(self, url: Url) -> Robots:
        """The robots.txt of the URL's site, fetched once. A site that has none allows everything; one that fails, nothing."""
        if url.site not in self._robots:
            self._robots[url.site] = await self._fetch_robots(url) if self._obey else Robots()
        return self._robots[url.site]

    def why_not(self, url: Url) -> str | None:
        """Why a URL must be left alone, as far as its site's robots.txt is known."""
        return self._robots[url.site].why_not(url) if url.site in self._robots else None

    async def turn(self, url: Url) -> None:
        """Waits until the site may be asked again, as its Crawl-delay wishes."""
        delay_s = self._robots[url.site].delay_s if url.site in self._robots else 0.0
        if not delay_s:
            return
        turn = self._turns.setdefault(url.site, _Turn())
        async with turn.lock:
            await asyncio.sleep(max(0.0, turn.free_at - time.monotonic()))
            turn.free_at = time.monotonic() + delay_s

    async def sitemap_pages(
        self, start: Url, wanted: Callable[[Url], bool], limit: int, named: Url | None = None
    ) -> tuple[list[Url], list[FailedSource]]:
        """The wanted pages that a site's sitemaps name, `limit` at most, and the sitemaps that could not be read.

        Looked for at `named`, else where robots.txt says, else at /sitemap.xml. Those of other hosts are left out.
        """
        first = [named] if named is not None else of_site(start.site, start, (await self.learn(start)).sitemaps)
        first = first[:MAX_SITEMAPS] or [join_url(start, "/sitemap.xml")]
        waiting = deque((url, 0) for url in first)
        seen, pages, failed = set(first), dict[Url, None](), list[FailedSource]()
        while waiting and len(pages) < limit:
            url, depth = waiting.popleft()
            try:
                content = await self._read_sitemap(url, start)
            except ReadError as failure:
                gone = isinstance(failure, PageError) and failure.absent
                hint = "give the sitemap's own URL, or follow links with --depth" if gone or not failure.hint else failure.hint
                failed.append(FailedSource(str(url), failure.message, hint))
                continue
            pages.update(dict.fromkeys(filter(wanted, await self._workers.run(of_site, start.site, start, content["pages"]))))
            # The protocol lets an index name sitemaps, not indexes; some sites do it all the same.
            named_inside = await self._workers.run(of_site, start.site, start, content["sitemaps"]) if depth < 2 else []
            inner = [url for url in named_inside if url not in seen]
            new = inner[: MAX_SITEMAPS - len(seen)]
            seen.update(new)
            waiting.extend((url, depth + 1) for url in new)
        return list(pages)[:limit], failed

    async def _read_sitemap(self, url: Url, start: Url) -> dict[str, list[str]]:
        await self.turn(url)
        fetched = await self._fetcher.fetch(url, may=lambda to: None if to.host == start.host else "another host", any_type=True)
        assert fetched.path is not None
        try:
            if fetched.size > SITEMAP_BYTES:
                raise PageError(f"the sitemap is larger than {SITEMAP_BYTES:,} bytes")
            return await self._reader.sitemap(fetched.path)
        finally:
            _remove(fetched.path)

    async def _fetch_robots(self, url: Url) -> Robots:
        try:
            fetched = await self._fetcher.fetch(join_url(url, "/robots.txt"), max_bytes=robots.MAX_BYTES, any_type=True)
        except PageError as failure:
            if 400 <= failure.status < 500 and failure.status != 429:
                return Robots()
            return Robots(refusal=f"its robots.txt cannot be read: {failure.message}")
        assert fetched.path is not None
        try:
            return await self._workers.run(_parse, fetched.path)
        finally:
            _remove(fetched.path)


def of_site(site: str, base: Url, links: Sequence[str]) -> list[Url]:
    """What links lead to, those that stay on the site, each once."""
    found: dict[Url, None] = {}
    for link in links:
        with contextlib.suppress(PageError):
            url = join_url(base, link)
            if url.site == site:
                found[url] = None
    return list(found)


def _parse(path: str) -> Robots:
    return parse_robots(Path(path).read_bytes().decode("utf-8", "replace"), AGENT)


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)
