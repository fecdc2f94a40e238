"""Stands around the whole app: what is asked of the Vitals API is counted, whatever it is answered."""

import re
from collections.abc import Iterable
from typing import Final

from starlette.routing import BaseRoute, Route, WebSocketRoute, compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lifesign.auth.vitals import rules as keys
from lifesign.auth.vitals.rules import ApiKeyInvalid, ApiKeyMissing
from lifesign.auth.vitals.service import CALLER_ID, HEADER
from lifesign.clock import Clock, EpochMs
from lifesign.usage import rules
from lifesign.usage.log import UsageLog
from lifesign.usage.rules import CLIENT_LEFT, UsageRecord

MAX_UNKNOWN_PATHS: Final = 200
_SWITCHING, _FORBIDDEN, _UNAUTHORIZED, _INTERNAL = 101, 403, 401, 500


class Paths:
    """Under which path a request is counted: few of them, whatever is asked."""

    def __init__(self, routes: Iterable[BaseRoute]) -> None:
        self._plain: set[str] = set()
        self._templates: list[tuple[re.Pattern[str], str]] = []
        for path in _paths_of(routes):
            if "{" in path:
                self._templates.append((compile_path(path)[0], path))
            else:
                self._plain.add(path)
        self._day = EpochMs(0)
        self._unknown: set[str] = set()

    def counted(self, path: str, prefix: str, at: EpochMs) -> str:
        """The template of the route that has a path, whatever the method; else as much of the path as may be shown."""
        if path in self._plain:
            return path
        for pattern, template in self._templates:
            if pattern.match(path):
                return template
        return self._unknown_path(path, prefix, rules.start_of(at, rules.DAY_MS))

    def _unknown_path(self, path: str, prefix: str, day: EpochMs) -> str:
        if day != self._day:
            self._day = day
            self._unknown.clear()
        shown = rules.shown_path(path)
        if shown is None:
            return f"{prefix}/*"
        if shown not in self._unknown:
            if len(self._unknown) >= MAX_UNKNOWN_PATHS:
                return f"{prefix}/*"
            self._unknown.add(shown)
        return shown


def _paths_of(routes: Iterable[BaseRoute]) -> list[str]:
    paths = [each.path for each in routes if isinstance(each, Route | WebSocketRoute)]
    return [path for path in paths if rules.prefix_of(path) is not None]


class Counted:
    """The app, with its requests under the prefixes of the Vitals API counted. The others pass."""

    def __init__(self, app: ASGIApp, log: UsageLog, clock: Clock, routes: Iterable[BaseRoute]) -> None:
        self._app = app
        self._log = log
        self._clock = clock
        self._paths = Paths(routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, and count it if it is one of ours."""
        kind = scope["type"]
        prefix = None if kind == "lifespan" else rules.prefix_of(scope["path"])
        if prefix is None:
            await self._app(scope, receive, send)
            return
        at = self._clock.now()
        counting = _Counting(self._log, self._clock, at, self._paths.counted(scope["path"], prefix, at))
        watch = counting.http if kind == "http" else counting.websocket
        await watch(self._app, scope, receive, send)


class _Counting:
    """One request, until it is counted."""

    def __init__(self, log: UsageLog, clock: Clock, at: EpochMs, path: str) -> None:
        self._log = log
        self._clock = clock
        self._at = at
        self._path = path
        self._began = clock.monotonic()
        self._status: int | None = None
        self._length: int | None = None
        self._is_counted = False
        self._is_read = False
        self._has_left = False

    async def http(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        async def received() -> Message:
            message = await receive()
            self._has_left = message["type"] == "http.disconnect"
            self._is_read = not message.get("more_body", False)
            return message

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                # What is sent to those who left is for nobody.
                has_left = self._has_left or (self._is_read and _is_over(receive))
                self._status = CLIENT_LEFT if has_left else message["status"]
                self._length = _length_in(message)
            # Before it is handed on: whoever has the answer finds it counted. After some answers the edge goes on
            # listening for a while, and says only then that this was all.
            elif not message.get("more_body", False) or len(message.get("body", b"")) == self._length:
                self._note(scope)
            await send(message)

        try:
            await app(scope, received, sent)
        finally:
            # Nobody was answered, or not to the end: whoever asked has left.
            self._note(scope)

    async def websocket(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        async def sent(message: Message) -> None:
            match message["type"]:
                case "websocket.accept":
                    self._status = _SWITCHING
                case "websocket.http.response.start":
                    self._status = message["status"]
                case "websocket.close":
                    self._status = self._status or _FORBIDDEN
            if self._status is not None:
                self._note(scope)
            await send(message)

        try:
            await app(scope, receive, sent)
        except Exception:
            self._status = self._status or _INTERNAL
            raise
        finally:
            self._note(scope)

    def _note(self, scope: Scope) -> None:
        if self._is_counted:
            return
        self._is_counted = True
        is_http = scope["type"] == "http"
        status = CLIENT_LEFT if self._status is None else self._status
        self._log.note(
            UsageRecord(
                self._at,
                rules.counted_method(scope["method"] if is_http else "GET"),
                self._path,
                status,
                rules.rounded_ms(self._clock.monotonic() - self._began) if is_http else None,
                _key(scope, status),
            )
        )


def _length_in(start: Message) -> int | None:
    """How long the body is said to be."""
    length: bytes | None = next((value for name, value in start["headers"] if name == b"content-length"), None)
    return None if length is None else int(length)


def _is_over(receive: Receive) -> bool:
    """Whether the caller of a request that was read to its end has gone away. Does not wait.

    There is nothing to be received but that news: one step of `receive` ends with it, or has to wait and is given up.
    """
    step = receive().__await__()
    try:
        next(step)
    except StopIteration as end:
        return bool(end.value["type"] == "http.disconnect")
    step.close()
    return False


def _key(scope: Scope, status: int) -> int | str | None:
    """The id of the key that was recognized; of a key that nobody asked for, what it can be found by."""
    known: int | None = scope.get("state", {}).get(CALLER_ID)
    if known is not None or status == _UNAUTHORIZED:
        return known
    header = next((value for name, value in scope["headers"] if name == HEADER), None)
    try:
        return keys.key_hash(keys.key_in(header))
    except (ApiKeyMissing, ApiKeyInvalid):
        return None
