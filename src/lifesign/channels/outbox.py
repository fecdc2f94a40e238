"""The outbox: messages in, withdrawn, looked at, and sent again by a person.

Every function here is one step of the caller's transaction. What leaves is claimed by `claims` and ended by `attempts`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection

from lifesign.channels import digests, history, store
from lifesign.channels import message as messages
from lifesign.channels.message import Message
from lifesign.channels.rules import (
    EXPIRES_AFTER_MS,
    PRIORITY_LATER,
    RETRIED_FOR_MS,
    NotificationNotFound,
    NotRetryable,
)
from lifesign.channels.store import Notification, Told
from lifesign.clock import EpochMs
from lifesign.db.wakeups import wake_after_commit
from lifesign.ids import new_id


@dataclass(frozen=True, slots=True)
class Draft:
    """A message to enqueue for one target."""

    project_id: str
    idem_key: str
    incident_id: str | None
    heartbeat_id: str | None
    target: str
    channel_id: str
    dest: str | None
    message: Message
    priority: int
    order_seq: int
    order_subject: str | None = None
    """What messages to one address are told in order about; the incident, when nothing else is said."""
    storm_id: str | None = None
    is_held: bool = False
    """It waits until its storm is over."""


# In -----------------------------------------------------------------------------------------------------------------
def enqueue(conn: Connection, drafts: Sequence[Draft], now: EpochMs) -> None:
    """Put messages into the outbox; one that is there already (same `idem_key`) is left alone."""
    if not drafts:
        return
    store.insert_notifications(conn, [_row(draft, now) for draft in drafts])
    store.hasten_lanes(conn, dict.fromkeys((draft.channel_id for draft in drafts if not draft.is_held), now))
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
        "storm_id": draft.storm_id,
        "status": "held" if draft.is_held else "pending",
        "attempt": 0,
        "not_before": now,
        "expires_at": now + EXPIRES_AFTER_MS[message.kind],
        "lease_token": 0,
        "maybe_sent": 0,
        "has_failed": 0,
        "is_withdrawn": 0,
        "order_key": f"{draft.target}:{draft.order_subject or draft.incident_id}",
        "order_seq": draft.order_seq,
        "payload": messages.encode(message),
        "created_at": now,
    }


# Read and withdrawn by incidents ------------------------------------------------------------------------------------
withdraw_pages = store.withdraw_pages
hold_pages = store.hold_pages
told_of = store.told_of
paged_targets = store.paged_targets
page_states = store.page_states
times_told = store.times_told
alarms_among = store.alarms_among
next_order_seq = store.next_order_seq


def release_pages(conn: Connection, incident_id: str, now: EpochMs, *, except_of: str | None) -> None:
    """What a hold of the incident kept back leaves now; what the open storm `except_of` holds as well, later."""
    until = EpochMs(now + EXPIRES_AFTER_MS["page"])
    wake_lanes(conn, store.release_pages(conn, incident_id, now, until, except_of=except_of), now)


# Many at once -------------------------------------------------------------------------------------------------------
def tell_held(conn: Connection, storm_id: str, now: EpochMs) -> list[str]:
    """What a storm held back and is still of interest: one digest for each address; of which incidents."""
    by_target: dict[str, list[Notification]] = {}
    for row in store.held_of(conn, storm_id):
        by_target.setdefault(row.target, []).append(row)
    for target, rows in sorted(by_target.items()):
        fold(conn, rows, f"{storm_id}:digest:{now}:{target}", now, storm_id=storm_id)
    held = (row for rows in by_target.values() for row in rows)
    return sorted({row.incident_id for row in held if row.incident_id is not None})


def fold(
    conn: Connection, rows: Sequence[Notification], idem_key: str, now: EpochMs, *, storm_id: str | None = None
) -> None:
    """Put one digest in the place of messages of one kind to one address. Their rows are locked."""
    first = rows[0]
    message = digests.digest([messages.decode(row.payload) for row in rows], now)
    order_key = f"{first.target}:digests"
    made = Draft(
        project_id=first.project_id,
        idem_key=idem_key,
        incident_id=None,
        heartbeat_id=None,
        target=first.target,
        channel_id=first.channel_id,
        dest=first.dest,
        message=message,
        priority=PRIORITY_LATER,
        # Digests to one address keep their order: that many are down comes before that they are back.
        order_seq=store.next_order_seq(conn, order_key),
        order_subject="digests",
        storm_id=storm_id,
    )
    row = _row(made, now)
    store.insert_notifications(conn, [row])
    store.bundle(conn, [each.id for each in rows], row["id"], now)
    store.hasten_lanes(conn, {first.channel_id: now})
    wake_after_commit(conn, "deliver")


def withdraw_flap(conn: Connection, incident_id: str, now: EpochMs) -> list[Told]:
    """A spell of flapping is over: what was not told of it is not told any more; who was told."""
    store.cancel_waiting(conn, incident_id, "flap", now)
    return store.told_of(conn, incident_id, kinds=("flap",))


# What a provider says later -----------------------------------------------------------------------------------------
def note_delivered(conn: Connection, provider_id: str, now: EpochMs) -> None:
    """The provider delivered a message that it had accepted. States do not go back: of others nothing changes."""
    store.end_sent(conn, provider_id, {"status": "delivered", "finished_at": now})


def note_undelivered(conn: Connection, provider_id: str, code: str, now: EpochMs) -> list[str]:
    """The provider gave up a message that it had accepted: it is dead; incidents of which it was an alarm."""
    dead = {"status": "dead", "finished_at": now, "last_code": code, "last_error": f"not delivered: {code}"}
    rows = store.end_sent(conn, provider_id, dead)
    error = f"{code}: the provider could not deliver it"
    history.record(conn, "notify_failed", rows, now, error=error, final=True)
    return store.alarms_among(conn, rows)


# Sent again ---------------------------------------------------------------------------------------------------------
def retry_dead(conn: Connection, project_id: str, notification_id: str, now: EpochMs) -> Notification:
    """Send a dead message again, because a person wants it. Raises NotificationNotFound, NotRetryable."""
    row = store.notification_by_id(conn, project_id, notification_id, lock=True)
    if row is None:
        raise NotificationNotFound
    if row.status != "dead":
        raise NotRetryable(row.status, f"Notification is {row.status}, not dead")
    if row.kind == "test":
        raise NotRetryable(row.status, "A test is not sent again: test the channel instead")
    if row.is_withdrawn:
        raise NotRetryable(row.status, "The incident is over, nobody waits for this message any more")
    channel = store.channels_by_id(conn, project_id, [row.channel_id], keep=True).get(row.channel_id)
    if channel is None:
        raise NotRetryable(row.status, "The channel was deleted")
    store.revive(conn, row.id, now, EpochMs(now + RETRIED_FOR_MS))
    if channel.broken_at is not None:
        # A person has a reason to try now.
        store.set_lane(conn, row.channel_id, {"held_until": None})
    store.hasten_lanes(conn, {row.channel_id: now})
    wake_after_commit(conn, "deliver")
    return replace(row, status="pending")


def wake_lanes(conn: Connection, channel_ids: Iterable[str], now: EpochMs) -> None:
    """Let channels look at their messages at once."""
    store.hasten_lanes(conn, dict.fromkeys(channel_ids, now))
    wake_after_commit(conn, "deliver")


def follow_clock(conn: Connection, by_ms: int, now: EpochMs) -> None:
    """The clock was set back by so much: what is so long to wait stays so long, and ends by the new time."""
    store.set_queue_back(conn, by_ms, now)


figures = store.outbox_figures
sleeping_lanes = store.sleeping_lanes
count_dead = store.count_dead
open_breakers = store.count_open_breakers
