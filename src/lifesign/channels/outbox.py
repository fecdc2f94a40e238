"""The outbox: messages in, claimed under a lease, finished under a fence.

Every function here is one step of one transaction; the network lies between `claim_due` and `finish`, never inside.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection

from lifesign.channels import message as messages
from lifesign.channels import rules, store
from lifesign.channels.message import Message
from lifesign.channels.rules import ALARMS, EXPIRES_AFTER_MS, LEASE_MS, Status, Verdict
from lifesign.channels.sender import ChannelType, Outcome, Permanent, Retry, Sent, Unknown
from lifesign.channels.senders import CHANNEL_CAP, IS_IDEMPOTENT
from lifesign.channels.store import Channel, Notification
from lifesign.clock import EpochMs
from lifesign.db.wakeups import wake_after_commit
from lifesign.events import service as events
from lifesign.events.rules import Event
from lifesign.ids import new_id

_MAX_LANES = 32
_MAX_PER_LANE = 100


@dataclass(frozen=True, slots=True)
class Draft:
    """A message to enqueue for one target."""

    project_id: str
    idem_key: str
    incident_id: str
    heartbeat_id: str
    target: str
    channel_id: str
    dest: str | None
    message: Message
    priority: int
    order_seq: int


@dataclass(frozen=True, slots=True)
class Claimed:
    """A notification under our lease, with the channel it goes through."""

    notification: Notification
    channel: Channel


Flight = tuple[str, ChannelType]
"""A channel with sends under way, and its type."""


@dataclass(frozen=True, slots=True)
class Finished:
    """One attempt, over."""

    claimed: Claimed
    outcome: Outcome
    started_at: EpochMs
    duration_ms: int
    luck: float


# In -----------------------------------------------------------------------------------------------------------------
def enqueue(conn: Connection, drafts: Sequence[Draft], now: EpochMs) -> None:
    """Put messages into the outbox; one that is there already (same `idem_key`) is left alone."""
    if not drafts:
        return
    store.insert_notifications(conn, [_row(draft, now) for draft in drafts])
    store.hasten_lanes(conn, dict.fromkeys((draft.channel_id for draft in drafts), now))
    wake_after_commit(conn, "deliver")


def _row(draft: Draft, now: EpochMs) -> dict[str, Any]:
    message = draft.message
    return {
        "id": new_id("ntf", now),
        "project_id": draft.project_id,
        "idem_key": draft.idem_key,
        "incident_id": draft.incident_id,
        "heartbeat_id": draft.heartbeat_id,
        "target": draft.target,
        "channel_id": draft.channel_id,
        "dest": draft.dest,
        "kind": message.kind,
        "step": message.step,
        "loop": message.repeat,
        "priority": draft.priority,
        "status": "pending",
        "attempt": 0,
        "not_before": now,
        "expires_at": now + EXPIRES_AFTER_MS[message.kind],
        "lease_token": 0,
        "maybe_sent": 0,
        "has_failed": 0,
        "is_withdrawn": 0,
        "order_key": f"{draft.target}:{draft.incident_id}",
        "order_seq": draft.order_seq,
        "payload": messages.encode(message),
        "created_at": now,
    }


withdraw_pages = store.withdraw_pages
told_of = store.told_of
paged_targets = store.paged_targets
page_states = store.page_states
times_told = store.times_told


# Out ----------------------------------------------------------------------------------------------------------------
def claim_due(
    conn: Connection, now: EpochMs, *, node_id: str, free: Mapping[ChannelType, int], in_flight: Mapping[Flight, int]
) -> tuple[list[Claimed], EpochMs | None]:
    """Take what is due, as far as slots are free; return it and when there may be more.

    free: open slots by type. in_flight: sends under way by channel, which count against the channel's cap.
    """
    slots = {kind: count for kind, count in free.items() if count > 0}
    busy = dict(in_flight)
    claimed: list[Claimed] = []
    for lane in store.due_lanes(conn, now, types=slots, without=_saturated(busy), limit=_MAX_LANES):
        if lane.held_until is not None and lane.held_until > now:
            store.set_lane(conn, lane.channel_id, {"due_at": lane.held_until})
            continue
        room = min(slots[lane.type], CHANNEL_CAP[lane.type] - busy.get((lane.channel_id, lane.type), 0), _MAX_PER_LANE)
        if room <= 0:
            continue
        _bury(conn, store.expire_pending(conn, lane.channel_id, now), now)
        taken = store.claim(conn, store.claimable(conn, lane.channel_id, now, room), owner=node_id, now=now)
        store.set_lane_due(conn, lane.channel_id)
        claimed += _with_channels(conn, taken)
        slots[lane.type] -= len(taken)
        flight = (lane.channel_id, lane.type)
        busy[flight] = busy.get(flight, 0) + len(taken)
    store.insert_attempts(conn, [_begun(each.notification, node_id, now) for each in claimed])
    open_types = [kind for kind, count in slots.items() if count > 0]
    return claimed, store.next_lane_due(conn, types=open_types, without=_saturated(busy))


def _saturated(in_flight: Mapping[Flight, int]) -> list[str]:
    """Channels that must finish something before they may send more."""
    return [channel for (channel, kind), count in in_flight.items() if count >= CHANNEL_CAP[kind]]


def _with_channels(conn: Connection, taken: Sequence[Notification]) -> list[Claimed]:
    if not taken:
        return []
    channels = store.channels_by_id(conn, taken[0].project_id, {each.channel_id for each in taken})
    return [Claimed(each, channels[each.channel_id]) for each in taken]


def _begun(notification: Notification, node_id: str, now: EpochMs) -> dict[str, Any]:
    return {
        "id": new_id("att", now),
        "project_id": notification.project_id,
        "notification_id": notification.id,
        "n": notification.attempt,
        "node_id": node_id,
        "started_at": now,
    }


def finish(conn: Connection, finished: Finished, now: EpochMs) -> Status | None:
    """Save what became of an attempt; the message's status. None: the lease was lost, the attempt is noted as stale."""
    row = finished.claimed.notification
    verdict = _verdict(finished, now, is_withdrawn=store.is_withdrawn(conn, row.id))
    kept = store.finish(conn, row.id, row.lease_token, _ending(finished.outcome, verdict, now))
    outcome = verdict.outcome if kept else "stale"
    store.finish_attempt(conn, row.id, row.attempt, _attempt_ending(finished, outcome, now))
    if not kept:
        return None
    if isinstance(finished.outcome, Permanent) and finished.outcome.disable:
        store.save_channel(conn, row.channel_id, {"broken_reason": event_words(finished.outcome), "broken_at": now})
    _record(conn, row, finished.outcome, verdict, now)
    if verdict.lane_held_until is not None:
        store.set_lane(conn, row.channel_id, {"held_until": verdict.lane_held_until})
    if row.kind in ALARMS and verdict.status in {"dead", "canceled"}:
        store.cancel_needless_resolves(conn, row.order_key, now)
    if row.kind != "test":
        # What stood behind this row may go now; a row that waits again knows its own moment.
        store.hasten_lanes(
            conn, {row.channel_id: verdict.not_before if verdict.status == "pending" and verdict.not_before else now}
        )
        wake_after_commit(conn, "deliver")
    return verdict.status


def finish_many(conn: Connection, items: Sequence[tuple[Finished, EpochMs]]) -> list[Status | Exception | None]:
    """`finish` for each of several attempts, each with its own `now`; what it answers for each, in order.

    Attempts of one channel that end together would wait for each other's commit: each moves the channel's one lane.
    """
    # Rows first, all of them, in the order in which everybody locks them; lanes after that.
    store.lock_notifications(conn, [finished.claimed.notification.id for finished, _ in items])
    by_channel = sorted(range(len(items)), key=lambda n: items[n][0].claimed.notification.channel_id)
    kept: dict[int, Status | Exception | None] = {n: finish(conn, *items[n]) for n in by_channel}
    return [kept[n] for n in range(len(items))]


def reap(conn: Connection, now: EpochMs, limit: int) -> int:
    """Rows whose sender died go back into the queue at once; how many there were."""
    expired = store.expired_leases(conn, now, limit)
    for row, channel_type in expired:
        may_have_left = channel_type is not None and (IS_IDEMPOTENT[channel_type] or row.called_at is not None)
        if row.kind == "test" or channel_type is None:
            status = "dead" if row.kind == "test" else "canceled"
            values: dict[str, Any] = {"status": status, "finished_at": now, "last_code": "lease_expired"}
        elif row.is_withdrawn:
            values = {"status": "canceled", "finished_at": now}
        else:
            values = {"status": "pending", "not_before": now}
        store.finish(conn, row.id, row.lease_token, values | {"maybe_sent": int(bool(row.maybe_sent) or may_have_left)})
        ending = {"finished_at": now, "outcome": "unknown" if may_have_left else "retry", "code": "lease_expired"}
        store.finish_attempt(conn, row.id, row.attempt, ending | {"error": "the sender did not come back"})
        if row.is_withdrawn:
            store.cancel_needless_resolves(conn, row.order_key, now)
        store.hasten_lanes(conn, {row.channel_id: now})
    if expired:
        wake_after_commit(conn, "deliver")
    return len(expired)


next_lease_end = store.next_lease_end
mark_called = store.mark_called


# Judgement ----------------------------------------------------------------------------------------------------------
def _verdict(finished: Finished, now: EpochMs, *, is_withdrawn: bool) -> Verdict:
    row, outcome = finished.claimed.notification, finished.outcome
    if isinstance(outcome, Sent):
        return Verdict("sent", "sent")
    if isinstance(outcome, Permanent):
        return Verdict("canceled" if is_withdrawn else "dead", "permanent")
    kind: Literal["retry", "unknown"] = "retry" if isinstance(outcome, Retry) else "unknown"
    if row.kind == "test":
        return Verdict("dead", kind)
    return rules.after_failure(
        kind,
        attempt=row.attempt,
        now=now,
        expires_at=row.expires_at,
        after_ms=outcome.after_ms if isinstance(outcome, Retry) else None,
        holds_lane=outcome.code == "429",
        is_withdrawn=is_withdrawn,
        luck=finished.luck,
    )


def _ending(outcome: Outcome, verdict: Verdict, now: EpochMs) -> dict[str, Any]:
    values: dict[str, Any] = {"status": verdict.status}
    if verdict.status == "pending":
        values["not_before"] = verdict.not_before
    else:
        values["finished_at"] = now
    if isinstance(outcome, Sent):
        return values | {"provider_id": outcome.provider_id}
    if isinstance(outcome, Unknown):
        values["maybe_sent"] = 1
    return values | {"has_failed": 1, "last_code": outcome.code, "last_error": outcome.why}


def _attempt_ending(finished: Finished, outcome: str, now: EpochMs) -> dict[str, Any]:
    values: dict[str, Any] = {"finished_at": now, "outcome": outcome, "duration_ms": finished.duration_ms}
    if not isinstance(finished.outcome, Sent):
        values |= {"code": finished.outcome.code, "error": finished.outcome.why}
    if isinstance(finished.outcome, Retry | Permanent):
        values["http_status"] = finished.outcome.http_status
    return values


def _record(conn: Connection, row: Notification, outcome: Outcome, verdict: Verdict, now: EpochMs) -> None:
    """The heartbeat's history hears of the success, of the first failure, and of giving up."""
    if row.heartbeat_id is None:
        return
    told = {"incident": row.incident_id, "kind": row.kind, "channel": row.channel_id, "step": row.step}
    if isinstance(outcome, Sent):
        event = Event(row.project_id, row.heartbeat_id, "notify_sent", told | {"attempts": row.attempt})
    elif verdict.status == "dead" or not row.has_failed:
        metadata = told | {"error": event_words(outcome), "final": verdict.status == "dead"}
        event = Event(row.project_id, row.heartbeat_id, "notify_failed", metadata)
    else:
        return
    events.record(conn, [event], now)


def _bury(conn: Connection, expired: Iterable[Notification], now: EpochMs) -> None:
    for row in expired:
        if row.heartbeat_id is not None:
            told = {"incident": row.incident_id, "kind": row.kind, "channel": row.channel_id, "step": row.step}
            metadata = told | {"error": "expired: not delivered in time", "final": True}
            events.record(conn, [Event(row.project_id, row.heartbeat_id, "notify_failed", metadata)], now)


_WORDS = {
    "connect": "could not connect",
    "tls": "TLS failed",
    "write": "the connection broke while sending",
    "no_reply": "no answer came",
    "blocked_address": "address is not allowed",
    "not_configured": "the server is not configured for this channel type",
    "auth": "the provider refused the server's credentials",
    "secret_unreadable": "the channel's secret cannot be decrypted",
    "unexpected_body": "the provider answered something unexpected",
    "internal": "a fault of this server",
}


def event_words(outcome: Retry | Permanent | Unknown) -> str:
    """A failure in our own words: what a target answered is for holders of `channels:write` only."""
    if outcome.code in _WORDS:
        return f"{outcome.code}: {_WORDS[outcome.code]}"
    return f"{outcome.code}: the provider answered {outcome.code}"


# Tests of a channel -------------------------------------------------------------------------------------------------
def begin_test(
    conn: Connection, channel: Channel, addresses: Sequence[str | None], message: Message, *, node_id: str, now: EpochMs
) -> list[Claimed]:
    """Write one test message for each address, already under our lease. Raises TooManyTests."""
    earlier = store.tests_since(conn, channel.id, EpochMs(now - 60_000))
    if len(earlier) >= rules.MAX_TESTS_PER_MINUTE:
        raise rules.TooManyTests(earlier[-rules.MAX_TESTS_PER_MINUTE] + 60_000 - now)
    rows: list[dict[str, Any]] = []
    test_id = new_id("test", now)
    for address in addresses:
        notification_id = new_id("ntf", now)
        rows.append(
            {
                "id": notification_id,
                "project_id": channel.project_id,
                "idem_key": notification_id,
                "target": f"channel:{channel.id}",
                "channel_id": channel.id,
                "dest": address,
                "kind": "test",
                "step": 0,
                "loop": 0,
                "priority": rules.PRIORITY_TEST,
                "status": "sending",
                "attempt": 1,
                "not_before": now,
                "expires_at": now + EXPIRES_AFTER_MS["test"],
                "lease_owner": node_id,
                "lease_until": now + LEASE_MS,
                "lease_token": 1,
                "maybe_sent": 0,
                "has_failed": 0,
                "is_withdrawn": 0,
                "order_key": test_id,
                "order_seq": 0,
                "payload": messages.encode(message),
                "created_at": now,
            }
        )
    store.insert_notifications(conn, rows)
    begun = [store.notification_by_id(conn, channel.project_id, str(row["id"])) for row in rows]
    claimed = [Claimed(row, channel) for row in begun if row is not None]
    store.insert_attempts(conn, [_begun(each.notification, node_id, now) for each in claimed])
    return claimed


figures = store.outbox_figures
count_dead = store.count_dead
