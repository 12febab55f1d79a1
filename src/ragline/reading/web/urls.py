"""URLs as they are fetched, compared and shown: one spelling for each page, and none that two programs read differently."""

from __future__ import annotations

import ipaddress
import re
import urllib.parse
from dataclasses import dataclass

from ragline.reading.web.base import PageError

MAX_URL_CHARS = 8192
_DEFAULT_PORTS = {"http": 80, "https": 443}
_HINT = "give a URL such as https://example.com/page"

# The WHATWG Fetch standard's "bad ports": what answers there is no web server, and some can be talked into mischief.
_BAD_PORTS = frozenset(
    {1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104, 109, 110, 111, 113,
     115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515, 526, 530, 531, 532, 540, 548, 554, 556,
     563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667,
     6668, 6669, 6679, 6697, 10080}
)  # fmt: skip

_WEB = re.compile(r"https?://", re.IGNORECASE)
_PARTS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)([^?#]*)(?:\?([^#]*))?(?:#.*)?", re.DOTALL)
_AUTHORITY = re.compile(r"(?:\[([^\[\]]*)\]|([^:\[\]]*))(?::([0-9]{0,5}))?")
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_NUMERIC = re.compile(r"[0-9]+|0x[0-9a-f]*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_USER = re.compile(r"//[^/?#]*@")

_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_PATH_SAFE = "/:@!$&'()*+,;=-._~%"
_QUERY_SAFE = _PATH_SAFE + "?"
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})?")


@dataclass(frozen=True, slots=True)
class Url:
    """A URL in its one spelling.

    Attributes:
        host: ASCII, lower case, no dot at its end; an IPv6 address without brackets.
        target: Path and query, percent-encoded, without dot segments.

    Examples:
        parse_url("HTTP://Example.COM:80/a/../%7euser#top")    # http://example.com/~user
    """

    scheme: str
    host: str
    port: int
    target: str

    @property
    def authority(self) -> str:
        """Host and port, as the Host header has them; the default port is left out."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def site(self) -> str:
        """Scheme, host and port: what belongs together."""
        return f"{self.scheme}://{self.authority}"

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    @property
    def folder(self) -> str:
        """The path up to its last slash."""
        return self.path[: self.path.rindex("/") + 1]

    def __str__(self) -> str:
        return self.site + self.target


def is_url(source: str) -> bool:
    """Whether a source given as a string is a URL of the web."""
    return _WEB.match(source) is not None


def shown(source: str) -> str:
    """A URL as it may be shown: without a user name and password."""
    return _CONTROL.sub("\ufffd", _USER.sub("//", source))[:MAX_URL_CHARS]


def parse_url(text: str) -> Url:
    """The URL in its one spelling.

    Scheme and host in lower case, international names in their ASCII form, default port, empty query and fragment dropped,
    an empty path as "/", escapes in upper case and those of unreserved characters undone, dot segments resolved (RFC 3986, 6.2).

    Raises:
        PageError: It is no http or https URL, or one that programs read differently: with a user name, control characters,
            backslashes, an IPv4 address in an odd spelling, or a port at which no web server is.
    """
    if len(text) > MAX_URL_CHARS:
        raise _refused(f"the URL is longer than {MAX_URL_CHARS:,} characters")
    if _CONTROL.search(text) or "\\" in text:
        raise _refused("the URL holds a backslash, a line break or another character that no URL has")
    parts = _PARTS.fullmatch(text)
    if parts is None or parts[1].lower() not in _DEFAULT_PORTS:
        raise _refused("it is no http:// or https:// URL")
    scheme, authority = parts[1].lower(), parts[2]
    if "@" in authority:
        raise PageError(
            "the URL holds a user name or password", hint="leave it out; for pages behind a login, save them and give the files"
        )
    split = _AUTHORITY.fullmatch(authority)
    if split is None:
        raise _refused("the URL's host or port cannot be understood")
    host = _ipv6(split[1]) if split[1] is not None else _host(split[2])
    port = int(split[3]) if split[3] else _DEFAULT_PORTS[scheme]
    if not 0 < port < 65_536:
        raise _refused(f"there is no port {port}")
    if port in _BAD_PORTS:
        raise PageError(f"port {port} belongs to another service than the web", hint="no browser opens it either; check the URL")
    target = _without_dots(normal_escapes(parts[3], _PATH_SAFE) or "/")
    if parts[4]:
        target += "?" + normal_escapes(parts[4], _QUERY_SAFE)
    return Url(scheme, host, port, target)


def join_url(base: Url, link: str) -> Url:
    """What a link on a page leads to. Raises PageError as `parse_url` does."""
    link = re.sub(r"[\t\r\n]", "", link.strip("\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x1b\x1f "))
    if len(link) > MAX_URL_CHARS:
        raise _refused("the URL is too long")
    try:
        return parse_url(urllib.parse.urljoin(str(base), link))
    except ValueError as failure:
        raise _refused(f"the URL cannot be understood: {failure}") from failure


def normal_escapes(text: str, safe: str = _QUERY_SAFE) -> str:
    """The text with each character either plain or escaped, always in the same way."""
    return urllib.parse.quote(_ESCAPE.sub(_normal_escape, text), safe=safe)


def _normal_escape(escape: re.Match[str]) -> str:
    if escape[1] is None:
        return "%25"
    character = chr(int(escape[1], 16))
    return character if character in _UNRESERVED else f"%{escape[1].upper()}"


def _without_dots(path: str) -> str:
    kept: list[str] = []
    names = path.split("/")[1:]
    for name in names:
        if name == "..":
            del kept[-1:]
        elif name != ".":
            kept.append(name)
    if names[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)


def _host(text: str) -> str:
    if not text or len(text) > 253 or "%" in text:
        raise _refused("the URL has no host name, or one that cannot be")
    if not text.isascii():
        import idna

        try:
            text = idna.encode(text, uts46=True).decode("ascii")
        except idna.IDNAError as failure:
            raise _refused(f"the URL's host name cannot be: {failure}") from failure
    host = text.lower().removesuffix(".")
    labels = host.split(".")
    if len(host) > 253 or not all(map(_LABEL.fullmatch, labels)):
        raise _refused("the URL has no host name, or one that cannot be")
    if _NUMERIC.fullmatch(labels[-1]):
        # 2130706433, 0x7f.1 and 0177.0.0.1 are 127.0.0.1 to some programs and names to others.
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError as failure:
            raise PageError("the URL's IPv4 address is not written as four decimal numbers", hint=_HINT) from failure
    return host


def _ipv6(text: str) -> str:
    try:
        if "%" in text:
            raise ValueError("a zone")
        return ipaddress.IPv6Address(text).compressed
    except ValueError as failure:
        raise _refused("the URL's IPv6 address cannot be") from failure


def _refused(message: str) -> PageError:
    return PageError(message, hint=_HINT)
