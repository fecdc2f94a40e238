"""uvicorn's HTTP protocol, with a short way for direct routes.

What a request costs without it: a task, ASGI's messages and their checks, a response's headers as a list, twice.
Measured at 64 connections, that is as much as everything else about a check-in. The short way is taken by requests that
are small, whole, not pipelined behind an unfinished one, and plainly right; all others are given to uvicorn as if
nothing had looked at them before.
"""

import asyncio
import random
import re
from collections.abc import Iterable, Sequence
from typing import Any, cast
from urllib.parse import unquote

import httptools
from starlette.responses import Response
from uvicorn._types import HTTPScope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from lifesign.db import Database
from lifesign.db.patience import Patience, Wait
from lifesign.http.direct import Asked, DirectRoute, Work

REQUEST_ID_HEADER = b"x-request-id"
FAILED = "failed"
"""Key of a scope's state under which the edge finds what has gone wrong before it was asked, or while it reads."""
_UPGRADES = frozenset({b"upgrade", b"http2-settings"})
"""Headers, and what they are called in `Connection`, by which a client offers to go on in another protocol."""
MOST_HEAD_BYTES = 65_536
"""Of a request that are kept before its head is whole; the parser itself would take any number."""
_BEGUN = -1
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_random = random.Random()  # noqa: S311 - see request_id_of


class RequestBroken(Exception):
    """What came is no HTTP: the head of a request, or how its body is framed. Where the next begins nobody knows."""


def request_id_of(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The id that a request brought along, or a new one."""
    for name, value in headers:
        if name == REQUEST_ID_HEADER and _REQUEST_ID.fullmatch(value):
            return value
    # A name, not a secret: asking the system for randomness takes a twentieth of a check-in.
    return b"req_%032x" % _random.getrandbits(128)


def protocol_for(db: Database, routes: Sequence[DirectRoute]) -> type[HttpToolsProtocol]:
    """Uvicorn's protocol for a server that has these direct routes."""
    return type("BoundDirectProtocol", (DirectProtocol,), {"db": db, "routes": tuple(routes)})


class DirectProtocol(HttpToolsProtocol):
    """One connection."""

    db: Database
    routes: tuple[DirectRoute, ...]
    _coming: "_Call | None" = None
    _has_head: bool = False
    """Whether what comes next belongs to a request that somebody answers: to its body."""
    _is_broken: bool = False
    _head_bytes: int | None = None
    """Of a head that is not whole yet, without what it began with; None between heads."""
    _idle_since: float | None = None

    def on_message_begin(self) -> None:
        """A request begins. What the app is told of it is made when the app is asked."""
        self._has_head = False
        self._head_bytes = _BEGUN
        self.url = b""
        self.expect_100_continue = False
        self.headers = []

    def on_headers_complete(self) -> None:
        """Decide which way a request goes. Its body, if any, is still to come."""
        self._head_bytes = None
        if self._is_offer_declined():
            return
        route, before = self._route(), self.cycle
        if route is None:
            self._coming = None
            self.scope = self._new_scope(self.headers)
            super().on_headers_complete()
        else:
            self._coming = _Call(self, route)
            # What uvicorn asks of its cycles, ours answers as well.
            self.cycle = cast("RequestResponseCycle", self._coming)
        # None was made for what goes on in another protocol.
        self._has_head = self.cycle is not before

    def _new_scope(self, headers: list[tuple[bytes, bytes]]) -> HTTPScope:
        """What uvicorn begins a request with. The one that is being parsed may be another: it is left alone."""
        kept = self.scope, self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        scope = self.scope
        self.scope, self.url, self.headers, self.expect_100_continue = kept
        scope["headers"] = headers
        return scope

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        if self._coming is None:
            super().on_body(body)
        else:
            self._coming.body += body

    def on_message_complete(self) -> None:
        """The request is whole."""
        if self._is_offer_declined():
            return
        self._has_head = False
        call, self._coming = self._coming, None
        if call is None:
            super().on_message_complete()
        elif not call.start():
            self.hand_over(call, None)

    def _route(self) -> DirectRoute | None:
        """The direct route that may look at a request of which the headers are known."""
        url = self.url
        for route in self.routes:
            if route.pattern.fullmatch(url):
                break
        else:
            return None
        parser = self.parser
        if (
            self._is_busy()
            or self.expect_100_continue
            or self.flow.write_paused
            or self.root_path
            or parser.get_method() not in route.methods
            or parser.get_http_version() != "1.1"
        ):
            return None
        for name, value in self.headers:
            if name == b"transfer-encoding" or (name == b"content-length" and not _is_at_most(value, route.most_bytes)):
                return None
        return route

    def on_response_complete(self) -> None:
        """Go on with the next request; an idle connection is closed after a while."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
            return
        # One timer that looks again, where uvicorn sets one after each answer and takes it back at the next request.
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._look_again_in(self.timeout_keep_alive)

    def _look_again_in(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection if nothing has come since the last answer for as long as that is borne."""
        self.timeout_keep_alive_task = None
        if self._idle_since is not None:
            left = self._idle_since + self.timeout_keep_alive - self.loop.time()
            if left > 0:
                self._look_again_in(left)
            else:
                super().timeout_keep_alive_handler()

    def data_received(self, data: bytes) -> None:
        """Take what has come."""
        if self._is_broken:
            return
        self._idle_since = None
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                if self._is_offer_declined():
                    data = self._without_offer() + data[upgrade.args[0] :]
                    continue
                if self._should_upgrade():
                    self.handle_websocket_upgrade()
            except httptools.HttpParserError as error:
                # What our own callbacks raised says nothing to whoever sent this.
                reason = "" if isinstance(error, httptools.HttpParserCallbackError) else f": {error}"
                self._break_off(RequestBroken(f"The request is not valid HTTP{reason}"))
            else:
                self._count_head(len(data))
            return

    def _count_head(self, size: int) -> None:
        """Break off a head that goes on and on. size: of what has just come."""
        if self._head_bytes == _BEGUN:
            # Most of what has just come may be of the request before.
            self._head_bytes = 0
        elif self._head_bytes is not None:
            self._head_bytes += size
            if self._head_bytes > MOST_HEAD_BYTES:
                self._break_off(RequestBroken(f"The head of the request has more than {MOST_HEAD_BYTES} bytes"))

    def _break_off(self, broken: RequestBroken) -> None:
        """Have the app tell what is wrong with what came, in its turn, and hang up. What follows is not looked at."""
        self._is_broken = True
        self.logger.warning("Invalid HTTP request received.")
        if not self._has_head:
            self._answer_in_turn(broken)
        elif self.cycle.response_complete:
            self.transport.close()
        else:
            # Whoever is reading the body finds it at the next step.
            self.cycle.keep_alive = False
            self.cycle.scope["state"][FAILED] = broken
            self.cycle.message_event.set()

    def _answer_in_turn(self, error: Exception) -> None:
        """Let the app tell what has gone wrong with a request of which there is no whole head."""
        scope = self._new_scope(self.headers)
        scope["method"] = self.parser.get_method().decode("ascii") if self.url else "GET"
        path = _path_in(self.url)
        scope["path"], scope["raw_path"], scope["query_string"] = path, path.encode(), b""
        scope["state"][FAILED] = error
        is_busy = self._is_busy()
        self.cycle = self._new_cycle(scope, keep_alive=False)
        if is_busy:
            self.pipeline.appendleft((self.cycle, self.app))
        else:
            self._start_asgi_task(self.cycle, self.app)

    # A client may offer to go on in another protocol: Java's does with each request, in HTTP/2. Who does not take that
    # up answers as if nothing had been said, body and all. The parser stops at such a request, so another goes on.
    def _should_upgrade(self) -> bool:
        return self.parser.get_method() == b"GET" and super()._should_upgrade()

    def _is_offer_declined(self) -> bool:
        parser = self.parser
        return parser.should_upgrade() and parser.get_method() != b"CONNECT" and not self._should_upgrade()

    def _without_offer(self) -> bytes:
        """The head of the request that was just parsed, without its offer, for a parser that knows nothing of it."""
        parser, version = self.parser, self.parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (parser.get_method(), self.url, version)]
        for name, value in self.headers:
            if name == b"connection":
                options = [each for each in value.split(b",") if each.strip().lower() not in _UPGRADES]
                lines += [b"connection:%b" % b",".join(options)] if options else []
            elif name not in _UPGRADES:
                lines.append(b"%b: %b" % (name, value))
        self.parser = httptools.HttpRequestParser(self)
        # As uvicorn has it: a client may send on after it asked to close.
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return b"\r\n".join([*lines, b"", b""])

    def _unset_keepalive_if_required(self) -> None:
        # uvicorn asks for it whenever something comes; our timer finds out by itself.
        pass

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of everything."""
        super().connection_lost(exc)
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None

    def _is_busy(self) -> bool:
        # None before the first request, whatever its type says.
        cycle = cast("RequestResponseCycle | None", self.cycle)
        return cycle is not None and not cycle.response_complete

    def answer(self, call: "_Call", response: Response) -> None:
        """Send an answer in one piece."""
        pieces = [STATUS_LINE[response.status_code]]
        pieces += [b"%b: %b\r\n" % each for each in self.server_state.default_headers]
        pieces += [b"%b: %b\r\n" % each for each in response.raw_headers]
        end = b"" if call.keep_alive else b"connection: close\r\n"
        pieces.append(b"%b: %b\r\n%b\r\n" % (REQUEST_ID_HEADER, request_id_of(call.headers), end))
        if call.method != "HEAD":
            pieces.append(bytes(response.body))
        if not self.transport.is_closing():
            self.transport.write(b"".join(pieces))
        call.response_complete = True
        if not call.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def hand_over(self, call: "_Call", error: Exception | None) -> None:
        """Let the app answer a request after all: as if it had just come, or with what has gone wrong."""
        scope = self._new_scope(call.headers)
        scope["method"] = call.method
        scope["path"], scope["raw_path"], scope["query_string"] = call.path, call.path.encode(), b""
        if error is not None:
            scope["state"][FAILED] = error
        cycle = self._new_cycle(scope, keep_alive=call.keep_alive)
        cycle.body, cycle.more_body = call.body, False
        cycle.message_event.set()
        cycle.disconnected = call.disconnected
        if self.cycle is cast("RequestResponseCycle", call):
            self.cycle = cycle
        self._start_asgi_task(cycle, self.app)

    def _new_cycle(self, scope: HTTPScope, *, keep_alive: bool) -> RequestResponseCycle:
        return RequestResponseCycle(
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=keep_alive,
            on_response=self.on_response_complete,
        )


def _path_in(target: bytes) -> str:
    """The path that a request asks for, as far as it came; empty where it cannot be told."""
    try:
        path = httptools.parse_url(target).path or b""
    except httptools.HttpParserError:
        return ""
    # Whatever the bytes are: only what owns the path is looked up.
    return unquote(path.decode("latin-1"))


def _is_at_most(value: bytes, limit: int) -> bool:
    return value.isdigit() and int(value) <= limit


class _NobodyWaits:
    """What uvicorn wakes when a connection is lost: on the short way nobody is asleep."""

    def set(self) -> None:
        pass


_NOBODY_WAITS = _NobodyWaits()


class _Call:
    """One request on the short way; to uvicorn, its cycle."""

    __slots__ = (
        "_patience",
        "_protocol",
        "_route",
        "_wait",
        "_work",
        "body",
        "disconnected",
        "headers",
        "keep_alive",
        "message_event",
        "method",
        "path",
        "response_complete",
    )

    def __init__(self, protocol: DirectProtocol, route: DirectRoute) -> None:
        self._protocol = protocol
        self._route = route
        self._work: Work | None = None
        self._patience: Patience | None = None
        self._wait: Wait | None = None
        self.method = protocol.parser.get_method().decode("ascii")
        self.path = protocol.url.decode("ascii")
        self.headers = protocol.headers
        self.body = bytearray()
        self.keep_alive: bool = protocol.parser.should_keep_alive()
        self.message_event = _NOBODY_WAITS
        self.disconnected = False
        self.response_complete = False

    def start(self) -> bool:
        """Hand the work to the writer; False when the request has to take the ordinary way."""
        protocol = self._protocol
        peer = "" if protocol.client is None else protocol.client[0]
        asked = Asked(self.method, self.path, self.headers, bytes(self.body), peer, protocol.scheme or "http")
        try:
            work = self._route.work(asked)
            if work is None:
                return False
            self._work = work
            protocol.db.post_batched(work.record, work.item, self._done)
        except Exception:  # noqa: BLE001 - the ordinary way meets the same one, and knows how to tell it
            self._work = None
            return False
        self._patience = self._route.patience()
        if self._patience is not None:
            self._wait = self._patience.begin(self._expired)
        return True

    def _expired(self) -> None:
        self._over(TimeoutError())

    def _done(self, outcome: Any) -> None:  # Any: as in Work
        if self._patience is not None and self._wait is not None:
            self._patience.over(self._wait)
        self._over(outcome)

    def _over(self, outcome: Any) -> None:
        work, self._work = self._work, None
        if work is None:
            # Too late: somebody was told that it took too long.
            return
        try:
            response = work.failed(outcome) if isinstance(outcome, Exception) else work.told(outcome)
        except Exception as error:  # noqa: BLE001 - told by the edge
            self._protocol.hand_over(self, error)
            return
        if response is None:
            self._protocol.hand_over(self, None)
        else:
            self._protocol.answer(self, response)
