"""How reads are described in `/openapi.json`: their parameters, and what statuses mean."""

from typing import get_args

from lifesign.http.describe import Refusal
from lifesign.http.ok import Json
from lifesign.telemetry.asked import MAX_IDS, MAX_MINUTES
from lifesign.telemetry.records import SignalType

READ_REFUSALS = {
    400: Refusal(
        "A parameter is none of what it may be; the message says what it may.",
        "invalid_parameter",
        "limit must be an integer from 1 to 1000",
    ),
    503: Refusal(
        "The store does not answer: try again after `Retry-After` seconds.",
        "store_unavailable",
        "The store of telemetry is not available, try again",
        header="Retry-After",
    ),
}
SESSION_REFUSALS = READ_REFUSALS | {
    404: Refusal(
        "No such session, nothing of it arrived in the window, or it is another project's.",
        "session_not_found",
        "Session not found in window",
    )
}
CURSOR: Json = {
    "name": "cursor",
    "in": "query",
    "description": "`next_cursor` of the page before; opaque.",
    "schema": {"type": "string"},
}
ENVIRONMENT: Json = {
    "name": "environment",
    "in": "query",
    "description": "Exactly this environment.",
    "schema": {"type": "string"},
}
FILTERS: tuple[Json, ...] = (
    ENVIRONMENT,
    {"name": "session_id", "in": "query", "description": "Exactly this session.", "schema": {"type": "string"}},
    {"name": "trace_id", "in": "query", "description": "Exactly this trace.", "schema": {"type": "string"}},
    {"name": "signal_type", "in": "query", "schema": {"type": "string", "enum": list(get_args(SignalType))}},
    {
        "name": "ids",
        "in": "query",
        "description": f"1 to {MAX_IDS} record ids, separated by commas; then window, filters and limit do not apply.",
        "schema": {"type": "string"},
    },
)


def minutes_parameter(default: int) -> Json:
    """How far back the window begins."""
    return {
        "name": "since_minutes",
        "in": "query",
        "description": "What arrived within so many minutes.",
        "schema": {"type": "integer", "minimum": 1, "maximum": MAX_MINUTES, "default": default},
    }


def limit_parameter(most: int, default: int) -> Json:
    """How many rows a page has."""
    return {
        "name": "limit",
        "in": "query",
        "description": "Rows per page.",
        "schema": {"type": "integer", "minimum": 1, "maximum": most, "default": default},
    }
