"""What ClickHouse is asked. Texts are put together from the constants of this module; values are always bound.

Two things make every answer exact. Of the rows of one record the first that arrived counts, wherever it is in the
table: rows are compared before anything else is asked of them. And the session of a record is worked out from all
spans of its trace, so that nothing has to move when a better source arrives, and a repetition that names another
session changes nothing. Both hold within a trace, so queries choose traces first, by an index, and then look at the
whole of them.
"""

from collections.abc import Sequence
from typing import Final

from lifesign.telemetry.stores.clickhouse.rows import INSERTED, NARROW

IN_PROJECT: Final = "project_id = {project:String}"
TIME: Final = "toUnixTimestamp64Milli(received_at)"
_KEY: Final = "concat(trace_id, span_id)"

_SELECTED: Final = ", ".join(
    f"{TIME} AS received_at" if column.name == "received_at" else column.name for column in NARROW
)
_NARROW: Final = ", ".join(column.name for column in NARROW)


def instant(name: str) -> str:
    return f"fromUnixTimestamp64Milli({{{name}:Int64}}, 'UTC')"


_SINCE: Final = f"received_at >= {instant('since')}"
_UNTIL: Final = f"received_at < {instant('until')}"


# Whoever named the session of a trace may be gone; `traces` then stands in for that span.
_REMEMBERED: Final = {
    "trace_id": "trace_id",
    "span_id": "span_id",
    "parent_span_id": "if(is_inner, '?', '')",
    "start_ns": "start_ns",
    "own_session": "session_id",
    "ver": "toUInt64(0)",
}
_TYPES: Final = {**INSERTED, "at": "Int64"}


def _first_of_each(columns: Sequence[str], traces: str) -> str:
    """The rows of some traces that count: of each record the first, and who named sessions (`is_gone`)."""
    told = ", ".join(f"{TIME} AS at" if name == "at" else name for name in columns)
    stand_in = ", ".join(
        f"{_REMEMBERED.get(name) or f'defaultValueOfTypeName({_quoted(_TYPES[name])})'} AS {name}" for name in columns
    )
    return f"""
        SELECT * FROM (
          SELECT {told}, ver, 0 AS is_gone FROM spans WHERE {IN_PROJECT} AND trace_id IN {traces}
          UNION ALL
          SELECT {stand_in}, toUInt64(0), 1 FROM traces WHERE {IN_PROJECT} AND trace_id IN {traces})
        ORDER BY ver DESC LIMIT 1 BY trace_id, span_id"""


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "\\'") + "'"


def members(columns: Sequence[str], traces: str) -> str:
    """Records of some traces, the first row of each, with their sessions (`sessions.session_of`).

    columns: what is wanted of them. traces: what `trace_id IN` takes.
    """
    return f"""(
    SELECT *, multiIf(own_session != '', own_session, named != '', named, toString(trace_id)) AS session_id
    FROM (
      SELECT *, {_BEST} OVER (PARTITION BY trace_id) AS named
      FROM ({_first_of_each(columns, traces)}))
    WHERE NOT is_gone)"""


_BEST: Final = "argMinIf(own_session, (parent_span_id != '', start_ns, span_id), own_session != '')"


def _traces_with(condition: str) -> str:
    return f"(SELECT trace_id FROM spans WHERE {IN_PROJECT} AND {condition})"


# Whatever decides on sessions, and when something of them arrived.
MEMBERSHIP: Final = ("trace_id", "span_id", "parent_span_id", "start_ns", "own_session", "at")
# A session's records either name it, or are in a trace in which some span does or did, or in the trace that it is.
_OF_SESSIONS: Final = _traces_with(
    "(own_session IN {sessions:Array(String)} OR trace_id IN {traces:Array(String)} OR trace_id IN"
    f" (SELECT trace_id FROM traces WHERE {IN_PROJECT} AND session_id IN {{sessions:Array(String)}}))"
)

SESSIONS_OF_TRACES: Final = f"""
SELECT trace_id, {_BEST} AS named
FROM ({_first_of_each(MEMBERSHIP, "{traces:Array(String)}")})
GROUP BY trace_id HAVING named != ''
"""
"""Of these traces, those in which somebody names a session, and the session."""

COUNT_OF_ENVIRONMENT: Final = f"SELECT count() FROM spans WHERE {IN_PROJECT} AND environment = {{environment:String}}"

RECORDS: Final = f"""
SELECT {_SELECTED}, body FROM spans
WHERE {IN_PROJECT} AND trace_id IN {{traces:Array(String)}} AND {_KEY} IN {{keys:Array(String)}}
ORDER BY ver DESC LIMIT 1 BY trace_id, span_id
"""
"""Whole records by trace and span."""

_BEHIND_START: Final = (
    f"(start_ns > {{after_start:Int64}} OR (start_ns = {{after_start:Int64}} AND {_KEY} > {{after_key:String}}))"
)
OF_TRACE: Final = f"""
SELECT {_KEY} FROM (
  SELECT trace_id, span_id, start_ns FROM spans WHERE {IN_PROJECT} AND trace_id = {{trace:String}}
  ORDER BY ver DESC LIMIT 1 BY trace_id, span_id)
WHERE {_BEHIND_START} ORDER BY start_ns, span_id LIMIT {{limit:UInt32}}
"""
"""A page of the records of a trace."""

_ARRIVED: Final = f"""
SELECT {TIME} AS at, {_KEY} AS key FROM spans
WHERE {IN_PROJECT} AND {_SINCE} AND {_UNTIL}
  AND (at < {{after_at:Int64}} OR (at = {{after_at:Int64}} AND key > {{after_key:String}}))
"""
_BY_ARRIVAL: Final = "\nORDER BY received_at DESC, trace_id, span_id LIMIT {limit:UInt32}"
FILTERS: Final = {
    "environment": " AND environment = {environment:String}",
    "signal_type": " AND signal_type = {signal_type:String}",
    "trace_id": " AND trace_id = {trace:String}",
    "session_id": f" AND trace_id IN {_OF_SESSIONS}",
}


def arrived(only: list[str]) -> str:
    """Rows, perhaps several of one record, that arrived in a window. only: names of `Filter` that are to be heeded.

    That of the session is heeded roughly: the traces in which it may be.
    """
    return _ARRIVED + "".join(FILTERS[name] for name in only) + _BY_ARRIVAL


def _active(*, has_environment: bool) -> str:
    """Sessions that something of arrived in a window, and when the last of them did.

    What arrived since then is enough: the last arrival of such a session is among it.
    """
    in_environment = f"""
  AND session_id IN (
    SELECT session_id FROM {members((*MEMBERSHIP, "environment"), _traces_with("environment = {environment:String}"))}
    WHERE environment = {{environment:String}})"""
    return f"""
SELECT session_id, max(at) AS last FROM {members(MEMBERSHIP, _traces_with(_SINCE))}
WHERE at >= {{since:Int64}}{in_environment if has_environment else ""}
GROUP BY session_id HAVING countIf(at < {{until:Int64}}) > 0"""


def active(*, has_environment: bool) -> str:
    """A page of the sessions that something of arrived in a window, with the time of their last arrival."""
    return f"""{_active(has_environment=has_environment)}
  AND (last < {{after_at:Int64}} OR (last = {{after_at:Int64}} AND session_id > {{after_id:String}}))
ORDER BY last DESC, session_id LIMIT {{limit:UInt32}}"""


def _summarised(traces: str, sessions: str) -> str:
    return f"""
SELECT {_NARROW}, aliases, session_id FROM (
  SELECT {_SELECTED}, aliases, session_id FROM {members((*(column.name for column in NARROW), "aliases"), traces)}
  WHERE session_id IN {sessions})
ORDER BY session_id, start_ns, trace_id, span_id LIMIT {{most:UInt32}} BY session_id"""


NARROW_OF_SESSIONS: Final = _summarised(_OF_SESSIONS, "{sessions:Array(String)}")
"""The narrow rows of these sessions, session by session, the first of each by start."""

_ALL_ACTIVE: Final = f"(SELECT session_id FROM ({_active(has_environment=False)}))"
NARROW_OF_ACTIVE: Final = _summarised(
    _traces_with(
        f"(own_session IN {_ALL_ACTIVE} OR toString(trace_id) IN {_ALL_ACTIVE} OR trace_id IN"
        f" (SELECT trace_id FROM traces WHERE {IN_PROJECT} AND session_id IN {_ALL_ACTIVE}))"
    ),
    _ALL_ACTIVE,
)
"""The same of every session that something of arrived in a window."""

_HEAD: Final = """count() AS turns, uniqExact(trace_id) AS traces, countIf(status = 1) AS failures,
  sumMap(map(toString(signal_type), 1)) AS signals, min(start_ns) AS started, max(greatest(start_ns, end_ns)) AS ended,
  max(at) AS last, groupUniqArrayArray(aliases) AS aliases, countIf(at >= {since:Int64} AND at < {until:Int64})"""
_COUNTED: Final = (*MEMBERSHIP, "end_ns", "status", "signal_type", "aliases")
HEADS: Final = f"""
SELECT session_id, {_HEAD} FROM {members(_COUNTED, _OF_SESSIONS)}
WHERE session_id IN {{sessions:Array(String)}} GROUP BY session_id
"""
"""What can be counted of sessions, however long they are; the last number is of what arrived in a window."""
HEAD_OF_TRACE: Final = f"""
SELECT {{trace:String}} AS session_id, {_HEAD} FROM {members(_COUNTED, "({trace:String})")} HAVING turns > 0
"""

IN_ENVIRONMENT: Final = f"""
SELECT DISTINCT session_id FROM {members((*MEMBERSHIP, "environment"), _OF_SESSIONS)}
WHERE session_id IN {{sessions:Array(String)}} AND environment = {{environment:String}}
"""
"""Of these sessions, those with a record of an environment."""

WITH_ALIAS: Final = f"""
SELECT DISTINCT session_id FROM {members((*MEMBERSHIP, "aliases"), _traces_with("has(aliases, {alias:String})"))}
WHERE has(aliases, {{alias:String}})
"""
LAST_ACTIVE: Final = f"""
SELECT session_id FROM {members(MEMBERSHIP, _OF_SESSIONS)} WHERE session_id IN {{sessions:Array(String)}}
GROUP BY session_id ORDER BY max(at) DESC, session_id LIMIT 1
"""

OF_SESSION: Final = f"""
SELECT {_KEY} FROM {members(MEMBERSHIP, _OF_SESSIONS)}
WHERE session_id IN {{sessions:Array(String)}} AND {_BEHIND_START}
ORDER BY start_ns, trace_id, span_id LIMIT {{limit:UInt32}}
"""
"""A page of the records of a session."""

NARROW_OF_TRACE: Final = f"""
SELECT {_NARROW}, aliases, session_id FROM (
  SELECT {_SELECTED}, aliases, {{trace:String}} AS session_id FROM spans
  WHERE {IN_PROJECT} AND trace_id = {{trace:String}} ORDER BY ver DESC LIMIT 1 BY trace_id, span_id)
ORDER BY start_ns, span_id LIMIT {{most:UInt32}}
"""
"""The same of a trace, as if it were a session."""

ARRIVALS: Final = f"""
SELECT count(), countIf(status = 1), uniqExact(trace_id), sumMapIf(map(toString(signal_type), 1), status = 1)
FROM (
  SELECT trace_id, status, signal_type, {TIME} AS at FROM spans
  WHERE {IN_PROJECT} AND {_KEY} IN (SELECT {_KEY} FROM spans WHERE {IN_PROJECT} AND {_SINCE} AND {_UNTIL})
  ORDER BY ver DESC LIMIT 1 BY trace_id, span_id)
WHERE at >= {{since:Int64}} AND at < {{until:Int64}}
"""
"""Numbers of the records that arrived in a window."""

PACE: Final = f"""
SELECT intDiv(at - {{since:Int64}}, {{step:Int64}}) AS part, count(), countIf(status = 1)
FROM (
  SELECT status, {TIME} AS at FROM spans
  WHERE {IN_PROJECT} AND {_KEY} IN (SELECT {_KEY} FROM spans WHERE {IN_PROJECT} AND {_SINCE} AND {_UNTIL})
  ORDER BY ver DESC LIMIT 1 BY trace_id, span_id)
WHERE at >= {{since:Int64}} AND at < {{until:Int64}}
GROUP BY part
"""
"""Numbers of the records that arrived in each part of a window."""

OLDEST: Final = f"SELECT {TIME} FROM spans WHERE {IN_PROJECT} ORDER BY received_at LIMIT 1"
NEWEST: Final = f"SELECT {TIME} FROM spans WHERE {IN_PROJECT} ORDER BY received_at DESC LIMIT 1"
COUNT_BEFORE: Final = f"SELECT count() FROM spans WHERE received_at < {instant('before')}"
DELETE_BEFORE: Final = f"DELETE FROM spans WHERE received_at < {instant('before')}"
_EARLIER: Final = f"SELECT trace_id FROM traces WHERE received_at < {instant('before')}"
FORGET_SOURCES: Final = f"""
DELETE FROM traces WHERE trace_id IN ({_EARLIER})
  AND (project_id, trace_id) NOT IN (SELECT project_id, trace_id FROM spans WHERE trace_id IN ({_EARLIER}))
"""
"""Of traces nothing of which is left."""

COUNT_OF_PROJECTS: Final = "SELECT count() FROM spans WHERE project_id IN {projects:Array(String)}"
# Rewrites files, where DELETE marks rows and leaves them to the next merge.
ERASE: Final = tuple(
    f"ALTER TABLE {table} DELETE WHERE project_id IN {{projects:Array(String)}}" for table in ("spans", "traces")
)
