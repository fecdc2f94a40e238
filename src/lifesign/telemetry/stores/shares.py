"""What sessions have: how many records, of which environments, under which aliases. Counted in, and out again.

Whoever counts holds the lock of the project, see `append.lock`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import orjson
from sqlalchemy import Connection, Result, TextClause, text


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
    ids = {row.session_id: row.id for row in _run(conn, _GROWN, rows, project=project)}
    environments = [
        [ids[session_id], environment, turns]
        for session_id, gain in gains.items()
        for environment, turns in gain.environments.items()
    ]
    if environments:
        _run(conn, _WITH_ENVIRONMENTS, environments)
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
    _run(conn, _LOST, [[session, share.turns] for session, share in lost.items()])
    environments = [
        [session, environment, turns]
        for session, share in lost.items()
        for environment, turns in share.environments.items()
    ]
    if environments:
        _run(conn, _WITHOUT_ENVIRONMENTS, environments)
        _run(conn, _NO_ENVIRONMENTS, [[session] for session in lost])
    aliases = [[session, alias, turns] for session, share in lost.items() for alias, turns in share.aliases.items()]
    if aliases:
        _run(conn, _WITHOUT_ALIASES, aliases)
        _run(conn, _NO_ALIASES, [[session] for session in lost])


def drop_empty(conn: Connection, candidates: Iterable[int]) -> list[int]:
    """Delete those sessions that have no record and name no trace; the others that have records."""
    settled = _run(conn, _SETTLED, [[session] for session in candidates]).all()
    empty = [[row.id] for row in settled if not row.goes_on]
    if empty:
        for statement in _GONE:
            _run(conn, statement, empty)
    return [row.id for row in settled if row.goes_on]


# Below ---------------------------------------------------------------------------------------------------------------
# One statement for all sessions of a request, however many: rows are one parameter, of which a statement may have
# 32,766 on SQLite and 65,535 on PostgreSQL. And RETURNING does not go with many executions of one.
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
_LOSE = """
UPDATE sessions SET turns = sessions.turns - lost.turns, version = version + 1, summary = NULL
FROM (SELECT {0} AS session, {1} AS turns FROM {rows}) AS lost WHERE id = lost.session
"""
_LOSE_ENVIRONMENTS = """
UPDATE session_environments SET turns = session_environments.turns - lost.turns
FROM (SELECT {0} AS session, {1} AS environment, {2} AS turns FROM {rows}) AS lost
WHERE session_environments.session = lost.session AND session_environments.environment = lost.environment
"""
_LOSE_ALIASES = """
UPDATE session_aliases SET turns = session_aliases.turns - lost.turns
FROM (SELECT {0} AS session, {1} AS alias, {2} AS turns FROM {rows}) AS lost
WHERE session_aliases.session = lost.session AND session_aliases.alias = lost.alias
"""
# A trace may still be named after a session whose records are gone: its own will be in there.
_EMPTY_OR_NOT = """
SELECT id, turns > 0 AS goes_on FROM sessions
WHERE id IN (SELECT {0} FROM {rows})
  AND (turns > 0 OR NOT EXISTS (SELECT 1 FROM traces WHERE traces.session = sessions.id))
"""
_OF_SQLITE: Final = {"rows": "json_each(:rows) WHERE true", "later": "max"}
_OF_POSTGRES: Final = {"rows": "json_array_elements(CAST(:rows AS json))", "later": "greatest"}
_MEMBERS: Final = [f"json_extract(value, '$[{place}]')" for place in range(3)]
_NUMBERS: Final = [f"CAST(value ->> {place} AS bigint)" for place in range(3)]
_TEXTS: Final = [f"value ->> {place}" for place in range(3)]


class _Statement(NamedTuple):
    """One that takes rows as JSON, in the words of each database."""

    sqlite: TextClause
    postgres: TextClause


def _statement(template: str, members: Sequence[str]) -> _Statement:
    """members: what each place of a row is on PostgreSQL, a number or a text; SQLite sees that by itself."""
    return _Statement(text(template.format(*_MEMBERS, **_OF_SQLITE)), text(template.format(*members, **_OF_POSTGRES)))


_GROWN: Final = _statement(_GROW, [_TEXTS[0], *_NUMBERS[1:]])
_WITH_ENVIRONMENTS: Final = _statement(_ENVIRONMENTS, _NUMBERS)
_LOST: Final = _statement(_LOSE, _NUMBERS)
_WITHOUT_ENVIRONMENTS: Final = _statement(_LOSE_ENVIRONMENTS, _NUMBERS)
_WITHOUT_ALIASES: Final = _statement(_LOSE_ALIASES, [_NUMBERS[0], _TEXTS[1], _NUMBERS[2]])
_NO_ENVIRONMENTS: Final = _statement(
    "DELETE FROM session_environments WHERE session IN (SELECT {0} FROM {rows}) AND turns <= 0", _NUMBERS
)
_NO_ALIASES: Final = _statement(
    "DELETE FROM session_aliases WHERE session IN (SELECT {0} FROM {rows}) AND turns <= 0", _NUMBERS
)
_SETTLED: Final = _statement(_EMPTY_OR_NOT, _NUMBERS)
_GONE: Final = (
    _statement("DELETE FROM session_aliases WHERE session IN (SELECT {0} FROM {rows})", _NUMBERS),
    _statement("DELETE FROM session_environments WHERE session IN (SELECT {0} FROM {rows})", _NUMBERS),
    _statement("DELETE FROM sessions WHERE id IN (SELECT {0} FROM {rows})", _NUMBERS),
)


def _run(conn: Connection, statement: _Statement, rows: Sequence[Sequence[object]], **given: int) -> Result[Any]:
    chosen = statement.sqlite if conn.dialect.name == "sqlite" else statement.postgres
    return conn.execute(chosen, {"rows": orjson.dumps(rows).decode(), **given})
