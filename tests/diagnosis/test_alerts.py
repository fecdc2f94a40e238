"""A failing agent pages like a dead one, when a project wants it. Spec "Diagnosis", section 6, "Paging"."""

import pytest

from tests.diagnosis.runs import Agent
from tests.harness import Json, Lifesign
from tests.telemetry.senders import Sender


async def default_project(lifesign: Lifesign) -> Agent:
    """An agent of the project that the admin key belongs to."""
    keys = {}
    for name, scopes in (
        ("in", ["telemetry:write"]),
        ("out", ["runs:write", "telemetry:read", "dashboard:read", "reports:read"]),
    ):
        keys[name] = (await lifesign.ask("POST", "/v1/keys", {"name": name, "scopes": scopes}, expect=201))["token"]
    return Agent(Sender(lifesign.http, "", keys["in"], keys["out"], lifesign))


async def alert(lifesign: Lifesign, severity: str = "medium") -> Json:
    policy = await lifesign.policy({"channels": [(await lifesign.webhook("http://127.0.0.1:9/"))["id"]]})
    changes = {"diagnosisAlert": {"policy": policy["id"], "severity": severity}}
    return await lifesign.ask("PATCH", "/v1/settings", changes)


async def status(lifesign: Lifesign) -> str:
    return str((await lifesign.get("diagnosis"))["status"])


async def test_a_bad_packet_opens_an_incident_and_a_good_one_resolves_it(lifesign: Lifesign) -> None:
    ours = await default_project(lifesign)
    settings = await alert(lifesign)
    before = await status(lifesign)
    await ours.send(*[ours.tool(failing=True) for _ in range(3)])
    packet = await ours.diagnose()
    fired = await status(lifesign)
    [incident] = await lifesign.incidents((await lifesign.get("diagnosis"))["id"])
    await lifesign.advance(2 * 3600)
    await ours.diagnose()

    assert settings == await lifesign.ask("GET", "/v1/settings")
    assert settings["diagnosisAlert"]["severity"] == "medium"
    assert (before, fired, await status(lifesign)) == ("active", "firing", "active")
    assert (incident["status"], incident["reason"]) == ("open", "unhealthy")
    told = next(each for each in await lifesign.events("diagnosis") if each["type"] == "checkin_unhealthy")
    assert packet["packet_id"] in str(told)


@pytest.mark.parametrize(
    ("severity", "failures", "body"),
    [
        ("high", 3, {}),
        ("low", 1, {}),
        ("medium", 3, {"until": "2026-01-05T12:00:00.001Z"}),
        ("medium", 3, {"environment": "prod"}),
    ],
    ids=["not bad enough", "not ready", "of a chosen time", "of one environment"],
)
async def test_other_packets_page_nobody(
    lifesign: Lifesign, severity: str, failures: int, body: dict[str, object]
) -> None:
    ours = await default_project(lifesign)
    await alert(lifesign, severity)
    await ours.send(*[ours.tool(failing=True, deployment__environment="prod") for _ in range(failures)])
    packet = await ours.diagnose(**body)

    assert len(packet["issues"]) == 1
    assert await status(lifesign) == "active"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_what_is_worse_than_asked_pages_too(lifesign: Lifesign) -> None:
    ours = await default_project(lifesign)
    await alert(lifesign, "low")
    await ours.send(*[ours.tool(failing=True) for _ in range(3)])
    packet = await ours.diagnose()

    assert [each["severity"] for each in packet["issues"]] == ["medium"]
    assert await status(lifesign) == "firing"


async def test_the_heartbeat_belongs_to_diagnosis(lifesign: Lifesign) -> None:
    await alert(lifesign)
    heartbeat = await lifesign.get("diagnosis")

    assert (heartbeat["namespace"], heartbeat["mode"], heartbeat["interval"]) == ("diagnosis", "recurring", 315_360_000)
    assert heartbeat["managedBy"] == "diagnosis"
    path = f"/v1/heartbeats/{heartbeat['id']}"
    for method, place, body in (
        ("DELETE", path, None),
        ("PATCH", path, {"name": "mine"}),
        ("POST", f"{path}/checkin", {}),
        ("POST", f"{path}/runs", {}),
    ):
        error = (await lifesign.ask(method, place, body, expect=400))["error"]
        assert (error["code"], error["message"]) == ("INVALID_STATE", "managed by diagnosis")


async def test_the_alert_is_changed_and_switched_off(lifesign: Lifesign) -> None:
    first = await alert(lifesign)
    heartbeat = await lifesign.get("diagnosis")
    second = await alert(lifesign, "critical")
    same = await lifesign.get("diagnosis")
    off = await lifesign.ask("PATCH", "/v1/settings", {"diagnosisAlert": None})
    await lifesign.ask("PATCH", "/v1/settings", {"diagnosisAlert": None})

    assert first["diagnosisAlert"] != second["diagnosisAlert"]
    assert (same["id"], same["policy"]) == (heartbeat["id"], second["diagnosisAlert"]["policy"])
    assert off == {}
    await lifesign.ask("GET", "/v1/heartbeats/diagnosis", expect=404)


async def test_a_heartbeat_of_that_slug_may_be_there_already(lifesign: Lifesign) -> None:
    theirs = await lifesign.heartbeat("Diagnosis")
    await alert(lifesign)

    assert (await lifesign.get("diagnosis"))["id"] == theirs["id"]
    assert (await lifesign.get("diagnosis-2"))["managedBy"] == "diagnosis"


@pytest.mark.parametrize(
    ("wanted", "field", "words"),
    [
        ({"policy": "pol_0199e6a1b2c37d4e8f00112233445566", "severity": "high"}, "diagnosisAlert.policy", "unknown"),
        ({"severity": "high"}, "diagnosisAlert.policy", ""),
        ({"policy": "POLICY", "severity": "bad"}, "diagnosisAlert.severity", ""),
        ({"policy": "POLICY"}, "diagnosisAlert.severity", ""),
        ("yes", "diagnosisAlert", ""),
    ],
)
async def test_what_cannot_be_set_is_named_and_changes_nothing(
    lifesign: Lifesign, wanted: object, field: str, words: str
) -> None:
    hook = await lifesign.webhook("http://127.0.0.1:9/")
    policy = await lifesign.policy({"channels": [hook["id"]]})
    if isinstance(wanted, dict) and wanted.get("policy") == "POLICY":
        wanted = wanted | {"policy": policy["id"]}
    changes = {"fallbackChannel": hook["id"], "diagnosisAlert": wanted}
    error = (await lifesign.ask("PATCH", "/v1/settings", changes, expect=400))["error"]

    assert error["details"][0]["field"] == field
    assert words in error["details"][0]["message"]
    assert await lifesign.ask("GET", "/v1/settings") == {}


async def test_a_policy_in_use_by_the_alert_is_not_deleted_by_chance(lifesign: Lifesign) -> None:
    policy = (await alert(lifesign))["diagnosisAlert"]["policy"]
    refused = await lifesign.ask("DELETE", f"/v1/policies/{policy}", expect=409)
    await lifesign.ask("DELETE", f"/v1/policies/{policy}?force=true", expect=204)

    assert [each["name"] for each in refused["error"]["details"]["users"]] == ["Diagnosis"]
    assert await lifesign.ask("GET", "/v1/settings") == {"diagnosisAlert": {"severity": "medium"}}
