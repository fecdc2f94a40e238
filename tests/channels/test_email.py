import asyncio
import email.policy
import re
import time
from collections.abc import Iterator
from email import message_from_bytes
from email.message import EmailMessage
from typing import Any

import aiosmtplib.email
import pytest
import uvloop
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import SecretStr

from lifesign.channels.email import EmailSender, Lost, Reply, build, judge, may_log_in
from lifesign.channels.mailbox import can_carry
from lifesign.channels.message import Message
from lifesign.channels.sender import Outcome, Permanent, Retry, Sent, Unknown
from lifesign.clock import EpochMs
from lifesign.settings import Settings
from tests.channels.samples import DEADLINE, INCIDENT, NOTIFICATION, context, message, probe
from tests.peers.smtp import SmtpPeer, smtp_peer

LOCAL_PARTS = st.text(
    alphabet=st.one_of(
        st.sampled_from("ab.=?_-+'é"),
        st.characters(exclude_categories=["Cs", "Cc", "Z"], exclude_characters='@<>()[]:;,"\\'),
    ),
    min_size=1,
    max_size=20,
)
DOMAINS = st.lists(st.text(alphabet="ab1é-", min_size=1, max_size=12), min_size=1, max_size=4).map(".".join)


def offline_settings(**changes: Any) -> Settings:  # Any: fields of Settings
    return Settings(**({"smtp_host": "127.0.0.1", "smtp_from": "lifesign@example.net"} | changes))


def peer_settings(peer: SmtpPeer, **changes: Any) -> Settings:  # Any: fields of Settings
    fields: dict[str, Any] = {
        "smtp_port": peer.port,
        "smtp_username": "lifesign",
        "smtp_password": SecretStr("correct horse"),
        "ca_file": peer.ca_file,
    }
    return offline_settings(**(fields | changes))


def read(content: bytes) -> EmailMessage:
    parsed = message_from_bytes(content, policy=email.policy.default)
    assert isinstance(parsed, EmailMessage)
    return parsed


def part(mail: EmailMessage, subtype: str) -> str:
    body = mail.get_body(preferencelist=(subtype,))
    assert body is not None
    content = body.get_content()
    assert isinstance(content, str)
    return content.replace("\r\n", "\n")


def built(told: Message, **changes: Any) -> EmailMessage:  # Any: fields of SendContext
    return read(build(told, {}, context(offline_settings(), **changes)).content)


@pytest.fixture
def peer() -> Iterator[SmtpPeer]:
    with smtp_peer() as running:
        yield running


async def send(peer: SmtpPeer, told: Message | None = None, **changes: Any) -> Outcome:  # Any: fields of SendContext
    settings = changes.pop("settings", None) or peer_settings(peer)
    return await EmailSender().send(told or message(), {}, context(settings, **changes))


# The mail itself


def test_a_first_page_has_the_headers_of_the_specification_and_no_others() -> None:
    mail = built(message())

    assert {name: str(value) for name, value in mail.items()} == {
        "From": "lifesign@example.net",
        "To": "ops@example.com",
        "Subject": "DOWN: Nightly Export",
        "Date": "Sun, 08 Mar 2026 07:01:00 +0000",
        "Message-ID": f"<{NOTIFICATION}@example.net>",
        "References": f"<{INCIDENT}@example.net>",
        "X-Lifesign-Incident": INCIDENT,
        "Auto-Submitted": "auto-generated",
        "X-Lifesign-Kind": "page",
        "MIME-Version": "1.0",
        "Content-Type": f'multipart/alternative; boundary="=_{NOTIFICATION}"',
    }


def test_later_mails_of_an_incident_answer_its_thread() -> None:
    for told in (message(is_first=False, repeat=1), message(kind="resolve")):
        mail = built(told)

        assert mail["In-Reply-To"] == f"<{INCIDENT}@example.net>"
        assert mail["References"] == f"<{INCIDENT}@example.net>"


def test_a_thread_id_with_a_long_domain_stays_in_one_piece() -> None:
    settings = offline_settings(smtp_from="Lifesign <watch@monitoring.a-department.of-something.example.com>")

    content = build(message(is_first=False), {}, context(settings)).content

    thread = f"<{INCIDENT}@monitoring.a-department.of-something.example.com>".encode()
    assert re.search(rb"\r\nReferences:\s+" + re.escape(thread) + rb"\r\n", content)
    assert re.search(rb"\r\nIn-Reply-To:\s+" + re.escape(thread) + rb"\r\n", content)


def test_the_plain_part_tells_the_deadline_in_the_zone_of_the_heartbeat_and_in_utc() -> None:
    assert part(built(message()), "plain").splitlines() == [
        "Nightly Export missed its check-in",
        "",
        "Heartbeat: Nightly Export (nightly-export)",
        "Project: default",
        "Reason: missed",
        "Deadline: 2026-03-08 03:00:00 EDT (America/New_York), 2026-03-08 07:00:00 UTC",
        "Opened: 2026-03-08 03:01:00 EDT (America/New_York), 2026-03-08 07:01:00 UTC",
        "Step: 1 of 3",
        "Acknowledge: https://lifesign.test/a/token",
        "Details: https://lifesign.test/incidents/1",
    ]


def test_a_recovery_offers_nothing_to_acknowledge() -> None:
    mail = built(message(kind="resolve"))

    assert "Acknowledge" not in part(mail, "plain")
    assert "Acknowledge" not in part(mail, "html")


def test_the_html_part_escapes_what_users_wrote_and_loads_nothing() -> None:
    html = part(built(message(title="DOWN: <b>x</b>", text='<script>alert("1")</script>\nsecond line')), "html")

    assert "&lt;script&gt;alert(&#34;1&#34;)&lt;/script&gt;<br>second line" in html
    assert "<script" not in html
    assert "DOWN: &lt;b&gt;x&lt;/b&gt;" in html
    assert not re.search(r"<img|<link|src=|url\(|@import", html)
    assert set(re.findall(r'href="([^"]*)"', html)) == {
        "https://lifesign.test/a/token",
        "https://lifesign.test/incidents/1",
    }


def test_a_step_message_that_looks_like_a_template_is_sent_as_written() -> None:
    mail = built(message(text="{{7*7}} {% if"))

    assert part(mail, "plain").startswith("{{7*7}} {% if\n")
    assert "{{7*7}} {% if" in part(mail, "html")


def test_a_test_message_without_heartbeat_and_incident_can_be_built() -> None:
    mail = built(probe())

    assert mail["Subject"] == "Test message from Lifesign"
    assert mail["References"] is None
    assert part(mail, "plain") == "It works.\n\nProject: default\n"


def test_line_breaks_in_a_title_or_text_make_no_header() -> None:
    mail = built(message(title="DOWN: x\r\nBcc: thief@example.org", text="x\r\n\r\nBcc: thief@example.org\r\n"))

    assert mail["Bcc"] is None
    assert mail["Subject"] == "DOWN: x Bcc: thief@example.org"


def test_a_long_title_is_cut_to_200_characters() -> None:
    assert built(message(title="x" * 300))["Subject"] == "x" * 200


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=250), st.text(max_size=60))
def test_any_title_makes_one_subject_and_no_other_header(title: str, text: str) -> None:
    text = text.encode("utf-8", "replace").decode()

    content = build(message(title=title, text=text), {}, context(offline_settings())).content

    head, _, _ = content.partition(b"\r\n\r\n")
    names = [line.partition(b":")[0] for line in head.split(b"\r\n") if line[:1] not in (b" ", b"\t")]
    assert names == [b"From", b"To", b"Subject", b"Date", b"Message-ID", b"References", b"X-Lifesign-Incident",
                     b"Auto-Submitted", b"X-Lifesign-Kind", b"MIME-Version", b"Content-Type"]  # fmt: skip
    assert content.isascii()
    assert max(map(len, content.split(b"\r\n"))) <= 998
    assert b"\r" not in content.replace(b"\r\n", b"")
    assert b"\n" not in content.replace(b"\r\n", b"")


def test_a_title_beyond_ascii_arrives_as_it_was() -> None:
    title = "DOWN: Größe der 日本語 Datenbank, \N{SLEEPING SYMBOL}  zwei Leerzeichen"

    assert built(message(title=title))["Subject"] == title


def test_an_address_with_a_domain_beyond_ascii_is_sent_as_idna() -> None:
    mail = build(message(), {}, context(offline_settings(), dest="ops@bücher.example"))

    assert (mail.recipient, mail.needs_utf8) == ("ops@xn--bcher-kva.example", False)


# What a reply means


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        (Reply("final_dot", 250, "queued as 17"), Sent("queued as 17")),
        (Reply("connect", 421, "busy"), Retry("421 busy", "421")),
        (Reply("connect", 554, "no service"), Retry("554 no service", "554")),
        (Reply("starttls", 454, "not now"), Retry("454 not now", "454")),
        (Reply("auth", 535, "bad password"), Retry("535 bad password", "auth", 900_000)),
        (Reply("auth", 504, "no such way"), Retry("504 no such way", "auth", 900_000)),
        (Reply("mail", 530, "log in first"), Retry("530 log in first", "auth", 900_000)),
        (Reply("mail", 550, "not you"), Permanent("550 not you", "550")),
        (Reply("rcpt", 451, "greylisted"), Retry("451 greylisted", "451")),
        (Reply("rcpt", 550, "no such user"), Permanent("550 no such user", "550", disable=True)),
        (Reply("rcpt", 501, "syntax"), Permanent("501 syntax", "501")),
        (Reply("data", 554, "no recipients"), Permanent("554 no recipients", "554")),
        (Reply("data", 250, "what?"), Retry("unexpected reply to DATA: 250 what?", "bad_reply")),
        (Reply("final_dot", 552, "too large"), Permanent("552 too large", "552")),
        (Reply("final_dot", 451, "disk full"), Retry("451 disk full", "451")),
        (Reply("final_dot", -1, "HTTP/1.1"), Unknown("after the message: unreadable reply")),
        (Lost("final_dot", "cut"), Unknown("no reply after the message: cut")),
        (Lost("data", "cut"), Retry("no reply to DATA: cut", "write")),
        (Lost("connect", "refused"), Retry("no connection to the SMTP server: refused", "connect")),
        (Lost("connect", "bad", is_tls=True), Retry("TLS with the SMTP server failed: bad", "tls")),
    ],
)
def test_each_reply_has_its_outcome(reply: Reply | Lost, outcome: Outcome) -> None:
    assert judge(reply) == outcome


@pytest.mark.parametrize(
    ("address", "is_tls", "allowed"),
    [
        ("127.0.0.1", False, True),
        ("::1", False, True),
        ("192.0.2.1", False, False),
        ("10.0.0.1", False, False),
        ("192.0.2.1", True, True),
    ],
)
def test_credentials_travel_without_tls_only_inside_this_machine(address: str, is_tls: bool, allowed: bool) -> None:
    assert may_log_in(address, is_tls=is_tls) is allowed


# Against a real server


async def test_a_page_arrives_over_tls_after_a_login(peer: SmtpPeer) -> None:
    outcome = await send(peer)

    assert outcome == Sent("queued as 0001")
    assert peer.envelopes() == [
        {
            "mailFrom": "lifesign@example.net",
            "mailOptions": [],
            "rcptTo": ["ops@example.com"],
            "tls": True,
            "login": "lifesign",
        }
    ]
    assert read(peer.mails()[0])["Message-ID"] == f"<{NOTIFICATION}@example.net>"


def test_a_page_arrives_under_uvloop_too(peer: SmtpPeer) -> None:
    assert uvloop.run(send(peer)) == Sent("queued as 0001")


async def test_a_text_of_dots_arrives_as_it_was(peer: SmtpPeer) -> None:
    text = ".\n..\n.hidden\n.\r\n.\n" + "." * 200 + "\nend"

    assert await send(peer, message(text=text)) == Sent("queued as 0001")

    assert part(read(peer.mails()[0]), "plain").startswith(text.replace("\r\n", "\n") + "\n\nHeartbeat:")


async def test_called_at_is_committed_before_the_message_is_written(peer: SmtpPeer) -> None:
    seen: list[list[str]] = []

    async def mark_called() -> None:
        seen.append(peer.commands())

    await send(peer, mark_called=mark_called)

    assert seen == [["AUTH", "MAIL lifesign@example.net", "RCPT ops@example.com"]]
    assert peer.commands()[len(seen[0])] == "DATA begins"


async def test_a_failed_commit_of_called_at_sends_nothing(peer: SmtpPeer) -> None:
    async def mark_called() -> None:
        raise RuntimeError("lease lost")

    with pytest.raises(RuntimeError, match="lease lost"):
        await send(peer, mark_called=mark_called)

    assert peer.mails() == []


async def test_of_two_addresses_only_the_refused_one_is_dead(peer: SmtpPeer) -> None:
    peer.script(**{"gone@example.com": [{"rcpt": 550}]})

    outcomes = [await send(peer, dest="gone@example.com"), await send(peer, dest="here@example.com")]

    assert outcomes == [Permanent("550 refused by script", "550", disable=True), Sent("queued as 0001")]
    assert [envelope["rcptTo"] for envelope in peer.envelopes()] == [["here@example.com"]]


async def test_a_mail_greylisted_once_arrives_once_at_the_second_try(peer: SmtpPeer) -> None:
    peer.script(**{"ops@example.com": [{"rcpt": 451}]})

    outcomes = [await send(peer), await send(peer, attempt=2)]

    assert outcomes == [Retry("451 refused by script", "451"), Sent("queued as 0001")]
    assert len(peer.mails()) == 1


async def test_a_connection_lost_after_the_final_dot_is_unknown_and_the_repeat_is_the_same_mail(peer: SmtpPeer) -> None:
    peer.script(**{"ops@example.com": [{"drop": "after_data"}]})

    outcomes = [await send(peer), await send(peer, attempt=2, now=EpochMs(DEADLINE + 90_000), maybe_sent=True)]

    assert isinstance(outcomes[0], Unknown)
    assert outcomes[1] == Sent("queued as 0002")
    first, second = peer.mails()
    assert first == second
    assert f"Message-ID: <{NOTIFICATION}@example.net>".encode() in first


async def test_a_connection_lost_before_the_message_is_retried(peer: SmtpPeer) -> None:
    peer.script(**{"ops@example.com": [{"drop": "rcpt"}]})

    outcome = await send(peer)

    assert isinstance(outcome, Retry)
    assert outcome.code == "write"
    assert peer.mails() == []


async def test_a_message_refused_after_data_is_dead_but_the_channel_is_not(peer: SmtpPeer) -> None:
    peer.script(**{"ops@example.com": [{"data": 552}]})

    assert await send(peer) == Permanent("552 refused by script", "552")


async def test_refused_credentials_are_retried_after_a_quarter_of_an_hour(peer: SmtpPeer) -> None:
    peer.script(everyone=[{"auth": 535}])

    assert await send(peer) == Retry("535 refused by script", "auth", 900_000)
    assert peer.mails() == []


async def test_wrong_credentials_are_retried_after_a_quarter_of_an_hour(peer: SmtpPeer) -> None:
    outcome = await send(peer, settings=peer_settings(peer, smtp_password=SecretStr("wrong")))

    assert isinstance(outcome, Retry)
    assert (outcome.code, outcome.after_ms) == ("auth", 900_000)


async def test_a_server_that_greets_with_421_is_retried(peer: SmtpPeer) -> None:
    peer.script(everyone=[{"greet": 421}])

    assert await send(peer) == Retry("421 refused by script", "421")
    assert await send(peer) == Sent("queued as 0001")


async def test_a_server_that_stalls_before_the_message_is_retried(
    peer: SmtpPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lifesign.channels.email.SEND_TIMEOUT_S", 1.5)
    peer.script(**{"ops@example.com": [{"stall": 30}]})
    began = time.monotonic()

    outcome = await send(peer)

    assert isinstance(outcome, Retry)
    assert outcome.code == "write"
    assert time.monotonic() - began < 10


async def test_a_server_that_stalls_after_the_message_leaves_the_outcome_unknown(
    peer: SmtpPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lifesign.channels.email.SEND_TIMEOUT_S", 2.5)
    peer.script(**{"ops@example.com": [{"stall": 30, "at": "data"}]})

    outcome = await send(peer)

    assert isinstance(outcome, Unknown)
    assert len(peer.mails()) == 1


async def test_nothing_listening_is_retried() -> None:
    server = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()

    outcome = await EmailSender().send(message(), {}, context(offline_settings(smtp_port=port)))

    assert isinstance(outcome, Retry)
    assert outcome.code == "connect"


async def test_a_certificate_of_an_unknown_authority_is_a_fault_of_tls(peer: SmtpPeer) -> None:
    outcome = await send(peer, settings=peer_settings(peer, ca_file=None))

    assert isinstance(outcome, Retry)
    assert outcome.code == "tls"
    assert "AUTH" not in " ".join(peer.commands())


async def test_a_server_without_starttls_gets_neither_credentials_nor_mail() -> None:
    with smtp_peer("--no-starttls", "--plain-auth") as peer:
        outcome = await send(peer)

        assert outcome == Retry("the SMTP server does not offer STARTTLS", "tls")
        assert [command.split()[0] for command in peer.commands()] == ["QUIT"]


async def test_tls_from_the_first_byte_is_spoken_in_mode_tls() -> None:
    with smtp_peer("--implicit-tls", "--plain-auth") as peer:
        trusted = await send(peer, settings=peer_settings(peer, smtp_tls="tls"))
        untrusted = await send(peer, settings=peer_settings(peer, smtp_tls="tls", ca_file=None))

        assert trusted == Sent("queued as 0001")
        assert peer.envelopes()[0]["tls"] is True
        assert isinstance(untrusted, Retry)
        assert untrusted.code == "tls"


async def test_mode_none_logs_in_to_a_server_on_this_machine() -> None:
    with smtp_peer("--no-starttls", "--plain-auth") as peer:
        assert await send(peer, settings=peer_settings(peer, smtp_tls="none")) == Sent("queued as 0001")
        assert peer.envelopes()[0] == {
            "mailFrom": "lifesign@example.net",
            "mailOptions": [],
            "rcptTo": ["ops@example.com"],
            "tls": False,
            "login": "lifesign",
        }


@pytest.mark.parametrize(
    "address",
    [
        "",
        "a b@example.com> SIZE=1",
        "a@example.com\r\nDATA",
        "a@b>",
        "x:a@y;",
        "a@[",
        "b@",
        '"a"@b',
        "a@b@c",
        "a\x00b@c",
    ],
)
async def test_an_address_that_would_break_out_of_its_command_is_never_written(address: str) -> None:
    outcome = await EmailSender().send(message(), {}, context(offline_settings(smtp_port=1), dest=address))

    assert outcome == Permanent("not an address that SMTP can carry", "bad_address", disable=True)


async def test_a_sender_that_is_no_address_is_a_fault_of_the_settings() -> None:
    outcome = await EmailSender().send(message(), {}, context(offline_settings(smtp_port=1, smtp_from="Lifesign")))

    assert outcome == Permanent("LIFESIGN_SMTP_FROM is not an address", "not_configured")


@given(LOCAL_PARTS, DOMAINS)
def test_any_address_that_can_be_carried_makes_one_recipient_and_no_other_header(local: str, domain: str) -> None:
    address = f"{local}@{domain}"
    assume(can_carry(address))

    mail = build(message(), {}, context(offline_settings(), dest=address))

    head, _, _ = mail.content.partition(b"\r\n\r\n")
    assert len([line for line in head.split(b"\r\n") if line[:1] not in (b" ", b"\t")]) == 11
    assert aiosmtplib.email.quote_address(mail.recipient) == f"<{mail.recipient}>"


async def test_an_address_beyond_ascii_uses_smtputf8(peer: SmtpPeer) -> None:
    assert await send(peer, dest="jürgen@example.com") == Sent("queued as 0001")

    assert peer.envelopes()[0]["rcptTo"] == ["jürgen@example.com"]
    assert peer.envelopes()[0]["mailOptions"] == ["BODY=8BITMIME", "SMTPUTF8"]
    assert "To: jürgen@example.com\r\n".encode() in peer.mails()[0]


async def test_without_a_server_the_channel_is_not_at_fault() -> None:
    outcome = await EmailSender().send(message(), {}, context(Settings()))

    assert outcome == Permanent("SMTP server is not configured", "not_configured")
