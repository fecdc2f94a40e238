"""A pulse that checks in a heartbeat: who may ask for it, and the check-in itself."""

from dataclasses import dataclass
from typing import cast

import orjson
import structlog
from starlette.requests import Request

from lifesign.auth.rules import Caller, MissingScope, Unauthorized
from lifesign.auth.service import caller_of
from lifesign.clock import Clock
from lifesign.db import Database
from lifesign.heartbeats import service as heartbeats
from lifesign.heartbeats.checkins import CheckIn, CheckIns
from lifesign.heartbeats.rules import HeartbeatNotFound
from lifesign.http.context import context_of
from lifesign.vitals.rules import Beat, Remembered, Watch, WatchedNotFound, Watching, WatchNotAllowed

log = structlog.get_logger("lifesign.vitals")

_SCOPE = "checkins:write"


@dataclass(frozen=True, slots=True)
class Allowed:
    """A watch that may be: of this project, by this key."""

    watch: Watch
    project_id: str
    key_id: str


async def allowed(request: Request, watch: Watch) -> Allowed:
    """The watch, once the key beside the request may have it. Raises WatchNotAllowed, WatchedNotFound."""
    try:
        caller = await caller_of(request, _SCOPE)
    except (Unauthorized, MissingScope) as error:
        raise WatchNotAllowed from error
    await require_known(request, caller, watch)
    return Allowed(watch, caller.project_id, caller.key_id)


async def require_known(request: Request, caller: Caller, watch: Watch) -> None:
    """Raises WatchedNotFound unless the project of the caller has the heartbeat."""
    try:
        await context_of(request).db.read(heartbeats.get, caller.project_id, watch.heartbeat)
    except HeartbeatNotFound as error:
        raise WatchedNotFound from error


@dataclass(frozen=True, slots=True)
class Sender:
    """Makes check-ins, by the service of heartbeats."""

    db: Database
    clock: Clock
    check_ins: CheckIns

    @classmethod
    def of(cls, request: Request) -> "Sender":
        """That of the node that serves a request."""
        context = context_of(request)
        return cls(context.db, context.clock, cast("CheckIns", request.app.state.check_ins))

    async def sent(self, allowed_watch: Allowed, beat: Beat, *, session_id: str | None = None) -> bool:
        """Check in; False when that failed. session_id: of the stream that does."""
        try:
            await self._send(allowed_watch, beat)
        except Exception as error:  # noqa: BLE001 - whatever it is, the pulse is measured all the same
            log.warning("vitals.checkin_failed", session_id=session_id, error=type(error).__name__)
            return False
        return True

    async def _send(self, allowed_watch: Allowed, beat: Beat) -> None:
        metadata: dict[str, object] = {"source": "vitals"}
        if allowed_watch.watch.include_value:
            metadata |= {"heart_rate": round(beat.heart_rate, 1), "confidence": round(beat.confidence, 2)}
        item = CheckIn(
            allowed_watch.project_id,
            allowed_watch.key_id,
            allowed_watch.watch.heartbeat,
            beat.is_healthy,
            orjson.dumps(metadata).decode(),
            self.clock.now(),
            None,
        )
        await self.db.write_batched(self.check_ins.record, item)


async def check_in_once(
    sender: Sender, allowed_watch: Allowed, remembered: Remembered, value: tuple[float, float]
) -> bool:
    """Check in for a whole recording, if it is time: its heart rate and confidence. False when that failed."""
    of = (allowed_watch.project_id, allowed_watch.watch.heartbeat)
    at_s = sender.clock.now() / 1000
    beat = remembered.due(of, allowed_watch.watch, value, at_s)
    if beat is None:
        return True
    if not await sender.sent(allowed_watch, beat):
        return False
    remembered.sent(of, beat, at_s)
    return True


def watching(allowed_watch: Allowed) -> Watching:
    """The state of a stream that is watched."""
    return Watching(allowed_watch.watch)
