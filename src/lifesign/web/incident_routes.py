"""HTTP of incidents: which are open, and the story of each, with the button that ends it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fastapi import APIRouter
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from lifesign.channels import outbox
from lifesign.channels import service as channels
from lifesign.clock import EpochMs
from lifesign.events import service as events
from lifesign.heartbeats import bodies
from lifesign.heartbeats import service as heartbeats
from lifesign.heartbeats.rules import Heartbeat
from lifesign.http.context import context_of
from lifesign.http.paging import is_id
from lifesign.http.validation import validate
from lifesign.incidents import policies
from lifesign.incidents import service as incidents
from lifesign.incidents.rules import Incident, Policy
from lifesign.incidents.service import Ack
from lifesign.web import forms
from lifesign.web.access import changing_form, person_of
from lifesign.web.pages import page
from lifesign.web.routes import to

router = APIRouter(include_in_schema=False)

_OPEN = 200
_RESOLVED = 50
_CHANNELS = 1000
_is_incident = is_id("inc")

REASONS: Mapping[str, str] = {
    "missed": "missed its check-in",
    "unhealthy": "said that it is unhealthy",
    "run_stalled": "has a run that stalled",
    "run_overdue": "has a run that takes too long",
}
RESOLUTIONS: Mapping[str, str] = {
    "checkin": "a check-in",
    "ack": "an acknowledgement",
    "pause": "a pause",
    "delete": "deletion of the heartbeat",
}
UNATTENDED: Mapping[str, str] = {
    "no_policy": "it has no policy, so nobody is told",
    "no_channel": "no channel is left to tell somebody",
    "exhausted": "nobody reacted to the last step",
    "undeliverable": "no provider accepted a message",
}
HOLDS: Mapping[str, str] = {
    "flap": "it fires and recovers again and again",
    "snooze": "it is snoozed",
    "maintenance": "a maintenance window is open",
    "dependency": "a heartbeat that it depends on fires",
}


@dataclass(frozen=True, slots=True)
class Listed:
    """What the list shows: those that are open, a page of those that are over, and the heartbeats of both."""

    open: Sequence[Incident]
    resolved: Sequence[Incident]
    has_older: bool
    heartbeats: Mapping[str, Heartbeat]
    seq: int


@router.get("/incidents")
async def show_all(request: Request) -> Response:
    """Incidents, open ones first."""
    person = await person_of(request)
    before = request.query_params.get("before", "")
    listed: Listed = await context_of(request).db.read(
        _listed, person.shown.project_id, before=before if _is_incident(before) else None
    )
    return page(
        request,
        "incidents",
        person,
        section="/incidents",
        seq=listed.seq,
        listed=listed,
        reasons=REASONS,
        resolutions=RESOLUTIONS,
        unattended=UNATTENDED,
        durations={each.id: forms.duration_of(_lasted_ms(each)) for each in listed.resolved},
    )


def _lasted_ms(incident: Incident) -> int:
    return (incident.resolved_at or incident.opened_at) - incident.opened_at


def _listed(conn: Connection, project_id: str, *, before: str | None) -> Listed:
    # First of all: what is committed after this is told to the page.
    seq = events.latest_seq(conn)
    opened: Sequence[Incident] = ()
    if before is None:
        opened = incidents.list_incidents(conn, project_id, limit=_OPEN, before=None, status="open", heartbeat_id=None)
    resolved = incidents.list_incidents(
        conn, project_id, limit=_RESOLVED + 1, before=before, status="resolved", heartbeat_id=None
    )
    shown = resolved[:_RESOLVED]
    concerned = heartbeats.by_ids(conn, {each.heartbeat_id for each in (*opened, *shown)})
    return Listed(opened, shown, len(resolved) > _RESOLVED, concerned, seq)


@dataclass(frozen=True, slots=True)
class Seen:
    """What the page of an incident shows. channels: names by id; next_at: when the next step is due."""

    incident: Incident
    heartbeat: Heartbeat | None
    policy: Policy | None
    log: channels.DeliveryLog
    channels: Mapping[str, str]
    next_at: EpochMs | None
    seq: int


@router.get("/incidents/{incident_id}")
async def show(request: Request, incident_id: str) -> Response:
    """One incident from its beginning: steps, messages, attempts, and how it ended or what comes next."""
    person = await person_of(request)
    seen: Seen = await context_of(request).db.read(_seen, person.shown.project_id, incident_id)
    return page(
        request,
        "incident",
        person,
        section="/incidents",
        seq=seen.seq,
        watched=seen.incident.heartbeat_id,
        seen=seen,
        each=seen.incident,
        holds=[HOLDS.get(word, word) for word in (seen.incident.holds or "").split()],
        reasons=REASONS,
        resolutions=RESOLUTIONS,
        unattended=UNATTENDED,
        lasted=forms.duration_of(_lasted_ms(seen.incident)),
        with_errors=person.caller.allows("channels:write"),
        max_message=bodies.MAX_ACK_MESSAGE,
    )


def _seen(conn: Connection, project_id: str, incident_id: str) -> Seen:
    seq = events.latest_seq(conn)
    incident = incidents.get_incident(conn, project_id, incident_id)
    policy = None
    if incident.policy_id is not None:
        policy = policies.find_policy(conn, project_id, incident.policy_id)
    names = {each.id: each.name for each in channels.list_channels(conn, project_id, limit=_CHANNELS, after=None)}
    return Seen(
        incident,
        heartbeats.by_ids(conn, [incident.heartbeat_id]).get(incident.heartbeat_id),
        policy,
        channels.delivery_log(conn, incident.id),
        names,
        incidents.next_steps(conn, [incident.id]).get(incident.id),
        seq,
    )


@router.post("/incidents/{incident_id}/ack")
async def acknowledge(request: Request, incident_id: str) -> Response:
    """End an incident: somebody looks after it. What was over already stays as it was."""
    person, form = await changing_form(request)
    context = context_of(request)
    body = validate(bodies.AckBody, {"message": form.get("message")} if form.get("message") else {})
    await context.db.write(
        _acknowledged, person.shown.project_id, incident_id, Ack(person.actor, body.message), context.now()
    )
    return to(f"/incidents/{incident_id}")


def _acknowledged(conn: Connection, project_id: str, incident_id: str, who: Ack, now: EpochMs) -> None:
    heartbeats.ack_incident(conn, incidents.get_incident(conn, project_id, incident_id), who, now)


@router.post("/incidents/{incident_id}/retry/{notification_id}")
async def send_again(request: Request, incident_id: str, notification_id: str) -> Response:
    """Send a message again that was given up."""
    person, _ = await changing_form(request)
    context = context_of(request)
    await context.db.write(outbox.retry_dead, person.shown.project_id, notification_id, context.now())
    return to(f"/incidents/{incident_id}")
