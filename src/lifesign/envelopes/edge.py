"""The edge of the app: request ids, the log line of each request, and the last resort for errors."""

import re
import secrets
import time
from typing import cast

import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lifesign.clock import Clock
from lifesign.envelopes import error_response
from lifesign.envelopes.failures import failure_of
from lifesign.http.context import context_of

log = structlog.get_logger("lifesign.http")

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_HEADER = b"x-request-id"
_SERVER_ERROR = 500
_METHOD_NOT_ALLOWED = 405


class Edge:
    """The outermost layer. Everything that leaves passes here and carries `X-Request-Id`."""

    def __init__(self, app: ASGIApp, clock: Clock) -> None:
        self._app = app
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        header = (_HEADER, request_id.encode())
        began = time.perf_counter()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], header]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception as error:  # the edge of the app: logged with its traceback, answered without
            if failure_of(error).status >= _SERVER_ERROR:
                log.exception("request.failed", method=scope["method"], path=scope["path"], request_id=request_id)
            if status == 0:
                response = error_response(scope["path"], error, request_id=request_id, now=self._clock.now())
                await response(scope, receive, send_with_id)
        if not (scope["path"].endswith("/checkin") and status < _SERVER_ERROR):
            took_ms = round((time.perf_counter() - began) * 1000, 1)
            log.info(
                "request.handled",
                method=scope["method"],
                path=scope["path"],
                status=status,
                took_ms=took_ms,
                request_id=request_id,
            )


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == _HEADER and _REQUEST_ID.fullmatch(value):
            return cast("bytes", value).decode("ascii")
    return f"req_{secrets.token_hex(16)}"


def answer_error(request: Request, error: Exception) -> Response:
    """Turn an exception of a route into an answer, in the envelope of its path."""
    request_id = request.scope["state"]["request_id"]
    response = error_response(request.url.path, error, request_id=request_id, now=context_of(request).now())
    if response.status_code == _METHOD_NOT_ALLOWED:
        response.headers["Allow"] = ", ".join(_allowed(request))
    return response


def _allowed(request: Request) -> list[str]:
    """Every verb that some route of this path takes; the framework names those of one route only."""
    found: set[str] = set()
    routes: list[BaseRoute] = request.app.state.known_routes
    for route in routes:
        match, _ = route.matches(request.scope)
        if match is not Match.NONE:
            found |= getattr(route, "methods", None) or set()
    return sorted(found)
