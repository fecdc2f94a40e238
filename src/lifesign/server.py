"""The server process: sockets, signals, and the order in which everything starts and stops."""

import asyncio
import contextlib
import gc
import os
import shutil
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Literal, cast

import httptools  # noqa: F401 - required: without it uvicorn falls back to a parser several times slower
import structlog
import uvicorn
import uvloop
from starlette.types import ASGIApp

from lifesign import __version__, log
from lifesign.app import Node, admin_socket, open_node, operator_way_in
from lifesign.channels.outbound import CaFileUnusable
from lifesign.db.migrate import SchemaTooNew
from lifesign.db.open import DataDirectoryInUse, data_directory_lock, is_postgres
from lifesign.http.protocol import protocol_for
from lifesign.pings.mail import MailServer
from lifesign.pings.service import Pings
from lifesign.secretfile import SecretKeyUnusable
from lifesign.settings import Settings, misspelt
from lifesign.vitals.sessions import MAX_MESSAGE_BYTES
from lifesign.web.live import Live

logger = structlog.get_logger("lifesign.server")

_DRAIN_S = 20
# How long a thread works while another one waits, where Python would let it for 5 ms. A check-in changes threads
# several times: beside spans that are being decoded its p99 was 32 ms, and is 18 ms with this; alone it is as quick as
# before.
_TURN_S = 0.001
_BACKLOG = 2048
# sockaddr_un holds 108 bytes, the last of them a NUL.
_LONGEST_SOCKET_PATH = 107
_LOOPBACK = {"127.0.0.1", "::1", "localhost"}


class CannotStart(Exception):
    """Something about the settings or the machine keeps the server from starting; the message says what to do."""


def run(settings: Settings) -> int:
    """Serve until told to stop; the exit code of the process."""
    log.configure(settings.log_format, settings.log_level)
    sys.setswitchinterval(_TURN_S)
    try:
        _check_testing(settings)
        for name, meant in misspelt(os.environ).items():
            logger.warning("settings.ignored", reason=f"{name} is no setting; did you mean {meant}?")
        with nullcontext() if is_postgres(settings) else data_directory_lock(settings.data_dir):
            return uvloop.run(_serve(settings))
    except (CannotStart, DataDirectoryInUse, SchemaTooNew, SecretKeyUnusable, CaFileUnusable) as error:
        print(f"lifesign: {error}", file=sys.stderr)
        return 1


def _check_testing(settings: Settings) -> None:
    if settings.testing:
        if settings.host not in _LOOPBACK:
            msg = f"LIFESIGN_TESTING=1 is for loopback only, not for {settings.host}"
            raise CannotStart(msg)
    elif settings.clock != "system" or settings.clock_start or settings.failpoints:
        logger.warning("settings.ignored", reason="LIFESIGN_CLOCK, CLOCK_START and FAILPOINTS need LIFESIGN_TESTING=1")


async def _serve(settings: Settings) -> int:
    # Before the database: the first start makes a key that is shown once, and must then be able to show it.
    with contextlib.closing(_listener(settings.host, settings.port)) as listener:
        return await _serve_on(listener, settings)


async def _serve_on(listener: socket.socket, settings: Settings) -> int:
    try:
        node = await open_node(settings, is_alone=True)
        _spare_the_collector()
    except ValueError as error:
        raise CannotStart(str(error)) from error
    except Exception as error:
        if type(error).__module__.startswith(("sqlalchemy", "psycopg")):
            logger.debug("database.unreachable", exc_info=True)
            msg = f"the database cannot be opened: {getattr(error, 'orig', error)}"
            raise CannotStart(msg) from error
        raise
    try:
        return await _run_node(node, listener)
    finally:
        await node.close()


def _spare_the_collector() -> None:
    """Take all that was made so far out of the garbage collector's sight: it stays until the process ends.

    Without this, each full collection walks half a million objects of libraries and stops the server for 100 ms:
    check-ins had a p99 of 90 ms at 64 connections, and have one of 17 ms with it. What is made later is looked at after
    every 10,000 objects, where Python's own 700 come together in a dozen requests: that is a twentieth of a check-in.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


@contextlib.asynccontextmanager
async def _taking_mail(node: Node) -> AsyncIterator[None]:
    """Pings by e-mail, where they are wanted."""
    settings = node.settings
    if settings.ping_smtp_listen is None:
        yield
        return
    host, _, port = settings.ping_smtp_listen.rpartition(":")
    try:
        server = MailServer(
            settings, node.clock, node.db, keyring=node.keyring, pings=cast("Pings", node.api.state.pings)
        )
        taken = await server.listen(host.strip("[]"), int(port))
    except (OSError, ssl.SSLError) as error:
        raise CannotStart(f"cannot take mail on {settings.ping_smtp_listen}: {error}") from error
    print(f"taking pings by e-mail on {host}:{taken}")
    try:
        yield
    finally:
        await server.close()


async def _run_node(node: Node, listener: socket.socket) -> int:
    async with _taking_mail(node):
        return await _serve_node(node, listener)


async def _serve_node(node: Node, listener: socket.socket) -> int:
    settings = node.settings
    servers = [(uvicorn_server(node.app, protocol_for(node.db, node.direct)), [listener])]
    with _admin_listener(settings) as admin:
        if admin is not None:
            servers.append((uvicorn_server(operator_way_in(node)), [admin]))
        stopping = _stop_on_signals()
        node.db.listen()
        node.driver.start()
        serving = [asyncio.create_task(server.serve(sockets=sockets)) for server, sockets in servers]
        _announce(node, listener)
        stop = asyncio.create_task(stopping.wait())
        await asyncio.wait([stop, *serving], return_when=asyncio.FIRST_COMPLETED)
        logger.info("server.stopping")
        for server, _ in servers:
            server.should_exit = True
        # Streams of open pages end by themselves only when they are told to.
        cast("Live", node.api.state.live).close()
        await asyncio.gather(node.driver.stop(), *serving)
        stop.cancel()
    logger.info("server.stopped")
    return 0


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: two servers run here, and the engine stops beside them."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def uvicorn_server(
    app: ASGIApp, protocol: type[asyncio.Protocol] | Literal["httptools"] = "httptools"
) -> uvicorn.Server:
    """A server of uvicorn as this product runs it. protocol: of each connection."""
    return _Server(
        uvicorn.Config(
            app,
            loop="uvloop",
            http=protocol,
            ws="websockets-sansio",
            # The only thing that is streamed here are numbers; spec "Vitals", section 5.4.
            ws_max_size=MAX_MESSAGE_BYTES,
            ws_per_message_deflate=False,
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            # Nothing here asks for the caller's address, so nothing need be trusted about it.
            proxy_headers=False,
            timeout_graceful_shutdown=_DRAIN_S,
            timeout_keep_alive=75,
        )
    )


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        why = error.strerror if isinstance(error, OSError) else error
        raise CannotStart(f"cannot listen on {host}:{port}: {why}; choose another with --port") from error
    listener.listen(_BACKLOG)
    return listener


@contextmanager
def _admin_listener(settings: Settings) -> Iterator[socket.socket | None]:
    """The operator's socket, for its owner only; with PostgreSQL the operator's commands open the database."""
    if is_postgres(settings):
        yield None
        return
    path = admin_socket(settings)
    if len(os.fsencode(path)) > _LONGEST_SOCKET_PATH:
        logger.warning("admin_socket.left_out", reason="the path of the data directory is too long for a socket")
        yield None
        return
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        mask = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(mask)
        listener.listen(16)
        yield listener
    finally:
        listener.close()
        path.unlink(missing_ok=True)


def _stop_on_signals() -> asyncio.Event:
    """Set at the first SIGTERM or SIGINT; the second one ends the process at once."""
    stopping = asyncio.Event()

    def on_signal() -> None:
        if stopping.is_set():
            os._exit(1)
        stopping.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    return stopping


def _command() -> str:
    """How the command was called: `make serve` calls one that is not on the path of the person who reads this."""
    called = Path(sys.argv[0])
    return str(called) if called.name == "lifesign" and shutil.which("lifesign") != str(called) else "lifesign"


def _announce(node: Node, listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    print(f"Lifesign {__version__}")
    print(f"listening on http://{shown}:{port}  (docs: http://{shown}:{port}/docs)")
    if node.new_admin_key is not None:
        print(f"admin key: {node.new_admin_key}")
        print(f"           shown this once; keep it. More keys: {_command()} keys create --name NAME")
    if node.new_setup_token is not None:
        base = node.settings.public_url or f"http://{shown}:{port}"
        print(f"setup link: {base}/setup/{node.new_setup_token}")
        later = f"{_command()} users add EMAIL"
        print(f"            works once; makes the account of the web interface's owner. Later: {later}")
    sys.stdout.flush()
    logger.info(
        "server.started", version=__version__, node_id=node.id, database="sqlite" if node.db.is_sqlite else "postgresql"
    )
