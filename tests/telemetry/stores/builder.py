"""Records for tests of stores: what does not matter has a default."""

from typing import Any

from lifesign.clock import EpochMs
from lifesign.telemetry.otlp.spans import Resource, Scope
from lifesign.telemetry.records import Body, Origin, Record

NOW = EpochMs(1_767_614_400_000)
HERE = Origin(Resource({"service.name": "shop"}, 0, ""), Scope("lib", "1", {}, 0, ""))


def record(**fields: Any) -> Record:  # Any: whatever a record has
    usual: dict[str, Any] = {
        "trace_id": "5b8efff798038103d269b633813fc60c",
        "span_id": "eee19b7ec3c1b174",
        "parent_id": "",
        "received_at": NOW,
        "start_ns": NOW * 1_000_000,
        "end_ns": NOW * 1_000_000 + 5_000_000,
        "kind": "other",
        "operation": "work",
        "op_hash": 7,
        "status": "unset",
        "signal_type": "info",
        "body": Body(name="work"),
        "origin": HERE,
    }
    return Record(**usual | fields)
