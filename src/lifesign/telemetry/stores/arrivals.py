"""Which records of a window diagnosis reads, in SQL: by their digests where it can, by their rows where it must."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import repeat
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, and_, func, or_, select, tuple_
from sqlalchemy.sql.base import ReadOnlyColumnCollection

from lifesign.clock import EpochMs
from lifesign.db.stop import Stop
from lifesign.diagnosis.facts import Windows
from lifesign.diagnosis.preparation import Placed
from lifesign.telemetry.records import Narrow
from lifesign.telemetry.stores import dictionary, digests
from lifesign.telemetry.stores.codes import KINDS, SIGNALS, STATUSES, TEXTS
from lifesign.telemetry.stores.dictionary import Dictionary
from lifesign.telemetry.stores.digests import VERSION, Digest
from lifesign.telemetry.stores.listed import Keys, is_one_of
from lifesign.telemetry.stores.tables import sessions, span_digests, span_moves, spans, traces

S = spans.c
D = span_digests.c
AT_ONCE: Final = 1000
_KEYS_AT_ONCE: Final = 5000
_MOST_REMEMBERED: Final = 50_000
_ROWS_AT_ONCE: Final = 2000
_DIGESTS_AT_ONCE: Final = 50
_BESIDE_MS: Final = 20_000
"""How much later than what it moves an append may be found to have arrived: as long as one waits, and clocks differ."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A project as it is read: on one snapshot, for as long as somebody waits."""

    conn: Connection
    known: Dictionary
    project: int
    stop: Stop
    _session_ids: dict[int, str] = field(default_factory=dict)

    def rows(self, statement: Any) -> Sequence[Any]:  # Any: a statement, and rows of it
        """What a statement answers. Raises Stopped."""
        self.stop.look()
        return self.conn.execute(statement).all()

    def streamed(self, statement: Any, at_once: int) -> Iterator[Sequence[Any]]:  # Any: as above
        """The same in parts, as they come."""
        self.stop.look()
        for part in self.conn.execute(statement.execution_options(yield_per=at_once)).partitions():
            self.stop.look()
            yield part

    def is_one_of(self, column: ColumnElement[Any], keys: Keys) -> ColumnElement[bool]:  # Any: of whichever type
        """Whether a column is one of these."""
        return is_one_of(self.conn, column, keys)

    def texts(self, numbers: set[int]) -> dict[int | None, str | None]:
        """The text of each number of `strings`."""
        return self.known.texts(self.conn, numbers)

    def session_ids(self, numbers: set[int]) -> dict[int, str]:
        """The id of each session, and of others."""
        c = sessions.c
        if len(self._session_ids) > _MOST_REMEMBERED:
            self._session_ids.clear()
        for some in parts_of(sorted(numbers - self._session_ids.keys()), _KEYS_AT_ONCE):
            rows = self.rows(select(c.id, c.session_id).where(self.is_one_of(c.id, some)))
            self._session_ids.update((number, session_id) for number, session_id in rows)
        return self._session_ids

    def trace_sessions(self, trace_ids: Collection[bytes]) -> dict[bytes, int]:
        """The session of each trace, by its number. Index: the primary key of `traces`."""
        t = traces.c
        found: dict[bytes, int] = {}
        for some in parts_of(sorted(trace_ids), _KEYS_AT_ONCE):
            query = select(t.trace_id, t.session).where(t.project == self.project, self.is_one_of(t.trace_id, some))
            found.update((trace_id, session) for trace_id, session in self.rows(query))
        return found


def parts_of(values: Sequence[Any], at_once: int = AT_ONCE) -> Iterator[Sequence[Any]]:
    """So few at once that a statement may have them as parameters."""
    return (values[start : start + at_once] for start in range(0, len(values), at_once))


@dataclass(frozen=True, slots=True)
class Arrivals:
    """The records of one window that are read.

    since: of the oldest that are read. edge: of what arrived just then only what has this trace and span or larger
    ones; None for all of it. digested_since: what arrived before has no digests.
    """

    scene: Scene
    since: EpochMs
    until: EpochMs
    environment: int | None
    has_environment: bool
    digested_since: EpochMs
    left_out: int = 0
    edge: tuple[bytes, bytes] | None = None

    @classmethod
    def of(cls, scene: Scene, windows: Windows, arrived: tuple[EpochMs, EpochMs]) -> "Arrivals":
        """Those of a window. Indexes: ix_span_digests_arrival, ix_spans_arrival."""
        since, until = arrived
        environment = None
        if windows.environment is not None:
            environment = dictionary.string_number(scene.conn, scene.project, windows.environment)
            if environment is None:
                return cls(scene, since, since, None, has_environment=True, digested_since=since)
        digested = min(max(since, _digested_since(scene, since, until)), until)
        whole = cls(scene, since, until, environment, environment is not None, digested)
        return whole._newest(windows.most_records)

    def _newest(self, most: int) -> "Arrivals":
        """The same with the newest only, when there are more than so many."""
        conn = self.scene.conn
        digested = conn.scalar(select(func.coalesce(func.sum(D.records), 0)).where(self._has_digest()))
        count = int(digested or 0)
        if self.digested_since > self.since:
            count += conn.scalar(select(func.count()).select_from(spans).where(self._has_no_digest())) or 0
        if count <= most:
            return self
        by_arrival = select(S.received_at, S.trace_id, S.span_id).where(self.are_read())
        by_arrival = by_arrival.order_by(S.received_at.desc())
        at = conn.execute(by_arrival.offset(most - 1).limit(1)).one().received_at
        later = conn.scalar(select(func.count()).select_from(spans).where(self.are_read(), S.received_at > at)) or 0
        of_then = select(S.trace_id, S.span_id).where(self.are_read(), S.received_at == at)
        of_then = of_then.order_by(S.trace_id.desc(), S.span_id.desc()).offset(most - later - 1).limit(1)
        edge = conn.execute(of_then).one()
        return Arrivals(
            self.scene,
            EpochMs(at),
            self.until,
            self.environment,
            self.has_environment,
            # One digest of then may tell of records that are read and of others.
            max(self.digested_since, EpochMs(at + 1)),
            count - most,
            (edge.trace_id, edge.span_id),
        )

    @property
    def effective_since(self) -> EpochMs | None:
        """Arrival of the oldest record read, when others were left out."""
        return self.since if self.left_out else None

    # Of `spans` -----------------------------------------------------------------------------------------------------
    def are_read(
        self, c: ReadOnlyColumnCollection[str, Any] = S, *, found_otherwise: bool = False
    ) -> ColumnElement[bool]:
        """Of rows of `spans`, those that are read.

        c: its columns, under whichever name. found_otherwise: they are few, and found by an index that is not that of
        arrivals: SQLite, which knows nothing of how many there are, would take that of a range sooner than a list.
        """
        at = c.received_at + 0 if found_otherwise else c.received_at
        chosen = and_(c.project == self.scene.project, at >= self.since, at < self.until)
        if self.has_environment:
            chosen = and_(chosen, c.environment == self.environment)
        if self.edge is not None:
            is_behind = tuple_(c.trace_id, c.span_id) >= tuple_(*self.edge)
            chosen = and_(chosen, or_(c.received_at > self.since, is_behind))
        return chosen

    def _has_no_digest(self) -> ColumnElement[bool]:
        return and_(self.are_read(), S.received_at < self.digested_since)

    # Digests --------------------------------------------------------------------------------------------------------
    def _has_digest(self) -> ColumnElement[bool]:
        chosen = and_(D.project == self.scene.project, D.received_at >= self.digested_since, D.received_at < self.until)
        return and_(chosen, D.environment == self.environment) if self.has_environment else chosen

    def digests(self) -> Iterator[tuple[int | None, Digest]]:
        """Digests of all records that are read, each with its environment."""
        stored = select(D.environment, D.columns).where(self._has_digest()).order_by(D.received_at)
        for some in self.scene.streamed(stored, _DIGESTS_AT_ONCE):
            for row in some:
                yield row.environment, digests.decode(row.columns)
        yield from self._made()

    def _made(self) -> Iterator[tuple[int | None, Digest]]:
        """The same of those records that have none, from their rows."""
        if self.digested_since <= self.since:
            return
        for rows in self.scene.streamed(select(*spans.c).where(self._has_no_digest()), _ROWS_AT_ONCE):
            reasons = {row.finish_reason for row in rows} - {None}
            texts = self.scene.texts(reasons)
            abnormal = digests.abnormal((texts[each] or "", each) for each in reasons if each in texts)
            named = self.scene.trace_sessions({row.trace_id for row in rows if row.own_session is None})
            by_scope: dict[tuple[int | None, int], list[Any]] = {}
            for row in rows:
                session = named[row.trace_id] if row.own_session is None else row.own_session
                by_scope.setdefault((row.environment, row.received_at), []).append((*row, session))
            ids = self.scene.session_ids({row[-1] for some in by_scope.values() for row in some})
            like_traces = digests.like_traces(ids.items())
            for (environment, _), some in by_scope.items():
                yield environment, digests.digest_of(some, abnormal, digests.identities(some), like_traces)

    def moved(self) -> Sequence[Any]:  # Any: rows
        """What digests tell of sessions that is true no more: of each records, those unnamed, metered, and tokens.

        Index: ix_span_moves_arrival.
        """
        m = span_moves.c
        sums = (func.sum(each) for each in (m.records, m.unnamed, m.metered, m.tokens_high, m.tokens_low))
        return self.scene.rows(select(m.session, *sums).where(self._have_moved()).group_by(m.session))

    def moved_agents(self) -> Sequence[Any]:  # Any: as above
        """Of sessions and agents, how many more of their records are metered. Index: as above."""
        m = span_moves.c
        query = select(m.session, m.agent, func.sum(m.metered)).where(self._have_moved())
        return self.scene.rows(query.group_by(m.session, m.agent))

    def _have_moved(self) -> ColumnElement[bool]:
        m = span_moves.c
        of_digests = and_(m.received_at >= self.digested_since, m.received_at < self.until)
        chosen = and_(m.project == self.scene.project, of_digests)
        return and_(chosen, m.environment == self.environment) if self.has_environment else chosen


def _digested_since(scene: Scene, since: EpochMs, until: EpochMs) -> EpochMs:
    """From when on everything that arrived in a window has a digest that can be read and is right.

    Who writes digests of another version writes no `span_moves` of this one: a node that has not been upgraded yet may
    have moved, even after the window, whatever arrived before. Such a node leaves a digest with each of its moves.
    """
    its = D.project == scene.project
    first = scene.conn.scalar(select(func.min(D.received_at)).where(its))
    if first is None:
        return until
    strange = select(func.max(D.received_at)).where(its, D.received_at >= since, D.version != VERSION)
    last = scene.conn.scalar(strange)
    return EpochMs(first if last is None else max(first, last + _BESIDE_MS))


# Records -------------------------------------------------------------------------------------------------------------
# In the order of the members of `Narrow`, and which session a record is in.
TRACE, _SPAN, _PARENT, _KIND, _STATUS, _SIGNAL, _OWN = (
    Narrow.__struct_fields__.index(name)
    for name in ("trace_id", "span_id", "parent_id", "kind", "status", "signal_type", "own_session")
)
_TEXTS: Final = tuple(Narrow.__struct_fields__.index(name) for name in TEXTS)
_OPERATION: Final = Narrow.__struct_fields__.index("operation")
NARROW: Final = tuple(S[name] for name in Narrow.__struct_fields__)
_placed = partial(tuple.__new__, Placed)


def placed_of(scene: Scene, rows: Sequence[Any]) -> list[Placed]:
    """Records with their sessions, of rows of NARROW, in their order. Column by column, as there may be many."""
    if not rows:
        return []
    columns = list(zip(*rows, strict=True))
    numbers = {number for place in _TEXTS for number in set(columns[place])}
    numbers.discard(None)
    texts = scene.texts(numbers)
    told = zip(columns[TRACE], columns[_OWN], strict=True)
    named = scene.trace_sessions({trace_id for trace_id, own in told if own is None})
    its_sessions = [
        named[trace_id] if own is None else own for trace_id, own in zip(columns[TRACE], columns[_OWN], strict=True)
    ]
    names = scene.session_ids(set(its_sessions))
    found: list[Any] = list(columns)
    found[TRACE] = map(bytes.hex, columns[TRACE])
    found[_SPAN] = map(bytes.hex, columns[_SPAN])
    found[_PARENT] = ["" if each is None else each.hex() for each in columns[_PARENT]]
    for place, words in ((_KIND, KINDS), (_STATUS, STATUSES), (_SIGNAL, SIGNALS)):
        found[place] = map(words.__getitem__, columns[place])
    for place in _TEXTS:
        # Of some columns all are equal, or nothing is known.
        values = set(columns[place])
        found[place] = repeat(texts.get(values.pop())) if len(values) == 1 else map(texts.get, columns[place])
    found[_OPERATION] = [texts.get(each) or "" for each in columns[_OPERATION]]
    found[_OWN] = [None if each is None else names[each] for each in columns[_OWN]]
    return list(map(_placed, zip(map(names.__getitem__, its_sessions), map(Narrow, *found))))  # noqa: B905 - of one length
