"""The guard: channels never reach into the operator's own network unless the operator said so.

An address is judged twice. At save, a literal address or a name of the loopback is refused, so that the person who
typed it hears of it. At connect, the HTTP client's network backend resolves the name itself, judges every record, and
connects to exactly the address it judged: between the check and the connection there is no second look-up that could
answer differently (DNS rebinding). Both judge by `channels.targets`.
"""

import asyncio
import functools
import ipaddress
import itertools
import socket
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol

import httpcore2

from lifesign.channels.targets import Address, AddressRefused, GuardPolicy, Network, folded, is_allowed, literal_address
from lifesign.channels.wire import WireBackend
from lifesign.settings import Settings

_MAX_ADDRESSES_TRIED: Final = 4
_RESOLVER_THREADS = 48


def policy_of(settings: Settings) -> GuardPolicy:
    """Parse `LIFESIGN_ALLOW_PRIVATE_TARGETS` and `LIFESIGN_EGRESS_ALLOW`; the settings have checked the entries."""
    networks: list[Network] = []
    names: set[str] = set()
    for entry in filter(None, (part.strip() for part in settings.egress_allow.split(","))):
        try:
            networks.append(ipaddress.ip_network(entry))
        except ValueError:
            names.add(folded(entry))
    return GuardPolicy(settings.allow_private_targets, tuple(networks), frozenset(names))


class Resolver(Protocol):
    """All A and AAAA records of a name."""

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        """Addresses as text, in the order to try them. Raises OSError when the name is not found."""
        ...


class SystemResolver:
    """The resolver of the operating system, asked in threads of its own: a silent name server blocks a thread for long.

    There are more of them than one channel may have sends under way, so that its names hold up no other channel's.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_RESOLVER_THREADS, thread_name_prefix="lifesign-resolve")

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        ask = functools.partial(socket.getaddrinfo, host, port, family=socket.AF_UNSPEC, type=socket.SOCK_STREAM)
        records = await asyncio.get_running_loop().run_in_executor(self._threads, ask)
        return list(dict.fromkeys(str(record[4][0]) for record in records))


class GuardedBackend(httpcore2.AsyncNetworkBackend):
    """A network backend that connects only to addresses it has resolved and judged itself."""

    def __init__(self, policy: GuardPolicy, resolver: Resolver | None = None) -> None:
        self._policy = policy
        self._resolver = resolver or SystemResolver()
        self._sockets = WireBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the signature of the interface
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Resolve, judge every record, connect. Raises AddressRefused, ConnectError, ConnectTimeout."""
        try:
            async with asyncio.timeout(timeout):
                addresses = await self._vetted(host, port)
                return await self._connect_first(
                    addresses, port, timeout=timeout, local_address=local_address, socket_options=socket_options
                )
        except TimeoutError as error:
            raise httpcore2.ConnectTimeout from error

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def _vetted(self, host: str, port: int) -> list[Address]:
        literal = literal_address(host)
        if literal is not None:
            if not is_allowed(literal, self._policy):
                raise AddressRefused
            return [literal]
        try:
            records = await self._resolver.resolve(host, port)
        except (OSError, UnicodeError) as error:  # UnicodeError: a label that no DNS message can carry
            if isinstance(error, TimeoutError):
                raise
            raise httpcore2.ConnectError("name not found") from error
        addresses = [literal_address(record) for record in records]
        vetted = [each for each in addresses if each is not None and is_allowed(each, self._policy, host)]
        # One forbidden record refuses them all: a name that mixes both is an attack or a mistake, never a need.
        if len(vetted) != len(addresses):
            raise AddressRefused
        if not vetted:
            raise httpcore2.ConnectError("name not found")
        return _alternating(vetted)[:_MAX_ADDRESSES_TRIED]

    async def _connect_first(
        self,
        addresses: Sequence[Address],
        port: int,
        *,
        timeout: float | None,  # noqa: ASYNC109 - shared out among the addresses
        local_address: str | None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None,
    ) -> httpcore2.AsyncNetworkStream:
        # Each address gets its share of the time: a silent first one must not cost the chance of the second.
        share = None if timeout is None else timeout / len(addresses)
        failure: Exception = httpcore2.ConnectError("no address")
        for address in addresses:
            try:
                return await self._sockets.connect_tcp(
                    str(address), port, timeout=share, local_address=local_address, socket_options=socket_options
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
        raise failure


def _alternating(addresses: Sequence[Address]) -> list[Address]:
    """The same addresses with the families taking turns, beginning with that of the first (RFC 8305, section 4)."""
    first = [each for each in addresses if each.version == addresses[0].version]
    other = [each for each in addresses if each.version != addresses[0].version]
    pairs = itertools.zip_longest(first, other)
    return [each for pair in pairs for each in pair if each is not None]
