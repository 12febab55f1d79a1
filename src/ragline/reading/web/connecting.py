"""Connections that reach only the addresses they may: resolved once, checked, and connected to as checked."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeAlias

import httpcore2

from ragline.reading.web.addresses import IPAddress
from ragline.reading.web.base import PageError

Resolve: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]
"""The addresses of a host, as text, best first."""

_MAX_ADDRESSES = 4
_CONNECT_TIMEOUT_S = 10.0


class GuardedBackend(httpcore2.AsyncNetworkBackend):
    """Opens TCP connections for an HTTP client, to allowed addresses only.

    It is given the host's name and connects to the address that it has checked, so nothing can resolve the name a
    second time and get another answer. TLS goes on to check the certificate for the name. A name of which any
    address is forbidden is refused whole: an honest site has no private address beside its public ones, and
    picking the public ones would leave it to a hostile name server which of its answers are used.
    """

    def __init__(self, allowed: Callable[[IPAddress], bool], resolve: Resolve | None = None) -> None:
        self._allowed = allowed
        self._resolve = resolve or _resolve
        self._tcp = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """A connection to an allowed address of the host.

        Raises:
            PageError: There is no such host, or an address of it is forbidden.
            httpcore2.ConnectError, httpcore2.ConnectTimeout: None of its addresses answers.
        """
        addresses = (await self._addresses(host, port))[:_MAX_ADDRESSES]
        share = (timeout or _CONNECT_TIMEOUT_S) / len(addresses)
        for address in addresses[:-1]:
            try:
                return await self._tcp.connect_tcp(str(address), port, share, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
                continue
        return await self._tcp.connect_tcp(str(addresses[-1]), port, share, local_address, socket_options)

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None
    ) -> httpcore2.AsyncNetworkStream:
        """Never: the web is not behind a socket file."""
        raise httpcore2.UnsupportedProtocol("socket files are not connected to")

    async def sleep(self, seconds: float) -> None:
        """Waits."""
        await asyncio.sleep(seconds)

    async def _addresses(self, host: str, port: int) -> Sequence[IPAddress]:
        try:
            found = [ipaddress.ip_address(address) for address in await self._resolve(host, port)]
        except socket.gaierror as failure:
            raise _no_host(host, failure) from failure
        except (OSError, ValueError) as failure:
            raise PageError(f"the name {host} cannot be resolved: {failure}", hint="check your network, then try again") from failure
        if not found:
            raise PageError(f"the name {host} has no address", hint="check the spelling of the URL")
        if not all(map(self._allowed, found)):
            # Which address it is stays untold: the answer of an inner name server is nobody's business.
            raise PageError(
                f"{host} leads to an address that is not public",
                hint="it is of a private network, this machine or a metadata service: set web.private_addresses if you choose every URL",
            )
        return list(dict.fromkeys(found))


async def _resolve(host: str, port: int) -> Sequence[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


def _no_host(host: str, failure: socket.gaierror) -> PageError:
    if failure.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)):
        return PageError(f"there is no host {host}", hint="check the spelling of the URL, and your network")
    return PageError(f"the name {host} cannot be resolved: {failure.strerror}", hint="check your network, then try again")
