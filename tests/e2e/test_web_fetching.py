"""Pages from real servers: where connections may go, what may come back, and how long all of it may take."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import ipaddress
import socket
import ssl
import subprocess
import tempfile
import threading
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ragline.errors import BackendError
from ragline.reading.reader import FileReader
from ragline.reading.web.addresses import IPAddress, any_address, is_public
from ragline.reading.web.base import FoundPage, Page
from ragline.reading.web.urls import parse_url
from ragline.reading.web.visit import Visit
from ragline.settings import ReadingSettings, WebSettings
from ragline.types import FailedSource
from tests.imitation.http import GARBAGE, HANG, RESET, Fault, ImitationServer, Reply, Request, closed_port, half, slow, status
from tests.imitation.site import Site, moved, page

INNER = ipaddress.ip_address("127.0.0.1")


@pytest.fixture
async def reader() -> AsyncIterator[FileReader]:
    reader = FileReader(ReadingSettings(workers=1))
    yield reader
    await reader.close()


@pytest.fixture
def server() -> Iterator[ImitationServer]:
    with ImitationServer(Site({"/": page("Kittiwake is a boat.")})) as server:
        yield server


async def nothing_known(_: Sequence[str]) -> dict[str, str]:
    return {}


async def fetch(reader: FileReader, url: str, **options: Any) -> Any:
    """The page's bytes, or its error."""
    guard = {name: options.pop(name) for name in ("allowed", "resolve", "tls") if name in options}
    guard.setdefault("allowed", any_address)
    async with Visit(WebSettings(**options), reader, nothing_known, **guard) as visit, contextlib.aclosing(visit.pages([at(url)])) as met:
        [found] = [entry async for entry in met]
        if isinstance(found, Page):
            assert found.path is not None
            return await asyncio.to_thread(Path(found.path).read_bytes)
        return found


def at(url: str) -> FoundPage:
    return FoundPage(str(parse_url(url)))


def resolver(*answers: Sequence[str]) -> tuple[Callable[[str, int], Any], list[str]]:
    """A name server that gives one answer after another, the last for ever; and the names it was asked."""
    asked: list[str] = []

    async def resolve(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return answers[min(len(asked), len(answers)) - 1]

    return resolve, asked


def port_of(server: ImitationServer) -> int:
    return int(server.url.rpartition(":")[2])


# -- where connections go ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "127.0.0.1."])
async def test_this_machine_is_refused_unless_that_is_set(reader: FileReader, server: ImitationServer, host: str) -> None:
    found = await fetch(reader, f"http://{host}:{port_of(server)}/", allowed=is_public)
    assert isinstance(found, FailedSource) and "not public" in found.error and "web.private_addresses" in found.hint
    assert server.connections == 0


async def test_private_addresses_are_a_setting(reader: FileReader, server: ImitationServer) -> None:
    assert "not public" in (await fetch(reader, server.url, allowed=None)).error
    assert b"Kittiwake" in await fetch(reader, server.url, allowed=None, private_addresses=True)


async def test_one_inner_address_among_public_ones_refuses_the_name(reader: FileReader, server: ImitationServer) -> None:
    resolve, _ = resolver(["93.184.216.34", "127.0.0.1"])
    found = await fetch(reader, f"http://rebind.example:{port_of(server)}/", allowed=is_public, resolve=resolve)
    assert "not public" in found.error and "127.0.0.1" not in found.error and server.connections == 0


async def test_a_name_is_resolved_once_and_what_was_checked_is_connected_to(reader: FileReader, server: ImitationServer) -> None:
    # The second answer is what a rebinding name server would give to whoever asked again; nothing listens there.
    resolve, asked = resolver(["127.0.0.1"], ["127.0.0.3"])
    assert b"Kittiwake" in await fetch(reader, f"http://rebind.example:{port_of(server)}/", resolve=resolve)
    assert asked == ["rebind.example"]
    assert server.requests[0].headers["host"] == f"rebind.example:{port_of(server)}"


async def test_rebinding_between_two_connections_does_not_reach_the_inner_server(reader: FileReader) -> None:
    with ImitationServer(Site({"/": page("secret of the inner network")})) as inner, outer_site() as outer:
        resolve, asked = resolver(["127.0.0.2"], ["127.0.0.1"])
        found = await fetch(reader, f"http://rebind.example:{outer}/", allowed=not_inner, resolve=resolve)
        assert isinstance(found, FailedSource) and "not public" in found.error
        assert len(asked) == 2, "the outer server closes, so that the redirect needs a second connection"
        assert inner.connections == 0


def not_inner(address: IPAddress) -> bool:
    """A guard for which 127.0.0.2 is the open internet."""
    return address != INNER


@contextlib.contextmanager
def outer_site() -> Iterator[int]:
    """A server on 127.0.0.2 that redirects everything to itself and closes; its port."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.2", 0))
        listening.listen()
        listening.settimeout(10)

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    with connection:
                        connection.recv(65_536)
                        connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: /next\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize("target", ["http://127.0.0.1:{port}/", "//127.0.0.1:{port}/", "http://inner.example:{port}/"])
async def test_a_redirect_to_an_inner_address_is_refused(reader: FileReader, target: str) -> None:
    resolve_names = {"outer.example": "127.0.0.2", "inner.example": "127.0.0.1", "127.0.0.1": "127.0.0.1"}

    async def resolve(host: str, port: int) -> Sequence[str]:
        return [resolve_names[host]]

    with ImitationServer(Site({"/": page("secret")})) as inner, redirecting(target.format(port=port_of(inner))) as outer:
        found = await fetch(reader, f"http://outer.example:{outer}/", allowed=not_inner, resolve=resolve)
        assert isinstance(found, FailedSource) and "not public" in found.error
        assert inner.connections == 0


@contextlib.contextmanager
def redirecting(target: str) -> Iterator[int]:
    """A server on 127.0.0.2 that redirects once; its port."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.2", 0))
        listening.listen()

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(f"HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n".encode())

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        thread.join()


async def test_neither_proxies_nor_passwords_of_the_environment_are_used(
    reader: FileReader, server: ImitationServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "https_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port()}")
    assert b"Kittiwake" in await fetch(reader, server.url)
    assert {"authorization", "cookie", "proxy-authorization"}.isdisjoint(server.requests[0].headers)


async def test_cookies_are_not_kept(reader: FileReader) -> None:
    site = Site({"/": Reply(b"", 302, {"location": "/b", "set-cookie": "session=1"}), "/b": page("x")})
    with ImitationServer(site) as server:
        await fetch(reader, server.url)
        assert [request.path for request in server.requests] == ["/", "/b"] and "cookie" not in server.requests[1].headers


# -- TLS ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    key, file = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
         "-days", "2", "-subj", "/CN=site.example",
         "-addext", "subjectAltName=DNS:site.example", "-keyout", str(key), "-out", str(file)],
        check=True, capture_output=True,
    )  # fmt: skip
    return file, key


@pytest.fixture
async def tls_port(certificate: tuple[Path, Path]) -> AsyncIterator[int]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    names: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        names.append(request.decode())
        head = (
            b"HTTP/1.1 302 Found\r\nLocation: http://site.example/"
            if b"/down" in request
            else b"HTTP/1.1 200 OK\r\nContent-Type: text/plain"
        )
        writer.write(head + b"\r\nContent-Length: 4\r\nConnection: close\r\n\r\nsafe")
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    yield server.sockets[0].getsockname()[1]
    server.close()
    await asyncio.sleep(0)


def trusting(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate[0]))


async def test_certificates_are_checked_for_the_name_not_for_the_address(
    reader: FileReader, tls_port: int, certificate: tuple[Path, Path]
) -> None:
    resolve, _ = resolver(["127.0.0.1"])
    good = await fetch(reader, f"https://site.example:{tls_port}/", resolve=resolve, tls=trusting(certificate))
    assert good == b"safe"
    other = await fetch(reader, f"https://other.example:{tls_port}/", resolve=resolve, tls=trusting(certificate))
    assert "certificate of other.example" in other.error and "mismatch" in other.error and other.hint
    unknown = await fetch(reader, f"https://site.example:{tls_port}/", resolve=resolve)
    assert "self-signed" in unknown.error and "SSL_CERT_FILE" in unknown.hint


async def test_https_never_redirects_to_http(reader: FileReader, tls_port: int, certificate: tuple[Path, Path]) -> None:
    resolve, _ = resolver(["127.0.0.1"])
    found = await fetch(reader, f"https://site.example:{tls_port}/down", resolve=resolve, tls=trusting(certificate))
    assert "from https to http" in found.error and "http:// URL" in found.hint


async def test_a_server_without_tls_is_told_apart(reader: FileReader, server: ImitationServer) -> None:
    found = await fetch(reader, server.url.replace("http", "https"))
    assert "TLS" in found.error and found.hint


# -- what comes back ---------------------------------------------------------------------------------------------------


async def test_every_failure_has_a_message_and_a_cure(reader: FileReader, server: ImitationServer) -> None:
    faults = {
        "no such page (HTTP 404)": status(404),
        "does not let ragline read it (HTTP 401)": status(401),
        "does not let ragline read it (HTTP 403)": status(403),
        "refuses the request (HTTP 400)": status(400),
        "the server failed (HTTP 500)": status(500),
        "it asks to wait 600 s": status(429, {"Retry-After": "600"}),
        "sent no page (HTTP 204)": status(204),
        "sent no page (HTTP 206)": status(206),
        "sent no page (HTTP 304)": status(304),
        "sent no page (HTTP 302)": status(302),
        "does not speak HTTP": GARBAGE,
    }
    for message, fault in faults.items():
        server.fail_next(fault)
        found = await fetch(reader, server.url)
        assert isinstance(found, FailedSource), message
        assert message in found.error and found.hint, found
    assert len(server.requests) == len(faults), "none of these is worth another try"
    refused = await fetch(reader, f"http://127.0.0.1:{closed_port()}/")
    assert "cannot be connected to" in refused.error and refused.hint


async def test_names_that_lead_nowhere_are_told(reader: FileReader) -> None:
    async def no_such_name(host: str, port: int) -> Sequence[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def no_answer(host: str, port: int) -> Sequence[str]:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    assert "there is no host nowhere.example" in (await fetch(reader, "http://nowhere.example/", resolve=no_such_name)).error
    assert "cannot be resolved: Temporary failure" in (await fetch(reader, "http://nowhere.example/", resolve=no_answer)).error
    assert "no address" in (await fetch(reader, "http://nowhere.example/", resolve=resolver([])[0])).error


async def test_what_can_pass_is_tried_again_a_little(reader: FileReader, server: ImitationServer) -> None:
    server.fail_next(RESET, status(503))
    assert b"Kittiwake" in await fetch(reader, server.url)
    assert len(server.requests) == 3
    server.fail_next(half(20), status(429, {"Retry-After": "0"}), RESET)
    assert "broke off" in (await fetch(reader, server.url)).error
    assert len(server.requests) == 6


@pytest.mark.parametrize("fault", [HANG, slow(30), half(5, then="hang")])
async def test_a_page_may_take_so_long_and_no_longer(reader: FileReader, server: ImitationServer, fault: Any) -> None:
    server.fail_next(fault)
    found = await fetch(reader, server.url, timeout_s=0.3)
    assert "longer than 0.3 s" in found.error and "web.timeout_s" in found.hint


async def test_a_body_that_drips_and_redirects_that_never_end_are_within_the_time(reader: FileReader) -> None:
    async def drip() -> AsyncIterator[bytes]:
        while True:
            yield b"x"
            await asyncio.sleep(0.01)

    async def handle(request: Request) -> Reply:
        return Reply(drip(), 200, {"content-type": "text/plain"}) if request.path == "/drip" else moved("/" + request.path[1:] + "x")

    with ImitationServer(handle) as server:
        assert "longer than 0.3 s" in (await fetch(reader, server.url + "/drip", timeout_s=0.3)).error
        server.requests.clear()
        found = await fetch(reader, server.url + "/", max_redirects=4)
        assert "more than 4 times" in found.error and len(server.requests) == 5


@pytest.mark.parametrize("location", ["ftp://x/", "http://user:pw@127.0.0.1/", "http://[", "javascript:1", "http://x:22/", "\\\\x\\y"])
async def test_redirects_to_what_is_no_url_of_the_web_are_refused(reader: FileReader, location: str) -> None:
    with ImitationServer(Site({"/": moved(location)})) as server:
        found = await fetch(reader, server.url)
        assert "redirects to where nothing can be" in found.error and "pw" not in found.error and found.hint


async def test_sizes_are_limited_while_they_come(reader: FileReader) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 65_536
            yield b"x" * 65_536

    bomb = gzip.compress(b"\0" * 50_000_000)
    site = Site({
        "/endless": Reply(endless(), 200, {"content-type": "text/plain"}),
        "/declared": Reply(b"x" * 200_000, 200, {"content-type": "text/plain"}),
        "/bomb": Reply(bomb, 200, {"content-type": "text/html", "content-encoding": "gzip"}),
        "/nested": Reply(gzip.compress(bomb), 200, {"content-type": "text/html", "content-encoding": "gzip, gzip"}),
        "/deflate": Reply(zlib.compress(b"x"), 200, {"content-type": "text/html", "content-encoding": "deflate"}),
    })  # fmt: skip
    with ImitationServer(site) as server:
        for path in ("/endless", "/declared", "/bomb"):
            assert "larger than 100,000 bytes" in (await fetch(reader, server.url + path, max_bytes=100_000)).error
        assert sent < 20_000_000
        for path in ("/nested", "/deflate"):
            assert "not asked for" in (await fetch(reader, server.url + path)).error


async def test_an_endless_head_is_given_up(reader: FileReader) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            writer.write(b"HTTP/1.1 200 OK\r\n")
            for n in range(100_000):
                writer.write(b"X-%d: %s\r\n" % (n, b"y" * 100))
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    found = await fetch(reader, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    assert isinstance(found, FailedSource)
    server.close()


async def test_the_charset_of_the_server_goes_before_that_of_the_page(reader: FileReader) -> None:
    body = '<html><meta charset="utf-8"><p>Zażółć gęślą jaźń</p></html>'.encode("iso-8859-2")
    with ImitationServer(Site({"/": Reply(body, 200, {"content-type": "text/html; charset=ISO-8859-2"})})) as server:
        async with Visit(WebSettings(private_addresses=True), reader, nothing_known) as visit:
            [found] = [entry async for entry in visit.pages([at(server.url)])]
            assert isinstance(found, Page) and found.path is not None
            assert "Zażółć gęślą jaźń" in (await reader.read(found.path)).text


# -- nothing stays behind ----------------------------------------------------------------------------------------------


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files that nobody else uses."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def is_empty(folder: Path) -> bool:
    return not list(folder.iterdir())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in another thread
            await asyncio.sleep(0.01)


async def test_cancelling_closes_the_connection_and_removes_the_files(reader: FileReader, server: ImitationServer, temporary: Path) -> None:
    server.fail_next(half(5, then="hang"))
    task = asyncio.create_task(fetch(reader, server.url))
    await until(lambda: bool(list(temporary.glob("ragline-web-*/*"))))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert is_empty(temporary)
    await until(lambda: server.left == 1)


async def test_an_error_removes_the_files_too(reader: FileReader, server: ImitationServer, temporary: Path) -> None:
    await fetch(reader, server.url)
    await fetch(reader, server.url, max_bytes=10)
    assert is_empty(temporary)


async def test_no_room_for_temporary_files_is_told(reader: FileReader, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(temporary / "missing"))
    with pytest.raises(BackendError, match="temporary folder"):
        await fetch(reader, "http://127.0.0.1/")


# -- hostile servers ---------------------------------------------------------------------------------------------------

OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n"
NONSENSE = [
    b"", b"\r\n\r\n", b"\x16\x03\x01\x02\x00", b"<html>version 0.9 of HTTP</html>", b"HTTP/1.1 999 Odd\r\n\r\n", b"HTTP/1.1 20 OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nno colon\r\n\r\nx",
    b"HTTP/1.1 100 Continue\r\n\r\n" * 1000, b"HTTP/1.1 101 Switch\r\n\r\nx",
    OK + b"Content-Length: -1\r\n\r\nx", OK + b"Content-Length: 5, 6\r\n\r\nhello", OK + b"Content-Length: 99999999999999999999\r\n\r\nx",
    OK + b"Content-Length: \xb2\r\n\r\nxx", OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nhello",
    OK + b"Transfer-Encoding: chunked\r\n\r\nffffffffffff\r\nx",
    OK + b"Transfer-Encoding: gzip\r\n\r\nx", OK + b"Content-Encoding: gzip\r\n\r\nplain", OK + b"Content-Encoding: br\r\n\r\nx",
    OK + b"Content-Type: a\x00b\r\n\r\nx", OK + b"Set-Cookie: " + b"x" * 300_000 + b"\r\n\r\nx", OK + b"\r\n",
    b"HTTP/1.1 302 Found\r\nLocation: \r\n\r\n", b"HTTP/1.1 302 Found\r\nLocation: \xff\xfe\r\n\r\n", b"HTTP/1.1 302 Found\r\nLocation: http://\r\n\r\n",
    b"HTTP/1.1 302 Found\r\nLocation: " + b"/x" * 20_000 + b"\r\n\r\n", b"HTTP/1.1 429 No\r\nRetry-After: Thu, 99 Foo 9999\r\n\r\n",
    b"HTTP/1.1 503 No\r\nRetry-After: 99999999999999999999999\r\n\r\n", b"HTTP/1.1 304 Not Modified\r\nETag: \"1\"\r\n\r\n",
]  # fmt: skip


@pytest.mark.parametrize("sent", NONSENSE, ids=range(len(NONSENSE)))
async def test_nothing_that_a_server_sends_does_more_than_fail_the_page(reader: FileReader, server: ImitationServer, sent: bytes) -> None:
    server.fail_next(*[Fault(raw=sent, then="close")] * 6)
    found = await fetch(reader, server.url, timeout_s=2.0, max_redirects=1)
    assert isinstance(found, FailedSource) and found.error and found.hint, found


@pytest.mark.parametrize("etag", ['"' + "x" * 5000 + '"', '"\xe9"', "\x01", ""])
async def test_odd_validators_are_neither_kept_nor_sent(reader: FileReader, etag: str) -> None:
    states: dict[str, str] = {}

    async def known(uris: Sequence[str]) -> dict[str, str]:
        return states

    async def handle(request: Request) -> Reply:
        return Reply(b"text", 200, {"content-type": "text/plain"})

    with ImitationServer(handle) as server:
        raw = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 4\r\nETag: " + etag.encode("latin-1") + b"\r\n\r\ntext"
        server.fail_next(*[Fault(raw=raw, then="close")] * 2)
        for _ in range(2):
            async with Visit(WebSettings(private_addresses=True), reader, known) as visit:
                [found] = [entry async for entry in visit.pages([at(server.url)])]
                if isinstance(found, Page):
                    assert found.state.etag == ""
                    states[found.uri] = found.signature
        assert all("if-none-match" not in request.headers for request in server.requests)


@pytest.mark.parametrize("stored", ["", "{}", "[]", "null", "1", '{"url": 1}', '{"url": "x", "digest": "y", "more": 1}', "123-456-789"])
async def test_a_state_that_cannot_be_understood_is_no_state(reader: FileReader, server: ImitationServer, stored: str) -> None:
    async def known(uris: Sequence[str]) -> dict[str, str]:
        return dict.fromkeys(uris, stored)

    async with Visit(WebSettings(private_addresses=True, depth=1), reader, known) as visit:
        [found] = [entry async for entry in visit.pages([at(server.url)])]
        assert isinstance(found, Page) and found.path is not None
