"""What becomes of a project when its time is over, or when its operator deletes it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from msgspec.structs import replace
from sqlalchemy import BigInteger, Connection, Float, LargeBinary, Table, func, select

from lifesign.app import operator_way_in
from lifesign.clock import EpochMs
from lifesign.db.schema import api_keys, metadata, project_names, projects
from lifesign.engine.erasure import Eraser, RowsOfTables, tables_of_projects
from lifesign.engine.prune import Prune
from tests.harness import Lifesign, MakeLifesign
from tests.peers.process import LedgerPeer
from tests.projects.visitors import visitor
from tests.telemetry.senders import sender, spans

DAY_S = 24 * 3600
# Of no project: limits, nodes, and what providers said.
SHARED = {
    "projects",
    "users",
    "user_sessions",
    "password_links",
    "sign_in_failures",
    "identities",
    "spent_states",
    "limited_calls",
    "rate_buckets",
    "usage_minutes",
    "usage_hours",
    "usage_latency",
    "usage_latency_days",
    "usage_errors",
    "vitals_allowances",
    "callbacks_seen",
    "nodes",
    "engine_state",
}


@asynccontextmanager
async def operator(lifesign: Lifesign) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(operator_way_in(lifesign.node), raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


async def left_of(lifesign: Lifesign, project_id: str) -> dict[str, int]:
    """How many rows of a project there are, in each table that has some."""

    def counts(conn: Connection) -> dict[str, int]:
        found = {
            table.name: conn.scalar(select(func.count()).where(table.c.project_id == project_id)) or 0
            for table in tables_of_projects()
        }
        found["projects"] = conn.scalar(select(func.count()).where(projects.c.id == project_id)) or 0
        return {name: count for name, count in found.items() if count}

    return await lifesign.node.db.read(counts)


async def test_a_sandbox_goes_thirty_days_after_it_expired_and_its_name_is_free_again(
    start_lifesign: MakeLifesign,
) -> None:
    async with start_lifesign(provision_auto_graduate=False) as lifesign, visitor(lifesign) as someone:
        made = await someone.provision("shop")
        await lifesign.advance(44 * DAY_S - 300)
        for _ in range(4):
            await lifesign.advance(60)
        assert await someone.refused("POST", "/v1/provision", {"project_name": "shop"}, key=made["agent_key"]) == (
            401,
            "expired_key",
        )
        assert await left_of(lifesign, made["project_id"]) == {"projects": 1, "project_names": 1, "api_keys": 2}

        for _ in range(4):
            await lifesign.advance(60)

        assert await left_of(lifesign, made["project_id"]) == {}
        assert (await someone.provision("shop"))["project_id"] != made["project_id"]
        assert await someone.refused(
            "POST", "/v1/recover", {"project_id": made["project_id"], "recovery_code": made["recovery_code"]}
        ) == (404, "project_not_found")


async def test_a_sandbox_that_was_extended_stays(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign() as lifesign, visitor(lifesign) as someone, operator(lifesign) as owner:
        made = await someone.sign_up()
        await lifesign.advance(20 * DAY_S)
        extended = (await owner.post(f"/admin/projects/{made['project_id']}/extend", json={"days": 30})).json()
        assert extended["expiresAt"] == "2026-02-24T12:00:00.000Z"
        # Its keys live again.
        assert (await someone.refused("POST", "/v1/signup/upgrade", {}, key=made["agent_key"]))[0] == 400

        for _ in range(4):
            await lifesign.advance(10 * DAY_S)

        assert (await left_of(lifesign, made["project_id"]))["projects"] == 1
        assert await someone.refused("POST", "/v1/signup/upgrade", {}, key=made["agent_key"]) == (401, "expired_key")


async def test_a_deleted_project_is_gone_for_everybody_at_once_and_erased_soon(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    async with visitor(lifesign) as someone, operator(lifesign) as owner:
        made = await someone.provision("shop")
        headers = {"X-Lifesign-Project": made["project_id"]}
        hook = {"name": "hook", "type": "webhook", "config": {"url": f"{ledger.url}/hook/shop"}}
        channel = (await owner.post("/v1/channels", json=hook, headers=headers)).json()["id"]
        body = {"name": "job", "mode": "recurring", "interval": 60, "grace": 0, "channels": [channel]}
        assert (await owner.post("/v1/heartbeats", json=body, headers=headers)).status_code == 201
        await owner.post(
            "/v1/maintenance", json={"name": "w", "schedule": "0 3 * * *", "duration": 60, "all": True}, headers=headers
        )
        await owner.post("/api/systems", json={"name": "db1"}, headers=headers)
        await lifesign.advance(61)
        assert len(await left_of(lifesign, made["project_id"])) > 10

        assert (await owner.delete(f"/admin/projects/{made['project_id']}")).status_code == 204

        assert await someone.refused("POST", "/v1/signup/upgrade", {}, key=made["agent_key"]) == (401, "revoked_key")
        told = (await owner.get("/v1/heartbeats", headers=headers)).json()["error"]["message"]
        assert told == f"Invalid request: project '{made['project_id']}' does not exist"
        listed = (await owner.get("/admin/projects")).json()["projects"]
        assert [each["name"] for each in listed] == ["default"]
        assert (await someone.provision("shop"))["project_id"] != made["project_id"]
        for _ in range(4):
            await lifesign.advance(60)
        assert await left_of(lifesign, made["project_id"]) == {}
        assert (await lifesign.http.get("/ready")).status_code == 200


async def test_spans_that_a_slow_store_takes_after_the_deletion_are_erased_too(lifesign: Lifesign) -> None:
    store = lifesign.node.store
    async with sender(lifesign) as ours, operator(lifesign) as owner:
        await ours.told(*spans(1))
        [stored] = await ours.stored()
        assert (await owner.delete(f"/admin/projects/{ours.project_id}")).status_code == 204
        await _run(_prune(lifesign, [store, RowsOfTables(lifesign.node.db)]), lifesign, after_s=14)

        # One that was let in 5 s after the deletion, by what was remembered, and waited for the commit since.
        late = replace(stored.record, span_id=f"{2:016x}")
        await store.append(ours.project_id, [late], quota=0, now=lifesign.now())
        await _run(_prune(lifesign, [store, RowsOfTables(lifesign.node.db)]), lifesign)

        assert await ours.stored() == []
        assert await store.used(ours.project_id, lifesign.now()) == 0


@pytest.mark.parametrize("ref", ["default", "prj"])
async def test_the_default_project_cannot_be_deleted(lifesign: Lifesign, ref: str) -> None:
    async with operator(lifesign) as owner:
        [listed] = (await owner.get("/admin/projects")).json()["projects"]
        path = f"/admin/projects/{listed['id'] if ref == 'prj' else ref}"

        answer = await owner.delete(path)

    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "CONFLICT")
    assert await lifesign.ask("GET", "/v1/heartbeats") == {"heartbeats": []}


# Erasing ------------------------------------------------------------------------------------------------------------
def _row(table: Table, project_id: str, n: int) -> dict[str, Any]:
    """A row with something in every column that needs it, different for every project and `n`."""
    values: dict[str, Any] = {}
    for column in table.columns:
        if column.name == "project_id":
            values[column.name] = project_id
        elif not column.nullable and column.server_default is None and column.autoincrement is not True:
            match column.type:
                case BigInteger() | Float():
                    values[column.name] = n
                case LargeBinary():
                    values[column.name] = f"{project_id} {n}".encode()
                case kind:
                    is_text = kind.python_type is str
                    values[column.name] = f"{project_id} {column.name} {n}" if is_text else 1
    return values


def _fill(conn: Connection, project_ids: Sequence[str], count: int) -> None:
    for table in tables_of_projects():
        rows = range(1 if _has_one_row(table) else count)
        conn.execute(table.insert(), [_row(table, each, n) for each in project_ids for n in rows])


def _has_one_row(table: Table) -> bool:
    """Whether a project has one row of it at most."""
    return [column.name for column in table.primary_key] == ["project_id"]


def test_every_table_belongs_to_projects_or_is_known_to_belong_to_none() -> None:
    assert {table.name for table in tables_of_projects()} | SHARED == set(metadata.tables)
    assert {table.name for table in tables_of_projects()} & SHARED == set()


async def test_everything_of_a_project_is_erased_and_nothing_of_another(lifesign: Lifesign) -> None:
    await lifesign.node.db.write(_fill, ["doomed", "other", "doomed too"], 3)
    before = await left_of(lifesign, "other")
    single = [table.name for table in tables_of_projects() if _has_one_row(table)]
    assert before == {table.name: 3 for table in tables_of_projects()} | dict.fromkeys(single, 1)
    eraser = RowsOfTables(lifesign.node.db)

    erased = [await eraser.erase(["doomed", "doomed too"], 20) for _ in range(20)]

    assert erased[:3] == [20, 20, 20]
    assert erased[-1] == 0
    assert sum(erased) == 2 * sum(before.values())
    assert await left_of(lifesign, "doomed") == await left_of(lifesign, "doomed too") == {}
    assert await left_of(lifesign, "other") == before


async def test_what_erases_elsewhere_is_asked_until_it_has_nothing_left(lifesign: Lifesign) -> None:
    asked: list[list[str]] = []

    class Spans:
        left = 3

        async def erase(self, project_ids: Sequence[str], limit: int) -> int:
            asked.append(list(project_ids))
            self.left -= 1
            return max(0, self.left)

    made = await _deleted(lifesign)
    prune = _prune(lifesign, [Spans(), RowsOfTables(lifesign.node.db)])

    await _run(prune, lifesign)

    assert len(asked) > 3
    assert {each for ids in asked for each in ids} == {made}
    assert await left_of(lifesign, made) == {}


async def test_a_store_that_is_away_keeps_the_project_waiting_and_nothing_else(lifesign: Lifesign) -> None:
    class Away:
        async def erase(self, project_ids: Sequence[str], limit: int) -> int:
            raise OSError("away")

    made = await _deleted(lifesign)
    await _run(_prune(lifesign, [Away(), RowsOfTables(lifesign.node.db)]), lifesign)
    assert await left_of(lifesign, made) == {"projects": 1, "api_keys": 2}

    await _run(_prune(lifesign, [RowsOfTables(lifesign.node.db)]), lifesign)

    assert await left_of(lifesign, made) == {}


def _prune(lifesign: Lifesign, erasers: list[Eraser]) -> Prune:
    return Prune(
        lifesign.node.db,
        erasers,
        event_days=90,
        packet_days=90,
        bot_run_days=90,
        bot_transcript_days=30,
        measurement_days=30,
    )


async def _deleted(lifesign: Lifesign) -> str:
    """The id of a project that was deleted just now."""
    async with visitor(lifesign) as someone, operator(lifesign) as owner:
        made = str((await someone.provision())["project_id"])
        assert (await owner.delete(f"/admin/projects/{made}")).status_code == 204
    return made


async def _run(prune: Prune, lifesign: Lifesign, *, after_s: int = 30) -> None:
    """One pass of the loop, so many seconds from now."""
    now: EpochMs | None = EpochMs(lifesign.now() + after_s * 1000)
    for _ in range(50):
        assert now is not None
        now = await prune.tick(now)
        if now is None:
            return
    raise AssertionError("the loop does not come to rest")


async def test_names_and_keys_of_a_deleted_project_are_rows_of_it(lifesign: Lifesign) -> None:
    assert {project_names, api_keys} <= set(tables_of_projects())
