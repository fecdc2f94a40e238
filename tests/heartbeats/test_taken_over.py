"""What lets a heartbeat be taken over: from a file that declares it, or from another server that watched it."""

import asyncio
from typing import Any

import pytest

from tests.harness import Lifesign
from tests.shared import after, new_project, refused

pytestmark = pytest.mark.asyncio(loop_scope="module")

OLD_ID = "0b7b1f6e-9c5e-4b8a-9d5e-0d3c6f2a1b4c"
WATCHED: dict[str, Any] = {"name": "Backup", "mode": "recurring", "interval": 3600}


async def fields_refused(office: Lifesign, body: dict[str, Any]) -> list[str]:
    return [each["field"] for each in await refused(office, "POST", "/v1/heartbeats", body)]


# Who made it --------------------------------------------------------------------------------------------------------
async def test_who_made_an_object_is_kept_and_shown(office: Lifesign) -> None:
    channel = await office.ask(
        "POST",
        "/v1/channels",
        {"name": "mail", "type": "email", "config": {"to": "a@example.org"}, "origin": "apply"},
        expect=201,
    )
    policy = await office.policy({"channels": [channel["id"]]}, origin="apply")
    heartbeat = await office.heartbeat(origin="apply")
    window = await office.ask(
        "POST",
        "/v1/maintenance",
        {"name": "w", "schedule": "0 3 * * *", "duration": 60, "all": True, "origin": "apply"},
        expect=201,
    )
    system = (await office.ask("POST", "/api/systems", {"name": "db1", "origin": "apply"}, expect=201))["data"]

    assert [each["origin"] for each in (channel, policy, heartbeat, window, system)] == ["apply"] * 5
    assert (await office.ask("GET", f"/v1/channels/{channel['id']}"))["origin"] == "apply"
    assert (await office.ask("GET", f"/v1/policies/{policy['id']}"))["origin"] == "apply"
    assert (await office.get(heartbeat["id"]))["origin"] == "apply"
    assert (await office.ask("GET", f"/v1/maintenance/{window['id']}"))["origin"] == "apply"
    assert (await office.ask("GET", f"/api/systems/{system['id']}"))["data"]["origin"] == "apply"
    await office.ask("DELETE", f"/api/systems/{system['id']}")


async def test_who_made_it_stays_through_every_edit(office: Lifesign) -> None:
    heartbeat = await office.heartbeat(origin="apply")

    edited = await office.ask("PATCH", f"/v1/heartbeats/{heartbeat['id']}", {"grace": 5, "origin": "somebody"})
    await office.check_in(heartbeat["id"])

    assert edited["origin"] == "apply"
    assert (await office.get(heartbeat["id"]))["origin"] == "apply"


async def test_made_by_nobody_in_particular_shows_nothing(office: Lifesign) -> None:
    assert "origin" not in await office.heartbeat()
    system = (await office.ask("POST", "/api/systems", {"name": "db1"}, expect=201))["data"]
    assert "origin" not in system
    await office.ask("DELETE", f"/api/systems/{system['id']}")


@pytest.mark.parametrize("origin", ["", " ", "x" * 65, 7, None, "a\nb"])
async def test_an_origin_that_is_none_is_refused(office: Lifesign, origin: object) -> None:
    assert await fields_refused(office, WATCHED | {"origin": origin}) == ["origin"]


# The UUID it was pinged by -------------------------------------------------------------------------------------------
async def test_a_heartbeat_answers_to_the_uuid_it_had_before(office: Lifesign) -> None:
    made = await office.heartbeat(pingId=OLD_ID.upper())

    assert made["pingUrl"] == f"http://lifesign.test/ping/{OLD_ID}"
    async with office.client(None) as anybody:
        assert (await anybody.get(f"/ping/{OLD_ID}")).status_code == 200
    assert (await office.get(made["id"]))["lastCheckin"] == after(office, 0)


async def test_a_uuid_names_one_heartbeat_of_all_projects(office: Lifesign) -> None:
    await office.heartbeat(pingId=OLD_ID)

    assert await fields_refused(office, WATCHED | {"pingId": OLD_ID}) == ["pingId"]
    async with new_project(office) as elsewhere:
        assert await fields_refused(elsewhere, WATCHED | {"pingId": OLD_ID}) == ["pingId"]


async def test_of_many_at_once_one_gets_the_uuid(office: Lifesign) -> None:
    bodies = [WATCHED | {"name": f"b{n}", "pingId": OLD_ID} for n in range(12)]

    answers = await asyncio.gather(*(office.http.post("/v1/heartbeats", json=body) for body in bodies))

    assert sorted(each.status_code for each in answers) == [201] + [400] * 11
    assert len((await office.ask("GET", "/v1/heartbeats"))["heartbeats"]) == 1


@pytest.mark.parametrize("ping_id", ["", "x", "0b7b1f6e9c5e4b8a9d5e0d3c6f2a1b4c", OLD_ID + "0", 5, None])
async def test_what_is_no_uuid_is_refused(office: Lifesign, ping_id: object) -> None:
    assert await fields_refused(office, WATCHED | {"pingId": ping_id}) == ["pingId"]


# Which pings count --------------------------------------------------------------------------------------------------
async def test_which_pings_count_is_shown_where_it_is_not_all_of_them(office: Lifesign) -> None:
    rules = {"methods": "POST", "filterHttpBody": True, "successKeywords": "done, ok", "failureKeywords": ""}

    made = await office.heartbeat(pings=rules)

    assert made["pings"] == {"methods": "POST", "filterHttpBody": True, "successKeywords": "done, ok"}
    assert (await office.get(made["id"]))["pings"] == made["pings"]
    assert "pings" not in await office.heartbeat(pings={"methods": ""})


async def test_pings_count_as_the_heartbeat_says(office: Lifesign) -> None:
    made = await office.heartbeat(pings={"filterHttpBody": True, "failureKeywords": "FAILED"})
    async with office.client(None) as anybody:
        await anybody.post(made["pingUrl"], content=b"backup FAILED")

    assert (await office.get(made["id"]))["status"] == "firing"


async def test_which_pings_count_is_replaced_whole_and_can_be_cleared(office: Lifesign) -> None:
    made = await office.heartbeat(pings={"methods": "POST", "filterBody": True})
    path = f"/v1/heartbeats/{made['id']}"

    changed = await office.ask("PATCH", path, {"pings": {"filterSubject": True, "startKeywords": "go"}})
    cleared = await office.ask("PATCH", path, {"pings": None})

    assert changed["pings"] == {"filterSubject": True, "startKeywords": "go"}
    assert "pings" not in cleared
    newest = (await office.events(made["id"]))[0]
    assert (newest["type"], newest["metadata"]["fields"]) == ("updated", ["pings"])


@pytest.mark.parametrize(
    ("rules", "field"),
    [
        ({"methods": "GET"}, "pings.methods"),
        ({"filterBody": 1}, "pings.filterBody"),
        ({"startKeywords": "x" * 201}, "pings.startKeywords"),
        ({"failureKeywords": "a\x00"}, "pings.failureKeywords"),
        ([], "pings"),
        (None, "pings"),
    ],
)
async def test_rules_that_are_none_are_refused(office: Lifesign, rules: object, field: str) -> None:
    assert await fields_refused(office, WATCHED | {"pings": rules}) == [field]


# Schedules in systemd's words ---------------------------------------------------------------------------------------
async def test_a_schedule_may_be_one_of_systemd(office: Lifesign) -> None:
    made = await office.heartbeat(mode="scheduled", schedule="Mon..Fri  06:30", timezone="Europe/Berlin")

    assert made["schedule"] == "Mon..Fri 06:30"
    edited = await office.ask("PATCH", f"/v1/heartbeats/{made['id']}", {"schedule": "*-*-01 04:00"})
    assert edited["nextDeadline"].endswith(("-01T03:00:00.000Z", "-01T02:00:00.000Z"))


@pytest.mark.parametrize("schedule", ["0 0 30 2 *", "0 0 * *", "0 0 0 * * *", "@daily", "Feb 30 *", "*-02-30 04:00"])
async def test_a_schedule_that_is_none_or_never_due_is_refused(office: Lifesign, schedule: str) -> None:
    body = {"name": "n", "mode": "scheduled", "schedule": schedule}
    assert await fields_refused(office, body) == ["schedule"]


# History of another server ------------------------------------------------------------------------------------------
PAST = [
    {"type": "resolved", "createdAt": "2025-12-31T10:30:00.000Z"},
    {"type": "firing", "createdAt": "2025-12-31T10:00:00.000Z"},
]


async def test_history_of_another_server_is_kept_and_marked(office: Lifesign) -> None:
    made = await office.heartbeat()
    path = f"/v1/heartbeats/{made['id']}/events/import"

    assert await office.ask("POST", path, {"events": PAST}) == {"imported": 2, "known": 0}

    newest = (await office.events(made["id"]))[:2]
    assert [(each["type"], each["createdAt"], each["metadata"]) for each in newest] == [
        ("resolved", "2025-12-31T10:30:00.000Z", {"imported": True}),
        ("firing", "2025-12-31T10:00:00.000Z", {"imported": True}),
    ]
    assert (await office.get(made["id"]))["status"] == "active"
    assert await office.incidents(made["id"]) == []


async def test_the_same_history_again_changes_nothing(office: Lifesign) -> None:
    made = await office.heartbeat()
    path = f"/v1/heartbeats/{made['id']}/events/import"
    await office.ask("POST", path, {"events": PAST[:1]})
    before = len(await office.events(made["id"]))

    assert await office.ask("POST", path, {"events": [*PAST, PAST[0]]}) == {"imported": 1, "known": 1}
    assert await office.ask("POST", path, {"events": PAST}) == {"imported": 0, "known": 2}
    assert len(await office.events(made["id"])) == before + 1


async def test_imported_history_shows_in_the_flips_by_its_own_time(office: Lifesign) -> None:
    made = await office.heartbeat(interval=60, grace=0)
    await office.advance(61)
    fired_at = (await office.events(made["id"]))[0]["createdAt"]
    await office.ask("POST", f"/v1/heartbeats/{made['id']}/events/import", {"events": PAST})

    ping_id = made["pingUrl"].rsplit("/", 1)[1]
    key = office.http.headers["Authorization"].removeprefix("Bearer ")
    flips = (await office.ask("GET", f"/api/v3/checks/{ping_id}/flips/", X_Api_Key=key))["flips"]

    assert [(each["timestamp"][:19], each["up"]) for each in flips] == [
        (fired_at[:19], 0),
        ("2025-12-31T10:30:00", 1),
        ("2025-12-31T10:00:00", 0),
    ]


async def test_history_that_is_none_is_refused_and_nothing_kept(office: Lifesign) -> None:
    made = await office.heartbeat()
    path = f"/v1/heartbeats/{made['id']}/events/import"
    before = await office.events(made["id"])

    for events, field in (
        ([PAST[0], {"type": "firing", "createdAt": "2999-01-01T00:00:00Z"}], "events[1].createdAt"),
        ([{"type": "checkin", "createdAt": "2025-01-01T00:00:00Z"}], "events[0].type"),
        ([{"type": "firing", "createdAt": "2025-01-01"}], "events[0].createdAt"),
        ([PAST[0]] * 1001, "events"),
        (None, "events"),
    ):
        assert [each["field"] for each in await refused(office, "POST", path, {"events": events})] == [field]

    assert await office.events(made["id"]) == before
    await office.ask("POST", "/v1/heartbeats/nobody/events/import", {"events": PAST}, expect=404)
