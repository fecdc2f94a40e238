"""The WebSocket of a stream: numbers of frames in, one update per second of signal out, a report at the end."""

import asyncio
import re
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

import msgspec
import orjson
from fastapi import APIRouter
from sqlalchemy import Connection
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from lifesign.auth import service as auth
from lifesign.auth.vitals import service as keys
from lifesign.clock import Clock, EpochMs
from lifesign.http.context import Context
from lifesign.vitals import service
from lifesign.vitals.metrics import count_report
from lifesign.vitals.rules import Beat, InvalidTraces, ServerBusy, Watching
from lifesign.vitals.service import Vitals
from lifesign.vitals.sessions import MAX_MESSAGE_BYTES, STREAM_PATH, Session
from lifesign.vitals.watching import Allowed, Sender, watching

if TYPE_CHECKING:
    from lifesign.heartbeats.checkins import CheckIns
    from lifesign.vitals.live import Stream

_START_S = 5.0
# A client sends twice a second: after so long it is gone, and its place is free.
_SILENCE_S = 5.0
_SEND_S = 5.0
_CLOSE_S = 5.0
# How much longer than its signal a stream may last: whoever sends less than a camera does keeps no place for ever.
_LATE_S = 30.0
# How soon a stream ends whose key was revoked.
_LOOK_AT_KEYS_MS = 10_000
_MAX_FRAMES = 300
_FRAMES_PER_S = 150
_BURST_S = 2.0
_MAX_ROIS = 8
_MS = 1000.0
_POLICY, _TOO_BIG, _UNSUPPORTED, _INVALID, _TRY_LATER, _NORMAL = 1008, 1009, 1003, 1007, 1013, 1000

# Where a message is wrong, as its decoder tells it.
_OF_VALUES = re.compile(r"`\$\.(t|rgb|face|box|clipped)\b")

router = APIRouter()
Json = dict[str, Any]  # Any: JSON
T = TypeVar("T")


class _Closed(Exception):
    """The connection ends: with a code and, before it, an error that says why."""

    def __init__(self, code: int, error: str | None = None, message: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.error = error


class _Start(msgspec.Struct, tag="start"):
    token: str
    fps: float | None = None
    rois: list[str] | None = None
    client: str | None = None


class _Frames(msgspec.Struct, tag="frames"):
    seq: int
    t: list[float]
    rgb: list[list[list[float] | None] | None]
    face: list[float] | None = None
    box: list[list[float]] | None = None
    clipped: list[list[float]] | None = None
    dropped: int = 0


class _Stop(msgspec.Struct, tag="stop"):
    pass


_decode: Callable[[str], _Start | _Frames | _Stop] = msgspec.json.Decoder(_Start | _Frames | _Stop).decode


@router.websocket(STREAM_PATH)
async def stream(websocket: WebSocket) -> None:
    """Serve one stream to its end."""
    await websocket.accept()
    try:
        await _Connection(websocket).serve()
    except _Closed as end:
        # Who does not read does not take this either: the connection is let go, which ends it once it can.
        with suppress(RuntimeError, WebSocketDisconnect, TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                if end.error is not None:
                    await websocket.send_text(_text({"type": "error", "code": end.error, "message": str(end)}))
                await websocket.close(end.code)
    except WebSocketDisconnect:
        pass


def _are_keys_good(conn: Connection, session: Session, now: EpochMs) -> bool:
    """Whether the keys that asked for a stream, and for what it checks in, still count. Pages ask without any."""
    if session.key_id is None:
        return True
    wish = session.wish
    is_watch_good = wish.watch is None or auth.is_active(conn, wish.watch_project_id, wish.watch_key_id, now)
    return is_watch_good and keys.is_active(conn, session.key_id)


async def _done_by(threads: Executor, act: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(threads, act)


def _text(message: Json) -> str:
    return orjson.dumps(message).decode()


@dataclass(slots=True)
class _Pace:
    """Frames that came lately, by the clock of the machine: more than a camera sends is not a camera."""

    clock: Clock
    began: float = 0.0
    count: int = 0

    def take(self, frames: int) -> None:
        now = self.clock.monotonic()
        if not self.count:
            self.began = now
        self.count += frames
        if self.count > _FRAMES_PER_S * (now - self.began + _BURST_S):
            raise _Closed(_TRY_LATER, "too_fast", f"more than {_FRAMES_PER_S} frames per second")


@dataclass(slots=True)
class _Connection:
    websocket: WebSocket
    context: Context = field(init=False)
    vitals: Vitals = field(init=False)
    regions: int | None = None
    next_seq: int = 0
    watched: Watching | None = None
    allowed: Allowed | None = None
    session_id: str = ""
    keys_seen_at: EpochMs | None = None
    is_over: bool = False
    """A frame came that is later than the stream may last."""

    def __post_init__(self) -> None:
        state = self.websocket.app.state
        self.context, self.vitals = state.context, state.vitals

    async def serve(self) -> None:
        """From the first message to the report."""
        self._check_origin()
        start = await self._start()
        session = self._session(start.token)
        report: Json | None = None
        try:
            report = await self._stream(session, start)
            count_report(report)
            await self._keep(session, report)
            self.vitals.sessions.finish(session, report, self.context.now())
            await self._send({"type": "final", "report": report})
            await self.websocket.close(_NORMAL)
        finally:
            if session.state == "open":
                self.vitals.sessions.finish(session, None, self.context.now())

    def _check_origin(self) -> None:
        origin = self.websocket.headers.get("origin")
        if origin is None:
            return
        allowed = [each.strip() for each in self.context.settings.vitals_origins.split(",") if each.strip()]
        own = {f"{scheme}://{self.websocket.headers.get('host', '')}" for scheme in ("http", "https")}
        if self.context.settings.public_url:
            own.add(self.context.settings.public_url)
        if origin not in own and origin not in allowed and "*" not in allowed:
            raise _Closed(_POLICY)

    async def _start(self) -> _Start:
        try:
            async with asyncio.timeout(_START_S):
                message = await self._receive()
        except TimeoutError:
            raise _Closed(_POLICY) from None
        except _Closed as error:
            raise _Closed(_POLICY) from error
        if not isinstance(message, _Start):
            raise _Closed(_POLICY)
        self.regions = None if message.rois is None else len(message.rois)
        return message

    def _session(self, token: str) -> Session:
        try:
            session = self.vitals.sessions.open(token, self.context.now())
        except ServerBusy as error:
            raise _Closed(_TRY_LATER, "server_full", str(error)) from error
        if session is None:
            raise _Closed(_POLICY)
        return session

    async def _receive(self) -> _Start | _Frames | _Stop:
        message = await self.websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", _NORMAL))
        text = message.get("text")
        if text is None:
            raise _Closed(_UNSUPPORTED, "bad_message", "messages are JSON text")
        if len(text) > MAX_MESSAGE_BYTES:
            raise _Closed(_TOO_BIG)
        try:
            return _decode(text)
        except msgspec.ValidationError as error:
            if _OF_VALUES.search(str(error)):
                raise _Closed(_INVALID, "bad_value", str(error)) from None
            raise _Closed(_UNSUPPORTED, "bad_message", str(error)) from None
        except msgspec.DecodeError as error:
            raise _Closed(_UNSUPPORTED, "bad_message", str(error)) from None

    # Frames ---------------------------------------------------------------------------------------------------------
    async def _stream(self, session: Session, start: _Start) -> Json:
        from lifesign.vitals.jobs import Gate  # noqa: PLC0415 - needs the extra
        from lifesign.vitals.live import Stream  # noqa: PLC0415 - as above

        wish = session.wish
        self.session_id = session.id
        if wish.watch is not None:
            self.allowed = Allowed(wish.watch, wish.watch_project_id, wish.watch_key_id)
            self.watched = watching(self.allowed)
        live = Stream(mode=wish.mode, method=wish.method, fps=start.fps, params=Gate(*self.vitals.gate).params)
        clock = self.context.clock
        pace, until = _Pace(clock), clock.monotonic() + wish.max_s + _LATE_S
        await self._send({"type": "ready", "session": session.id, "max_s": wish.max_s})
        while not self.is_over and live.recording.duration_ms < wish.max_s * _MS and clock.monotonic() < until:
            try:
                async with asyncio.timeout(_SILENCE_S):
                    message = await self._receive()
            except TimeoutError:
                break
            if isinstance(message, _Stop):
                break
            if isinstance(message, _Start):
                raise _Closed(_UNSUPPORTED, "bad_message", "start comes once")
            await self._take(message, live, pace, session)
        return await _done_by(self.vitals.reports, lambda: live.result().to_dict())

    async def _take(self, message: _Frames, live: "Stream", pace: _Pace, session: Session) -> None:
        if len(message.t) > _MAX_FRAMES:
            raise _Closed(_TOO_BIG)
        if not message.t:
            raise _Closed(_UNSUPPORTED, "bad_message", f"frames has 1 to {_MAX_FRAMES} frames")
        if message.seq != self.next_seq:
            raise _Closed(_INVALID, "bad_sequence", f"seq is {message.seq}, where {self.next_seq} was expected")
        self.next_seq += 1
        pace.take(len(message.t))
        try:
            # The arithmetic takes some milliseconds once a second, in which others must not wait.
            push = partial(self._push, message, live, session.wish.max_s)
            windows = await _done_by(self.vitals.updates, push)
        except InvalidTraces as error:
            code = "bad_time" if str(error).startswith("t_ms") else "bad_value"
            raise _Closed(_INVALID, code, str(error)) from error
        await self._require_keys(session)
        for update in windows:
            session.last = update
            await self._send(update)
        if windows and self.watched is not None:
            await self._check_in(windows[-1], self.watched)

    def _push(self, message: _Frames, live: "Stream", max_s: int) -> list[Json]:
        from lifesign.vitals.bodies import colours_in  # noqa: PLC0415 - needs the extra
        from lifesign.vitals.signal import report  # noqa: PLC0415 - as above

        rgb, off = colours_in(message.rgb)
        if self.regions is not None and rgb.shape[1] != self.regions:
            raise InvalidTraces("rgb must have one colour for each of the regions that start named")
        count_before = len(live.recording.windows)
        live.push_rgb(rgb, message.t, message.face, box=message.box, clipped=message.clipped, off=off, until_s=max_s)
        # Whatever is later is not looked at: a window for each of a million empty seconds would never end.
        self.is_over = message.t[-1] - (live.recording.begin_ms or 0.0) > max_s * _MS
        windows = live.recording.windows[count_before:]
        warnings = [] if live.recording.has_faces else ["face_not_reported"]
        if message.dropped > 0:
            warnings.append("dropped_frames")
        return [
            {
                "type": "update",
                "t_ms": round(each.at_s * _MS),
                "elapsed_s": round(live.recording.duration_ms / _MS, 1),
                "vitals": report.vitals_at(live.recording, each),
                "quality": report.quality([each]),
                "warnings": [*warnings, *(["provisional"] if each.is_provisional else [])],
            }
            for each in windows
        ]

    async def _send(self, message: Json) -> None:
        """Send; whoever does not read for some seconds is gone for us."""
        if self.websocket.client_state is not WebSocketState.CONNECTED:
            raise WebSocketDisconnect(_NORMAL)
        try:
            async with asyncio.timeout(_SEND_S):
                await self.websocket.send_text(_text(message))
        except TimeoutError:
            raise _Closed(_TRY_LATER) from None

    async def _require_keys(self, session: Session) -> None:
        now = self.context.now()
        if self.keys_seen_at is not None and 0 <= now - self.keys_seen_at < _LOOK_AT_KEYS_MS:
            return
        self.keys_seen_at = now
        if not await self.context.db.read(_are_keys_good, session, now):
            raise _Closed(_POLICY, "key_revoked", "a key of this stream was revoked or has expired")

    # What comes of it -----------------------------------------------------------------------------------------------
    async def _check_in(self, update: Json, watched: Watching) -> None:
        rate = update["vitals"]["heart_rate"]
        if rate["value"] is None or "provisional" in update["warnings"] or self.allowed is None:
            return
        at_s = update["t_ms"] / _MS
        beat: Beat | None = watched.due(at_s, rate["value"], rate["confidence"])
        if beat is None:
            return
        if await self._sender().sent(self.allowed, beat, session_id=self.session_id):
            watched.sent(beat, at_s)
        else:
            # The next update tries again.
            await self._send({"type": "warning", "code": "checkin_failed"})

    def _sender(self) -> Sender:
        check_ins = cast("CheckIns", self.websocket.app.state.check_ins)
        return Sender(self.context.db, self.context.clock, check_ins)

    async def _keep(self, session: Session, report: Json) -> None:
        wish, now = session.wish, self.context.now()
        if not wish.is_kept:
            return
        if session.key_id is not None:
            owner = _Owner(session.key_id, session.project_id)
            kept = await self.context.db.write(service.keep, owner, report, now)
            session.measurement_id = kept.id
        elif wish.user_id and report["vitals"]["heart_rate"]["value"] is not None:
            # A person's history is of what was measured; why nothing was is on the page already.
            kept = await self.context.db.write(service.keep_own, session.project_id, wish.user_id, report, now)
            session.measurement_id = kept.id


@dataclass(frozen=True, slots=True)
class _Owner:
    key_id: int
    project_id: str
