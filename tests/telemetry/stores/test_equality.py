"""Whatever arrives in whatever order, every store answers what the pure rules say of a plain list of records."""

from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from lifesign.clock import EpochMs
from lifesign.telemetry.records import Body, Record
from lifesign.telemetry.store import Activity, Arrival, Filter, Pace, Start, Stored
from tests.effort import examples
from tests.telemetry.stores.builder import record
from tests.telemetry.stores.conftest import Opened
from tests.telemetry.stores.model import Model

NOW = 1_767_614_400_000
EVER = (EpochMs(0), EpochMs(NOW * 2))
TRACES = [f"{number:032x}" for number in range(1, 5)]
SESSIONS = ["a", "b", "a session/with ~ every;thing", TRACES[0]]
ENVIRONMENTS = ["prod", "dev"]


@dataclass(frozen=True)
class Arrive:
    records: tuple[Record, ...]
    quota: int


@dataclass(frozen=True)
class Purge:
    ago: int


_TOKENS = st.none() | st.integers(0, 1000)


@st.composite
def _records(draw: st.DrawFn) -> Record:
    own = draw(st.none() | st.sampled_from(SESSIONS))
    status = draw(st.sampled_from(["ok", "error", "unset"]))
    tokens = draw(_TOKENS)
    return record(
        trace_id=draw(st.sampled_from(TRACES)),
        span_id=f"{draw(st.integers(1, 5)):016x}",
        parent_id=draw(st.sampled_from(["", *(f"{number:016x}" for number in range(1, 6))])),
        start_ns=draw(st.integers(1, 4)),
        end_ns=draw(st.integers(0, 9)),
        status=status,
        kind=draw(st.sampled_from(["llm", "tool", "agent", "other"])),
        signal_type="error" if status == "error" else draw(st.sampled_from(["info", "slow_operation"])),
        own_session=own,
        operation=draw(st.sampled_from(["chat", "read", "x" * 500, "größe"])),
        agent=draw(st.none() | st.sampled_from(["shopper", "planner"])),
        model=draw(st.none() | st.just("gpt")),
        environment=draw(st.none() | st.sampled_from(ENVIRONMENTS)),
        input_tokens=tokens,
        total_tokens=tokens,
        cost_nano=draw(_TOKENS),
        body=Body(
            name=draw(st.sampled_from(["work", "größe \U0001f600", ""])),
            aliases=() if own is None else tuple(draw(st.sets(st.sampled_from(["a", "x", "y"]), max_size=2))),
            attributes={"n": draw(st.integers(0, 3))},
        ),
    )


_STEPS = st.lists(
    st.builds(Arrive, st.lists(_records(), min_size=1, max_size=8).map(tuple), st.sampled_from([0, 0, 0, 6]))
    | st.builds(Purge, st.integers(0, 3)),
    min_size=1,
    max_size=6,
)


# The store is the same for all examples; each has a project of its own.
def test_every_answer_is_that_of_the_plain_list(a_store: Opened) -> None:
    # ClickHouse takes a thousand times as long over a handful of records: to find that they differ is enough.
    is_slow = a_store.store.kind == "clickhouse"
    # PostgreSQL takes five times as long as SQLite, with statements that are mostly the same.
    few = examples(3, 30) if is_slow else examples(20, 600) if a_store.store.kind == "postgresql" else examples(60, 600)

    @settings(
        max_examples=few,
        phases=[Phase.explicit, Phase.generate] if is_slow else list(Phase),
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(steps=_STEPS)
    def check(steps: Sequence[Arrive | Purge]) -> None:
        a_store.runner.run(_live(a_store, steps))

    check()


async def _live(opened: Opened, steps: Sequence[Arrive | Purge]) -> None:
    project, model, store = opened.new_project(), Model(), opened.store
    now = NOW
    for number, step in enumerate(steps, 1):
        now += 1
        if isinstance(step, Purge):
            while await store.purge(EpochMs(now - step.ago), 3):
                pass
            model.purge(EpochMs(now - step.ago))
        else:
            arrived = [_at(each, now) for each in step.records]
            told = await store.append(project, arrived, quota=step.quota, now=EpochMs(now))
            assert told == model.append(arrived, step.quota)
        # Asking everything takes ClickHouse seconds: there it is asked once, when all has happened.
        if store.kind != "clickhouse" or number == len(steps):
            await _same(opened, project, model, now)


async def _same(opened: Opened, project: str, model: Model, now: int) -> None:
    store = opened.store
    assert await store.used(project, EpochMs(now)) == model.used
    for since, until in (EVER, (EpochMs(now - 1), EpochMs(now + 1)), (EpochMs(now - 2), EpochMs(now))):
        for environment in (None, "prod", "nowhere"):
            expected = model.sessions(since, until, environment)
            assert (
                await store.sessions(project, since, until, environment=environment, limit=100, after=None) == expected
            )
        assert await store.stats(project, since, until) == model.stats(since, until)
        for only in (
            Filter(),
            Filter(environment="dev"),
            Filter(trace_id=TRACES[1]),
            Filter(signal_type="error"),
            Filter(session_id="a", environment="prod"),
            Filter(session_id=TRACES[0]),
        ):
            found = await store.window(project, since, until, only=only, limit=100, after=None)
            assert [each.record.record_id for each in found] == model.window(since, until, only)
    kept = {each.record_id: each for each in model.kept.values()}
    assert await store.pace(project, EpochMs(now - 3), 2, 3) == [
        Pace(len(arrived), sum(kept[each].is_failing for each in arrived))
        for arrived in (model.window(EpochMs(at), EpochMs(at + 2), Filter()) for at in (now - 3, now - 1, now + 1))
    ]
    await _pages(opened, project, model)
    for session_id, members in model.members().items():
        page = await store.session(project, session_id, *EVER, limit=100, after=None)
        assert page is not None
        assert (page.scope, page.summary) == ("session", model.summary(session_id, members))
        assert page.records == [
            Stored(each, session_id) for each in sorted(members, key=lambda each: (each.start_ns, each.record_id))
        ]
    for trace_id in {each.trace_id for each in model.kept.values()} - model.members().keys():
        page = await store.session(project, trace_id, *EVER, limit=100, after=None)
        assert page is not None
        assert (page.scope, page.summary) == ("trace", model.of_trace(trace_id))
        assert [each.record for each in page.records] == model.records_of(trace_id)
    everything = [each.record_id for each in model.kept.values()]
    known = await store.records(project, [*everything, "rec_" + "9" * 48, "nonsense"])
    assert [(each.record, each.session_id) for each in known] == [
        (each, model.session(each)) for each in model.kept.values()
    ]


async def _pages(opened: Opened, project: str, model: Model) -> None:
    """One at a time comes to the same as all at once."""
    arrival: Arrival | None = None
    seen = []
    while found := await opened.store.window(project, *EVER, only=Filter(), limit=1, after=arrival):
        seen.append(found[0].record.record_id)
        arrival = Arrival(found[0].record.received_at, seen[-1])
    assert seen == model.window(*EVER, Filter())
    activity: Activity | None = None
    listed = []
    while page := await opened.store.sessions(project, *EVER, environment=None, limit=1, after=activity):
        listed += page
        activity = Activity(page[0].last_received_at, page[0].session_id)
    assert listed == model.sessions(*EVER, None)
    for session_id, members in model.members().items():
        start: Start | None = None
        records: list[str] = []
        while (one := await opened.store.session(project, session_id, *EVER, limit=1, after=start)) and one.records:
            records.append(one.records[0].record.record_id)
            start = Start(one.records[0].record.start_ns, records[-1])
        assert sorted(records) == sorted(each.record_id for each in members)


def _at(given: Record, now: int) -> Record:
    return replace(given, received_at=EpochMs(now))
