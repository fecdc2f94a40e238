"""Putting messages about incidents into the outbox, each to every address of the channels it is for."""

from collections.abc import Iterable, Mapping

from sqlalchemy import Connection

from lifesign.channels import service as channels
from lifesign.channels.message import Message
from lifesign.channels.outbox import Draft
from lifesign.incidents.rules import Incident, Target


def targets_of(conn: Connection, wanted: Mapping[str, Iterable[str]]) -> dict[str, tuple[str, ...]]:
    """Addresses by channel, of those of the wanted channels that exist: project id -> channel ids."""
    return {
        key: entry.addresses
        for project_id in sorted(wanted)
        for key, entry in channels.directory(conn, project_id, wanted[project_id]).items()
    }


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
