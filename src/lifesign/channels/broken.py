"""Channels that their provider refuses for good: the project's fallback channel is told, once a day."""

from collections.abc import Sequence

import orjson
from sqlalchemy import Connection

from lifesign.channels import outbox, rules, store
from lifesign.channels.config import addresses
from lifesign.channels.message import BrokenPart, Message
from lifesign.channels.outbox import Draft
from lifesign.channels.store import Channel
from lifesign.clock import EpochMs, to_datetime
from lifesign.projects import service as projects

_BATCH = 500


def tell_of_all(conn: Connection, now: EpochMs) -> None:
    """Tell of every broken channel that nobody was told of today."""
    after = ""
    while batch := store.broken_channels(conn, limit=_BATCH, after=after):
        tell(conn, batch, now)
        after = batch[-1].id


def tell(conn: Connection, channels: Sequence[Channel], now: EpochMs) -> None:
    """Tell the fallback channels of the projects of these channels, at most once a day of each."""
    today = f"{to_datetime(now):%Y-%m-%d}"
    told = store.existing_keys(conn, [_key(each, today, address=None) for each in channels])
    fresh = [each for each in channels if _key(each, today, address=None) not in told]
    projects_of = {each.project_id for each in fresh}
    fallbacks = projects.fallback_channels(conn, projects_of) if fresh else {}
    names = projects.names(conn, set(fallbacks))
    drafts: list[Draft] = []
    for channel in fresh:
        # A broken fallback channel cannot tell of itself.
        if fallbacks.get(channel.project_id, channel.id) == channel.id:
            continue
        drafts += _drafts(conn, channel, fallbacks[channel.project_id], names.get(channel.project_id, ""), now)
    outbox.enqueue(conn, drafts, now)


def _drafts(conn: Connection, channel: Channel, fallback_id: str, project: str, now: EpochMs) -> list[Draft]:
    fallback = store.channels_by_id(conn, channel.project_id, [fallback_id], keep=True).get(fallback_id)
    if fallback is None:
        return []
    today = f"{to_datetime(now):%Y-%m-%d}"
    reason = channel.broken_reason or "unknown"
    message = Message(
        kind="reminder",
        title=f"Channel {channel.name} is broken",
        text=f"channel {channel.name} is broken: {reason}. Messages through it are lost until it is repaired.",
        project=project,
        happened_at=now,
        broken=BrokenPart(channel.id, channel.name, reason),
        url="/channels",
    )
    found: list[str | None] = [*addresses(fallback.type, orjson.loads(fallback.config))] or [None]
    return [
        Draft(
            project_id=channel.project_id,
            # The first address has the plain key, by which the next look sees that this was told.
            idem_key=_key(channel, today, address=address if number else None),
            incident_id=None,
            heartbeat_id=None,
            target=rules.target_key(fallback.id, address),
            channel_id=fallback.id,
            dest=address,
            message=message,
            priority=rules.PRIORITY_REMINDER,
            order_seq=0,
            order_subject=f"broken:{channel.id}",
        )
        for number, address in enumerate(found)
    ]


def _key(channel: Channel, day: str, *, address: str | None) -> str:
    return f"broken:{channel.id}:{day}" + ("" if address is None else f":{rules.target_key(channel.id, address)}")
