"""An SMTP server that behaves as a script says, in a process of its own.

Started as `python -m tests.peers.smtp --port 0 --dir DIR --script FILE [--tls-ca CA.pem]`; prints its port. Every mail
is on disk (`0001.eml`, and `0001.json` with its envelope) before it is answered, so nothing that was accepted can be
forgotten by a kill. `commands.jsonl` has one line for each command, in order.

The script is a JSON object, read again for each command, from recipient to a list of entries; each transaction with
this recipient consumes one, and after the last one all goes well. `"times": n` repeats an entry. Entries:
`{"rcpt": 451}`, `{"data": 552}`: refuse with this code; `{"stall": 30}`: say nothing for so many seconds, at RCPT, or
with `"at": "data"` after the message; `{"drop": "after_data"}`: store the mail, then close without an answer;
`{"drop": "rcpt"}`: close at RCPT. Under the key `*` entries are consumed by connections: `{"greet": 421}`,
`{"auth": 535}`. A script whose text changed starts from its beginning.
"""

import argparse
import asyncio
import json
import logging
import os
import ssl
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, AnyStr

import trustme
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from tests.peers.process import peer_process

CONNECTION = "*"

# Any, here and below: an entry of the script is the JSON a test wrote.
Entry = dict[str, Any]


@dataclass(slots=True)
class Script:
    """The entries left to play."""

    path: Path
    text: str = ""
    played: Counter[str] = field(default_factory=Counter)

    def next(self, key: str) -> Entry:
        """The entry whose turn it is, `{}` after the last."""
        text = self.path.read_text()
        if text != self.text:
            self.text, self.played = text, Counter()
        entries = [entry for entry in json.loads(text or "{}").get(key, []) for _ in range(entry.get("times", 1))]
        turn = self.played[key]
        self.played[key] += 1
        return entries[turn] if turn < len(entries) else {}


@dataclass(slots=True)
class Mailbox:
    """Where mails and commands are kept, each durable before the client hears of it."""

    directory: Path
    count: int = 0

    def keep(self, envelope: Envelope, session: Session, *, is_tls: bool) -> str:
        self.count += 1
        name = f"{self.count:04d}"
        # getattr: aiosmtpd declares it None and assigns it later.
        login_data: LoginPassword | None = getattr(session, "auth_data", None)
        _write(self.directory / f"{name}.eml", envelope.original_content or b"")
        told = {
            "mailFrom": envelope.mail_from,
            "mailOptions": [option for option in envelope.mail_options if not option.startswith("SIZE=")],
            "rcptTo": envelope.rcpt_tos,
            "tls": is_tls,
            "login": login_data.login.decode() if login_data else None,
        }
        # Last, and moved into place: a mail that is listed is whole.
        _write(self.directory / f"{name}.tmp", json.dumps(told).encode())
        (self.directory / f"{name}.tmp").rename(self.directory / f"{name}.json")
        return name

    def note(self, command: str) -> None:
        with (self.directory / "commands.jsonl").open("a") as log:
            log.write(json.dumps(command) + "\n")


class Handler:
    """The hooks that aiosmtpd calls, by name."""

    def __init__(self, script: Script, mailbox: Mailbox) -> None:
        self.script = script
        self.mailbox = mailbox
        self.entry: Entry = {}

    async def handle_RCPT(  # noqa: N802 - the name aiosmtpd looks for
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        self.entry = self.script.next(address)
        if self.entry.get("drop") == "rcpt":
            _hang_up(server)
        if "stall" in self.entry and self.entry.get("at", "rcpt") == "rcpt":
            await asyncio.sleep(self.entry["stall"])
        if "rcpt" in self.entry:
            return f"{self.entry['rcpt']} refused by script"
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 recipient taken"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 - as above
        if "data" in self.entry:
            return f"{self.entry['data']} refused by script"
        assert server.transport is not None
        is_tls = server.transport.get_extra_info("sslcontext") is not None
        name = self.mailbox.keep(envelope, session, is_tls=is_tls)
        if self.entry.get("drop") == "after_data":
            _hang_up(server)
        if "stall" in self.entry and self.entry.get("at") == "data":
            await asyncio.sleep(self.entry["stall"])
        return f"250 queued as {name}"


class ScriptedServer(SMTP):
    """One connection. aiosmtpd has no hook for the greeting, so it is caught on its way out."""

    def __init__(
        self,
        script: Script,
        mailbox: Mailbox,
        credentials: LoginPassword,
        *,
        tls: ssl.SSLContext | None,
        plain_auth: bool,
    ) -> None:
        self.entry = script.next(CONNECTION)
        self.credentials = credentials
        self.mailbox = mailbox
        self._is_greeted = False
        super().__init__(
            Handler(script, mailbox),
            hostname="smtp.test",
            tls_context=tls,
            auth_require_tls=not plain_auth,
            authenticator=self._log_in,
            enable_SMTPUTF8=True,
            loop=asyncio.get_running_loop(),
        )

    async def push(self, status: AnyStr) -> None:
        if not self._is_greeted:
            self._is_greeted = True
            if "greet" in self.entry:
                await super().push(f"{self.entry['greet']} refused by script")
                _hang_up(self)
        await super().push(status)

    async def _call_handler_hook(self, command: str, *args: Any) -> Any:  # Any: as in aiosmtpd
        self.mailbox.note(" ".join([command, *(str(arg) for arg in args[:1] if isinstance(arg, str))]))
        return await super()._call_handler_hook(command, *args)

    async def smtp_DATA(self, arg: str) -> None:  # noqa: N802 - the name aiosmtpd looks for
        self.mailbox.note("DATA begins")
        await super().smtp_DATA(arg)

    def _log_in(self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, given: Any) -> AuthResult:
        if "auth" in self.entry:
            return AuthResult(success=False, handled=False, message=f"{self.entry['auth']} refused by script")
        return AuthResult(success=given == self.credentials, handled=False, auth_data=given)


@dataclass(frozen=True, slots=True)
class SmtpPeer:
    """A running peer, as a test sees it."""

    port: int
    directory: Path
    script_path: Path
    ca_file: Path

    def script(self, **entries: Sequence[Entry]) -> None:
        """Replace the script; `everyone=` stands for `*`."""
        told = {CONNECTION if name == "everyone" else name: list(value) for name, value in entries.items()}
        replacement = self.script_path.with_suffix(".new")
        replacement.write_text(json.dumps(told))
        replacement.rename(self.script_path)

    def mails(self) -> list[bytes]:
        return [path.with_suffix(".eml").read_bytes() for path in sorted(self.directory.glob("*.json"))]

    def envelopes(self) -> list[Entry]:
        return [json.loads(path.read_text()) for path in sorted(self.directory.glob("*.json"))]

    def commands(self) -> list[str]:
        log = self.directory / "commands.jsonl"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


@contextmanager
def smtp_peer(*options: str) -> Iterator[SmtpPeer]:
    """Run a peer on a free port of 127.0.0.1 until the block ends. options: as on the command line."""
    with tempfile.TemporaryDirectory(prefix="smtp-peer-") as name:
        directory = Path(name)
        mails, script, ca_file = directory / "mails", directory / "script.json", directory / "ca.pem"
        mails.mkdir()
        script.write_text("{}")
        where = ["--port", "0", "--dir", str(mails), "--script", str(script), "--tls-ca", str(ca_file)]
        with peer_process("tests.peers.smtp", [*where, "--with-parent", *options]) as (_pid, port):
            yield SmtpPeer(int(port), mails, script, ca_file)


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _hang_up(server: SMTP) -> None:
    assert server.transport is not None
    server.transport.close()
    # What aiosmtpd itself does when a client is gone: end the task, so that no answer follows.
    raise asyncio.CancelledError


def _server_tls(ca_path: Path) -> ssl.SSLContext:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(ca_path))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    return context


async def _serve(options: argparse.Namespace) -> None:
    script, mailbox = Script(options.script), Mailbox(options.dir)
    credentials = LoginPassword(options.username.encode(), options.password.encode())
    tls = _server_tls(options.tls_ca) if options.tls_ca else None

    def connection() -> ScriptedServer:
        starttls = None if options.implicit_tls or options.no_starttls else tls
        return ScriptedServer(script, mailbox, credentials, tls=starttls, plain_auth=options.plain_auth)

    loop = asyncio.get_running_loop()
    server = await loop.create_server(connection, "127.0.0.1", options.port, ssl=tls if options.implicit_tls else None)
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201 - how the caller learns the port
    if options.with_parent:
        loop.add_reader(sys.stdin, _end_at_eof)
    await server.serve_forever()


def _end_at_eof() -> None:
    if not os.read(sys.stdin.fileno(), 4096):
        sys.exit(0)


def main() -> None:
    # It warns of a property of its own that nobody here uses.
    logging.getLogger("mail.log").setLevel(logging.ERROR)
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--script", type=Path, required=True)
    parser.add_argument("--tls-ca", type=Path, help="offer STARTTLS, and write the CA's certificate here")
    parser.add_argument("--implicit-tls", action="store_true", help="TLS from the first byte instead of STARTTLS")
    parser.add_argument("--no-starttls", action="store_true", help="do not offer STARTTLS")
    parser.add_argument("--plain-auth", action="store_true", help="take credentials without TLS as well")
    parser.add_argument("--with-parent", action="store_true", help="end when standard input does")
    parser.add_argument("--username", default="lifesign")
    parser.add_argument("--password", default="correct horse")
    asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
