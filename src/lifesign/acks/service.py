"""What an acknowledgement from outside does, each in the caller's transaction."""

from dataclasses import dataclass

from sqlalchemy import Connection

from lifesign.acks import rules, store
from lifesign.channels import outbox
from lifesign.channels import service as channels
from lifesign.channels.acklinks import AckGrant
from lifesign.channels.rules import ChannelNotFound
from lifesign.clock import EpochMs
from lifesign.heartbeats import service as heartbeats
from lifesign.heartbeats.subjects import subjects
from lifesign.incidents import service as incidents
from lifesign.incidents.rules import Incident
from lifesign.incidents.service import Ack

UNKNOWN_CODE = "Unknown code"


@dataclass(frozen=True, slots=True)
class Seen:
    """What whoever has a link may see: names, states and times. `name`: of the heartbeat, as far as it still exists."""

    incident: Incident
    name: str
    channel_id: str
    channel_name: str


def look(conn: Connection, grant: AckGrant) -> Seen | None:
    """What a grant is about; None when its incident or channel is gone."""
    incident = incidents.find(conn, grant.incident_id)
    if incident is None:
        return None
    try:
        channel = channels.get_channel(conn, incident.project_id, grant.channel_id)
    except ChannelNotFound:
        return None
    subject = subjects(conn, [incident.heartbeat_id]).get(incident.heartbeat_id)
    return Seen(incident, "a deleted heartbeat" if subject is None else subject.name, channel.id, channel.name)


def acknowledge(
    conn: Connection, grant: AckGrant, actor: str | None, message: str | None, now: EpochMs
) -> tuple[Seen, bool] | None:
    """Close the incident of a grant; what is seen afterwards, and whether this call closed it.

    actor: None for whoever has the link that this channel got.
    """
    before = look(conn, grant)
    if before is None:
        return None
    who = Ack(actor or f"link:{before.channel_name}", message)
    closed = heartbeats.ack_incident(conn, before.incident, who, now)
    after = look(conn, grant)
    return None if after is None else (after, closed)


def acknowledge_by_code(conn: Connection, message_id: str, number: str, text: str, now: EpochMs) -> str:
    """Close the incident whose code was texted, if that number was told of it; the answer to text back."""
    given = store.answer_given(conn, message_id, EpochMs(now - rules.CALLBACK_KEPT_MS))
    if given is not None:
        return given
    answer = _by_code(conn, number, text, now)
    store.keep_answer(conn, message_id, answer, now)
    return answer


def _by_code(conn: Connection, number: str, text: str, now: EpochMs) -> str:
    code = rules.ack_code_in(text)
    incident = None if code is None else incidents.find_by_code(conn, code)
    # A code alone is not enough: it may have been guessed, or forwarded.
    if incident is None or not any(each.dest == number for each in outbox.told_of(conn, incident.id)):
        return UNKNOWN_CODE
    subject = subjects(conn, [incident.heartbeat_id]).get(incident.heartbeat_id)
    name = "a deleted heartbeat" if subject is None else subject.name
    closed = heartbeats.ack_incident(conn, incident, Ack(f"sms:{number}"), now)
    return f"Acknowledged: {name}" if closed else f"Already closed: {name}"
