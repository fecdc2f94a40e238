"""SQL of runs, their transcripts, and what they cost."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection, and_, case, delete, func, or_, select, update

from lifesign.bots.records import Run
from lifesign.clock import EpochMs
from lifesign.db.schema import (
    bot_budget_periods,
    bot_ledger,
    bot_notices,
    bot_runs,
    bot_schedules,
    bot_transcripts,
)
from lifesign.db.sql import insert_if_new, insert_many, update_many, word

R = bot_runs.c
S = bot_schedules.c
T = bot_transcripts.c
L = bot_ledger.c
P = bot_budget_periods.c

_RUN = tuple(R[name] for name in Run.__dataclass_fields__)
_QUEUED, _RUNNING = R.status == word("queued"), R.status == word("running")
_PARKED = R.status == word("waiting_approval")
# What has not ended: few of many, and with an index of their own.
_IS_OPEN = R.finished_at.is_(None)
MAX_TRANSCRIPT_BYTES = 1_048_576
_DAY_MS = 86_400_000
_LONGEST_COOLDOWN_MS = 604_800_000
DEADLINE_GRACE_MS = 5000
"""No lease goes on for longer after the deadline of its run."""
OUTSIDE = ("http", "pull")
"""Kinds of runners that nobody here can end."""


def _run(row: Sequence[Any]) -> Run:  # Any: a row of a table whose columns mypy does not know
    return Run(*row)


def row_of(run: Run) -> dict[str, Any]:
    """A run as a row."""
    return {name: getattr(run, name) for name in Run.__dataclass_fields__}


# Due ----------------------------------------------------------------------------------------------------------------
class DueSchedule(NamedTuple):
    """A schedule with something to do, and the version that this was read of."""

    id: str
    version: int


def due_schedules(conn: Connection, now: EpochMs, limit: int, *, skip: int = 0) -> list[DueSchedule]:
    """Schedules with a slot that is due, longest due first. Index: ix_bot_schedules_due."""
    query = select(S.id, S.version).where(S.next_run_at.is_not(None), S.next_run_at <= now)
    return [DueSchedule(*row) for row in conn.execute(query.order_by(S.next_run_at).limit(limit).offset(skip))]


_NEXT_DUE = select(S.next_run_at).where(S.next_run_at.is_not(None)).order_by(S.next_run_at).limit(1)


def next_due(conn: Connection) -> EpochMs | None:
    """When the next slot of all is due. Index: ix_bot_schedules_due."""
    found: EpochMs | None = conn.scalar(_NEXT_DUE)
    return found


def lock_unchanged(conn: Connection, due: Sequence[DueSchedule]) -> list[str]:
    """Those of these schedules that nobody changed meanwhile, locked; what others hold is left out."""
    versions = {each.id: each.version for each in due}
    query = select(S.id, S.version).where(S.id.in_(list(versions))).order_by(S.id).with_for_update(skip_locked=True)
    return [row.id for row in conn.execute(query) if versions[row.id] == row.version]


class Moved(NamedTuple):
    """Where the slots of a schedule stand."""

    id: str
    last_slot: EpochMs
    next_slot: EpochMs | None
    next_run_at: EpochMs | None
    version: int


def move_slots(conn: Connection, moved: Sequence[Moved]) -> None:
    """Note where the slots of schedules stand, which are locked."""
    update_many(conn, bot_schedules, [each._asdict() for each in moved])


# Open runs ----------------------------------------------------------------------------------------------------------
def insert_runs(conn: Connection, runs: Sequence[Run]) -> None:
    """New runs. Raises IntegrityError for a slot that was started already."""
    insert_many(conn, bot_runs, [row_of(each) for each in runs])


def open_runs(conn: Connection, schedule_ids: Collection[str]) -> dict[str, list[Run]]:
    """Runs of schedules that have not ended, oldest first, by schedule."""
    found: dict[str, list[Run]] = {}
    query = select(*_RUN).where(R.schedule_id.in_(list(schedule_ids)), _IS_OPEN).order_by(R.id)
    for row in conn.execute(query):
        run = _run(row)
        found.setdefault(run.schedule_id, []).append(run)
    return found


def running_of(conn: Connection, schedule_ids: Collection[str], now: EpochMs) -> dict[str, str]:
    """The run of each schedule that goes on. Index: ix_bot_runs_lease."""
    query = select(R.schedule_id, R.id).where(_RUNNING, R.lease_until > now, R.schedule_id.in_(list(schedule_ids)))
    return {row[0]: row[1] for row in conn.execute(query.order_by(R.id))}


def latest_runs(conn: Connection, schedule_ids: Collection[str], *, before: str | None = None) -> dict[str, Run]:
    """The newest run of each schedule. before: of those older than this one."""
    older = (R.schedule_id == S.id) & (R.kind != "trigger")
    if before is not None:
        older &= R.id < before
    # From the newest on, for each: a schedule that runs every minute has many.
    newest_of_each = select(R.id).where(older).order_by(R.id.desc()).limit(1).correlate(bot_schedules)
    newest = select(newest_of_each.scalar_subquery()).where(S.id.in_(list(schedule_ids)))
    return {row.schedule_id: _run(row) for row in conn.execute(select(*_RUN).where(R.id.in_(newest)))}


def count_recent(conn: Connection, project_id: str, since: EpochMs) -> int:
    """How many runs a project had since, those that were skipped aside. Index: ix_bot_runs_project."""
    query = select(func.count()).where(R.project_id == project_id, R.created_at > since, R.status != "skipped")
    return int(conn.scalar(query) or 0)


def count_running(conn: Connection, project_id: str, now: EpochMs) -> int:
    """How many runs of a project are going on."""
    query = select(func.count()).where(R.project_id == project_id, _RUNNING, R.lease_until > now)
    return int(conn.scalar(query) or 0)


def count_running_of_all(conn: Connection, now: EpochMs) -> dict[str, int]:
    """How many runs go on, by project. Index: ix_bot_runs_lease."""
    query = select(R.project_id, func.count()).where(_RUNNING, R.lease_until > now).group_by(R.project_id)
    return {row[0]: row[1] for row in conn.execute(query)}


class Waiting(NamedTuple):
    """A run that waits to be started."""

    id: str
    project_id: str
    schedule_id: str
    place_until: EpochMs | None


def startable(
    conn: Connection,
    now: EpochMs,
    limit: int,
    *,
    is_pull: bool = False,
    project_id: str | None = None,
    bot_id: str | None = None,
    except_projects: Collection[str] = (),
) -> list[Waiting]:
    """Queued runs that are due, each the first of its schedule, while no other of it is going on, in their order.

    is_pull: those that an outside worker takes, of a project; others else. except_projects: they have no place.
    """
    other = bot_runs.alias()
    is_busy = (
        select(other.c.id)
        .where(
            other.c.schedule_id == R.schedule_id,
            other.c.finished_at.is_(None),
            or_(
                and_(other.c.status == word("running"), other.c.lease_until > now),
                other.c.status == word("waiting_approval"),
                and_(other.c.status == word("queued"), other.c.id < R.id),
            ),
        )
        .exists()
    )
    query = select(R.id, R.project_id, R.schedule_id, R.place_until).where(_QUEUED, R.effective_at <= now, ~is_busy)
    query = query.where(R.runner == "pull" if is_pull else R.runner != "pull")
    if except_projects:
        query = query.where(R.project_id.not_in(list(except_projects)))
    if project_id is not None:
        query = query.where(R.project_id == project_id)
    if bot_id is not None:
        query = query.where(R.bot_id == bot_id)
    return [Waiting(*row) for row in conn.execute(query.order_by(R.effective_at, R.id).limit(limit))]


_ANY_WAITING = select(
    *(
        select(R.id).where(status).limit(1).scalar_subquery().label(name)
        for name, status in (("queued", _QUEUED), ("parked", _PARKED))
    )
)


def is_any_waiting(conn: Connection) -> bool:
    """Whether any run waits, to begin or for approval. Indexes: ix_bot_runs_queued, ix_bot_runs_parked."""
    return any(conn.execute(_ANY_WAITING).one())


def waited_enough(conn: Connection, now: EpochMs, limit: int) -> list[str]:
    """Runs that wait no longer: no place became free in time, nobody approved, or they shall end.

    Indexes: ix_bot_runs_queued, ix_bot_runs_parked.
    """
    found: list[str] = []
    # One by one: a database that is asked for either looks through all runs.
    for status, until in ((_QUEUED, R.place_until), (_PARKED, R.parked_until)):
        query = select(R.id).where(status, or_(until <= now, R.cancel_reason.is_not(None)))
        found += conn.scalars(query.limit(limit))
    return sorted(found)[:limit]


def free_places(conn: Connection, schedule_id: str) -> list[str]:
    """Queued runs of a schedule that waited for another of it, and not yet for a place."""
    query = select(R.id).where(R.schedule_id == schedule_id, _IS_OPEN, _QUEUED, R.place_until.is_(None))
    return list(conn.scalars(query))


def next_queued(conn: Connection, now: EpochMs) -> EpochMs | None:
    """When the next queued run, of those that wait for their time, is due."""
    query = select(func.min(R.effective_at)).where(_QUEUED, R.effective_at > now)
    found: EpochMs | None = conn.scalar(query)
    return found


def next_wait_end(conn: Connection) -> EpochMs | None:
    """When the next run has waited for long enough, for a place or for approval."""
    places = conn.scalar(select(func.min(R.place_until)).where(_QUEUED))
    approvals = conn.scalar(select(func.min(R.parked_until)).where(_PARKED))
    return min((each for each in (places, approvals) if each is not None), default=None)


def expired_leases(conn: Connection, now: EpochMs, limit: int) -> list[str]:
    """Runs whose owner did not come back. Index: ix_bot_runs_lease."""
    query = select(R.id).where(_RUNNING, R.lease_until <= now)
    return list(conn.scalars(query.order_by(R.lease_until).limit(limit)))


_NEXT_LEASE_END = select(func.min(R.lease_until)).where(_RUNNING)


def next_lease_end(conn: Connection) -> EpochMs | None:
    """When the next lease of all ends. Index: ix_bot_runs_lease."""
    found: EpochMs | None = conn.scalar(_NEXT_LEASE_END)
    return found


def run_by_id(conn: Connection, run_id: str, *, lock: bool = False) -> Run | None:
    """One run."""
    query = select(*_RUN).where(R.id == run_id)
    row = conn.execute(query.with_for_update() if lock else query).first()
    return None if row is None else _run(row)


def run_by_token(conn: Connection, token_hash: str) -> Run | None:
    """The run that an outside runner answers for with this token."""
    row = conn.execute(select(*_RUN).where(R.token_hash == token_hash)).first()
    return None if row is None else _run(row)


def run_by_idem(conn: Connection, schedule_id: str, idem_key: str) -> Run | None:
    """The run that was triggered with this key."""
    row = conn.execute(select(*_RUN).where(R.schedule_id == schedule_id, R.idem_key == idem_key)).first()
    return None if row is None else _run(row)


def forget_idem(conn: Connection, run_id: str) -> None:
    """The key of a run may be used again."""
    conn.execute(update(bot_runs).where(R.id == run_id).values(idem_key=None))


def set_run(conn: Connection, run_id: str, values: Mapping[str, Any]) -> None:
    """Set columns of a run."""
    conn.execute(update(bot_runs).where(R.id == run_id).values(dict(values)))


def delete_run(conn: Connection, run_id: str) -> None:
    """Remove one run, which was not started."""
    conn.execute(delete(bot_runs).where(R.id == run_id))


def renew(conn: Connection, held: Mapping[str, int], until: EpochMs) -> dict[str, str | None]:
    """Prolong the leases that are still held under these tokens; why each shall end, None for none, by run.

    What is not in the answer is lost.
    """
    tokens = or_(*(and_(R.id == run_id, R.lease_token == token) for run_id, token in held.items()))
    mine = and_(tokens, _RUNNING)
    # A run that may take no longer is not kept alive for much longer.
    latest = R.deadline_at + DEADLINE_GRACE_MS
    ends = case((latest < until, latest), else_=until)
    changed = update(bot_runs).where(mine).values(lease_until=ends)
    return {row.id: row.cancel_reason for row in conn.execute(changed.returning(R.id, R.cancel_reason))}


def cancel_reasons(conn: Connection, held: Mapping[str, int]) -> dict[str, str | None]:
    """Why runs under these tokens shall end, by run; what is not in the answer is lost."""
    query = select(R.id, R.cancel_reason, R.lease_token).where(R.id.in_(list(held)), _RUNNING)
    return {row.id: row.cancel_reason for row in conn.execute(query) if row.lease_token == held[row.id]}


def ask_to_cancel(conn: Connection, where: Mapping[str, str], reason: str, *, last_words_until: EpochMs) -> None:
    """Ask runs that have not ended to end. where: columns and their values; none: all.

    last_words_until: when those count as ended that are done elsewhere, as nobody here can end them.
    """
    mine = and_(*(R[name] == value for name, value in where.items()), R.cancel_reason.is_(None))
    elsewhere = and_(_RUNNING, R.runner.in_(OUTSIDE), R.lease_until > last_words_until)
    ends = case((elsewhere, last_words_until), else_=R.lease_until)
    conn.execute(update(bot_runs).where(mine, _IS_OPEN).values(cancel_reason=reason, lease_until=ends))


def count_open(conn: Connection, where: Mapping[str, str]) -> int:
    """How many runs have not ended. where: columns and their values; none: all."""
    mine = and_(*(R[name] == value for name, value in where.items()), _IS_OPEN)
    return int(conn.scalar(select(func.count()).where(mine)) or 0)


# Money --------------------------------------------------------------------------------------------------------------
class Account(NamedTuple):
    """What a schedule spent and reserved in a period."""

    spent: int
    reserved: int


def lock_account(conn: Connection, schedule_id: str, project_id: str, *, start: EpochMs, end: EpochMs) -> Account:
    """The account of a schedule for a period, opened when there is none; nobody else changes it meanwhile."""
    row = {
        "schedule_id": schedule_id,
        "period_start": start,
        "project_id": project_id,
        "period_end": end,
        "spent": 0,
        "reserved": 0,
    }
    insert_if_new(conn, bot_budget_periods, row, unique=["schedule_id", "period_start"])
    query = select(P.spent, P.reserved).where(P.schedule_id == schedule_id, P.period_start == start)
    return Account(*conn.execute(query.with_for_update()).one())


def save_account(conn: Connection, schedule_id: str, start: EpochMs, account: Account) -> None:
    """Write an account, which is locked."""
    mine = (P.schedule_id == schedule_id) & (P.period_start == start)
    conn.execute(update(bot_budget_periods).where(mine).values(spent=account.spent, reserved=account.reserved))


def insert_ledger(conn: Connection, row: Mapping[str, Any]) -> None:
    """One response and what it cost."""
    conn.execute(bot_ledger.insert().values(dict(row)))


# Transcripts --------------------------------------------------------------------------------------------------------
def parked_state(conn: Connection, run_id: str) -> str | None:
    """What a runner wrote down of a run that was parked."""
    found: str | None = conn.scalar(select(R.parked).where(R.id == run_id))
    return found


def append_transcript(conn: Connection, run: Run, entries: Sequence[Mapping[str, Any]]) -> None:
    """Note what was said in a run."""
    last = conn.scalar(select(func.max(T.n)).where(T.run_id == run.id))
    first = 0 if last is None else last + 1
    rows = [
        {
            "run_id": run.id,
            "n": first + n,
            "project_id": run.project_id,
            "at": entry["at"],
            "entry": msgspec.json.encode(entry).decode(),
        }
        for n, entry in enumerate(entries)
    ]
    insert_many(conn, bot_transcripts, rows)


def transcript_of(conn: Connection, run_id: str) -> tuple[list[dict[str, Any]], bool]:
    """What was said in a run, in order, and whether the rest was left out."""
    found: list[dict[str, Any]] = []
    size = 0
    for (entry,) in conn.execute(select(T.entry).where(T.run_id == run_id).order_by(T.n)):
        size += len(entry.encode())
        if size > MAX_TRANSCRIPT_BYTES:
            return found, True
        found.append(msgspec.json.decode(entry, type=dict[str, Any]))
    return found, False


def transcript_bytes(conn: Connection, run_id: str) -> int:
    """How much of a run's transcript is kept."""
    return int(conn.scalar(select(func.sum(func.length(T.entry))).where(T.run_id == run_id)) or 0)


class Exchange(NamedTuple):
    """What was asked and answered in an earlier run."""

    prompt: str
    response: str


def exchanges(conn: Connection, schedule_id: str, since: EpochMs, limit: int) -> list[Exchange]:
    """The newest exchanges of a schedule since an instant, oldest first."""
    query = select(R.prompt, R.response).where(
        R.schedule_id == schedule_id,
        # Made at most a day before it began: what is older is not looked at.
        R.id >= f"run_{max(0, since - _DAY_MS):012x}",
        R.status == "success",
        R.response.is_not(None),
        R.started_at >= since,
    )
    rows = conn.execute(query.order_by(R.id.desc()).limit(limit)).all()
    return [Exchange(*row) for row in reversed(rows)]


# Lists --------------------------------------------------------------------------------------------------------------
def _listed(bot_id: str, status: str | None, schedule_id: str | None, member_id: str | None) -> Any:  # Any: a clause
    mine = R.bot_id == bot_id
    mine &= ~_IS_OPEN if status is None else R.status == status
    if schedule_id is not None:
        mine &= R.schedule_id == schedule_id
    return mine if member_id is None else mine & (R.member_id == member_id)


def list_runs(
    conn: Connection,
    bot_id: str,
    *,
    status: str | None,
    schedule_id: str | None,
    member_id: str | None,
    limit: int,
    offset: int = 0,
    before: str | None = None,
) -> list[Run]:
    """Runs of a bot, newest first. status: None for those that ended. Index: ix_bot_runs_bot."""
    query = select(*_RUN).where(_listed(bot_id, status, schedule_id, member_id))
    if before is not None:
        query = query.where(R.id < before)
    return [_run(row) for row in conn.execute(query.order_by(R.id.desc()).limit(limit).offset(offset))]


def count_runs(
    conn: Connection, bot_id: str, *, status: str | None, schedule_id: str | None, member_id: str | None
) -> int:
    """How many runs such a list has."""
    return int(conn.scalar(select(func.count()).where(_listed(bot_id, status, schedule_id, member_id))) or 0)


class Ended(NamedTuple):
    """What statistics need of a run."""

    status: str
    reason: str | None
    kind: str
    slots: int
    model: str | None
    created_at: EpochMs
    duration_ms: int | None
    started_at: EpochMs | None


def ended_since(conn: Connection, bot_id: str, since: EpochMs) -> list[Ended]:
    """Runs of a bot that ended, of those that were made since. Index: ix_bot_runs_bot."""
    columns = (R.status, R.reason, R.kind, R.count, R.model, R.created_at, R.duration_ms, R.started_at)
    # Ids begin with the time at which they were made.
    is_recent = (R.id >= f"run_{max(0, since):012x}") & (R.created_at >= since)
    query = select(*columns).where(R.bot_id == bot_id, is_recent, ~_IS_OPEN)
    return [Ended(*row) for row in conn.execute(query)]


def ledger_since(conn: Connection, bot_id: str, since: EpochMs) -> tuple[int, int]:
    """Tokens and credits of a bot since. Index: ix_bot_ledger_bot."""
    query = select(func.sum(L.input_tokens + L.output_tokens), func.sum(L.credits))
    row = conn.execute(query.where(L.bot_id == bot_id, L.at >= since)).one()
    return int(row[0] or 0), int(row[1] or 0)


# Notices ------------------------------------------------------------------------------------------------------------
def told_at(conn: Connection, schedule_id: str, key: str) -> EpochMs | None:
    """When people were last told of something."""
    c = bot_notices.c
    found: EpochMs | None = conn.scalar(select(c.at).where(c.schedule_id == schedule_id, c.key == key))
    return found


def mark_told(conn: Connection, schedule_id: str, project_id: str, key: str, now: EpochMs) -> None:
    """Note that people are told of something now; what was told longer ago than any cooldown is forgotten."""
    c = bot_notices.c
    conn.execute(delete(bot_notices).where(c.schedule_id == schedule_id, c.at < now - _LONGEST_COOLDOWN_MS))
    row = {"schedule_id": schedule_id, "key": key, "project_id": project_id, "at": now}
    if not insert_if_new(conn, bot_notices, row, unique=["schedule_id", "key"]):
        conn.execute(update(bot_notices).where(c.schedule_id == schedule_id, c.key == key).values(at=now))
