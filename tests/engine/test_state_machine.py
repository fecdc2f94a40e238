"""Anything in any order: after every move the promises hold that the rest of the engine builds on.

Names I1 to I8 are those of the specification "Engine", section 14. `LIFESIGN_TEST_PROFILE=long` looks further.
"""

import asyncio
import contextlib
import shutil
import uuid
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import hypothesis
import pytest
from hypothesis import HealthCheck
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from pydantic import SecretStr
from sqlalchemy import Connection, func, select

from lifesign.clock import EpochMs, rfc3339
from lifesign.db.failpoints import SimulatedCrash
from lifesign.db.schema import attempts, events, heartbeats, incidents, notifications, projects, timers
from lifesign.heartbeats.checkins import CheckIn
from lifesign.settings import Settings
from tests import postgres
from tests.effort import IS_LONG
from tests.engine.steps import NOON
from tests.harness import SETTINGS, Json, Lifesign
from tests.peers.process import LedgerPeer

T = TypeVar("T")
HB, INC, NTF = heartbeats.c, incidents.c, notifications.c

_MOST_HEARTBEATS = 4

_pick = st.integers(0, _MOST_HEARTBEATS - 1)
_intervals = st.sampled_from([10, 60, 300])
_graces = st.sampled_from([0, 5, 60])
# Outside the writer: what dies inside it, `tests/faults` kills in real processes.
_crash_points = st.sampled_from(
    ["sweep.after_commit", "escalate.after_commit", "claim.after_commit", "send.after_reply", "finish.after_commit"]
)
_faults = st.sampled_from([{"status": 500}, {"status": 429}, {"close": "after_read"}, {"reset": True}])
_ALARMS = {"incident.opened", "incident.escalated", "incident.repeated"}
_ENDS = {"incident.resolved", "incident.acknowledged", "incident.closed"}
# Channels by position: the two webhooks that the example begins with.
_steps = st.lists(
    st.tuples(st.lists(st.integers(0, 1), min_size=1, max_size=2, unique=True), st.sampled_from([0, 30, 120])),
    min_size=1,
    max_size=3,
)

NewDatabase = Callable[[], AbstractContextManager[Settings]]


class Engine(RuleBasedStateMachine):
    """A node that crashes and is replaced, two webhooks, one policy, a few heartbeats."""

    def __init__(self, ledger: LedgerPeer, new_database: NewDatabase) -> None:
        super().__init__()
        self._ledger = ledger
        self._names = [f"{uuid.uuid4().hex[:8]}-{number}" for number in range(2)]
        self._alive: list[str] = []
        self._made = 0
        self._gone: set[str] = set()
        self._runner = asyncio.Runner()
        self._database = new_database()
        settings = self._database.__enter__()
        self._settings = settings
        self._started = Lifesign.started(settings, at=NOON)
        self._lifesign = self._run(self._started.__aenter__())
        self._project = str(self._read(lambda conn: conn.scalar(select(projects.c.id))))
        self._channels = [
            self._run(self._lifesign.webhook(f"{ledger.url}/hook/{name}", name))["id"] for name in self._names
        ]
        self._policy = ""

    def _run(self, work: Coroutine[Any, Any, T]) -> T:  # Any: what a coroutine sends and receives
        return self._runner.run(work)

    def _read(self, query: Callable[[Connection], T]) -> T:
        return self._run(self._lifesign.node.db.read(query))

    def _ask(self, method: str, path: str, body: object = None, *, expect: int = 200) -> Json:
        return self._run(self._lifesign.ask(method, path, body, expect=expect))

    def _step_list(self, steps: list[tuple[list[int], int]]) -> list[Json]:
        return [{"channels": [self._channels[each] for each in who], "wait": wait} for who, wait in steps]

    def _slug(self, pick: int) -> str:
        return self._alive[pick % len(self._alive)]

    def _status(self, slug: str) -> str:
        return str(self._ask("GET", f"/v1/heartbeats/{slug}")["status"])

    # Moves ----------------------------------------------------------------------------------------------------------
    @initialize(steps=_steps, repeats=st.booleans())
    def make_policy(self, steps: list[tuple[list[int], int]], repeats: bool) -> None:
        made = self._run(self._lifesign.policy(*self._step_list(steps), repeatLastStep=repeats))
        self._policy = made["id"]

    @precondition(lambda self: len(self._alive) < _MOST_HEARTBEATS)
    @rule(
        interval=_intervals,
        grace=_graces,
        mode=st.sampled_from(["recurring", "oneshot", "scheduled"]),
        has_policy=st.booleans(),
        own=st.lists(st.integers(0, 1), max_size=2, unique=True),
        sticky=st.booleans(),
    )
    def create(  # noqa: PLR0917 - hypothesis hands everything over by name
        self, interval: int, grace: int, mode: str, has_policy: bool, own: list[int], sticky: bool
    ) -> None:
        self._made += 1
        slug = f"job-{self._made}"
        fields: Json = {"schedule": "* * * * *"} if mode == "scheduled" else {"interval": interval}
        if has_policy:
            fields["policy"] = self._policy
        if own:
            fields["channels"] = [self._channels[each] for each in own]
        self._run(self._lifesign.heartbeat(slug=slug, mode=mode, grace=grace, stickyPause=sticky, **fields))
        self._alive.append(slug)

    @precondition(lambda self: self._alive)
    @rule(pick=_pick, healthy=st.booleans())
    def check_in(self, pick: int, healthy: bool) -> None:
        self._run(self._lifesign.check_in(self._slug(pick), healthy=healthy))

    @precondition(lambda self: self._alive)
    @rule(pick=_pick, age_s=st.sampled_from([0.001, 1, 20, 400]))
    def check_in_that_took_its_time(self, pick: int, age_s: float) -> None:
        stamp = EpochMs(self._lifesign.now() - round(age_s * 1000))
        item = CheckIn(self._project, "key_test", self._slug(pick), True, None, stamp)
        node = self._lifesign.node
        self._run(node.db.write_batched(node.api.state.check_ins.record, item))

    @precondition(lambda self: self._alive)
    @rule(pick=_pick)
    def ack(self, pick: int) -> None:
        slug = self._slug(pick)
        expect = 200 if self._status(slug) == "firing" else 400
        self._ask("POST", f"/v1/heartbeats/{slug}/ack", expect=expect)

    @precondition(lambda self: self._alive)
    @rule(pick=_pick)
    def pause(self, pick: int) -> None:
        slug = self._slug(pick)
        shown = self._ask("GET", f"/v1/heartbeats/{slug}")
        is_over = shown["mode"] == "oneshot" and shown["status"] == "resolved"
        expect = 400 if shown["status"] == "paused" or is_over else 200
        self._ask("POST", f"/v1/heartbeats/{slug}/pause", expect=expect)

    @precondition(lambda self: self._alive)
    @rule(pick=_pick)
    def resume(self, pick: int) -> None:
        slug = self._slug(pick)
        expect = 200 if self._status(slug) == "paused" else 400
        self._ask("POST", f"/v1/heartbeats/{slug}/resume", expect=expect)

    @precondition(lambda self: self._alive)
    @rule(pick=_pick)
    def delete(self, pick: int) -> None:
        slug = self._slug(pick)
        self._ask("DELETE", f"/v1/heartbeats/{slug}", expect=204)
        self._alive.remove(slug)

    @precondition(lambda self: self._alive)
    @rule(pick=_pick, grace=_graces, policy=st.sampled_from(["same", "none", "ours"]))
    def edit_heartbeat(self, pick: int, grace: int, policy: str) -> None:
        changes: dict[str, Json] = {"same": {}, "none": {"policy": None}, "ours": {"policy": self._policy}}
        self._ask("PATCH", f"/v1/heartbeats/{self._slug(pick)}", {"grace": grace} | changes[policy])

    @rule(steps=_steps, repeats=st.booleans())
    def edit_policy(self, steps: list[tuple[list[int], int]], repeats: bool) -> None:
        self._ask("PATCH", f"/v1/policies/{self._policy}", {"steps": self._step_list(steps), "repeatLastStep": repeats})

    @rule(who=st.integers(0, 1), fault=_faults)
    def make_a_peer_fail_once(self, who: int, fault: Json) -> None:
        self._ledger.script(self._names[who], fault)

    @rule(seconds=st.sampled_from([0, 1, 10, 31, 65, 400]))
    def advance(self, seconds: int) -> None:
        self._run(self._lifesign.advance(seconds))

    @rule(who=st.integers(0, 1))
    def replace_channel(self, who: int) -> None:
        name, old = self._names[who], self._channels[who]
        self._ask("DELETE", f"/v1/channels/{old}?force=true", expect=204)
        self._gone.add(old)
        self._channels[who] = self._run(self._lifesign.webhook(f"{self._ledger.url}/hook/{name}", name))["id"]

    @rule(point=_crash_points, seconds=st.sampled_from([0, 10, 65]))
    def crash(self, point: str, seconds: int) -> None:
        """The node is gone from one moment to the next, at a point or, when it is not reached, between two requests."""
        self._lifesign.node.db.failpoints.arm(f"{point}=crash")
        with contextlib.suppress(SimulatedCrash):
            self._run(self._lifesign.advance(seconds))
        later = rfc3339(EpochMs(self._lifesign.now() + 1000))
        self._run(self._started.__aexit__(None, None, None))
        self._started = Lifesign.started(self._settings, at=later)
        self._lifesign = self._run(self._started.__aenter__())

    @precondition(lambda self: self._settings.database_url is not None)
    @rule(seconds=st.sampled_from([1, 31, 120]))
    def work_beside_another_node(self, seconds: int) -> None:
        async def together() -> None:
            async with Lifesign.started(self._settings, at=rfc3339(self._lifesign.now())) as other:
                await asyncio.gather(self._lifesign.advance(seconds), other.advance(seconds))

        self._run(together())

    # What must hold -------------------------------------------------------------------------------------------------
    @invariant()
    def i1_a_heartbeat_fires_exactly_while_it_has_one_open_incident(self) -> None:
        open_ones = self._read(
            lambda conn: list(conn.execute(select(INC.heartbeat_id, INC.id).where(INC.status == "open")))
        )
        firing = self._read(lambda conn: list(conn.execute(select(HB.id, HB.incident_id).where(HB.status == "firing"))))
        idle = self._read(lambda conn: list(conn.scalars(select(HB.incident_id).where(HB.status != "firing"))))
        assert sorted(map(tuple, open_ones)) == sorted(map(tuple, firing))
        assert not any(idle)

    @invariant()
    def i2_the_bound_is_never_later_than_the_deadline(self) -> None:
        for fires_at, check_at in self._read(lambda conn: conn.execute(select(HB.fires_at, HB.check_at)).all()):
            if fires_at is None:
                assert check_at is None
            else:
                assert check_at is not None
                assert check_at <= fires_at

    @invariant()
    def i3_an_open_incident_escalates_or_is_looked_at_again_or_is_known_to_be_unattended(self) -> None:
        opened = self._read(
            lambda conn: conn.execute(select(INC.id, INC.escalation, INC.unattended).where(INC.status == "open")).all()
        )
        timed = self._read(lambda conn: conn.execute(select(timers.c.subject_id, timers.c.kind)).all())
        escalating = {subject for subject, kind in timed if kind == "escalate"}
        looked_at = {subject for subject, kind in timed if kind == "remind"}
        assert {row.id for row in opened if row.escalation == "running"} == escalating
        assert {row.id for row in opened if row.escalation == "done" and row.unattended is None} <= looked_at
        assert {subject for subject, _ in timed} <= {row.id for row in opened}

    @invariant()
    def i4_no_message_is_there_twice(self) -> None:
        rows, keys = self._read(
            lambda conn: conn.execute(select(func.count(), func.count(NTF.idem_key.distinct()))).one()
        )
        assert rows == keys

    @invariant()
    def i5_nothing_is_sending_without_a_lease(self) -> None:
        bare = select(NTF.id).where(NTF.status == "sending", NTF.lease_until.is_(None))
        assert self._read(lambda conn: list(conn.scalars(bare))) == []
        leased = select(NTF.id).where(NTF.status != "sending", NTF.lease_owner.is_not(None))
        assert self._read(lambda conn: list(conn.scalars(leased))) == []

    @invariant()
    def i8_whoever_heard_of_an_incident_hears_of_its_recovery(self) -> None:
        told = (
            select(NTF.incident_id, NTF.target)
            .join(incidents, INC.id == NTF.incident_id)
            .where(NTF.kind == "page", INC.resolved_by.in_(("checkin", "late_checkin")))
            .where(NTF.status.in_(("sent", "delivered")) | (NTF.maybe_sent == 1))
            .where(NTF.channel_id.not_in(self._gone))
        )
        ended = select(NTF.incident_id, NTF.target).where(NTF.kind == "resolve")
        pages = self._read(lambda conn: {tuple(each) for each in conn.execute(told)})
        resolves = self._read(lambda conn: {tuple(each) for each in conn.execute(ended)})
        assert pages <= resolves

    def teardown(self) -> None:
        try:
            self._end_well()
        finally:
            self._run(self._started.__aexit__(None, None, None))
            self._runner.close()
            self._database.__exit__(None, None, None)

    def _end_well(self) -> None:
        """Heal the peers and let time pass: nothing hangs, nothing came more often than faults explain (I7)."""
        for name in self._names:
            self._ledger.script(name)
        for slug in self._alive:
            self._ask("DELETE", f"/v1/heartbeats/{slug}", expect=204)
        self._run(self._lifesign.advance(25 * 3600))
        left = select(NTF.id).where(NTF.status.in_(("pending", "sending")))
        assert self._read(lambda conn: list(conn.scalars(left))) == []
        requests = [each for name in self._names for each in self._ledger.requests(f"/hook/{name}")]
        times = Counter(each.headers["webhook-id"] for each in requests)
        per_id = select(attempts.c.notification_id, func.count()).group_by(attempts.c.notification_id)
        tries = self._read(lambda conn: {row[0]: row[1] for row in conn.execute(per_id)})
        assert {key: count for key, count in times.items() if count > tries.get(key, 0)} == {}
        # Whatever was tried again had failed, or nobody knows how it ended.
        good = per_id.where(attempts.c.outcome == "sent").having(func.count() > 1)
        assert self._read(lambda conn: conn.execute(good).all()) == []
        # I6: what a person had closed before a page was claimed was closed in vain.
        after_the_end = (
            select(NTF.id)
            .join(incidents, INC.id == NTF.incident_id)
            .join(attempts, attempts.c.notification_id == NTF.id)
            .where(NTF.kind == "page", INC.resolved_by.in_(("ack", "pause", "delete")))
            .where(attempts.c.started_at > INC.resolved_at)
        )
        assert self._read(lambda conn: list(conn.scalars(after_the_end))) == []
        ended: set[tuple[str, str]] = set()
        for request in requests:
            kind, data = request.json["type"], request.json["data"]
            about = (data["channel"], data.get("incident", {}).get("id"))
            assert about not in ended or kind not in _ALARMS
            ended |= {about} if kind in _ENDS else set()
        repaired = select(events.c.metadata).where(events.c.type == "repaired")
        assert self._read(lambda conn: list(conn.scalars(repaired))) == []


def _factory(ledger: LedgerPeer, new_database: NewDatabase) -> type[Engine]:
    """The machine with its surroundings: hypothesis makes one for each example, without arguments."""

    class Surrounded(Engine):
        def __init__(self) -> None:
            super().__init__(ledger, new_database)

    return Surrounded


def _profile(examples: int) -> hypothesis.settings:
    return hypothesis.settings(
        max_examples=examples * (40 if IS_LONG else 1),
        stateful_step_count=60 if IS_LONG else 25,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    )


def _settings(data_dir: Path, database_url: str | None = None) -> Settings:
    url = None if database_url is None else SecretStr(database_url)
    return SETTINGS.model_copy(update={"data_dir": data_dir, "database_url": url})


def test_the_promises_hold_on_sqlite(ledger: LedgerPeer, tmp_path: Path) -> None:
    @contextmanager
    def new_database() -> Iterator[Settings]:
        directory = tmp_path / uuid.uuid4().hex
        try:
            yield _settings(directory)
        finally:
            shutil.rmtree(directory)

    run_state_machine_as_test(_factory(ledger, new_database), settings=_profile(20))


def test_the_promises_hold_on_postgresql(
    ledger: LedgerPeer, tmp_path: Path, cluster: postgres.Databases, migrated: str
) -> None:
    @contextmanager
    def new_database() -> Iterator[Settings]:
        with cluster.new_database(template=migrated) as url:
            yield _settings(tmp_path / "data", url)

    run_state_machine_as_test(_factory(ledger, new_database), settings=_profile(6))


@pytest.fixture
def database_url() -> None:
    """Both databases have a test of their own here."""
