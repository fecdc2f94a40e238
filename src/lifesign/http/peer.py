"""Who is asking, as far as the network tells: the unit that limits per network count by."""

import ipaddress
from functools import lru_cache

from starlette.requests import Request

from lifesign.http.context import context_of

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
# So much of an IPv6 address is what a provider gives to one customer.
_SITE_BITS = 64
_LOCAL = "local"
_FORWARDED = b"x-forwarded-for"


def network_of(request: Request) -> str:
    """The caller's IPv4 address, or the /64 of its IPv6 address; `local` for a socket in the file system.

    `X-Forwarded-For` is believed from right to left, for as long as whoever wrote an entry is a trusted proxy.
    """
    peer = _address(request.client.host) if request.client else None
    if peer is None:
        return _LOCAL
    trusted = _networks(context_of(request).settings.trusted_proxies)
    if trusted and _is_in(peer, trusted):
        peer = _behind(peer, _forwarded(request), trusted)
    return network_name(peer)


def network_name(address: _Address) -> str:
    """What callers from this address are counted under."""
    if address.version == 4:  # noqa: PLR2004 - the protocol's own number
        return str(address)
    return str(ipaddress.ip_network((int(address), _SITE_BITS), strict=False))


def _behind(peer: _Address, forwarded: list[str], trusted: tuple[_Network, ...]) -> _Address:
    for entry in reversed(forwarded):
        found = _address(entry)
        if found is None:
            return peer
        peer = found
        if not _is_in(peer, trusted):
            return peer
    return peer


def _forwarded(request: Request) -> list[str]:
    lines = [value.decode("latin-1") for name, value in request.scope["headers"] if name == _FORWARDED]
    return [entry.strip() for line in lines for entry in line.split(",")]


def _address(text: str) -> _Address | None:
    """The address in `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:80`; IPv4 in IPv6 is IPv4."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    return (found.ipv4_mapped or found) if found.version == 6 else found  # noqa: PLR2004 - the protocol's own number


def _is_in(address: _Address, networks: tuple[_Network, ...]) -> bool:
    return any(address in network for network in networks)


@lru_cache(maxsize=8)
def _networks(setting: str) -> tuple[_Network, ...]:
    return tuple(ipaddress.ip_network(part.strip()) for part in setting.split(",") if part.strip())
