"""A heartbeat that belongs to something else: it can be seen and kept quiet here, not reported for or changed."""

import pytest
from sqlalchemy import update

from lifesign.db.schema import heartbeats
from tests.harness import Json, Lifesign


async def _own(lifesign: Lifesign) -> None:
    owned = update(heartbeats).values(managed_by="system 4cf3053f-d0d5-4b10-b752-ff8f7b63c2f7")
    await lifesign.node.db.write(lambda conn: conn.execute(owned))


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/checkin", None),
        ("POST", "/checkin", {"healthy": False}),
        ("POST", "/runs", None),
        ("POST", "/runs/a/progress", None),
        ("POST", "/runs/a/finish", None),
        ("PATCH", "", {"grace": 5}),
        ("DELETE", "", None),
    ],
)
async def test_nobody_else_reports_for_it_or_changes_it(
    lifesign: Lifesign, method: str, path: str, body: Json | None
) -> None:
    await lifesign.heartbeat("Machine")
    await lifesign.ask("POST", "/v1/heartbeats/machine/runs", {"runId": "a"}, expect=201)
    await _own(lifesign)
    before = await lifesign.get("machine")

    refused = await lifesign.ask(method, f"/v1/heartbeats/machine{path}", body, expect=400)

    assert refused["error"]["code"] == "INVALID_STATE"
    assert refused["error"]["message"] == "managed by system 4cf3053f-d0d5-4b10-b752-ff8f7b63c2f7"
    assert await lifesign.get("machine") == before
    assert await lifesign.event_types("machine") == ["run_started", "created"]


async def test_it_can_be_read_paused_resumed_and_snoozed(lifesign: Lifesign) -> None:
    await lifesign.heartbeat("Machine")
    await lifesign.check_in("machine")
    await _own(lifesign)

    await lifesign.ask("POST", "/v1/heartbeats/machine/pause")
    await lifesign.ask("POST", "/v1/heartbeats/machine/resume")
    await lifesign.ask("POST", "/v1/heartbeats/machine/snooze", {"seconds": 60})
    await lifesign.advance(3661)
    acked = await lifesign.ask("POST", "/v1/heartbeats/machine/ack")

    assert acked["status"] == "resolved"
