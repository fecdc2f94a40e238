"""Whatever is appended, answers are those of a plain list."""

import asyncio
import uuid
from pathlib import Path

from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from lifesign.clock import EpochMs
from lifesign.telemetry.records import Body, Record
from lifesign.telemetry.sessions import Summary
from lifesign.telemetry.store import Activity, Arrival, Filter, Start, Stored
from lifesign.telemetry.stores.clickhouse.client import Address
from lifesign.telemetry.stores.clickhouse.store import ClickHouseStore
from tests.telemetry.clickhouse.conftest import Nodes
from tests.telemetry.clickhouse.model import Model
from tests.telemetry.spans import RECEIVED_AT, START_NS, read

_HOUR = 3_600_000
_TRACES = [f"{n:032x}" for n in (0xA1, 0xB2, 0xC3)]
_SESSIONS = [None, None, "s1", "it's", _TRACES[1]]
_BASE = read()

_records = st.builds(
    lambda trace, span, parent, start, members, alias: replace(
        _BASE,
        trace_id=trace,
        span_id=f"{span:016x}",
        parent_id="" if parent == 0 else f"{parent:016x}",
        start_ns=START_NS + start,
        end_ns=START_NS + start + 5,
        body=Body(name="n", aliases=() if alias is None else (alias,)),
        **members,
    ),
    st.sampled_from(_TRACES),
    st.integers(1, 6),
    st.integers(0, 6),
    st.integers(0, 3),
    st.fixed_dictionaries(
        {
            "own_session": st.sampled_from(_SESSIONS),
            "status": st.sampled_from(["ok", "error", "unset"]),
            "signal_type": st.sampled_from(["info", "error", "tool_call_failed"]),
            "kind": st.sampled_from(["llm", "tool"]),
            "operation": st.sampled_from(["a", "b"]),
            "environment": st.sampled_from([None, "", "prod"]),
            "input_tokens": st.sampled_from([None, 0, 7]),
            "total_tokens": st.sampled_from([None, 0, 7]),
            "cost_nano": st.sampled_from([None, 0, 9]),
            "args_hash": st.sampled_from([None, -(2**63), -1, 2**63 - 1]),
            "attempt": st.sampled_from([None, 0, 65535]),
        }
    ),
    st.sampled_from([None, "s1", "al", _TRACES[2]]),
)
# Batches arrive hours apart: what is repeated has been forgotten by then, or comes to the other node.
_batches = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from(["one", "two"]), st.lists(_records, min_size=1, max_size=8)),
    min_size=1,
    max_size=5,
)


def test_answers_are_those_of_a_plain_list(engine: Address, tmp_path: Path) -> None:
    with asyncio.Runner() as runner:
        nodes = Nodes(engine, tmp_path)
        stores = {name: runner.run(nodes.open(name)) for name in ("one", "two")}
        # To the other, every environment is a common one.
        stores["two"].many_rows = 0

        @settings(max_examples=8, phases=[Phase.explicit, Phase.generate], deadline=None)
        @given(batches=_batches, since=st.integers(0, 6), page=st.integers(1, 4))
        def check(batches: list[tuple[int, str, list[Record]]], since: int, page: int) -> None:
            runner.run(_compare(stores, batches, since=RECEIVED_AT + since * _HOUR, page=page))

        try:
            check()
        finally:
            runner.run(nodes.close_all())


async def _compare(
    stores: dict[str, ClickHouseStore], batches: list[tuple[int, str, list[Record]]], *, since: int, page: int
) -> None:
    model, project, now = Model(), uuid.uuid4().hex, int(RECEIVED_AT)
    for hours, node, records in batches:
        now += hours * _HOUR + 1
        arrived = [replace(record, received_at=EpochMs(now)) for record in records]
        model.append(arrived)
        appended = await stores[node].append(project, arrived, quota=0, now=EpochMs(now))
        assert appended.accepted == len(records)
    await stores["two"].records(project, [])  # which waits for its spool
    window = EpochMs(since), EpochMs(now)

    await _compare_records(stores["one"], model, project, window, page=page)
    await _compare_sessions(stores["one"], model, project, window, page=page)
    for environment in ("", "prod"):
        listed = await stores["two"].sessions(project, *window, environment=environment, limit=99, after=None)
        assert listed == model.sessions(*window, environment)
    assert await stores["one"].stats(project, *window) == model.stats(*window)


async def _compare_records(
    store: ClickHouseStore, model: Model, project: str, window: tuple[EpochMs, EpochMs], *, page: int
) -> None:
    for only in (
        Filter(),
        Filter(environment=""),
        Filter(session_id="s1", signal_type="error"),
        Filter(session_id=_TRACES[1]),
        Filter(session_id=""),
        Filter(trace_id=_TRACES[0]),
    ):
        found: list[Stored] = []
        after: Arrival | None = None
        while some := await store.window(project, *window, only=only, limit=page, after=after):
            found += some
            after = Arrival(some[-1].record.received_at, some[-1].record.record_id)
        assert found == model.window(*window, only)
    everything = model.stored()
    ids = [each.record.record_id for each in everything]
    assert await store.records(project, [*ids, "rec_none"]) == everything
    for trace_id in _TRACES:
        of_trace = [each for each in everything if each.record.trace_id == trace_id]
        in_order = sorted(of_trace, key=lambda each: (each.record.start_ns, each.record.record_id))
        assert await store.trace(project, trace_id, limit=3) == in_order[:3]


async def _compare_sessions(
    store: ClickHouseStore, model: Model, project: str, window: tuple[EpochMs, EpochMs], *, page: int
) -> None:
    for environment in (None, "", "prod", "nowhere"):
        found: list[Summary] = []
        after: Activity | None = None
        while some := await store.sessions(project, *window, environment=environment, limit=page, after=after):
            found += some
            after = Activity(some[-1].last_received_at, some[-1].session_id)
        assert found == model.sessions(*window, environment)
    for ref in ("s1", "it's", "al", _TRACES[0], _TRACES[1].upper(), _TRACES[2], "nobody", ""):
        expected = model.detail(ref, *window)
        got = await store.session(project, ref, *window, limit=page, after=None)
        if expected is None or got is None:
            assert got is None
            assert expected is None
            continue
        scope, summary, records = expected
        assert (got.scope, got.summary) == (scope, summary)
        assert [each.record for each in got.records] == records[:page]
        behind = Start(records[0].start_ns, records[0].record_id)
        rest = await store.session(project, ref, *window, limit=page, after=behind)
        assert rest is not None
        assert [each.record for each in rest.records] == records[1 : page + 1]
