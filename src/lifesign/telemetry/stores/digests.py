"""What an append stored, once more and by columns, for whoever counts: a thousand digests tell of a million records.

A row of SQLite costs a microsecond for each look at it, and diagnosis looks at all of a window in several ways. Here
are the same numbers as arrays, which Python counts in C. A digest says nothing that the rows do not say, so that those
of which there is none can be read through it all the same: it is made of them on the spot.
"""

import sys
from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import chain, repeat
from operator import itemgetter
from typing import Any, Final

import msgspec
from msgspec import Struct
from sqlalchemy import Connection
from sqlalchemy import insert as sql_insert

from lifesign.diagnosis.facts import ABNORMAL_REASONS, FUTURE_NS, LARGE_INPUT, MANY_ATTEMPTS, NS_PER_MS
from lifesign.telemetry.records import BLOCKED, CLOCK_SKEW, EMPTY_RESULT, TRUNCATED
from lifesign.telemetry.stores.codes import COLUMNS, FAILING, KINDS
from lifesign.telemetry.stores.tables import span_digests

VERSION: Final = 1 if sys.byteorder == "little" else -1
"""Of the layout and of what is told of records. Digests of another one are not read, but their rows."""

# Any, throughout: a row of `spans` in the order of COLUMNS.
Row = Sequence[Any]

TRACE_BYTES: Final = 16
SPAN_BYTES: Final = 8
HAS_LARGE_CALL, HAS_FAILING_TOOL, HAS_TOKENS = 1, 2, 4
_MASK: Final = 2**63 - 1
_MARK_BYTES: Final = 4
_LOW: Final = 2**32 - 1
_KIND_BITS: Final = 4
_KINDS: Final = (1 << _KIND_BITS) - 1
_BUCKET_BITS: Final = _KIND_BITS + 1
_AGENT, _LLM, _EMBEDDING, _TOOL = (KINDS.index(word) for word in ("agent", "llm", "embedding", "tool"))
_METERED: Final = frozenset({_LLM, _EMBEDDING})
_TELLING: Final = frozenset({_LLM, _AGENT})
_PROJECT, _RECEIVED_AT, _ENVIRONMENT, _OP_HASH = map(
    COLUMNS.index, ("project", "received_at", "environment", "op_hash")
)


class Digest(Struct, frozen=True, gc=False, array_like=True):
    """Some records of one arrival and environment.

    ids: of the records that are looked at by themselves (`facts.is_row`). op_hashes, op_names, op_records: each
    operation key, the number of its operation, and how many records it has. marks, versions, agents, models, tools: of
    every record, those of the first operation key first. costs: of each model of llm records its number, how many
    there are, of how many the cost is known, and their sum.
    part_*: of the records that share trace, own session and agent, how many, how many of agents and llm, what they
    have (HAS_*), and the tokens of llm and embedding records. calls, empties: of tool records, hashes of what must
    repeat to be of interest, and the parts that they are in. parents: of records whose parent is not among them.
    """

    records: int
    ids: bytes
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
    part_traces: bytes
    part_sessions: bytes
    part_agents: bytes
    part_records: bytes
    part_agent_records: bytes
    part_llm_records: bytes
    part_marks: bytes
    part_tokens: tuple[bytes, bytes]
    calls: tuple[bytes, bytes]
    empties: tuple[bytes, bytes]
    parents: tuple[bytes, bytes]


encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Digest).decode


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
    """The trace of each part."""
    whole = digest.part_traces
    return [whole[start : start + TRACE_BYTES] for start in range(0, len(whole), TRACE_BYTES)]


def parents_in(digest: Digest) -> Iterator[tuple[bytes, bytes]]:
    """Trace and span of each parent that was not there."""
    parts, spans = digest.parents
    traces = traces_in(digest)
    for place, part in enumerate(values(parts, len(spans) // SPAN_BYTES)):
        yield traces[part], spans[place * SPAN_BYTES : (place + 1) * SPAN_BYTES]


def numbers(packed: bytes) -> Sequence[int]:
    """Numbers that were packed and are all different."""
    if not packed:
        return ()
    found = array(chr(packed[0]))
    found.frombytes(packed[1:])
    return found


def hashes_in(pair: tuple[bytes, bytes]) -> Sequence[int]:
    """The hashes of `calls` or `empties`."""
    found = array("q")
    found.frombytes(pair[0])
    return found


def parts_of(pair: tuple[bytes, bytes]) -> Iterable[int]:
    """The part of each of these hashes."""
    return values(pair[1], len(pair[0]) // 8)


def abnormal(numbers: Iterable[tuple[str, int]]) -> set[int]:
    """Of texts with their numbers, those that are finish reasons to look at."""
    return {number for text, number in numbers if text.lower() in ABNORMAL_REASONS}


def insert(conn: Connection, rows: Sequence[Row], abnormal_reasons: Collection[int]) -> None:
    """Store the digests of rows that are being stored; these are no longer found to be missing."""
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
                "columns": encode(digest_of(some, abnormal_reasons, known)),
            }
            for (project, received_at, environment), some in by_scope.items()
        ],
    )


def digest_of(rows: Sequence[Row], abnormal_reasons: Collection[int], known: Collection[tuple[bytes, bytes]]) -> Digest:
    """The digest of rows of one environment. known: traces and spans that are stored, as parents may be."""
    columns = _Columns(sorted(rows, key=itemgetter(_OP_HASH)))
    parts = _Parts(columns)
    failing = [status == FAILING for status in columns.status]
    marks = [
        bucket << _BUCKET_BITS | fails << _KIND_BITS | kind
        for bucket, fails, kind in zip(columns.bucket, failing, columns.kind, strict=True)
    ]
    names = dict(zip(columns.op_hash, columns.operation, strict=True))
    each = Counter(columns.op_hash)
    flagged = Counter(columns.flags)
    parents = [
        (part, parent_id)
        for part, trace_id, parent_id in zip(parts.of, columns.trace_id, columns.parent_id, strict=True)
        if parent_id is not None and (trace_id, parent_id) not in known
    ]
    for part, kind, fails in zip(parts.of, columns.kind, failing, strict=True):
        if fails and kind == _TOOL:
            parts.marks[part] |= HAS_FAILING_TOOL
    return Digest(
        len(rows),
        _packed(_ids(columns, failing, abnormal_reasons)),
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
        b"".join(trace_id for trace_id, _, _ in parts.places),
        _packed([session for _, session, _ in parts.places]),
        _packed([agent for _, _, agent in parts.places]),
        _packed(parts.records),
        _packed(parts.agents),
        _packed(parts.llms),
        _packed(parts.marks),
        (_packed([tokens >> 32 for tokens in parts.tokens]), _packed([tokens & _LOW for tokens in parts.tokens])),
        _calls(columns, parts),
        _empties(columns, parts),
        (_packed([part for part, _ in parents]), b"".join(parent_id for _, parent_id in parents)),
    )


def identities(rows: Iterable[Row]) -> set[tuple[bytes, bytes]]:
    """Trace and span of each."""
    return {(row[2], row[3]) for row in rows}


# Making one, column by column: for each record there is a microsecond or two. ----------------------------------------
class _Columns:
    """The columns of rows, each a tuple."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._columns = dict(zip(COLUMNS, zip(*rows, strict=True), strict=True))

    def __getattr__(self, name: str) -> tuple[Any, ...]:
        return self._columns[name]


class _Parts:
    """What records with one trace, own session and agent have together. of: the part of each record."""

    def __init__(self, columns: _Columns) -> None:
        self.places: dict[tuple[bytes, int, int], int] = {}
        self.of: list[int] = []
        place_of = self.places.setdefault
        for trace_id, session, agent in zip(columns.trace_id, columns.own_session, columns.agent, strict=True):
            self.of.append(place_of((trace_id, session or 0, agent or 0), len(self.places)))
        counted = Counter(self.of)
        many = len(self.places)
        self.records = [counted[place] for place in range(many)]
        self.agents, self.llms, self.marks, self.tokens = ([0] * many for _ in range(4))
        told = zip(self.of, columns.kind, columns.total_tokens, columns.input_tokens, strict=True)
        for place, kind, total_tokens, input_tokens in told:
            if kind == _AGENT:
                self.agents[place] += 1
            elif kind in _METERED:
                if total_tokens is not None:
                    self.marks[place] |= HAS_TOKENS
                    self.tokens[place] += total_tokens
                if kind == _LLM:
                    self.llms[place] += 1
                    if (input_tokens or 0) >= LARGE_INPUT:
                        self.marks[place] |= HAS_LARGE_CALL


def _ids(columns: _Columns, failing: Sequence[bool], abnormal_reasons: Collection[int]) -> list[int]:
    told = zip(columns.id, columns.signal_type, failing, columns.flags, columns.attempt, strict=True)
    found = {
        number
        for number, signal_type, fails, flags, attempt in told
        if signal_type or fails or flags & BLOCKED or (attempt or 0) >= MANY_ATTEMPTS
    }
    if abnormal_reasons:
        ended = zip(columns.id, columns.kind, columns.finish_reason, strict=True)
        found.update(number for number, kind, reason in ended if reason in abnormal_reasons and kind == _LLM)
    return sorted(found)


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


def _calls(columns: _Columns, parts: _Parts) -> tuple[bytes, bytes]:
    told = zip(parts.of, columns.trace_id, columns.kind, columns.tool, columns.args_hash, strict=True)
    found = [
        (_spot(trace_id, tool) ^ args_hash & _MASK, part)
        for part, trace_id, kind, tool, args_hash in told
        if args_hash is not None and kind == _TOOL
    ]
    return array("q", [spot for spot, _ in found]).tobytes(), _packed([part for _, part in found])


def _empties(columns: _Columns, parts: _Parts) -> tuple[bytes, bytes]:
    told = zip(parts.of, columns.trace_id, columns.kind, columns.tool, columns.flags, strict=True)
    found = [
        (_spot(trace_id, tool), part)
        for part, trace_id, kind, tool, flags in told
        if flags & EMPTY_RESULT and kind == _TOOL
    ]
    return array("q", [spot for spot, _ in found]).tobytes(), _packed([part for _, part in found])


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
