"""Attempts: begun under a lease, finished under a fence, taken back when their sender died.

The network lies between the two transactions, never inside one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from sqlalchemy import Connection

from lifesign.channels import broken, history, rules, store
from lifesign.channels import message as messages
from lifesign.channels.message import Message
from lifesign.channels.rules import ALARMS, EXPIRES_AFTER_MS, LEASE_MS, PROBE_EVERY_MS, Status, Verdict
from lifesign.channels.sender import Outcome, Permanent, Retry, Sent, Unknown
from lifesign.channels.senders import HAS_ONE_ADDRESS, IS_IDEMPOTENT
from lifesign.channels.store import Channel, Notification
from lifesign.clock import EpochMs
from lifesign.db.wakeups import wake_after_commit
from lifesign.ids import new_id


@dataclass(frozen=True, slots=True)
class Claimed:
    """A notification under our lease, with the channel it goes through."""

    notification: Notification
    channel: Channel
    is_probe: bool = False
    """The channel has failed too often: this message shows whether it works again."""


@dataclass(frozen=True, slots=True)
class Finished:
    """One attempt, over."""

    claimed: Claimed
    outcome: Outcome
    started_at: EpochMs
    duration_ms: int
    luck: float


def begun(notification: Notification, node_id: str, now: EpochMs) -> dict[str, Any]:
    """An attempt that begins now, as a row."""
    return {
        "id": new_id("att", now),
        "project_id": notification.project_id,
        "notification_id": notification.id,
        "n": notification.attempt,
        "node_id": node_id,
        "started_at": now,
    }


class Ended(NamedTuple):
    """What became of a message, and of its channel's breaker when that changed."""

    status: Status
    breaker: Literal["opened", "closed"] | None = None


def finish(conn: Connection, finished: Finished, now: EpochMs) -> Ended | None:
    """Save what became of an attempt. None: the lease was lost, the attempt is noted as stale."""
    row = finished.claimed.notification
    verdict = _verdict(finished, now, is_withdrawn=store.is_withdrawn(conn, row.id))
    kept = store.finish(conn, row.id, row.lease_token, _ending(finished.outcome, verdict, now))
    outcome = verdict.outcome if kept else "stale"
    store.finish_attempt(conn, row.id, row.attempt, _attempt_ending(finished, outcome, now))
    if not kept:
        return None
    if isinstance(finished.outcome, Permanent) and finished.outcome.disable:
        _break(conn, finished.claimed.channel, event_words(finished.outcome), now)
    if isinstance(finished.outcome, Sent):
        _mend(conn, finished.claimed.channel)
    _record(conn, row, finished.outcome, verdict, now)
    if verdict.lane_held_until is not None:
        store.set_lane(conn, row.channel_id, {"held_until": verdict.lane_held_until})
    if row.kind in ALARMS and verdict.status in {"dead", "canceled"}:
        store.cancel_needless_resolves(conn, row.order_key, now)
    changed = _mind_breaker(conn, finished, now)
    if row.kind != "test":
        # What stood behind this row may go now; a row that waits again knows its own moment.
        store.hasten_lanes(
            conn, {row.channel_id: verdict.not_before if verdict.status == "pending" and verdict.not_before else now}
        )
        wake_after_commit(conn, "deliver")
    return Ended(verdict.status, changed)


def _mind_breaker(conn: Connection, finished: Finished, now: EpochMs) -> Literal["opened", "closed"] | None:
    """Count failures in a row; say when the channel's breaker opened or closed."""
    row, outcome = finished.claimed.notification, finished.outcome
    if isinstance(outcome, Sent):
        store.close_breaker(conn, row.channel_id)
        return "closed" if finished.claimed.is_probe else None
    # A permanent refusal is an answer; "too many requests" has a pause of its own; a test goes around the breaker.
    if isinstance(outcome, Permanent) or outcome.code == "429" or row.kind == "test":
        return None
    before = store.lock_breaker(conn, row.channel_id)
    after = rules.breaker_after_failure(before, now)
    if after != before:
        changes = {"breaker": after.state, "fails": after.fails, "open_until": after.open_until}
        store.set_lane(conn, row.channel_id, changes)
    return "opened" if after.state == "open" and before.state == "closed" else None


def _break(conn: Connection, channel: Channel, reason: str, now: EpochMs) -> None:
    """The provider refuses the channel for good: from now on one message in a while tries it.

    Of a channel with several addresses only one is refused: the others are told as ever.
    """
    store.mark_broken(conn, channel.id, reason, now)
    if HAS_ONE_ADDRESS[channel.type]:
        store.set_lane(conn, channel.id, {"held_until": now + PROBE_EVERY_MS})
    broken.tell(conn, [replace(channel, broken_reason=reason)], now)


def _mend(conn: Connection, channel: Channel) -> None:
    """What was refused for good is taken again: the next messages need not wait ten minutes each.

    Of a channel with several addresses this may be another one than was refused.
    """
    if channel.broken_at is not None and HAS_ONE_ADDRESS[channel.type]:
        store.save_channel(conn, channel.id, {"broken_reason": None, "broken_at": None})
        store.set_lane(conn, channel.id, {"held_until": None})


def finish_many(conn: Connection, items: Sequence[tuple[Finished, EpochMs]]) -> list[Ended | Exception | None]:
    """`finish` for each of several attempts, each with its own `now`; what it answers for each, in order.

    Attempts of one channel that end together would wait for each other's commit: each moves the channel's one lane.
    """
    # Rows first, all of them, in the order in which everybody locks them; lanes after that.
    store.lock_notifications(conn, [finished.claimed.notification.id for finished, _ in items])
    by_channel = sorted(range(len(items)), key=lambda n: items[n][0].claimed.notification.channel_id)
    kept: dict[int, Ended | Exception | None] = {n: finish(conn, *items[n]) for n in by_channel}
    return [kept[n] for n in range(len(items))]


def reap(conn: Connection, now: EpochMs, limit: int, *, overdue_ms: int = 0) -> list[Notification]:
    """Messages whose sender died go back into the queue at once; which they were.

    overdue_ms: only those whose lease ran out at least so long ago.
    """
    expired = store.expired_leases(conn, EpochMs(now - overdue_ms), limit)
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
    return [row for row, _ in expired]


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
    if isinstance(outcome, Sent):
        history.record(conn, "notify_sent", [row], now, attempts=row.attempt)
    elif verdict.status == "dead" or not row.has_failed:
        is_final = verdict.status == "dead"
        history.record(conn, "notify_failed", [row], now, error=event_words(outcome), final=is_final)


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
def admit_test(conn: Connection, channel_id: str, now: EpochMs) -> None:
    """Raises TooManyTests when the channel was tested too often within a minute."""
    earlier = store.tests_since(conn, channel_id, EpochMs(now - 60_000))
    if len(earlier) >= rules.MAX_TESTS_PER_MINUTE:
        raise rules.TooManyTests(earlier[-rules.MAX_TESTS_PER_MINUTE] + 60_000 - now)


def begin_test(
    conn: Connection, channel: Channel, addresses: Sequence[str | None], message: Message, *, node_id: str, now: EpochMs
) -> list[Claimed]:
    """Write one test message for each address, already under our lease."""
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
    written = [store.notification_by_id(conn, channel.project_id, str(row["id"])) for row in rows]
    claimed = [Claimed(row, channel) for row in written if row is not None]
    store.insert_attempts(conn, [begun(each.notification, node_id, now) for each in claimed])
    return claimed
