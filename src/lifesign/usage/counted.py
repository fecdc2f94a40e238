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
# Whoever asks leaves when it takes too long; looking whether they did takes as long as all the rest of counting.
_SLOW_S: Final = 0.01
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

    __slots__ = ("_at", "_began", "_clock", "_coming", "_is_counted", "_log", "_path", "_start", "_status")

    def __init__(self, log: UsageLog, clock: Clock, at: EpochMs, path: str) -> None:
        self._log = log
        self._clock = clock
        self._at = at
        self._path = path
        self._began = clock.monotonic()
        self._status = CLIENT_LEFT
        self._start: Message | None = None
        self._coming: Message | None = None
        self._is_counted = False

    async def http(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        async def received() -> Message:
            self._coming = message = await receive()
            return message

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._start = message
                if not self._has_left(receive):
                    self._status = message["status"]
            # Before it is handed on: whoever has the answer finds it counted. After some answers the edge goes on
            # listening for a while, and says only then that this was all.
            elif not message.get("more_body", False) or self._is_whole(message):
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
                    self._note_handshake(scope, _SWITCHING)
                case "websocket.http.response.start":
                    self._note_handshake(scope, message["status"])
                case "websocket.close":
                    self._note_handshake(scope, _FORBIDDEN)
            await send(message)

        try:
            await app(scope, receive, sent)
        except Exception:
            self._note_handshake(scope, _INTERNAL)
            raise
        finally:
            self._note_handshake(scope, CLIENT_LEFT)

    def _has_left(self, receive: Receive) -> bool:
        """Whether nobody is there to be answered, as far as is known. What took no time was not waited for in vain."""
        coming = self._coming
        if coming is None:
            return False
        if coming["type"] == "http.disconnect":
            return True
        is_slow = self._clock.monotonic() - self._began >= _SLOW_S
        return is_slow and not coming.get("more_body", False) and _is_over(receive)

    def _is_whole(self, message: Message) -> bool:
        """Whether this piece is the whole body, by what was said of its length."""
        headers = [] if self._start is None else self._start["headers"]
        length = next((value for name, value in headers if name == b"content-length"), None)
        return length is not None and int(length) == len(message.get("body", b""))

    def _note(self, scope: Scope) -> None:
        if not self._is_counted:
            self._is_counted = True
            duration_ms = rules.rounded_ms(self._clock.monotonic() - self._began)
            method, key = rules.counted_method(scope["method"]), _key(scope, self._status)
            self._log.note(UsageRecord(self._at, method, self._path, self._status, duration_ms, key))

    def _note_handshake(self, scope: Scope, status: int) -> None:
        if not self._is_counted:
            self._is_counted = True
            self._log.note(UsageRecord(self._at, "GET", self._path, status, None, _key(scope, status)))


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
    for name, header in scope["headers"]:
        if name == HEADER:
            return _hash(header)
    return None


def _hash(header: bytes) -> str | None:
    """What a key can be found by; None for what is no key."""
    try:
        return keys.key_hash(keys.key_in(header))
    except (ApiKeyMissing, ApiKeyInvalid):
        return None
