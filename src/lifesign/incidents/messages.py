"""What the messages of an incident say. Pure: everything they need is handed in."""

from typing import Literal, assert_never

from lifesign.channels.message import BlindPart, FlapPart, HeartbeatPart, IncidentPart, Message
from lifesign.channels.message import Resolution as ShownResolution
from lifesign.clock import EpochMs, rfc3339
from lifesign.incidents.rules import STORM_HOLD_MS, Incident, Plan, Resolution, Subject
from lifesign.incidents.template import DEFAULT_TEXTS, RECOVERY_TEXT, render

_S = 1000


def page(
    subject: Subject,
    incident: Incident,
    plan: Plan,
    *,
    step: int,
    repeat: int,
    project: str,
    is_first: bool,
    public_url: str | None,
    now: EpochMs,
) -> Message:
    """The message of step `step` (0 = the heartbeat's own channels), its `repeat`th run."""
    custom = plan.steps[step - 1].message if step else None
    values = _values(subject, incident, project, now) | {"step": str(step), "steps": str(len(plan.steps))}
    if public_url is not None:
        values["url"] = f"{public_url}{_page_of(incident)}"
    text = render(custom if custom is not None else DEFAULT_TEXTS[incident.reason], values, subject.metadata)
    blind = _blind(incident)
    return Message(
        kind="page",
        title=f"{'STILL DOWN' if repeat else 'DOWN'}: {subject.name}",
        text=text if blind is None else f"{text}\n{_while_down(blind)}",
        project=project,
        happened_at=now,
        heartbeat=_heartbeat(subject, "firing"),
        incident=_incident(incident),
        step=step,
        steps=len(plan.steps),
        repeat=repeat,
        is_first=is_first,
        blind=blind,
        url=_page_of(incident),
    )


def _page_of(incident: Incident) -> str:
    return f"/incidents/{incident.id}"


def closing(subject: Subject, incident: Incident, *, heartbeat_status: str, project: str) -> Message:
    """The message to those who were told, once the incident is over. `incident` is the resolved one."""
    resolution = shown_resolution(incident.resolved_by or "checkin")
    resolved_at = incident.resolved_at or incident.opened_at
    values = _values(subject, incident, project, resolved_at) | {
        "status": heartbeat_status,
        "duration": str(max(0, resolved_at - incident.opened_at) // _S),
    }
    match resolution:
        case "checkin":
            title, text = f"UP: {subject.name}", render(RECOVERY_TEXT, values, None)
        case "ack":
            said = f": {incident.ack_message}" if incident.ack_message else ""
            title, text = (
                f"ACKNOWLEDGED: {subject.name}",
                f"{subject.name} was acknowledged by {incident.ack_actor}{said}",
            )
        case "pause":
            title, text = f"CLOSED: {subject.name}", f"{subject.name} was paused"
        case "delete":
            title, text = f"CLOSED: {subject.name}", f"{subject.name} was deleted"
        case _:
            assert_never(resolution)
    return Message(
        kind="resolve",
        title=title,
        text=text,
        project=project,
        happened_at=resolved_at,
        heartbeat=_heartbeat(subject, heartbeat_status),
        incident=_incident(incident),
        step=incident.steps_run,
        url=_page_of(incident),
    )


def unattended(
    subject: Subject,
    incident: Incident,
    reason: str,
    *,
    kind: Literal["fallback", "reminder"],
    project: str,
    now: EpochMs,
) -> Message:
    """The message to the project's fallback channel: nobody attends to the incident, and why."""
    return Message(
        kind=kind,
        title=f"UNATTENDED: {subject.name}",
        text=f"{subject.name} is down and nobody has it in hand: {_UNATTENDED[reason]}",
        project=project,
        happened_at=now,
        heartbeat=_heartbeat(subject, "firing"),
        incident=_incident(incident),
        step=incident.steps_run,
        url=_page_of(incident),
    )


def storm(count: int, *, project: str, now: EpochMs) -> Message:
    """The one message of a storm: how many, and when the details come."""
    title = f"{count} heartbeats went silent"
    text = f"{title} within a minute; details follow in {STORM_HOLD_MS // 60_000} minutes"
    return Message(
        kind="storm", title=title, text=text, project=project, happened_at=now, total=count, url="/incidents"
    )


def flapping(subject: Subject, incident_id: str, project: str, now: EpochMs) -> Message:
    """The one message of a spell of flapping."""
    return Message(
        kind="flap",
        title=f"FLAPPING: {subject.name}",
        text=f"{subject.name} fires and recovers again and again; no more is sent until it is calm",
        project=project,
        happened_at=now,
        heartbeat=_heartbeat(subject, "firing"),
        flap=FlapPart(incident_id),
        url=f"/heartbeats/{subject.id}",
    )


def flapping_ended(subject: Subject, incident_id: str, status: str, project: str, now: EpochMs) -> Message:
    """The end of a spell, with how things stand."""
    return Message(
        kind="resolve",
        title=f"CALM: {subject.name}",
        text=f"{subject.name} is no longer flapping; it is {status}",
        project=project,
        happened_at=now,
        heartbeat=_heartbeat(subject, status),
        flap=FlapPart(incident_id),
        url=f"/heartbeats/{subject.id}",
    )


_UNATTENDED = {
    "no_policy": "it has neither a policy nor channels of its own",
    "no_channel": "a step ran that has no channel left",
    "exhausted": "every step has run and nobody reacted",
    "undeliverable": "no channel could be reached",
}


def shown_resolution(resolution: Resolution) -> ShownResolution:
    """How a resolution is told: that a check-in came late is a detail of the engine."""
    return "checkin" if resolution == "late_checkin" else resolution


def _values(subject: Subject, incident: Incident, project: str, now: EpochMs) -> dict[str, str]:
    expected_at = incident.expected_at
    values = {
        "name": subject.name,
        "slug": subject.slug,
        "id": subject.id,
        "namespace": subject.namespace or "",
        "mode": subject.mode,
        "status": "firing",
        "reason": incident.reason,
        "incident": incident.id,
        "project": project,
    }
    if expected_at is not None:
        values |= {"deadline": rfc3339(expected_at), "late": str(max(0, now - expected_at) // _S)}
    return values


def _heartbeat(subject: Subject, status: str) -> HeartbeatPart:
    return HeartbeatPart(
        id=subject.id,
        name=subject.name,
        slug=subject.slug,
        mode=subject.mode,
        status=status,
        timezone=subject.timezone,
        namespace=subject.namespace,
        metadata=subject.metadata,
    )


def _blind(incident: Incident) -> BlindPart | None:
    if incident.blind_from is None or incident.blind_to is None:
        return None
    return BlindPart(from_at=incident.blind_from, to_at=incident.blind_to)


def _while_down(blind: BlindPart) -> str:
    span = f"from {rfc3339(blind.from_at)} to {rfc3339(blind.to_at)}"
    return f"Lifesign itself was down {span}; check-ins in that time were not received"


def _incident(incident: Incident) -> IncidentPart:
    return IncidentPart(
        id=incident.id,
        reason=incident.reason,
        opened_at=incident.opened_at,
        deadline_at=incident.expected_at,
        resolved_at=incident.resolved_at,
        resolution=incident.resolved_by and shown_resolution(incident.resolved_by),
        ack_message=incident.ack_message,
        acked_by=incident.ack_actor,
        ack_code=incident.ack_code,
    )
