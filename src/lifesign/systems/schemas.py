"""What people and machines see of systems, and the words of their envelope."""

from collections.abc import Mapping
from datetime import date, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from lifesign.clock import EpochMs, rfc3339
from lifesign.http.describe import Envelope, Refusal
from lifesign.http.fields import optional
from lifesign.systems import rules
from lifesign.systems.bodies import EXAMPLE_ID
from lifesign.systems.rules import Period, Trend, ValidationFailed, Windows, Word
from lifesign.systems.service import Watched
from lifesign.systems.store import Totals

_EXAMPLE_KEY = "SYS-4CF3-053F-D0D5-4B10"


def answer(code: int, message: str, data: Any) -> dict[str, Any]:  # Any: JSON
    """The envelope of every answer of this API."""
    return {"code": code, "message": message, "data": data}


def shown_to_itself(watched: Watched, windows: Windows, now: EpochMs) -> dict[str, Any]:  # Any: JSON
    """A system as the machine sees it: without what is between people."""
    hidden = {"notes", "origin", "policy", "heartbeat_id", "heartbeat_status", "secret_hint"}
    return {name: value for name, value in shown(watched, windows, now).items() if name not in hidden}


def shown(watched: Watched, windows: Windows, now: EpochMs) -> dict[str, Any]:  # Any: JSON
    """A system on the wire."""
    system, heartbeat = watched
    last = system.last_heartbeat
    values = {
        "id": system.id,
        "key": system.key,
        "name": system.name,
        "type": system.type,
        "fqdn": system.fqdn,
        "notes": system.notes,
        "tags": list(system.tags),
        "interval": system.interval_s,
        "policy": heartbeat.policy_id,
        "status": rules.liveness(last, windows.of(system.interval_s).alive_ms, now),
        "suspended": system.suspended_at is not None,
        "suspended_at": _time(system.suspended_at),
        "first_heartbeat": _time(system.first_heartbeat),
        "last_heartbeat": _time(last),
        "heartbeat_minutes": None if last is None else rules.minutes_since(last, now),
        "heartbeat_id": system.heartbeat_id,
        "heartbeat_status": heartbeat.status,
        "secret_hint": system.secret_hint,
        "created_at": rfc3339(system.created_at),
        "updated_at": rfc3339(system.updated_at),
    }
    if last is None:
        del values["heartbeat_minutes"]
    return values if system.origin is None else values | {"origin": system.origin}


def _time(at: EpochMs | None) -> str | None:
    return None if at is None else rfc3339(at)


def shown_totals(totals: Totals, timeout_minutes: int) -> dict[str, Any]:  # Any: JSON
    """Totals on the wire."""
    return {
        "total_systems": totals.alive + totals.dead + totals.zombie,
        "alive_systems": totals.alive,
        "dead_systems": totals.dead,
        "zombie_systems": totals.zombie,
        "suspended_systems": totals.suspended,
        "timeout_minutes": timeout_minutes,
    }


def shown_trend(trend: Trend, period: Period) -> dict[str, Any]:  # Any: JSON
    """A trend on the wire."""
    points = zip(trend.days, trend.counts, strict=True)
    return {
        "period": period,
        "period_label": f"{period} days",
        "current_total": trend.counts[-1],
        "previous_total": trend.previous,
        "delta": trend.delta,
        "delta_percentage": trend.delta_percentage,
        "trend": trend.direction,
        "data_points": [{"date": day.isoformat(), "count": count} for day, count in points],
    }


class ShownToItself(BaseModel):
    """A system as the machine sees it."""

    id: str = Field(examples=[EXAMPLE_ID])
    key: str = Field(description="Names it where the id does; not a secret.", examples=[_EXAMPLE_KEY])
    name: str
    type: str
    fqdn: str
    tags: list[str]
    interval: int | None = Field(description="Its own seconds between reports; null: as the server's settings say.")
    status: Literal["alive", "dead", "zombie"] = Field(description="`zombie`: it never reported.")
    suspended: bool
    suspended_at: datetime | None
    first_heartbeat: datetime | None
    last_heartbeat: datetime | None
    heartbeat_minutes: int = optional("Whole minutes since it last reported; absent for a zombie.")
    created_at: datetime
    updated_at: datetime


class ShownSystem(ShownToItself):
    """A system."""

    notes: str
    policy: str | None
    heartbeat_id: str = Field(description="The heartbeat underneath, `hb_...`: its incident, its history.")
    heartbeat_status: Literal["active", "firing", "paused", "resolved"]
    secret_hint: str = Field(description="The end of the secret.")
    origin: str = optional("Who made it, as they said.")


class MadeSystem(ShownSystem):
    """A new system; the only answer that holds its secret."""

    secret: str = Field(description="Shown here and never again.")


class MadeSecret(BaseModel):
    """A new secret; the only answer that holds it."""

    id: str
    key: str
    secret: str = Field(description="Shown here and never again.")
    secret_hint: str


class SystemPage(BaseModel):
    """Systems, newest first."""

    systems: list[ShownSystem]
    next_cursor: str = optional("Present when there are more.")


class ShownTotals(BaseModel):
    """How many systems are in which state. Suspended ones are in no other number."""

    total_systems: int
    alive_systems: int
    dead_systems: int
    zombie_systems: int
    suspended_systems: int
    timeout_minutes: int


class TrendPoint(BaseModel):
    """How many systems existed at the end of a day."""

    date: date
    count: int


class ShownTrend(BaseModel):
    """How many systems existed, not how well they ran."""

    period: Period
    period_label: str
    current_total: int
    previous_total: int
    delta: int
    delta_percentage: float
    trend: Literal["up", "down", "stable"]
    data_points: list[TrendPoint]


class EnvelopedAnswer(BaseModel):
    """What every answer of this API has."""

    code: int = Field(description="The status of the answer.")
    message: str


class SystemAnswer(EnvelopedAnswer):
    """A system."""

    data: ShownSystem


class MadeSystemAnswer(EnvelopedAnswer):
    """A new system with its secret, which is shown once."""

    data: MadeSystem


class MadeSecretAnswer(EnvelopedAnswer):
    """The new secret, which is shown once."""

    data: MadeSecret


class SystemPageAnswer(EnvelopedAnswer):
    """Systems, newest first."""

    data: SystemPage


class SystemTotalsAnswer(EnvelopedAnswer):
    """How many systems are alive, dead, and never reported."""

    data: ShownTotals


class SystemTrendAnswer(EnvelopedAnswer):
    """How many systems there were."""

    data: ShownTrend


class SystemInfoAnswer(EnvelopedAnswer):
    """The system that asks."""

    data: ShownToItself


class EmptyAnswer(EnvelopedAnswer):
    """Done."""

    data: None


class AnyObject(BaseModel):
    """A JSON object with any members."""

    model_config = ConfigDict(extra="allow")


# The heartbeat ------------------------------------------------------------------------------------------------------


class Acknowledged(BaseModel):
    """What was recorded."""

    system_id: str = Field(examples=[EXAMPLE_ID])
    acknowledged: Literal[True]
    last_heartbeat: datetime


class SystemHeartbeatAnswer(EnvelopedAnswer):
    """The heartbeat is on disk."""

    data: Acknowledged


# Errors -------------------------------------------------------------------------------------------------------------
class ShownFlaw(BaseModel):
    """One thing wrong with one field."""

    key: str
    message: Word
    value: str = Field(description="What came, as text.")


class Flaws(BaseModel):
    """What is wrong with a request."""

    type: Literal["validation_error"]
    errors: list[ShownFlaw]


class SystemsValidationError(EnvelopedAnswer):
    """Something in the request is wrong."""

    data: Flaws


class SystemsError(EnvelopedAnswer):
    """The error envelope of the Systems API."""

    data: None


def shown_flaws(error: ValidationFailed) -> dict[str, Any]:  # Any: JSON
    """The `data` of a refusal."""
    return {"type": "validation_error", "errors": [each._asdict() for each in error.flaws]}


_REFUSALS = {
    400: Refusal(
        "Something in the request is wrong; `errors` names each field.",
        "validation failed",
        "validation failed",
        {"type": "validation_error", "errors": [{"key": "name", "message": "required", "value": ""}]},
        model=SystemsValidationError,
    ),
    401: Refusal(
        "No credentials, or none that count; the message tells which.",
        "authentication required",
        "authentication required",
        header="WWW-Authenticate",
    ),
    403: Refusal(
        "The key lacks a scope, a limit of the project is reached, or a machine reports for another.",
        "insufficient permissions",
        "insufficient permissions",
    ),
    404: Refusal("No such system in this project.", "system not found", "system not found"),
    409: Refusal("A system has this id already.", "system already exists", "system already exists"),
    413: Refusal("The body is too large.", "request body too large", "request body too large"),
    500: Refusal(
        "A fault of the server, or its storage failed; the log has the request by its `X-Request-Id`.",
        "internal server error",
        "internal server error",
    ),
    503: Refusal(
        "Too much to do: nothing was written, try again after `Retry-After` seconds.",
        "service unavailable",
        "service unavailable",
        header="Retry-After",
    ),
}


def _example(status: int, refusal: Refusal) -> Mapping[str, Any]:
    return answer(status, refusal.message, refusal.details)


ENVELOPE = Envelope(SystemsError, _REFUSALS, _example)
