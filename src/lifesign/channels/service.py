"""Channels as objects: made, changed, deleted, and asked which addresses they have."""

import hmac
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import orjson
from sqlalchemy import Connection

from lifesign.channels import config as configs
from lifesign.channels import store
from lifesign.channels.acklinks import AckSigner
from lifesign.channels.limits import bucket_key
from lifesign.channels.outbound import OutboundClient
from lifesign.channels.rules import (
    SECRET_OVERLAP_MS,
    ChannelInUse,
    ChannelNotFound,
    ChannelType,
    SecretUnreadable,
    User,
)
from lifesign.channels.secrets import SecretBox
from lifesign.channels.senders import IS_MACHINE
from lifesign.channels.store import Attempt, Channel, DayOfDelivery, Notification
from lifesign.channels.targets import GuardPolicy
from lifesign.channels.webhook import PREVIOUS_SECRET
from lifesign.clock import EpochMs
from lifesign.db.wakeups import wake_after_commit
from lifesign.faults import invalid
from lifesign.ids import new_id

__all__ = ["Channel", "DayOfDelivery"]

MAX_USERS_SHOWN = 100


@dataclass(frozen=True, slots=True)
class Kit:
    """What channels need of their node: the secret box, the guard, and the way out."""

    box: SecretBox
    guard: GuardPolicy
    outbound: OutboundClient
    acks: AckSigner


class ChannelUsers(Protocol):
    """A slice whose objects name channels; deleting a channel asks them first."""

    def channel_users(self, conn: Connection, project_id: str, channel_id: str) -> list[User]:
        """Who names the channel."""
        ...

    def detach_channel(self, conn: Connection, project_id: str, channel_id: str, *, key_id: str, now: EpochMs) -> None:
        """Make them forget it."""
        ...


@dataclass(frozen=True, slots=True)
class DirectoryEntry:
    """What escalation may know of a channel."""

    type: ChannelType
    addresses: tuple[str, ...]
    is_machine: bool


def get_channel(conn: Connection, project_id: str, channel_id: str, *, lock: bool = False) -> Channel:
    """One channel. Raises ChannelNotFound."""
    channel = store.channel_by_id(conn, project_id, channel_id, lock=lock)
    if channel is None:
        raise ChannelNotFound
    return channel


list_channels = store.channels_of


def known_channels(conn: Connection, project_id: str, ids: Iterable[str]) -> set[str]:
    """Those of `ids` that are channels of the project; they stay until the transaction ends."""
    return set(store.channels_by_id(conn, project_id, ids, keep=True))


def mark_working(conn: Connection, channel_id: str, now: EpochMs) -> None:
    """A test has shown that the channel works again: what waits for it need not wait any longer."""
    store.save_channel(conn, channel_id, _NOT_BROKEN)
    store.set_lane(conn, channel_id, _UNHINDERED | {"due_at": now})
    wake_after_commit(conn, "deliver")


# Any: values of columns.
_NOT_BROKEN: dict[str, Any] = {"broken_reason": None, "broken_at": None}
_UNHINDERED: dict[str, Any] = {"held_until": None, "breaker": "closed", "fails": 0, "open_until": None}


def directory(conn: Connection, project_id: str, ids: Iterable[str]) -> dict[str, DirectoryEntry]:
    """Type and addresses of those of `ids` that exist, for enqueueing in the same transaction."""
    return {
        channel.id: DirectoryEntry(
            channel.type, tuple(configs.addresses(channel.type, orjson.loads(channel.config))), IS_MACHINE[channel.type]
        )
        for channel in store.channels_by_id(conn, project_id, ids, keep=True).values()
    }


def create_channel(
    conn: Connection,
    kit: Kit,
    project_id: str,
    *,
    name: str,
    channel_type: ChannelType,
    config: Mapping[str, Any],
    now: EpochMs,
    origin: str | None = None,
) -> tuple[Channel, str | None]:
    """A new channel, and the webhook secret that was made for it, if one was. `config` is valid and in clear."""
    made_secret = None
    if channel_type == "webhook" and "secret" not in config:
        made_secret = configs.generate_webhook_secret()
        config = {**config, "secret": made_secret}
    channel_id = new_id("ch", now)
    channel = Channel(
        id=channel_id,
        project_id=project_id,
        name=name,
        type=channel_type,
        config=_sealed(kit, channel_id, channel_type, config),
        previous_secret=None,
        previous_until=None,
        broken_reason=None,
        broken_at=None,
        created_at=now,
        updated_at=None,
        origin=origin,
    )
    store.insert_channel(conn, channel, bucket_key(channel_type, config))
    return channel, made_secret


def update_channel(
    conn: Connection,
    kit: Kit,
    project_id: str,
    channel_id: str,
    *,
    name: str | None,
    channel_type: ChannelType | None,
    config: Mapping[str, Any] | None,
    now: EpochMs,
) -> tuple[Channel, str | None]:
    """Change a channel; return it and a webhook secret that was made for it. Raises ChannelNotFound, InvalidInput."""
    channel = store.channel_by_id(conn, project_id, channel_id, lock=True)
    if channel is None:
        raise ChannelNotFound
    changes: dict[str, Any] = {}
    made_secret = None
    if name is not None:
        changes["name"] = name
    if channel_type not in {None, channel.type} and config is None:
        raise invalid("config", "is required when the type changes")
    if config is not None:
        kind = channel_type or channel.type
        old = _opened_leniently(kit, channel) if kind == channel.type else {}
        valid = configs.validate(kind, configs.merge(kind, old, config), kit.guard)
        if kind == "webhook" and "secret" not in valid:
            made_secret = configs.generate_webhook_secret()
            valid["secret"] = made_secret
        changes |= {"type": kind, "config": _sealed(kit, channel.id, kind, valid)} | _NOT_BROKEN
        lane = {"type": kind, "bucket_key": bucket_key(kind, valid), "due_at": now}
        store.set_lane(conn, channel.id, _UNHINDERED | lane)
        wake_after_commit(conn, "deliver")
        changes |= _secret_overlap(kit, channel, old.get("secret"), valid.get("secret"), now)
    if changes:
        store.save_channel(conn, channel.id, changes | {"updated_at": now})
    return get_channel(conn, project_id, channel_id), made_secret


def has_config(
    conn: Connection,
    kit: Kit,
    project_id: str,
    channel_id: str,
    *,
    channel_type: ChannelType | None,
    config: Mapping[str, Any],
) -> bool:
    """Whether the channel has this type (None: any) and these settings already, secrets included.

    What a PATCH would keep is equal: masks that are sent back, a secret that is left out. Raises ChannelNotFound,
    InvalidInput.
    """
    channel = get_channel(conn, project_id, channel_id)
    wanted_type = channel.type if channel_type is None else channel_type
    present = _opened_leniently(kit, channel) if channel.type == wanted_type else {}
    wanted = configs.validate(wanted_type, configs.merge(wanted_type, present, config), kit.guard)
    # Not a comparison that ends at the first difference: its duration would tell how much was guessed.
    return hmac.compare_digest(*(orjson.dumps(each, option=orjson.OPT_SORT_KEYS) for each in (present, wanted)))


def delete_channel(
    conn: Connection,
    project_id: str,
    channel_id: str,
    users_of: Sequence[ChannelUsers],
    *,
    force: bool,
    key_id: str,
    now: EpochMs,
) -> None:
    """Remove a channel and cancel what it has not sent. Raises ChannelNotFound; ChannelInUse unless `force`."""
    if store.channel_by_id(conn, project_id, channel_id, lock=True) is None:
        raise ChannelNotFound
    users = [user for source in users_of for user in source.channel_users(conn, project_id, channel_id)]
    if users and not force:
        raise ChannelInUse(users[:MAX_USERS_SHOWN], len(users))
    for source in users_of if users else ():
        source.detach_channel(conn, project_id, channel_id, key_id=key_id, now=now)
    store.cancel_pending_of_channel(conn, channel_id, now)
    store.delete_channel(conn, channel_id)


def open_for_sending(kit: Kit, channel: Channel, now: EpochMs) -> dict[str, Any]:
    """The channel's settings in clear, for one send. Raises SecretUnreadable."""
    config = configs.open_config(kit.box, channel.id, channel.type, orjson.loads(channel.config))
    if channel.previous_secret is not None and channel.previous_until is not None and now < channel.previous_until:
        config[PREVIOUS_SECRET] = kit.box.open(channel.previous_secret, channel.id, PREVIOUS_SECRET)
    return config


def _opened_leniently(kit: Kit, channel: Channel) -> dict[str, Any]:
    """The settings in clear; none when they cannot be decrypted any more, so that an edit can replace them whole."""
    try:
        return configs.open_config(kit.box, channel.id, channel.type, orjson.loads(channel.config))
    except SecretUnreadable:
        return {}


def _sealed(kit: Kit, channel_id: str, channel_type: ChannelType, config: Mapping[str, Any]) -> str:
    return orjson.dumps(configs.seal_config(kit.box, channel_id, channel_type, config)).decode()


def _secret_overlap(kit: Kit, channel: Channel, old: str | None, new: str | None, now: EpochMs) -> dict[str, Any]:
    if old == new:
        return {}
    if old is None:
        # Of another type, or unreadable: whatever signed along until now does not belong to the new settings.
        return {"previous_secret": None, "previous_until": None}
    return {
        "previous_secret": kit.box.seal(old, channel.id, PREVIOUS_SECRET),
        "previous_until": now + SECRET_OVERLAP_MS,
    }


broken_of = store.broken_of
locked_out = store.locked_out
deliveries_by_day = store.deliveries_by_day

DeliveryLog = list[tuple[Notification, list[Attempt]]]
"""Messages, each with its attempts in order."""


def delivery_log(conn: Connection, incident_id: str) -> DeliveryLog:
    """Every message about one incident, oldest first."""
    rows = store.notifications_of_incident(conn, incident_id)
    attempts = store.attempts_of(conn, [row.id for row in rows])
    return [(row, attempts.get(row.id, [])) for row in rows]


def latest_of_channel(conn: Connection, project_id: str, channel_id: str, limit: int) -> DeliveryLog:
    """The last messages through one channel, newest first."""
    rows = store.notifications_of(conn, project_id, limit=limit, before=None, channel=channel_id)
    attempts = store.attempts_of(conn, [row.id for row in rows])
    return [(row, attempts.get(row.id, [])) for row in rows]
