"""Pings by e-mail: a small SMTP server in the server's own loop, for heartbeats and for nobody else.

It accepts mail for `<uuid>@...` and `<key>+<slug>@...`, and answers 250 once the pings are on disk.
"""

import asyncio
import re
import ssl
from email import message_from_bytes
from email.message import EmailMessage, Message
from email.policy import default as modern
from html.parser import HTMLParser
from typing import NamedTuple, cast

import structlog
from aiosmtpd.smtp import SMTP, Envelope, Session

from lifesign.auth.rules import Unauthorized
from lifesign.auth.service import Keyring
from lifesign.clock import Clock
from lifesign.db import Database, StorageUnavailable
from lifesign.pings import rules
from lifesign.pings.rules import MAX_UA, PING_SCOPES, PingRefused
from lifesign.pings.service import Mail, Ping, Pings
from lifesign.settings import Settings

log = structlog.get_logger("lifesign.pings")

MAX_MESSAGE_BYTES = 1024 * 1024
MAX_RECIPIENTS = 50
_MAX_LOCAL_PART = 256
_MAX_CONNECTIONS = 200
_IDLE_S = 60.0
_UUID = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-4[0-9a-fA-F]{3}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}")


class Recipient(NamedTuple):
    """Whom a mail pings: a heartbeat by its ping id, or by a key and a slug."""

    ping_id: str | None
    key: str | None = None
    slug: str = ""


def recipient_of(address: str) -> Recipient | None:
    """What the part before the `@` names; None when that is nobody here."""
    local, _, _ = address.rpartition("@")
    if len(local.encode()) > _MAX_LOCAL_PART:
        return None
    if _UUID.fullmatch(local):
        return Recipient(local.lower())
    key, plus, slug = local.partition("+")
    return Recipient(None, key.lower(), slug) if plus and key and rules.is_slug(slug) else None


def mail_of(raw: bytes) -> Mail:
    """Subject and text of a message: decoded, HTML without its tags. Whatever cannot be decoded is replaced."""
    message = message_from_bytes(raw, policy=modern)
    try:
        subject = str(message["subject"] or "")
    except (ValueError, LookupError, AttributeError, IndexError):  # headers that no parser foresaw
        subject = ""
    parts = [part for part in message.walk() if part.get_content_maintype() == "text"]
    return Mail(subject, "\n".join(_text(part) for part in parts))


def _text(part: Message) -> str:
    try:
        content = cast("EmailMessage", part).get_content()
    except (LookupError, ValueError, AttributeError):  # an unknown charset, or an encoding that is none
        payload = part.get_payload(decode=True)
        content = payload.decode(errors="replace") if isinstance(payload, bytes) else ""
    text = str(content)
    return _without_tags(text) if part.get_content_subtype() == "html" else text


class _Words(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def _without_tags(text: str) -> str:
    parser = _Words()
    parser.feed(text)
    parser.close()
    return "".join(parser.words)


class _Handler:
    """Judges recipients and takes messages."""

    def __init__(self, settings: Settings, clock: Clock, db: Database, *, keyring: Keyring, pings: Pings) -> None:
        self._limit = settings.ping_body_limit or MAX_MESSAGE_BYTES
        self._clock = clock
        self._db = db
        self._keyring = keyring
        self._pings = pings

    async def handle_RCPT(  # noqa: N802 - the library's name
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        if recipient_of(address) is None:
            return "550 5.1.1 unknown recipient"
        if len(envelope.rcpt_tos) >= MAX_RECIPIENTS:
            return "452 4.5.3 too many recipients"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 - as above
        raw = envelope.content if isinstance(envelope.content, bytes) else (envelope.content or "").encode()
        try:
            mail = await asyncio.to_thread(mail_of, raw)
            for address in envelope.rcpt_tos:
                await self._ping(address, mail, raw, session, envelope)
        except (StorageUnavailable, TimeoutError):
            return "451 4.3.0 storage is not available, try again"
        return "250 2.0.0 OK"

    async def _ping(self, address: str, mail: Mail, raw: bytes, session: Session, envelope: Envelope) -> None:
        recipient = recipient_of(address)
        owner = None if recipient is None else await self._owner(recipient)
        if recipient is None or owner is None:
            return
        project_id, key_id = owner
        ping = Ping(
            ping_id=recipient.ping_id,
            project_id=project_id,
            slug=recipient.slug,
            key_id=key_id,
            action="success",
            is_bare=True,
            exit_status=None,
            rid=None,
            scheme="email",
            method="",
            remote_addr=str(session.peer[0]) if session.peer else "",
            ua=f"Email from {envelope.mail_from}"[:MAX_UA],
            body=raw[: self._limit],
            stamp=self._clock.now(),
            mail=mail,
        )
        try:
            await self._pings.patience.wait(self._db.write_batched(self._pings.record, ping))
        except PingRefused:
            return  # nobody here: whoever guesses addresses learns nothing

    async def _owner(self, recipient: Recipient) -> tuple[str, str] | None:
        """Project and key of a recipient; the UUID form needs neither. None for a key that may not ping."""
        if recipient.key is None:
            return "", ""
        try:
            caller = await self._keyring.caller(b"Bearer " + recipient.key.encode("ascii", "replace"))
        except Unauthorized:
            return None
        return (caller.project_id, caller.key_id) if caller.scopes == PING_SCOPES else None


class MailServer:
    """Listens until it is closed."""

    def __init__(self, settings: Settings, clock: Clock, db: Database, *, keyring: Keyring, pings: Pings) -> None:
        self._handler = _Handler(settings, clock, db, keyring=keyring, pings=pings)
        self._context = _tls(settings)
        self._name = settings.ping_email_domain or "lifesign"
        self._open: set[asyncio.BaseTransport] = set()
        self._server: asyncio.Server | None = None

    async def listen(self, host: str, port: int) -> int:
        """Take mail from now on; the port. Raises OSError."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: self._protocol(loop), host, port)
        taken: int = self._server.sockets[0].getsockname()[1]
        return taken

    def _protocol(self, loop: asyncio.AbstractEventLoop) -> SMTP:
        server = self

        class Connection(SMTP):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                if len(server._open) >= _MAX_CONNECTIONS:
                    cast("asyncio.Transport", transport).write(b"421 4.3.2 too many connections\r\n")
                    transport.close()
                    return
                server._open.add(transport)
                super().connection_made(transport)

            def connection_lost(self, error: Exception | None) -> None:
                server._open.discard(self.transport)
                if self.transport is not None:
                    super().connection_lost(error)

        return Connection(
            self._handler,
            data_size_limit=MAX_MESSAGE_BYTES,
            hostname=self._name,
            ident="Lifesign",
            tls_context=self._context,
            timeout=_IDLE_S,
            loop=loop,
        )

    async def close(self) -> None:
        """Take no more mail; what was being sent is not answered, so that the sender tries again."""
        if self._server is None:
            return
        self._server.close()
        for transport in list(self._open):
            transport.close()
        await self._server.wait_closed()


def _tls(settings: Settings) -> ssl.SSLContext | None:
    if settings.ping_smtp_cert is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(settings.ping_smtp_cert, settings.ping_smtp_key)
    return context
