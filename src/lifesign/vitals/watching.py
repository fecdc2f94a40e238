"""A pulse that checks in a heartbeat: who may ask for it, and the check-in itself."""

from dataclasses import dataclass
from typing import cast

import orjson
from starlette.requests import Request

from lifesign.auth.rules import MissingScope, Unauthorized
from lifesign.auth.service import caller_of
from lifesign.clock import Clock
from lifesign.db import Database
from lifesign.heartbeats import service as heartbeats
from lifesign.heartbeats.checkins import CheckIn, CheckIns
from lifesign.heartbeats.rules import HeartbeatNotFound
from lifesign.http.context import context_of
from lifesign.vitals.rules import Beat, Watch, WatchedNotFound, Watching, WatchNotAllowed

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
    try:
        await context_of(request).db.read(heartbeats.get, caller.project_id, watch.heartbeat)
    except HeartbeatNotFound as error:
        raise WatchedNotFound from error
    return Allowed(watch, caller.project_id, caller.key_id)


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

    async def send(self, allowed_watch: Allowed, beat: Beat) -> None:
        """Check in. Raises what the service raises."""
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


async def check_in_once(sender: Sender, allowed_watch: Allowed, heart_rate: float, confidence: float) -> None:
    """One value of a whole recording: a check-in, unhealthy outside the limits."""
    watch = allowed_watch.watch
    low, high = watch.min_bpm, watch.max_bpm
    is_outside = (low is not None and heart_rate < low) or (high is not None and heart_rate > high)
    await sender.send(allowed_watch, Beat(not is_outside, heart_rate, confidence))


def watching(allowed_watch: Allowed) -> Watching:
    """The state of a stream that is watched."""
    return Watching(allowed_watch.watch)
