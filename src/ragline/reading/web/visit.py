"""A way through the web: the pages given, then those that they link to or that their sites name, level by level."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from ragline.concurrency.workers import Workers
from ragline.errors import ReadError
from ragline.reading.reader import FileReader
from ragline.reading.web import media, robots
from ragline.reading.web.addresses import IPAddress
from ragline.reading.web.base import FoundPage, KnownPages, Page, PageError, PageState
from ragline.reading.web.connecting import Resolve
from ragline.reading.web.fetching import AGENT, Fetched, Fetcher
from ragline.reading.web.site import Sites, of_site
from ragline.reading.web.urls import Url, join_url, parse_url
from ragline.settings import WebSettings
from ragline.types import FailedSource, SkippedSource

_MAX_WAITING = 20_000
"""Links of one level that are kept until it is done: a hostile site has no end of them."""

_CHOSEN_AT_ONCE = 500
_MAX_LINK_CHARS = 2000

Met: TypeAlias = Page | SkippedSource | FailedSource


@dataclass(frozen=True, slots=True)
class _Ground:
    """Where a page given is followed to: its site, below its folder."""

    site: str
    folder: str

    @classmethod
    def of(cls, given: Url, final: Url) -> _Ground:
        """Redirects of the page given move the ground along: http to https, a bare name to www, a folder to its slash."""
        moved = given.host != final.host or final.path == given.path + "/"
        return cls(final.site, final.folder if moved else given.folder)

    def why_not(self, url: Url) -> str | None:
        return None if url.site == self.site and url.path.startswith(self.folder) else "out of the part of the site that was given"


@dataclass(frozen=True, slots=True)
class _Step:
    """A page to fetch.

    Attributes:
        ground: None for a page given: it sets the ground itself.
        links_left: How many links deep it is followed.
    """

    url: Url
    links_left: int
    ground: _Ground | None = None


@dataclass(frozen=True, slots=True)
class _Result:
    met: Met | None
    final: Url
    links: Sequence[Url] = ()


class Visit:
    """The pages of one ingest. `async with` it: its temporary files and connections end with it.

    Args:
        reader: Finds the links of pages in its parser processes; reading the texts is the caller's work.
        known: What need not be read again.
        allowed, resolve, tls: As for `Fetcher`.

    Raises:
        BackendError: No temporary files can be written (on entering).
    """

    def __init__(
        self,
        settings: WebSettings,
        reader: FileReader,
        known: KnownPages,
        *,
        allowed: Callable[[IPAddress], bool] | None = None,
        resolve: Resolve | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._settings = settings
        self._reader = reader
        self._known = known
        # Threads of its own: pages are timed, and must not wait for passages that are being embedded.
        self._workers = Workers("ragline-web", 2, nice=10)
        self._fetcher = Fetcher(settings, self._workers, allowed=allowed, resolve=resolve, tls=tls)
        self._sites = Sites(self._fetcher, reader, self._workers, obey=settings.robots)
        self._held = contextlib.AsyncExitStack()
        self._seen: set[str] = set()  # pages that were given or chosen
        self._ends: set[str] = set()  # where pages were in the end, redirects followed
        self._followed: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._cut: set[str] = set()

    async def __aenter__(self) -> Visit:
        async with contextlib.AsyncExitStack() as held:
            held.push_async_callback(asyncio.to_thread, self._workers.close)
            await held.enter_async_context(self._fetcher)
            self._held = held.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._held.aclose()

    async def pages(self, given: Iterable[FoundPage]) -> AsyncGenerator[Met, None]:
        """The pages given in their order, then level by level what they lead to; each page once in a visit.

        A page of the site that robots.txt keeps away, that is not there or is of no type that ragline reads is a
        `SkippedSource`; one that cannot be had is a `FailedSource`. Pages given are never skipped. Of each site
        `web.max_pages` are followed at most. Call `release` for each `Page` when its file was read.
        """
        urls = [parse_url(page.uri) for page in given if page.uri not in self._seen]
        self._seen.update(map(str, urls))
        level = [_Step(url, self._settings.depth) for url in urls]
        while level:
            following: dict[Url, _Step] = {}
            async with contextlib.aclosing(self._level(level)) as results:
                async for step, result in results:
                    if result.met is not None:
                        yield result.met
                    ground = step.ground or _Ground.of(step.url, result.final)
                    await self._workers.run(self._add, following, result.links, step.links_left - 1, ground)
                    if step.ground is None and self._settings.sitemap:
                        pages, failed = await self._sitemap(step.url, result.final, ground)
                        await self._workers.run(self._add, following, pages, self._settings.depth, ground)
                        for failure in failed:
                            yield failure
            level = []
            for url in {url.site: url for url in following}.values():
                await self._sites.learn(url)
            steps = list(following.values())
            for start in range(0, len(steps), _CHOSEN_AT_ONCE):
                for met in await self._workers.run(self._choose, steps[start : start + _CHOSEN_AT_ONCE]):
                    if isinstance(met, SkippedSource):
                        yield met
                    else:
                        level.append(met)

    def release(self, page: Page) -> None:
        """Removes the page's file."""
        if page.path is not None:
            with contextlib.suppress(OSError):
                os.unlink(page.path)

    async def _level(self, steps: Sequence[_Step]) -> AsyncGenerator[tuple[_Step, _Result], None]:
        """The results in the order of the steps, so that the same site is always read in the same way."""
        running: deque[tuple[_Step, asyncio.Task[_Result]]] = deque()
        try:
            for step in steps:
                if len(running) >= self._settings.parallel:
                    yield running[0][0], await running[0][1]
                    running.popleft()
                running.append((step, asyncio.create_task(self._visit(step))))
            while running:
                yield running[0][0], await running[0][1]
                running.popleft()
        finally:
            for _, task in running:
                task.cancel()
            await asyncio.gather(*(task for _, task in running), return_exceptions=True)

    def _add(self, following: dict[Url, _Step], urls: Iterable[Url], links_left: int, ground: _Ground) -> None:
        for url in urls:
            if len(following) >= _MAX_WAITING:
                return
            if len(url.target) > _MAX_LINK_CHARS:
                continue
            met_before = url in following and following[url].links_left >= links_left
            if not met_before and str(url) not in self._seen and ground.why_not(url) is None and not media.leads_to_no_page(url):
                following[url] = _Step(url, links_left, ground)

    def _choose(self, steps: Iterable[_Step]) -> list[_Step | SkippedSource]:
        """Those pages that were found and are to be visited, and those that robots.txt keeps away."""
        chosen: list[_Step | SkippedSource] = []
        for step in steps:
            site, uri = step.url.site, str(step.url)
            if uri in self._seen or uri in self._ends:
                continue
            if self._followed[site] >= self._settings.max_pages:
                if site not in self._cut:
                    self._cut.add(site)
                    told = f"this and further pages of its site were left out: web.max_pages is {self._settings.max_pages:,}"
                    chosen.append(SkippedSource(uri, told))
                continue
            self._seen.add(uri)
            reason = self._sites.why_not(step.url)
            if reason is None:
                self._followed[site] += 1
                chosen.append(step)
            elif self._refused[site] < self._settings.max_pages:
                # A site can name more forbidden pages than anyone wants to read about, or to keep.
                self._refused[site] += 1
                chosen.append(SkippedSource(uri, reason))
        return chosen

    async def _sitemap(self, given: Url, final: Url, ground: _Ground) -> tuple[list[Url], list[FailedSource]]:
        named = given if _is_sitemap(given) else None
        start = final if named is None else given
        limit = self._settings.max_pages + 1  # one more than are read, so that it is told where some are not
        pages, failed = await self._sites.sitemap_pages(start, lambda url: ground.why_not(url) is None, limit, named)
        if not pages and not failed:
            hint = "give a URL further up, or follow links with --depth"
            failed = [FailedSource(str(given), "its sitemap names no page below this URL", hint)]
        return pages, failed

    async def _visit(self, step: _Step) -> _Result:
        if step.ground is None and self._settings.sitemap and _is_sitemap(step.url):
            return _Result(None, step.url)  # what it names is read, not itself
        try:
            return await self._fetch(step)
        except PageError as failure:
            if step.ground is not None and failure.absent:
                return _Result(SkippedSource(str(step.url), failure.message), step.url)
            return _Result(FailedSource(str(step.url), failure.message, failure.hint), step.url)

    async def _fetch(self, step: _Step) -> _Result:
        uri = str(step.url)
        state = PageState.from_text((await self._known([uri])).get(uri, ""))
        if state is not None and step.links_left and state.links is None:
            state = None  # its links are needed, and nobody kept them
        await self._sites.turn(step.url)
        fetched = await self._fetcher.fetch(step.url, state=state, may=None if step.ground is None else self._may(step.ground))
        end = str(fetched.url)
        if step.ground is not None and end != uri and (end in self._seen or end in self._ends):
            self._drop(fetched)
            return _Result(None, fetched.url)  # another name for a page that is read anyway
        self._ends.add(end)
        if fetched.path is None:
            assert state is not None
            state = replace(state, etag=fetched.etag, modified=fetched.modified)
            return _Result(Page(uri, None, 0, state), fetched.url, _urls(state.links or ()) if step.links_left else ())
        return await self._looked_at(step, fetched)

    def _may(self, ground: _Ground) -> Callable[[Url], str | None]:
        return lambda url: ground.why_not(url) or self._sites.why_not(url)

    async def _looked_at(self, step: _Step, fetched: Fetched) -> _Result:
        """A page that was loaded, with its links where they are followed, unless it asks to be left out."""
        assert fetched.path is not None
        wanted = robots.tags(fetched.robots, AGENT) if self._settings.robots else frozenset[str]()
        links: Sequence[Url] | None = None
        if fetched.path.endswith(".html") and (step.links_left or step.ground is not None):
            content = await self._links(fetched.path)
            if self._settings.robots:
                wanted |= robots.tags(content["robots"], AGENT)
            links = await self._workers.run(_links_of, fetched.url, content) if "nofollow" not in wanted else ()
        elif step.ground is not None and fetched.path.endswith(media.IMAGE_SUFFIXES):
            self._drop(fetched)
            return _Result(SkippedSource(str(step.url), "a picture"), fetched.url)
        if not step.links_left:
            links = None
        if step.ground is not None and "noindex" in wanted:
            self._drop(fetched)
            return _Result(SkippedSource(str(step.url), "it asks not to be indexed"), fetched.url, links or ())
        kept = None if links is None else tuple(map(str, links))
        state = PageState(str(fetched.url), fetched.digest, fetched.etag, fetched.modified, kept)
        return _Result(Page(str(step.url), fetched.path, fetched.size, state), fetched.url, links or ())

    async def _links(self, path: str) -> dict[str, list[str]]:
        try:
            return await self._reader.links(path)
        except ReadError:
            return {"links": [], "robots": [], "base": []}  # reading its text will say what is wrong with it

    def _drop(self, fetched: Fetched) -> None:
        if fetched.path is not None:
            with contextlib.suppress(OSError):
                os.unlink(fetched.path)


def _links_of(page: Url, content: dict[str, list[str]]) -> Sequence[Url]:
    """The pages of its own site that a page links to, in its order."""
    base = page
    for given in content["base"][:1]:
        with contextlib.suppress(PageError):
            base = join_url(page, given)
    return of_site(page.site, base, content["links"])


def _urls(texts: Iterable[str]) -> Sequence[Url]:
    found = []
    for text in texts:
        with contextlib.suppress(PageError):
            found.append(parse_url(text))
    return found


def _is_sitemap(url: Url) -> bool:
    return url.path.endswith((".xml", ".xml.gz"))
