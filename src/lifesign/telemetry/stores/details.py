"""Details of the findings that fired, of the current window. Spec "Diagnosis", section 3."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from itertools import repeat
from typing import Any, Final

from sqlalchemy import and_, func, or_, select

from lifesign.diagnosis.details import Details, Selected, Values, Wanted
from lifesign.diagnosis.findings import Selector
from lifesign.diagnosis.preparation import READ_CHARACTERS, Key, Placed
from lifesign.telemetry.stores import digests, reads
from lifesign.telemetry.stores.arrivals import NARROW, Arrivals, S, parts_of, placed_of
from lifesign.telemetry.stores.codes import FAILING, KINDS, message_in
from lifesign.telemetry.stores.dictionary import string_number
from lifesign.telemetry.stores.gathered import LOOKED_AT, Gathered, Tally
from lifesign.telemetry.stores.members import members_of
from lifesign.telemetry.stores.tables import sessions, span_bodies, traces

_LLM: Final = KINDS.index("llm")
_PART: Final = 5000
_MANY_NAMED: Final = 200
_ITS_TRACE: Final = and_(traces.c.project == S.project, traces.c.trace_id == S.trace_id)


def fetched(arrivals: Arrivals, wanted: Wanted) -> Details:
    """The details of what is wanted."""
    return Details(
        _selected(arrivals, wanted.selectors), _values(arrivals, wanted.op_hashes), _messages(arrivals, wanted.messages)
    )


def _messages(arrivals: Arrivals, keys: Collection[Key]) -> dict[Key, str]:
    scene = arrivals.scene
    places = [(bytes.fromhex(trace_id), bytes.fromhex(span_id)) for trace_id, span_id in sorted(keys)]
    found: dict[Key, str] = {}
    # Thousands of failures say the same.
    texts: dict[str, str] = {}
    for some in parts_of(places):
        scene.stop.look()
        places_of = reads.stored(scene.conn, scene.project, some).subquery("stored")
        query = select(places_of.c.trace_id, places_of.c.span_id, span_bodies.c.body).select_from(places_of)
        for trace_id, span_id, body in scene.rows(query.outerjoin(span_bodies, span_bodies.c.id == places_of.c.id)):
            message = None if body is None else message_in(body)
            if message is not None:
                message = message[:READ_CHARACTERS]
                found[trace_id.hex(), span_id.hex()] = texts.setdefault(message, message)
    return found


# Values --------------------------------------------------------------------------------------------------------------
def _values(arrivals: Arrivals, op_hashes: Collection[int | None]) -> dict[int | None, Values]:
    """How many records of each of these operation keys, or of all, have each value."""
    counted: Counter[tuple[int, ...]] = Counter()
    for environment, digest in arrivals.digests() if op_hashes else ():
        count = digest.records
        version, *rest = (
            digests.values(each, count) for each in (digest.versions, digest.agents, digest.models, digest.tools)
        )
        told = zip(digests.operations_of(digest), version, repeat(environment or 0), *rest)
        counted.update(told)
    tallies = {op_hash: Tally() for op_hash in op_hashes}
    for (op_hash, *numbers), count in counted.items():
        for each in (None, op_hash):
            if each in tallies:
                tallies[each].add(numbers, count)
    texts = _texts(arrivals, tallies.values())
    return {op_hash: tally.values(texts.get) for op_hash, tally in tallies.items()}


def _texts(arrivals: Arrivals, tallies: Iterable[Tally]) -> dict[Any, str | None]:
    return dict(arrivals.scene.texts({int(number) for tally in tallies for number in tally.seen() if number}))


# Selected records ----------------------------------------------------------------------------------------------------
_LOOKED_AT: Final = (
    S.id,
    *(S[name] for name in LOOKED_AT),
    func.coalesce(S.own_session, traces.c.session).label("session"),
)


def _selected(arrivals: Arrivals, selectors: Sequence[Selector]) -> dict[Selector, Selected]:
    gathered: dict[Selector, Gathered] = defaultdict(Gathered)
    _gather_slow(arrivals, [each for each in selectors if each.op_hash is not None], gathered)
    others = [each for each in selectors if each.op_hash is None]
    _gather_of_models(arrivals, [each for each in others if each.sessions is None], gathered)
    _gather_of_sessions(arrivals, [each for each in others if each.sessions is not None], gathered)
    top = _placed(arrivals, [number for each in gathered.values() for number in each.top()])
    texts = _texts(arrivals, (each.tally for each in gathered.values()))
    return {
        selector: each.told((top[number] for number in each.top()), texts.get) for selector, each in gathered.items()
    }


def _placed(arrivals: Arrivals, ids: Sequence[int]) -> dict[int, Placed]:
    found: dict[int, Placed] = {}
    for some in parts_of(sorted(set(ids))):
        rows = arrivals.scene.rows(select(S.id, *NARROW).where(arrivals.scene.is_one_of(S.id, some)))
        found |= dict(zip((row[0] for row in rows), placed_of(arrivals.scene, [row[1:] for row in rows]), strict=True))
    return found


def _gather_slow(arrivals: Arrivals, selectors: Sequence[Selector], gathered: dict[Selector, Gathered]) -> None:
    """Those of operation keys that do not fail. Index: ix_spans_arrival."""
    if not selectors:
        return
    by_operation: dict[int, list[Selector]] = defaultdict(list)
    for each in selectors:
        by_operation[each.op_hash or 0].append(each)
    least = min(-1 if each.above_bucket is None else each.above_bucket for each in selectors)
    slow = and_(arrivals.are_read(), S.status != FAILING, S.bucket > least)
    if len(by_operation) <= _MANY_NAMED:
        slow = and_(slow, S.op_hash.in_(sorted(by_operation)))
    query = select(*_LOOKED_AT).join(traces, _ITS_TRACE).where(slow)
    for rows in arrivals.scene.streamed(query, _PART):
        for row in rows:
            for each in by_operation.get(row.op_hash, ()):
                if each.above_bucket is None or row.bucket > each.above_bucket:
                    gathered[each].add(row, each.rank)


def _gather_of_models(arrivals: Arrivals, selectors: Sequence[Selector], gathered: dict[Selector, Gathered]) -> None:
    """Those of models. Index: ix_spans_arrival."""
    scene = arrivals.scene
    by_model: dict[int | None, list[Selector]] = defaultdict(list)
    for each in selectors:
        # A model without a name and one whose name is empty are one.
        numbers = {string_number(scene.conn, scene.project, each.model or "")} - {None}
        for number in numbers if each.model else numbers | {None}:
            by_model[number].append(each)
    if not by_model:
        return
    of_models = or_(S.model.in_([number for number in by_model if number is not None]), S.model.is_(None))
    query = select(*_LOOKED_AT).join(traces, _ITS_TRACE).where(arrivals.are_read(), S.kind == _LLM, of_models)
    for rows in scene.streamed(query, _PART):
        for row in rows:
            for each in by_model.get(row.model, ()):
                gathered[each].add(row, each.rank)


def _gather_of_sessions(arrivals: Arrivals, selectors: Sequence[Selector], gathered: dict[Selector, Gathered]) -> None:
    """Those of sessions, of models only. Indexes: uq_sessions_session_id, and those of `members_of`."""
    scene = arrivals.scene
    by_session: dict[str, list[Selector]] = defaultdict(list)
    for each in selectors:
        for session_id in set(each.sessions or ()):
            by_session[session_id].append(each)
    c = sessions.c
    for some in parts_of(sorted(by_session)):
        named = scene.rows(select(c.id, c.session_id).where(c.project == scene.project, c.session_id.in_(some)))
        ids = {row[0]: row[1] for row in named}
        members = members_of(sorted(ids), *S).subquery("members")
        m = members.c
        query = select(members).where(arrivals.are_read(m, found_otherwise=True), m.kind == _LLM)
        for rows in scene.streamed(query, _PART):
            for row in rows:
                for each in by_session[ids[row.session]]:
                    gathered[each].add(row, each.rank)
