"""Whatever arrives in whatever order, every store tells the rules of diagnosis what records in hand would."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace as changed
from functools import partial
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from msgspec.structs import asdict, replace

from lifesign.clock import EpochMs
from lifesign.diagnosis.details import Details, Fetch, Wanted, details_of
from lifesign.diagnosis.facts import Facts, WindowFacts, Windows, facts_within, read_of
from lifesign.diagnosis.findings import Selector
from lifesign.diagnosis.packet import examined, issues_in, packet_of
from lifesign.diagnosis.preparation import READ_CHARACTERS, Placed, key_of, order_of
from lifesign.telemetry.hashes import operation_hash
from lifesign.telemetry.records import BLOCKED, CLOCK_SKEW, EMPTY_RESULT, TRUNCATED, Body, Kind, Narrow, Record
from tests.effort import examples
from tests.telemetry.stores.builder import NOW, record
from tests.telemetry.stores.conftest import Opened
from tests.telemetry.stores.model import Model

_MS = 1_000_000
TRACES = [f"{number:032x}" for number in (1, 2, 3, 4, 5, 6, 7, 0xF0)]
SPANS = [f"{number:016x}" for number in range(1, 25)]
# Some arrive before both windows, and some after.
ARRIVALS = [EpochMs(NOW + number) for number in (-25, -20, -12, -10, -9, -5, -5, -1, 0, 7)]
WINDOWS = Windows(current=(EpochMs(NOW - 10), NOW), baseline=(EpochMs(NOW - 20), EpochMs(NOW - 10)))
MOST_OF_A_SESSION = 6


# Of few kinds and with few failures, so that a trace is of interest for one reason at a time.
_KINDS: tuple[tuple[Kind, ...], ...] = (
    ("tool",),
    ("agent", "other"),
    ("llm",),
    ("llm", "embedding", "tool"),
    ("tool", "agent", "guardrail"),
)


# Built with dice, not drawn one by one: what has to repeat hardly ever does in what is drawn.
def _records(dice: random.Random) -> list[Record]:
    kinds, failures = dice.choice(_KINDS), dice.choice([0, 0.03, 0.3])
    own: Sequence[str | None] = dice.choice([[None], [None, None, "a"], ["a", "b", TRACES[0], "z"]])
    places = [(trace_id, span_id) for trace_id in TRACES[: dice.choice([2, 8])] for span_id in SPANS]
    return [_record(dice, kinds, failures, own, place) for place in dice.sample(places, dice.choice([6, 40]))]


def _record(
    dice: random.Random,
    kinds: Sequence[Kind],
    failures: float,
    own: Sequence[str | None],
    place: tuple[str, str],
) -> Record:
    kind = dice.choice(kinds)
    is_failing = dice.random() < failures
    operation = dice.choice(["search", "search", "/users/17", "/users/18", "größe \U0001f600"])
    tokens = dice.choice([None, 0, 9, 20_000, 2**40])
    start_ns = NOW * _MS + dice.randrange(30) + dice.choice([0, 0, 0, 6 * 60_000 * _MS])
    is_tool = kind == "tool"
    return record(
        trace_id=place[0],
        span_id=place[1],
        parent_id=dice.choice(["", "", SPANS[0], SPANS[1], "f" * 16]),
        received_at=dice.choice(ARRIVALS),
        start_ns=start_ns,
        end_ns=start_ns + dice.randrange(-1, 5),
        kind=kind,
        operation=operation,
        op_hash=operation_hash(kind, operation),
        status="error" if is_failing else dice.choice(["ok", "unset"]),
        signal_type=("tool_call_failed" if is_tool else "error")
        if is_failing
        else dice.choice(["info"] * 8 + ["slow_operation", "user_signal"]),
        own_session=dice.choice(own),
        agent=dice.choice([None, "", "shopper", "planner"]),
        tool=dice.choice([None, "", "search"]) if is_tool else None,
        model=dice.choice([None, "", "gpt", "small"]) if kind == "llm" else None,
        environment=dice.choice([None, "", "prod", "prod", "dev"]),
        version=dice.choice([None, *(f"1.{number}" for number in range(12))]),
        error_type="Timeout" if is_failing else None,
        args_hash=dice.choice([None, 7, 7, -7, -(2**63)]) if is_tool else None,
        result_hash=dice.choice([None, 1, -1]) if is_tool else None,
        bucket=dice.randrange(4),
        attempt=dice.choice([None, None, 0, 2, 3]),
        finish_reason=dice.choice([None, "stop", "LENGTH", "max_to\u212aens", "refusal"]),
        flags=dice.choice([0] * 9 + [BLOCKED, EMPTY_RESULT, CLOCK_SKEW, TRUNCATED | EMPTY_RESULT]),
        input_tokens=tokens,
        output_tokens=dice.choice([None, 1]),
        total_tokens=tokens,
        cost_nano=dice.choice([None, 0, 3, 10**18]),
        body=Body(message=dice.choice([*_MESSAGES, None, None]) if is_failing else None),
    )


# The end of the last is not read.
_MESSAGES = ("it broke", "x" * READ_CHARACTERS + "y")
_NUMBERS = st.sampled_from([1, 4, 9, 100])
_ASKED = st.builds(
    lambda environment, most: changed(WINDOWS, environment=environment, most_records=most),
    st.sampled_from([None, None, "prod", "nowhere"]),
    _NUMBERS,
)


def test_every_store_tells_what_records_in_hand_would(a_store: Opened) -> None:
    is_slow = a_store.store.kind == "clickhouse"
    few = examples(4, 40) if is_slow else examples(20, 600) if a_store.store.kind == "postgresql" else examples(60, 600)
    vars(a_store.store)["most_of_a_session"] = MOST_OF_A_SESSION

    @settings(
        max_examples=few,
        phases=[Phase.explicit, Phase.generate] if is_slow else list(Phase),
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(
        asked=st.lists(_ASKED, min_size=1, max_size=1 if is_slow else 3),
        dice=st.integers(0, 2**32).map(random.Random),
    )
    def check(asked: Sequence[Windows], dice: random.Random) -> None:
        # Whether a store holds what it sorts, or reads it trace by trace, must not show.
        vars(a_store.store)["most_held"] = dice.choice([3, 1000])
        a_store.runner.run(_told(a_store, _records(dice), [*asked, WINDOWS], dice))

    check()


async def _told(opened: Opened, records: Sequence[Record], asked: Sequence[Windows], dice: random.Random) -> None:
    project, foreign = opened.new_project(), opened.new_project()
    shuffled = dice.sample(records, len(records))
    for at in dice.sample(sorted(set(ARRIVALS)), len(set(ARRIVALS))):
        batch = [each for each in shuffled if each.received_at == at]
        await opened.store.append(project, batch, quota=0, now=at)
        # Equal ids elsewhere are other records.
        others = [replace(each, agent="foreign", received_at=ARRIVALS[5]) for each in batch]
        await opened.store.append(foreign, others, quota=0, now=ARRIVALS[5])
    model = Model()
    model.append(list(records), 0)
    stored = [Placed(model.session(each), narrow(each)) for each in records]
    messages = {key_of(placed): each.body.message for placed, each in zip(stored, records, strict=True)}
    for windows in asked:
        expected = facts_within(stored, windows, most_of_a_session=MOST_OF_A_SESSION)
        current = read_of(stored, windows.current, windows).records
        wanted = _wanted(current)
        texts = {key: text for key, text in messages.items() if text is not None}
        packet = _packet(expected, partial(details_of, current, messages=texts))

        facts, details, told = await opened.store.examine(project, windows, partial(_whole, wanted=wanted))

        assert facts == _plain(expected)
        assert details == details_of(current, wanted, texts)
        assert told == packet


def narrow(stored: Record) -> Narrow:
    return Narrow(**{name: value for name, value in asdict(stored).items() if name not in {"body", "origin"}})


def _wanted(current: Iterable[Placed]) -> Wanted:
    """Everything that could be wanted, and what nothing is behind."""
    selectors = {Selector("cost", model="none such"), Selector("input_tokens", sessions=("none such",))}
    op_hashes: set[int | None] = {None, 1}
    for placed in current:
        op_hash = placed.record.op_hash
        op_hashes.add(op_hash)
        selectors.add(Selector("duration", op_hash=op_hash, above_bucket=1))
        selectors.add(Selector("cost", model=placed.record.model or ""))
        selectors.add(Selector("input_tokens", sessions=(placed.session_id,)))
        selectors.add(Selector("input_tokens", sessions=("a", "b")))
    messages = frozenset(key_of(placed) for placed in current)
    return Wanted(tuple(selectors), frozenset(op_hashes), messages)


# Any: JSON.
def _whole(facts: Facts, fetch: Fetch, wanted: Wanted) -> tuple[Facts, Details, dict[str, Any]]:
    """All that a store tells; its streams are read once."""
    read = changed(facts, current=_read(facts.current), baseline=_read(facts.baseline))
    return _plain(read), fetch(wanted), _packet(read, fetch)


def _read(window: WindowFacts) -> WindowFacts:
    return changed(window, traces=[list(steps) for steps in window.traces])


# Any: JSON.
def _packet(facts: Facts, fetch: Fetch) -> dict[str, Any]:
    seen = examined(facts)
    issues = issues_in(seen, fetch(seen.wanted), ledger={}, window_start=WINDOWS.current[0])
    return packet_of(seen, issues)


def _plain(facts: Facts) -> Facts:
    """The same with everything in one order, and nothing that is read once."""
    return changed(facts, current=_plain_window(facts.current), baseline=_plain_window(facts.baseline))


def _plain_window(window: WindowFacts) -> WindowFacts:
    return changed(
        window,
        operations=sorted(window.operations, key=lambda each: each.op_hash),
        models=sorted(window.models, key=lambda each: each.model),
        token_sums=sorted(window.token_sums),
        heavy_sessions=sorted(window.heavy_sessions),
        rows=sorted(window.rows, key=order_of),
        recoveries=sorted(window.recoveries, key=order_of),
        traces=sorted((list(steps) for steps in window.traces), key=lambda steps: steps[0].record.trace_id),
    )


def test_traces_are_read_from_the_first_that_is_of_interest(a_store: Opened) -> None:
    """Each of these has just enough of something, or one too few."""
    vars(a_store.store)["most_of_a_session"] = 50
    makes: list[tuple[int, dict[str, Any]]] = [
        (3, {"kind": "tool", "tool": "search", "args_hash": 7}),
        (2, {"kind": "tool", "tool": "search", "args_hash": 7}),
        (2, {"kind": "tool", "tool": "search", "flags": EMPTY_RESULT}),
        (1, {"kind": "tool", "tool": "search", "flags": EMPTY_RESULT}),
        (4, {"kind": "agent"}),
        (3, {"kind": "agent"}),
        (6, {"kind": "llm", "input_tokens": 20_000}),
        (5, {"kind": "llm", "input_tokens": 20_000}),
        (6, {"kind": "llm", "input_tokens": 19_999}),
    ]
    records = [
        record(trace_id=f"{trace:032x}", span_id=SPANS[number], received_at=EpochMs(NOW - 1), **fields)
        for trace, (count, fields) in enumerate(makes, 1)
        for number in range(count)
    ]

    async def told() -> list[int]:
        project = a_store.new_project()
        await a_store.store.append(project, records, quota=0, now=NOW)
        return await a_store.store.examine(
            project, WINDOWS, lambda facts, _: [int(steps[0].record.trace_id, 16) for steps in facts.current.traces]
        )

    assert a_store.runner.run(told()) == [1, 3, 5, 7]


def test_why_a_model_stopped_is_known_whatever_the_case_of_letters(a_store: Opened) -> None:
    # The sign of kelvins is a capital letter, too.
    reasons = ["length", "LENGTH", "Max_Tokens", "max_to\u212aens", "Content_Filter", "stop", "lengths", "\u0130"]
    records = [
        record(kind="llm", finish_reason=reason, span_id=SPANS[number], received_at=EpochMs(NOW - 1))
        for number, reason in enumerate(reasons)
    ]

    async def told() -> list[str | None]:
        project = a_store.new_project()
        await a_store.store.append(project, records, quota=0, now=NOW)
        return await a_store.store.examine(
            project, WINDOWS, lambda facts, _: [each.record.finish_reason for each in facts.current.rows]
        )

    assert a_store.runner.run(told()) == reasons[:5]
