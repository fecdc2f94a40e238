"""Out of the outbox: which lanes have their turn, how much each may send, and the claim itself.

One transaction, with no network in it. A lane is passed over while its provider asked for a pause, while its breaker
is open, or while there is no token left in its bucket; it then knows when to look again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Connection

from lifesign.channels import history, outbox, rules, store
from lifesign.channels.attempts import Claimed, begun
from lifesign.channels.limits import Limits
from lifesign.channels.rules import CROWD, PROBE_EVERY_MS, Bucket, ChannelType
from lifesign.channels.senders import CHANNEL_CAP, HAS_ONE_ADDRESS, IS_MACHINE
from lifesign.channels.store import Channel, Lane, Notification
from lifesign.clock import EpochMs

_MAX_LANES = 32
_MAX_PER_LANE = 100

Flight = tuple[str, ChannelType]
"""A channel with sends under way, and its type."""


@dataclass(frozen=True, slots=True)
class Room:
    """What this node may send. free: open slots by type. in_flight: sends under way, which count against the cap."""

    free: Mapping[ChannelType, int]
    in_flight: Mapping[Flight, int]


class Claim(NamedTuple):
    """What one look at the outbox took, and when there may be more."""

    claimed: list[Claimed]
    next_due: EpochMs | None
    unreached: list[str]
    """Incidents of which an alarm was too old to be sent any more."""


first_due = store.first_lane_due


def claim_due(conn: Connection, now: EpochMs, *, node_id: str, room: Room, limits: Limits) -> Claim:
    """Take what is due, as far as slots, caps, breakers and rates allow."""
    slots = {kind: count for kind, count in room.free.items() if count > 0}
    busy = dict(room.in_flight)
    claimed: list[Claimed] = []
    buried: list[Notification] = []
    for lane in store.due_lanes(conn, now, types=slots, without=_saturated(busy), limit=_MAX_LANES):
        flight = (lane.channel_id, lane.type)
        count = min(slots[lane.type], CHANNEL_CAP[lane.type] - busy.get(flight, 0), _MAX_PER_LANE)
        if count <= 0:
            continue
        pause_until = _pause(conn, lane, now)
        if pause_until is not None:
            store.set_lane(conn, lane.channel_id, {"due_at": pause_until})
            continue
        buried += store.expire_pending(conn, lane.channel_id, now)
        if not IS_MACHINE[lane.type]:
            _fold(conn, lane.channel_id, now)
        taken = _take(conn, lane, 1 if _is_probing(lane) else count, now, node_id=node_id, limits=limits)
        claimed += taken
        slots[lane.type] -= len(taken)
        busy[flight] = busy.get(flight, 0) + len(taken)
    store.insert_attempts(conn, [begun(each.notification, node_id, now) for each in claimed])
    history.record(conn, "notify_failed", buried, now, error="expired: not delivered in time", final=True)
    open_types = [kind for kind, free in slots.items() if free > 0]
    next_due = store.next_lane_due(conn, types=open_types, without=_saturated(busy))
    return Claim(claimed, next_due, store.alarms_among(conn, buried))


def _fold(conn: Connection, channel_id: str, now: EpochMs) -> None:
    """Where too much waits for one address, one digest takes its place: a person reads no more than that."""
    for target, kind in store.crowded(conn, channel_id, now):
        rows = store.foldable(conn, channel_id, target, kind, now)
        if len(rows) > CROWD:
            outbox.fold(conn, rows, f"digest:{rows[0].id}", now)


def _saturated(in_flight: Mapping[Flight, int]) -> list[str]:
    """Channels that must finish something before they may send more."""
    return [channel for (channel, kind), count in in_flight.items() if count >= CHANNEL_CAP[kind]]


def _pause(conn: Connection, lane: Lane, now: EpochMs) -> EpochMs | None:
    """Until when the lane must not send; None: it may."""
    for until in (lane.held_until, lane.open_until):
        if until is not None and until > now:
            return until
    # A probe tries alone: what follows it waits for what becomes of it.
    return store.lease_end(conn, lane.channel_id) if _is_probing(lane) else None


def _is_probing(lane: Lane) -> bool:
    """Whether one message goes alone, to see whether the channel works again."""
    return lane.breaker != "closed" or bool(lane.is_broken and HAS_ONE_ADDRESS[lane.type])


def _take(conn: Connection, lane: Lane, count: int, now: EpochMs, *, node_id: str, limits: Limits) -> list[Claimed]:
    """Claim up to `count` rows of a lane and set when it is due next."""
    rate = limits.rate(lane.type)
    key = limits.bucket(lane.type, lane.channel_id, lane.bucket_key)
    bucket = None if rate is None else store.lock_bucket(conn, key, rate, now)
    if rate is not None and bucket is None:
        return []  # another node takes from it at this moment; the lane stays due
    ids = store.claimable(conn, lane.channel_id, now, count if bucket is None else min(count, int(bucket.tokens)))
    taken = store.claim(conn, ids, owner=node_id, now=now)
    store.set_lane_due(conn, lane.channel_id)
    changes: dict[str, Any] = {}
    if rate is not None and bucket is not None:
        left = Bucket(bucket.tokens - len(taken), bucket.at)
        if taken:
            store.save_bucket(conn, key, left)
        if len(taken) < count and left.tokens < 1:
            changes["due_at"] = EpochMs(now + max(1, rules.token_wait_ms(left, rate)))
    if taken and lane.breaker == "open":
        changes["breaker"] = "half"
    if taken and lane.is_broken and HAS_ONE_ADDRESS[lane.type]:
        changes["held_until"] = EpochMs(now + PROBE_EVERY_MS)
    if changes:
        store.set_lane(conn, lane.channel_id, changes)
    return _with_channels(conn, taken, is_probe=lane.breaker != "closed")


def _with_channels(conn: Connection, taken: Sequence[Notification], *, is_probe: bool) -> list[Claimed]:
    if not taken:
        return []
    channels = store.channels_by_id(conn, taken[0].project_id, {each.channel_id for each in taken})
    return [Claimed(each, channels[each.channel_id], is_probe) for each in taken]


def spend(conn: Connection, channel: Channel, wanted: int, *, limits: Limits, now: EpochMs) -> int | None:
    """Take tokens for messages that go around the queue; ms until there are as many, when there are not."""
    rate = limits.rate(channel.type)
    if rate is None:
        return None
    key = limits.bucket(channel.type, channel.id, store.bucket_key_of(conn, channel.id))
    bucket = store.lock_bucket(conn, key, rate, now, wait=True)
    # A bucket that cannot hold as many is emptied; nobody could ever wait for more.
    wanted = min(wanted, rate.burst)
    if bucket is None or bucket.tokens < wanted:
        return rules.token_wait_ms(bucket or Bucket(0, now), rate, wanted)
    store.save_bucket(conn, key, Bucket(bucket.tokens - wanted, bucket.at))
    return None
