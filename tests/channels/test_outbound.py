import asyncio
import logging
import resource
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from lifesign import __version__
from lifesign.channels.outbound import (
    CaFileUnusable,
    OutboundClient,
    clean_text,
    judge_common,
    retry_after_ms,
)
from lifesign.channels.sender import HttpReply, HttpRequest, Permanent, Retry, Unknown
from lifesign.clock import EpochMs
from lifesign.settings import Settings
from tests.peers.names import ScriptedResolver
from tests.peers.process import LedgerPeer, ledger_peer

SENT_BODY = b'{"text":"hello"}'
NOW = EpochMs(1_772_953_260_000)  # 2026-03-08T07:01:00Z


@pytest.fixture(scope="module")
def running_peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LedgerPeer]:
    with ledger_peer(tmp_path_factory.mktemp("ledger"), tls=True) as peer:
        yield peer


@pytest.fixture
def peer(running_peer: LedgerPeer) -> LedgerPeer:
    running_peer.clear()
    running_peer.script("ops")
    return running_peer


@pytest.fixture
async def client() -> AsyncIterator[OutboundClient]:
    outbound = _client(allow_private_targets=True)
    yield outbound
    await outbound.aclose()


def _client(*, total_s: float = 20, resolver: ScriptedResolver | None = None, **settings: object) -> OutboundClient:
    return OutboundClient(Settings.model_validate(settings), resolver=resolver, total_timeout_s=total_s)


def _request(url: str, headers: dict[str, str] | None = None, body: bytes = SENT_BODY) -> HttpRequest:
    return HttpRequest(url, {"Content-Type": "application/json"} | (headers or {}), body)


async def test_a_request_arrives_as_it_was_given(peer: LedgerPeer, client: OutboundClient) -> None:
    reply = await client.post(_request(f"{peer.url}/hook/ops?a=b%20c", {"X-Team": "ops", "X-Name": " Zoë "}))

    assert reply == HttpReply(200, {"content-type": "application/json", "content-length": "2"}, b"{}")
    (record,) = peer.requests()
    assert (record.method, record.path, record.query, record.content) == ("POST", "/hook/ops", {"a": "b c"}, SENT_BODY)
    assert record.headers == {
        "host": f"127.0.0.1:{peer.port}",
        "content-type": "application/json",
        "x-team": "ops",
        "x-name": "Zoë".encode().decode("latin-1"),
        "user-agent": f"Lifesign/{__version__}",
        "accept": "*/*",
        "content-length": "16",
    }


async def test_a_name_is_asked_of_the_resolver_and_stays_in_the_host_header(peer: LedgerPeer) -> None:
    client = _client(resolver=ScriptedResolver({"hooks.example": [["127.0.0.1"]]}), allow_private_targets=True)

    reply = await client.post(_request(f"http://Hooks.Example:{peer.port}/hook/ops"))
    await client.aclose()

    assert isinstance(reply, HttpReply)
    assert peer.requests()[0].headers["host"] == f"hooks.example:{peer.port}"


async def test_loopback_is_refused_without_an_allowance_and_no_connection_is_made(peer: LedgerPeer) -> None:
    client = _client()

    for url in (f"{peer.url}/hook/ops", f"http://2130706433:{peer.port}/hook/ops"):
        outcome = await client.post(_request(url))
        assert outcome == Permanent("address is not allowed", "blocked_address", disable=True)
    await client.aclose()

    assert peer.requests() == []


async def test_a_refusal_says_the_same_whether_or_not_somebody_listens(peer: LedgerPeer, closed_port: int) -> None:
    client = _client()

    open_one = await client.post(_request(f"{peer.url}/hook/ops"))
    closed_one = await client.post(_request(f"http://127.0.0.1:{closed_port}/hook/ops"))
    await client.aclose()

    assert open_one == closed_one == Permanent("address is not allowed", "blocked_address", disable=True)


async def test_metadata_addresses_are_refused_where_private_targets_are_allowed(client: OutboundClient) -> None:
    outcome = await client.post(_request("http://169.254.169.254/latest/meta-data/"))

    assert outcome == Permanent("address is not allowed", "blocked_address", disable=True)


async def test_a_listed_range_is_delivered_to_and_its_neighbour_is_not(peer: LedgerPeer) -> None:
    client = _client(egress_allow="127.0.0.0/8")

    inside = await client.post(_request(f"{peer.url}/hook/ops"))
    outside = await client.post(_request("http://10.0.0.1/"))
    await client.aclose()

    assert isinstance(inside, HttpReply)
    assert outside == Permanent("address is not allowed", "blocked_address", disable=True)


async def test_a_name_that_turns_to_the_loopback_never_reaches_it(peer: LedgerPeer) -> None:
    # 127.0.0.9 stands for the public address: it is allowed, and nothing listens there.
    resolver = ScriptedResolver({"rebind.example": [["127.0.0.9"], ["127.0.0.1"]]})
    client = _client(resolver=resolver, egress_allow="127.0.0.9/32")

    first = await client.post(_request(f"http://rebind.example:{peer.port}/hook/ops"))
    second = await client.post(_request(f"http://rebind.example:{peer.port}/hook/ops"))
    await client.aclose()

    assert first == Retry("connection refused", "connect")
    assert second == Permanent("address is not allowed", "blocked_address", disable=True)
    assert peer.requests() == []


async def test_an_address_of_the_operator_is_not_guarded(peer: LedgerPeer) -> None:
    client = _client()

    reply = await client.post(_request(f"{peer.url}/hook/ops"), guarded=False)
    await client.aclose()

    assert isinstance(reply, HttpReply)


async def test_an_address_of_the_operator_that_is_no_url_is_permanent(client: OutboundClient) -> None:
    outcome = await client.post(_request("events.pagerduty.com/v2/enqueue"), guarded=False)

    assert outcome == Permanent("the address set by the operator is not a URL", "bad_address")


async def test_connections_are_kept_for_the_next_request(peer: LedgerPeer, client: OutboundClient) -> None:
    resolver = ScriptedResolver({"kept.example": [["127.0.0.1"]]})
    client = _client(resolver=resolver, allow_private_targets=True)

    for _ in range(3):
        await client.post(_request(f"http://kept.example:{peer.port}/hook/ops"))
    await client.aclose()

    assert resolver.asked == ["kept.example"]
    assert len(peer.requests()) == 3


async def test_a_redirect_is_not_followed(peer: LedgerPeer, client: OutboundClient) -> None:
    peer.script("ops", {"status": 302, "headers": {"Location": f"{peer.url}/hook/other"}})

    reply = await client.post(_request(f"{peer.url}/hook/ops"))

    assert isinstance(reply, HttpReply)
    assert judge_common(reply, NOW) == Permanent("redirect is not followed", "302", http_status=302)
    assert [record.path for record in peer.requests()] == ["/hook/ops"]


async def test_a_proxy_of_the_environment_is_not_used(
    peer: LedgerPeer, client: OutboundClient, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{closed_port}")
    monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{closed_port}")

    assert isinstance(await client.post(_request(f"{peer.url}/hook/ops")), HttpReply)


async def test_a_refused_connection_and_an_unknown_name_are_retried(client: OutboundClient, closed_port: int) -> None:
    nowhere = _client(resolver=ScriptedResolver({}), allow_private_targets=True)

    refused = await client.post(_request(f"http://127.0.0.1:{closed_port}/hook/ops"))
    unguarded = await client.post(_request(f"http://127.0.0.1:{closed_port}/hook/ops"), guarded=False)
    unknown = await nowhere.post(_request("http://nowhere.example/hook/ops"))
    await nowhere.aclose()

    assert refused == unguarded == Retry("connection refused", "connect")
    assert unknown == Retry("host not reachable", "connect")


async def test_the_moment_of_writing_is_announced_once_and_before_the_first_byte(
    peer: LedgerPeer, client: OutboundClient
) -> None:
    seen: list[int] = []

    async def note() -> None:
        seen.append(len(await asyncio.to_thread(peer.requests)))

    for _ in range(2):
        await client.post(_request(f"{peer.url}/hook/ops"), on_write=note)

    assert seen == [0, 1]


async def test_nothing_is_announced_when_there_is_no_connection(client: OutboundClient, closed_port: int) -> None:
    seen: list[str] = []

    async def note() -> None:
        seen.append("written")

    await client.post(_request(f"http://127.0.0.1:{closed_port}/hook/ops"), on_write=note)
    await client.post(_request("http://169.254.169.254/"), on_write=note)

    assert seen == []


@pytest.mark.parametrize("fault", [TimeoutError("lock"), OSError("disk full"), RuntimeError("lease lost")])
async def test_a_fault_of_the_announcement_is_passed_on_and_nothing_is_sent(
    peer: LedgerPeer, client: OutboundClient, fault: Exception
) -> None:
    async def fail() -> None:
        raise fault

    with pytest.raises(type(fault)) as raised:
        await client.post(_request(f"{peer.url}/hook/ops"), on_write=fail)

    assert raised.value is fault
    assert peer.requests() == []


async def test_an_announcement_that_hangs_is_ended_by_the_total_time(peer: LedgerPeer) -> None:
    client = _client(total_s=0.2, allow_private_targets=True)

    outcome = await client.post(_request(f"{peer.url}/hook/ops"), on_write=asyncio.Event().wait)  # type: ignore[arg-type]  # its True is of no use
    await client.aclose()

    assert outcome == Retry("timed out while sending", "write")
    assert peer.requests() == []


@pytest.mark.parametrize("fault", [{"close": "after_read"}, {"reset": True}])
async def test_a_connection_lost_after_the_request_was_written_is_unknown(
    peer: LedgerPeer, client: OutboundClient, fault: dict[str, object]
) -> None:
    peer.script("ops", fault)

    outcome = await client.post(_request(f"{peer.url}/hook/ops"))

    assert outcome == Unknown("connection lost before the answer")
    assert len(peer.requests()) == 1


async def test_a_connection_lost_while_writing_is_retried(peer: LedgerPeer, client: OutboundClient) -> None:
    peer.script("ops", {"close": "before_read"})

    # Far more than the buffers of both ends hold, so the last byte cannot have left when the connection breaks.
    outcome = await client.post(_request(f"{peer.url}/hook/ops", body=b"x" * 50_000_000))

    assert outcome == Retry("connection lost while sending", "write")
    assert peer.requests() == []


async def test_a_peer_that_does_not_answer_in_time_leaves_the_outcome_unknown(peer: LedgerPeer) -> None:
    peer.script("ops", {"stall": 30})
    client = _client(total_s=0.3, allow_private_targets=True)

    outcome = await client.post(_request(f"{peer.url}/hook/ops"))
    await client.aclose()

    assert outcome == Unknown("no answer in time")
    assert len(peer.requests()) == 1


async def test_a_head_that_drips_beyond_the_time_is_unknown(peer: LedgerPeer) -> None:
    peer.script("ops", {"drip": 1})
    client = _client(total_s=0.3, allow_private_targets=True)

    outcome = await client.post(_request(f"{peer.url}/hook/ops"))
    await client.aclose()

    assert outcome == Unknown("no answer in time")


async def test_a_body_that_drips_beyond_the_time_is_judged_by_its_status(peer: LedgerPeer) -> None:
    peer.script("ops", {"drip": 30, "from": "body", "status": 503, "body": "busy"})
    client = _client(total_s=0.5, allow_private_targets=True)

    reply = await client.post(_request(f"{peer.url}/hook/ops"))
    await client.aclose()

    assert isinstance(reply, HttpReply)
    assert (reply.status, reply.body) == (503, b"b")


async def test_a_body_that_is_cut_is_judged_by_its_status(peer: LedgerPeer, client: OutboundClient) -> None:
    peer.script("ops", {"close": "mid_body", "status": 202, "body": "0123456789"})

    reply = await client.post(_request(f"{peer.url}/hook/ops"))

    assert isinstance(reply, HttpReply)
    assert (reply.status, reply.body) == (202, b"01234")


async def test_an_endless_body_is_read_to_64_kib_and_memory_stays_flat(
    peer: LedgerPeer, client: OutboundClient
) -> None:
    peer.script("ops", {"bytes": 10_000_000, "times": 9})
    await client.post(_request(f"{peer.url}/hook/ops"))
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    replies = [await client.post(_request(f"{peer.url}/hook/ops")) for _ in range(8)]

    assert [(reply.status, len(reply.body)) for reply in replies if isinstance(reply, HttpReply)] == [(200, 65536)] * 8
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 5_000


async def test_the_connection_is_closed_once_64_kib_were_read(client: OutboundClient) -> None:
    hung_up = asyncio.Event()

    async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(SENT_BODY)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n" + b"x" * 65_536)
        await reader.read()  # until the client hangs up; the rest of the body never comes
        hung_up.set()
        writer.close()

    server = await asyncio.start_server(stream, "127.0.0.1", 0)
    async with server, asyncio.timeout(10):
        reply = await client.post(_request(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"))
        await hung_up.wait()

    assert isinstance(reply, HttpReply)
    assert (reply.status, len(reply.body)) == (200, 65_536)


async def test_the_connection_after_a_cut_body_is_a_new_one(peer: LedgerPeer, client: OutboundClient) -> None:
    peer.script("ops", {"bytes": 1_000_000}, {"body": "fresh"})
    await client.post(_request(f"{peer.url}/hook/ops"))

    reply = await client.post(_request(f"{peer.url}/hook/ops"))

    assert isinstance(reply, HttpReply)
    assert reply.body == b"fresh"


async def test_an_answer_that_is_no_http_is_unknown(client: OutboundClient) -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n" + SENT_BODY)
        writer.write(b"220 smtp.example ESMTP\r\n")
        writer.close()

    server = await asyncio.start_server(babble, "127.0.0.1", 0)
    async with server:
        outcome = await client.post(_request(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"))

    assert outcome == Unknown("connection lost before the answer")


async def test_a_header_that_cannot_be_written_is_permanent(peer: LedgerPeer, client: OutboundClient) -> None:
    outcome = await client.post(_request(f"{peer.url}/hook/ops", {"X-Team": "a\r\nX-Evil: b"}))

    assert outcome == Permanent("the request has a header that cannot be sent", "bad_request")
    assert peer.requests() == []


async def test_a_certificate_under_the_given_root_is_trusted(peer: LedgerPeer) -> None:
    client = _client(ca_file=peer.ca_file, allow_private_targets=True)

    reply = await client.post(_request(f"{peer.tls_url}/hook/ops"))
    await client.aclose()

    assert isinstance(reply, HttpReply)
    assert len(peer.requests()) == 1


async def test_a_certificate_under_another_root_is_refused(peer: LedgerPeer, client: OutboundClient) -> None:
    trusting = _client(ca_file=peer.ca_file, allow_private_targets=True)
    peer.script("ops", {"tls": "bad_cert"})

    bad = await trusting.post(_request(f"{peer.tls_url}/hook/ops"))
    unknown_root = await client.post(_request(f"{peer.tls_url}/hook/ops"))
    await trusting.aclose()

    assert bad == unknown_root == Retry("the certificate is not trusted", "tls")
    assert peer.requests() == []


async def test_a_certificate_for_another_name_is_refused(peer: LedgerPeer) -> None:
    resolver = ScriptedResolver({"other.example": [["127.0.0.1"]]})
    client = _client(resolver=resolver, ca_file=peer.ca_file, allow_private_targets=True)

    outcome = await client.post(_request(f"https://other.example:{peer.tls_port}/hook/ops"))
    await client.aclose()

    assert outcome == Retry("the certificate is not trusted", "tls")


async def test_a_port_that_speaks_no_tls_is_a_fault_of_tls(peer: LedgerPeer, client: OutboundClient) -> None:
    outcome = await client.post(_request(f"https://127.0.0.1:{peer.port}/hook/ops"))

    assert outcome == Retry("TLS failed", "tls")


def test_a_ca_file_that_is_none_stops_the_start(tmp_path: Path) -> None:
    empty = tmp_path / "ca.pem"
    empty.write_text("no certificate")

    for path in (empty, tmp_path / "absent.pem"):
        with pytest.raises(CaFileUnusable, match="LIFESIGN_CA_FILE"):
            _client(ca_file=path)


async def test_no_outcome_and_no_log_line_holds_the_address(
    peer: LedgerPeer, closed_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    token = "T0KEN-in-the-path"
    peer.script(token, {"close": "after_read"}, {"stall": 30})
    client = _client(total_s=0.3, resolver=ScriptedResolver({}), allow_private_targets=True)

    outcomes = [
        await client.post(_request(url, {"Authorization": "Bearer S3CRET"}))
        for url in (
            f"{peer.url}/hook/{token}",
            f"{peer.url}/hook/{token}",
            f"http://127.0.0.1:{closed_port}/{token}",
            f"http://nowhere.example/{token}",
            f"https://127.0.0.1:{peer.port}/{token}",
            f"http://169.254.169.254/{token}",
        )
    ]
    await client.aclose()

    assert not any(isinstance(outcome, HttpReply) for outcome in outcomes)
    told = repr(outcomes) + caplog.text
    assert token not in told
    assert "S3CRET" not in told


@pytest.mark.parametrize(
    ("status", "retry_after", "outcome"),
    [
        (429, None, Retry("busy", "429", 30_000, 429)),
        (429, "7", Retry("busy", "429", 7_000, 429)),
        (429, "soon", Retry("busy", "429", 30_000, 429)),
        (429, "0", Retry("busy", "429", 0, 429)),
        (429, "Sun, 08 Mar 2026 07:01:30 GMT", Retry("busy", "429", 30_000, 429)),
        (429, "Sun, 08 Mar 2026 07:00:00 GMT", Retry("busy", "429", 0, 429)),
        (408, None, Retry("busy", "408", None, 408)),
        (425, "9", Retry("busy", "425", 9_000, 425)),
        (500, None, Retry("busy", "500", None, 500)),
        (503, "120", Retry("busy", "503", 120_000, 503)),
        (599, "-5", Retry("busy", "599", None, 599)),
        (301, None, Permanent("redirect is not followed", "301", http_status=301)),
        (304, None, Permanent("redirect is not followed", "304", http_status=304)),
        (200, None, None),
        (204, None, None),
        (400, None, None),
        (404, None, None),
        (410, None, None),
    ],
)
def test_common_statuses_are_judged_by_the_common_table(
    status: int, retry_after: str | None, outcome: Retry | Permanent | None
) -> None:
    headers = {} if retry_after is None else {"retry-after": retry_after}

    assert judge_common(HttpReply(status, headers, b"busy"), NOW) == outcome


def test_a_silent_failure_is_told_by_its_status() -> None:
    assert judge_common(HttpReply(502, {}, b""), NOW) == Retry("answered with status 502", "502", None, 502)


@pytest.mark.parametrize("text", ["", "1.5", "7s", "99999999999", "Sun, 99 Mar 2026 07:01:30 GMT", "\u0667"])
def test_an_unreadable_delay_is_none(text: str) -> None:
    assert retry_after_ms(text, NOW) is None


@pytest.mark.parametrize(
    ("answer", "cleaned"),
    [
        (b"no_service", "no_service"),
        (b"", ""),
        (b"a\r\n\tb\x00\x1b[31mc\x7f", "a b[31mc"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        ("a\u202eb\u2028c", "ab c"),
        ("x" * 600, "x" * 500),
        ("see https://hooks.slack.com/services/T0/B0/xyz?a=b now", "see https://hooks.slack.com/... now"),
        ('{"u":"https:\\/\\/h.example\\/s3cret"}', '{"u":"https://h.example/..."}'),
        ("at https://user:pw@h.example:8/x", "at https://h.example:8/..."),
        ("h.example?token=s3cret", "h.example/..."),
        ("hooks.slack.com/services/T0: gone", "hooks.slack.com/... gone"),
        ("//h.example/s3cret", "//h.example/..."),
        ("The URL /services/T0/B0 was not found", "The URL /... was not found"),
        ("<p>Not <b>found</b> (text/html)</p>", "<p>Not <b>found</b> (text/html)</p>"),
        ("path:/s3cret,x", "path:/..."),
    ],
)
def test_an_answer_is_cleaned_before_it_is_kept(answer: bytes | str, cleaned: str) -> None:
    assert clean_text(answer) == cleaned


def test_a_huge_hostile_answer_is_cleaned_at_once() -> None:
    assert len(clean_text("a." * 1_000_000)) == 500
    assert len(clean_text(b"http://" * 1_000_000)) <= 500
