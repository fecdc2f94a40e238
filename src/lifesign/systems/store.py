"""SQL of the table `systems`. When a system reported last is what the heartbeat underneath knows, and is joined."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import orjson
from sqlalchemy import Connection, Select, and_, bindparam, case, exists, func, literal, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.sql import ColumnElement

from lifesign.clock import EpochMs
from lifesign.db.schema import heartbeats, projects, systems
from lifesign.db.sql import among, contains, json_each, json_rows, update_many
from lifesign.systems.rules import Liveness, System

S = systems.c
_LAST = heartbeats.c.last_checkin_at
_COLUMNS = tuple(_LAST if name == "last_heartbeat" else S[name] for name in System.__dataclass_fields__)
_WATCHED = systems.join(heartbeats, heartbeats.c.id == S.heartbeat_id)
_SELECTED = select(*_COLUMNS).select_from(_WATCHED)
_TAGS = list(System.__dataclass_fields__).index("tags")
_MS = 1000


def _system(row: Sequence[Any]) -> System:  # Any: a row of a table whose columns mypy does not know
    values = list(row)
    values[_TAGS] = tuple(values[_TAGS].split()) if values[_TAGS] else ()
    return System(*values)


def _row(system: System) -> dict[str, Any]:
    row = {name: getattr(system, name) for name in System.__dataclass_fields__ if name != "last_heartbeat"}
    return row | {
        # Blanks on both ends, so that ` tag ` finds a whole tag.
        "tags": f" {' '.join(system.tags)} " if system.tags else None,
        "search": f"{system.name}\n{system.fqdn}\n{system.key}\n{system.id}".casefold(),
    }


# One ----------------------------------------------------------------------------------------------------------------
def insert_if_free(conn: Connection, system: System, secret_hash: str) -> bool:
    """A new system; False, and nothing written, when its id or key is taken."""
    try:
        with conn.begin_nested():
            conn.execute(systems.insert().values(**_row(system), secret_hash=secret_hash))
    except IntegrityError:
        return False
    return True


def is_taken(conn: Connection, system_id: str) -> bool:
    """Whether some project has, or had, a system with this id."""
    return conn.scalar(select(S.id).where(S.id == system_id)) is not None


def by_ref(conn: Connection, project_id: str, ref: str, *, lock: bool = False) -> System | None:
    """The system of a project with this id or key, as stored; not one that was deleted."""
    query = _SELECTED.where(or_(S.id == ref, S.key == ref), S.project_id == project_id, S.deleted_at.is_(None))
    row = conn.execute(query.with_for_update(of=systems) if lock else query).first()
    return None if row is None else _system(row)


def save(conn: Connection, system: System) -> None:
    """Write what people change of a system, which is locked."""
    kept = {"id", "project_id", "key", "heartbeat_id", "created_at", "first_heartbeat"}
    values = {name: value for name, value in _row(system).items() if name not in kept}
    conn.execute(update(systems).where(S.id == system.id).values(values))


def save_secret(conn: Connection, system: System, secret_hash: str) -> None:
    """Another secret, which makes the one before worthless."""
    save(conn, system)
    conn.execute(update(systems).where(S.id == system.id).values(secret_hash=secret_hash))


def mark_deleted(conn: Connection, system_id: str, now: EpochMs) -> None:
    """Hide a system for good; the row stays to be counted."""
    conn.execute(update(systems).where(S.id == system_id).values(deleted_at=now, secret_hash=None, updated_at=now))


# Credentials --------------------------------------------------------------------------------------------------------
class Known(NamedTuple):
    """What a machine is recognized by, and what it reports for."""

    id: str
    project_id: str
    heartbeat_id: str
    secret_hash: str
    version: int


_PROJECT_EXISTS = exists().where(projects.c.id == S.project_id, projects.c.deleted_at.is_(None)).correlate(systems)
_MAY_REPORT = and_(S.deleted_at.is_(None), S.suspended_at.is_(None), _PROJECT_EXISTS)
_KNOWN = select(S.id, S.project_id, S.heartbeat_id, S.secret_hash, S.credential_version).where(
    or_(S.id == bindparam("ref"), S.key == bindparam("ref")), _MAY_REPORT
)


def known(conn: Connection, refs: Sequence[str]) -> list[Known | None]:
    """The system with each id or key that may report. Indexes: the primary key, the unique key."""
    rows = [conn.execute(_KNOWN, {"ref": ref}).first() for ref in refs]
    return [None if row is None else Known(*row) for row in rows]


def still_known(conn: Connection, known: Known, *, lock: bool = False) -> System | None:
    """The system, if it may report and has the same secret as when it became known."""
    query = _SELECTED.where(S.id == known.id, S.credential_version == known.version, _MAY_REPORT)
    row = conn.execute(query.with_for_update(of=systems) if lock else query).first()
    return None if row is None else _system(row)


class Beating(NamedTuple):
    """What a beat needs to know of a system."""

    id: str
    version: int
    first_heartbeat: EpochMs | None


_BEATING = (S.id, S.credential_version, S.first_heartbeat)
_BEATING_BY_ID = select(*_BEATING).where(among(S.id, "ids"), _MAY_REPORT).order_by(S.id).with_for_update()
# SQLite: all rows in one step, because its driver takes Python's lock back after each; one writer needs no row locks.
_BEATING_AS_JSON = select(func.json_group_array(func.json_array(*_BEATING))).where(
    S.id.in_(select(json_each("ids").c.value)), _MAY_REPORT
)


def lock_beating(conn: Connection, ids: Collection[str]) -> list[Beating]:
    """Those of `ids` that may report, locked in id order. Index: the primary key."""
    if conn.dialect.name == "sqlite":
        text = conn.scalar(_BEATING_AS_JSON, {"ids": json_rows(list(ids))})
        return [Beating(*row) for row in orjson.loads(text or "[]")]
    return [Beating(*row) for row in conn.execute(_BEATING_BY_ID, {"ids": sorted(ids)})]


def save_first_beats(conn: Connection, first: Mapping[str, EpochMs]) -> None:
    """When systems reported for the first time, by id. Rows are locked already."""
    update_many(conn, systems, [{"id": key, "first_heartbeat": at} for key, at in first.items()])


# Many ---------------------------------------------------------------------------------------------------------------
class Position(NamedTuple):
    """Where a page begins: after this row, newest first."""

    created_at: EpochMs
    id: str


class Filters(NamedTuple):
    """What systems of a list have in common; None: anything."""

    status: Liveness | None = None
    is_suspended: bool | None = None
    type: str | None = None
    tag: str | None = None
    search: str | None = None


def systems_of(
    conn: Connection,
    project_id: str,
    filters: Filters,
    *,
    alive_ms: int,
    now: EpochMs,
    limit: int,
    after: Position | None,
) -> list[System]:
    """Systems of a project that match every filter, newest first. Index: ix_systems_project."""
    # Only a status is asked of the heartbeats. Else the page comes first: where PostgreSQL has no statistics yet, as
    # just after many were made, it would join all of them to show fifty.
    query: Select[Any] = select(S.id).select_from(systems if filters.status is None else _WATCHED)
    query = query.where(S.project_id == project_id, S.deleted_at.is_(None))
    if after is not None:
        is_older = and_(S.created_at == after.created_at, S.id < after.id)
        query = query.where(or_(S.created_at < after.created_at, is_older))
    if filters.status is not None:
        query = query.where(_is(filters.status, _alive_ms(alive_ms), now))
    if filters.is_suspended is not None:
        query = query.where(S.suspended_at.is_not(None) if filters.is_suspended else S.suspended_at.is_(None))
    if filters.type is not None:
        query = query.where(S.type == filters.type)
    if filters.tag is not None:
        query = query.where(contains(conn, S.tags, f" {filters.tag} "))
    if filters.search is not None:
        query = query.where(contains(conn, S.search, filters.search.casefold()))
    newest_first = (S.created_at.desc(), S.id.desc())
    page = query.order_by(*newest_first).limit(limit)
    return [_system(row) for row in conn.execute(_SELECTED.where(S.id.in_(page)).order_by(*newest_first))]


def _alive_ms(alive_ms: int) -> ColumnElement[int]:
    """The alive window of each system: that of `rules.Windows.of`, as SQL."""
    return case((S.interval_s.is_(None), literal(alive_ms)), else_=(S.interval_s * 3 + 1) // 2 * _MS)


def _is(status: Liveness, alive_ms: ColumnElement[int], now: EpochMs) -> ColumnElement[bool]:
    if status == "zombie":
        return _LAST.is_(None)
    age = literal(now) - _LAST
    return age < alive_ms if status == "alive" else age >= alive_ms


class Totals(NamedTuple):
    """How many systems of a project are in which state; suspended ones are in none of the others."""

    alive: int
    dead: int
    zombie: int
    suspended: int


def totals(conn: Connection, project_id: str, *, alive_ms: int, is_for_all: bool, now: EpochMs) -> Totals:
    """Count the systems of a project. is_for_all: the window counts for those with an interval of their own as well."""
    window = literal(alive_ms) if is_for_all else _alive_ms(alive_ms)
    runs = S.suspended_at.is_(None)
    counted = [and_(runs, _is(status, window, now)) for status in ("alive", "dead", "zombie")]
    sums = [func.coalesce(func.sum(case((each, 1), else_=0)), 0) for each in [*counted, S.suspended_at.is_not(None)]]
    query = select(*sums).select_from(_WATCHED).where(S.project_id == project_id, S.deleted_at.is_(None))
    return Totals(*(int(count) for count in conn.execute(query).one()))


def lifetimes(conn: Connection, project_id: str) -> tuple[list[EpochMs], list[EpochMs]]:
    """When systems of a project were created, and when some of them were deleted. Index: ix_systems_project."""
    created = conn.scalars(select(S.created_at).where(S.project_id == project_id))
    deleted = conn.scalars(select(S.deleted_at).where(S.project_id == project_id, S.deleted_at.is_not(None)))
    return list(created), list(deleted)


def without_interval(conn: Connection, after: str, limit: int) -> list[System]:
    """Systems of every project that report as often as the settings say, in id order."""
    query = _SELECTED.where(S.id > after, S.interval_s.is_(None), S.deleted_at.is_(None))
    return [_system(row) for row in conn.execute(query.order_by(S.id).limit(limit))]
