"""What becomes of records over time, as those see it who ask over HTTP: they go, the store goes away, more arrive."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql
from pydantic import SecretStr
from sqlalchemy import make_url

from tests.faults.server import serving, starting
from tests.harness import SETTINGS, Json, Lifesign, MakeLifesign
from tests.postgres import Databases
from tests.telemetry.requests import USUAL
from tests.telemetry.senders import Sender, json_of, sender
from tests.telemetry.test_reads import asked, attributes, read, refused

_DAY_S = 24 * 3600
_FAILED = 1


def in_session(number: int, session: str, **more: str) -> Json:
    """A span of a trace of its own."""
    told = attributes(gen_ai__conversation__id=session, **more)
    return USUAL | {"traceId": f"{number:032x}", "spanId": f"{number:016x}", "attributes": told}


# Retention ----------------------------------------------------------------------------------------------------------
async def test_records_go_with_their_sessions_and_aliases_and_stay_charged(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign(telemetry_retention_days=1) as lifesign, sender(lifesign) as ours:
        await ours.told(in_session(1, "old", session__id="old-alias"))
        await lifesign.advance(_DAY_S - 60)
        await ours.told(in_session(2, "new", session__id="new-alias"))
        assert await _there(ours) == ([2, 1], ["new", "old"])
        assert (await asked(ours, "/v1/sessions/old-alias")).status_code == 200

        # The loop looks once in ten minutes.
        await lifesign.advance(660)
        await lifesign.advance(60)

        assert await _there(ours) == ([2], ["new"])
        for gone in ("old", "old-alias", f"{1:032x}"):
            assert (await refused(ours, f"/v1/sessions/{gone}"))[:2] == (404, "session_not_found")
        assert (await read(ours, "/v1/sessions/new-alias"))["session"]["session_id"] == "new"
        assert (await read(ours, "/v1/dashboard"))["quota"]["used"] == 2


async def _there(of: Sender) -> tuple[list[int], list[str]]:
    """The numbers of the records and the ids of the sessions that can be read, the newest first."""
    records = (await read(of, "/v1/telemetry?since_minutes=43200"))["records"]
    sessions = (await read(of, "/v1/sessions?since_minutes=43200"))["sessions"]
    return [int(each["span_id"], 16) for each in records], [each["session_id"] for each in sessions]


# Many sessions ------------------------------------------------------------------------------------------------------
async def test_pages_of_520_sessions_tell_each_once_while_new_ones_arrive(lifesign: Lifesign) -> None:
    async with sender(lifesign) as ours:
        for part in range(4):
            first = 1 + part * 130
            await ours.told(*(in_session(number, f"s-{number:03}") for number in range(first, first + 130)))
            await lifesign.advance(1)

        told: list[str] = []
        page = await read(ours, "/v1/sessions?limit=150")
        while page["next_cursor"] is not None:
            told += [each["session_id"] for each in page["sessions"]]
            await ours.told(in_session(1000 + len(told), f"late-{len(told)}"))
            await lifesign.advance(1)
            page = await read(ours, f"/v1/sessions?limit=150&cursor={page['next_cursor']}")
        told += [each["session_id"] for each in page["sessions"]]
        newest = [each["session_id"] for each in (await read(ours, "/v1/sessions?limit=500"))["sessions"]]

    # Of each second, the later ones first, by id.
    expected = [f"s-{part * 130 + number:03}" for part in (3, 2, 1, 0) for number in range(1, 131)]
    assert told == expected
    assert newest == ["late-450", "late-300", "late-150", *expected[:497]]


# A store that is away -----------------------------------------------------------------------------------------------
@contextmanager
def away(cluster: Databases, url: str) -> Iterator[None]:
    """Everybody is thrown out of a database, and nobody gets in."""
    name = make_url(url).database or ""
    database = sql.Identifier(name)
    with psycopg.connect(cluster.url("postgres"), autocommit=True) as owner:
        owner.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(database))
        try:
            owner.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
            yield
        finally:
            owner.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(database))


async def test_while_the_store_is_away_that_is_what_is_answered_and_then_all_is_there(
    tmp_path: Path, cluster: Databases
) -> None:
    with cluster.new_database() as url:
        settings = SETTINGS.model_copy(update={"data_dir": tmp_path, "telemetry_url": SecretStr(url)})
        async with Lifesign.started(settings, at="2026-01-05T12:00:00.000Z") as lifesign, sender(lifesign) as ours:
            await ours.told(in_session(1, "one"))
            await lifesign.heartbeat(slug="job")

            with away(cluster, url):
                for path in ("/v1/telemetry", "/v1/sessions", "/v1/sessions/one", "/v1/dashboard"):
                    assert (await refused(ours, path))[:2] == (503, "store_unavailable"), path
                sent = await ours.post(json_of(in_session(2, "two")))
                assert (sent.status_code, sent.json()["error"]) == (503, "storage_unavailable")
                # Heartbeats have nothing to do with it.
                await lifesign.check_in("job")
                ready = await lifesign.ask("GET", "/ready")

            assert (await ours.told(in_session(2, "two")))["accepted"] == 1
            assert await _there(ours) == ([1, 2], ["one", "two"])
            assert (ready["ready"], ready["telemetry"]) == (True, "unavailable: StoreUnavailable")
            assert (await lifesign.ask("GET", "/ready"))["telemetry"] == "ok"


# One process a file -------------------------------------------------------------------------------------------------
def test_a_second_server_on_one_file_of_records_is_refused(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    address = f"sqlite:///{shared / 'records.db'}"
    with serving(tmp_path / "one", telemetry_url=address) as first:
        with starting(tmp_path / "two", telemetry_url=address) as second:
            code = second.exit_code()
            words = second.log.read_text()

        assert code == _FAILED
        assert f"{shared} is in use by process {first.process.pid}" in words
        assert "Traceback" not in words
        assert first.request("GET", "/health").status_code == 200
