import asyncio
import ipaddress
from collections.abc import AsyncIterator

import httpcore2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifesign.channels import guard, targets
from lifesign.channels.guard import GuardedBackend, policy_of
from lifesign.channels.targets import AddressRefused, GuardPolicy, Verdict
from lifesign.settings import Settings
from tests.peers.names import ScriptedResolver

STRICT = GuardPolicy()
PRIVATE = GuardPolicy(allow_private=True)


def _policy(**settings: object) -> GuardPolicy:
    return policy_of(Settings.model_validate(settings))


def _allowed(text: str, policy: GuardPolicy, name: str | None = None) -> bool:
    return targets.is_allowed(ipaddress.ip_address(text), policy, name)


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "1.1.1.1", "172.15.255.255", "172.32.0.0", "100.63.255.255", "2606:4700::1111", "64:ff9b::808:808"],
)
def test_a_public_address_is_public(address: str) -> None:
    assert targets.judge_address(ipaddress.ip_address(address)) is Verdict.PUBLIC


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.1",
        "100.64.0.1",
        "127.0.0.1",
        "127.255.255.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.8",
        "192.0.2.1",
        "192.31.196.1",
        "192.52.193.1",
        "192.88.99.1",
        "192.168.1.1",
        "192.175.48.1",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.1",
        "203.0.113.1",
        "240.0.0.1",
        "::1",
        "fc00::1",
        "fd12:3456::1",
        "fec0::1",
        "2001:db8::1",
        "2001:10::1",
        "3fff::1",
        "5f00::1",
        "100::1",
        "64:ff9b::10.0.0.1",
        "64:ff9b:1::10.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::127.0.0.1",
        "2002:0a00:0001::1",
        "2002:808:808::1",
        "2001:0:808:808::f5ff:fffe",
    ],
)
def test_an_inner_address_is_forbidden_but_may_be_allowed(address: str) -> None:
    assert targets.judge_address(ipaddress.ip_address(address)) is Verdict.FORBIDDEN
    assert not _allowed(address, STRICT)
    assert _allowed(address, PRIVATE)


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "169.254.0.1",
        "100.100.100.200",
        "168.63.129.16",
        "0.0.0.0",
        "0.1.2.3",
        "224.0.0.1",
        "239.255.255.250",
        "255.255.255.255",
        "::",
        "fe80::1",
        "ff02::1",
        "fd00:ec2::254",
        "::ffff:169.254.169.254",
        "::ffff:0.0.0.0",
        "::169.254.169.254",
        "64:ff9b::169.254.169.254",
        "64:ff9b:1::169.254.169.254",
        "64:ff9b:1:a9fe:a9:fe00::",
        "2002:a9fe:a9fe::1",
        "2001:0:808:808::5601:5601",
    ],
)
def test_a_metadata_or_link_local_address_stays_forbidden_under_every_allowance(address: str) -> None:
    listed = GuardPolicy(
        allow_private=True,
        networks=(ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")),
        names=frozenset({"metadata.internal"}),
    )

    assert targets.judge_address(ipaddress.ip_address(address)) is Verdict.ALWAYS_FORBIDDEN
    assert not _allowed(address, listed, "metadata.internal")


def test_an_address_with_a_zone_is_refused_even_where_private_ones_are_allowed() -> None:
    assert not targets.is_allowed(ipaddress.IPv6Address("fd12::1%eth0"), PRIVATE)


def test_a_listed_range_is_allowed_and_its_neighbour_is_not() -> None:
    policy = _policy(egress_allow="127.0.0.0/8, 10.2.0.0/16 ,fd12::/16")

    assert _allowed("127.0.0.1", policy)
    assert _allowed("::ffff:127.0.0.1", policy)
    assert _allowed("10.2.3.4", policy)
    assert _allowed("fd12::9", policy)
    assert not _allowed("10.3.0.1", policy)
    assert not _allowed("::1", policy)


def test_a_listed_name_may_resolve_to_a_private_address_and_no_other_name_may() -> None:
    policy = _policy(egress_allow="Mattermost.LAN")

    assert _allowed("192.168.1.5", policy, "mattermost.lan.")
    assert not _allowed("192.168.1.5", policy, "evil.mattermost.lan")
    assert not _allowed("192.168.1.5", policy)


@given(st.ip_addresses(v=4))
def test_hiding_an_address_in_ipv6_never_makes_it_more_welcome(inner: ipaddress.IPv4Address) -> None:
    value = int(inner)
    hidden = [
        ipaddress.IPv6Address(0xFFFF << 32 | value),
        ipaddress.IPv6Address(int(ipaddress.IPv6Address("64:ff9b::")) | value),
        ipaddress.IPv6Address(0x2002 << 112 | value << 80 | 1),
        ipaddress.IPv6Address(0x20010000 << 96 | 0x08080808 << 64 | (value ^ 0xFFFFFFFF)),
    ]

    for policy in (STRICT, PRIVATE):
        for address in hidden:
            assert targets.is_allowed(inner, policy) or not targets.is_allowed(address, policy)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/",
        "http://[::1]/",
        "http://localhost/",
        "http://LocalHost./x",
        "https://api.localhost:8080/",
        "http://localhost.localdomain/",
        "http://ip6-localhost/",
        "http://169.254.169.254/",
        "http://10.0.0.1/",
        "http://[::ffff:10.0.0.1]/",
        "http://[fd00:ec2::254]/",
    ],
)
def test_an_inner_target_is_refused_at_save(url: str) -> None:
    assert targets.check_at_save(url, STRICT) == "address is not allowed"


def test_private_targets_may_be_saved_where_allowed_but_metadata_never() -> None:
    assert targets.check_at_save("http://127.0.0.1:9/", PRIVATE) is None
    assert targets.check_at_save("http://localhost:9/", PRIVATE) is None
    assert targets.check_at_save("http://169.254.169.254/", PRIVATE) == "address is not allowed"


def test_a_listed_loopback_range_covers_its_name_at_save() -> None:
    policy = _policy(egress_allow="127.0.0.0/8")

    assert targets.check_at_save("http://127.0.0.1:9/", policy) is None
    assert targets.check_at_save("http://localhost:9/", policy) is None
    assert targets.check_at_save("http://10.0.0.1/", policy) == "address is not allowed"


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.slack.com/services/T0/B0/x",
        "http://example.com",
        "http://example.com.:8080/a?b=c#d",
        "HTTPS://Example.COM/",
        "https://bücher.example/",
        "https://my_host-1.example/",
        "https://8.8.8.8:8443/",
        "https://[2606:4700::1111]:443/",
        "https://3com.example.c3/",
    ],
)
def test_a_well_formed_public_url_passes(url: str) -> None:
    assert targets.check_at_save(url, STRICT) is None


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("", "must begin with http:// or https://"),
        ("ftp://example.com/", "must begin with http:// or https://"),
        ("file:///etc/passwd", "must begin with http:// or https://"),
        ("//example.com/", "must begin with http:// or https://"),
        ("http:/example.com/", "must begin with http:// or https://"),
        ("http://user@example.com/", "must not contain a user name or password"),
        ("http://user:pw@example.com/", "must not contain a user name or password"),
        ("http://8.8.8.8@127.0.0.1/", "must not contain a user name or password"),
        ("http:///path", "must have a host"),
        ("http://:80/", "must have a host"),
        ("http://[::1/", "must have a host"),
        ("http://example.com:0/", "must have a port from 1 to 65535"),
        ("http://example.com:65536/", "must have a port from 1 to 65535"),
        ("http://example.com:/", "must have a port from 1 to 65535"),
        ("http://example.com:80a/", "must have a host"),
        ("http://example.com:+80/", "must have a host"),
        ("http://exa mple.com/", "must not contain control characters, blanks or backslashes"),
        ("http://example.com/\n", "must not contain control characters, blanks or backslashes"),
        ("http://example.com\\@127.0.0.1/", "must not contain control characters, blanks or backslashes"),
        ("http://exam\u200bple.com/", "must not contain control characters, blanks or backslashes"),
        ("http://example.com/\ud800", "must not contain control characters, blanks or backslashes"),
        ("http://2130706433/", "must have a host that is a name or an address"),
        ("http://0x7f.1/", "must have a host that is a name or an address"),
        ("http://0x7f000001/", "must have a host that is a name or an address"),
        ("http://127.1/", "must have a host that is a name or an address"),
        ("http://127.0.0.1./", "must have a host that is a name or an address"),
        ("http://example.1/", "must have a host that is a name or an address"),
        ("http://example.0x/", "must have a host that is a name or an address"),
        ("http://%31%32%37.0.0.1/", "must have a host that is a name or an address"),
        ("http://[fe80::1%25eth0]/", "must have a host that is a name or an address"),
        ("http://a..b/", "must have a host that is a name or an address"),
        ("http://a,b/", "must have a host that is a name or an address"),
        ("http://0177.0.0.1/", "is not a URL"),
        ("http://256.1.1.1/", "is not a URL"),
        ("http://[127.0.0.1]/", "is not a URL"),
        ("http://\uff11\uff12\uff17.0.0.1/", "is not a URL"),
        ("http://\u24dbocalhost/", "is not a URL"),
        ("http://example.com/" + "a" * 2030, "must have at most 2048 characters"),
    ],
)
def test_an_ill_formed_url_is_refused_even_where_private_targets_are_allowed(url: str, fault: str) -> None:
    assert targets.check_url(url) == fault
    assert targets.check_at_save(url, PRIVATE) == fault


def test_a_scheme_that_the_type_does_not_take_is_refused() -> None:
    assert targets.check_at_save("http://example.com/", STRICT, schemes=("https",)) == "must begin with https://"


def test_a_url_is_taken_apart_as_it_will_be_used() -> None:
    target = targets.parse_url("HTTP://EXAMPLE.com:8080/a b".replace(" ", "%20") + "?q=1#frag")

    assert (target.scheme, target.host, target.port) == ("http", "example.com", 8080)
    assert target.raw_path == b"/a%20b?q=1"
    assert target.host_header == "example.com:8080"
    assert targets.parse_url("https://[2606:4700::1]:443/").host_header == "[2606:4700::1]"


@pytest.fixture
async def listener() -> AsyncIterator[tuple[int, list[str]]]:
    """A port on the loopback, and whoever connected to it."""
    visitors: list[str] = []

    def welcome(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visitors.append(writer.get_extra_info("sockname")[0])
        writer.close()

    server = await asyncio.start_server(welcome, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], visitors


async def test_a_name_with_a_single_forbidden_record_is_not_connected_to(listener: tuple[int, list[str]]) -> None:
    port, visitors = listener
    resolver = ScriptedResolver({"mixed.example": [["8.8.8.8", "127.0.0.1"]]})
    backend = GuardedBackend(STRICT, resolver)

    with pytest.raises(AddressRefused, match=r"^address is not allowed$"):
        await backend.connect_tcp("mixed.example", port, timeout=5)

    assert visitors == []


async def test_a_connection_asks_for_the_name_once_and_goes_where_the_answer_said(
    listener: tuple[int, list[str]],
) -> None:
    port, _ = listener
    resolver = ScriptedResolver({"inner.example": [["127.0.0.1"], ["127.0.0.99"]]})
    backend = GuardedBackend(PRIVATE, resolver)

    stream = await backend.connect_tcp("inner.example", port, timeout=5)
    address = stream.get_extra_info("server_addr")
    await stream.aclose()

    assert address == ("127.0.0.1", port)
    assert resolver.asked == ["inner.example"]


async def test_a_name_that_turns_to_the_loopback_at_the_second_question_is_refused_then(
    listener: tuple[int, list[str]],
) -> None:
    port, visitors = listener
    # 127.0.0.9 stands for the public address: allowed here, and nothing listens there.
    resolver = ScriptedResolver({"rebind.example": [["127.0.0.9"], ["127.0.0.1"]]})
    backend = GuardedBackend(_policy(egress_allow="127.0.0.9/32"), resolver)

    with pytest.raises(httpcore2.ConnectError):
        await backend.connect_tcp("rebind.example", port, timeout=5)
    with pytest.raises(AddressRefused):
        await backend.connect_tcp("rebind.example", port, timeout=5)

    assert visitors == []
    assert resolver.asked == ["rebind.example", "rebind.example"]


async def test_a_second_address_is_tried_when_the_first_refuses(listener: tuple[int, list[str]]) -> None:
    port, _ = listener
    backend = GuardedBackend(PRIVATE, ScriptedResolver({"two.example": [["127.0.0.9", "127.0.0.1"]]}))

    stream = await backend.connect_tcp("two.example", port, timeout=5)
    address = stream.get_extra_info("server_addr")
    await stream.aclose()

    assert address == ("127.0.0.1", port)


async def test_a_literal_address_is_judged_without_a_question() -> None:
    resolver = ScriptedResolver({})
    backend = GuardedBackend(STRICT, resolver)

    for host in ("127.0.0.1", "::1", "169.254.169.254", "fe80::1%1"):
        with pytest.raises(AddressRefused):
            await backend.connect_tcp(host, 80, timeout=5)

    assert resolver.asked == []


async def test_a_numeric_host_that_the_system_reads_as_the_loopback_is_refused() -> None:
    backend = GuardedBackend(STRICT)

    with pytest.raises((AddressRefused, httpcore2.ConnectError)):
        await backend.connect_tcp("2130706433", 80, timeout=5)


async def test_the_system_resolver_finds_the_loopback() -> None:
    assert "127.0.0.1" in await guard.SystemResolver().resolve("localhost", 80)


async def test_a_name_without_an_answer_is_a_failed_connection() -> None:
    backend = GuardedBackend(STRICT, ScriptedResolver({"empty.example": [[]]}))

    for host in ("nowhere.example", "empty.example"):
        with pytest.raises(httpcore2.ConnectError):
            await backend.connect_tcp(host, 80, timeout=5)
