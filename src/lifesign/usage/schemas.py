"""What people see of their keys and of the dashboards."""

from collections.abc import Mapping
from datetime import datetime

from pydantic import BaseModel, Field

from lifesign.auth.vitals.rules import MAX_EMAIL, MAX_TEXT, UseCase
from lifesign.auth.vitals.schemas import Good, Json
from lifesign.auth.vitals.service import VitalsKey
from lifesign.clock import EpochMs, rfc3339
from lifesign.http.describe import Refusal
from lifesign.http.fields import Body, optional
from lifesign.usage.rules import RANGES, ErrorType, Range
from lifesign.usage.service import Metrics, Overview, UsageError

_SECOND = len("2026-04-08T12:00:00")


# Keys ---------------------------------------------------------------------------------------------------------------
class WantedKey(Body):
    """Who wants a key."""

    name: str = Field(
        description="Without control characters.", min_length=1, max_length=MAX_TEXT, examples=["Jane Smith"]
    )
    email: str = Field(
        description="Three keys per address.",
        max_length=MAX_EMAIL,
        examples=["jane@healthapp.example"],
        json_schema_extra={"format": "email"},
    )
    company: str | None = Field(default=None, max_length=MAX_TEXT, pattern=r"^[^\x00]*$")
    use_case: UseCase | None = Field(default=None, description="What for.")


WANTED_KEYS: Mapping[str, Json] = {
    "a name and an address are enough": {"name": "Jane Smith", "email": "jane@healthapp.example"},
    "for whom and what for": {
        "name": "Jane Smith",
        "email": "jane@healthapp.example",
        "company": "HealthApp Inc",
        "use_case": "telehealth",
    },
}


def made_key(key: VitalsKey, made: str) -> Json:
    """A key in the answer that makes it: the only one with the key itself."""
    return {
        "id": key.id,
        "key": made,
        "name": key.name,
        "email": key.email,
        "company": key.company,
        "use_case": key.use_case,
        "created_at": rfc3339(key.created_at),
    }


def own_key(key: VitalsKey) -> Json:
    """A key as its owner sees it later."""
    return {
        "id": key.id,
        "prefix": key.prefix,
        "name": key.name,
        "email": key.email,
        "company": key.company,
        "use_case": key.use_case,
        "created_at": rfc3339(key.created_at),
        "last_used_at": _time(key.last_used_at),
        "request_count": key.request_count,
    }


def listed_key(key: VitalsKey) -> Json:
    """A key as the operator sees it."""
    return {
        "id": key.id,
        "prefix": key.prefix,
        "name": key.name,
        "email": key.email,
        "company": key.company,
        "useCase": key.use_case,
        "createdAt": rfc3339(key.created_at),
        "lastUsedAt": _time(key.last_used_at),
        "requests": key.request_count,
        "revokedAt": _time(key.revoked_at),
    }


def _time(at: EpochMs | None) -> str | None:
    return None if at is None else rfc3339(at)


class Revoked(Good):
    """The key is revoked."""


class _KeyOfSomebody(BaseModel):
    id: int = Field(description="Later keys have larger ones.")
    name: str
    email: str = Field(description="As it was written.")
    company: str | None
    use_case: UseCase | None
    created_at: datetime


class MadeVitalsKey(_KeyOfSomebody):
    """A key, in the only answer that holds it."""

    key: str = Field(description="Shown here and never again.", pattern="^beam_[0-9a-f]{32}$")


class OwnVitalsKey(_KeyOfSomebody):
    """The key that asks."""

    prefix: str = Field(description="The first characters of the key.")
    last_used_at: datetime | None = Field(description="When its last request came that was counted; null: none yet.")
    request_count: int


class MadeVitalsKeyAnswer(Good):
    """A new key; the only answer that holds it."""

    api_key: MadeVitalsKey


class OwnVitalsKeyAnswer(Good):
    """The key that asks, without itself."""

    api_key: OwnVitalsKey


# Dashboards ---------------------------------------------------------------------------------------------------------
def shown_overview(found: Overview) -> Json:
    """The server in a few numbers, on the wire."""
    return {
        "total_api_keys": found.total_keys,
        "active_api_keys_30d": found.active_keys,
        "requests": {"last_24h": found.last_24h, "last_7d": found.last_7d, "last_30d": found.last_30d},
        "error_rate_pct_30d": found.error_rate_pct,
    }


def shown_metrics(found: Metrics) -> Json:
    """A window, on the wire."""
    series = [
        {
            "bucket": f"{rfc3339(each.at)[:_SECOND]}Z",
            "total_requests": each.total,
            "error_count": each.errors,
            "server_error_count": each.server_errors,
            "error_rate_pct": each.error_rate_pct,
        }
        for each in found.series
    ]
    return {"range": found.range, "time_series": series, "latency_percentiles": found.latency._asdict()}


def shown_error(error: UsageError) -> Json:
    """An error, on the wire."""
    return {
        "id": error.id,
        "error_type": error.error_type,
        "message": error.message,
        "count": error.count,
        "first_seen": rfc3339(error.first_seen),
        "last_seen": rfc3339(error.last_seen),
    }


class RequestCounts(BaseModel):
    """Requests of windows that end now."""

    last_24h: int
    last_7d: int
    last_30d: int


class DashboardOverview(BaseModel):
    """The server in a few numbers."""

    total_api_keys: int = Field(description="That are not revoked.")
    active_api_keys_30d: int = Field(description="Of these, used within 30 days.")
    requests: RequestCounts
    error_rate_pct_30d: float


class DashboardOverviewAnswer(Good):
    """The whole server in a few numbers."""

    overview: DashboardOverview


class TimeSeriesBucket(BaseModel):
    """The requests of an hour or a day of UTC, as far as they lie in the window."""

    # Not a datetime: it has no milliseconds.
    bucket: str = Field(description="When it begins.", pattern=r"^\d{4}-\d\d-\d\dT\d\d:00:00Z$")
    total_requests: int
    error_count: int = Field(description="4xx and 5xx.")
    server_error_count: int = Field(description="5xx.")
    error_rate_pct: float


class LatencyPercentiles(BaseModel):
    """How long requests took; null when there were none in the window."""

    p50_ms: int | None
    p95_ms: int | None
    p99_ms: int | None
    avg_ms: int | None


class DashboardMetricsAnswer(Good):
    """A window of time by hours or days, ascending and without gaps."""

    range: Range
    time_series: list[TimeSeriesBucket]
    latency_percentiles: LatencyPercentiles


class ErrorEntry(BaseModel):
    """One kind of error."""

    id: int
    error_type: ErrorType
    message: str = Field(examples=["GET /api/keys → 404"])
    count: int
    first_seen: datetime
    last_seen: datetime


class DashboardRecentErrorsAnswer(Good):
    """Errors by what was asked and answered, the one that was seen last first."""

    errors: list[ErrorEntry]
    total: int = Field(description="Of all kinds that are kept.")
    next_cursor: str = optional("Present when `limit` was sent and there are more.")


RANGE: Json = {
    "name": "range",
    "in": "query",
    "description": "How far back; hours for 24h, days for the others.",
    "schema": {"type": "string", "enum": list(RANGES), "default": "30d"},
}
MAX_ERRORS_SHOWN = 50
ERROR_PAGING: tuple[Json, ...] = (
    {
        "name": "limit",
        "in": "query",
        "description": "Errors per page.",
        "schema": {"type": "integer", "minimum": 1, "maximum": MAX_ERRORS_SHOWN, "default": MAX_ERRORS_SHOWN},
    },
    {
        "name": "cursor",
        "in": "query",
        "description": "`next_cursor` of the page before; opaque.",
        "schema": {"type": "string"},
    },
)


# Refusals -----------------------------------------------------------------------------------------------------------
RANGE_REFUSALS = {
    400: Refusal("There is no such range.", "BAD_REQUEST", "Invalid range. Must be one of: 24h, 7d, 30d"),
}
PAGE_REFUSALS = {
    400: Refusal("`limit` or `cursor` is wrong.", "BAD_REQUEST", "limit must be an integer from 1 to 50"),
}
