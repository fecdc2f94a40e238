"""The table of spec "Heartbeats", section 6, cell by cell."""

from dataclasses import dataclass

import pytest

from tests.harness import Json, Lifesign
from tests.shared import after, state_refused

pytestmark = pytest.mark.asyncio(loop_scope="module")

CRON: Json = {"mode": "scheduled", "schedule": "0 * * * *", "grace": 60}
RECURRING: Json = {"mode": "recurring", "interval": 3600, "grace": 60}
ONESHOT: Json = {"mode": "oneshot", "interval": 3600, "grace": 60}
KINDS = {"recurring": RECURRING, "scheduled": CRON, "oneshot": ONESHOT}


async def in_state(office: Lifesign, kind: str, state: str) -> Json:
    """A heartbeat that has come into `state` the usual way."""
    made = await office.heartbeat(**KINDS[kind])
    ref = made["id"]
    match state:
        case "firing":
            await office.advance(3661)
        case "acked":
            await office.advance(3661)
            await office.ask("POST", f"/v1/heartbeats/{ref}/ack")
        case "final":
            await office.check_in(ref)
        case "paused":
            await office.ask("POST", f"/v1/heartbeats/{ref}/pause")
        case "unarmed":
            await office.ask("DELETE", f"/v1/heartbeats/{ref}", expect=204)
            made = await office.heartbeat(**KINDS[kind], armed=False)
        case _:
            assert state == "active"
    shown = await office.get(made["id"])
    expected = {"acked": "resolved", "final": "resolved", "unarmed": "active"}.get(state, state)
    assert shown["status"] == expected
    return shown


@dataclass(frozen=True, slots=True)
class Cell:
    """What an event does. `status`: afterwards. `events`: those it adds, newest first. `waits`: has a deadline."""

    kind: str
    state: str
    event: str
    status: str
    events: str
    waits: bool
    code: int = 200


def rows(kinds: str, state: str, *cells: tuple[str, str, str, bool] | tuple[str, str, str, bool, int]) -> list[Cell]:
    return [Cell(kind, state, *cell) for kind in kinds.split() for cell in cells]


BOTH = "recurring scheduled"
EVERY = "recurring scheduled oneshot"
# fmt: off
TABLE = [
    *rows(BOTH, "active",
        ("checkin", "active", "checkin", True),
        ("unhealthy", "firing", "unattended firing checkin_unhealthy", False),
        ("silence", "firing", "unattended firing", False),
        ("ack", "active", "", True, 400),
        ("pause", "paused", "paused", False),
        ("resume", "active", "", True, 400),
    ),
    *rows("oneshot", "active",
        ("checkin", "resolved", "checkin", False),
        ("unhealthy", "firing", "unattended firing checkin_unhealthy", False),
        ("silence", "firing", "unattended firing", False),
        ("ack", "active", "", True, 400),
        ("pause", "paused", "paused", False),
        ("resume", "active", "", True, 400),
    ),
    *rows(BOTH, "firing",
        ("checkin", "active", "resolved checkin", True),
    ),
    *rows("oneshot", "firing",
        ("checkin", "resolved", "resolved checkin", False),
    ),
    *rows(EVERY, "firing",
        ("unhealthy", "firing", "checkin_unhealthy", False),
        ("silence", "firing", "", False),
        ("pause", "paused", "paused", False),
        ("resume", "firing", "", False, 400),
    ),
    *rows(BOTH, "firing", ("ack", "resolved", "acked", True)),
    *rows("oneshot", "firing", ("ack", "resolved", "acked", False)),
    *rows(BOTH, "acked",
        ("checkin", "active", "checkin", True),
        ("unhealthy", "firing", "unattended firing checkin_unhealthy", False),
        ("silence", "firing", "unattended firing", False),
        ("ack", "resolved", "", True, 400),
        ("pause", "paused", "paused", False),
        ("resume", "resolved", "", True, 400),
    ),
    *rows("oneshot", "final",
        ("checkin", "resolved", "checkin", False),
        ("unhealthy", "resolved", "checkin_unhealthy", False),
        ("silence", "resolved", "", False),
        ("ack", "resolved", "", False, 400),
        ("pause", "resolved", "", False, 400),
        ("resume", "resolved", "", False, 400),
    ),
    *rows("oneshot", "acked",
        ("checkin", "resolved", "checkin", False),
        ("unhealthy", "resolved", "checkin_unhealthy", False),
        ("silence", "resolved", "", False),
        ("ack", "resolved", "", False, 400),
        ("pause", "resolved", "", False, 400),
        ("resume", "resolved", "", False, 400),
    ),
    *rows(EVERY, "paused",
        ("checkin", "paused", "checkin", False),
        ("unhealthy", "paused", "checkin_unhealthy", False),
        ("silence", "paused", "", False),
        ("ack", "paused", "", False, 400),
        ("pause", "paused", "", False, 400),
        ("resume", "active", "resumed", True),
    ),
    *rows(BOTH, "unarmed", ("checkin", "active", "checkin", True)),
    *rows("oneshot", "unarmed", ("checkin", "resolved", "checkin", False)),
    *rows(EVERY, "unarmed",
        ("unhealthy", "firing", "unattended firing checkin_unhealthy", False),
        ("silence", "active", "", False),
        ("ack", "active", "", False, 400),
        ("pause", "paused", "paused", False),
        ("resume", "active", "", False, 400),
    ),
]
# fmt: on
STATES = {(cell.kind, cell.state) for cell in TABLE}


@pytest.mark.parametrize("cell", TABLE, ids=lambda cell: f"{cell.event}-{cell.kind}-{cell.state}")
async def test_each_event_does_in_each_state_what_the_table_says(office: Lifesign, cell: Cell) -> None:
    before = await in_state(office, cell.kind, cell.state)
    ref = before["id"]
    history = await office.event_types(ref)

    if cell.event == "silence":
        await office.advance(3600 + 3600 + 61)
    elif cell.event in {"checkin", "unhealthy"}:
        answer = await office.check_in(ref, healthy=cell.event == "checkin")
        assert answer["status"] == cell.status
        assert answer["healthy"] is (cell.event == "checkin")
        assert ("nextDeadline" in answer) is cell.waits
    elif cell.code == 200:
        await office.ask("POST", f"/v1/heartbeats/{ref}/{cell.event}")
    else:
        error = await state_refused(office, f"/v1/heartbeats/{ref}/{cell.event}")
        assert error["details"] == {"status": before["status"]}

    shown = await office.get(ref)
    assert shown["status"] == cell.status
    assert ("nextDeadline" in shown) is cell.waits
    assert ("firesAt" in shown) is cell.waits
    assert ("incident" in shown) is (cell.status == "firing")
    assert ("pausedAt" in shown) is (cell.status == "paused")
    assert (await office.event_types(ref))[: -len(history)] == cell.events.split()
    if cell.code == 400:
        assert shown == before


@pytest.mark.parametrize(("kind", "state"), sorted(STATES))
async def test_a_delete_removes_a_heartbeat_in_any_state(office: Lifesign, kind: str, state: str) -> None:
    ref = (await in_state(office, kind, state))["id"]

    await office.ask("DELETE", f"/v1/heartbeats/{ref}", expect=204)

    await office.ask("GET", f"/v1/heartbeats/{ref}", expect=404)


# Anchors ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("event", ["checkin", "ack", "resume"])
@pytest.mark.parametrize("kind", ["recurring", "scheduled"])
async def test_the_next_wait_begins_with_the_event(office: Lifesign, kind: str, event: str) -> None:
    ref = (await in_state(office, kind, {"ack": "firing", "resume": "paused", "checkin": "active"}[event]))["id"]
    # To twelve minutes past a full hour, wherever the clock stood.
    await office.advance(3600 - office.now() // 1000 % 3600)
    await office.advance(720)
    if event == "checkin" and (await office.get(ref))["status"] == "firing":
        await office.check_in(ref)

    await office.ask("POST", f"/v1/heartbeats/{ref}/{event}")

    shown = await office.get(ref)
    assert shown["nextDeadline"] == after(office, 3600 if kind == "recurring" else 2880)
    assert shown["firesAt"] == after(office, (3600 if kind == "recurring" else 2880) + 60)


async def test_a_repeated_failure_restarts_nothing(office: Lifesign) -> None:
    ref = (await office.heartbeat())["id"]
    await office.check_in(ref, healthy=False)
    first = await office.get(ref)
    await office.advance(30)

    answer = await office.check_in(ref, healthy=False)

    assert answer == {"status": "firing", "healthy": False}
    assert (await office.get(ref))["incident"] == first["incident"]
    assert len(await office.incidents(ref)) == 1


async def test_a_failure_after_an_ack_opens_a_new_incident(office: Lifesign) -> None:
    ref = (await in_state(office, "recurring", "acked"))["id"]

    await office.check_in(ref, healthy=False)

    assert [each["status"] for each in await office.incidents(ref)] == ["open", "resolved"]
    assert [each["reason"] for each in await office.incidents(ref)] == ["unhealthy", "missed"]


async def test_without_sticky_pause_a_check_in_first_resumes(office: Lifesign) -> None:
    ref = (await office.heartbeat(stickyPause=False))["id"]
    await office.ask("POST", f"/v1/heartbeats/{ref}/pause")
    await office.advance(7200)

    answer = await office.check_in(ref)

    assert answer == {"status": "active", "healthy": True, "nextDeadline": after(office, 3600)}
    assert await office.event_types(ref) == ["checkin", "resumed", "paused", "created"]
    assert "pausedAt" not in await office.get(ref)


async def test_without_sticky_pause_a_failure_resumes_and_fires(office: Lifesign) -> None:
    ref = (await office.heartbeat(stickyPause=False))["id"]
    await office.ask("POST", f"/v1/heartbeats/{ref}/pause")

    answer = await office.check_in(ref, healthy=False)

    assert answer == {"status": "firing", "healthy": False}
    expected = ["unattended", "firing", "checkin_unhealthy", "resumed", "paused", "created"]
    assert await office.event_types(ref) == expected


async def test_without_sticky_pause_a_oneshot_is_over_at_its_check_in(office: Lifesign) -> None:
    ref = (await office.heartbeat(mode="oneshot", stickyPause=False))["id"]
    await office.ask("POST", f"/v1/heartbeats/{ref}/pause")

    assert await office.check_in(ref) == {"status": "resolved", "healthy": True}


async def test_an_unarmed_heartbeat_resumed_waits_from_then_on(office: Lifesign) -> None:
    ref = (await office.heartbeat(armed=False))["id"]
    await office.ask("POST", f"/v1/heartbeats/{ref}/pause")
    await office.advance(100)

    answer = await office.ask("POST", f"/v1/heartbeats/{ref}/resume")

    assert answer == {"id": ref, "status": "active", "nextDeadline": after(office, 3600)}
    assert "armed" not in await office.get(ref)


async def test_an_unarmed_heartbeat_shows_that_it_is_until_the_first_check_in(office: Lifesign) -> None:
    made = await office.heartbeat(armed=False)
    assert made["armed"] is False
    assert "nextDeadline" not in made
    assert "firesAt" not in made
    await office.advance(100_000)
    assert await office.event_types(made["id"]) == ["created"]

    answer = await office.check_in(made["id"])

    assert answer["nextDeadline"] == after(office, 3600)
    assert "armed" not in await office.get(made["id"])


async def test_a_body_sent_to_pause_or_resume_is_ignored(office: Lifesign) -> None:
    ref = (await office.heartbeat())["id"]

    paused = await office.http.post(f"/v1/heartbeats/{ref}/pause", content=b"{not json")
    resumed = await office.http.post(f"/v1/heartbeats/{ref}/resume", content=b"[1]")

    assert paused.json() == {"id": ref, "status": "paused", "pausedAt": after(office, 0)}
    assert resumed.json() == {"id": ref, "status": "active", "nextDeadline": after(office, 3600)}


@pytest.mark.parametrize(
    ("state", "event", "message"),
    [
        ("active", "ack", "Heartbeat is active, not firing"),
        ("paused", "ack", "Heartbeat is paused, not firing"),
        ("acked", "ack", "Heartbeat is resolved, not firing"),
        ("active", "resume", "Heartbeat is active, not paused"),
        ("firing", "resume", "Heartbeat is firing, not paused"),
    ],
)
async def test_a_refused_event_says_which_state_is_in_the_way(
    office: Lifesign, state: str, event: str, message: str
) -> None:
    ref = (await in_state(office, "recurring", state))["id"]

    assert (await state_refused(office, f"/v1/heartbeats/{ref}/{event}"))["message"] == message
