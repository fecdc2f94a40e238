"""Maintenance windows: kept, and asked who is covered. Their edges are timers of the engine."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import Any, Protocol

from sqlalchemy import Connection

from lifesign.clock import EpochMs
from lifesign.faults import Fault, InvalidInput
from lifesign.ids import new_id
from lifesign.maintenance import rules, store
from lifesign.maintenance.rules import Definition, Window, WindowNotFound


class Covered(Protocol):
    """What a window looks at of a heartbeat."""

    @property
    def id(self) -> str:
        """Its id."""

    @property
    def project_id(self) -> str:
        """Whose it is."""

    @property
    def namespace(self) -> str | None:
        """Its group."""

    @property
    def tags(self) -> tuple[str, ...]:
        """Its tags."""


def covered_until(conn: Connection, heartbeats: Collection[Covered], now: EpochMs) -> dict[str, EpochMs]:
    """Those of the heartbeats that are in a window now, and when the last of the windows that are open closes."""
    return covered_at(conn, [(each, now) for each in heartbeats])


def covered_at(conn: Connection, moments: Collection[tuple[Covered, EpochMs]]) -> dict[str, EpochMs]:
    """The same, each heartbeat at a moment of its own."""
    if not moments:
        return {}
    instants = {at for _, at in moments}
    project_ids = sorted({each.project_id for each, _ in moments})
    windows = store.current_of(conn, project_ids, min(instants), max(instants))
    opened = [(each, closings) for each in windows if (closings := rules.closings(each, instants))]
    return {} if not opened else _covered(moments, opened)


def _covered(
    moments: Iterable[tuple[Covered, EpochMs]], opened: Sequence[tuple[Window, Mapping[EpochMs, EpochMs]]]
) -> dict[str, EpochMs]:
    found: dict[str, EpochMs] = {}
    for heartbeat, at in moments:
        ends = [
            closings[at]
            for window, closings in opened
            if at in closings
            and window.project_id == heartbeat.project_id
            and window.covers(heartbeat.id, heartbeat.namespace, heartbeat.tags)
        ]
        if ends:
            found[heartbeat.id] = max(ends)
    return found


class Coverage(Protocol):
    """Those whom windows are about, asked by the windows, which know no heartbeats."""

    def ids_of_refs(self, conn: Connection, project_id: str, refs: Collection[str]) -> dict[str, str]:
        """The heartbeats that these ids or slugs name: ref -> id."""

    def judge(self, conn: Connection, project_id: str, windows: Sequence[Window], now: EpochMs) -> None:
        """These windows of a project are new, or changed: whoever is in one by now, or no longer, is told."""

    def forget(self, conn: Connection, project_id: str, window_id: str, now: EpochMs) -> None:
        """A window is gone."""


def create(
    conn: Connection,
    project_id: str,
    definition: Definition,
    *,
    coverage: Coverage,
    now: EpochMs,
    origin: str | None = None,
) -> Window:
    """A new window. Raises InvalidInput for heartbeats that do not exist."""
    definition = _with_ids(conn, project_id, definition, coverage)
    window = Window(
        id=new_id("mw", now),
        project_id=project_id,
        created_at=now,
        updated_at=None,
        origin=origin,
        **asdict(definition),
    )
    store.insert(conn, window)
    coverage.judge(conn, project_id, [window], now)
    return window


def edit(
    conn: Connection,
    project_id: str,
    window_id: str,
    changes: Mapping[str, Any],
    *,
    check: Callable[[Definition, Mapping[str, Any]], Definition],
    coverage: Coverage,
    now: EpochMs,
) -> Window:
    """Change a window. Raises WindowNotFound, InvalidInput.

    check: raises InvalidInput when the whole would not pass as a new window.
    """
    before = get(conn, project_id, window_id, lock=True)
    present = Definition(**{field.name: getattr(before, field.name) for field in fields(Definition)})
    wanted = check(present, changes)
    if "target" in changes:  # or one that is gone by now would stand in the way of every other change
        wanted = _with_ids(conn, project_id, wanted, coverage)
    if wanted == present:
        return before
    after = replace(before, updated_at=now, **asdict(wanted))
    store.save(conn, after)
    coverage.judge(conn, project_id, [after], now)
    return after


def delete(conn: Connection, project_id: str, window_id: str, *, coverage: Coverage, now: EpochMs) -> None:
    """Remove a window, which ends it. Raises WindowNotFound."""
    get(conn, project_id, window_id, lock=True)
    store.delete_window(conn, window_id)
    coverage.forget(conn, project_id, window_id, now)


def _with_ids(conn: Connection, project_id: str, definition: Definition, coverage: Coverage) -> Definition:
    if definition.target != "heartbeats":
        return definition
    ids = coverage.ids_of_refs(conn, project_id, definition.members)
    faults = [
        Fault(f"heartbeats[{position}]", "unknown heartbeat", ref, has_value=True)
        for position, ref in enumerate(definition.members)
        if ref not in ids
    ]
    if faults:
        raise InvalidInput(*faults)
    return replace(definition, members=tuple(dict.fromkeys(ids[ref] for ref in definition.members)))


def get(conn: Connection, project_id: str, window_id: str, *, lock: bool = False) -> Window:
    """One window. Raises WindowNotFound."""
    found = store.by_id(conn, project_id, window_id, lock=lock)
    if found is None:
        raise WindowNotFound
    return found


list_windows = store.windows_of
by_ids = store.by_ids
