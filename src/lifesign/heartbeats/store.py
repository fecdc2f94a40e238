"""SQL of the tables `heartbeats`, `dependencies` and `idempotency_keys`."""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import orjson
from sqlalchemy import Connection, Select, bindparam, case, delete, false, func, or_, select, update
from sqlalchemy.exc import IntegrityError

from lifesign.clock import EpochMs
from lifesign.db.schema import dependencies, heartbeats, idempotency_keys, ping_bodies, ping_rids
from lifesign.db.sql import Rows, among, contains, insert_many, insert_new, json_each, json_rows, update_many
from lifesign.heartbeats.rules import BOT_OWNER, Blindness, Heartbeat, Minded, Timing, Waiting, called

H = heartbeats.c
D = dependencies.c
K = idempotency_keys.c
_COLUMNS = tuple(H[name] for name in Heartbeat.__dataclass_fields__)
_CALLED = (H.id, H.name, H.slug, H.ping_id)
_OWN_CHANNELS = list(Heartbeat.__dataclass_fields__).index("own_channels")
_DEPENDS_ON = list(Heartbeat.__dataclass_fields__).index("depends_on")
_TAGS = list(Heartbeat.__dataclass_fields__).index("tags")
_STICKY = list(Heartbeat.__dataclass_fields__).index("is_sticky_pause")
_ARMED = list(Heartbeat.__dataclass_fields__).index("is_armed")
_FLAPPING = list(Heartbeat.__dataclass_fields__).index("is_flapping")
_SUSPENDED = list(Heartbeat.__dataclass_fields__).index("is_suspended")


def _heartbeat(row: Sequence[Any]) -> Heartbeat:  # Any: a row of a table whose columns mypy does not know
    values = list(row)
    values[_OWN_CHANNELS] = tuple(orjson.loads(values[_OWN_CHANNELS])) if values[_OWN_CHANNELS] else ()
    values[_DEPENDS_ON] = tuple(orjson.loads(values[_DEPENDS_ON])) if values[_DEPENDS_ON] else ()
    values[_TAGS] = tuple(values[_TAGS].split()) if values[_TAGS] else ()
    values[_STICKY] = bool(values[_STICKY])
    values[_ARMED] = bool(values[_ARMED])
    values[_FLAPPING] = bool(values[_FLAPPING])
    values[_SUSPENDED] = bool(values[_SUSPENDED])
    return Heartbeat(*values)


def _row(heartbeat: Heartbeat) -> dict[str, Any]:
    row = {name: getattr(heartbeat, name) for name in Heartbeat.__dataclass_fields__}
    return row | {
        "own_channels": orjson.dumps(heartbeat.own_channels).decode() if heartbeat.own_channels else None,
        "depends_on": orjson.dumps(heartbeat.depends_on).decode() if heartbeat.depends_on else None,
        # Blanks on both ends, so that ` tag ` finds a whole tag.
        "tags": f" {' '.join(heartbeat.tags)} " if heartbeat.tags else None,
        "is_sticky_pause": int(heartbeat.is_sticky_pause),
        "is_armed": int(heartbeat.is_armed),
        "is_flapping": int(heartbeat.is_flapping),
        "is_suspended": int(heartbeat.is_suspended),
        "search": f"{heartbeat.name.casefold()}\n{heartbeat.slug or ''}",
        "unique_key": None if heartbeat.ping_id is None else unique_key(heartbeat.ping_id),
    }


def unique_key(ping_id: str) -> str:
    """What names a heartbeat to those who may only read: it does not give away the ping id.  Source: Healthchecks."""
    half = ping_id.replace("-", "")[:16]
    return hashlib.sha1(half.encode(), usedforsecurity=False).hexdigest()


# One ----------------------------------------------------------------------------------------------------------------
def insert_if_free(conn: Connection, heartbeat: Heartbeat) -> bool:
    """A new heartbeat; False when its slug was taken meanwhile."""
    insert_new(conn, heartbeats, [_row(heartbeat)], unique=["project_id", "slug"])
    return conn.scalar(select(H.id).where(H.id == heartbeat.id)) is not None


def save(conn: Connection, heartbeat: Heartbeat) -> None:
    """Write every column of a heartbeat that may change."""
    values = {name: value for name, value in _row(heartbeat).items() if name not in {"id", "project_id", "created_at"}}
    conn.execute(update(heartbeats).where(H.id == heartbeat.id).values(values))


def save_if_free(conn: Connection, heartbeat: Heartbeat) -> bool:
    """The same; False, and nothing written, when its slug is another heartbeat's: the index decides between two."""
    try:
        with conn.begin_nested():
            save(conn, heartbeat)
    except IntegrityError:
        return False
    return True


def expect(conn: Connection, told: Mapping[str, EpochMs]) -> None:
    """When the owners of heartbeats expect the next check-in, by id; each waits for the present one all the same."""
    if told:
        change = update(heartbeats).where(H.id == bindparam("of")).values(expected_at=bindparam("at"))
        conn.execute(change, [{"of": key, "at": at} for key, at in sorted(told.items())])


def delete_heartbeat(conn: Connection, heartbeat_id: str) -> None:
    """Remove a heartbeat and the keys of its repeated requests; its history is left to retention."""
    conn.execute(delete(heartbeats).where(H.id == heartbeat_id))
    conn.execute(delete(dependencies).where(D.heartbeat_id == heartbeat_id))
    for table in (idempotency_keys, ping_bodies, ping_rids):
        conn.execute(delete(table).where(table.c.heartbeat_id == heartbeat_id))


def by_ref(conn: Connection, project_id: str, ref: str, *, lock: bool = False) -> Heartbeat | None:
    """The heartbeat of a project with this id (`hb_...`) or slug."""
    column = H.id if ref.startswith("hb_") else H.slug
    query = select(*_COLUMNS).where(column == ref, H.project_id == project_id)
    row = conn.execute(query.with_for_update() if lock else query).first()
    return None if row is None else _heartbeat(row)


def id_of_ping(conn: Connection, ping_id: str) -> tuple[str, str] | None:
    """Id and project of the heartbeat with this ping id. Index: uq_heartbeats_ping_id."""
    row = conn.execute(select(H.id, H.project_id).where(H.ping_id == ping_id)).first()
    return None if row is None else (row[0], row[1])


def by_unique_key(conn: Connection, project_id: str, key: str) -> Heartbeat | None:
    """The heartbeat that is named so to those who may only read. Index: ix_heartbeats_unique_key."""
    row = conn.execute(select(*_COLUMNS).where(H.unique_key == key, H.project_id == project_id)).first()
    return None if row is None else _heartbeat(row)


def by_badge_id(conn: Connection, badge_id: str) -> Heartbeat | None:
    """The heartbeat with this badge. Index: ix_heartbeats_badge_id."""
    row = conn.execute(select(*_COLUMNS).where(H.badge_id == badge_id)).first()
    return None if row is None else _heartbeat(row)


# Many ---------------------------------------------------------------------------------------------------------------
_WAITING = (
    H.id,
    H.project_id,
    H.slug,
    H.managed_by,
    H.ping_id,
    H.ping_rules,
    H.ping_extras,
    or_(H.last_duration_ms.is_not(None), H.ping_run_id.is_not(None)),
    H.run_due_at,
    H.results,
    H.status,
    H.mode,
    H.interval_ms,
    H.schedule,
    H.timezone,
    H.grace_ms,
    H.anchor_at,
    H.last_checkin_at,
    H.checkin_count,
    H.next_deadline,
    H.fires_at,
    H.check_at,
)
_IDS_BY_SLUG = select(H.id).where(H.project_id == bindparam("project"), among(H.slug, "slugs"))
_LOCKED = select(*_WAITING).order_by(H.id).with_for_update()
_WAITING_BY_ID = _LOCKED.where(among(H.id, "ids"))
_WAITING_BY_SLUG = _LOCKED.where(H.project_id == bindparam("project"), among(H.slug, "slugs"))
_WAITING_BY_PING_ID = _LOCKED.where(among(H.ping_id, "ping_ids"))
# SQLite: all rows in one step, because its driver takes Python's lock back after each; one writer needs no row locks.
_ALL_WAITING = func.json_group_array(func.json_array(*_WAITING))
_WAITING_BY_ID_AS_JSON = select(_ALL_WAITING).where(H.id.in_(select(json_each("ids").c.value)))
_WAITING_BY_SLUG_AS_JSON = select(_ALL_WAITING).where(
    H.project_id == bindparam("project"), H.slug.in_(select(json_each("slugs").c.value))
)

_WAITING_BY_PING_ID_AS_JSON = select(_ALL_WAITING).where(H.ping_id.in_(select(json_each("ping_ids").c.value)))
_IDS_BY_PING_ID = select(H.id).where(among(H.ping_id, "ping_ids"))


class Found(NamedTuple):
    """A heartbeat that somebody checks in: its id and slug, and what it waits for, if it is an ordinary one.

    is_timed: whether a run that a ping began is open, or it is told how long the last one took.
    """

    id: str
    project_id: str
    slug: str | None
    managed_by: str | None
    ping_id: str | None
    ping_rules: str | None
    ping_extras: int
    is_timed: bool
    waiting: Waiting | None


def lock_waiting(
    conn: Connection,
    *,
    ids: Collection[str],
    slugs: Mapping[str, Collection[str]],
    ping_ids: Collection[str] = (),
) -> list[Found]:
    """Heartbeats by id, by slug in each project, and by ping id, locked in id order until the transaction ends.

    Indexes: the primary key, uq_heartbeats_slug, uq_heartbeats_ping_id.
    """
    if conn.dialect.name == "sqlite":
        texts = [conn.scalar(_WAITING_BY_ID_AS_JSON, {"ids": json_rows(list(ids))})] if ids else []
        if ping_ids:
            texts.append(conn.scalar(_WAITING_BY_PING_ID_AS_JSON, {"ping_ids": json_rows(list(ping_ids))}))
        for project_id, names in slugs.items():
            texts.append(
                conn.scalar(_WAITING_BY_SLUG_AS_JSON, {"project": project_id, "slugs": json_rows(list(names))})
            )
        return [_found(row) for text in texts for row in orjson.loads(text or "[]")]
    # Most batches name all by ping ids, or all by slugs of one project, and are spared a statement.
    if ping_ids and not ids and not slugs:
        return [_found(row) for row in conn.execute(_WAITING_BY_PING_ID, {"ping_ids": list(ping_ids)})]
    if len(slugs) == 1 and not ids and not ping_ids:
        ((project_id, names),) = slugs.items()
        return [_found(row) for row in conn.execute(_WAITING_BY_SLUG, {"project": project_id, "slugs": list(names)})]
    by_slug = [
        found
        for project_id, names in slugs.items()
        for found in conn.scalars(_IDS_BY_SLUG, {"project": project_id, "slugs": list(names)})
    ]
    if ping_ids:
        by_slug += conn.scalars(_IDS_BY_PING_ID, {"ping_ids": list(ping_ids)})
    return [_found(row) for row in conn.execute(_WAITING_BY_ID, {"ids": sorted({*ids, *by_slug})})]


def _found(row: Sequence[Any]) -> Found:  # Any: a row of a table whose columns mypy does not know
    key, project_id, slug, managed_by, ping_id, ping_rules, extras, is_timed, run_due_at, results, status = row[:11]
    timing, rest = row[11:16], row[16:]
    is_ordinary = status == "active" and timing[0] != "oneshot" and run_due_at is None and results is None
    if managed_by is not None and managed_by.startswith(BOT_OWNER):
        is_ordinary = False
    if not is_ordinary or None in rest[3:]:
        return Found(key, project_id, slug, managed_by, ping_id, ping_rules, extras, bool(is_timed), None)
    waiting = Waiting(key, project_id, Timing(*timing), *rest)
    return Found(key, project_id, slug, managed_by, ping_id, ping_rules, extras, bool(is_timed), waiting)


def by_ids(conn: Connection, ids: Iterable[str], *, lock: bool = False) -> dict[str, Heartbeat]:
    """Heartbeats by id."""
    query = select(*_COLUMNS).where(H.id.in_(set(ids))).order_by(H.id)
    return {row[0]: _heartbeat(row) for row in conn.execute(query.with_for_update() if lock else query)}


def lock_free(conn: Connection, ids: Iterable[str]) -> dict[str, Heartbeat]:
    """Those of `ids` that nobody else is working on, locked, by id."""
    query = select(*_COLUMNS).where(H.id.in_(set(ids))).order_by(H.id).with_for_update(skip_locked=True)
    return {row[0]: _heartbeat(row) for row in conn.execute(query)}


class Running(NamedTuple):
    """A heartbeat of which a run reports progress."""

    id: str
    project_id: str
    slug: str | None
    managed_by: str | None
    incident_id: str | None
    minded: Minded


_RUNNING = (H.id, H.project_id, H.slug, H.managed_by, H.incident_id, *(H[name] for name in Minded._fields))
_RUNNING_BY_ID = select(*_RUNNING).where(among(H.id, "ids")).order_by(H.id).with_for_update()
_RUNNING_AS_JSON = select(func.json_group_array(func.json_array(*_RUNNING))).where(
    H.id.in_(select(json_each("ids").c.value))
)


def lock_running(conn: Connection, ids: Collection[str]) -> dict[str, Running]:
    """Heartbeats by id, locked in id order. Index: the primary key."""
    if conn.dialect.name == "sqlite":
        rows = orjson.loads(conn.scalar(_RUNNING_AS_JSON, {"ids": json_rows(list(ids))}) or "[]")
    else:
        rows = conn.execute(_RUNNING_BY_ID, {"ids": sorted(ids)}).all()
    return {row[0]: Running(row[0], row[1], row[2], row[3], row[4], Minded(*row[5:])) for row in rows}


def minded(changed: Mapping[str, tuple[Minded, Minded]]) -> list[Rows]:
    """What runs changed of heartbeats, by id, each before and after, to be written; mostly nothing in an index."""
    told: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
    for key, (before, after) in changed.items():
        is_bound_kept = before.check_at == after.check_at
        row = {
            "id": key,
            "next_deadline": after.next_deadline,
            "fires_at": after.fires_at,
            "armed_at": after.armed_at,
            "run_due_at": after.run_due_at,
        }
        told[is_bound_kept].append(row if is_bound_kept else row | {"check_at": after.check_at})
    return [Rows(heartbeats, rows) for rows in told.values()]


def save_check_ins(conn: Connection, checked_in: Iterable[Waiting], metadata: Mapping[str, str]) -> None:
    """The columns an ordinary check-in changes: none of them is in an index. Rows are locked already.

    metadata: JSON text by heartbeat id, of those that sent some.
    """
    plain: list[dict[str, Any]] = []
    full: list[dict[str, Any]] = []
    for each in checked_in:
        row = {
            "id": each.id,
            "last_checkin_at": each.last_checkin_at,
            "checkin_count": each.checkin_count,
            "anchor_at": each.anchor_at,
            "next_deadline": each.next_deadline,
            "fires_at": each.fires_at,
            "armed_at": each.last_checkin_at,
        }
        if each.id in metadata:
            full.append(row | {"metadata": metadata[each.id]})
        else:
            plain.append(row)
    update_many(conn, heartbeats, plain)
    update_many(conn, heartbeats, full)


def heartbeats_of(
    conn: Connection,
    project_id: str,
    *,
    limit: int,
    after: str | None,
    status: str | None,
    namespace: str | None,
    tags: Sequence[str],
    search: str | None,
) -> list[Heartbeat]:
    """Heartbeats of a project that match every filter, oldest first.

    Indexes: ix_heartbeats_project, ix_heartbeats_status, ix_heartbeats_namespace.
    """
    query: Select[Any] = select(*_COLUMNS).where(H.project_id == project_id)
    if after is not None:
        query = query.where(H.id > after)
    if status is not None:
        query = query.where(H.status == status)
    if namespace is not None:
        query = query.where(H.namespace == namespace)
    for tag in tags:
        # Two tags that happen to be neighbours are not one with a blank in it.
        query = query.where(contains(conn, H.tags, f" {tag} ") if tag.split() == [tag] else false())
    if search is not None:
        query = query.where(contains(conn, H.search, search.casefold()))
    return [_heartbeat(row) for row in conn.execute(query.order_by(H.id).limit(limit))]


def all_of(conn: Connection, project_id: str, *, tags: Sequence[str] = (), slug: str | None = None) -> list[Heartbeat]:
    """Heartbeats of a project that have all of `tags` and this slug, oldest first. Index: ix_heartbeats_project."""
    query: Select[Any] = select(*_COLUMNS).where(H.project_id == project_id)
    for tag in tags:
        query = query.where(contains(conn, H.tags, f" {tag} ") if tag.split() == [tag] else false())
    if slug is not None:
        query = query.where(H.slug == slug)
    return [_heartbeat(row) for row in conn.execute(query.order_by(H.id))]


def oldest_matching(conn: Connection, project_id: str, wanted: Mapping[str, Any]) -> Heartbeat | None:
    """The oldest heartbeat of a project whose columns have these values. Index: ix_heartbeats_project."""
    query: Select[Any] = select(*_COLUMNS).where(H.project_id == project_id, H.managed_by.is_(None))
    for name, value in wanted.items():
        query = query.where(H[name].is_(None) if value is None else H[name] == value)
    row = conn.execute(query.order_by(H.id).limit(1)).first()
    return None if row is None else _heartbeat(row)


def count_of(conn: Connection, project_id: str) -> int:
    """How many heartbeats a project has. Index: ix_heartbeats_project."""
    return conn.scalar(select(func.count()).select_from(heartbeats).where(H.project_id == project_id)) or 0


def taken_slugs(conn: Connection, project_id: str, slugs: Iterable[str]) -> set[str]:
    """Those of `slugs` that a heartbeat of the project has. Index: uq_heartbeats_slug."""
    return set(conn.scalars(select(H.slug).where(H.project_id == project_id, H.slug.in_(list(slugs)))))


def using_policy(conn: Connection, project_id: str, policy_id: str) -> list[Heartbeat]:
    """Heartbeats that name a policy, locked. Index: ix_heartbeats_policy."""
    query = select(*_COLUMNS).where(H.policy_id == policy_id, H.project_id == project_id).order_by(H.id)
    return [_heartbeat(row) for row in conn.execute(query.with_for_update())]


def names_using_policy(conn: Connection, project_id: str, policy_id: str) -> list[tuple[str, str]]:
    """Id and name of the heartbeats that name a policy. Index: ix_heartbeats_policy."""
    query = select(*_CALLED).where(H.policy_id == policy_id, H.project_id == project_id).order_by(H.name, H.id)
    return [(row.id, called(*row)) for row in conn.execute(query)]


def count_by_policy(conn: Connection, project_id: str) -> dict[str, int]:
    """How many heartbeats name each policy that is named at all. Index: ix_heartbeats_project."""
    query = select(H.policy_id, func.count()).where(H.project_id == project_id, H.policy_id.is_not(None))
    return {row[0]: row[1] for row in conn.execute(query.group_by(H.policy_id))}


def names_using_channel(conn: Connection, project_id: str, channel_id: str) -> list[tuple[str, str]]:
    """Id and name of the heartbeats that name a channel of their own. Index: ix_heartbeats_project."""
    is_named = contains(conn, H.own_channels, f'"{channel_id}"')
    query = select(*_CALLED).where(H.project_id == project_id, is_named).order_by(H.name, H.id)
    return [(row.id, called(*row)) for row in conn.execute(query)]


def using_channel(conn: Connection, project_id: str, channel_id: str) -> list[Heartbeat]:
    """Heartbeats that name a channel of their own, locked."""
    query = select(*_COLUMNS).where(H.project_id == project_id, contains(conn, H.own_channels, f'"{channel_id}"'))
    return [_heartbeat(row) for row in conn.execute(query.order_by(H.id).with_for_update())]


# Sweep --------------------------------------------------------------------------------------------------------------
def due_ids(conn: Connection, now: EpochMs, limit: int, without: Collection[str]) -> list[str]:
    """Ids of heartbeats whose bound has passed, longest first. Index: ix_heartbeats_check_at."""
    query = select(H.id).where(H.check_at <= now, H.id.not_in(list(without))).order_by(H.check_at).limit(limit)
    return list(conn.scalars(query))


def lock_due(
    conn: Connection, now: EpochMs, limit: int, *, without: Collection[str] = (), only: str | None = None
) -> list[Heartbeat]:
    """Heartbeats whose bound has passed, longest first, locked; others' are skipped. Index: ix_heartbeats_check_at."""
    query = select(*_COLUMNS).where(H.check_at <= now)
    if without:
        query = query.where(H.id.not_in(list(without)))
    if only is not None:
        query = query.where(H.id == only)
    rows = conn.execute(query.order_by(H.check_at).limit(limit).with_for_update(skip_locked=True))
    return [_heartbeat(row) for row in rows]


def lock_held(conn: Connection, blind: Blindness, limit: int) -> list[Heartbeat]:
    """Heartbeats that wait because of this span, locked; others' are skipped. Index: ix_heartbeats_check_at."""
    hold_ms = case(
        (H.grace_ms < blind.min_hold_ms, blind.min_hold_ms),
        (H.grace_ms > blind.max_hold_ms, blind.max_hold_ms),
        else_=H.grace_ms,
    )
    query = select(*_COLUMNS).where(
        H.check_at >= blind.to_at + blind.min_hold_ms,
        H.check_at <= blind.to_at + blind.max_hold_ms,
        H.fires_at - hold_ms == blind.to_at,
        H.armed_at < blind.to_at,
    )
    rows = conn.execute(query.order_by(H.check_at).limit(limit).with_for_update(skip_locked=True))
    return [_heartbeat(row) for row in rows]


def save_waits(conn: Connection, waiting: Iterable[Heartbeat]) -> None:
    """What heartbeats wait for after a silence that did not make them fire, in id order."""
    changed = ("anchor_at", "next_deadline", "fires_at", "armed_at", "check_at", "run_due_at", "results")
    rows = [
        {"id": each.id} | {name: getattr(each, name) for name in changed}
        for each in sorted(waiting, key=lambda each: each.id)
    ]
    update_many(conn, heartbeats, rows)


def set_bounds(conn: Connection, bounds: Mapping[str, EpochMs | None]) -> None:
    """Move the bounds of heartbeats, in id order."""
    update_many(conn, heartbeats, [{"id": key, "check_at": bounds[key]} for key in sorted(bounds)])


def save_holds(conn: Connection, held: Iterable[Heartbeat]) -> None:
    """Let heartbeats fire later, in id order; when their check-in was expected stays as it was."""
    rows = [
        {"id": each.id, "fires_at": each.fires_at, "check_at": each.fires_at, "run_due_at": each.run_due_at}
        for each in sorted(held, key=lambda each: each.id)
    ]
    update_many(conn, heartbeats, rows)


_FIRED: dict[str, Any] = {  # Any: values of columns
    "status": "firing",
    "is_armed": 1,
    "next_deadline": None,
    "fires_at": None,
    "armed_at": None,
}


def save_firing(conn: Connection, incidents: Mapping[str, str]) -> None:
    """Turn heartbeats to firing: heartbeat id -> incident id."""
    rows = [{"id": key, "incident_id": incidents[key], "check_at": None, **_FIRED} for key in sorted(incidents)]
    update_many(conn, heartbeats, rows)


def save_fired(conn: Connection, fired: Iterable[Heartbeat]) -> None:
    """Turn heartbeats to firing, each with its incident, its runs and how often it fired lately, in id order."""
    changed = ("incident_id", "flap_penalty", "flap_at", "flap_incident_id", "check_at", "run_due_at", "results")
    rows = [
        {"id": each.id, "is_flapping": int(each.is_flapping)} | {name: getattr(each, name) for name in changed} | _FIRED
        for each in sorted(fired, key=lambda each: each.id)
    ]
    update_many(conn, heartbeats, rows)


def count_armed(conn: Connection, project_id: str) -> int:
    """How many heartbeats of a project wait for a check-in. Index: ix_heartbeats_project."""
    query = select(func.count()).where(H.project_id == project_id, H.fires_at.is_not(None))
    return conn.scalar(query) or 0


def lock_flapping(conn: Connection, ids: Iterable[str]) -> list[Heartbeat]:
    """Those of `ids` that flap and that nobody else is working on, locked."""
    query = select(*_COLUMNS).where(H.id.in_(set(ids)), H.is_flapping == 1).order_by(H.id)
    return [_heartbeat(row) for row in conn.execute(query.with_for_update(skip_locked=True))]


def existing(conn: Connection, ids: Iterable[str]) -> set[str]:
    """Those of `ids` that are heartbeats."""
    return set(conn.scalars(select(H.id).where(H.id.in_(set(ids)))))


_NEXT_BOUND = select(func.min(H.check_at)).where(H.check_at.is_not(None))


def next_bound(conn: Connection) -> EpochMs | None:
    """The earliest bound of all heartbeats. Index: ix_heartbeats_check_at."""
    bound: EpochMs | None = conn.scalar(_NEXT_BOUND)
    return bound


# Dependencies -------------------------------------------------------------------------------------------------------
def set_dependencies(conn: Connection, heartbeat: Heartbeat) -> None:
    """Let the index say what the heartbeat says of itself."""
    conn.execute(delete(dependencies).where(D.heartbeat_id == heartbeat.id))
    rows = [
        {"heartbeat_id": heartbeat.id, "depends_on_id": each, "project_id": heartbeat.project_id}
        for each in heartbeat.depends_on
    ]
    insert_many(conn, dependencies, rows)


def dependencies_of(conn: Connection, ids: Iterable[str]) -> dict[str, set[str]]:
    """What heartbeats depend on, directly, by id. Index: the primary key."""
    found: dict[str, set[str]] = {}
    for row in conn.execute(select(D.heartbeat_id, D.depends_on_id).where(D.heartbeat_id.in_(set(ids)))):
        found.setdefault(row.heartbeat_id, set()).add(row.depends_on_id)
    return found


def dependents_of(conn: Connection, ids: Iterable[str]) -> set[str]:
    """Heartbeats that depend on one of `ids`, directly. Index: ix_dependencies_depends_on."""
    return set(conn.scalars(select(D.heartbeat_id).where(D.depends_on_id.in_(set(ids)))))


def firing_among(conn: Connection, ids: Iterable[str]) -> set[str]:
    """Those of `ids` that fire."""
    return set(conn.scalars(select(H.id).where(H.id.in_(set(ids)), H.status == "firing")))


def ids_of_refs(conn: Connection, project_id: str, refs: Iterable[str]) -> dict[str, str]:
    """The heartbeats of a project that these ids or slugs name: ref -> id.

    Indexes: the primary key, uq_heartbeats_slug.
    """
    wanted = set(refs)
    rows = conn.execute(
        select(H.id, H.slug).where(H.project_id == project_id, or_(H.id.in_(wanted), H.slug.in_(wanted)))
    )
    return {ref: row.id for row in rows for ref in (row.id, row.slug) if ref in wanted}


# Repeated requests --------------------------------------------------------------------------------------------------
class KeptAnswer(NamedTuple):
    """The body of an answer, and when it was given."""

    body: str
    created_at: EpochMs


def answers_kept(conn: Connection, pairs: Iterable[tuple[str, str]]) -> dict[tuple[str, str], KeptAnswer]:
    """Answers that are kept, however old, by (heartbeat, idempotency key). Index: the primary key."""
    wanted = set(pairs)
    if not wanted:
        return {}
    if conn.dialect.name == "sqlite":
        # Pair by pair: of two lists it would look for each of one with each of the other.
        rows = conn.execute(_KEPT_OF_PAIRS, {"pairs": json_rows(list(wanted))})
    else:
        rows = conn.execute(_KEPT, {"heartbeats": list({one for one, _ in wanted}), "keys": [key for _, key in wanted]})
    return {pair: KeptAnswer(row[2], row[3]) for row in rows if (pair := (row[0], row[1])) in wanted}


_ANSWER = select(K.heartbeat_id, K.key, K.body, K.created_at)
_PAIR = json_each("pairs").c.value
_KEPT_OF_PAIRS = _ANSWER.where(
    K.heartbeat_id == func.json_extract(_PAIR, "$[0]"), K.key == func.json_extract(_PAIR, "$[1]")
)
_KEPT = _ANSWER.where(among(K.heartbeat_id, "heartbeats"), among(K.key, "keys"))


def keep_answers(conn: Connection, rows: Sequence[dict[str, Any]], stale: Iterable[tuple[str, str]]) -> None:
    """Keep bodies for repeats; `stale` ones, kept for too long under the same keys, make room."""
    aged = [{"hb": heartbeat, "k": key} for heartbeat, key in stale]
    if aged:
        conn.execute(_STALE, aged)
    insert_many(conn, idempotency_keys, rows)


_STALE = delete(idempotency_keys).where(K.heartbeat_id == bindparam("hb"), K.key == bindparam("k"))


def forget_answers(conn: Connection, before: EpochMs, limit: int) -> int:
    """Delete kept bodies that are too old. Index: ix_idempotency_keys_created."""
    stale = select(K.heartbeat_id, K.key).where(K.created_at <= before).limit(limit)
    rows = [{"hb": row[0], "k": row[1]} for row in conn.execute(stale)]
    if rows:
        conn.execute(delete(idempotency_keys).where(K.heartbeat_id == bindparam("hb"), K.key == bindparam("k")), rows)
    return len(rows)
