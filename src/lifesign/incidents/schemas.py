"""What people see of policies and incidents."""

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from lifesign.channels.schemas import ShownNotification
from lifesign.clock import rfc3339
from lifesign.http.answers import without_absent
from lifesign.http.fields import Body, optional
from lifesign.incidents.messages import shown_resolution
from lifesign.incidents.rules import Incident, Policy, Reason, Unattended


class ShownStep(Body):
    """A step as it was sent."""

    channels: list[str]
    wait: int = optional()
    message: str = optional()


class ShownPolicy(Body):
    """A policy."""

    id: str = Field(examples=["pol_0199e6a1b2c37d4e8f00112233445566"])
    name: str
    steps: list[ShownStep]
    repeatLastStep: bool
    createdAt: datetime
    updatedAt: datetime = optional("Present once it was changed.")
    origin: str = optional("Who made it, as they said.")


class PolicyList(Body):
    """Policies, oldest first."""

    policies: list[ShownPolicy]
    nextCursor: str = optional("Present when there are more.")


class ShownIncident(Body):
    """One outage of one heartbeat."""

    id: str = Field(examples=["inc_0199e6a1b2c37d4e8f00112233445566"])
    heartbeat: str
    status: Literal["open", "resolved"]
    reason: Reason
    openedAt: datetime
    resolvedAt: datetime = optional()
    resolution: Literal["checkin", "ack", "pause", "delete"] = optional()
    message: str = optional("That of the ack.")
    escalationStep: int = Field(description="Steps of the policy that have run; repeats do not count.")
    policy: str = optional()
    escalation: Literal["running", "held", "done"]
    holds: list[str] = optional(
        "Why no step runs for now: `flap` (fires and recovers again and again), `snooze`, `maintenance`, `dependency`."
    )
    unattended: Unattended = optional("Why nobody is told, or nobody reacts.")
    storm: str = optional("The storm it belongs to: many heartbeats went silent together.")
    suppressedBy: str = optional("Id of the firing heartbeat that it depends on.")
    run: str = optional("Id of the run that opened it.")
    blind: bool = optional("True: it was waited for because Lifesign itself had been down.")


class IncidentWithLog(ShownIncident):
    """An incident and every message about it."""

    notifications: list[ShownNotification]


class IncidentList(Body):
    """Incidents, newest first."""

    incidents: list[ShownIncident]
    nextCursor: str = optional("Present when there are more.")


def shown_policy(policy: Policy) -> dict[str, Any]:  # Any: JSON
    """A policy on the wire."""
    steps = [
        without_absent({"channels": step.channels, "wait": step.wait_s, "message": step.message})
        for step in policy.plan.steps
    ]
    return without_absent(
        {
            "id": policy.id,
            "name": policy.name,
            "steps": steps,
            "repeatLastStep": policy.plan.repeat_last_step,
            "createdAt": rfc3339(policy.created_at),
            "updatedAt": policy.updated_at and rfc3339(policy.updated_at),
            "origin": policy.origin,
        }
    )


def shown_incident(incident: Incident) -> dict[str, Any]:  # Any: JSON
    """An incident on the wire."""
    return without_absent(
        {
            "id": incident.id,
            "heartbeat": incident.heartbeat_id,
            "status": incident.status,
            "reason": incident.reason,
            "openedAt": rfc3339(incident.opened_at),
            "resolvedAt": incident.resolved_at and rfc3339(incident.resolved_at),
            "resolution": incident.resolved_by and shown_resolution(incident.resolved_by),
            "message": incident.ack_message,
            "escalationStep": incident.steps_run,
            "policy": incident.policy_id,
            "escalation": incident.escalation,
            "holds": incident.holds and incident.holds.split(),
            "unattended": incident.unattended,
            "storm": incident.storm_id,
            "suppressedBy": incident.suppressed_by,
            "run": incident.run_id,
            "blind": incident.blind_from is not None or None,
        }
    )
