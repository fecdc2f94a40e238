"""A diagnosis from ClickHouse: what is sent twice counts once, and however it is asked for, the answer is the same."""

from dataclasses import replace as changed
from typing import Any

import pytest
from msgspec.structs import replace

from lifesign.clock import EpochMs
from lifesign.diagnosis.details import Details, Fetch, Wanted, details_of
from lifesign.diagnosis.facts import Facts, WindowFacts, Windows, facts_within, read_of
from lifesign.diagnosis.preparation import Placed, key_of
from lifesign.telemetry.hashes import operation_hash
from lifesign.telemetry.records import Body, Record
from lifesign.telemetry.store import StoreUnavailable
from lifesign.telemetry.stores.clickhouse import arrivals as clickhouse_arrivals
from lifesign.telemetry.stores.clickhouse import facts as clickhouse_facts
from lifesign.telemetry.stores.clickhouse.client import Asked
from lifesign.telemetry.stores.clickhouse.store import ClickHouseStore
from tests.telemetry.clickhouse.conftest import Nodes
from tests.telemetry.stores.builder import NOW, record
from tests.telemetry.stores.test_facts import narrow

_MS = 1_000_000
WINDOWS = Windows(current=(EpochMs(NOW - 10), EpochMs(NOW + 1)), baseline=(EpochMs(NOW - 20), EpochMs(NOW - 10)))


def _first(number: int, *, at: int) -> Record:
    return record(
        trace_id=f"{number // 3 + 1:032x}",
        span_id=f"{number:016x}",
        parent_id="" if number % 3 == 0 else f"{number - number % 3:016x}",
        received_at=EpochMs(at),
        start_ns=NOW * _MS + number,
        kind="tool",
        op_hash=operation_hash("tool", "work"),
        tool="work",
        own_session="first" if number % 3 == 0 else None,
        status="error" if number == 4 else "ok",
        signal_type="tool_call_failed" if number == 4 else "info",
        args_hash=7,
        environment="prod",
        body=Body(message="as it was"),
    )


def _again(first: Record, *, at: int) -> Record:
    """The same record as somebody else might tell it: a failure, of another session, with a better claim to name it."""
    return replace(
        first,
        received_at=EpochMs(at),
        start_ns=first.start_ns - 3600 * 1_000_000_000,
        status="error",
        signal_type="tool_call_failed",
        own_session="second",
        environment="dev",
        body=Body(message="as it was told again"),
    )


def _plain(window: WindowFacts) -> WindowFacts:
    return changed(window, traces=[list(steps) for steps in window.traces], token_sums=sorted(window.token_sums))


@pytest.mark.parametrize("environment", [None, "prod", "dev"])
async def test_a_record_counts_as_it_came_first(nodes: Nodes, project: str, environment: str | None) -> None:
    one, two = await nodes.open("one"), await nodes.open("two")
    # In the baseline, in the window, and before both: its repetition is in no window.
    firsts = [_first(number, at=NOW - (15 if number < 6 else 5 if number < 9 else 50)) for number in range(12)]
    windows = changed(WINDOWS, environment=environment)
    wanted = Wanted(op_hashes=frozenset({None}), messages=frozenset({(firsts[4].trace_id, firsts[4].span_id)}))

    for at in sorted({each.received_at for each in firsts}):
        await one.append(project, [each for each in firsts if each.received_at == at], quota=0, now=at)
    await two.append(project, [_again(each, at=NOW) for each in firsts], quota=0, now=NOW)
    await two.examine(project, windows, lambda facts, _fetch: facts)

    def judge(facts: Facts, fetch: Fetch) -> tuple[Facts, Details]:
        read = changed(facts, current=_plain(facts.current), baseline=_plain(facts.baseline))
        return read, fetch(wanted)

    facts, details = await one.examine(project, windows, judge)

    stored = [Placed("first", narrow(each)) for each in firsts]
    expected = facts_within(stored, windows)
    current = read_of(stored, windows.current, windows).records
    assert facts == changed(expected, current=_plain(expected.current), baseline=_plain(expected.baseline))
    assert expected.current.records == (3 if environment != "dev" else 0)
    messages = {key_of(placed): "as it was" for placed in stored}
    assert details.values == details_of(current, wanted, messages).values
    assert details.messages == {(firsts[4].trace_id, firsts[4].span_id): "as it was"}


def _plain_facts(facts: Facts) -> Facts:
    """The same with everything in hand."""
    current = changed(_plain(facts.current), models=sorted(facts.current.models, key=lambda each: each.model))
    return changed(facts, current=current, baseline=_plain(facts.baseline))


async def _examined(store: ClickHouseStore, project: str) -> Facts:
    return await store.examine(project, WINDOWS, lambda facts, _fetch: _plain_facts(facts))


_WAYS: dict[str, Any] = {
    "as usual": lambda _limits, _monkeypatch: None,
    "chosen traces told one by one": lambda _limits, monkeypatch: monkeypatch.setattr(
        clickhouse_facts, "_TRACES_AT_ONCE", 1
    ),
    "more chosen traces than are told": lambda _limits, monkeypatch: monkeypatch.setattr(
        clickhouse_facts, "_MOST_CHOSEN", 0
    ),
    "more traces than are all read": lambda _limits, monkeypatch: monkeypatch.setattr(
        clickhouse_arrivals, "MANY_TRACES", 0
    ),
    "grouped on disk": lambda limits, monkeypatch: monkeypatch.setitem(limits, "max_bytes_before_external_group_by", 1),
}


@pytest.mark.parametrize("way", _WAYS)
async def test_whichever_way_it_is_asked_for_the_answer_is_the_same(
    store: ClickHouseStore, project: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    firsts = [_first(number, at=NOW - (15 if number < 6 else 5)) for number in range(15)]
    for at in sorted({each.received_at for each in firsts}):
        await store.append(project, [each for each in firsts if each.received_at == at], quota=0, now=at)
    _WAYS[way](store._clickhouse.long_limits, monkeypatch)  # noqa: SLF001 - a server may be asked so, too

    facts = await _examined(store, project)

    expected = facts_within([Placed("first", narrow(each)) for each in firsts], WINDOWS)
    assert facts == _plain_facts(expected)
    assert len(list(expected.current.traces)) == 3


_AHEAD: dict[str, dict[str, int]] = {
    "few messages": {},
    "many messages": {"_KEYS_AT_ONCE": 1},
    "more than is held ahead": {"_KEYS_AT_ONCE": 1, "MOST_HELD": 1},
}


@pytest.mark.parametrize("way", _AHEAD)
async def test_details_are_the_same_however_much_was_asked_ahead(
    store: ClickHouseStore, project: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [_first(number, at=NOW - 5) for number in range(9)]
    for number in (3, 5):
        records[number] = replace(records[number], status="error", signal_type="tool_call_failed")
    records[5] = replace(records[5], body=Body())
    stored = [Placed("first", narrow(each)) for each in records]
    await store.append(project, records, quota=0, now=NOW)
    for name, number in _AHEAD[way].items():
        monkeypatch.setattr(clickhouse_facts, name, number)
    # The last is no failure: it is looked for by its id.
    keys = frozenset(key_of(stored[number]) for number in (3, 4, 5, 8))
    wanted = Wanted(op_hashes=frozenset({None, stored[4].record.op_hash}), messages=keys)

    details = await store.examine(project, WINDOWS, lambda _facts, fetch: fetch(wanted))

    told = {key_of(placed): "as it was" for placed in stored if placed is not stored[5]}
    assert details == details_of(stored, wanted, told)
    assert len(details.messages) == 3


async def test_what_takes_too_much_memory_is_refused_and_the_next_question_is_answered(
    store: ClickHouseStore, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.append(project, [_first(number, at=NOW - 5) for number in range(6)], quota=0, now=NOW)
    limits = store._clickhouse.long_limits  # noqa: SLF001 - nobody else has so little of it

    with monkeypatch.context() as little:
        little.setitem(limits, "max_memory_usage", 1)
        little.setitem(limits, "max_untracked_memory", 1)
        with pytest.raises(StoreUnavailable, match="MEMORY_LIMIT_EXCEEDED"):
            await _examined(store, project)

    assert (await _examined(store, project)).current.records == 6


async def test_rows_are_looked_through_so_many_times(
    store: ClickHouseStore, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.append(project, [_first(number, at=NOW - 5) for number in range(6)], quota=0, now=NOW)
    asked: list[str] = []

    def rows(self: Asked, sql: str, parameters: Any, **how: Any) -> Any:
        asked.append(sql)
        return plain_rows(self, sql, parameters, **how)

    def blocks(self: Asked, sql: str, parameters: Any, settings: Any) -> Any:
        asked.append(sql)
        return plain_blocks(self, sql, parameters, settings)

    plain_rows, plain_blocks = Asked.rows, Asked._blocks  # noqa: SLF001 - where all questions pass
    monkeypatch.setattr(Asked, "rows", rows)
    monkeypatch.setattr(Asked, "_blocks", blocks)

    await _examined(store, project)

    # Both at once: what arrived twice. Then each: how many, traces, sessions by themselves, rows and their siblings,
    # operations, models. Then of one: notices, parents twice, and the values of what failed.
    looks = sum(sql.count("FROM spans") for sql in asked)
    assert looks == 2 + 2 * 7 + 3 + 1
