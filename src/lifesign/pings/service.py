"""What pings do: many share a transaction; an ordinary one costs what a check-in costs.

Everything here runs in the caller's transaction and goes through `rules` for its decisions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import orjson
from sqlalchemy import Connection

from lifesign.auth.rules import Caller
from lifesign.channels import service as channels
from lifesign.clock import EpochMs
from lifesign.db.patience import Patience
from lifesign.db.wakeups import wake_after_commit
from lifesign.events import service as events
from lifesign.events.rules import Event
from lifesign.faults import InvalidInput
from lifesign.heartbeats import checkins, running
from lifesign.heartbeats import service as heartbeats
from lifesign.heartbeats.checkins import Batch, CheckIn
from lifesign.heartbeats.counted import PingRules
from lifesign.heartbeats.definition import Definition
from lifesign.heartbeats.rules import Heartbeat, HeartbeatLimitReached
from lifesign.incidents.rules import Tuning
from lifesign.pings import rules, store
from lifesign.pings.rules import NOT_FOUND, Action, PingRefused, Signal
from lifesign.settings import Settings

_S = 1000
_MAX_OWN_CHANNELS = 1000
_TIMEOUT_S = 10.0


class Mail(NamedTuple):
    """What of an e-mail is looked at."""

    subject: str
    text: str


class Ping(NamedTuple):
    """One ping as it arrived. `stamp`: when its body had been read.

    ping_id, or project_id and slug, name the heartbeat. creation: what it becomes where there is none.
    """

    ping_id: str | None
    project_id: str
    slug: str
    key_id: str
    action: Action
    is_bare: bool
    exit_status: int | None
    rid: str | None
    scheme: str
    method: str
    remote_addr: str
    ua: str
    body: bytes
    stamp: EpochMs
    creation: Definition | None = None
    mail: Mail | None = None


class Pinged(NamedTuple):
    """What became of a ping."""

    is_created: bool = False
    is_repeat: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is kept of pings, and how soon the same one is a repeat."""

    bodies_kept: int
    repeat_ms: int
    max_heartbeats: int

    @classmethod
    def of(cls, settings: Settings) -> "Limits":
        """By the settings."""
        return cls(settings.ping_bodies_kept, settings.ping_dedup_seconds * _S, settings.max_heartbeats)


def forget_rids(conn: Connection, now: EpochMs, limit: int) -> int:
    """Forget run ids that are too old to tell a repeat or a duration; how many."""
    return store.forget_old(conn, EpochMs(now - rules.DURATION_KNOWN_MS), limit)


class Pings:
    """Records pings, many at once: `await db.write_batched(pings.record, ping)`."""

    def __init__(self, tuning: Tuning, limits: Limits) -> None:
        self.tuning = tuning
        self.limits = limits
        self.patience = Patience(_TIMEOUT_S)

    def record(self, conn: Connection, items: Sequence[Ping]) -> list[Pinged | Exception]:
        """Record all of `items`; what became of each, or PingRefused, in order."""
        batch = _Batch(conn, items, self.tuning, self.limits)
        answers = [batch.take(item) for item in items]
        batch.flush()
        return answers


class _Batch:
    """The heartbeats of one transaction, and what is still to be written about them."""

    def __init__(self, conn: Connection, items: Sequence[Ping], tuning: Tuning, limits: Limits) -> None:
        self._conn = conn
        self._tuning = tuning
        self._limits = limits
        named = [item for item in items if item.ping_id is None]
        by_slug = [_check_in(item, item.project_id, item.slug, healthy=True, ping="") for item in named]
        ping_ids = {item.ping_id for item in items if item.ping_id is not None}
        self._batch = Batch(conn, by_slug, tuning, ping_ids=ping_ids)
        found = self._batch.found.values()
        self._by_ping_id = {each.ping_id: each.id for each in found if each.ping_id is not None}
        self._rules = {each.id: each.ping_rules for each in found}
        self._extras = {each.id: each.ping_extras for each in found}
        # How long the last run took is told until the next end of one, which has to take it away; an open one ends.
        self._timed = {each.id for each in found if each.is_timed}
        self._projects = {each.id: each.project_id for each in found}
        self._bodies: list[store.Body] = []
        self._managed = {each.id for each in found if each.managed_by is not None}

    def take(self, item: Ping) -> Pinged | Exception:
        """Apply one ping; what it writes may wait until `flush`."""
        if item.ping_id is not None:
            heartbeat_id = self._by_ping_id.get(item.ping_id)
        else:
            heartbeat_id = self._batch.id_of(item.project_id, item.slug)
        if heartbeat_id is None or heartbeat_id in self._managed:
            is_wanted = heartbeat_id is None and item.creation is not None
            return self._created(item) if is_wanted else PingRefused(*NOT_FOUND)
        is_plain = item.action == "success" and item.rid is None and item.mail is None
        is_plain = is_plain and heartbeat_id not in self._timed
        if is_plain and self._rules.get(heartbeat_id) is None and self._batch.waiting(heartbeat_id) is not None:
            told, project_id = _told(item, "success"), self._projects[heartbeat_id]
            self._batch.take(_check_in(item, project_id, heartbeat_id, healthy=True, ping=told))
            after = self._batch.waiting(heartbeat_id) or self._batch.whole(heartbeat_id)
            self._keep_body(item, heartbeat_id, project_id, after.checkin_count)
            return Pinged()
        return self._applied(item, self._batch.whole(heartbeat_id))

    def flush(self) -> None:
        """Write what is waiting."""
        self._batch.flush()
        store.insert_bodies(self._conn, self._bodies, kept=self._limits.bodies_kept)
        self._bodies = []

    def _created(self, item: Ping) -> Pinged | Exception:
        self._batch.flush()
        made = _made(self._conn, item, self._limits.max_heartbeats)
        if made is None:
            return PingRefused(*NOT_FOUND)
        heartbeat, is_new = made
        self._batch.adopt(heartbeat)
        self._by_ping_id[heartbeat.ping_id or ""] = heartbeat.id
        self._projects[heartbeat.id] = heartbeat.project_id
        self._rules[heartbeat.id] = heartbeat.ping_rules
        self._extras[heartbeat.id] = heartbeat.ping_extras
        outcome = self._applied(item, heartbeat)
        return outcome._replace(is_created=is_new)

    def _applied(self, item: Ping, before: Heartbeat) -> Pinged:
        """A ping that does more than move a deadline: written at once, after what came before it."""
        signal = _signal(item, before)
        came: Mapping[Signal, EpochMs] = {}
        if item.rid is not None and signal in {"start", "success", "fail"}:
            came = store.came(self._conn, before.id, item.rid)
            if self._is_repeat(item, before, came.get(signal)):
                return Pinged(is_repeat=True)
            self._remember(item, before, signal)
        after = self._done(item, before, signal, came)
        self._batch.put(after)
        if after.last_duration_ms is None and after.ping_run_id is None:
            self._timed.discard(after.id)
        else:
            self._timed.add(after.id)
        self._rules[after.id], self._extras[after.id] = after.ping_rules, after.ping_extras
        self._keep_body(item, after.id, after.project_id, after.checkin_count)
        return Pinged()

    def _is_repeat(self, item: Ping, before: Heartbeat, last_at: EpochMs | None) -> bool:
        """Whether the same came just before."""
        window_ms = rules.repeat_window_ms(self._limits.repeat_ms, before.anchor_at, before.next_deadline)
        return last_at is not None and 0 <= item.stamp - last_at < window_ms

    def _remember(self, item: Ping, before: Heartbeat, signal: Signal) -> None:
        store.remember(
            self._conn,
            heartbeat_id=before.id,
            project_id=before.project_id,
            rid=item.rid or "",
            signal=signal,
            now=item.stamp,
        )

    def _done(self, item: Ping, before: Heartbeat, signal: Signal, came: Mapping[Signal, EpochMs]) -> Heartbeat:
        conn, now = self._conn, item.stamp
        if signal in {"log", "ign"}:
            event = Event(before.project_id, before.id, "log" if signal == "log" else "ignored")
            return self._noted(before, signal, event, item)
        if signal == "start":
            limit_ms = max(before.grace_ms, rules.LIMIT_AT_LEAST_MS)
            begun = running.begin_by_ping(conn, before, item.rid, limit_ms=limit_ms, now=now)
            wake_after_commit(conn, "sweep")
            event = Event(before.project_id, before.id, "run_started", {"runId": begun.ping_run_id})
            return self._noted(begun, signal, event, item)
        ok = signal == "success"
        started_at = before.ping_started_at if item.rid is None else rules.open_since(came)
        duration_ms = rules.duration_ms(started_at, now)
        ended = running.end_by_ping(conn, before, item.rid, ok=ok, now=now)
        ended = replace(ended, last_duration_ms=duration_ms)
        told = _told(item, signal, duration_ms)
        check_in = _check_in(item, ended.project_id, ended.id, healthy=ok, ping=told)
        return checkins.apply(conn, ended, check_in, self._tuning)

    def _noted(self, heartbeat: Heartbeat, signal: Signal, event: Event, item: Ping) -> Heartbeat:
        """The heartbeat after a ping that is no check-in."""
        given = event.metadata if isinstance(event.metadata, dict) else {}
        told = {"via": "email" if item.mail else "ping", "key": item.key_id or None}
        metadata = {**told, **given, "ping": orjson.Fragment(_told(item, signal))}
        events.record(self._conn, [event._replace(metadata=metadata)], item.stamp)
        after = replace(heartbeat, ping_extras=heartbeat.ping_extras + 1)
        heartbeats.save(self._conn, after)
        return after

    def _keep_body(self, item: Ping, heartbeat_id: str, project_id: str, checkin_count: int) -> None:
        if item.body and self._limits.bodies_kept:
            n = checkin_count + self._extras[heartbeat_id]
            self._bodies.append(store.Body(heartbeat_id, n, project_id, item.body))


def _signal(item: Ping, heartbeat: Heartbeat) -> Signal:
    wanted = PingRules.of(heartbeat.ping_rules)
    if item.mail is not None:
        signal = rules.signal_of_mail(wanted, subject=item.mail.subject, body=item.mail.text)
    else:
        signal = rules.signal_of(wanted, item.action, method=item.method, is_bare=item.is_bare, body=item.body)
    is_off = heartbeat.status == "paused" and heartbeat.is_sticky_pause
    return "ign" if is_off else signal


def _check_in(item: Ping, project_id: str, ref: str, *, healthy: bool, ping: str) -> CheckIn:
    return CheckIn(
        project_id,
        item.key_id,
        ref,
        healthy,
        None,
        item.stamp,
        via="ping" if item.mail is None else "email",
        ping=ping,
    )


def _told(item: Ping, signal: Signal, duration_ms: int | None = None) -> str:
    """What is kept of a ping beside its time, as JSON text."""
    told: dict[str, object] = {"kind": signal, "scheme": item.scheme, "remote": item.remote_addr}
    if item.method:
        told["method"] = item.method
    if item.ua:
        told["ua"] = item.ua
    if item.exit_status is not None:
        told["exit"] = item.exit_status
    if item.rid is not None:
        told["rid"] = item.rid
    if duration_ms is not None:
        told["durationMs"] = duration_ms
    return orjson.dumps(told).decode()


def _made(conn: Connection, item: Ping, max_heartbeats: int) -> tuple[Heartbeat, bool] | None:
    """The heartbeat that a first ping makes, and whether it is new; None when there may be no more of them."""
    if item.creation is None:
        return None
    owned = channels.list_channels(conn, item.project_id, limit=_MAX_OWN_CHANNELS, after=None)
    caller = Caller(item.key_id, "ping", item.project_id, frozenset())
    definition = replace(item.creation, own_channels=tuple(each.id for each in owned))
    try:
        made = heartbeats.create(
            conn,
            caller,
            definition,
            is_armed=False,
            has_slug=True,
            max_heartbeats=max_heartbeats,
            now=item.stamp,
        )
    except HeartbeatLimitReached:
        return None
    except InvalidInput:
        # Somebody else's first ping was quicker.
        return heartbeats.lock_unowned(conn, item.project_id, item.slug), False
    return made, True
