"""Records as rows, and back. Words of a fixed set are stored as their place in a tuple: only ever add at the end."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import Row

from lifesign.clock import EpochMs
from lifesign.telemetry.otlp.spans import Resource, Scope
from lifesign.telemetry.records import Body, Kind, Origin, Record, SignalType, Status
from lifesign.telemetry.stores.tables import spans

KINDS: Final[tuple[Kind, ...]] = (
    "other",
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
)
STATUSES: Final[tuple[Status, ...]] = ("unset", "ok", "error")
SIGNALS: Final[tuple[SignalType, ...]] = ("info", "error", "tool_call_failed", "slow_operation", "user_signal")
FAILING: Final = STATUSES.index("error")
_KIND: Final = {word: place for place, word in enumerate(KINDS)}
_STATUS: Final = {word: place for place, word in enumerate(STATUSES)}
SIGNAL: Final = {word: place for place, word in enumerate(SIGNALS)}

COLUMNS: Final = tuple(column.name for column in spans.columns)
TEXTS: Final = (
    "operation",
    "agent",
    "service",
    "tool",
    "model",
    "environment",
    "version",
    "error_type",
    "finish_reason",
)

# Of a span whose project is being erased at this moment.
_UNKNOWN: Final = Origin(Resource({}, 0, ""), Scope("", "", {}, 0, ""))

_encode_body = msgspec.json.Encoder().encode
_decode_body = msgspec.json.Decoder(Body).decode
_decode_origin = msgspec.json.Decoder(Origin).decode


def body_bytes(record: Record) -> bytes:
    """What `span_bodies` keeps of a record."""
    return _encode_body(record.body)


def aliases_in(body: bytes) -> tuple[str, ...]:
    """The other session ids of a record."""
    return _decode_body(body).aliases


def message_in(body: bytes) -> str | None:
    """The message of a record."""
    return _decode_body(body).message


def origin_text(origin: Origin) -> str:
    """What `strings` keeps of where spans come from."""
    return _encode_body(origin).decode()


def row_of(
    record: Record,
    strings: Mapping[str | None, int | None],
    *,
    number: int,
    project: int,
    own_session: int | None,
    origin: int,
) -> tuple[Any, ...]:
    """A row of `spans`, in the order of COLUMNS. strings: the number of each text; None of None."""
    return (
        number,
        project,
        bytes.fromhex(record.trace_id),
        bytes.fromhex(record.span_id),
        bytes.fromhex(record.parent_id) if record.parent_id else None,
        record.received_at,
        record.start_ns,
        record.end_ns,
        _KIND[record.kind],
        _STATUS[record.status],
        SIGNAL[record.signal_type],
        record.op_hash,
        record.args_hash,
        record.result_hash,
        record.bucket,
        record.attempt,
        record.flags,
        record.input_tokens,
        record.output_tokens,
        record.cache_read_tokens,
        record.cache_write_tokens,
        record.reasoning_tokens,
        record.total_tokens,
        record.cost_nano,
        own_session,
        strings[record.operation],
        strings[record.agent],
        strings[record.service],
        strings[record.tool],
        strings[record.model],
        strings[record.environment],
        strings[record.version],
        strings[record.error_type],
        strings[record.finish_reason],
        origin,
    )


def record_of(row: Row[Any], own_session: str | None, strings: Mapping[int | None, str | None]) -> Record:
    """What a row of `spans` says, and `span_bodies`, which the row has as `body`. strings: the text of each number."""
    origin = strings.get(row.origin)
    return Record(
        **_narrow(row, own_session, strings),
        body=_decode_body(row.body),
        origin=_decode_origin(origin) if origin is not None else _UNKNOWN,
    )


def numbers_of(rows: Sequence[Row[Any]]) -> set[int]:
    """The numbers of all texts that rows name."""
    found = {getattr(row, name) for row in rows for name in (*TEXTS, "origin")}
    found.discard(None)
    return found


def _narrow(row: Row[Any], own_session: str | None, strings: Mapping[int | None, str | None]) -> dict[str, Any]:
    return {
        "trace_id": row.trace_id.hex(),
        "span_id": row.span_id.hex(),
        "parent_id": row.parent_id.hex() if row.parent_id else "",
        "received_at": EpochMs(row.received_at),
        "start_ns": row.start_ns,
        "end_ns": row.end_ns,
        "kind": KINDS[row.kind],
        "operation": strings.get(row.operation) or "",
        "op_hash": row.op_hash,
        "status": STATUSES[row.status],
        "signal_type": SIGNALS[row.signal_type],
        "own_session": own_session,
        "agent": strings.get(row.agent),
        "service": strings.get(row.service),
        "tool": strings.get(row.tool),
        "model": strings.get(row.model),
        "environment": strings.get(row.environment),
        "version": strings.get(row.version),
        "error_type": strings.get(row.error_type),
        "args_hash": row.args_hash,
        "result_hash": row.result_hash,
        "bucket": row.bucket,
        "attempt": row.attempt,
        "finish_reason": strings.get(row.finish_reason),
        "flags": row.flags,
        "input_tokens": row.input_tokens,
        "output_tokens": row.output_tokens,
        "cache_read_tokens": row.cache_read_tokens,
        "cache_write_tokens": row.cache_write_tokens,
        "reasoning_tokens": row.reasoning_tokens,
        "total_tokens": row.total_tokens,
        "cost_nano": row.cost_nano,
    }
