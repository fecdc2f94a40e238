"""`lifesign demo`: a whole outage in a minute, with a real server, a real mail server and a real webhook receiver."""

import base64
import contextlib
import hashlib
import hmac
import http.server
import json
import os
import queue
import secrets
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from lifesign.cli.checkin import Proof, check_in
from lifesign.cli.errors import CommandFailed
from lifesign.cli.output import safe
from lifesign.cli.remote import Api, Send, over_network
from lifesign.cli.values import Json

if TYPE_CHECKING:
    # Loaded by the demo only: mail servers and mail parsers are heavy.
    from aiosmtpd.smtp import SMTP, Envelope, Session

_ADDRESS = "127.0.0.1"
_INTERVAL_S, _GRACE_S, _WAIT_S = 3, 1, 3
# Everything takes about 10 s; what has not arrived after these will not arrive.
_START_S = 20.0
_PAGE_S = 15.0
_RECOVERY_S = 10.0
_STOP_S = 5.0
_PAUSE_S = 1.0
_MAX_BODY_BYTES = 1 << 20
_RECIPIENT = "on-call@example.org"
_SHOWN_LINES = 5
_LISTENING, _SETUP = "listening on ", "setup link: "


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail that arrived."""

    recipient: str
    subject: str
    text: str


@dataclass(frozen=True, slots=True)
class Hook:
    """A webhook that arrived. kind: its type; is_signed: its signature is good."""

    kind: str
    is_signed: bool


@dataclass(slots=True)
class Stage:
    """What arrived, and when we began."""

    started_at: float = field(default_factory=time.monotonic)
    arrivals: "queue.Queue[Mail | Hook]" = field(default_factory=queue.Queue)
    secret: str = ""
    _early: list[Mail | Hook] = field(default_factory=list)

    def tell(self, what: str, text: str, *, style: str = "") -> None:
        """One line: seconds since the start, who speaks, and what happened."""
        line = f"{time.monotonic() - self.started_at:6.1f} s  {what.ljust(8)}"
        if not sys.stdout.isatty():
            print(f"{line}  {safe(text)}", flush=True)
            return
        from rich.console import Console
        from rich.text import Text

        Console(highlight=False).print(Text.assemble((f"{line}  ", "dim"), (safe(text), style)), soft_wrap=True)

    def wait_for(self, is_wanted: Callable[[Mail | Hook], bool], what: str, *, within_s: float) -> None:
        """Wait until the wanted arrived, telling of everything that does. Raises CommandFailed when it does not."""
        give_up_at = time.monotonic() + within_s
        if self._took(is_wanted):
            return
        while (left := give_up_at - time.monotonic()) > 0:
            # In short turns: a signal is served between them, and the queue itself would hold it back on some systems.
            with contextlib.suppress(queue.Empty):
                arrived = self.arrivals.get(timeout=min(left, _PAUSE_S))
                self._show(arrived)
                self._early.append(arrived)
                if self._took(is_wanted):
                    return
        raise CommandFailed(f"the demo failed: {what} did not arrive within {within_s:.0f} s")

    def _took(self, is_wanted: Callable[[Mail | Hook], bool]) -> bool:
        wanted = next((each for each in self._early if is_wanted(each)), None)
        if wanted is not None:
            self._early.remove(wanted)
        return wanted is not None

    def _show(self, arrived: Mail | Hook) -> None:
        match arrived:
            case Mail():
                self.tell("mail", f"to {arrived.recipient}: {arrived.subject}", style="bold")
                for line in [each for each in arrived.text.splitlines() if each.strip()][:_SHOWN_LINES]:
                    self.tell("", f"  {line}")
            case Hook():
                self.tell(
                    "webhook", f"{arrived.kind}, signature {'verified' if arrived.is_signed else 'WRONG'}", style="bold"
                )


def play() -> None:
    """Show a whole outage. Raises CommandFailed with what did not arrive."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(interruptible())
        stage = Stage()
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lifesign-demo-")))
        smtp_port = stack.enter_context(mail_sink(stage))
        hook_url = stack.enter_context(hook_sink(stage))
        key = new_key()
        server = stack.enter_context(running(directory, smtp_port, key))
        stage.tell("server", f"listens on {server.url}")
        _outage(stage, over_network(server.url, key), hook_url)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """A request to end comes as the same exception as Ctrl-C, so that everything started is stopped in either case."""
    before = {number: signal.signal(number, _interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _outage(stage: Stage, send: Send, hook_url: str) -> None:
    api = Api(send)
    mail = api.post("/v1/channels", {"name": "Demo mail", "type": "email", "config": {"to": _RECIPIENT}})
    hook = api.post("/v1/channels", {"name": "Demo webhook", "type": "webhook", "config": {"url": hook_url}})
    stage.secret = str(hook["config"]["secret"])
    steps: Json = [{"channels": [mail["id"]]}, {"channels": [hook["id"]], "wait": _WAIT_S}]
    policy = api.post("/v1/policies", {"name": "Demo policy", "steps": steps})
    heartbeat = api.post(
        "/v1/heartbeats",
        {
            "name": "Nightly backup",
            "mode": "recurring",
            "interval": _INTERVAL_S,
            "grace": _GRACE_S,
            "policy": policy["id"],
        },
    )
    slug = str(heartbeat["slug"])
    stage.tell("policy", f"step 1: mail at once; step 2: webhook {_WAIT_S} s later")
    stage.tell("watching", f"{slug}: a check-in every {_INTERVAL_S} s, {_GRACE_S} s of grace")

    _check_in(stage, send, slug)
    time.sleep(_PAUSE_S)
    _check_in(stage, send, slug)
    stage.tell("silence", "now nobody checks in any more ...")
    stage.wait_for(_is_mail("Nightly backup"), "the mail of step 1", within_s=_PAGE_S)
    stage.wait_for(_is_hook("incident.opened", "incident.escalated"), "the webhook of step 2", within_s=_PAGE_S)

    _check_in(stage, send, slug)
    stage.wait_for(_is_mail("Nightly backup"), "the mail about the recovery", within_s=_RECOVERY_S)
    stage.wait_for(_is_hook("incident.resolved"), "the webhook about the recovery", within_s=_RECOVERY_S)
    stage.tell("done", "everybody who was told of the outage was told of its end", style="green")
    stage.tell("next", "lifesign serve, then open /docs or see lifesign heartbeats create --help")


def _check_in(stage: Stage, send: Send, slug: str) -> None:
    answer = check_in(send, Proof(slug, is_healthy=True))
    stage.tell("check-in", f"{slug} is {answer['status']}; next by {answer.get('nextDeadline')}")


def _is_mail(name: str) -> Callable[[Mail | Hook], bool]:
    return lambda arrived: isinstance(arrived, Mail) and arrived.recipient == _RECIPIENT and name in arrived.subject


def _is_hook(*kinds: str) -> Callable[[Mail | Hook], bool]:
    return lambda arrived: isinstance(arrived, Hook) and arrived.kind in kinds and arrived.is_signed


# The server ---------------------------------------------------------------------------------------------------------
def new_key() -> str:
    """An admin key for a server of ours."""
    return f"demo-{secrets.token_hex(16)}"


@dataclass(frozen=True, slots=True)
class Running:
    """A server of ours. setup_link: at its first start only."""

    url: str
    setup_link: str | None


@contextlib.contextmanager
def running(
    directory: Path, smtp_port: int, key: str, variables: Mapping[str, str] | None = None, *, port: int = 0
) -> Iterator[Running]:
    """A server of its own process, on a free port unless one is given. Raises CommandFailed."""
    data = directory / "data"
    is_first = not data.exists()
    # Whatever is set for a real server here must not reach this one, nor this one its database.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LIFESIGN_")} | {
        "LIFESIGN_ADMIN_KEY": key,
        "LIFESIGN_ALLOW_PRIVATE_TARGETS": "true",
        "LIFESIGN_SMTP_HOST": _ADDRESS,
        "LIFESIGN_SMTP_PORT": str(smtp_port),
        "LIFESIGN_SMTP_TLS": "none",
        "LIFESIGN_SMTP_FROM": "lifesign@example.org",
        **(variables or {}),
    }
    command = [
        sys.executable,
        "-m",
        "lifesign",
        "serve",
        "--host",
        _ADDRESS,
        "--port",
        str(port),
        "--data-dir",
        str(data),
    ]
    log_path = directory / "server.log"
    with log_path.open("wb") as log:
        # A session of its own: a Ctrl-C is for the demo, which then stops the server in order.
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=environment, start_new_session=True)  # noqa: S603 - our own
    try:
        printed = _printed(process, log_path, [_LISTENING, _SETUP] if is_first else [_LISTENING])
        yield Running(printed[0].split()[0], printed[1].strip() if is_first else None)
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _printed(process: subprocess.Popen[bytes], log_path: Path, wanted: Sequence[str]) -> list[str]:
    """The rests of the first lines that begin with each of these words."""
    assert process.stdout is not None  # noqa: S101 - it was asked for above; this tells the type checker
    give_up_at = time.monotonic() + _START_S
    printed = b""
    while (left := give_up_at - time.monotonic()) > 0:
        if not select.select([process.stdout], [], [], left)[0]:
            break
        chunk = os.read(process.stdout.fileno(), 4096)
        if not chunk:
            break
        printed += chunk
        lines = [each for each in printed.decode(errors="replace").splitlines(keepends=True) if each.endswith("\n")]
        found = [next((each for each in lines if each.startswith(word)), None) for word in wanted]
        if all(each is not None for each in found):
            return [(each or "").removeprefix(word) for each, word in zip(found, wanted, strict=True)]
    last = log_path.read_text(errors="replace").strip().splitlines()[-1:]
    raise CommandFailed(f"the demo failed: the server did not start{': ' + safe(last[0]) if last else ''}")


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


# The receivers ------------------------------------------------------------------------------------------------------
@contextlib.contextmanager
def mail_sink(stage: Stage) -> Iterator[int]:
    """A mail server that delivers to the stage; gives its port."""
    import asyncio
    from email import message_from_bytes, policy

    from aiosmtpd.smtp import SMTP

    class Handler:
        async def handle_DATA(self, server: "SMTP", session: "Session", envelope: "Envelope") -> str:  # noqa: ARG002, N802 - as aiosmtpd calls it
            message = message_from_bytes(envelope.original_content or b"", policy=policy.default)
            body = message.get_body(("plain",))
            for recipient in envelope.rcpt_tos:
                stage.arrivals.put(Mail(recipient, str(message["subject"]), body.get_content() if body else ""))
            return "250 taken"

    loop = asyncio.new_event_loop()
    handler = Handler()
    serving = loop.create_server(lambda: SMTP(handler, hostname="localhost", loop=loop), _ADDRESS, 0)
    server = loop.run_until_complete(serving)
    thread = threading.Thread(target=loop.run_forever, name="demo-mail", daemon=True)
    thread.start()
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_STOP_S)
        loop.close()


@contextlib.contextmanager
def hook_sink(stage: Stage) -> Iterator[str]:
    """A webhook receiver that delivers to the stage; gives its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = min(int(self.headers.get("content-length") or 0), _MAX_BODY_BYTES)
            content = self.rfile.read(length)
            hook = Hook(
                str(json.loads(content).get("type")), is_signed(stage.secret, dict(self.headers.items()), content)
            )
            stage.arrivals.put(hook)
            self.send_response(204 if hook.is_signed else 401)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with listening(Handler) as url:
        yield f"{url}/hook"


@contextlib.contextmanager
def listening(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    """The address of a server of our own, on a free port, that answers as `handler` does."""
    server = http.server.ThreadingHTTPServer((_ADDRESS, 0), handler)
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="demo-receiver", daemon=True
    )
    thread.start()
    try:
        yield f"http://{_ADDRESS}:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(_STOP_S)


def is_signed(secret: str, headers: Mapping[str, str], content: bytes) -> bool:
    """True for a good signature, as a receiver checks it. Source: Standard Webhooks 1.0, "Signature scheme"."""
    got = {name.lower(): value for name, value in headers.items()}
    signed = f"{got.get('webhook-id')}.{got.get('webhook-timestamp')}.".encode() + content
    digest = hmac.digest(base64.b64decode(secret.removeprefix("whsec_")), signed, hashlib.sha256)
    wanted = f"v1,{base64.b64encode(digest).decode()}"
    return any(hmac.compare_digest(wanted.encode(), each.encode()) for each in got.get("webhook-signature", "").split())
