"""The edge of the app: request ids, the log line of each request, and the last resort for errors."""

import asyncio
import contextlib
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lifesign.audit import service as audit
from lifesign.audit.rules import WRITES, Via
from lifesign.clock import Clock
from lifesign.envelopes import error_response, telemetry, vitals
from lifesign.envelopes.failures import INTERNAL, failure_of
from lifesign.http.context import context_of
from lifesign.http.protocol import FAILED, REQUEST_ID_HEADER, request_id_of

log = structlog.get_logger("lifesign.http")

_SERVER_ERROR = 500
# So many that a line for each would be all the log says.
_COUNTED = ("/checkin", "/progress", "/api/systems/heartbeat", "/v1/traces")
_METHOD_NOT_ALLOWED = 405
_CLOSING = {400, 408, 413}
_CLOSE = (b"connection", b"close")
_LAST_WORDS_S = 2.0
# Whoever knows what follows may do something.
_MANAGEMENT = re.compile(r"/api/v[123]/")
_PING_ID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
# Below it are names that senders chose; its route knows what became of U+0000 in them.
_NAMED_BY_OTHERS = "/v1/sessions/"
_TELLING = ("/a/", "/ping/", "/projects/", "/setup/")
# Keys and codes belong nowhere in a path, which keeps nobody from putting them there.
_SECRET = re.compile(r"(?:lsk_|lk_ingest_|lk_agent_|beam_)[\w-]{8,}|(?<![0-9A-Fa-f])[0-9A-Fa-f]{64}(?![0-9A-Fa-f])")


@dataclass(frozen=True, slots=True)
class HotRoute:
    """A route that requests reach without passing the layers of the framework, which take longer than a check-in.

    app: what the endpoint finds in `request.app`; it has the same route, for every request that does not match here.
    """

    app: ASGIApp
    methods: frozenset[str]
    path: re.Pattern[str]
    endpoint: Callable[[Request], Awaitable[Response]]

    def matches(self, scope: Scope) -> bool:
        """Whether the request is for this route; notes in `scope` what the framework would note."""
        found = self.path.fullmatch(scope["path"]) if scope["method"] in self.methods else None
        if found is None:
            return False
        scope["app"], scope["path_params"] = self.app, found.groupdict()
        return True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request that matches."""
        response = await self.endpoint(Request(scope, receive, send))
        await response(scope, receive, send)


class Edge:
    """The outermost layer. Everything that leaves passes here and carries `X-Request-Id`."""

    def __init__(self, app: ASGIApp, clock: Clock, hot: Sequence[HotRoute] = ()) -> None:
        self._app = app
        self._clock = clock
        self._hot = hot

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent_id = request_id_of(scope["headers"])
        request_id = sent_id.decode("ascii")
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        header = (REQUEST_ID_HEADER, sent_id)
        began = time.perf_counter()
        status = 0
        is_closing = False

        async def receive_whole() -> Message:
            message = await receive()
            if FAILED in state:
                # Of what came by then nobody knows what is missing.
                raise state[FAILED]
            return message

        async def send_with_id(message: Message) -> None:
            nonlocal status, is_closing
            if message["type"] == "http.response.start":
                status = message["status"]
                is_closing = status in _CLOSING and _CLOSE in message["headers"]
                message["headers"] = [*message["headers"], *scope["state"].get("headers", ()), header]
            elif is_closing and not message.get("more_body", False):
                await _last_words(message, receive, send)
                return
            await send(message)

        try:
            app = self._app_for(scope)
            if scope["method"] == "HEAD" and _takes_head(scope["path"]):
                # The framework knows HEAD on plain routes only.
                await app({**scope, "method": "GET"}, receive_whole, _without_body(send_with_id))
            elif scope["method"] in WRITES:
                with audit.watching(scope["method"], scope["path"], via=_via(scope), now=self._clock.now()):
                    await app(scope, receive_whole, send_with_id)
            else:
                await app(scope, receive_whole, send_with_id)
        except ClientDisconnect:
            # Whoever asked is gone; there is nobody to answer, and nothing went wrong here.
            log.info("request.abandoned", method=scope["method"], path=_path_to_log(scope), request_id=request_id)
            return
        except Exception as error:  # the edge of the app: logged with its traceback, answered without
            if failure_of(error) is INTERNAL:
                log.exception("request.failed", method=scope["method"], path=_path_to_log(scope), request_id=request_id)
            if status == 0:
                response = error_response(scope, error, request_id=request_id, now=self._clock.now())
                await response(scope, receive, send_with_id)
        if status >= _SERVER_ERROR or not (scope["path"].startswith("/ping/") or scope["path"].endswith(_COUNTED)):
            took_ms = round((time.perf_counter() - began) * 1000, 1)
            log.info(
                "request.handled",
                method=scope["method"],
                path=_path_to_log(scope),
                status=status,
                took_ms=took_ms,
                request_id=request_id,
            )

    def _app_for(self, scope: Scope) -> ASGIApp:
        if FAILED in scope["state"]:
            return _failed
        if "\x00" in scope["path"] and not scope["path"].startswith(_NAMED_BY_OTHERS):
            # No object has such a name, and PostgreSQL cannot even be asked for it.
            return _nowhere
        return next((hot for hot in self._hot if hot.matches(scope)), self._app)


async def _last_words(message: Message, receive: Receive, send: Send) -> None:
    """Send the end of an answer after which the connection is closed while a body is still coming in.

    Whoever is still sending into a closed connection is told that it is broken, and often never reads the answer: so
    what comes is read and forgotten for a moment.
    """
    await send({**message, "more_body": True})
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LAST_WORDS_S):
            while (await receive()).get("more_body", False):
                pass
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def _without_body(send: Send) -> Send:
    async def send_head(message: Message) -> None:
        is_body = message["type"] == "http.response.body"
        await send({**message, "body": b""} if is_body else message)

    return send_head


async def _failed(scope: Scope, _receive: Receive, _send: Send) -> None:
    error: Exception = scope["state"][FAILED]
    raise error


async def _nowhere(_scope: Scope, _receive: Receive, _send: Send) -> None:
    raise HTTPException(404)


def _path_to_log(scope: Scope) -> str:
    """The path, without what grants something to whoever reads it in a log."""
    path: str = scope["path"]
    hidden = next((f"{prefix}..." for prefix in _TELLING if path.startswith(prefix)), path)
    hidden = _SECRET.sub("<secret>", hidden)
    return _PING_ID.sub("<uuid>", hidden) if _MANAGEMENT.match(hidden) else hidden


def _via(scope: Scope) -> Via:
    """By what somebody asks; pages and operators say so themselves."""
    return "cli" if (b"user-agent", b"lifesign-cli") in scope["headers"] else "api"


def _takes_head(path: str) -> bool:
    """Whether `HEAD` works where `GET` does, which the framework sees to on plain routes only."""
    return telemetry.takes_head(path) or vitals.is_vitals(path)


def answer_error(request: Request, error: Exception) -> Response:
    """Turn an exception of a route into an answer, in the envelope of its path."""
    request_id = request.scope["state"]["request_id"]
    response = error_response(request.scope, error, request_id=request_id, now=context_of(request).now())
    if response.status_code == _METHOD_NOT_ALLOWED:
        response.headers["Allow"] = ", ".join(_allowed(request))
    return response


def _allowed(request: Request) -> list[str]:
    """Every verb that some route of this path takes; the framework names those of one route only."""
    found: set[str] = set()
    # FastAPI keeps included routers whole; theirs are listed besides, its own (`/docs`) stand in the app.
    own = [each for each in request.app.router.routes if isinstance(each, Route)]
    routes: list[BaseRoute] = [*request.app.state.known_routes, *own]
    for route in routes:
        match, _ = route.matches(request.scope)
        if match is not Match.NONE:
            found |= getattr(route, "methods", None) or set()
    return sorted(found | {"HEAD"} if "GET" in found and _takes_head(request.scope["path"]) else found)
