"""Check-ins: the hottest write. Many callers share each statement; the rare ones go through one by one.

An ordinary check-in (active, healthy, not a one-shot) updates columns that no index holds and appends one event.
Everything else - recovery, firing, arming, pauses - happens in `_rare`, in the same transaction and in the order of
arrival.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson
from sqlalchemy import Connection

from lifesign.clock import EpochMs, rfc3339
from lifesign.db.failpoints import Failpoints
from lifesign.db.wakeups import wake_after_commit
from lifesign.events import service as events
from lifesign.events.rules import Event, EventType
from lifesign.heartbeats import rules, service, store
from lifesign.heartbeats.rules import Heartbeat, HeartbeatNotFound
from lifesign.incidents import service as incidents
from lifesign.incidents.service import Firing

_S = 1000
KEEP_ANSWERS_MS = 24 * 3600 * _S


@dataclass(frozen=True, slots=True)
class CheckIn:
    """One check-in as it arrived. `stamp`: when its body had been read. `metadata`: JSON text, None when not sent."""

    project_id: str
    key_id: str
    ref: str
    healthy: bool
    metadata: str | None
    stamp: EpochMs
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """The body of the answer, and whether it was given before to the same idempotency key."""

    body: bytes
    is_replay: bool = False


class CheckIns:
    """Records check-ins, many at once: `await db.write_batched(check_ins.record, check_in)`."""

    def __init__(self, failpoints: Failpoints) -> None:
        self._failpoints = failpoints

    def record(self, conn: Connection, items: Sequence[CheckIn]) -> list[Answer | Exception]:
        """Record all of `items`; an answer or HeartbeatNotFound for each, in order."""
        batch = _Batch(conn, items)
        answers = [batch.take(item) for item in items]
        batch.flush()
        self._failpoints.hit("checkin.before_commit")
        return answers


class _Batch:
    """The heartbeats of one transaction, and what is still to be written about them."""

    def __init__(self, conn: Connection, items: Sequence[CheckIn]) -> None:
        self._conn = conn
        slugs = {(item.project_id, item.ref) for item in items if not item.ref.startswith("hb_")}
        self._ids = store.ids_by_slug(conn, slugs)
        ids = {found for item in items if (found := self._id_of(item)) is not None}
        self._heartbeats = store.lock_many(conn, ids)
        self._changed: dict[str, Heartbeat] = {}
        self._with_metadata: set[str] = set()
        self._events: list[tuple[Event, EpochMs]] = []
        self._since = EpochMs(min((item.stamp for item in items), default=EpochMs(0)) - KEEP_ANSWERS_MS)
        keyed = [
            (found, item.idempotency_key) for item in items if item.idempotency_key and (found := self._id_of(item))
        ]
        self._kept = store.answers_kept(conn, keyed, self._since)
        self._to_keep: list[dict[str, Any]] = []

    def _id_of(self, item: CheckIn) -> str | None:
        return item.ref if item.ref.startswith("hb_") else self._ids.get((item.project_id, item.ref))

    def take(self, item: CheckIn) -> Answer | Exception:
        """Apply one check-in; what it writes may wait until `flush`."""
        heartbeat = self._heartbeats.get(self._id_of(item) or "")
        if heartbeat is None or heartbeat.project_id != item.project_id:
            return HeartbeatNotFound()
        kept = self._kept.get((heartbeat.id, item.idempotency_key)) if item.idempotency_key else None
        if kept is not None:
            return Answer(kept.encode(), is_replay=True)
        outcome = rules.after_check_in(heartbeat, healthy=item.healthy, stamp=item.stamp, metadata=item.metadata)
        after = (
            self._ordinary(item, heartbeat, outcome.heartbeat)
            if _is_ordinary(heartbeat, outcome)
            else self._rare(item, outcome)
        )
        self._heartbeats[after.id] = after
        body = _body(after, healthy=item.healthy)
        if item.idempotency_key:
            self._kept[after.id, item.idempotency_key] = body.decode()
            row = {"heartbeat_id": after.id, "key": item.idempotency_key, "project_id": after.project_id}
            self._to_keep.append(row | {"body": body.decode(), "created_at": item.stamp})
        return Answer(body)

    def _ordinary(self, item: CheckIn, before: Heartbeat, after: Heartbeat) -> Heartbeat:
        self._changed[after.id] = after
        if item.metadata is not None:
            self._with_metadata.add(before.id)
        self._events.append((_event(item, after), item.stamp))
        return after

    def _rare(self, item: CheckIn, outcome: rules.CheckInOutcome) -> Heartbeat:
        """A check-in that changes more than deadlines: written at once, after what came before it."""
        self.flush()
        conn, after = self._conn, outcome.heartbeat
        before = self._heartbeats[after.id]
        happened = [_event(item, after)]
        if outcome.resumes:
            happened.insert(0, Event(after.project_id, after.id, "resumed", {"key": item.key_id}))
        events.record(conn, happened, item.stamp)
        if outcome.fires:
            opened = incidents.open_incidents(
                conn, [Firing(service.subject_of(after), "unhealthy", cause={"key": item.key_id})], item.stamp
            )
            after = replace(after, incident_id=opened[after.id])
        if outcome.recovers and before.incident_id is not None:
            closed = incidents.close_incident(
                conn,
                before.incident_id,
                service.subject_of(after),
                "checkin",
                heartbeat_status=after.status,
                now=item.stamp,
            )
            if closed is not None:
                duration = max(0, item.stamp - closed.opened_at) // _S
                metadata = {"incident": closed.id, "duration": duration, "key": item.key_id}
                events.record(conn, [Event(after.project_id, after.id, "resolved", metadata)], item.stamp)
        store.save(conn, after)
        wake_after_commit(conn, "sweep")
        return after

    def flush(self) -> None:
        """Write what is waiting."""
        store.save_check_ins(self._conn, sorted(self._changed.values(), key=lambda each: each.id), self._with_metadata)
        events.record_each(self._conn, self._events)
        store.keep_answers(self._conn, self._to_keep, self._since)
        self._changed, self._with_metadata, self._events, self._to_keep = {}, set(), [], []


def _is_ordinary(before: Heartbeat, outcome: rules.CheckInOutcome) -> bool:
    """Only columns that no index holds change, and nobody has to be told."""
    after = outcome.heartbeat
    return (
        before.status == after.status == "active"
        and before.check_at == after.check_at
        and before.is_armed == after.is_armed
    )


def _event(item: CheckIn, heartbeat: Heartbeat) -> Event:
    given = None if item.metadata is None else orjson.Fragment(item.metadata)
    kind: EventType = "checkin" if item.healthy else "checkin_unhealthy"
    return Event(heartbeat.project_id, heartbeat.id, kind, {"metadata": given, "via": "api", "key": item.key_id})


def _body(heartbeat: Heartbeat, *, healthy: bool) -> bytes:
    body: dict[str, Any] = {"status": heartbeat.status, "healthy": healthy}
    if heartbeat.next_deadline is not None:
        body["nextDeadline"] = rfc3339(heartbeat.next_deadline)
    return orjson.dumps(body)
