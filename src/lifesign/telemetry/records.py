"""Records: spans as they are stored. A narrow part that is counted and searched, a body that is only looked at.

Spec "Telemetry", sections 4 and 8.
"""

from typing import Any, Final, Literal

from msgspec import Struct

from lifesign.clock import EpochMs
from lifesign.telemetry.otlp.spans import Attributes, Resource, Scope, SpanEvent, SpanLink

Kind = Literal[
    "llm",
    "embedding",
    "retrieval",
    "tool",
    "agent",
    "workflow",
    "memory",
    "guardrail",
    "evaluation",
    "http",
    "other",
]
Status = Literal["ok", "error", "unset"]
SignalType = Literal["tool_call_failed", "error", "user_signal", "slow_operation", "info"]
Severity = Literal["error", "warning", "info"]
Convention = Literal["gen_ai", "openinference", "openllmetry", "langfuse", "claude_code", "vercel_ai", "generic"]
CostSource = Literal["reported", "priced"]

SEVERITIES: Final[dict[SignalType, Severity]] = {
    "tool_call_failed": "error",
    "error": "error",
    "user_signal": "warning",
    "slow_operation": "warning",
    "info": "info",
}

# Bits of `Narrow.flags`.
EMPTY_RESULT: Final = 1
BLOCKED: Final = 2
SOFT_ERROR: Final = 4
CLOCK_SKEW: Final = 8
TRUNCATED: Final = 16

NANO_USD: Final = 1_000_000_000
"""Costs are whole numbers of 10^-9 USD, so that sums are exact in any order."""


# gc=False: hundreds of thousands a second, and none can be part of a cycle.
class Narrow(Struct, frozen=True, gc=False):
    """What is counted, searched and judged: the columns of `spans`. Enough for sessions and for diagnosis.

    Ids are lower-case hex, `parent_id` is empty for a root. Hashes are signed 64-bit numbers and never 0; None: there
    was nothing to hash. bucket: of the duration, floor(ln(max(us, 1)) / ln 1.05). flags: EMPTY_RESULT and so on.
    own_session: the span's own session id (section 5). cost_nano: 10^-9 USD.
    """

    trace_id: str
    span_id: str
    parent_id: str
    received_at: EpochMs
    start_ns: int
    end_ns: int
    kind: Kind
    operation: str
    op_hash: int
    status: Status
    signal_type: SignalType
    own_session: str | None = None
    agent: str | None = None
    service: str | None = None
    tool: str | None = None
    model: str | None = None
    environment: str | None = None
    version: str | None = None
    error_type: str | None = None
    args_hash: int | None = None
    result_hash: int | None = None
    bucket: int = 0
    attempt: int | None = None
    finish_reason: str | None = None
    flags: int = 0
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    total_tokens: int | None = None
    cost_nano: int | None = None

    @property
    def record_id(self) -> str:
        """`rec_` and 48 hex digits: what identifies it within its project."""
        return f"rec_{self.trace_id}{self.span_id}"

    @property
    def is_failing(self) -> bool:
        """Whether it counts as a failure."""
        return self.status == "error"

    @property
    def severity(self) -> Severity:
        return SEVERITIES[self.signal_type]

    @property
    def duration_ns(self) -> int:
        """0 when it ended before it began."""
        return max(0, self.end_ns - self.start_ns)


class Origin(Struct, frozen=True, gc=False, omit_defaults=True):
    """Where spans come from. One object for all spans of a scope in a request, so that a store can keep it once."""

    resource: Resource
    scope: Scope


class Body(Struct, frozen=True, gc=False, omit_defaults=True):
    """The rest of a record, of no interest to anything but people and export. JSON in `span_bodies`.

    otlp_kind, status_code and so on: as they came. aliases: the other session ids of the span.
    """

    name: str = ""
    provider: str | None = None
    message: str | None = None
    cost_source: CostSource | None = None
    convention: Convention = "generic"
    aliases: tuple[str, ...] = ()
    otlp_kind: int = 0
    trace_state: str = ""
    otlp_flags: int = 0
    status_code: int = 0
    status_message: str = ""
    dropped_attributes: int = 0
    dropped_events: int = 0
    dropped_links: int = 0
    attributes: Attributes = {}
    events: tuple[SpanEvent, ...] = ()
    links: tuple[SpanLink, ...] = ()


class Record(Narrow, frozen=True, gc=False, kw_only=True):
    """A span as stored, whole: the narrow part, and the body."""

    body: Body
    origin: Origin


# Any: JSON.
Json = dict[str, Any]
