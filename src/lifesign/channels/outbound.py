"""The HTTP client of the process: one request, bounded in time and size, judged by what happened on the wire.

It stands on httpcore2 rather than on the client of httpx2, for three things that only the lower layer has: a network
backend of our own (`channels.guard`), the moment right before a request is written, and the knowledge whether it was
written whole. It also keeps URLs out of the log, where httpx2 would write them.
"""

import asyncio
import contextlib
import email.utils
import functools
import re
import socket
import ssl
import unicodedata
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC
from pathlib import Path
from typing import Any, Final, Literal

import httpcore2
import httpx2

from lifesign import __version__
from lifesign.channels.guard import GuardedBackend, Resolver, policy_of
from lifesign.channels.sender import (
    CONNECT_TIMEOUT_S,
    MAX_ERROR_CHARACTERS,
    SEND_TIMEOUT_S,
    HttpReply,
    HttpRequest,
    Permanent,
    Retry,
    Unknown,
)
from lifesign.channels.targets import REFUSED, AddressRefused, BadUrl, parse_url
from lifesign.channels.wire import WireBackend
from lifesign.clock import EpochMs, from_datetime
from lifesign.settings import Settings

MAX_BODY_BYTES: Final = 64 * 1024
DEFAULT_AFTER_429_MS: Final = 30_000

# More than all slots of the engine together (spec "Engine", section 7), so that only a leak can exhaust them.
_MAX_CONNECTIONS: Final = 100
_MAX_IDLE_CONNECTIONS: Final = 32
# Short, because servers close idle connections after 5 s and more, and a request that meets the close ends unknown.
_IDLE_S: Final = 4.0

_SET_BY_CLIENT: Final = frozenset({"host", "content-length", "connection", "transfer-encoding"})

_TOO_MANY_REQUESTS: Final = 429
_REQUEST_TIMEOUT: Final = 408
_TOO_EARLY: Final = 425

Phase = Literal["connect", "tls", "write", "reply", "body"]


class CaFileUnusable(Exception):
    """`LIFESIGN_CA_FILE` cannot be read or holds no certificates; the server must not start without its roots."""


def _nothing() -> None:
    pass


@dataclass(slots=True)
class _Exchange:
    """How far one request got, told by the trace events of httpcore2."""

    on_write: Callable[[], Awaitable[None]] | None
    on_written: Callable[[], None]
    max_body_bytes: int = MAX_BODY_BYTES
    phase: Phase = "connect"
    own_fault: BaseException | None = None
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    is_whole: bool = False

    # Any: the details of an event differ by event, and none of them is used.
    async def trace(self, event: str, _details: Mapping[str, Any]) -> None:
        match event:
            case "connection.start_tls.started":
                self.phase = "tls"
            case "http11.send_request_headers.started":
                self.phase = "write"
                await self._announce()
            case "http11.send_request_body.complete":
                self.phase = "reply"
                self.on_written()

    async def _announce(self) -> None:
        if self.on_write is None:
            return
        try:
            await self.on_write()
        except BaseException as error:
            self.own_fault = error
            raise


class OutboundClient:
    """Implements `sender.Outbound`. Two pools: one behind the guard, one for addresses the operator set."""

    def __init__(
        self,
        settings: Settings,
        *,
        resolver: Resolver | None = None,
        on_written: Callable[[], None] = _nothing,
        total_timeout_s: float = SEND_TIMEOUT_S,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        tls = tls_context(settings.ca_file)
        self._guarded = _pool(tls, GuardedBackend(policy_of(settings), resolver))
        self._unguarded = _pool(tls, WireBackend())
        self._on_written = on_written
        self._total_timeout_s = total_timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._max_body_bytes = max_body_bytes

    async def get(
        self, url: str, headers: Mapping[str, str], *, guarded: bool = True
    ) -> HttpReply | Retry | Permanent | Unknown:
        """Ask once, as `post` does."""
        return await self._send("GET", HttpRequest(url, headers, b""), guarded=guarded)

    async def post(
        self,
        request: HttpRequest,
        *,
        guarded: bool = True,
        on_write: Callable[[], Awaitable[None]] | None = None,
    ) -> HttpReply | Retry | Permanent | Unknown:
        """See `sender.Outbound`. What `on_write` raises is passed on: that is no fault of the network."""
        return await self._send("POST", request, guarded=guarded, on_write=on_write)

    async def _send(
        self,
        method: Literal["GET", "POST"],
        request: HttpRequest,
        *,
        guarded: bool,
        on_write: Callable[[], Awaitable[None]] | None = None,
    ) -> HttpReply | Retry | Permanent | Unknown:
        exchange = _Exchange(on_write, self._on_written, self._max_body_bytes)
        try:
            wire_request = self._wire_request(method, request, exchange)
        except BadUrl:
            # Checked at save, so this is Slack's response_url, or a URL stored under older rules.
            return _refused() if guarded else Permanent("the address set by the operator is not a URL", "bad_address")
        failure: Retry | Permanent | Unknown = Unknown("the answer could not be read")
        try:
            async with asyncio.timeout(self._total_timeout_s):
                await _perform(self._guarded if guarded else self._unguarded, wire_request, exchange)
        except AddressRefused:
            failure = _refused()
        except _NETWORK_FAULTS as error:
            if error is exchange.own_fault:
                raise
            failure = judge_failure(error, exchange.phase)
        # A status that arrived counts, whatever became of the body.
        if exchange.status is not None:
            return HttpReply(exchange.status, exchange.headers, bytes(exchange.body), exchange.is_whole)
        return failure

    async def aclose(self) -> None:
        """Close every connection."""
        await self._guarded.aclose()
        await self._unguarded.aclose()

    def _wire_request(self, method: str, request: HttpRequest, exchange: _Exchange) -> httpcore2.Request:
        target = parse_url(request.url)
        headers = [("Host", target.host_header), *_without(request.headers, _SET_BY_CLIENT)]
        names = {name.lower() for name, _ in headers}
        if "user-agent" not in names:
            headers.append(("User-Agent", f"Lifesign/{__version__}"))
        if "accept" not in names:
            headers.append(("Accept", "*/*"))
        if method != "GET":
            headers.append(("Content-Length", str(len(request.content))))
        return httpcore2.Request(
            method,
            httpcore2.URL(scheme=target.scheme, host=target.host, port=target.port, target=target.raw_path),
            # Blanks around a value are no part of it (RFC 9110, 5.5), and the protocol library refuses to write them.
            headers=[(name.encode("ascii"), value.strip().encode()) for name, value in headers],
            content=request.content,
            extensions={
                "timeout": {"connect": self._connect_timeout_s, "pool": self._connect_timeout_s},
                "trace": exchange.trace,
            },
        )


def judge_failure(error: Exception, phase: Phase) -> Retry | Permanent | Unknown:
    """The outcome of a request without an answer, by how far it got. `TimeoutError`: the total time ran out.

    Source: spec "Channels", section 1, "Event on the wire". The words are ours: a library's could hold the address.
    """
    timed_out = isinstance(error, TimeoutError | httpcore2.TimeoutException)
    match phase:
        case "connect" if isinstance(error, httpcore2.PoolTimeout):
            return Retry("all connections are busy", "connect")
        case "connect" | "tls" if timed_out:
            return Retry("connecting timed out", "connect")
        case "connect":
            return Retry(_connect_words(error), "connect")
        case "tls":
            return Retry(_tls_words(error), "tls")
        case "write" if isinstance(error, httpcore2.LocalProtocolError):
            return Permanent("the request has a header that cannot be sent", "bad_request")
        case "write":
            return Retry("timed out while sending" if timed_out else "connection lost while sending", "write")
        case "reply" | "body":
            return Unknown("no answer in time" if timed_out else "connection lost before the answer")


def judge_common(reply: HttpReply, now: EpochMs) -> Retry | Permanent | None:
    """The outcome of the statuses that mean the same to every channel type, or None.

    Source: spec "Channels", section 1, "Event on the wire".
    """
    status, code = reply.status, str(reply.status)
    after_ms = retry_after_ms(reply.headers.get("retry-after"), now)
    why = clean_text(reply.body) or f"answered with status {status}"
    if status == _TOO_MANY_REQUESTS:
        return Retry(why, code, DEFAULT_AFTER_429_MS if after_ms is None else after_ms, http_status=status)
    if status in (_REQUEST_TIMEOUT, _TOO_EARLY) or status // 100 == 5:  # noqa: PLR2004 - 5xx
        return Retry(why, code, after_ms, http_status=status)
    if status // 100 == 3:  # noqa: PLR2004 - 3xx
        return Permanent("redirect is not followed", code, http_status=status)
    return None


def retry_after_ms(value: str | None, now: EpochMs) -> int | None:
    """The delay a `Retry-After` header asks for: seconds or an HTTP date; None when absent or unreadable."""
    if value is None:
        return None
    text = value.strip()
    if re.fullmatch(r"[0-9]{1,9}", text):
        return int(text) * 1000
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:  # "-0000": UTC of an unknown place (RFC 5322, 3.3)
        moment = moment.replace(tzinfo=UTC)
    return max(from_datetime(moment) - now, 0)


# Cut before the patterns run, so that a hostile answer cannot make them slow.
_CLEANED_CHARACTERS: Final = 2 * MAX_ERROR_CHARACTERS
_PATHS: Final = (
    # [scheme:]//[user@]host/path: the host is kept
    (
        re.compile(r"(?i)((?:\b[a-z][a-z0-9+.-]{1,19}:)?//)(?:[^\s/?#@\"'<>]*@)?([^\s/?#@\"'<>]+)[^\s\"'<>]*"),
        r"\1\2/...",
    ),
    # host.name/path
    (re.compile(r"(?i)(?<![\w/.@-])((?:[\w-]{1,63}\.){1,8}[a-z]{2,20}(?::[0-9]{1,5})?)[/?][^\s\"'<>]+"), r"\1/..."),
    # /path, as error pages quote it; not the end tags of HTML
    (re.compile(r"(?<![\w/<.])/(?!\.\.\.|/)[^\s\"'<>]+"), "/..."),
)


def clean_text(answer: bytes | str) -> str:
    """What may be kept of a provider's answer: at most 500 characters, nothing unprintable, no path of any URL."""
    text = answer[: 4 * _CLEANED_CHARACTERS].decode("utf-8", "replace") if isinstance(answer, bytes) else answer
    text = "".join(_printable(character) for character in text[:_CLEANED_CHARACTERS])
    text = " ".join(text.replace("\\/", "/").split())  # "\/": how some write slashes in JSON
    for pattern, kept in _PATHS:
        text = pattern.sub(kept, text)
    return text[:MAX_ERROR_CHARACTERS]


_NETWORK_FAULTS: Final = (
    OSError,  # with TimeoutError, and what httpcore2 leaves as it is
    UnicodeError,  # a name that no DNS message can carry
    httpcore2.TimeoutException,
    httpcore2.NetworkError,
    httpcore2.ProtocolError,
    httpcore2.UnsupportedProtocol,
)


def _pool(tls: ssl.SSLContext, backend: httpcore2.AsyncNetworkBackend) -> httpcore2.AsyncConnectionPool:
    return httpcore2.AsyncConnectionPool(
        ssl_context=tls,
        max_connections=_MAX_CONNECTIONS,
        max_keepalive_connections=_MAX_IDLE_CONNECTIONS,
        keepalive_expiry=_IDLE_S,
        network_backend=backend,
    )


@functools.lru_cache(maxsize=4)
def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """Trust the system's roots and those of `ca_file`; nothing from the environment. Kept: reading them takes long."""
    context = httpx2.create_ssl_context(trust_env=False)
    if ca_file is not None:
        try:
            context.load_verify_locations(cafile=ca_file)
        except (OSError, ssl.SSLError) as error:
            raise CaFileUnusable(f"{ca_file} cannot be used as LIFESIGN_CA_FILE") from error
    return context


async def _perform(pool: httpcore2.AsyncConnectionPool, request: httpcore2.Request, exchange: _Exchange) -> None:
    response = await pool.handle_async_request(request)
    try:
        # Latin-1 reads every byte there can be in a header.
        exchange.headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
        exchange.status, exchange.phase = response.status, "body"
        async with contextlib.aclosing(response.aiter_stream()) as chunks:
            async for chunk in chunks:
                exchange.body += chunk[: exchange.max_body_bytes - len(exchange.body)]
                if len(exchange.body) >= exchange.max_body_bytes:
                    break
            else:
                exchange.is_whole = True
    finally:
        # A connection whose answer was not read to its end is closed here, not kept.
        await response.aclose()


def _refused() -> Permanent:
    return Permanent(REFUSED, "blocked_address", disable=True)


def _connect_words(error: BaseException) -> str:
    causes = _causes(error)
    if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        return "connection refused"
    if any(isinstance(cause, socket.gaierror | UnicodeError) for cause in causes):
        return "name not found"
    return "host not reachable"


def _tls_words(error: BaseException) -> str:
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in _causes(error)):
        return "the certificate is not trusted"
    return "TLS failed"


def _causes(error: BaseException) -> list[BaseException]:
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__
    return causes


def _without(headers: Mapping[str, str], names: frozenset[str]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in headers.items() if name.lower() not in names]


def _printable(character: str) -> str:
    if character.isspace():
        return " "
    return "" if unicodedata.category(character)[0] == "C" else character
