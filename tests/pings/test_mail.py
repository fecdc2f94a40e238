"""Pings by e-mail, sent with a real client to the real listener."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.message import EmailMessage
from pathlib import Path
from typing import cast

import aiosmtplib
import pytest
import trustme

from lifesign.db import StorageUnavailable
from lifesign.pings.mail import MailServer, Recipient, mail_of, recipient_of
from lifesign.pings.service import Pings
from tests.harness import Json, Lifesign, MakeLifesign
from tests.pings.pinging import api, check, ping_key, pings, read

UNKNOWN = "0b6b7f3e-0000-4b0e-9d0f-3a1c2b4d5e6f"


@asynccontextmanager
async def mailbox(lifesign: Lifesign, **options: object) -> AsyncIterator[aiosmtplib.SMTP]:
    """A client that is connected to the listener of a node."""
    node = lifesign.node
    server = MailServer(
        node.settings, node.clock, node.db, keyring=node.keyring, pings=cast("Pings", node.api.state.pings)
    )
    port = await server.listen("127.0.0.1", 0)
    try:
        async with aiosmtplib.SMTP(hostname="127.0.0.1", port=port, start_tls=False, timeout=20) as client:
            yield client
    finally:
        await server.close()


def mail(subject: str = "hello", text: str = "all is well", *, html: bool = False) -> bytes:
    message = EmailMessage()
    message["Subject"] = subject
    message.set_content(text, subtype="html" if html else "plain")
    return message.as_bytes()


async def deliver(client: aiosmtplib.SMTP, message: bytes, *recipients: str) -> str:
    """The answer to a message, as `<code> <text>`."""
    errors, answer = await client.sendmail("cron@db1.example.org", list(recipients), message)
    assert errors == {}
    return answer


async def test_a_mail_to_a_check_is_a_ping(lifesign: Lifesign) -> None:
    made = await check(lifesign)

    async with mailbox(lifesign) as client:
        answer = await deliver(client, mail(), f"{made['uuid'].upper()}@anything.example")

    assert "OK" in answer
    assert (await read(lifesign, made))["status"] == "up"
    (ping,) = await pings(lifesign, made)
    assert (ping["type"], ping["scheme"], ping["method"]) == ("success", "email", "")
    assert (ping["ua"], ping["remote_addr"]) == ("Email from cron@db1.example.org", "127.0.0.1")
    assert b"all is well" in (await api(lifesign, "GET", f"checks/{made['uuid']}/pings/1/body")).content


async def test_a_mail_may_name_a_check_by_key_and_slug(lifesign: Lifesign) -> None:
    made = await check(lifesign, slug="backup")
    key = await ping_key(lifesign)

    async with mailbox(lifesign) as client:
        await deliver(client, mail(), f"{key}+backup@x", f"{key}+nobody@x", "test-admin-key-0123456789+backup@x")

    assert (await read(lifesign, made))["n_pings"] == 1


async def test_who_is_nobody_here_is_told_by_form_only(lifesign: Lifesign) -> None:
    made = await check(lifesign)

    async with mailbox(lifesign) as client:
        for address in ("nobody@x", f"{made['uuid']}x@x", "+slug@x", "key+Slug@x", "k+" + "s" * 101 + "@x"):
            with pytest.raises(aiosmtplib.SMTPRecipientsRefused) as refused:
                await client.sendmail("a@b", [address], mail())
            assert refused.value.recipients[0].code == 550
        await deliver(client, mail(), f"{UNKNOWN}@x")

    assert len((await api(lifesign, "GET", "checks/")).json()["checks"]) == 1
    assert (await read(lifesign, made))["n_pings"] == 0


@pytest.mark.parametrize(
    ("subject", "kind"),
    [
        ("backup ok", "success"),
        ("bad backup, not ok", "fail"),
        ("=?utf-8?B?YmFja3VwIG9r?=", "success"),
        ("begun", "start"),
        ("anything", "ign"),
        ("=?nonsense?B?!!!?=", "ign"),
    ],
)
async def test_subjects_decide_what_a_mail_means(lifesign: Lifesign, subject: str, kind: str) -> None:
    made = await check(lifesign, filter_subject=True, success_kw="ok", failure_kw="bad", start_kw="begun")

    async with mailbox(lifesign) as client:
        await deliver(client, f"Subject: {subject}\r\n\r\nbad\r\n".encode(), f"{made['uuid']}@x")

    assert [each["type"] for each in await pings(lifesign, made)] == [kind]


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (mail(text="done"), "success"),
        (mail(text="<b>do</b>ne", html=True), "success"),
        (mail(subject="done"), "fail"),
        (b"Content-Type: text/plain; charset=nonsense\r\n\r\ndone", "success"),
        (b"Content-Type: text/plain; charset=utf-8\r\n\r\n\xff done", "success"),
        (b"Content-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\nZG9uZQ==", "success"),
        (b"\xff\xfe\x00", "fail"),
        (b"", "fail"),
    ],
)
async def test_bodies_decide_what_a_mail_means(lifesign: Lifesign, message: bytes, kind: str) -> None:
    made = await check(lifesign, filter_body=True, success_kw="done", filter_default_fail=True)

    async with mailbox(lifesign) as client:
        await deliver(client, message, f"{made['uuid']}@x")

    assert [each["type"] for each in await pings(lifesign, made)] == [kind]


async def test_a_mail_that_is_too_large_or_to_too_many_is_refused(lifesign: Lifesign) -> None:
    made = await check(lifesign)

    async with mailbox(lifesign) as client:
        with pytest.raises(aiosmtplib.SMTPException) as refused:
            await deliver(client, mail(text="x\n" * 600_000), f"{made['uuid']}@x")
        assert "552" in str(refused.value)
        errors, _ = await client.sendmail("a@b", [f"{made['uuid']}@x{n}" for n in range(52)], mail())

    assert {error.code for error in errors.values()} == {452}
    assert (await read(lifesign, made))["n_pings"] == 50


async def test_a_mail_is_asked_for_again_while_the_storage_is_away(
    lifesign: Lifesign, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await check(lifesign)

    async def is_away(*_: object) -> None:
        raise StorageUnavailable("gone")

    async with mailbox(lifesign) as client:
        with monkeypatch.context() as patched:
            patched.setattr(lifesign.node.db, "write_batched", is_away)
            with pytest.raises(aiosmtplib.SMTPDataError) as refused:
                await deliver(client, mail(), f"{made['uuid']}@x")
        await deliver(client, mail(), f"{made['uuid']}@x")

    assert refused.value.code == 451
    assert (await read(lifesign, made))["n_pings"] == 1


async def test_many_mails_at_once_are_all_taken(lifesign: Lifesign) -> None:
    made = await check(lifesign)

    async def send_one() -> str:
        async with mailbox(lifesign) as client:
            return await deliver(client, mail(), f"{made['uuid']}@x")

    answers = await asyncio.gather(*(send_one() for _ in range(20)))

    assert len(answers) == 20
    assert (await read(lifesign, made))["n_pings"] == 20


async def test_tls_is_offered_when_there_is_a_certificate(start_lifesign: MakeLifesign, tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    files: Json = {"ping_smtp_cert": tmp_path / "cert.pem", "ping_smtp_key": tmp_path / "key.pem"}

    async with start_lifesign(**files) as lifesign:
        made = await check(lifesign)
        async with mailbox(lifesign) as client:
            await client.starttls(tls_context=context)
            await deliver(client, mail(), f"{made['uuid']}@x")

        assert (await read(lifesign, made))["n_pings"] == 1


@pytest.mark.parametrize(
    ("address", "recipient"),
    [
        (f"{UNKNOWN}@x", Recipient(UNKNOWN)),
        (f"{UNKNOWN.upper()}@x", Recipient(UNKNOWN)),
        ("LSK_a+my-job@x", Recipient(None, "lsk_a", "my-job")),
        (UNKNOWN.replace("-4b", "-1b") + "@x", None),
        ("x" * 260 + "+a@x", None),
        ("", None),
    ],
)
def test_whom_an_address_names(address: str, recipient: Recipient | None) -> None:
    assert recipient_of(address) == recipient


@pytest.mark.parametrize(
    "raw", [b"", b"\x00", b"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n", b"Subject: \xff\r\n\r\n"]
)
def test_no_message_is_too_strange_to_be_looked_at(raw: bytes) -> None:
    assert mail_of(raw).text in {"", "\x00"}
