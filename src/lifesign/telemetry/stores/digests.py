"""What an append stored, once more and by columns, for whoever counts: a thousand digests tell of a million records.

A row of SQLite costs a microsecond for each look at it, and diagnosis looks at all of a window in several ways. Here
are the same numbers as arrays, which Python counts in C, and those records once more that it looks at one by one, each
of which would be on a page of its own. A digest says nothing that the rows do not say, so that those
of which there is none can be read through it all the same: it is made of them on the spot.
"""

import sys
from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain, repeat
from operator import itemgetter
from typing import Any, Final

import msgspec
from msgspec import Struct
from sqlalchemy import Connection
from sqlalchemy import insert as sql_insert

from lifesign.diagnosis.facts import ABNORMAL_REASONS, FUTURE_NS, LARGE_INPUT, MANY_ATTEMPTS, NS_PER_MS
from lifesign.telemetry.records import BLOCKED, CLOCK_SKEW, EMPTY_RESULT, TRUNCATED, Narrow
from lifesign.telemetry.stores.codes import COLUMNS, FAILING, KINDS
from lifesign.telemetry.stores.tables import span_digests

VERSION: Final = 2 if sys.byteorder == "little" else -2
"""Of the layout and of what is told of records. Digests of another one are not read, but their rows."""

# Any, throughout: a row of `spans` in the order of COLUMNS, and behind it which session the record is in.
Row = Sequence[Any]

TRACE_BYTES: Final = 16
SPAN_BYTES: Final = 8
_HEX: Final = frozenset("0123456789abcdef")
_MASK: Final = 2**63 - 1
_MARK_BYTES: Final = 4
_LOW: Final = 2**32 - 1
_KIND_BITS: Final = 4
_KINDS: Final = (1 << _KIND_BITS) - 1
_BUCKET_BITS: Final = _KIND_BITS + 1
_AGENT, _LLM, _EMBEDDING, _TOOL = (KINDS.index(word) for word in ("agent", "llm", "embedding", "tool"))
METERED: Final = frozenset({_LLM, _EMBEDDING})
_TELLING: Final = frozenset({_LLM, _AGENT})
_PROJECT, _TRACE, _PARENT, _RECEIVED_AT, _START, _STATUS, _ENVIRONMENT, _OP_HASH = map(
    COLUMNS.index,
    ("project", "trace_id", "parent_id", "received_at", "start_ns", "status", "environment", "op_hash"),
)
_SPAN: Final = COLUMNS.index("span_id")
_narrow_of = itemgetter(*map(COLUMNS.index, Narrow.__struct_fields__))
_order_of = itemgetter(_TRACE, _START, _SPAN)
# While everything fails, a digest would hold all of its records once more.
_STEPS_AT_LEAST: Final = 100
_STEPS_OF: Final = 4


class Digest(Struct, frozen=True, gc=False, array_like=True):
    """Some records of one arrival and environment.

    op_hashes, op_names, op_records: each operation key, the number of its operation, and how many records it has.
    marks, versions, agents, models, tools: of every record, those of the first operation key first. costs: of each
    model of llm records its number, how many there are, of how many the cost is known, and their sum.
    no_session_id: records whose session is called like their trace.
    session_*: of each session, as it was then (`span_moves` tells what changed since), how many records it has, how
    many of llm and embedding with tokens, and the sum of these. metered: of these how many each agent has in each
    session.
    traces: each once; what is `places` below are places among them. llms: how many llm records each has. large,
    failing: those with a large call, and with a failing tool. agents_in, calls, empties: of agent and tool records,
    hashes of what must repeat to be of interest, and places. parents: trace and span of those that are not among the
    records.
    rows: the records that are looked at by themselves (`facts.is_row`). recoveries: those that do not fail and share
    trace, parent and operation key with one that does. steps: all of traces in which a tool fails, trace by trace and
    by start, as many of these traces as fit.
    """

    records: int
    op_hashes: bytes
    op_names: bytes
    op_records: bytes
    marks: bytes
    versions: bytes
    agents: bytes
    models: bytes
    tools: bytes
    costs: list[tuple[int, int, int, int, int]]
    clock_skew: int
    future_spans: int
    truncated_records: int
    unknown_convention: int
    no_session_id: int
    session_numbers: bytes
    session_records: bytes
    session_metered: bytes
    session_tokens: tuple[bytes, bytes]
    metered: bytes
    traces: bytes
    llms: bytes
    large: bytes
    failing: bytes
    agents_in: tuple[bytes, bytes]
    calls: tuple[bytes, bytes]
    empties: tuple[bytes, bytes]
    parents: bytes
    rows: bytes
    recoveries: bytes
    steps: bytes


encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Digest).decode
_decode_rows = msgspec.msgpack.Decoder(list[list[Any]]).decode
_decode_metered = msgspec.msgpack.Decoder(list[tuple[int, int, int]]).decode


def mark_of(mark: int) -> tuple[int, bool, int]:
    """Kind, whether it fails, and bucket, of a mark."""
    return mark & _KINDS, bool(mark >> _KIND_BITS & 1), mark >> _BUCKET_BITS


def values(packed: bytes, count: int) -> Iterable[int]:
    """The numbers that were packed, so many; None as 0."""
    if not count:
        return ()
    found = array(chr(packed[0]))
    found.frombytes(packed[1:])
    return repeat(found[0], count) if len(found) == 1 else found


def marks_by_operation(digest: Digest) -> Iterator[tuple[int, int, bytes]]:
    """Of each operation key its hash, the number of its operation, and the marks of its records, for `marks_in`."""
    hashes = numbers(digest.op_hashes)
    count = len(hashes)
    start = 0
    names, records = values(digest.op_names, count), values(digest.op_records, count)
    for op_hash, name, many in zip(hashes, names, records):  # noqa: B905 - what is equal for all is told without end
        end = start + many * _MARK_BYTES
        yield op_hash, name, digest.marks[start:end]
        start = end


def marks_in(told: bytes | bytearray) -> Sequence[int]:
    """The marks of some records."""
    found = array("I")
    found.frombytes(told)
    return found


def operations_of(digest: Digest) -> Iterable[int]:
    """The hash of the operation key of every record."""
    hashes = numbers(digest.op_hashes)
    return chain.from_iterable(map(repeat, hashes, values(digest.op_records, len(hashes))))


def traces_in(digest: Digest) -> list[bytes]:
    """Every trace, at its place."""
    return _cut(digest.traces, TRACE_BYTES)


def at_places(digest: Digest, packed: bytes) -> Iterator[bytes]:
    """The traces at some places."""
    whole = digest.traces
    return (whole[place * TRACE_BYTES : (place + 1) * TRACE_BYTES] for place in numbers(packed))


def parents_in(digest: Digest) -> Iterator[tuple[bytes, bytes]]:
    """Trace and span of each parent that was not there."""
    return ((each[:TRACE_BYTES], each[TRACE_BYTES:]) for each in _cut(digest.parents, TRACE_BYTES + SPAN_BYTES))


def metered_in(digest: Digest) -> list[tuple[int, int, int]]:
    """Session, agent, and how many records of llm and embedding with tokens."""
    return _decode_metered(digest.metered)


def rows_in(packed: bytes) -> list[list[Any]]:
    """Records, each as the members of `Narrow` in the words of `spans`."""
    return _decode_rows(packed) if packed else []


def _cut(whole: bytes, length: int) -> list[bytes]:
    return [whole[start : start + length] for start in range(0, len(whole), length)]


def numbers(packed: bytes) -> Sequence[int]:
    """Numbers that were packed and are all different."""
    if not packed:
        return ()
    found = array(chr(packed[0]))
    found.frombytes(packed[1:])
    return found


def hashes_in(pair: tuple[bytes, bytes]) -> Sequence[int]:
    """The hashes of `agents_in`, `calls` or `empties`."""
    found = array("q")
    found.frombytes(pair[0])
    return found


def places_of(pair: tuple[bytes, bytes]) -> Iterable[int]:
    """The place of each of these hashes."""
    return values(pair[1], len(pair[0]) // 8)


def abnormal(numbers: Iterable[tuple[str, int]]) -> set[int]:
    """Of texts with their numbers, those that are finish reasons to look at."""
    return {number for text, number in numbers if text.lower() in ABNORMAL_REASONS}


def like_traces(named: Iterable[tuple[int, str]]) -> dict[int, bytes]:
    """Of numbers of sessions with their ids, those that are called like a trace, and that trace."""
    return {
        number: bytes.fromhex(session_id)
        for number, session_id in named
        if len(session_id) == 2 * TRACE_BYTES and _HEX.issuperset(session_id)
    }


def insert(
    conn: Connection, rows: Sequence[Row], abnormal_reasons: Collection[int], like_traces: Mapping[int, bytes]
) -> None:
    """Store the digests of rows that are being stored; these are no longer found to be missing.

    like_traces: see `digest_of`.
    """
    known = identities(rows)
    by_scope: dict[tuple[int, int, int | None], list[Row]] = {}
    for row in rows:
        by_scope.setdefault((row[_PROJECT], row[_RECEIVED_AT], row[_ENVIRONMENT]), []).append(row)
    conn.execute(
        sql_insert(span_digests),
        [
            {
                "id": some[0][0],
                "project": project,
                "received_at": received_at,
                "environment": environment,
                "version": VERSION,
                "records": len(some),
                "columns": encode(digest_of(some, abnormal_reasons, known, like_traces)),
            }
            for (project, received_at, environment), some in by_scope.items()
        ],
    )


def digest_of(
    rows: Sequence[Row],
    abnormal_reasons: Collection[int],
    known: Collection[tuple[bytes, bytes]],
    like_traces: Mapping[int, bytes],
) -> Digest:
    """The digest of rows of one environment.

    known: traces and spans that are stored, as parents may be. like_traces: of sessions that are called like a trace,
    that trace.
    """
    rows = sorted(rows, key=itemgetter(_OP_HASH))
    columns = _Columns(rows)
    traces = _Traces(columns)
    sessions = _Sessions(columns)
    failing = [status == FAILING for status in columns.status]
    marks = [
        bucket << _BUCKET_BITS | fails << _KIND_BITS | kind
        for bucket, fails, kind in zip(columns.bucket, failing, columns.kind, strict=True)
    ]
    names = dict(zip(columns.op_hash, columns.operation, strict=True))
    each = Counter(columns.op_hash)
    flagged = Counter(columns.flags)
    told = zip(columns.trace_id, columns.parent_id, strict=True)
    parents = [place for place in told if place[1] is not None and place not in known]
    failing_tools = {
        place for place, kind, fails in zip(traces.of, columns.kind, failing, strict=True) if fails and kind == _TOOL
    }
    return Digest(
        len(rows),
        _packed(list(names)),
        _packed(list(names.values())),
        _packed([each[op_hash] for op_hash in names]),
        array("I", marks).tobytes(),
        _packed_texts(columns.version),
        _packed_texts(columns.agent),
        _packed_texts(columns.model),
        _packed_texts(columns.tool),
        _costs(columns),
        sum(count for flags, count in flagged.items() if flags & CLOCK_SKEW),
        _of_the_future(columns),
        sum(count for flags, count in flagged.items() if flags & TRUNCATED),
        _bare(columns),
        _like_traces(columns, like_traces),
        *sessions.packed(),
        b"".join(traces.places),
        _packed(traces.llms),
        _packed_places(traces.large),
        _packed_places(failing_tools),
        _agents(columns, traces),
        _calls(columns, traces),
        _empties(columns, traces),
        b"".join(trace_id + parent_id for trace_id, parent_id in parents),
        _packed_rows(_looked_at(rows, columns, failing, abnormal_reasons)),
        _packed_rows(_recoveries(rows) if True in failing else ()),
        _packed_rows(_steps(rows, traces, failing_tools) if failing_tools else ()),
    )


def identities(rows: Iterable[Row]) -> set[tuple[bytes, bytes]]:
    """Trace and span of each."""
    return {(row[2], row[3]) for row in rows}


# Making one, column by column: for each record there is a microsecond or two. ----------------------------------------
class _Columns:
    """The columns of rows, each a tuple."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._columns = dict(zip((*COLUMNS, "session"), zip(*rows, strict=True), strict=True))

    def __getattr__(self, name: str) -> tuple[Any, ...]:
        return self._columns[name]


class _Traces:
    """Every trace, at its place. of: the place of each record. llms: how many of them each has."""

    def __init__(self, columns: _Columns) -> None:
        self.places = {trace_id: place for place, trace_id in enumerate(dict.fromkeys(columns.trace_id))}
        self.of = list(map(self.places.__getitem__, columns.trace_id))
        self.llms = [0] * len(self.places)
        self.large: set[int] = set()
        for place, kind, input_tokens in zip(self.of, columns.kind, columns.input_tokens, strict=True):
            if kind == _LLM:
                self.llms[place] += 1
                if (input_tokens or 0) >= LARGE_INPUT:
                    self.large.add(place)


class _Sessions:
    """What is summed up of each session, and of each of its agents."""

    def __init__(self, columns: _Columns) -> None:
        self._records = Counter(columns.session)
        self._metered: Counter[tuple[int, int]] = Counter()
        self._tokens: dict[int, int] = dict.fromkeys(self._records, 0)
        told = zip(columns.session, columns.agent, columns.kind, columns.total_tokens, strict=True)
        for session, agent, kind, total_tokens in told:
            if total_tokens is not None and kind in METERED:
                self._metered[session, agent or 0] += 1
                self._tokens[session] += total_tokens

    def packed(self) -> tuple[bytes, bytes, bytes, tuple[bytes, bytes], bytes]:
        """From `session_numbers` to `metered`."""
        places = {session: place for place, session in enumerate(self._records)}
        metered = [0] * len(places)
        for (session, _), count in self._metered.items():
            metered[places[session]] += count
        tokens = list(self._tokens.values())
        return (
            _packed(list(places)),
            _packed(list(self._records.values())),
            _packed(metered),
            (_packed([each >> 32 for each in tokens]), _packed([each & _LOW for each in tokens])),
            encode([(session, agent, count) for (session, agent), count in self._metered.items()]),
        )


def _like_traces(columns: _Columns, like_traces: Mapping[int, bytes]) -> int:
    if not like_traces:
        return 0
    told = zip(columns.session, columns.trace_id, strict=True)
    return len([session for session, trace_id in told if like_traces.get(session) == trace_id])


def _looked_at(
    rows: Sequence[Row], columns: _Columns, failing: Sequence[bool], abnormal_reasons: Collection[int]
) -> list[Row]:
    told = zip(rows, columns.signal_type, failing, columns.flags, columns.attempt, strict=True)
    found = {
        row[0]: row
        for row, signal_type, fails, flags, attempt in told
        if signal_type or fails or flags & BLOCKED or (attempt or 0) >= MANY_ATTEMPTS
    }
    if abnormal_reasons:
        ended = zip(rows, columns.kind, columns.finish_reason, strict=True)
        found |= {row[0]: row for row, kind, reason in ended if reason in abnormal_reasons and kind == _LLM}
    return list(found.values())


def _recoveries(rows: Sequence[Row]) -> list[Row]:
    group_of = itemgetter(_TRACE, _PARENT, _OP_HASH)
    failed = {group_of(row) for row in rows if row[_STATUS] == FAILING}
    return [row for row in rows if row[_STATUS] != FAILING and group_of(row) in failed]


def _steps(rows: Sequence[Row], traces: _Traces, wanted: Collection[int]) -> list[Row]:
    counts = Counter(traces.of)
    room = max(_STEPS_AT_LEAST, len(rows) // _STEPS_OF)
    chosen = set()
    for place in sorted(wanted):
        if counts[place] <= room:
            chosen.add(place)
            room -= counts[place]
    return sorted((row for row, place in zip(rows, traces.of, strict=True) if place in chosen), key=_order_of)


def _costs(columns: _Columns) -> list[tuple[int, int, int, int, int]]:
    sums: dict[int, list[int]] = {}
    for kind, model, cost_nano in zip(columns.kind, columns.model, columns.cost_nano, strict=True):
        if kind == _LLM:
            of_model = sums.setdefault(model or 0, [0, 0, 0])
            of_model[0] += 1
            if cost_nano is not None:
                of_model[1] += 1
                of_model[2] += cost_nano
    return [(model, count, known, cost >> 32, cost & _LOW) for model, (count, known, cost) in sums.items()]


def _of_the_future(columns: _Columns) -> int:
    # All have arrived at once.
    limit = columns.received_at[0] * NS_PER_MS + FUTURE_NS
    return len([start_ns for start_ns in columns.start_ns if start_ns > limit]) if max(columns.start_ns) > limit else 0


def _bare(columns: _Columns) -> int:
    """How many records of agents and models tell neither model nor tokens."""
    told = zip(
        columns.kind, columns.model, columns.total_tokens, columns.input_tokens, columns.output_tokens, strict=True
    )
    found = [
        kind
        for kind, model, total, given, made in told
        if model is None and total is None and kind in _TELLING and given is None and made is None
    ]
    return len(found)


def _agents(columns: _Columns, traces: _Traces) -> tuple[bytes, bytes]:
    told = zip(traces.of, columns.trace_id, columns.kind, strict=True)
    return _pair([(_spot(trace_id, None), place) for place, trace_id, kind in told if kind == _AGENT])


def _calls(columns: _Columns, traces: _Traces) -> tuple[bytes, bytes]:
    told = zip(traces.of, columns.trace_id, columns.kind, columns.tool, columns.args_hash, strict=True)
    return _pair(
        [
            (_spot(trace_id, tool) ^ args_hash & _MASK, place)
            for place, trace_id, kind, tool, args_hash in told
            if args_hash is not None and kind == _TOOL
        ]
    )


def _empties(columns: _Columns, traces: _Traces) -> tuple[bytes, bytes]:
    told = zip(traces.of, columns.trace_id, columns.kind, columns.tool, columns.flags, strict=True)
    return _pair(
        [
            (_spot(trace_id, tool), place)
            for place, trace_id, kind, tool, flags in told
            if flags & EMPTY_RESULT and kind == _TOOL
        ]
    )


def _pair(found: Sequence[tuple[int, int]]) -> tuple[bytes, bytes]:
    return array("q", [spot for spot, _ in found]).tobytes(), _packed([place for _, place in found])


def _spot(trace_id: bytes, tool: int | None) -> int:
    """A number for a tool in a trace. Others may have it too: what repeats is looked at."""
    trace = int.from_bytes(trace_id)
    return (trace ^ trace >> 64 ^ (tool or 0) * 0x9E3779B97F4A7C15) & _MASK


def _packed_texts(column: Sequence[int | None]) -> bytes:
    return _packed([number or 0 for number in column])


def _packed(whole: Sequence[int]) -> bytes:
    """Numbers, as few bytes each as will do; those that are all equal once."""
    if not whole:
        return b""
    least, most = min(whole), max(whole)
    bits = most.bit_length() if least >= 0 else 64
    code = "B" if bits <= 8 else "H" if bits <= 16 else "I" if bits <= 32 else "q"  # noqa: PLR2004 - of a byte
    return code.encode() + array(code, whole[:1] if least == most else whole).tobytes()


def _packed_places(places: Iterable[int]) -> bytes:
    """Places that are all different, for `numbers`: each is told, though there be one only."""
    return _packed(sorted(places))


def _packed_rows(rows: Sequence[Row]) -> bytes:
    return encode([_narrow_of(row) for row in rows]) if rows else b""
