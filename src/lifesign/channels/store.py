"""SQL of the tables `channels`, `lanes`, `notifications` and `attempts`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

from sqlalchemy import (
    ColumnElement,
    Connection,
    bindparam,
    case,
    delete,
    exists,
    func,
    literal_column,
    or_,
    select,
    update,
)

from lifesign.channels import rules
from lifesign.channels.rules import (
    ALARMS,
    CROWD,
    LEASE_MS,
    MAX_FOLDED,
    Breaker,
    BreakerState,
    Bucket,
    ChannelType,
    PageState,
    Rate,
    Status,
)
from lifesign.clock import EpochMs
from lifesign.db.schema import attempts, channels, lanes, notifications, rate_buckets
from lifesign.db.sql import earlier, insert_new, word

_DAY_MS = 86_400_000
N = notifications.c
_PENDING = N.status == word("pending")
_SENDING = N.status == word("sending")


@dataclass(frozen=True, slots=True)
class Channel:
    """A channel as stored: `config` is JSON text with its secrets sealed."""

    id: str
    project_id: str
    name: str
    type: ChannelType
    config: str
    previous_secret: str | None
    previous_until: EpochMs | None
    broken_reason: str | None
    broken_at: EpochMs | None
    created_at: EpochMs
    updated_at: EpochMs | None
    origin: str | None = None


_CHANNEL_COLUMNS = tuple(channels.c[name] for name in Channel.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class Notification:
    """One message to one address of one channel: a row of the outbox."""

    id: str
    project_id: str
    incident_id: str | None
    heartbeat_id: str | None
    target: str
    channel_id: str
    dest: str | None
    kind: str
    step: int
    loop: int
    status: Status
    attempt: int
    not_before: EpochMs
    expires_at: EpochMs
    lease_until: EpochMs | None
    lease_token: int
    called_at: EpochMs | None
    maybe_sent: int
    has_failed: int
    is_withdrawn: int
    order_key: str
    payload: str
    created_at: EpochMs
    finished_at: EpochMs | None


_NOTIFICATION_COLUMNS = tuple(N[name] for name in Notification.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try to deliver."""

    notification_id: str
    n: int
    started_at: EpochMs
    finished_at: EpochMs | None
    outcome: str | None
    http_status: int | None
    code: str | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Lane:
    """The turn of one channel to send."""

    channel_id: str
    type: ChannelType
    due_at: EpochMs
    held_until: EpochMs | None
    breaker: BreakerState
    open_until: EpochMs | None
    bucket_key: str | None
    is_broken: int


# Channels -----------------------------------------------------------------------------------------------------------
def insert_channel(conn: Connection, channel: Channel, bucket_key: str | None) -> None:
    """A new channel and its lane."""
    conn.execute(channels.insert().values({name: getattr(channel, name) for name in Channel.__dataclass_fields__}))
    lane = {"channel_id": channel.id, "project_id": channel.project_id, "type": channel.type, "bucket_key": bucket_key}
    conn.execute(lanes.insert().values(lane))


def channel_by_id(conn: Connection, project_id: str, channel_id: str, *, lock: bool = False) -> Channel | None:
    """One channel of a project."""
    query = select(*_CHANNEL_COLUMNS).where(channels.c.id == channel_id, channels.c.project_id == project_id)
    row = conn.execute(query.with_for_update() if lock else query).first()
    return None if row is None else Channel(*row)


def channels_by_id(conn: Connection, project_id: str, ids: Iterable[str], *, keep: bool = False) -> dict[str, Channel]:
    """Those of `ids` that are channels of the project; `keep`: nobody deletes them until the transaction ends."""
    query = (
        select(*_CHANNEL_COLUMNS)
        .where(channels.c.id.in_(set(ids)), channels.c.project_id == project_id)
        .order_by(channels.c.id)
    )
    rows = conn.execute(query.with_for_update(read=True, key_share=True) if keep else query)
    return {row.id: Channel(*row) for row in rows}


def channels_of(conn: Connection, project_id: str, *, limit: int, after: str | None) -> list[Channel]:
    """Channels of a project, oldest first."""
    query = select(*_CHANNEL_COLUMNS).where(channels.c.project_id == project_id)
    if after is not None:
        query = query.where(channels.c.id > after)
    return [Channel(*row) for row in conn.execute(query.order_by(channels.c.id).limit(limit))]


def save_channel(conn: Connection, channel_id: str, values: Mapping[str, Any]) -> None:
    """Change columns of a channel."""
    conn.execute(update(channels).where(channels.c.id == channel_id).values(values))


def mark_broken(conn: Connection, channel_id: str, reason: str, now: EpochMs) -> None:
    """The provider refuses the channel for good; since when is kept while it is only told again."""
    since = func.coalesce(channels.c.broken_at, now)
    conn.execute(update(channels).where(channels.c.id == channel_id).values(broken_reason=reason, broken_at=since))


def broken_of(conn: Connection, project_id: str) -> list[Channel]:
    """The broken channels of a project, by name. Index: ix_channels_project."""
    query = select(*_CHANNEL_COLUMNS).where(channels.c.project_id == project_id, channels.c.broken_at.is_not(None))
    return [Channel(*row) for row in conn.execute(query.order_by(channels.c.name, channels.c.id))]


def broken_channels(conn: Connection, *, limit: int, after: str) -> list[Channel]:
    """Channels of all projects that their provider refuses for good, in id order: the scan of a small table."""
    query = select(*_CHANNEL_COLUMNS).where(channels.c.broken_at.is_not(None), channels.c.id > after)
    return [Channel(*row) for row in conn.execute(query.order_by(channels.c.id).limit(limit))]


def delete_channel(conn: Connection, channel_id: str) -> None:
    """Remove a channel and its lane."""
    conn.execute(delete(lanes).where(lanes.c.channel_id == channel_id))
    conn.execute(delete(channels).where(channels.c.id == channel_id))


# Outbox: in ---------------------------------------------------------------------------------------------------------
def insert_notifications(conn: Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Enqueue rows; one whose `idem_key` exists is left out."""
    insert_new(conn, notifications, rows, unique=["idem_key"])


def hasten_lanes(conn: Connection, due: Mapping[str, EpochMs]) -> None:
    """Lower the lanes' `due_at` to the given instants, in id order."""
    if due:
        statement = (
            update(lanes)
            .where(lanes.c.channel_id == bindparam("channel"))
            .values(due_at=earlier(lanes.c.due_at, "due"))
        )
        conn.execute(statement, [{"channel": channel, "due": at} for channel, at in sorted(due.items())])


def withdraw_pages(conn: Connection, incident_id: str, now: EpochMs) -> None:
    """The incident is over: waiting pages are canceled, all others must not be tried again.

    Those that were sent, because their provider may still say that it could not deliver them.

    One statement, so that a page which another node claims at this moment is either still waiting here or already
    on the wire, never neither.
    """
    which = N.status.in_((*_UNSENT, "sending", "sent", "dead"))
    _withdraw(conn, now, N.incident_id == incident_id, N.kind.in_(ALARMS), which)


def cancel_pending_of_channel(conn: Connection, channel_id: str, now: EpochMs) -> None:
    """The channel is gone: nothing more leaves through it."""
    _withdraw(conn, now, N.channel_id == channel_id, N.status.in_((*_UNSENT, "sending")))


def cancel_waiting(conn: Connection, incident_id: str, kind: str, now: EpochMs) -> None:
    """Messages of one kind that have not left are not sent. Index: ix_notifications_incident."""
    _withdraw(conn, now, N.incident_id == incident_id, N.kind == kind, N.status.in_((*_UNSENT, "sending")))


_UNSENT = ("pending", "held")


def _withdraw(conn: Connection, now: EpochMs, *which: ColumnElement[bool]) -> None:
    """Nobody wants these any more: those that wait are canceled, those on the wire are not tried again."""
    waiting = N.status.in_(_UNSENT)
    conn.execute(
        update(notifications)
        .where(*which)
        .values(
            is_withdrawn=1,
            status=case((waiting, "canceled"), else_=N.status),
            finished_at=case((waiting, now), else_=N.finished_at),
        )
    )


def hold_pages(conn: Connection, incident_id: str) -> None:
    """Nobody is told of the incident for now: what waits is held, what is on the wire will be once it comes back.

    Index: ix_notifications_incident.
    """
    conn.execute(
        update(notifications)
        .where(N.incident_id == incident_id, N.kind.in_(ALARMS), N.status.in_((*_UNSENT, "sending")))
        .values(is_on_hold=1, status=case((_PENDING, "held"), else_=N.status))
    )


def release_pages(
    conn: Connection, incident_id: str, now: EpochMs, expires_at: EpochMs, *, except_of: str | None
) -> list[str]:
    """What was held leaves now, but for what a storm (`except_of`) holds as well; the channels concerned.

    expires_at: until when it is tried, at least. Index: ix_notifications_incident.
    """
    held = N.status == word("held")
    leaves = held if except_of is None else held & or_(N.storm_id.is_(None), N.storm_id != except_of)
    rows = conn.execute(
        update(notifications)
        .where(N.incident_id == incident_id, N.is_on_hold == 1)
        .values(
            is_on_hold=0,
            status=case((leaves, "pending"), else_=N.status),
            not_before=case((leaves, now), else_=N.not_before),
            expires_at=case((N.expires_at < expires_at, expires_at), else_=N.expires_at),
        )
        .returning(N.channel_id)
    )
    return sorted({row.channel_id for row in rows})


@dataclass(frozen=True, slots=True)
class Told:
    """An address that was, or at this moment may be being, told of an incident."""

    target: str
    channel_id: str
    dest: str | None


def told_of(conn: Connection, incident_id: str, *, kinds: Sequence[str] = ALARMS) -> list[Told]:
    """The addresses that messages about the incident reached or may reach. Index: ix_notifications_incident."""
    rows = conn.execute(
        select(N.target, N.channel_id, N.dest)
        .where(N.incident_id == incident_id, N.kind.in_(kinds), _was_told())
        .group_by(N.target, N.channel_id, N.dest)
        .order_by(func.min(N.order_seq))
    )
    return [Told(*row) for row in rows]


def paged_targets(conn: Connection, incident_ids: Iterable[str]) -> set[tuple[str, str]]:
    """Incident and target of every page of these incidents. Index: ix_notifications_incident."""
    query = select(N.incident_id, N.target).where(N.incident_id.in_(set(incident_ids)), N.kind == "page").distinct()
    return {(row[0], row[1]) for row in conn.execute(query)}


def page_states(conn: Connection, incident_ids: Iterable[str]) -> list[PageState]:
    """What became of the pages of incidents. Index: ix_notifications_incident."""
    # A folded page is as good as the digest that tells it.
    digest = notifications.alias()
    status = func.coalesce(select(digest.c.status).where(digest.c.id == N.bundle_id).scalar_subquery(), N.status)
    query = select(N.incident_id, N.step, N.loop, status).where(N.incident_id.in_(set(incident_ids)))
    return [PageState(*row) for row in conn.execute(query.where(N.kind == "page").distinct())]


def alarms_among(conn: Connection, rows: Iterable[Notification]) -> list[str]:
    """The incidents of which these messages are alarms, by themselves or folded into a digest.

    Index: ix_notifications_channel.
    """
    rows = list(rows)
    found = {row.incident_id for row in rows if row.kind in ALARMS and row.incident_id is not None}
    digests = [row for row in rows if row.kind == "digest"]
    if digests:
        folded = select(N.incident_id).where(
            N.channel_id.in_({row.channel_id for row in digests}),
            N.bundle_id.in_({row.id for row in digests}),
            N.kind == "page",
        )
        found |= set(conn.scalars(folded.distinct()))
    return sorted(found)


def times_told(conn: Connection, incident_ids: Iterable[str]) -> dict[str, int]:
    """How often a fallback channel was told of each incident. Index: ix_notifications_incident."""
    query = (
        select(N.incident_id, N.target, func.count())
        .where(N.incident_id.in_(set(incident_ids)), N.kind.in_(("fallback", "reminder")))
        .group_by(N.incident_id, N.target)
    )
    told: dict[str, int] = {}
    for incident_id, _, count in conn.execute(query):
        told[incident_id] = max(count, told.get(incident_id, 0))
    return told


def cancel_needless_resolves(conn: Connection, order_key: str, now: EpochMs) -> None:
    """Cancel the waiting resolve of one incident and address when no page of it reached that address."""
    other = notifications.alias()
    reached = exists().where(other.c.order_key == N.order_key, other.c.kind.in_(ALARMS), _was_told(other))
    conn.execute(
        update(notifications)
        .where(N.order_key == order_key, N.kind == "resolve", _PENDING, ~reached)
        .values(status="canceled", finished_at=now)
    )


def _was_told(table: Any = notifications) -> ColumnElement[bool]:  # Any: Table and Alias have no common type with `.c`
    told: ColumnElement[bool] = table.c.status.in_(("sent", "delivered", "sending")) | (table.c.maybe_sent == 1)
    digest = notifications.alias()
    # A digest that still waits will be sent: nobody takes a name out of it.
    by_digest = exists().where(
        digest.c.id == table.c.bundle_id, digest.c.status.in_(("pending", "sending", "sent", "delivered"))
    )
    # One that was sent a month ago is kept no longer; its pages are while their incident is open.
    is_forgotten: ColumnElement[bool] = table.c.bundle_id.is_not(None) & ~exists().where(
        digest.c.id == table.c.bundle_id
    )
    return told | by_digest | is_forgotten


# Many at once -------------------------------------------------------------------------------------------------------
def held_of(conn: Connection, storm_id: str) -> list[Notification]:
    """What a storm alone holds back, locked. Index: ix_notifications_held."""
    held = select(*_NOTIFICATION_COLUMNS).where(N.storm_id == storm_id, N.status == word("held"), N.is_on_hold == 0)
    return [Notification(*row) for row in conn.execute(held.order_by(N.id).with_for_update())]


# Of an incident each, but for the end of a spell of flapping: what is calm need not be back.
_FOLDS = (
    N.kind.in_(("page", "resolve", "fallback", "reminder")) & N.incident_id.is_not(None) & ~N.idem_key.endswith(":flap")
)


def crowded(conn: Connection, channel_id: str, now: EpochMs) -> list[tuple[str, str]]:
    """Address and kind of which too many messages are due. Index: ix_notifications_pending."""
    query = (
        select(N.target, N.kind)
        .where(N.channel_id == channel_id, _PENDING, N.not_before <= now, _FOLDS)
        .group_by(N.target, N.kind)
        .having(func.count() > CROWD)
    )
    return sorted((row[0], row[1]) for row in conn.execute(query))


def foldable(conn: Connection, channel_id: str, target: str, kind: str, now: EpochMs) -> list[Notification]:
    """Due messages of one kind to one address that no earlier one holds up, locked. Index: ix_notifications_pending."""
    query = (
        select(*_NOTIFICATION_COLUMNS)
        .where(N.channel_id == channel_id, _PENDING, N.not_before <= now, N.target == target, N.kind == kind)
        .where(_FOLDS, ~_is_blocked(), N.order_key != f"{target}:digests")
        .order_by(N.id)
        .limit(MAX_FOLDED)
    )
    return [Notification(*row) for row in conn.execute(query.with_for_update(skip_locked=True))]


def bundle(conn: Connection, ids: Sequence[str], digest_id: str, now: EpochMs) -> None:
    """A digest tells what these would have told."""
    folded = update(notifications).where(N.id.in_(ids))
    conn.execute(folded.values(status="bundled", bundle_id=digest_id, finished_at=now))


def next_order_seq(conn: Connection, order_key: str) -> int:
    """The place after the last message to one address about one thing. Index: ix_notifications_order."""
    last: int | None = conn.scalar(select(func.max(N.order_seq)).where(N.order_key == order_key))
    return 0 if last is None else last + 1


# Outbox: out --------------------------------------------------------------------------------------------------------
def due_lanes(
    conn: Connection, now: EpochMs, *, types: Iterable[str], without: Iterable[str], limit: int
) -> list[Lane]:
    """Lanes that may have something to send, longest due first, locked against other nodes. Index: ix_lanes_due."""
    broken = select(channels.c.broken_at).where(channels.c.id == lanes.c.channel_id).scalar_subquery()
    rows = conn.execute(
        select(
            lanes.c.channel_id,
            lanes.c.type,
            lanes.c.due_at,
            lanes.c.held_until,
            lanes.c.breaker,
            lanes.c.open_until,
            lanes.c.bucket_key,
            case((broken.is_not(None), 1), else_=0),
        )
        .where(lanes.c.due_at <= now, lanes.c.type.in_(list(types)), lanes.c.channel_id.not_in(list(without)))
        .order_by(lanes.c.due_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return [Lane(*row) for row in rows]


def set_queue_back(conn: Connection, by_ms: int, now: EpochMs) -> None:
    """What waits to be sent, whatever sends, and channels that pause, do so for so much less: no index, no haste."""
    waiting = update(notifications).where(_PENDING, N.not_before > now)
    conn.execute(waiting.values(not_before=N.not_before - by_ms))
    leased = update(notifications).where(_SENDING, N.lease_until > now)
    conn.execute(leased.values(lease_until=N.lease_until - by_ms))
    for column in (lanes.c.due_at, lanes.c.held_until, lanes.c.open_until):
        conn.execute(update(lanes).where(column > now).values({column: column - by_ms}))


def sleeping_lanes(conn: Connection, now: EpochMs, waiting_since: EpochMs, later_than: EpochMs) -> list[str]:
    """Channels with a message that was due before `waiting_since`, and no look at it before `later_than`.

    Those that pause are left out. Index: ix_notifications_pending, once for each lane.
    """
    may_send = (lanes.c.open_until.is_(None) | (lanes.c.open_until <= now)) & (
        lanes.c.held_until.is_(None) | (lanes.c.held_until <= now)
    )
    waits = exists().where(N.channel_id == lanes.c.channel_id, _PENDING, N.not_before < waiting_since, ~_is_blocked())
    asleep = lanes.c.due_at.is_(None) | (lanes.c.due_at > later_than)
    return list(conn.scalars(select(lanes.c.channel_id).where(asleep, may_send, waits)))


_FIRST_LANE_DUE = select(func.min(lanes.c.due_at)).where(lanes.c.due_at.is_not(None))


def first_lane_due(conn: Connection) -> EpochMs | None:
    """When the next lane of all is due. Index: ix_lanes_due."""
    due: EpochMs | None = conn.scalar(_FIRST_LANE_DUE)
    return due


def next_lane_due(conn: Connection, *, types: Iterable[str], without: Iterable[str]) -> EpochMs | None:
    """When the next lane of these types is due. Index: ix_lanes_due."""
    due: EpochMs | None = conn.scalar(
        select(func.min(lanes.c.due_at)).where(
            lanes.c.due_at.is_not(None), lanes.c.type.in_(list(types)), lanes.c.channel_id.not_in(list(without))
        )
    )
    return due


def claimable(conn: Connection, channel_id: str, now: EpochMs, limit: int) -> list[str]:
    """Ids of due rows of a channel that no earlier message to the same address holds up.

    Index: ix_notifications_pending.
    """
    query = (
        select(N.id)
        .where(N.channel_id == channel_id, _PENDING, N.not_before <= now, ~_is_blocked())
        .order_by(N.priority, N.not_before, N.id)
        .limit(limit)
    )
    return list(conn.scalars(query.with_for_update(skip_locked=True)))


def _is_blocked() -> ColumnElement[bool]:
    """An earlier message to the same address about the same incident has not ended. Index: ix_notifications_order."""
    before = notifications.alias()
    return exists().where(
        before.c.order_key == N.order_key, before.c.order_seq < N.order_seq, before.c.status.in_(("pending", "sending"))
    )


def claim(conn: Connection, ids: Sequence[str], *, owner: str, now: EpochMs) -> list[Notification]:
    """Take rows for sending: a lease, and a new fencing token."""
    if not ids:
        return []
    rows = conn.execute(
        update(notifications)
        .where(N.id.in_(ids), N.status == "pending")
        .values(
            status="sending",
            lease_owner=owner,
            lease_until=now + LEASE_MS,
            lease_token=N.lease_token + 1,
            attempt=N.attempt + 1,
            called_at=None,
        )
        .returning(*_NOTIFICATION_COLUMNS)
    )
    claimed = {row.id: Notification(*row) for row in rows}
    return [claimed[row_id] for row_id in ids if row_id in claimed]


def expire_pending(conn: Connection, channel_id: str, now: EpochMs) -> list[Notification]:
    """Rows of a channel that nobody could deliver in time: they die here. Index: ix_notifications_pending."""
    rows = conn.execute(
        update(notifications)
        .where(N.channel_id == channel_id, _PENDING, N.not_before <= now, N.expires_at < now)
        .values(status="dead", finished_at=now)
        .returning(*_NOTIFICATION_COLUMNS)
    )
    return [Notification(*row) for row in rows]


def set_lane_due(conn: Connection, channel_id: str) -> None:
    """Set a lane to the earliest moment one of its waiting rows is due.

    Rows that are held up by an earlier message do not count: its finish hastens the lane.
    """
    next_due = (
        select(func.min(N.not_before)).where(N.channel_id == channel_id, _PENDING, ~_is_blocked()).scalar_subquery()
    )
    conn.execute(update(lanes).where(lanes.c.channel_id == channel_id).values(due_at=next_due))


def lease_end(conn: Connection, channel_id: str) -> EpochMs | None:
    """When the last send of a channel that is under way ends at the latest, None when none is.

    Index: ix_notifications_lease.
    """
    ends = select(func.max(N.lease_until)).where(_SENDING, N.channel_id == channel_id, N.kind != "test")
    end: EpochMs | None = conn.scalar(ends)
    return None if end is None else EpochMs(end + 1)


def lock_breaker(conn: Connection, channel_id: str) -> Breaker:
    """How a channel has done lately; nobody else changes it until the transaction ends."""
    query = select(lanes.c.breaker, lanes.c.fails, lanes.c.open_until).where(lanes.c.channel_id == channel_id)
    row = conn.execute(query.with_for_update()).first()
    return Breaker() if row is None else Breaker(*row)


def close_breaker(conn: Connection, channel_id: str) -> None:
    """The channel has just worked."""
    failing = update(lanes).where(lanes.c.channel_id == channel_id, lanes.c.fails > 0)
    conn.execute(failing.values(breaker="closed", fails=0, open_until=None))


def count_open_breakers(conn: Connection) -> dict[str, int]:
    """Channels that are left alone because they failed too often, by type."""
    query = select(lanes.c.type, func.count()).where(lanes.c.breaker != "closed").group_by(lanes.c.type)
    return {row[0]: row[1] for row in conn.execute(query)}


def bucket_key_of(conn: Connection, channel_id: str) -> str | None:
    """Which limit a channel shares with others."""
    key: str | None = conn.scalar(select(lanes.c.bucket_key).where(lanes.c.channel_id == channel_id))
    return key


def lock_bucket(conn: Connection, key: str, rate: Rate, now: EpochMs, *, wait: bool = False) -> Bucket | None:
    """A bucket as it is now, made when there is none; None while another node holds it, unless `wait`."""
    b = rate_buckets.c
    query = select(b.tokens, b.at).where(b.key == key).with_for_update(skip_locked=not wait)
    row = conn.execute(query).first()
    if row is None:
        full = rules.refilled(None, rate, now)
        insert_new(conn, rate_buckets, [{"key": key, "tokens": full.tokens, "at": full.at}], unique=["key"])
        row = conn.execute(query).first()
    return None if row is None else rules.refilled(Bucket(*row), rate, now)


def save_bucket(conn: Connection, key: str, bucket: Bucket) -> None:
    """What is left in a bucket."""
    b = rate_buckets.c
    conn.execute(update(rate_buckets).where(b.key == key).values(tokens=bucket.tokens, at=bucket.at))


def set_lane(conn: Connection, channel_id: str, values: Mapping[str, Any]) -> None:
    """Change columns of a lane."""
    conn.execute(update(lanes).where(lanes.c.channel_id == channel_id).values(values))


def insert_attempts(conn: Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Begun attempts."""
    if rows:
        conn.execute(attempts.insert(), list(rows))


def mark_called(conn: Connection, notification_id: str, token: int, now: EpochMs) -> bool:
    """Note that the request is about to be written; False when the lease was lost."""
    mine = update(notifications).where(N.id == notification_id, N.lease_token == token, N.status == "sending")
    return conn.execute(mine.values(called_at=now)).rowcount == 1


def finish(conn: Connection, notification_id: str, token: int, values: Mapping[str, Any]) -> bool:
    """Save the end of an attempt, if the lease is still ours; one that waits for another is held if its incident is."""
    status = values["status"]
    if status == "pending":
        status = case((N.is_on_hold == 1, "held"), else_="pending")
    fenced = update(notifications).where(N.id == notification_id, N.status == "sending", N.lease_token == token)
    ended = dict(values) | {"status": status, "lease_owner": None, "lease_until": None}
    return conn.execute(fenced.values(ended)).rowcount == 1


def lock_notifications(conn: Connection, ids: Iterable[str]) -> None:
    """Lock rows until the transaction ends, in id order."""
    conn.execute(select(N.id).where(N.id.in_(set(ids))).order_by(N.id).with_for_update())


def is_withdrawn(conn: Connection, notification_id: str) -> bool:
    """Whether nobody wants this message any more; locks the row."""
    return bool(conn.scalar(select(N.is_withdrawn).where(N.id == notification_id).with_for_update()))


def end_sent(conn: Connection, provider_id: str, values: Mapping[str, Any]) -> list[Notification]:
    """Change messages that the provider accepted under this id, and of which it has said nothing since.

    Index: ix_notifications_provider.
    """
    sent = update(notifications).where(N.provider_id == provider_id, N.status == word("sent"))
    return [Notification(*row) for row in conn.execute(sent.values(values).returning(*_NOTIFICATION_COLUMNS))]


def revive(conn: Connection, notification_id: str, now: EpochMs, expires_at: EpochMs) -> bool:
    """Put a dead row back into the queue; False when it is not dead."""
    dead = update(notifications).where(N.id == notification_id, N.status == word("dead"))
    values = {"status": "pending", "not_before": now, "expires_at": expires_at, "finished_at": None}
    return conn.execute(dead.values(values)).rowcount == 1


def existing_keys(conn: Connection, idem_keys: Iterable[str]) -> set[str]:
    """Those of `idem_keys` that a notification has."""
    return set(conn.scalars(select(N.idem_key).where(N.idem_key.in_(set(idem_keys)))))


def finish_attempt(conn: Connection, notification_id: str, n: int, values: Mapping[str, Any]) -> None:
    """Save how an attempt ended."""
    conn.execute(
        update(attempts).where(attempts.c.notification_id == notification_id, attempts.c.n == n).values(values)
    )


def expired_leases(conn: Connection, now: EpochMs, limit: int) -> list[tuple[Notification, ChannelType | None]]:
    """Rows whose sender has not come back. Index: ix_notifications_lease."""
    kind = select(lanes.c.type).where(lanes.c.channel_id == N.channel_id).scalar_subquery()
    rows = conn.execute(
        select(*_NOTIFICATION_COLUMNS, kind.label("type"))
        .where(_SENDING, N.lease_until < now)
        .order_by(N.lease_until)
        .limit(limit)
        .with_for_update(skip_locked=True, of=notifications)
    )
    return [(Notification(*row[:-1]), cast("ChannelType | None", row[-1])) for row in rows]


_NEXT_LEASE_END = select(func.min(N.lease_until)).where(_SENDING)


def next_lease_end(conn: Connection) -> EpochMs | None:
    """When the next lease runs out. Index: ix_notifications_lease."""
    ends: EpochMs | None = conn.scalar(_NEXT_LEASE_END)
    return ends


# Reading ------------------------------------------------------------------------------------------------------------
def notifications_of(
    conn: Connection,
    project_id: str,
    *,
    limit: int,
    before: str | None,
    status: str | None = None,
    channel: str | None = None,
) -> list[Notification]:
    """Notifications of a project, newest first."""
    query = select(*_NOTIFICATION_COLUMNS).where(N.project_id == project_id)
    if before is not None:
        query = query.where(N.id < before)
    if status is not None:
        query = query.where(N.status == status)
    if channel is not None:
        query = query.where(N.channel_id == channel)
    return [Notification(*row) for row in conn.execute(query.order_by(N.id.desc()).limit(limit))]


def notification_by_id(
    conn: Connection, project_id: str, notification_id: str, *, lock: bool = False
) -> Notification | None:
    """One notification of a project."""
    query = select(*_NOTIFICATION_COLUMNS).where(N.id == notification_id, N.project_id == project_id)
    row = conn.execute(query.with_for_update() if lock else query).first()
    return None if row is None else Notification(*row)


def notifications_of_incident(conn: Connection, incident_id: str) -> list[Notification]:
    """All messages about one incident, oldest first."""
    rows = conn.execute(select(*_NOTIFICATION_COLUMNS).where(N.incident_id == incident_id).order_by(N.id))
    return [Notification(*row) for row in rows]


def attempts_of(conn: Connection, notification_ids: Iterable[str]) -> dict[str, list[Attempt]]:
    """The attempts of several notifications, in order."""
    c = attempts.c
    rows = conn.execute(
        select(c.notification_id, c.n, c.started_at, c.finished_at, c.outcome, c.http_status, c.code, c.error)
        .where(c.notification_id.in_(set(notification_ids)))
        .order_by(c.notification_id, c.n)
    )
    found: dict[str, list[Attempt]] = {}
    for row in rows:
        found.setdefault(row.notification_id, []).append(Attempt(*row))
    return found


def tests_since(conn: Connection, channel_id: str, since: EpochMs) -> list[EpochMs]:
    """When a channel was tested, oldest first. One test may have several addresses, which share its `order_key`."""
    began = func.min(N.created_at)
    query = select(began).where(N.channel_id == channel_id, N.kind == "test", N.created_at > since)
    return [EpochMs(at) for at in conn.scalars(query.group_by(N.order_key).order_by(began))]


class DayOfDelivery(NamedTuple):
    """Messages of one channel that were made on one day (UTC, by its first instant) and ended one way."""

    channel_id: str
    day: EpochMs
    status: str
    messages: int


def deliveries_by_day(conn: Connection, channel_ids: Iterable[str], since: EpochMs) -> list[DayOfDelivery]:
    """How many messages of each channel were delivered or given up, tests apart. Index: ix_notifications_channel."""
    # Not a parameter: PostgreSQL would take it for another one where rows are grouped.
    day = N.created_at - N.created_at % literal_column(str(_DAY_MS))
    query = (
        select(N.channel_id, day, N.status, func.count())
        .where(N.channel_id.in_(list(channel_ids)), N.created_at >= since, N.kind != "test")
        .where(N.status.in_(("sent", "dead")))
        .group_by(N.channel_id, day, N.status)
    )
    return [DayOfDelivery(*row) for row in conn.execute(query)]


def locked_out(conn: Connection, project_id: str) -> list[ChannelType]:
    """Types of channels of a project with a message that waits because the server's own login was refused.

    Indexes: ix_channels_project, ix_notifications_pending once for each channel.
    """
    waits = exists().where(N.channel_id == channels.c.id, _PENDING, N.last_code == "auth")
    query = select(channels.c.type).where(channels.c.project_id == project_id, waits)
    return sorted(set(conn.scalars(query)))


def outbox_figures(conn: Connection, now: EpochMs) -> dict[str, tuple[int, int]]:
    """For each channel type: waiting messages, and the age in ms of the longest due."""
    rows = conn.execute(
        select(lanes.c.type, func.count(), func.min(N.not_before))
        .select_from(notifications.join(lanes, lanes.c.channel_id == N.channel_id))
        .where(_PENDING)
        .group_by(lanes.c.type)
    )
    return {row[0]: (row[1], max(0, now - row[2])) for row in rows}


def count_dead(conn: Connection) -> int:
    """Messages that nobody could deliver."""
    return conn.scalar(select(func.count()).where(N.status == word("dead"))) or 0
