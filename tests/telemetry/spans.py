"""Spans and records for tests: what does not matter has a default."""

from collections.abc import Mapping
from typing import Any

from lifesign.clock import EpochMs
from lifesign.telemetry.mapping import Pricing, records_of
from lifesign.telemetry.otlp.spans import Resource, Scope, Span, SpanEvent
from lifesign.telemetry.records import Narrow, Record
from lifesign.telemetry.rules import SlowAfter

# Any, throughout: an attribute's value is JSON.
Attributes = Mapping[str, Any]

TRACE, SPAN = "5b8efff798038103d269b633813fc60c", "eee19b7ec3c1b174"
START_NS = 1_767_614_400_000_000_000  # 2026-01-05T12:00Z
RECEIVED_AT = EpochMs(1_767_614_401_000)
MS = 1_000_000


def a_span(
    attributes: Attributes | None = None,
    *,
    name: str = "work",
    resource: Attributes | None = None,
    status: int = 0,
    status_message: str = "",
    duration_ms: int = 5,
    events: tuple[SpanEvent, ...] = (),
    is_cut: bool = False,
    is_skewed: bool = False,
) -> Span:
    return Span(
        trace_id=TRACE,
        span_id=SPAN,
        parent_id="",
        trace_state="",
        flags=0,
        name=name,
        kind=1,
        start_ns=START_NS,
        end_ns=START_NS + duration_ms * MS,
        attributes=dict(attributes or {}),
        dropped_attributes=0,
        events=events,
        dropped_events=0,
        links=(),
        dropped_links=0,
        status_code=status,
        status_message=status_message,
        resource=Resource(dict(resource or {}), 0, ""),
        scope=Scope("", "", {}, 0, ""),
        is_cut=is_cut,
        is_skewed=is_skewed,
    )


def exception(**attributes: str) -> SpanEvent:
    named = {f"exception.{name}": value for name, value in attributes.items()}
    return SpanEvent(START_NS, "exception", named, 0)


def record_of(span: Span, *, prices: Pricing | None = None, slow_after: SlowAfter | None = None) -> Record:
    (record,) = records_of([span], RECEIVED_AT, slow_after=slow_after or SlowAfter(), prices=prices)
    return record


def read(attributes: Attributes | None = None, **more: Any) -> Record:  # Any: see a_span
    """The record of a span with these attributes."""
    return record_of(a_span(attributes, **more))


def narrow(span_id: int, **fields: Any) -> Narrow:  # Any: see Narrow
    """A record of the trace aa..., for what needs no body."""
    usual: dict[str, Any] = {
        "trace_id": "aa" * 16,
        "span_id": f"{span_id:016x}",
        "parent_id": "",
        "received_at": RECEIVED_AT,
        "start_ns": START_NS + span_id * MS,
        "end_ns": START_NS + (span_id + 1) * MS,
        "kind": "other",
        "operation": "work",
        "op_hash": 1,
        "status": "unset",
        "signal_type": "info",
    }
    return Narrow(**(usual | fields))
