"""Numbers of a project over a window."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, case, func, literal_column, select

from lifesign.clock import EpochMs
from lifesign.telemetry.sessions import Outcome, Summary, Totals, together
from lifesign.telemetry.store import Pace, Stats
from lifesign.telemetry.stores import summaries
from lifesign.telemetry.stores.codes import FAILING, SIGNALS
from lifesign.telemetry.stores.tables import spans, traces

S, T = spans.c, traces.c
NOTHING: Final = Stats(
    records=0,
    failures=0,
    traces=0,
    failures_by_signal={},
    sessions=0,
    sessions_by_outcome={},
    totals=Totals(),
    oldest_received_at=None,
    pending_records=0,
)
_FAILURES: Final = func.coalesce(func.sum(case((S.status == FAILING, 1), else_=0)), 0)


def pace(conn: Connection, project: int, since: EpochMs, step_ms: int, steps: int) -> list[Pace]:
    """See SpanStore.pace."""
    is_in = (S.project == project) & (S.received_at >= since) & (S.received_at < since + step_ms * steps)
    # As a number in the statement: grouped by what is bound, PostgreSQL would not see that both are the same.
    part = ((S.received_at - literal_column(str(int(since)))) // literal_column(str(int(step_ms)))).label("part")
    found = {
        int(number): Pace(records, int(failures))
        for number, records, failures in conn.execute(select(part, func.count(), _FAILURES).where(is_in).group_by(part))
    }
    return [found.get(number, Pace(0, 0)) for number in range(steps)]


def stats(conn: Connection, project: int, arrived: tuple[EpochMs, EpochMs], known: Sequence[Summary]) -> Stats:
    """Numbers of a project; see SpanStore.stats. known: summaries of its sessions, of the newest ones at least."""
    since, until = arrived
    is_in = (S.project == project) & (S.received_at >= since) & (S.received_at < until)
    by_signal = select(S.status, S.signal_type, func.count()).where(is_in).group_by(S.status, S.signal_type)
    counts = {(status, signal): count for status, signal, count in conn.execute(by_signal)}
    failing = {SIGNALS[signal]: count for (status, signal), count in counts.items() if status == FAILING}
    oldest = conn.scalar(select(func.min(S.received_at)).where(S.project == project))
    sessions = summaries.count_in_window(conn, project, arrived)
    outcomes: Counter[Outcome] = Counter(each.outcome for each in known)
    if sessions > len(known):
        outcomes["unknown"] += sessions - len(known)
    return Stats(
        records=sum(counts.values()),
        failures=sum(failing.values()),
        traces=_traces_in(conn, project, arrived, oldest),
        failures_by_signal={signal: failing[signal] for signal in sorted(failing)},
        sessions=sessions,
        sessions_by_outcome={outcome: outcomes[outcome] for outcome in sorted(outcomes)},
        totals=together(each.totals for each in known),
        oldest_received_at=oldest,
        pending_records=0,
    )


def _traces_in(conn: Connection, project: int, arrived: tuple[EpochMs, EpochMs], oldest: EpochMs | None) -> int:
    """How many traces have a record that arrived in a window.

    Where that is all of a project's records, they are counted where each is once: to tell which of millions of records
    are of the same trace takes seconds.
    """
    since, until = arrived
    newest = conn.scalar(select(func.max(S.received_at)).where(S.project == project))
    if oldest is None or newest is None:
        return 0
    if since <= oldest and newest < until:
        return conn.scalar(select(func.count()).where(T.project == project)) or 0
    is_in = (S.project == project) & (S.received_at >= since) & (S.received_at < until)
    return conn.scalar(select(func.count(S.trace_id.distinct())).where(is_in)) or 0
