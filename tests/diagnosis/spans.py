"""Records as tests want them: what matters is said, the rest is plain."""

import itertools
from typing import Any

from lifesign.clock import EpochMs
from lifesign.diagnosis.details import details_of
from lifesign.diagnosis.facts import facts_of
from lifesign.diagnosis.issues import Known
from lifesign.diagnosis.packet import examined, issues_in, packet_of
from lifesign.diagnosis.preparation import Key, Placed
from lifesign.telemetry.hashes import operation_hash
from lifesign.telemetry.records import Narrow
from lifesign.telemetry.rules import duration_bucket

UNTIL_MS = EpochMs(1_767_614_400_000)
SINCE_MS = EpochMs(UNTIL_MS - 3_600_000)
START_NS = 1_767_612_400_000_000_000
_SECOND_NS = 1_000_000_000


# Any: the fields of a record.
def span(
    number: int, *, trace: int | None = None, session: str | None = None, parent: int = 0, **fields: Any
) -> Placed:
    """Record `number`: it starts that many seconds in, in a trace of its own unless told, in session `s<trace>`."""
    trace = number if trace is None else trace
    start_ns = fields.pop("start_ns", START_NS + number * _SECOND_NS)
    duration_ms = fields.pop("duration_ms", 100)
    failing = fields.pop("failing", False)
    kind = fields.pop("kind", "tool")
    operation = fields.pop("operation", "search")
    plain: dict[str, Any] = {
        "received_at": UNTIL_MS - 1_000_000 + number,
        "status": "error" if failing else "ok",
        "signal_type": ("tool_call_failed" if kind == "tool" else "error") if failing else "info",
        "error_type": "Timeout" if failing else None,
        "agent": "clerk",
        "tool": operation if kind == "tool" else None,
        "model": "gpt-5" if kind == "llm" else None,
        "bucket": duration_bucket(duration_ms * 1_000_000),
    }
    record = Narrow(
        trace_id=f"{trace:032x}",
        span_id=f"{number:016x}",
        parent_id=f"{parent:016x}" if parent else "",
        start_ns=start_ns,
        end_ns=start_ns + duration_ms * 1_000_000,
        kind=kind,
        operation=operation,
        op_hash=operation_hash(kind, operation),
        **{**plain, **fields},
    )
    return Placed(f"s{trace}" if session is None else session, record)


# Any: as `span`.
def spans(first: int, how_many: int, **fields: Any) -> list[Placed]:
    """So many records of one make, one after the other."""
    return [span(number, **fields) for number in itertools.islice(itertools.count(first), how_many)]


def ids(*placed: Placed) -> list[str]:
    return [each.record.record_id for each in placed]


# Any: JSON.
def diagnosed(
    current: list[Placed],
    baseline: list[Placed] | None = None,
    *,
    ledger: dict[str, Known] | None = None,
    messages: dict[Key, str] | None = None,
) -> dict[str, Any]:
    """The packet of these records."""
    seen = examined(facts_of(current, baseline or []))
    details = details_of(current, seen.wanted, messages or {})
    return packet_of(seen, issues_in(seen, details, ledger=ledger or {}, window_start=SINCE_MS))


# Any: JSON.
def issues(current: list[Placed], baseline: list[Placed] | None = None) -> dict[str, dict[str, Any]]:
    """The issues by title. No rule may raise on the way: it would be silent then, too."""
    packet = diagnosed(current, baseline)
    assert "rule_failed" not in {each["code"] for each in packet["notices"]}
    return {each["title"]: each for each in packet["issues"]}


def counts(current: list[Placed], baseline: list[Placed] | None = None) -> dict[str, int]:
    """The counts of issues by title."""
    return {title: each["count"] for title, each in issues(current, baseline).items()}
