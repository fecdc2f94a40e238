"""Several nodes on one PostgreSQL that are not alike: other versions, other clocks."""

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from lifesign.app import open_node
from lifesign.clock import CorrectedClock, EpochMs, SystemClock
from lifesign.db.migrate import newest
from lifesign.db.offset import correct
from lifesign.engine.store import state
from lifesign.settings import Settings
from tests.harness import Lifesign

ON_POSTGRESQL = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


class _Skewed(SystemClock):
    """A machine whose clock was set wrong."""

    def __init__(self, ms: int) -> None:
        self.ms = ms

    def now(self) -> EpochMs:
        return EpochMs(super().now() + self.ms)


async def _set_revision(lifesign: Lifesign, revision: str) -> None:
    change = text("UPDATE alembic_version SET version_num = :revision").bindparams(revision=revision)

    def write() -> None:
        with lifesign.node.db.engine.begin() as conn:
            conn.execute(change)

    write()


@ON_POSTGRESQL
async def test_a_node_whose_tables_were_changed_by_another_version_reads_and_does_nothing_else(
    lifesign: Lifesign,
) -> None:
    await lifesign.heartbeat(slug="job", interval=60, grace=0)
    await _set_revision(lifesign, "9999")
    await lifesign.advance(120)

    refused = await lifesign.ask("POST", "/v1/heartbeats/job/checkin", expect=503)
    ready = await lifesign.http.get("/ready")

    assert refused["error"]["code"] == "UNAVAILABLE"
    assert (await lifesign.get("job"))["status"] == "active"
    assert (ready.status_code, ready.json()["database"]) == (
        503,
        f"the database has schema 9999, this node knows {newest()}",
    )

    await _set_revision(lifesign, newest())
    await lifesign.advance(1)
    await lifesign.check_in("job", healthy=False)
    assert (await lifesign.get("job"))["status"] == "firing"


@ON_POSTGRESQL
@pytest.mark.parametrize("skew_ms", [-90_000, 7_000])
async def test_a_node_goes_by_the_clock_of_the_database(
    settings: Settings, database_url: SecretStr, skew_ms: int
) -> None:
    clock = CorrectedClock(_Skewed(skew_ms))

    node = await open_node(settings.model_copy(update={"database_url": database_url}), clock=clock)
    try:
        assert abs(node.clock.now() - SystemClock().now()) < 1000
        assert clock.offset_ms == pytest.approx(-skew_ms, abs=1000)

        # It is set right by somebody, or set wrong anew.
        base = clock.base
        assert isinstance(base, _Skewed)
        base.ms = 0
        await correct(node.db, clock)
        assert clock.offset_ms == pytest.approx(0, abs=1000)
    finally:
        await node.close()


@ON_POSTGRESQL
@pytest.mark.parametrize("set_by_ms", [-3_600_000, 3_600_000])
async def test_a_machine_whose_clock_is_set_is_put_right_before_it_says_anything(
    settings: Settings, database_url: SecretStr, set_by_ms: int
) -> None:
    clock = CorrectedClock(_Skewed(0))
    node = await open_node(settings.model_copy(update={"database_url": database_url}), clock=clock)
    alive = next(each for each in node.driver.loops if each.name == "alive")
    try:
        await alive.tick(clock.now())

        base = clock.base
        assert isinstance(base, _Skewed)
        base.ms = set_by_ms
        await alive.tick(clock.now())

        last_alive, blind = await node.db.read(state, SystemClock().now())
    finally:
        await node.close()
    assert last_alive == pytest.approx(SystemClock().now(), abs=5_000)
    assert blind is None


@ON_POSTGRESQL
async def test_what_lies_within_the_time_that_asking_takes_is_not_corrected(
    settings: Settings, database_url: SecretStr
) -> None:
    clock = CorrectedClock(SystemClock())
    node = await open_node(settings.model_copy(update={"database_url": database_url}), clock=clock)
    try:
        for _ in range(5):
            await correct(node.db, clock)
    finally:
        await node.close()

    assert clock.offset_ms == 0
