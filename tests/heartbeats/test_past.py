"""How the last waits ended, and how the last days went."""

import pytest
from sqlalchemy import Connection, delete, func, insert, select

from lifesign.db.schema import events, incidents
from tests.harness import Lifesign
from tests.shared import refused

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_heartbeat_shows_how_its_last_waits_ended(office: Lifesign) -> None:
    made = await office.heartbeat(interval=60, grace=60)
    path = f"/v1/heartbeats/{made['id']}"
    await office.advance(60)
    await office.check_in(made["id"])  # at the deadline, which is in time
    await office.advance(90)
    await office.check_in(made["id"])  # half a minute late
    await office.advance(130)  # fires
    await office.check_in(made["id"])
    await office.ask("POST", f"{path}/pause")
    await office.ask("POST", f"{path}/resume")

    shown = await office.ask("GET", f"{path}?recentPeriods=true")

    assert shown["recentPeriods"] == ["on_time", "late", "missed", "unknown"]
    late = [each["metadata"].get("late") for each in await office.events(made["id"]) if each["type"] == "checkin"]
    assert late == [None, 30, None]
    assert "recentPeriods" not in await office.get(made["id"])


async def test_a_list_shows_them_of_each(office: Lifesign) -> None:
    quiet = await office.heartbeat("Quiet")
    busy = await office.heartbeat("Busy")
    for _ in range(40):
        await office.check_in(busy["id"])

    listed = (await office.ask("GET", "/v1/heartbeats?recentPeriods=true"))["heartbeats"]

    assert [(each["id"], each["recentPeriods"]) for each in listed] == [
        (quiet["id"], []),
        (busy["id"], ["on_time"] * 30),
    ]
    plain = (await office.ask("GET", "/v1/heartbeats?recentPeriods=false"))["heartbeats"]
    assert ["recentPeriods" in each for each in plain] == [False, False]
    assert (await refused(office, "GET", "/v1/heartbeats?recentPeriods=1"))[0]["field"] == "recentPeriods"


async def test_imported_history_is_no_wait_of_this_server(office: Lifesign) -> None:
    made = await office.heartbeat()
    past = [{"type": "firing", "createdAt": "2025-12-31T10:00:00.000Z"}]
    await office.ask("POST", f"/v1/heartbeats/{made['id']}/events/import", {"events": past})

    assert (await office.ask("GET", f"/v1/heartbeats/{made['id']}?recentPeriods=true"))["recentPeriods"] == []


async def test_a_long_history_costs_no_more_than_a_short_one(office: Lifesign) -> None:
    made = await office.heartbeat()

    def fill(conn: Connection) -> None:
        row = {"project_id": "p", "heartbeat_id": made["id"], "type": "log", "metadata": "{}", "created_at": 1}
        conn.execute(insert(events), [row | {"id": f"evt_{n}"} for n in range(20_000)])

    await office.check_in(made["id"])
    await office.node.db.write(fill)

    # What is asked for lies behind more than is looked at.
    assert (await office.ask("GET", f"/v1/heartbeats/{made['id']}?recentPeriods=true"))["recentPeriods"] == []
    await office.check_in(made["id"])
    shown = await office.ask("GET", f"/v1/heartbeats/{made['id']}?recentPeriods=true")
    assert shown["recentPeriods"] == ["on_time"]


# Days ---------------------------------------------------------------------------------------------------------------
async def test_the_days_of_a_heartbeat(office: Lifesign) -> None:
    made = await office.heartbeat(interval=3600, grace=0)
    await office.advance(3600 + 600)
    await office.check_in(made["id"])

    answer = await office.ask("GET", f"/v1/heartbeats/{made['id']}/history?days=2")

    assert answer["days"][-1]["state"] == "down"
    assert sum(each["downSeconds"] for each in answer["days"]) == 600
    assert sum(each["incidents"] for each in answer["days"]) == 1
    for wrong in ("0", "367", "x", "-1", "1.5", ""):
        path = f"/v1/heartbeats/{made['id']}/history?days={wrong}"
        assert (await refused(office, "GET", path))[0]["field"] == "days"
    await office.ask("GET", "/v1/heartbeats/nobody/history", expect=404)


async def test_ten_thousand_incidents_are_counted(office: Lifesign) -> None:
    made = await office.heartbeat(interval=60, grace=0)
    await office.advance(61)
    await office.check_in(made["id"])
    now = office.now()

    def fill(conn: Connection) -> None:
        (row,) = conn.execute(select(incidents).where(incidents.c.heartbeat_id == made["id"])).mappings().all()
        many = [
            dict(row) | {"id": f"inc_{n:032x}", "ack_code": None, "opened_at": now - n, "resolved_at": now - n}
            for n in range(10_000)
        ]
        known = {column.name for column in incidents.columns}
        conn.execute(insert(incidents), [{key: each[key] for key in each if key in known} for each in many])
        assert conn.scalar(select(func.count()).where(incidents.c.heartbeat_id == made["id"])) == 10_001

    await office.node.db.write(fill)

    answer = await office.ask("GET", f"/v1/heartbeats/{made['id']}/history")

    assert sum(each["incidents"] for each in answer["days"]) == 10_001


async def test_a_pause_counts_though_its_event_is_kept_no_longer(office: Lifesign) -> None:
    made = await office.heartbeat()
    path = f"/v1/heartbeats/{made['id']}"

    def forget_pause(conn: Connection) -> None:
        conn.execute(delete(events).where(events.c.heartbeat_id == made["id"], events.c.type == "paused"))

    async def states() -> list[str]:
        return [each["state"] for each in (await office.ask("GET", f"{path}/history"))["days"]]

    await office.ask("POST", f"{path}/pause")
    await office.advance(2 * 86_400)
    await office.node.db.write(forget_pause)
    assert await states() == ["unknown", "unknown", "unknown"]

    await office.ask("POST", f"{path}/resume")
    assert await states() == ["unknown", "unknown", "unknown"]
