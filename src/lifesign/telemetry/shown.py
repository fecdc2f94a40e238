"""Wire models of what is read. They describe the answers, and `/schema/*.json` is made of them."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from lifesign.http.ok import OkBody
from lifesign.telemetry.records import Convention, CostSource, Kind, Severity, SignalType, Status
from lifesign.telemetry.sessions import Outcome

Time = Annotated[str, Field(description="RFC 3339, UTC, with milliseconds.", json_schema_extra={"format": "date-time"})]
Nanoseconds = Annotated[str, Field(description="Since 1970, in decimal digits.", pattern=r"^[0-9]+$")]
Hex32 = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
Hex16 = Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
Count = Annotated[int, Field(ge=0)]
# Any: an attribute's value is whatever the sender made it.
Attributes = dict[str, Any]


# Records ------------------------------------------------------------------------------------------------------------
class Tokens(BaseModel):
    """What was used; null where nobody said. `input` includes what came from a cache."""

    input: Count | None
    output: Count | None
    cache_read: Count | None
    cache_write: Count | None
    reasoning: Count | None
    total: Count | None


class OtlpPart(BaseModel):
    """What a span said and a record says otherwise, as it came."""

    kind: int
    trace_state: str
    flags: int
    status_code: int
    status_message: str
    dropped_attributes: Count
    dropped_events: Count
    dropped_links: Count


class ShownResource(BaseModel):
    """What made the span: a process, a service."""

    attributes: Attributes
    dropped_attributes: Count
    schema_url: str


class ShownScope(BaseModel):
    """The library that made the span."""

    name: str
    version: str
    attributes: Attributes
    dropped_attributes: Count
    schema_url: str


class ShownEvent(BaseModel):
    """Something that happened during a span."""

    name: str
    time: Time
    time_ns: Nanoseconds
    attributes: Attributes
    dropped_attributes: Count


class ShownLink(BaseModel):
    """Another span that has to do with a span."""

    trace_id: str
    span_id: str
    trace_state: str
    flags: int
    attributes: Attributes
    dropped_attributes: Count


class TelemetryRecord(BaseModel):
    """A span as stored: whatever convention it spoke, the same fields mean the same. Every field is always there."""

    record_id: Annotated[str, Field(pattern="^rec_[0-9a-f]{48}$")]
    project_id: str
    trace_id: Hex32
    span_id: Hex16
    parent_span_id: Hex16 | None
    session_id: str
    agent: str | None
    service: str | None
    environment: str | None
    version: str | None
    kind: Kind
    operation: str
    name: str
    tool: str | None
    provider: str | None
    model: str | None
    signal_type: SignalType
    severity: Severity
    status: Status
    error_type: str | None
    message: str | None
    soft_error: bool
    finish_reason: str | None
    attempt: int | None
    duration_ms: float
    started_at: Time
    ended_at: Time
    received_at: Time
    start_ns: Nanoseconds
    end_ns: Nanoseconds
    tokens: Tokens
    cost_usd: float | None
    cost_source: CostSource | None
    clock_skew: bool
    truncated: bool
    otlp: OtlpPart
    convention: Convention
    attributes: Attributes
    resource: ShownResource
    scope: ShownScope
    events: list[ShownEvent]
    links: list[ShownLink]


# Sessions -----------------------------------------------------------------------------------------------------------
class Session(BaseModel):
    """A session in short, over all its stored records. `turns` is their number."""

    session_id: str
    aliases: list[str]
    agent: str | None
    agents: list[str]
    environment: str | None
    environments: list[str]
    models: list[str]
    outcome: Outcome
    turns: Count
    traces: Count
    failures: Count
    signals: dict[str, int]
    started_at: Time
    ended_at: Time
    duration_ms: float
    last_received_at: Time
    tokens: Tokens
    cost_usd: float | None


# Answers ------------------------------------------------------------------------------------------------------------
class Window(BaseModel):
    """Which arrivals count: `since` does, `until` does not."""

    since: Time
    until: Time
    basis: Literal["received_at"]


class Ingest(BaseModel):
    """How far what is read lags behind what was accepted."""

    pending_records: Annotated[Count, Field(description="Accepted, and not yet where reads look.")]
    last_received_at: Annotated[Time | None, Field(description="The newest arrival that can be read.")]


class TelemetryPage(OkBody):
    """Records, the newest arrival first. `next_cursor` is null on the last page."""

    project_id: str
    window: Window
    count: Count
    records: list[TelemetryRecord]
    next_cursor: str | None
    ingest: Ingest


class SessionList(OkBody):
    """Sessions, the last active first. `next_cursor` is null on the last page."""

    project_id: str
    window: Window
    count: Count
    sessions: list[Session]
    next_cursor: str | None
    ingest: Ingest


class SessionDetail(OkBody):
    """A session with its records by start; or, with scope `trace`, one trace that is in a session of another name."""

    scope: Literal["session", "trace"]
    window: Window
    session: Session
    records: list[TelemetryRecord]
    next_cursor: str | None
