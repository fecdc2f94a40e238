"""Putting messages about incidents into the outbox, each to every address of the channels it is for."""

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import replace

from sqlalchemy import Connection

from lifesign.channels import service as channels
from lifesign.channels.message import Message
from lifesign.channels.outbox import Draft
from lifesign.channels.service import DirectoryEntry
from lifesign.incidents import store
from lifesign.incidents.rules import CODE_LENGTH, CODE_LETTERS, Incident, Target


def directory_of(conn: Connection, wanted: Mapping[str, Iterable[str]]) -> dict[str, DirectoryEntry]:
    """What is known of those of the wanted channels that exist: project id -> channel ids."""
    return {
        key: entry
        for project_id in sorted(wanted)
        for key, entry in channels.directory(conn, project_id, wanted[project_id]).items()
    }


def with_codes(
    conn: Connection, incidents: Mapping[str, Incident], told: Iterable[tuple[str, str]], types: Mapping[str, str]
) -> dict[str, Incident]:
    """The incidents by id, each that is told by SMS with a code to acknowledge it by.

    told: incident and channel of each message. types: of the channels. The incidents are locked or new.
    """
    bare = sorted({key for key, channel in told if types[channel] == "sms" and incidents[key].ack_code is None})
    codes = _fresh_codes(conn, len(bare))
    fresh = {key: replace(incidents[key], ack_code=code) for key, code in zip(bare, codes, strict=True)}
    store.save_incidents(conn, {key: {"ack_code": each.ack_code} for key, each in fresh.items()})
    return {**incidents, **fresh}


def _fresh_codes(conn: Connection, count: int) -> list[str]:
    codes: set[str] = set()
    while len(codes) < count:
        made = {"".join(secrets.choice(CODE_LETTERS) for _ in range(CODE_LENGTH)) for _ in range(count - len(codes))}
        codes |= made - store.codes_in_use(conn, made)
    return list(codes)


def draft(
    incident: Incident, target: Target, message: Message, priority: int, order_seq: int, *, number: int | None = None
) -> Draft:
    """A message about an incident to one target. `number`: of a reminder, which comes again and again."""
    # A closing message is one per incident and address, whatever step it was told by.
    place = f"{message.repeat}.{message.step}" if message.kind == "page" else "0.0"
    counted = "" if number is None else f":{number}"
    return Draft(
        project_id=incident.project_id,
        idem_key=f"{incident.id}:{message.kind}:{place}:{target.key}{counted}",
        incident_id=incident.id,
        heartbeat_id=incident.heartbeat_id,
        target=target.key,
        channel_id=target.channel_id,
        dest=target.dest,
        message=message,
        priority=priority,
        order_seq=order_seq,
    )
