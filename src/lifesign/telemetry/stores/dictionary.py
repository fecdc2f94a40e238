"""Numbers for texts that repeat, and for projects; remembered, since nearly every record names the same few."""

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from sqlalchemy import Connection, func, select, text

from lifesign.clock import EpochMs
from lifesign.telemetry.stores.batches import batches
from lifesign.telemetry.stores.tables import span_projects, strings

DAY_MS: Final = 24 * 3600 * 1000
_SHORT: Final = 100
_KEPT_OF_LONG: Final = 60
_MOST_REMEMBERED: Final = 50_000
_LONGEST_REMEMBERED: Final = 4096
_AT_ONCE: Final = 10_000


@dataclass(frozen=True, slots=True)
class Learned:
    """What a transaction found out; true once it has committed."""

    project: tuple[str, int]
    day: int
    numbers: dict[str, int]


@dataclass(slots=True)
class Dictionary:
    """What this process knows of the tables `span_projects` and `strings`. Used from several threads.

    A number is good for the day on which it was asked for: whoever deletes a string looks at that day.
    """

    _projects: dict[str, int] = field(default_factory=dict)
    _numbers: "OrderedDict[tuple[int, str], tuple[int, int]]" = field(default_factory=OrderedDict)
    _texts: "OrderedDict[int, str]" = field(default_factory=OrderedDict)

    def project(self, project_id: str) -> int | None:
        """The number of a project, if it is remembered."""
        return self._projects.get(project_id)

    def known(self, project: int, day: int, texts: Iterable[str]) -> dict[str, int]:
        """The numbers that are good today."""
        found = {}
        for each in texts:
            number, asked_on = self._numbers.get((project, each), (0, -1))
            if asked_on == day:
                found[each] = number
        return found

    def learn(self, learned: Learned) -> None:
        """Remember what a transaction found out, after its commit."""
        project_id, project = learned.project
        if len(self._projects) >= _MOST_REMEMBERED:
            self._projects.clear()
        self._projects[project_id] = project
        for each, number in learned.numbers.items():
            if len(each) <= _LONGEST_REMEMBERED:
                self._numbers[project, each] = (number, learned.day)
        _shortened(self._numbers)

    def forget(self, project_ids: Iterable[str]) -> None:
        """These projects are gone."""
        for project_id in project_ids:
            self._projects.pop(project_id, None)

    def texts(self, conn: Connection, numbers: set[int]) -> dict[int | None, str | None]:
        """The text of each number that has one; None of None."""
        found: dict[int | None, str | None] = {None: None}
        missing = []
        for number in numbers:
            known = self._texts.get(number)
            if known is None:
                missing.append(number)
            else:
                found[number] = known
        for some in batches(missing, _AT_ONCE):
            found |= _texts(conn, some)
        for number in missing:
            told = found.get(number)
            if told is not None and len(told) <= _LONGEST_REMEMBERED:
                self._texts[number] = told
        _shortened(self._texts)
        return found


def _shortened(remembered: "OrderedDict[Any, Any]") -> None:
    while len(remembered) > _MOST_REMEMBERED:
        try:
            remembered.popitem(last=False)
        except KeyError:
            return  # another thread was quicker


def day_of(at: EpochMs) -> int:
    """Days since 1970."""
    return at // DAY_MS


# SQL -----------------------------------------------------------------------------------------------------------------
def project_number(conn: Connection, project_id: str) -> int | None:
    """The number of a project; None for one that never had a record."""
    found: int | None = conn.scalar(select(span_projects.c.id).where(span_projects.c.project_id == project_id))
    return found


def number_of_project(conn: Connection, project_id: str) -> int:
    """The number of a project, a new one if need be."""
    conn.execute(
        text("INSERT INTO span_projects (project_id) VALUES (:project_id) ON CONFLICT (project_id) DO NOTHING"),
        {"project_id": project_id},
    )
    number = project_number(conn, project_id)
    if number is None:
        msg = "a row that was just inserted is there"
        raise AssertionError(msg)
    return number


def string_number(conn: Connection, project: int, wanted: str) -> int | None:
    """The number of a text; None for one that no record names."""
    is_it = (strings.c.project == project) & (strings.c.key == key_of(wanted))
    found: int | None = conn.scalar(select(strings.c.id).where(is_it))
    return found


def key_of(whole: str) -> str:
    """What a text is found by. Longer ones than any short text, so that none can pass for another."""
    if len(whole) <= _SHORT:
        return whole
    digest = hashlib.sha256(whole.encode(errors="surrogatepass")).hexdigest()[: _SHORT - _KEPT_OF_LONG]
    return f"{whole[:_KEPT_OF_LONG]}~{digest}"


# One statement for all texts of a request: RETURNING does not go with many executions of one.
_USE_STRINGS = """
INSERT INTO strings (project, key, text, used_on)
SELECT :project, {key}, {text}, :day FROM {rows}
ON CONFLICT (project, key) DO UPDATE SET used_on = {later} (strings.used_on, excluded.used_on)
RETURNING id, key
"""
_USE_SQLITE = text(
    _USE_STRINGS.format(
        key="json_extract(value, '$[0]')",
        text="json_extract(value, '$[1]')",
        rows="json_each(:rows) WHERE true",
        later="max",
    )
)
_USE_POSTGRES = text(
    _USE_STRINGS.format(
        key="value ->> 0", text="value ->> 1", rows="json_array_elements(CAST(:rows AS json))", later="greatest"
    )
)


def use_strings(conn: Connection, project: int, day: int, texts: Sequence[str]) -> Mapping[str, int]:
    """The number of each of these texts, which are named today."""
    if not texts:
        return {}
    # In one order, so that two transactions never wait for each other.
    keys = {key_of(each): each for each in texts}
    rows = [[key, None if key == keys[key] else keys[key]] for key in sorted(keys)]
    statement = _USE_SQLITE if conn.dialect.name == "sqlite" else _USE_POSTGRES
    given = {"project": project, "day": day, "rows": orjson.dumps(rows).decode()}
    return {keys[row.key]: row.id for row in conn.execute(statement, given)}


def _texts(conn: Connection, numbers: Sequence[int]) -> dict[int | None, str | None]:
    whole = func.coalesce(strings.c.text, strings.c.key).label("whole")
    return {row.id: row.whole for row in conn.execute(select(strings.c.id, whole).where(strings.c.id.in_(numbers)))}
