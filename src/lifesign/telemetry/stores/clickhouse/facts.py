"""What the rules of diagnosis read of a project, and the details of what fired. Spec "Diagnosis", section 3."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from lifesign.clock import EpochMs
from lifesign.diagnosis.details import Details, Fetch, Wanted, details_of
from lifesign.diagnosis.facts import Facts, Windows, facts_of, newest
from lifesign.diagnosis.preparation import Key, Placed, key_of
from lifesign.telemetry.stores.clickhouse import queries
from lifesign.telemetry.stores.clickhouse.client import Asked
from lifesign.telemetry.stores.clickhouse.rows import narrow_of, record_of

T = TypeVar("T")
_KEYS_AT_ONCE: Final = 2000


def examine(
    asked: Asked,
    project_id: str,
    windows: Windows,
    judge: Callable[[Facts, Fetch], T],
    *,
    most_of_a_session: int,
    pending: int,
) -> T:
    """What `judge` says; see SpanStore.examine. pending: how many records of the project wait in the spool."""
    current = newest(_read(asked, project_id, windows, windows.current), windows.most_records)
    baseline = newest(_read(asked, project_id, windows, windows.baseline), windows.most_records)
    facts = facts_of(
        current.records,
        baseline.records,
        known=_parents(asked, project_id, current.records),
        most_of_a_session=most_of_a_session,
    )
    notices = {**facts.notices, "pending_records": pending, "window_truncated": current.left_out}
    facts = Facts(
        facts.current,
        facts.baseline,
        {code: number for code, number in notices.items() if number},
        current.effective_since,
    )

    def fetch(wanted: Wanted) -> Details:
        return details_of(current.records, wanted, _messages(asked, project_id, sorted(wanted.messages)))

    return judge(facts, fetch)


def _read(asked: Asked, project_id: str, windows: Windows, arrived: tuple[EpochMs, EpochMs]) -> list[Placed]:
    since, until = arrived
    parameters = {"project": project_id, "since": since, "until": until}
    placed = (Placed(row[-1], narrow_of(row)) for row in asked.stream(queries.ARRIVED_IN, parameters))
    return [each for each in placed if windows.environment in {None, each.record.environment}]


def _parents(asked: Asked, project_id: str, records: Sequence[Placed]) -> set[Key]:
    """Those of the parents of these records that are stored."""
    there = {key_of(placed) for placed in records}
    parents = {(record.trace_id, record.parent_id) for _, record in records if record.parent_id} - there
    found: set[Key] = set()
    for parameters in _by_keys(project_id, sorted(parents)):
        found |= {(row[0], row[1]) for row in asked.rows(queries.STORED, parameters)}
    return found


def _messages(asked: Asked, project_id: str, keys: Sequence[Key]) -> Mapping[Key, str]:
    found: dict[Key, str] = {}
    for parameters in _by_keys(project_id, keys):
        for record in (record_of(row, row[-1]) for row in asked.rows(queries.RECORDS, parameters)):
            if record.body.message is not None:
                found[record.trace_id, record.span_id] = record.body.message
    return found


def _by_keys(project_id: str, keys: Sequence[Key]) -> list[dict[str, Any]]:
    """Parameters that find some records, a few at a time: a server takes parameters of 128 kB each."""
    return [
        {
            "project": project_id,
            "traces": sorted({trace_id for trace_id, _ in some}),
            "keys": [f"{trace_id}{span_id}" for trace_id, span_id in some],
        }
        for some in (keys[start : start + _KEYS_AT_ONCE] for start in range(0, len(keys), _KEYS_AT_ONCE))
    ]
