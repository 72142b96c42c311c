"""Where we may be told to send: public addresses over https, unless the operator allows more.

An address that a user enters must not make us call what only we can reach. A name is looked up once, every address of the answer is
checked, and the connection goes to one of exactly these: a name that means another address a moment later gains nothing. TLS is
still verified by the name. The same check is made when an endpoint is saved and at each send.
"""

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

import httpx

from model.errors import ConfigurationError, DestinationError, InvalidRequestError

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
Address = IPv4Address | IPv6Address

_NUMERIC = re.compile(r"(?:^|\.)(?:\d+|0x[0-9a-f]*)$", re.IGNORECASE)  # WHATWG URL: a host that ends in a number is an address
_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?)*", re.IGNORECASE)
_GLOBAL = IPv6Network("2000::/3")  # all that is routed in the open; what is reserved inside, `is_global` knows
_NAT64, _6TO4 = IPv6Network("64:ff9b::/96"), IPv6Network("2002::/16")
# What `is_global` of some Python versions takes for public (IANA's special-purpose registries), and a cloud's own metadata service
# that is public by its number (Azure).
_NEVER = tuple(map(ip_network, ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32", "2001::/23", "2001:db8::/32", "3fff::/20")))


async def look_up(host: str, port: int) -> list[str]:
    """Return the addresses of a name, in the order of preference.

    Raises:
        OSError: it has none, or nobody answers.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(each[4][0]) for each in found))


class Destinations:
    """The rules of one deployment.

    Args:
        allowed: host names, addresses and networks (CIDR) that may be called although they are private, and without TLS.

    Raises:
        ConfigurationError: one of them is none of these.
    """

    def __init__(self, allowed: Sequence[str] = (), *, resolve: Resolve = look_up) -> None:
        self._resolve = resolve
        self._names: set[str] = set()
        self._networks = []
        for each in allowed:
            try:
                self._networks.append(ip_network(each, strict=False))
            except ValueError:
                if not _NAME.fullmatch(each) or _NUMERIC.search(each):
                    raise ConfigurationError(f"webhook_private_hosts: {each!r} is no host name, address or network") from None
                self._names.add(each.lower())

    async def check(self, url: str) -> None:
        """Let a URL pass that may be sent to by now.

        Raises:
            InvalidRequestError: it is no http(s) URL, holds a user or fragment, or its name has no address.
            DestinationError: it leads where we may not be sent.
        """
        try:
            parsed = httpx.URL(url)
        except (httpx.InvalidURL, ValueError, TypeError) as error:
            raise InvalidRequestError("this is no URL") from error
        if parsed.scheme not in ("https", "http") or not parsed.host or not 0 < (parsed.port or 443) < 65_536:
            raise InvalidRequestError("an endpoint is an https URL")
        if parsed.userinfo or parsed.fragment:
            raise InvalidRequestError("an endpoint's URL holds no user, password or fragment")
        try:
            await self.addresses(parsed)
        except (OSError, UnicodeError) as error:
            raise InvalidRequestError("the host of this URL cannot be found") from error

    async def addresses(self, url: httpx.URL) -> list[str]:
        """Look the host up once and return its addresses, every one of which may be called.

        Raises:
            DestinationError: one of them may not.
            OSError: it has none.
        """
        host = url.raw_host.decode().strip("[]").removesuffix(".").lower()
        port = url.port or (443 if url.scheme == "https" else 80)
        literal = _literal(host)
        found = [str(literal)] if literal is not None else list(await self._resolve(host, port))
        if not found:
            raise OSError("the host has no address")
        named = host in self._names
        for each in found:
            address = ip_address(each)
            if named or any(address in network for network in self._networks):
                continue
            if url.scheme != "https":
                raise DestinationError("an endpoint is an https URL; http is for hosts in webhook_private_hosts")
            if not _public(address):
                raise DestinationError(
                    "this host is or leads to a private, loopback or reserved address, which webhook_private_hosts does not allow"
                )
        return found


class Pinned(httpx.AsyncBaseTransport):
    """Send to the address that was checked, and to none that a second look-up would give."""

    def __init__(self, network: httpx.AsyncBaseTransport, destinations: Destinations) -> None:
        self._network, self._destinations = network, destinations

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        try:
            addresses = await self._destinations.addresses(request.url)
        except (OSError, UnicodeError) as error:
            raise httpx.ConnectError("the host cannot be found", request=request) from error
        name = request.url.raw_host.decode().strip("[]").removesuffix(".")
        extensions = {**request.extensions, "sni_hostname": name} if request.url.scheme == "https" else request.extensions
        content = await request.aread()
        for left, address in zip(reversed(range(len(addresses))), addresses, strict=True):
            url = request.url.copy_with(host=address)
            pinned = httpx.Request(request.method, url, headers=request.headers, content=content, extensions=extensions)
            try:
                return await self._network.handle_async_request(pinned)
            except (httpx.ConnectError, httpx.ConnectTimeout):  # nothing was sent
                if not left:
                    raise
        raise AssertionError("unreachable")

    async def aclose(self) -> None:
        await self._network.aclose()


def _literal(host: str) -> Address | None:
    """Return the address that a host is, None for a name.

    Raises:
        DestinationError: it is an address in disguise, such as 2130706433 or 0x7f.1, or no host at all.
    """
    try:
        return ip_address(host)
    except ValueError:
        if _NUMERIC.search(host):
            raise DestinationError("an address is written in full, as in 203.0.113.7") from None
        if not _NAME.fullmatch(host):
            raise DestinationError("this is no host name") from None
        return None


def _public(address: Address) -> bool:
    """Tell whether an address is one of the open internet, whatever it is wrapped in."""
    if isinstance(address, IPv6Address):
        if (inner := address.ipv4_mapped) is not None:
            return _public(inner)
        if address in _NAT64:
            return _public(IPv4Address(int(address) & 0xFFFF_FFFF))
        if address in _6TO4:
            return _public(IPv4Address(int(address) >> 80 & 0xFFFF_FFFF))
        if address not in _GLOBAL or address.scope_id is not None:
            return False
    special = address.is_multicast or address.is_reserved or any(address in network for network in _NEVER)
    return address.is_global and not special
