"""What is sent twice counts once in a diagnosis: as it came first, whichever node it comes to."""

from dataclasses import replace as changed

import pytest
from msgspec.structs import replace

from lifesign.clock import EpochMs
from lifesign.diagnosis.details import Details, Fetch, Wanted, details_of
from lifesign.diagnosis.facts import Facts, WindowFacts, Windows, facts_within, read_of
from lifesign.diagnosis.preparation import Placed, key_of
from lifesign.telemetry.hashes import operation_hash
from lifesign.telemetry.records import Body, Record
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
