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
from lifesign.diagnosis.preparation import Placed, key_of, order_of
from lifesign.telemetry.hashes import operation_hash
from lifesign.telemetry.records import BLOCKED, CLOCK_SKEW, EMPTY_RESULT, TRUNCATED, Body, Narrow, Record
from tests.telemetry.stores.builder import NOW, record
from tests.telemetry.stores.conftest import Opened
from tests.telemetry.stores.model import Model

_MS = 1_000_000
TRACES = [f"{number:032x}" for number in (1, 2, 3, 0xF0)]
SPANS = [f"{number:016x}" for number in range(1, 25)]
# Some arrive before both windows, and some after.
ARRIVALS = [EpochMs(NOW + number) for number in (-25, -20, -12, -10, -9, -5, -1, 0, 7)]
WINDOWS = Windows(current=(EpochMs(NOW - 10), NOW), baseline=(EpochMs(NOW - 20), EpochMs(NOW - 10)))
MOST_OF_A_SESSION = 6


@st.composite
def _arrivals(draw: st.DrawFn) -> Record:
    kind = draw(st.sampled_from(["tool", "tool", "llm", "agent", "embedding", "guardrail", "other"]))
    is_failing = draw(st.integers(0, 9)) == 0
    operation = draw(st.sampled_from(["search", "/users/17", "/users/18", "größe \U0001f600"]))
    tokens = draw(st.none() | st.sampled_from([0, 9, 20_000, 2**40]))
    start_ns = NOW * _MS + draw(st.integers(0, 30)) + draw(st.sampled_from([0, 0, 0, 6 * 60_000 * _MS]))
    signal = "tool_call_failed" if kind == "tool" else "error"
    return record(
        trace_id=draw(st.sampled_from(TRACES)),
        span_id=draw(st.sampled_from(SPANS)),
        parent_id=draw(st.sampled_from(["", *SPANS[:4], "f" * 16])),
        received_at=draw(st.sampled_from(ARRIVALS)),
        start_ns=start_ns,
        end_ns=start_ns + draw(st.integers(-1, 4)),
        kind=kind,
        operation=operation,
        op_hash=operation_hash(kind, operation),
        status="error" if is_failing else draw(st.sampled_from(["ok", "unset"])),
        signal_type=signal if is_failing else draw(st.sampled_from(["info"] * 8 + ["slow_operation", "user_signal"])),
        own_session=draw(st.none() | st.sampled_from(["a", "b", TRACES[0], "z \x00".strip("\x00")])),
        agent=draw(st.none() | st.sampled_from(["shopper", "planner", "größe"])),
        tool=draw(st.none() | st.just("search")) if kind == "tool" else None,
        model=draw(st.none() | st.sampled_from(["gpt", "small"])) if kind == "llm" else None,
        environment=draw(st.none() | st.sampled_from(["prod", "dev"])),
        version=draw(st.none() | st.sampled_from([f"1.{number}" for number in range(12)])),
        error_type="Timeout" if is_failing else None,
        args_hash=draw(st.none() | st.sampled_from([7, -7])) if kind == "tool" else None,
        result_hash=draw(st.none() | st.sampled_from([1, -1])) if kind == "tool" else None,
        bucket=draw(st.integers(0, 3)),
        attempt=draw(st.none() | st.integers(1, 4)),
        finish_reason=draw(st.none() | st.sampled_from(["stop", "LENGTH", "refusal"])),
        flags=draw(st.sampled_from([0] * 9 + [BLOCKED, EMPTY_RESULT, CLOCK_SKEW, TRUNCATED | EMPTY_RESULT])),
        input_tokens=tokens,
        output_tokens=draw(st.none() | st.just(1)),
        total_tokens=tokens,
        cost_nano=draw(st.none() | st.sampled_from([0, 3, 10**18])),
        body=Body(message="it broke" if is_failing and draw(st.booleans()) else None),
    )


_NUMBERS = st.sampled_from([1, 4, 9, 100])
_ASKED = st.builds(
    lambda environment, most: changed(WINDOWS, environment=environment, most_records=most),
    st.sampled_from([None, None, "prod", "nowhere"]),
    _NUMBERS,
)


def test_every_store_tells_what_records_in_hand_would(a_store: Opened) -> None:
    is_slow = a_store.store.kind == "clickhouse"
    vars(a_store.store)["most_of_a_session"] = MOST_OF_A_SESSION

    @settings(
        max_examples=4 if is_slow else 60,
        phases=[Phase.explicit, Phase.generate] if is_slow else list(Phase),
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(
        records=st.lists(_arrivals(), min_size=1, max_size=60, unique_by=lambda each: (each.trace_id, each.span_id)),
        asked=st.lists(_ASKED, min_size=1, max_size=1 if is_slow else 3),
        dice=st.randoms(use_true_random=False),
    )
    def check(records: Sequence[Record], asked: Sequence[Windows], dice: random.Random) -> None:
        a_store.runner.run(_told(a_store, records, [*asked, WINDOWS], dice))

    check()


async def _told(opened: Opened, records: Sequence[Record], asked: Sequence[Windows], dice: random.Random) -> None:
    project, foreign = opened.new_project(), opened.new_project()
    shuffled = dice.sample(records, len(records))
    for at in dice.sample(ARRIVALS, len(ARRIVALS)):
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
