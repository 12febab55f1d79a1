"""Fetching one page: redirects, retries and limits; every connection through the guard of `connecting`."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import email.utils
import itertools
import os
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import httpcore2

from ragline.concurrency.retries import Retries, retried
from ragline.concurrency.workers import Workers
from ragline.errors import BackendError
from ragline.reading.web import media
from ragline.reading.web.addresses import IPAddress, any_address, is_public
from ragline.reading.web.base import PageError, PageState, usable_validator
from ragline.reading.web.body import Body
from ragline.reading.web.connecting import GuardedBackend, Resolve
from ragline.reading.web.urls import Url, join_url
from ragline.settings import WebSettings

AGENT = "ragline"
"""The name that robots.txt can address."""

_ATTEMPTS = 3
_BUFFER_BYTES = 256 * 1024
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_ACCEPT = "text/html,application/xhtml+xml,text/markdown;q=0.9,text/plain;q=0.9,application/pdf;q=0.9,*/*;q=0.5"

May: TypeAlias = Callable[[Url], str | None]
"""Why a URL must not be fetched; None where it may."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a URL gave.

    Attributes:
        url: Where it was in the end, redirects followed.
        path: The file that holds it; None where it has not changed.
        robots: The X-Robots-Tag headers.
    """

    url: Url
    path: str | None
    size: int = 0
    digest: str = ""
    etag: str = ""
    modified: str = ""
    robots: tuple[str, ...] = ()


class Fetcher:
    """Fetches pages into temporary files, which end with its `async with`. Safe to use from many tasks.

    Proxies, passwords and cookies of the environment are not used, and no cookie is kept.

    Args:
        allowed: Which addresses may be connected to; unset takes what `web.private_addresses` says.
        resolve: How names become addresses; unset asks the system.
        tls: How certificates are checked; unset trusts what the system (or `SSL_CERT_FILE`) trusts.
    """

    def __init__(
        self,
        settings: WebSettings,
        workers: Workers,
        *,
        allowed: Callable[[IPAddress], bool] | None = None,
        resolve: Resolve | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._settings = settings
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._workers = workers
        self._backend = GuardedBackend(allowed or (any_address if settings.private_addresses else is_public), resolve)
        self._tls = tls
        self._names = itertools.count()
        self._pool: httpcore2.AsyncConnectionPool | None = None

    async def __aenter__(self) -> Fetcher:
        try:
            self._folder = tempfile.TemporaryDirectory(prefix="ragline-web-", ignore_cleanup_errors=True)
        except OSError as failure:
            raise BackendError(
                f"no temporary folder can be made: {failure}", hint="make room, or set TMPDIR to a folder with some"
            ) from failure
        tls = self._tls or await self._workers.run(httpcore2.default_ssl_context)
        # Room for those that are still closing: the limit of pages at once is the crawl's.
        connections = 2 * self._settings.parallel + 2
        self._pool = httpcore2.AsyncConnectionPool(
            tls, max_connections=connections, keepalive_expiry=10.0, http2=False, network_backend=self._backend
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            if self._pool is not None:
                await self._pool.aclose()
        finally:
            if self._folder is not None:
                self._folder.cleanup()

    async def fetch(
        self, url: Url, *, state: PageState | None = None, may: May | None = None, max_bytes: int | None = None, any_type: bool = False
    ) -> Fetched:
        """What is behind a URL now.

        Args:
            state: What was known of it: asked with its validators, the server may answer that nothing has changed.
            may: Asked before each redirect is followed.
            max_bytes: Take no more than so much and leave out the rest; unset, more than `web.max_bytes` is an error.
            any_type: Whether to take any content type, and nothing at all; the file then has no extension.

        Raises:
            PageError: It cannot be had; the message says why and does not repeat the URL.
        """
        attempts = 0

        async def attempt(_: float) -> Fetched:
            nonlocal attempts
            attempts += 1
            return await self._follow(url, state, may, max_bytes, any_type)

        def wait_of(failure: BaseException) -> float | None:
            return failure.retry_s if isinstance(failure, PageError) and attempts < _ATTEMPTS else None

        budget_s = self._settings.timeout_s
        try:
            async with asyncio.timeout(budget_s):
                return await retried(attempt, Retries(budget_s, longest_wait_s=4.0), wait_of=wait_of)
        except TimeoutError:
            raise PageError(
                f"it took longer than {budget_s:g} s to load", hint="try again later, or raise web.timeout_s if the server is that slow"
            ) from None

    async def _follow(self, url: Url, state: PageState | None, may: May | None, max_bytes: int | None, any_type: bool) -> Fetched:
        for _ in range(self._settings.max_redirects + 1):
            known = state if state is not None and state.url == str(url) else None
            async with self._request(url, known) as response:
                headers = _headers(response)
                if response.status not in _REDIRECTS or "location" not in headers:
                    return await self._take(url, response, headers, known, max_bytes, any_type)
            url = _redirected(url, headers["location"])
            if may is not None and (reason := may(url)) is not None:
                raise PageError(f"it redirects to where it is not followed: {reason}", absent=True)
        raise PageError(
            f"it redirects more than {self._settings.max_redirects} times", hint="open it in a browser, and give the address where it ends"
        )

    @contextlib.asynccontextmanager
    async def _request(self, url: Url, known: PageState | None) -> AsyncIterator[httpcore2.Response]:
        assert self._pool is not None, "used outside of `async with`"
        headers = {"Host": url.authority, "User-Agent": _user_agent(), "Accept": _ACCEPT, "Accept-Encoding": "gzip"}
        if known is not None:
            conditions = (("If-None-Match", known.etag), ("If-Modified-Since", known.modified))
            headers |= {name: value for name, value in conditions if value}
        # In parts: what was checked is what is sent, and nothing parses it again.
        address = httpcore2.URL(scheme=url.scheme.encode(), host=url.host.encode(), port=url.port, target=url.target.encode())
        with _explained(url):
            async with self._pool.stream("GET", address, headers=list(headers.items())) as response:
                yield response

    async def _take(
        self,
        url: Url,
        response: httpcore2.Response,
        headers: Mapping[str, str],
        known: PageState | None,
        max_bytes: int | None,
        any_type: bool,
    ) -> Fetched:
        etag, modified = usable_validator(headers.get("etag", "")), usable_validator(headers.get("last-modified", ""))
        if response.status == 304 and known is not None and (known.etag or known.modified):
            return Fetched(url, None, 0, known.digest, etag or known.etag, modified or known.modified)
        if response.status not in (200, 203):
            raise _refusal(response.status, headers)
        packing = headers.get("content-encoding", "").strip().lower()
        if packing not in ("", "identity", "gzip", "x-gzip"):
            raise PageError(f"it comes packed as {packing[:40]}, which was not asked for", hint="save it with a browser and give the file")
        kind = headers.get("content-type", "")
        suffix = "" if any_type else media.suffix_for(kind, headers.get("content-disposition", ""), url)
        limit = max_bytes or self._settings.max_bytes
        if max_bytes is None and headers.get("content-length", "").isdigit() and int(headers["content-length"][:20]) > limit:
            raise PageError(f"it is larger than {limit:,} bytes", hint="raise web.max_bytes if the page is sound")
        assert self._folder is not None
        path = os.path.join(self._folder.name, f"{next(self._names)}{suffix}")
        body = Body(path, gzipped="gzip" in packing, max_bytes=limit, truncate=max_bytes is not None)
        encoding = media.charset(kind) if not any_type and suffix in media.TEXT_SUFFIXES else None
        try:
            await self._receive(response, body)
            await self._workers.run(body.finish, encoding, may_be_empty=any_type)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(path)
            raise
        finally:
            body.close()
        robots = tuple(value.decode("latin-1") for name, value in response.headers if name.lower() == b"x-robots-tag")
        return Fetched(url, path, body.size, body.digest, etag, modified, robots)

    async def _receive(self, response: httpcore2.Response, body: Body) -> None:
        held: list[bytes] = []
        size = 0
        async for piece in response.aiter_stream():
            held.append(piece)
            size += len(piece)
            if size >= _BUFFER_BYTES:
                await self._workers.run(body.feed, b"".join(held))
                held, size = [], 0
                if body.full:
                    return
        await self._workers.run(body.feed, b"".join(held))


def _user_agent() -> str:
    from ragline import __version__  # here, because the package's own module imports the engine

    return f"{AGENT}/{__version__}"


def _headers(response: httpcore2.Response) -> dict[str, str]:
    """Header values by name in lower case; of several with one name the first."""
    found: dict[str, str] = {}
    for name, value in response.headers:
        found.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))
    return found


def _redirected(url: Url, location: str) -> Url:
    # Header bytes above ASCII are UTF-8 in practice.
    with contextlib.suppress(UnicodeDecodeError):
        location = location.encode("latin-1").decode("utf-8")
    try:
        target = join_url(url, location)
    except PageError as failure:
        raise PageError(f"it redirects to where nothing can be: {failure.message}", hint=failure.hint, absent=True) from failure
    if url.scheme == "https" and target.scheme == "http":
        raise PageError(
            "it redirects from https to http, where anyone on the way could change it", hint="give the http:// URL if you trust it"
        )
    return target


def _refusal(status: int, headers: Mapping[str, str]) -> PageError:
    """The error for an answer that is no page."""
    later = "try again later"
    if status in (404, 410):
        return PageError(f"there is no such page (HTTP {status})", hint="check the URL", status=status, absent=True)
    if status in (401, 402, 403, 407, 451):
        return PageError(
            f"the server does not let ragline read it (HTTP {status})",
            hint="if you may read it, save it with a browser and ingest the file",
            status=status,
            absent=True,
        )
    if status in (429, 502, 503, 504):
        asked_s = _retry_after(headers.get("retry-after", ""))
        told = f"; it asks to wait {asked_s:.0f} s" if asked_s else ""
        reason = "the server gets too many requests" if status == 429 else "the server cannot answer now"
        return PageError(f"{reason} (HTTP {status}{told})", hint=f"{later}, or lower web.parallel", status=status, retry_s=asked_s)
    if status >= 500:
        return PageError(f"the server failed (HTTP {status})", hint=later, status=status)
    if status >= 400:
        return PageError(f"the server refuses the request (HTTP {status})", hint="check the URL", status=status, absent=True)
    return PageError(f"the server sent no page (HTTP {status})", hint="check the URL", status=status)


def _retry_after(value: str) -> float:
    """The seconds of a Retry-After header (RFC 9110, 10.2.3), a number or a date; 0 for none."""
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        date = email.utils.parsedate_to_datetime(value)
        return max(0.0, (date - datetime.datetime.now(datetime.UTC)).total_seconds())
    except (TypeError, ValueError, OverflowError):
        return 0.0


@contextlib.contextmanager
def _explained(url: Url) -> Iterator[None]:
    """Turns what the HTTP client raises into `PageError`."""
    try:
        yield
    except (httpcore2.NetworkError, httpcore2.TimeoutException, httpcore2.ProtocolError, httpcore2.UnsupportedProtocol) as failure:
        raise _network_failure(url, failure) from failure
    except (ssl.SSLError, ConnectionError) as failure:
        raise _network_failure(url, failure) from failure


def _network_failure(url: Url, failure: Exception) -> PageError:
    causes: list[BaseException] = [failure]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None and len(causes) < 10:
        causes.append(cause)
    invalid = next((cause for cause in causes if isinstance(cause, ssl.SSLCertVerificationError)), None)
    if invalid is not None:
        return PageError(
            f"the certificate of {url.host} cannot be trusted: {invalid.verify_message}",
            hint="check the URL; for an authority of your own, name its certificate in SSL_CERT_FILE",
        )
    if any(isinstance(cause, ssl.SSLError) for cause in causes) and isinstance(failure, httpcore2.ConnectError):
        return PageError(f"no safe connection to {url.authority} can be made (TLS)", hint="check that it is an https server")
    if isinstance(failure, httpcore2.ConnectTimeout):
        return PageError(f"{url.authority} does not answer", hint="check the URL and your network")
    if isinstance(failure, httpcore2.ConnectError):
        return PageError(f"{url.authority} cannot be connected to", hint="check the URL, and that the server runs")
    if isinstance(failure, httpcore2.RemoteProtocolError) and not _broke_off(failure):
        return PageError(f"{url.authority} does not speak HTTP", hint="check the URL")
    return PageError("the connection broke off", hint="try again later", retry_s=0.0)


def _broke_off(failure: httpcore2.RemoteProtocolError) -> bool:
    """Whether the server closed in the middle, rather than sent something else than HTTP."""
    text = str(failure).lower()
    return "disconnected" in text or "closed connection" in text
