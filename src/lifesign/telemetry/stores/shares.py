"""What sessions have: how many records, of which environments, under which aliases. Counted in, and out again.

Whoever counts holds the lock of the project, see `append.lock`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import orjson
from sqlalchemy import Connection, delete, select, text

from lifesign.telemetry.stores.tables import session_aliases, session_environments, sessions, traces


@dataclass(slots=True)
class Share:
    """What a session gets or loses. environments, aliases: how many records have each."""

    turns: int = 0
    last_received_at: int = 0
    environments: Counter[int] = field(default_factory=Counter)
    aliases: Counter[str] = field(default_factory=Counter)

    def add(self, turns: int, received_at: int, environment: int | None) -> None:
        self.turns += turns
        self.last_received_at = max(self.last_received_at, received_at)
        if environment is not None:
            self.environments[environment] += turns


def grow(conn: Connection, project: int, gains: Mapping[str, Share]) -> dict[str, int]:
    """Count what sessions get, new ones if need be; the number of each."""
    rows = [[session_id, gain.turns, gain.last_received_at] for session_id, gain in sorted(gains.items())]
    is_sqlite = conn.dialect.name == "sqlite"
    given = {"project": project, "rows": orjson.dumps(rows).decode()}
    grown = conn.execute(_GROW_SQLITE if is_sqlite else _GROW_POSTGRES, given)
    ids = {row.session_id: row.id for row in grown}
    environments = [
        [ids[session_id], environment, turns]
        for session_id, gain in gains.items()
        for environment, turns in gain.environments.items()
    ]
    if environments:
        given = {"rows": orjson.dumps(environments).decode()}
        conn.execute(_ENVIRONMENTS_SQLITE if is_sqlite else _ENVIRONMENTS_POSTGRES, given)
    aliases = [
        {"project": project, "alias": alias, "session": ids[session_id], "turns": turns}
        for session_id, gain in gains.items()
        for alias, turns in gain.aliases.items()
    ]
    if aliases:
        conn.execute(
            text(
                "INSERT INTO session_aliases (project, alias, session, turns) "
                "VALUES (:project, :alias, :session, :turns) "
                "ON CONFLICT (project, alias, session) DO UPDATE SET turns = session_aliases.turns + excluded.turns"
            ),
            aliases,
        )
    return ids


def take_away(conn: Connection, lost: Mapping[int, Share]) -> None:
    """Count records that left sessions."""
    rows = [{"its_id": session, "lost": share.turns} for session, share in lost.items()]
    conn.execute(
        text("UPDATE sessions SET turns = turns - :lost, version = version + 1, summary = NULL WHERE id = :its_id"),
        rows,
    )
    environments = [
        {"its_session": session, "its_environment": environment, "lost": turns}
        for session, share in lost.items()
        for environment, turns in share.environments.items()
    ]
    if environments:
        conn.execute(
            text(
                "UPDATE session_environments SET turns = turns - :lost "
                "WHERE session = :its_session AND environment = :its_environment"
            ),
            environments,
        )
        conn.execute(
            delete(session_environments).where(
                session_environments.c.session.in_(list(lost)), session_environments.c.turns <= 0
            )
        )
    aliases = [
        {"its_session": session, "its_alias": alias, "lost": turns}
        for session, share in lost.items()
        for alias, turns in share.aliases.items()
    ]
    if aliases:
        conn.execute(
            text(
                "UPDATE session_aliases SET turns = turns - :lost WHERE session = :its_session AND alias = :its_alias"
            ),
            aliases,
        )
        of_them = session_aliases.c.session.in_(list(lost))
        conn.execute(delete(session_aliases).where(of_them, session_aliases.c.turns <= 0))


def drop_empty(conn: Connection, candidates: Iterable[int]) -> list[int]:
    """Delete those sessions that have no record and name no trace; the others that have records."""
    among = sessions.c.id.in_(list(candidates))
    has_trace = select(traces.c.session).where(traces.c.session == sessions.c.id).exists()
    # A trace may still be named after a session whose records are gone: its own will be in there.
    empty = list(conn.scalars(select(sessions.c.id).where(among, sessions.c.turns <= 0, ~has_trace)))
    if empty:
        conn.execute(delete(session_aliases).where(session_aliases.c.session.in_(empty)))
        conn.execute(delete(session_environments).where(session_environments.c.session.in_(empty)))
        conn.execute(delete(sessions).where(sessions.c.id.in_(empty)))
    return list(conn.scalars(select(sessions.c.id).where(among, sessions.c.turns > 0)))


# Below ---------------------------------------------------------------------------------------------------------------
# One statement for all sessions of a request: RETURNING does not go with many executions of one.
_GROW = """
INSERT INTO sessions (project, session_id, turns, last_received_at, version)
SELECT :project, {0}, {1}, {2}, 1 FROM {rows}
ON CONFLICT (project, session_id) DO UPDATE SET
  turns = sessions.turns + excluded.turns,
  last_received_at = {later} (sessions.last_received_at, excluded.last_received_at),
  version = sessions.version + 1,
  summary = NULL
RETURNING id, session_id
"""
_ENVIRONMENTS = """
INSERT INTO session_environments (session, environment, turns)
SELECT {0}, {1}, {2} FROM {rows}
ON CONFLICT (session, environment) DO UPDATE SET turns = session_environments.turns + excluded.turns
"""
_OF_SQLITE: Final = {"rows": "json_each(:rows) WHERE true", "later": "max"}
_OF_POSTGRES: Final = {"rows": "json_array_elements(CAST(:rows AS json))", "later": "greatest"}
_MEMBERS: Final = [f"json_extract(value, '$[{place}]')" for place in range(3)]
_NUMBERS: Final = [f"CAST(value ->> {place} AS bigint)" for place in range(3)]
_GROW_SQLITE = text(_GROW.format(*_MEMBERS, **_OF_SQLITE))
_GROW_POSTGRES = text(_GROW.format("value ->> 0", *_NUMBERS[1:], **_OF_POSTGRES))
_ENVIRONMENTS_SQLITE = text(_ENVIRONMENTS.format(*_MEMBERS, **_OF_SQLITE))
_ENVIRONMENTS_POSTGRES = text(_ENVIRONMENTS.format(*_NUMBERS, **_OF_POSTGRES))
