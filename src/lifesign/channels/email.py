"""E-mail over SMTP: one connection, one transaction and one recipient per message.

What decides about doubles is the final dot of DATA: before it nothing can have been delivered, after it everything may
have been. So the dialogue is driven command by command, and each reply is judged together with what it answers.
"""

import asyncio
import contextlib
import functools
import ipaddress
import re
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from email.headerregistry import HeaderRegistry, MessageIDHeader
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import parseaddr
from pathlib import Path
from typing import Literal, cast
from zoneinfo import ZoneInfo

import aiosmtplib
import jinja2

from lifesign.channels.config import Config
from lifesign.channels.mailbox import can_carry, with_ascii_domain
from lifesign.channels.message import Message
from lifesign.channels.outbound import clean_text
from lifesign.channels.rules import ALARMS
from lifesign.channels.sender import (
    CONNECT_TIMEOUT_S,
    SEND_TIMEOUT_S,
    Outcome,
    Permanent,
    Retry,
    SendContext,
    Sent,
    Unknown,
)
from lifesign.clock import EpochMs, to_datetime
from lifesign.settings import Settings

Stage = Literal["connect", "ehlo", "starttls", "auth", "mail", "rcpt", "data", "final_dot"]
"""What is being waited for: the reply to this command; `final_dot`: the one after the whole message was written."""

MAX_SUBJECT = 200
AUTH_RETRY_MS = 15 * 60 * 1000
NOT_CONFIGURED = Permanent("SMTP server is not configured", code="not_configured")
BAD_SENDER = Permanent("LIFESIGN_SMTP_FROM is not an address", code="not_configured")
BAD_RECIPIENT = Permanent("not an address that SMTP can carry", code="bad_address", disable=True)
_QUIT_TIMEOUT_S = 1.0
_MAX_QUEUE_TEXT = 200
_START_INPUT = 354
_COMPLETED = 250
_AUTH_CODES = frozenset({530, 534, 535, 538})
_REFUSED_FOR_GOOD = frozenset({550, 551, 552, 553, 554})
_COLOURS = {
    "page": "#c8372d",
    "fallback": "#c8372d",
    "reminder": "#c8372d",
    "storm": "#c8372d",
    "digest": "#c8372d",
    "flap": "#b26a00",
    "notice": "#1f5fbf",
    "resolve": "#2c8a4b",
    "test": "#1f5fbf",
}
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_CONTROLS_BUT_LINES = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_LEADING_DOT = re.compile(rb"(?m)^\.")

# The standard library folds a long id in these two by encoding it (RFC 2047), which cuts the thread; as a Message-ID
# it is left whole.
_headers = HeaderRegistry()
for _name in ("in-reply-to", "references"):
    # arg-type: typeshed wants a BaseHeader, which the registry mixes in by itself.
    _headers.map_to_type(_name, MessageIDHeader)  # type: ignore[arg-type]  # typeshed knows the base class only
_POLICY = SMTP.clone(header_factory=_headers)

_layouts = jinja2.Environment(
    loader=jinja2.PackageLoader("lifesign.channels", "layouts"),
    autoescape=jinja2.select_autoescape(enabled_extensions=("html.j2",)),
    undefined=jinja2.StrictUndefined,
)


@dataclass(frozen=True, slots=True)
class Mail:
    """An envelope and its content: 7-bit lines ending in CRLF, or UTF-8 headers when `needs_utf8` (RFC 6531)."""

    sender: str
    recipient: str
    content: bytes
    needs_utf8: bool


@dataclass(frozen=True, slots=True)
class Reply:
    """What the server answered. code -1: not readable as a reply."""

    stage: Stage
    code: int
    text: str


@dataclass(frozen=True, slots=True)
class Lost:
    """No reply: refused, timed out or cut off while waiting."""

    stage: Stage
    why: str
    is_tls: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table of facts."""

    label: str
    value: str


def build(message: Message, config: Config, context: SendContext) -> Mail:  # noqa: ARG001 - one signature for all types
    """The mail of this notification, the same bytes on every retry.

    `context.dest` and the sender of the settings must be addresses that `can_carry` admits.
    """
    sender = context.settings.smtp_from
    recipient = with_ascii_domain(context.dest or "")
    domain = _ascii_domain(parseaddr(sender)[1])
    mail = EmailMessage(policy=_POLICY)
    mail["From"] = _one_line(sender)
    mail["To"] = recipient
    mail["Subject"] = _one_line(message.title)[:MAX_SUBJECT]
    mail["Date"] = to_datetime(context.created_at)
    mail["Message-ID"] = f"<{context.notification_id}@{domain}>"
    if message.notice is not None:
        thread = f"<{message.notice.schedule_id}@{domain}>"
        mail["In-Reply-To"] = mail["References"] = thread
    if message.incident is not None:
        thread = f"<{message.incident.id}@{domain}>"
        # The first page opens the thread, so there is nothing it answers.
        if not (message.kind == "page" and message.is_first):
            mail["In-Reply-To"] = thread
        mail["References"] = thread
        mail["X-Lifesign-Incident"] = message.incident.id
    mail["Auto-Submitted"] = "auto-generated"
    mail["X-Lifesign-Kind"] = message.kind
    layout = _layout_values(message)
    # Quoted-printable for both: short 7-bit lines that any server takes.
    mail.set_content(_layouts.get_template("email.txt.j2").render(layout), cte="quoted-printable")
    html = _layouts.get_template("email.html.j2").render(layout)
    mail.add_alternative(html, subtype="html", cte="quoted-printable")
    # `=_` cannot occur in quoted-printable text, so the boundary needs no luck.
    mail.set_boundary(f"=_{context.notification_id}")
    needs_utf8 = not (recipient.isascii() and parseaddr(sender)[1].rpartition("@")[0].isascii())
    return Mail(
        sender=with_ascii_domain(parseaddr(sender)[1]),
        recipient=recipient,
        content=mail.as_bytes(policy=_POLICY.clone(utf8=needs_utf8)),
        needs_utf8=needs_utf8,
    )


def judge(reply: Reply | Lost) -> Outcome:
    """What a reply, or none, means at its stage of the dialogue."""
    if isinstance(reply, Lost):
        return _judge_lost(reply)
    is_transaction = reply.stage in {"mail", "rcpt", "data", "final_dot"}
    why = clean_text(f"{reply.code} {reply.text}") if reply.code > 0 else "unreadable reply"
    if reply.stage == "final_dot" and reply.code == _COMPLETED:
        return Sent(clean_text(reply.text)[:_MAX_QUEUE_TEXT] or None)
    if reply.code in _AUTH_CODES:
        return Retry(why, code="auth", after_ms=AUTH_RETRY_MS)
    if 400 <= reply.code <= 499:  # noqa: PLR2004 - 4yz
        return Retry(why, code=str(reply.code))
    if 500 <= reply.code <= 599:  # noqa: PLR2004 - 5yz
        if is_transaction:
            is_address = reply.stage == "rcpt" and reply.code in _REFUSED_FOR_GOOD
            return Permanent(why, code=str(reply.code), disable=is_address)
        # Before MAIL a refusal is about the server's settings, never about this message.
        if reply.stage == "auth":
            return Retry(why, code="auth", after_ms=AUTH_RETRY_MS)
        return Retry(why, code="tls" if reply.stage == "starttls" else str(reply.code))
    if reply.stage == "final_dot":
        return Unknown(f"after the message: {why}")
    return Retry(f"unexpected reply to {reply.stage.upper()}: {why}", code="bad_reply")


def may_log_in(peer_address: str, *, is_tls: bool) -> bool:
    """Whether credentials may go over this connection: with TLS anywhere, without it only within this machine."""
    return is_tls or ipaddress.ip_address(peer_address).is_loopback


class EmailSender:
    """Sends through the operator's SMTP server."""

    async def send(self, message: Message, config: Config, context: SendContext) -> Outcome:
        if not context.settings.smtp_host:
            return NOT_CONFIGURED
        if not can_carry(parseaddr(context.settings.smtp_from)[1]):
            return BAD_SENDER
        if not can_carry(context.dest or ""):
            return BAD_RECIPIENT
        dialogue = _Dialogue(context.settings)
        try:
            outcome = await dialogue.outcome(build(message, config, context), context.mark_called)
            await dialogue.quit()
        finally:
            dialogue.close()
        return outcome


class _Dialogue:
    """One connection, and how far it got."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stage: Stage = "connect"
        # Kept here because the library forgets it as soon as it has asked it to close.
        self._transport: asyncio.BaseTransport | None = None
        self._smtp = aiosmtplib.SMTP(
            hostname=settings.smtp_host,
            port=settings.smtp_port,
            local_hostname=_own_name(settings),
            timeout=SEND_TIMEOUT_S,
            use_tls=settings.smtp_tls == "tls",
            start_tls=False,  # done by hand below, so that a server that does not offer it is told apart
            tls_context=None if settings.smtp_tls == "none" else _tls_context(settings.ca_file),
        )

    async def outcome(self, mail: Mail, mark_called: Callable[[], Awaitable[None]] | None) -> Outcome:
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S - _QUIT_TIMEOUT_S):
                return await self._prepare() or await self._transact(mail, mark_called)
        except aiosmtplib.SMTPResponseException as fault:
            return judge(Reply(self._stage, fault.code, fault.message))
        except ssl.SSLError as fault:
            return judge(Lost(self._stage, str(fault), is_tls=True))
        except (aiosmtplib.SMTPException, OSError) as fault:
            cause = fault.__cause__ or fault
            is_tls = self._stage == "starttls" or isinstance(cause, ssl.SSLError)
            return judge(Lost(self._stage, str(cause) or "timed out", is_tls=is_tls))

    async def quit(self) -> None:
        """Part politely; the outcome is settled, so whatever happens here is of no interest."""
        if self._smtp.is_connected:
            with contextlib.suppress(aiosmtplib.SMTPException, OSError):
                await self._smtp.quit(timeout=_QUIT_TIMEOUT_S)

    def close(self) -> None:
        """Let go of the socket at once: a polite close would wait for a stalled server, with TLS for half a minute."""
        if self._transport is not None:
            # cast: the transports of uvloop have the method without the base class.
            cast("asyncio.Transport", self._transport).abort()
        self._smtp.close()

    async def _prepare(self) -> Outcome | None:
        """Connect, encrypt and log in; an outcome where the dialogue cannot go on."""
        settings, smtp = self._settings, self._smtp
        await smtp.connect(timeout=CONNECT_TIMEOUT_S)
        self._transport = smtp.transport
        self._stage = "ehlo"
        await smtp.ehlo()
        if settings.smtp_tls == "starttls":
            self._stage = "starttls"
            if not smtp.supports_extension("starttls"):
                return Retry("the SMTP server does not offer STARTTLS", code="tls")
            await smtp.starttls()
            self._transport = smtp.transport
            self._stage = "ehlo"
            await smtp.ehlo()
        if settings.smtp_username is None:
            return None
        self._stage = "auth"
        if not may_log_in(smtp.get_transport_info("peername")[0], is_tls=settings.smtp_tls != "none"):
            return Retry("credentials are not sent without TLS", code="auth", after_ms=AUTH_RETRY_MS)
        if not smtp.supported_auth_methods:
            return Retry("the SMTP server offers no login", code="auth", after_ms=AUTH_RETRY_MS)
        password = settings.smtp_password
        await smtp.login(settings.smtp_username, password.get_secret_value() if password else "")
        return None

    async def _transact(self, mail: Mail, mark_called: Callable[[], Awaitable[None]] | None) -> Outcome:
        smtp = self._smtp
        options = [f"SIZE={len(mail.content)}"] if smtp.supports_extension("size") else []
        if mail.needs_utf8:
            if not smtp.supports_extension("smtputf8"):
                return Permanent("the SMTP server takes no address beyond ASCII", code="smtputf8")
            options += ["BODY=8BITMIME", "SMTPUTF8"]
        encoding = "utf-8" if mail.needs_utf8 else "ascii"
        self._stage = "mail"
        await smtp.mail(mail.sender, options=options, encoding=encoding)
        self._stage = "rcpt"
        await smtp.rcpt(mail.recipient, encoding=encoding)
        if mark_called is not None:
            await mark_called()
        return judge(await self._data(mail.content))

    async def _data(self, content: bytes) -> Reply:
        """DATA and the message, in two steps: only between them is it certain that nothing was delivered."""
        self._stage = "data"
        start = await self._smtp.execute_command(b"DATA")
        protocol = self._smtp.protocol
        if start.code != _START_INPUT or protocol is None:
            return Reply("data", start.code, start.message)
        protocol.write(_LEADING_DOT.sub(b"..", content) + b".\r\n")
        self._stage = "final_dot"
        end = await protocol.read_response()
        return Reply("final_dot", end.code, end.message)


def _judge_lost(lost: Lost) -> Outcome:
    why = clean_text(lost.why)
    if lost.stage == "final_dot":
        return Unknown(f"no reply after the message: {why}")
    if lost.is_tls:
        return Retry(f"TLS with the SMTP server failed: {why}", code="tls")
    if lost.stage == "connect":
        return Retry(f"no connection to the SMTP server: {why}", code="connect")
    return Retry(f"no reply to {lost.stage.upper()}: {why}", code="write")


def _layout_values(message: Message) -> dict[str, object]:
    text = _CONTROLS_BUT_LINES.sub("", message.text.replace("\r\n", "\n").replace("\r", "\n"))
    return {
        "title": _one_line(message.title),
        "text": text,
        "rows": _rows(message),
        "ack_url": message.ack_url if message.kind in ALARMS else None,
        "url": message.url,
        "colour": _COLOURS[message.kind],
    }


def _rows(message: Message) -> list[Row]:
    facts: list[tuple[str, str | None]] = []
    zone = "UTC"
    if (heartbeat := message.heartbeat) is not None:
        zone = heartbeat.timezone
        facts += [("Heartbeat", f"{heartbeat.name} ({heartbeat.slug})"), ("Namespace", heartbeat.namespace)]
    if (notice := message.notice) is not None:
        facts += [("Bot", notice.bot_name), ("Severity", notice.severity), ("Run", notice.run_id)]
    facts.append(("Project", message.project))
    if (incident := message.incident) is not None:
        facts += [
            ("Reason", incident.reason),
            ("Deadline", None if incident.deadline_at is None else _in_zone_and_utc(incident.deadline_at, zone)),
            ("Opened", _in_zone_and_utc(incident.opened_at, zone)),
            ("Closed", None if incident.resolved_at is None else _in_zone_and_utc(incident.resolved_at, zone)),
            ("Acknowledged by", incident.acked_by),
            ("Note", incident.ack_message),
        ]
    if message.kind == "page" and message.step:
        facts.append(("Step", f"{message.step} of {message.steps}"))
    return [Row(label, _one_line(value)) for label, value in facts if value]


def _in_zone_and_utc(at: EpochMs, zone: str) -> str:
    """`2026-03-08 03:00:00 EDT (America/New_York), 2026-03-08 07:00:00 UTC`; an unknown zone is left out."""
    moment = to_datetime(at)
    utc = f"{moment:%Y-%m-%d %H:%M:%S} UTC"
    if zone == "UTC":
        return utc
    try:
        local = moment.astimezone(ZoneInfo(zone))
    except (KeyError, ValueError, OSError):
        return utc
    return f"{local:%Y-%m-%d %H:%M:%S %Z} ({zone}), {utc}"


def _one_line(text: str) -> str:
    return _CONTROLS.sub(" ", text).strip()


def _ascii_domain(address: str) -> str:
    domain = with_ascii_domain(address).rpartition("@")[2]
    return domain if domain and domain.isascii() else "localhost"


def _own_name(settings: Settings) -> str:
    # Not getfqdn, the library's default: it asks the name server, and may hang for as long as that one does.
    name = socket.gethostname()
    return name if "." in name and name.isascii() else _ascii_domain(parseaddr(settings.smtp_from)[1])


@functools.lru_cache(maxsize=4)
def _tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """System roots and those of `ca_file`; kept, because reading them takes longer than a whole mail."""
    context = ssl.create_default_context()
    if ca_file is not None:
        context.load_verify_locations(cafile=ca_file)
    return context
