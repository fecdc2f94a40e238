"""Check-ins: the hottest write. Many callers share each statement; the rare ones go through one by one.

An ordinary check-in (active, healthy, not a one-shot) updates columns that no index holds and appends one event.
Everything else - recovery, firing, arming, pauses - happens in `_rare`, in the same transaction and in the order of
arrival.
"""

from collections.abc import Collection, Sequence
from typing import Any, Literal, NamedTuple

from sqlalchemy import Connection

from lifesign.clock import EpochMs, rfc3339
from lifesign.db.failpoints import Failpoints
from lifesign.db.wakeups import wake_after_commit
from lifesign.events import service as events
from lifesign.events.rules import Event, EventType
from lifesign.heartbeats import holds, rules, store, sweep
from lifesign.heartbeats.rules import CheckInOutcome, Heartbeat, HeartbeatNotFound, Managed, Status, Waiting
from lifesign.heartbeats.subjects import record, subject_of
from lifesign.incidents.rules import Tuning
from lifesign.incidents.service import Firing
from lifesign.maintenance import service as maintenance

_S = 1000
KEEP_ANSWERS_MS = 24 * 3600 * _S


# Tuples here and in `rules.Waiting`: frozen dataclasses take three times as long to make, and these are made most.
class CheckIn(NamedTuple):
    """One check-in as it arrived. `stamp`: when its body had been read. `metadata`: JSON text, None when not sent.

    owner: what the heartbeat must belong to; None: to nobody. run_id: of the run whose end it is. ping: what else is
    known of a ping, as JSON text.
    """

    project_id: str
    key_id: str
    ref: str
    healthy: bool
    metadata: str | None
    stamp: EpochMs
    idempotency_key: str | None = None
    via: Literal["api", "run", "system", "ping", "email", "diagnosis", "bot"] = "api"
    run_id: str | None = None
    owner: str | None = None
    ping: str | None = None


class Answer(NamedTuple):
    """The body of the answer, and whether it was given before to the same idempotency key.

    last_checkin_at: of the heartbeat, after this one; None where the answer is an old one.
    """

    body: bytes
    is_replay: bool = False
    last_checkin_at: EpochMs | None = None


class CheckIns:
    """Records check-ins, many at once: `await db.write_batched(check_ins.record, check_in)`."""

    def __init__(self, failpoints: Failpoints, tuning: Tuning) -> None:
        self._failpoints = failpoints
        self._tuning = tuning

    def record(self, conn: Connection, items: Sequence[CheckIn]) -> list[Answer | Exception]:
        """Record all of `items`; an answer or HeartbeatNotFound for each, in order."""
        batch = Batch(conn, items, self._tuning)
        answers = [batch.take(item) for item in items]
        batch.flush()
        self._failpoints.hit("checkin.before_commit")
        return answers


class Batch:
    """The heartbeats of one transaction, and what is still to be written about them."""

    def __init__(
        self, conn: Connection, items: Sequence[CheckIn], tuning: Tuning, *, ping_ids: Collection[str] = ()
    ) -> None:
        self._conn = conn
        self._tuning = tuning
        ids: set[str] = set()
        slugs: dict[str, set[str]] = {}
        for item in items:
            if item.ref.startswith("hb_"):
                ids.add(item.ref)
            else:
                slugs.setdefault(item.project_id, set()).add(item.ref)
        found = store.lock_waiting(conn, ids=ids, slugs=slugs, ping_ids=ping_ids)
        self.found = {each.id: each for each in found}
        """What was known of each heartbeat before the first of `items`, by id."""
        self._ids = {(each.project_id, each.slug): each.id for each in found}
        self._ids |= {(each.project_id, each.id): each.id for each in found}
        self._owners = {each.id: each.managed_by for each in found if each.managed_by is not None}
        self._waiting = {each.id: each.waiting for each in found}
        self._changed: dict[str, Waiting] = {}
        self._metadata: dict[str, str] = {}
        self._events: list[tuple[Event, EpochMs]] = []
        keyed = [
            (heartbeat_id, item.idempotency_key)
            for item in items
            if item.idempotency_key and (heartbeat_id := self.id_of(item.project_id, item.ref))
        ]
        since = EpochMs(min((item.stamp for item in items), default=EpochMs(0)) - KEEP_ANSWERS_MS)
        kept = store.answers_kept(conn, keyed) if keyed else {}
        self._kept = {pair: answer.body for pair, answer in kept.items() if answer.created_at > since}
        self._stale = kept.keys() - self._kept.keys()
        self._to_keep: list[dict[str, Any]] = []

    def id_of(self, project_id: str, ref: str) -> str | None:
        """The id of the heartbeat that a check-in names; None when there is none."""
        return self._ids.get((project_id, ref))

    def take(self, item: CheckIn) -> Answer | Exception:
        """Apply one check-in; what it writes may wait until `flush`."""
        heartbeat_id = self.id_of(item.project_id, item.ref)
        if heartbeat_id is None:
            return HeartbeatNotFound()
        owner = self._owners.get(heartbeat_id) if self._owners else None
        if owner != item.owner:
            return Managed(self._status(heartbeat_id), owner or "")
        if item.idempotency_key is None:
            return self._applied(item, heartbeat_id)
        kept = self._kept.get((heartbeat_id, item.idempotency_key))
        if kept is not None:
            return Answer(kept.encode(), is_replay=True)
        answer = self._applied(item, heartbeat_id)
        body = answer.body.decode()
        self._kept[heartbeat_id, item.idempotency_key] = body
        row = {"heartbeat_id": heartbeat_id, "key": item.idempotency_key, "project_id": item.project_id}
        self._to_keep.append(row | {"body": body, "created_at": item.stamp})
        return answer

    def _status(self, heartbeat_id: str) -> Status:
        return store.by_ids(self._conn, [heartbeat_id])[heartbeat_id].status

    def _applied(self, item: CheckIn, heartbeat_id: str) -> Answer:
        """The answer to a check-in that counts."""
        waiting = self._waiting[heartbeat_id]
        if waiting is None or not item.healthy:
            return self._rare(item, heartbeat_id)
        after = rules.after_ordinary_check_in(waiting, item.stamp)
        if after is None:
            return self._rare(item, heartbeat_id)
        self._waiting[heartbeat_id] = self._changed[heartbeat_id] = after
        if item.metadata is not None:
            self._metadata[heartbeat_id] = item.metadata
        text = _event_text(item, late_ms=item.stamp - waiting.next_deadline)
        self._events.append((Event(item.project_id, heartbeat_id, "checkin", text), item.stamp))
        body = _body("active", healthy=True, next_deadline=after.next_deadline)
        return Answer(body, last_checkin_at=after.last_checkin_at)

    def whole(self, heartbeat_id: str) -> Heartbeat:
        """A heartbeat of the batch as it now is, with everything written that came before."""
        self.flush()
        return store.by_ids(self._conn, [heartbeat_id])[heartbeat_id]

    def adopt(self, heartbeat: Heartbeat) -> None:
        """A heartbeat that was made, or found, after the batch began. It is locked."""
        self._ids[heartbeat.project_id, heartbeat.id] = heartbeat.id
        self._ids[heartbeat.project_id, heartbeat.slug] = heartbeat.id
        self.put(heartbeat)

    def put(self, heartbeat: Heartbeat) -> None:
        """A heartbeat that was changed, and saved, elsewhere."""
        self._waiting[heartbeat.id] = rules.waiting(heartbeat)

    def waiting(self, heartbeat_id: str) -> Waiting | None:
        """What a heartbeat of the batch waits for by now, if it is an ordinary one."""
        return self._waiting.get(heartbeat_id)

    def _rare(self, item: CheckIn, heartbeat_id: str) -> Answer:
        """A check-in that changes more than a deadline: written at once, after what came before it."""
        after = apply(self._conn, self.whole(heartbeat_id), item, self._tuning)
        self.put(after)
        body = _body(after.status, healthy=item.healthy, next_deadline=after.next_deadline)
        return Answer(body, last_checkin_at=after.last_checkin_at)

    def flush(self) -> None:
        """Write what is waiting."""
        store.save_check_ins(self._conn, self._changed.values(), self._metadata)
        events.record_each(self._conn, self._events)
        store.keep_answers(self._conn, self._to_keep, self._stale)
        self._changed, self._metadata, self._events, self._to_keep = {}, {}, [], []
        self._stale = set()


def apply(conn: Connection, before: Heartbeat, item: CheckIn, tuning: Tuning) -> Heartbeat:
    """Do all that a check-in does to a locked heartbeat, in whatever state; the heartbeat afterwards."""
    covered = {} if item.healthy else maintenance.covered_until(conn, [before], item.stamp)
    outcome = rules.after_check_in(
        before,
        healthy=item.healthy,
        stamp=item.stamp,
        metadata=item.metadata,
        covered_until=covered.get(before.id),
    )
    after = outcome.heartbeat
    kind: EventType = "checkin" if item.healthy else "checkin_unhealthy"
    text = _event_text(item, outcome, late_ms=_late_ms(before, item))
    happened = [Event(after.project_id, after.id, kind, text)]
    if outcome.resumes:
        happened.insert(0, Event(after.project_id, after.id, "resumed", {"key": item.key_id or None, "via": item.via}))
    events.record(conn, happened, item.stamp)
    if outcome.fires:
        firing = Firing(subject_of(after), "unhealthy", cause={"key": item.key_id} if item.key_id else {})
        after = sweep.fire(conn, [(after, firing)], item.stamp, tuning)[after.id]
    if outcome.recovers:
        after = recover(conn, before, after, item.key_id, item.stamp)
    store.save(conn, after)
    wake_after_commit(conn, "sweep")
    return after


def _late_ms(before: Heartbeat, item: CheckIn) -> int:
    """How long after its deadline a healthy check-in came that was waited for."""
    if not item.healthy or before.status != "active" or before.next_deadline is None:
        return 0
    return item.stamp - before.next_deadline


def recover(conn: Connection, before: Heartbeat, after: Heartbeat, key_id: str, now: EpochMs) -> Heartbeat:
    """Resolve the incident of a heartbeat that is alive again; the heartbeat, which the caller saves."""
    after, closed = holds.close(conn, before, after, "checkin", now)
    if closed is not None:
        duration = max(0, now - closed.opened_at) // _S
        record(conn, after, now, "resolved", incident=closed.id, duration=duration, key=key_id or None)
    return after


def _event_text(item: CheckIn, outcome: CheckInOutcome | None = None, *, late_ms: int = 0) -> str:
    """The metadata of a check-in's event. Ids are made by us, or checked by us, and need no escapes."""
    given = "" if item.metadata is None else f'"metadata":{item.metadata},'
    run = "" if item.run_id is None else f',"runId":"{item.run_id}"'
    ping = "" if item.ping is None else f',"ping":{item.ping}'
    fate = ""
    if outcome is not None and (outcome.tolerated or outcome.suppressed):
        fate = ',"tolerated":true' if outcome.tolerated else ',"suppressed":"maintenance"'
    # That it is on time, as most are, is not told.
    late = f',"late":{late_ms // _S}' if late_ms > 0 else ""
    key = f',"key":"{item.key_id}"' if item.key_id else ""
    return f'{{{given}"via":"{item.via}"{key}{run}{ping}{fate}{late}}}'


def _body(status: str, *, healthy: bool, next_deadline: EpochMs | None) -> bytes:
    said = "true" if healthy else "false"
    until = "" if next_deadline is None else f',"nextDeadline":"{rfc3339(next_deadline)}"'
    return f'{{"status":"{status}","healthy":{said}{until}}}'.encode()
