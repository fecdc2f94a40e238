"""Which URLs and addresses channels may reach: how a target is taken apart, and judged. Pure.

Source: spec "Channels", section 8.
"""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final

import httpx2

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_URL_CHARACTERS: Final = 2048
REFUSED: Final = "address is not allowed"

_MAX_PORT: Final = 65_535

_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<rest>.*)", re.DOTALL)
_AUTHORITY = re.compile(r"(?P<host>\[[^\[\]]*\]|[^:\[\]]*)(?P<port>:[0-9]*)?")
_HOST_NAME = re.compile(r"(?=.{1,253}\.?$)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*\.?")
# A last label that is a number makes inet_aton() and browsers read the whole as an IPv4 address (WHATWG URL, 3.5).
_ENDS_IN_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)\.?")
_LOOPBACK_NAMES: Final = frozenset({"localhost", "localhost.localdomain", "ip6-localhost"})


def _networks(*cidrs: str) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(cidr) for cidr in cidrs)


# Our own list: what the standard library calls global changes with its version and lacks cloud metadata services.
_FORBIDDEN: Final = _networks(
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.31.196.0/24",
    "192.52.193.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "192.175.48.0/24",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "168.63.129.16/32",
    "2001::/23",
    "2001:db8::/32",
    "2002::/16",
    "3fff::/20",
)
_ALWAYS_FORBIDDEN: Final = _networks(
    "0.0.0.0/8",
    "100.100.100.200/32",
    "168.63.129.16/32",
    "169.254.0.0/16",
    "224.0.0.0/4",
    "255.255.255.255/32",
    "::/128",
    "fd00:ec2::254/128",
    "fe80::/10",
    "ff00::/8",
)
_GLOBAL_UNICAST_V6: Final = ipaddress.IPv6Network("2000::/3")
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_NAT64_LOCAL: Final = ipaddress.IPv6Network("64:ff9b:1::/48")
_COMPATIBLE: Final = ipaddress.IPv6Network("::/96")
_LOOPBACK_V4: Final = ipaddress.IPv4Address("127.0.0.1")
_LOOPBACK_V6: Final = ipaddress.IPv6Address("::1")


class AddressRefused(Exception):
    """The target is, or resolves to, an address that channels may not reach. Says the same whatever listens there."""

    def __init__(self) -> None:
        super().__init__(REFUSED)


class BadUrl(Exception):
    """The URL has a form that is not accepted. The message is for the person who typed it; the URL is not in it."""


class Verdict(Enum):
    """What an address is by itself, before any allowance of the operator."""

    PUBLIC = "public"
    FORBIDDEN = "forbidden"
    ALWAYS_FORBIDDEN = "always_forbidden"


@dataclass(frozen=True, slots=True)
class GuardPolicy:
    """The operator's allowances, parsed once."""

    allow_private: bool = False
    networks: tuple[Network, ...] = ()
    names: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Target:
    """A URL as the client will use it. `host`: lower case, ASCII, no brackets. `raw_path`: with the query."""

    scheme: str
    host: str
    port: int | None
    raw_path: bytes

    @property
    def host_header(self) -> str:
        """The value of `Host`: brackets around IPv6, the port only where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"


def parse_url(url: str, *, schemes: Iterable[str] = ("http", "https")) -> Target:
    """Take a URL apart, once, for the check and for the connection alike: two parsers could disagree about the host.

    Raises BadUrl.  Source: spec "Channels", section 8, "Form".
    """
    if len(url) > MAX_URL_CHARACTERS:
        raise BadUrl(f"must have at most {MAX_URL_CHARACTERS} characters")
    if not url.isprintable() or "\\" in url or any(character.isspace() for character in url):
        raise BadUrl("must not contain control characters, blanks or backslashes")
    parts = _URL.fullmatch(url)
    accepted = tuple(schemes)
    if parts is None or parts["scheme"].lower() not in accepted:
        raise BadUrl("must begin with " + " or ".join(f"{scheme}://" for scheme in accepted))
    if "@" in parts["authority"]:
        raise BadUrl("must not contain a user name or password")
    authority = _AUTHORITY.fullmatch(parts["authority"])
    if authority is None or not authority["host"]:
        raise BadUrl("must have a host")
    if authority["port"] is not None and not _is_port(authority["port"][1:]):
        raise BadUrl("must have a port from 1 to 65535")
    # Percent signs are refused before the parser sees them: they carry IPv6 zone ids and hidden characters.
    if "%" in authority["host"]:
        raise BadUrl("must have a host that is a name or an address")
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise BadUrl("is not a URL") from error
    host = parsed.raw_host.decode("ascii").lower()
    if literal_address(host) is None and (not _HOST_NAME.fullmatch(host) or _ENDS_IN_NUMBER.fullmatch(host)):
        raise BadUrl("must have a host that is a name or an address")
    return Target(parsed.scheme, host, parsed.port, parsed.raw_path)


def check_url(url: str, *, schemes: Iterable[str] = ("http", "https")) -> str | None:
    """What is wrong with the form of a URL, or None. Looks at nothing but the text."""
    try:
        parse_url(url, schemes=schemes)
    except BadUrl as error:
        return str(error)
    return None


def check_at_save(url: str, policy: GuardPolicy, *, schemes: Iterable[str] = ("http", "https")) -> str | None:
    """What keeps a URL from being stored, or None: its form, or a literal address that the guard would refuse.

    Names are not resolved here, except that those of the loopback are known.
    """
    try:
        target = parse_url(url, schemes=schemes)
    except BadUrl as error:
        return str(error)
    address = literal_address(target.host)
    if address is not None:
        return None if is_allowed(address, policy) else REFUSED
    name = folded(target.host)
    # Refused only when both loopbacks are: which of the two the name means is known when it is resolved.
    if _is_loopback_name(name) and not any(is_allowed(a, policy, name) for a in (_LOOPBACK_V4, _LOOPBACK_V6)):
        return REFUSED
    return None


def judge_address(address: Address) -> Verdict:
    """What an address is by itself. Addresses that embed an IPv4 address are judged by that one, too."""
    embedded = _embedded(address)
    if any(_within(each, _ALWAYS_FORBIDDEN) for each in (address, *embedded)):
        return Verdict.ALWAYS_FORBIDDEN
    if any(_within(each, _FORBIDDEN) for each in (address, *embedded)):
        return Verdict.FORBIDDEN
    if isinstance(address, ipaddress.IPv4Address) or address in _GLOBAL_UNICAST_V6 or address in _NAT64:
        return Verdict.PUBLIC
    return Verdict.FORBIDDEN


def is_allowed(address: Address, policy: GuardPolicy, name: str | None = None) -> bool:
    """Whether channels may connect to `address`. `name`: the host name that resolved to it, if it was a name."""
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None:
        return False
    verdict = judge_address(address)
    if verdict is Verdict.ALWAYS_FORBIDDEN:
        return False
    if verdict is Verdict.PUBLIC or policy.allow_private:
        return True
    if name is not None and folded(name) in policy.names:
        return True
    # The kernel connects a mapped address to the IPv4 address inside, so a listed IPv4 range covers it.
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return _within(address, policy.networks) or (mapped is not None and _within(mapped, policy.networks))


def literal_address(host: str) -> Address | None:
    """The address that `host` spells out, in the one form every resolver agrees about, or None."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _is_port(text: str) -> bool:
    return len(text) <= len(str(_MAX_PORT)) and text.isascii() and text.isdigit() and 1 <= int(text) <= _MAX_PORT


def folded(name: str) -> str:
    return name.lower().rstrip(".")


def _is_loopback_name(name: str) -> bool:
    return name in _LOOPBACK_NAMES or name.endswith(".localhost")


def _within(address: Address, networks: tuple[Network, ...]) -> bool:
    return any(address.version == network.version and address in network for network in networks)


def _embedded(address: Address) -> tuple[ipaddress.IPv4Address, ...]:
    """The IPv4 addresses that packets to an IPv6 address may end up at."""
    if isinstance(address, ipaddress.IPv4Address):
        return ()
    if address.ipv4_mapped is not None:
        return (address.ipv4_mapped,)
    if address.sixtofour is not None:
        return (address.sixtofour,)
    if address.teredo is not None:
        return address.teredo
    value = int(address)
    last = ipaddress.IPv4Address(value & 0xFFFF_FFFF)
    if address in _NAT64:
        return (last,)
    # `::` and `::1` lie in the compatible range but are the unspecified address and the loopback.
    if address in _COMPATIBLE:
        return () if value <= 1 else (last,)
    if address in _NAT64_LOCAL:
        # RFC 6052, 2.2: behind a /48 prefix the address lies around an empty octet, behind a /96 one at the end.
        around = ipaddress.IPv4Address(((value >> 64) & 0xFFFF) << 16 | ((value >> 40) & 0xFFFF))
        # The place that is not used is zero, which is no address.
        return tuple(each for each in (last, around) if int(each)) or (last,)
    return ()
