"""What the environment says: our own variables, and those that users have set for OpenAI's and Ollama's clients."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

_OPENAI = "https://api.openai.com"
_OLLAMA_PORT = 11434
_PORTS = {"http": 80, "https": 443}

_SERVICE_LINK = re.compile(
    r"RAGLINE(_[A-Z0-9]+)*?_(?:SERVICE_(?P<part>HOST|PORT(?:_[A-Z0-9_]+)?)|PORT(?:_\d+_(?:TCP|UDP|SCTP)(?:_(?P<detail>PROTO|PORT|ADDR))?)?)"
)
_LINK_ADDRESS = re.compile(r"(tcp|udp|sctp)://[0-9A-Fa-f.:\[\]]+:\d+")


def is_service_link(name: str, value: str) -> bool:
    """Whether Kubernetes made this variable, for a service whose name begins with "ragline".

    Examples:
        is_service_link("RAGLINE_PORT", "tcp://10.0.0.1:8000")           # True
        is_service_link("RAGLINE_PORT_8000_TCP_PROTO", "tcp")            # True
        is_service_link("RAGLINE_PORT", "8000")                          # False: somebody took it for a setting
    """
    match = _SERVICE_LINK.fullmatch(name)
    if match is None:
        return False
    kind = match["part"] or match["detail"]
    if kind is None:
        return _LINK_ADDRESS.fullmatch(value) is not None
    if kind in ("HOST", "ADDR"):
        return _is_ip(value)
    return value in ("tcp", "udp", "sctp") if kind == "PROTO" else value.isdecimal()


def _is_ip(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


Found = Iterator[tuple[str, str, str, bool]]
"""Values of other programs' variables: setting, value, variable, and whether it stands in `.env`."""


def openai_values(
    section: str, base_url: str | None, api_key: str | None, environment: Mapping[str, str], dotenv: Mapping[str, str]
) -> Found:
    """Address and key for a section that speaks OpenAI's protocol, of the two those that its settings leave unset.

    A key out of the environment goes to OpenAI, or to the server that the environment names beside it; a folder's
    `.env` or settings file must not be able to send it elsewhere. A key in `.env` may go where that `.env` says too.
    """
    named = environment.get("OPENAI_BASE_URL") or ""
    named_here = dotenv.get("OPENAI_BASE_URL") or ""
    if base_url is None and (named or named_here):
        base_url = named or named_here
        yield f"{section}.base_url", base_url, "OPENAI_BASE_URL", not named
    if api_key is not None:
        return
    key, key_here = environment.get("OPENAI_API_KEY"), dotenv.get("OPENAI_API_KEY")
    trusted = [named] if key else [named, named_here]
    if (key or key_here) and (base_url is None or _is_openai(base_url) or _same(base_url, trusted)):
        yield f"{section}.api_key", key or key_here or "", "OPENAI_API_KEY", not key


def _same(address: str, others: list[str]) -> bool:
    return address.rstrip("/") in [other.rstrip("/") for other in others if other]


def _is_openai(address: str) -> bool:
    return address == _OPENAI or address.startswith(f"{_OPENAI}/")


def ollama_address(spelling: str) -> str | None:
    """The address that `OLLAMA_HOST` stands for, in Ollama's own spellings; None where it is none.

    Examples:
        ollama_address("gpu-box")               # "http://gpu-box:11434"
        ollama_address("0.0.0.0:8080")          # "http://127.0.0.1:8080": where a server listens is not where to reach it
        ollama_address("https://gpu-box")       # "https://gpu-box:443"
    """
    text = spelling.strip().strip("\"'").strip()
    scheme, separator, rest = text.rpartition("://")
    scheme = scheme.lower() if separator else "http"
    if scheme not in _PORTS:
        return None
    if rest.count(":") > 1 and not rest.startswith("["):
        rest = f"[{rest}]"  # a bare IPv6 address
    try:
        parts = urlsplit(f"{scheme}://{rest}")
        port = parts.port or (_PORTS[scheme] if separator else _OLLAMA_PORT)
    except ValueError:
        return None
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(parts.hostname or "", parts.hostname)
    return f"{scheme}://{f'[{host}]' if ':' in (host or '') else host}:{port}{parts.path.rstrip('/')}"
