"""Records as rows of the table `spans`, and back. Neither the spool nor ClickHouse looks into them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import starmap
from typing import Any, Final, NamedTuple, get_args

import msgspec
from msgspec import Struct

from lifesign.telemetry.records import Body, Narrow, Origin, Record, Status

# Any, throughout: values of columns.
Row = Sequence[Any]

STATUSES: Final[tuple[Status, ...]] = get_args(Status)
_UNSIGNED: Final = 2**64
_SIGN: Final = 2**63
_FIRST_VERSION: Final = 2**63

_text = "LowCardinality(Nullable(String))"
_number = "Nullable(UInt64)"


def unsigned(value: int | None) -> int:
    """A signed hash, which is never 0, as ClickHouse has it; 0 for none."""
    return 0 if value is None else value % _UNSIGNED


def signed(value: int) -> int | None:
    """And back."""
    return value - _UNSIGNED if value >= _SIGN else value or None


class Column(NamedTuple):
    """A column, what it holds, how it is read, and the member of `Narrow` that it is.

    stored, loaded: from the member and back; None: it is the same.
    """

    name: str
    type: str
    field: str
    stored: Callable[[Any], Any] | None = None
    loaded: Callable[[Any], Any] | None = None


NARROW: Final = (
    Column("trace_id", "FixedString(32)", "trace_id"),
    Column("span_id", "FixedString(16)", "span_id"),
    Column("parent_span_id", "String", "parent_id"),
    Column("received_at", "DateTime64(3, 'UTC')", "received_at"),
    Column("start_ns", "Int64", "start_ns"),
    Column("end_ns", "Int64", "end_ns"),
    Column("kind", "LowCardinality(String)", "kind"),
    Column("operation", "String", "operation"),
    Column("op_hash", "UInt64", "op_hash", unsigned, signed),
    Column("status", "UInt8", "status", STATUSES.index, STATUSES.__getitem__),
    Column("signal_type", "LowCardinality(String)", "signal_type"),
    Column("own_session", "String", "own_session", lambda text: text or "", lambda text: text or None),
    Column("agent", _text, "agent"),
    Column("service", _text, "service"),
    Column("tool", _text, "tool"),
    Column("model", _text, "model"),
    Column("environment", _text, "environment"),
    Column("version", _text, "version"),
    Column("error_type", _text, "error_type"),
    Column("args_hash", "UInt64", "args_hash", unsigned, signed),
    Column("result_hash", "UInt64", "result_hash", unsigned, signed),
    Column("bucket", "UInt16", "bucket"),
    Column("attempt", "Nullable(UInt16)", "attempt"),
    Column("finish_reason", _text, "finish_reason"),
    Column("flags", "UInt16", "flags"),
    Column("in_tok", _number, "input_tokens"),
    Column("out_tok", _number, "output_tokens"),
    Column("cache_read", _number, "cache_read_tokens"),
    Column("cache_write", _number, "cache_write_tokens"),
    Column("reasoning_tok", _number, "reasoning_tokens"),
    Column("total_tok", _number, "total_tokens"),
    Column("cost", "Nullable(Int64)", "cost_nano"),
)
"""In the order of the members of `Narrow`."""

INSERTED: Final = {
    "project_id": "LowCardinality(String)",
    **{column.name: column.type for column in NARROW},
    "aliases": "Array(String)",
    "body": "String",
    "ver": "UInt64",
}
"""Every column with its type, in the order of `rows_of`."""


REMEMBERED: Final = {
    "project_id": "LowCardinality(String)",
    "trace_id": "FixedString(32)",
    "session_id": "String",
    "is_inner": "UInt8",
    "start_ns": "Int64",
    "span_id": "FixedString(16)",
    "ver": "UInt128",
    "received_at": "DateTime64(3, 'UTC')",
}
"""The columns of `traces`, in the order of `sources_in`. is_inner, start_ns, span_id: `sessions.Rank`."""


class Rest(Struct, frozen=True, gc=False):
    """What the column `body` holds, as JSON."""

    body: Body
    origin: Origin


_decode_rest = msgspec.json.Decoder(Rest).decode
_encode = msgspec.json.Encoder().encode


def rows_of(project_id: str, records: Iterable[Record]) -> list[list[Any]]:
    """The rows of these records. The first of several rows of one record has the highest `ver`: it wins."""
    rows: list[list[Any]] = []
    for record in records:
        row: list[Any] = [project_id]
        for column in NARROW:
            value = getattr(record, column.field)
            row.append(value if column.stored is None else column.stored(value))
        row.append(list(record.body.aliases))
        row.append(_encode(Rest(record.body, record.origin)).decode())
        row.append(_FIRST_VERSION - record.received_at)
        rows.append(row)
    return rows


def sources_in(rows: Iterable[Row]) -> list[list[Any]]:
    """Of rows of `spans`, the best source of each trace's session, as rows of `traces`."""
    best: dict[tuple[str, str], list[Any]] = {}
    for row in rows:
        session_id = row[_OWN_SESSION]
        if not session_id:
            continue
        project_id, trace_id, span_id, parent_id, received_at, start_ns = row[:6]
        version = (not parent_id) << 127 | (_SIGN - 1 - start_ns) << 64 | (_UNSIGNED - 1 - int(span_id, 16))
        known = best.get((project_id, trace_id))
        if known is None or known[_SOURCE_VERSION] < version:
            source = [project_id, trace_id, session_id, int(bool(parent_id)), start_ns, span_id, version, received_at]
            best[project_id, trace_id] = source
    return list(best.values())


_OWN_SESSION: Final = list(INSERTED).index("own_session")
_SOURCE_VERSION: Final = list(REMEMBERED).index("ver")


def narrow_of(row: Row) -> Narrow:
    """The narrow part of a record from the columns of `NARROW`, which the row begins with."""
    return Narrow(*_members(row))


def narrows_of(columns: Sequence[Sequence[Any]]) -> Iterator[Narrow]:
    """The same of many rows at once, by column."""
    members: list[Iterable[Any]] = list(columns[: len(NARROW)])
    for place, loaded in _LOADED:
        members[place] = map(loaded, members[place])
    return starmap(Narrow, zip(*members, strict=True))


def record_of(row: Row, rest: str) -> Record:
    """A record from the columns of `NARROW`, which the row begins with, and its `body`."""
    whole = _decode_rest(rest)
    members = dict(zip(_FIELDS, _members(row), strict=True))
    return Record(**members, body=whole.body, origin=whole.origin)


def message_in(rest: str) -> str | None:
    """The message that a `body` holds."""
    return _decode_rest(rest).body.message


_FIELDS: Final = tuple(column.field for column in NARROW)
_LOADED: Final = tuple((place, column.loaded) for place, column in enumerate(NARROW) if column.loaded is not None)


def _members(row: Row) -> list[Any]:
    members = list(row[: len(NARROW)])
    for place, loaded in _LOADED:
        members[place] = loaded(members[place])
    return members
