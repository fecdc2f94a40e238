"""Wire models of policies and incidents."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from lifesign.channels.schemas import ShownNotification
from lifesign.clock import rfc3339
from lifesign.http.answers import without_absent
from lifesign.http.describe import example_id
from lifesign.http.fields import Body, Bool, Integer, LongText, Name, Origin, Ref, optional
from lifesign.incidents.messages import shown_resolution
from lifesign.incidents.rules import Incident, Policy, Reason, Step, Unattended

MAX_STEPS = 20
MAX_STEP_CHANNELS = 20
MAX_WAIT_S = 604_800
MAX_STEP_MESSAGE = 2000


class PolicyStep(Body):
    """One step: wait, then tell every channel."""

    channels: Annotated[list[Ref], Field(min_length=1, max_length=MAX_STEP_CHANNELS)] = Field(
        examples=[["ch_0199e6a1b2c37d4e8f00112233445566"]], json_schema_extra={"uniqueItems": True}
    )
    wait: Annotated[int, Integer(0, MAX_WAIT_S)] = optional(
        "Seconds before this step, counted from the step before (the first: from firing).", [300]
    )
    message: Annotated[str, LongText(MAX_STEP_MESSAGE)] = optional("Template, e.g. `{{name}} is {{late}} s late`.")


class NewPolicy(Body):
    """What a policy is made of."""

    name: Name = Field(examples=["Critical"])
    steps: Annotated[list[PolicyStep], Field(min_length=1, max_length=MAX_STEPS)]
    repeatLastStep: Bool = False
    origin: Origin = optional("Who makes it; kept and shown. `lifesign apply` says `apply`.")


# Bodies to paste, by what they show.
NEW_POLICIES: dict[str, dict[str, Any]] = {
    "tell one channel at once": {"name": "Standard", "steps": [{"channels": [example_id("ch")]}]},
    "escalate, then repeat": {
        "name": "Critical",
        "steps": [
            {"channels": [example_id("ch")]},
            {"wait": 300, "channels": [example_id("ch")], "message": "{{name}} is {{late}} s late, please look"},
        ],
        "repeatLastStep": True,
    },
}


class PolicyChanges(Body):
    """Any of the three; `steps` are replaced whole."""

    name: Name = optional()
    steps: Annotated[list[PolicyStep], Field(min_length=1, max_length=MAX_STEPS)] = optional()
    repeatLastStep: Bool = optional()


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


class SettingsChanges(Body):
    """What to change of the project's settings."""

    fallbackChannel: Ref | None = optional(
        "Told of every incident that nobody attends to; null clears it.", [example_id("ch")]
    )


class ShownSettings(Body):
    """The project's settings."""

    fallbackChannel: str = optional("Id of a channel.")


def steps_of(steps: list[PolicyStep]) -> tuple[Step, ...]:
    """The domain's steps."""
    return tuple(Step(tuple(step.channels), step.wait, step.message) for step in steps)


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
