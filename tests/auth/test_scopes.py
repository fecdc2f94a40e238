"""Every operation under every scope, from a table written by hand. Spec "Heartbeats", section 2."""

import pytest

from tests.harness import Lifesign
from tests.peers.process import LedgerPeer
from tests.shared import refused

pytestmark = pytest.mark.asyncio(loop_scope="module")

SCOPES = [
    "heartbeats:read",
    "heartbeats:write",
    "checkins:write",
    "policies:read",
    "policies:write",
    "channels:read",
    "channels:write",
    "keys:read",
    "keys:write",
    "*",
]
HEARTBEAT_READERS = {"heartbeats:read", "heartbeats:write", "*"}
HEARTBEAT_WRITERS = {"heartbeats:write", "*"}
CHECKERS_IN = {"checkins:write", "heartbeats:write", "*"}
# Whoever is let in gets the second status from a request that does as little as possible.
TABLE: list[tuple[str, str, int, set[str]]] = [
    ("POST", "/v1/heartbeats", 400, HEARTBEAT_WRITERS),
    ("GET", "/v1/heartbeats", 200, HEARTBEAT_READERS),
    ("GET", "/v1/heartbeats/none", 404, HEARTBEAT_READERS),
    ("PATCH", "/v1/heartbeats/none", 404, HEARTBEAT_WRITERS),
    ("DELETE", "/v1/heartbeats/none", 404, HEARTBEAT_WRITERS),
    ("POST", "/v1/heartbeats/none/checkin", 404, CHECKERS_IN),
    ("POST", "/v1/heartbeats/none/ack", 404, HEARTBEAT_WRITERS),
    ("POST", "/v1/heartbeats/none/pause", 404, HEARTBEAT_WRITERS),
    ("POST", "/v1/heartbeats/none/resume", 404, HEARTBEAT_WRITERS),
    ("GET", "/v1/heartbeats/none/events", 404, HEARTBEAT_READERS),
    ("POST", "/v1/heartbeats/none/events/import", 404, HEARTBEAT_WRITERS),
    ("GET", "/v1/heartbeats/none/history", 404, HEARTBEAT_READERS),
    ("POST", "/v1/heartbeats/none/snooze", 404, HEARTBEAT_WRITERS),
    ("DELETE", "/v1/heartbeats/none/snooze", 404, HEARTBEAT_WRITERS),
    ("GET", "/v1/heartbeats/none/runs", 404, HEARTBEAT_READERS),
    ("GET", "/v1/heartbeats/none/runs/a", 404, HEARTBEAT_READERS),
    ("POST", "/v1/heartbeats/none/runs", 404, CHECKERS_IN),
    ("POST", "/v1/heartbeats/none/runs/a/progress", 404, CHECKERS_IN),
    ("POST", "/v1/heartbeats/none/runs/a/finish", 404, CHECKERS_IN),
    ("GET", "/v1/maintenance", 200, HEARTBEAT_READERS),
    ("POST", "/v1/maintenance", 400, HEARTBEAT_WRITERS),
    ("GET", "/v1/maintenance/none", 404, HEARTBEAT_READERS),
    ("PATCH", "/v1/maintenance/none", 404, HEARTBEAT_WRITERS),
    ("DELETE", "/v1/maintenance/none", 404, HEARTBEAT_WRITERS),
    ("POST", "/v1/policies", 400, {"policies:write", "*"}),
    ("GET", "/v1/policies", 200, {"policies:read", "policies:write", "*"}),
    ("GET", "/v1/policies/none", 404, {"policies:read", "policies:write", "*"}),
    ("PATCH", "/v1/policies/none", 404, {"policies:write", "*"}),
    ("DELETE", "/v1/policies/none", 404, {"policies:write", "*"}),
    ("POST", "/v1/channels", 400, {"channels:write", "*"}),
    ("GET", "/v1/channels", 200, {"channels:read", "channels:write", "*"}),
    ("GET", "/v1/channels/none", 404, {"channels:read", "channels:write", "*"}),
    ("PATCH", "/v1/channels/none", 404, {"channels:write", "*"}),
    ("DELETE", "/v1/channels/none", 404, {"channels:write", "*"}),
    ("POST", "/v1/channels/none/test", 404, {"channels:write", "*"}),
    ("POST", "/v1/keys", 400, {"keys:write", "*"}),
    ("GET", "/v1/keys", 200, {"keys:read", "keys:write", "*"}),
    ("DELETE", "/v1/keys/none", 404, {"keys:write", "*"}),
    ("GET", "/v1/incidents", 200, HEARTBEAT_READERS),
    ("GET", "/v1/incidents/none", 404, HEARTBEAT_READERS),
    ("GET", "/v1/notifications", 200, HEARTBEAT_READERS),
]


@pytest.mark.parametrize("scope", SCOPES)
async def test_a_scope_allows_what_the_table_says_and_no_more(office: Lifesign, scope: str) -> None:
    made = await office.ask("POST", "/v1/keys", {"name": "k", "scopes": [scope]}, expect=201)
    async with office.client(made["token"]) as client:
        found = [(method, path, (await client.request(method, path)).status_code) for method, path, _, _ in TABLE]

    assert found == [(method, path, let_in if scope in allowed else 403) for method, path, let_in, allowed in TABLE]


async def test_scopes_of_a_key_add_up(office: Lifesign) -> None:
    made = await office.ask("POST", "/v1/keys", {"name": "k", "scopes": ["checkins:write", "keys:read"]}, expect=201)
    await office.heartbeat()
    async with office.client(made["token"]) as client:
        assert (await client.post("/v1/heartbeats/nightly-export/checkin")).status_code == 200
        assert (await client.get("/v1/keys")).status_code == 200
        assert (await client.get("/v1/heartbeats/nightly-export")).status_code == 403


async def test_a_key_for_check_ins_makes_no_policy(office: Lifesign, ledger: LedgerPeer) -> None:
    channel = (await office.webhook(ledger.url + "/hook/none"))["id"]
    made = await office.ask("POST", "/v1/keys", {"name": "job", "scopes": ["checkins:write"]}, expect=201)
    await office.heartbeat()
    async with office.client(made["token"]) as client:
        body = {"name": "p", "steps": [{"channels": [channel]}]}
        assert (await client.post("/v1/policies", json=body)).status_code == 403
        assert await office.ask("GET", "/v1/policies") == {"policies": []}
        assert (await client.post("/v1/heartbeats/nightly-export/checkin")).status_code == 200


async def test_what_a_target_answered_is_for_those_who_may_edit_channels(office: Lifesign, ledger: LedgerPeer) -> None:
    ledger.script("leaky", {"status": 500, "body": "inner words", "times": 2})
    channel = (await office.webhook(ledger.url + "/hook/leaky"))["id"]
    ref = (await office.heartbeat(channels=[channel]))["id"]
    await office.check_in(ref, healthy=False)
    await office.advance()
    reader = await office.ask("POST", "/v1/keys", {"name": "r", "scopes": ["heartbeats:read"]}, expect=201)

    own = (await office.ask("GET", "/v1/notifications"))["notifications"][0]["attempts"][0]
    async with office.client(reader["token"]) as client:
        theirs = (await client.get("/v1/notifications")).json()["notifications"][0]["attempts"][0]
        incident = (await office.get(ref))["incident"]
        shown = (await client.get(f"/v1/incidents/{incident}")).json()["notifications"][0]["attempts"][0]

    assert "inner words" in own["error"]
    assert theirs["error"] == shown["error"] == "500"


async def test_unknown_scopes_are_told_with_those_that_are_known(office: Lifesign) -> None:
    (fault,) = await refused(office, "POST", "/v1/keys", {"name": "k", "scopes": ["heartbeats:all"]})

    assert fault["field"] == "scopes"
    for scope in SCOPES:
        assert scope in fault["message"]
