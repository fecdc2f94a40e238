"""PATCH and DELETE of heartbeats: spec "Heartbeats", section 3."""

from typing import Any

import pytest

from tests.harness import Json, Lifesign, MakeLifesign
from tests.peers.process import LedgerPeer
from tests.shared import after, refused

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def edit(office: Lifesign, ref: str, **fields: Any) -> Json:  # Any: JSON
    return await office.ask("PATCH", f"/v1/heartbeats/{ref}", fields)


# Fields -------------------------------------------------------------------------------------------------------------
async def test_an_empty_edit_changes_nothing(office: Lifesign) -> None:
    made = await office.heartbeat()
    await office.advance(5)

    assert await edit(office, made["id"]) == made
    assert await office.get(made["id"]) == made
    assert await office.event_types(made["id"]) == ["created"]


async def test_an_edit_is_shown_and_recorded(office: Lifesign, ledger: LedgerPeer) -> None:
    channel = (await office.webhook(ledger.url + "/hook/none"))["id"]
    policy = (await office.policy({"channels": [channel]}))["id"]
    made = await office.heartbeat(metadata={"a": 1}, tags=["x"])
    await office.advance(5)
    changes = {
        "name": "New",
        "policy": policy,
        "namespace": "n",
        "metadata": {"b": 2},
        "description": "d",
        "tags": ["y", "z"],
        "channels": [channel],
        "stickyPause": False,
    }

    changed = await edit(office, made["id"], **changes)

    assert changed == made | changes | {"updatedAt": after(office, 0)}
    event = (await office.events(made["id"]))[0]
    assert event["type"] == "updated"
    assert sorted(event["metadata"]["fields"]) == sorted(changes)
    assert event["metadata"]["key"].startswith("key_")


async def test_null_clears_what_may_be_absent(office: Lifesign, ledger: LedgerPeer) -> None:
    channel = (await office.webhook(ledger.url + "/hook/none"))["id"]
    policy = (await office.policy({"channels": [channel]}))["id"]
    full = {
        "policy": policy,
        "namespace": "n",
        "metadata": {"b": 2},
        "description": "d",
        "tags": ["y"],
        "channels": [channel],
    }
    made = await office.heartbeat(**full)

    cleared = await edit(office, made["id"], **dict.fromkeys([*full, "slug"]))

    assert set(made) - set(cleared) == {*full, "slug"}
    assert await office.get(made["id"]) == cleared


@pytest.mark.parametrize("field", ["name", "mode", "interval", "schedule", "grace", "timezone", "stickyPause"])
async def test_null_clears_nothing_else(office: Lifesign, field: str) -> None:
    ref = (await office.heartbeat())["id"]

    details = await refused(office, "PATCH", f"/v1/heartbeats/{ref}", {field: None})

    assert [each["field"] for each in details] == [field]


async def test_armed_cannot_be_edited(office: Lifesign) -> None:
    made = await office.heartbeat()

    assert await edit(office, made["id"], armed=False) == made


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"interval": 0}, "interval"),
        ({"interval": "60"}, "interval"),
        ({"schedule": "0 2 * * *"}, "schedule"),
        ({"mode": "scheduled"}, "schedule"),
        ({"mode": "scheduled", "schedule": "0 2 * * *", "interval": 5}, "interval"),
        ({"mode": "weekly"}, "mode"),
        ({"policy": "pol_x"}, "policy"),
        ({"channels": ["ch_x"]}, "channels[0]"),
        ({"slug": "hb_x"}, "slug"),
        ({"tags": ["a b"]}, "tags[0]"),
        ({"metadata": []}, "metadata"),
    ],
)
async def test_a_bad_edit_changes_nothing(office: Lifesign, fields: Json, fault: str) -> None:
    made = await office.heartbeat()

    details = await refused(office, "PATCH", f"/v1/heartbeats/{made['id']}", {"name": "New"} | fields)

    assert details[0]["field"] == fault
    assert await office.get(made["id"]) == made


async def test_a_changed_mode_drops_the_field_of_the_old_one(office: Lifesign) -> None:
    ref = (await office.heartbeat())["id"]

    scheduled = await edit(office, ref, mode="scheduled", schedule="0 2 * * *")
    assert "interval" not in scheduled
    assert scheduled["schedule"] == "0 2 * * *"
    details = await refused(office, "PATCH", f"/v1/heartbeats/{ref}", {"mode": "oneshot"})
    assert details[0]["field"] == "interval"
    oneshot = await edit(office, ref, mode="oneshot", interval=60)
    assert "schedule" not in oneshot
    recurring = await edit(office, ref, mode="recurring")

    assert (recurring["mode"], recurring["interval"]) == ("recurring", 60)
    fields = [sorted(each["metadata"]["fields"]) for each in await office.events(ref) if each["type"] == "updated"]
    assert fields == [["mode"], ["interval", "mode", "schedule"], ["interval", "mode", "schedule"]]


# Timing -------------------------------------------------------------------------------------------------------------
async def test_a_longer_interval_counts_from_the_last_check_in(office: Lifesign) -> None:
    ref = (await office.heartbeat(interval=3600))["id"]
    await office.advance(100)
    await office.check_in(ref)
    expected = after(office, 7200)
    await office.advance(50)

    changed = await edit(office, ref, interval=7200)

    assert changed["nextDeadline"] == expected


async def test_an_interval_that_is_over_already_counts_from_the_edit(office: Lifesign) -> None:
    ref = (await office.heartbeat(interval=3600, grace=60))["id"]
    await office.advance(1000)

    changed = await edit(office, ref, interval=600)

    assert changed["status"] == "active"
    assert changed["nextDeadline"] == after(office, 600)
    await office.advance(659)
    assert (await office.get(ref))["status"] == "active"
    await office.advance(1)
    assert (await office.get(ref))["status"] == "firing"


async def test_the_limit_of_what_is_over_already_includes_the_grace(office: Lifesign) -> None:
    first, second = [(await office.heartbeat(interval=3600, grace=60))["id"] for _ in range(2)]
    created = after(office, 600)
    await office.advance(659.999)
    assert (await edit(office, first, interval=600))["nextDeadline"] == created

    await office.advance(0.001)

    assert (await edit(office, second, interval=600))["nextDeadline"] == after(office, 600)


async def test_a_shorter_interval_fires_by_the_new_deadline(office: Lifesign) -> None:
    ref = (await office.heartbeat(interval=100_000))["id"]
    await office.advance(10)
    await edit(office, ref, interval=100, grace=0)
    await office.advance(89)
    assert (await office.get(ref))["status"] == "active"

    await office.advance(1)

    assert (await office.get(ref))["status"] == "firing"


async def test_a_changed_grace_leaves_the_deadline(office: Lifesign) -> None:
    made = await office.heartbeat(interval=3600, grace=60)

    changed = await edit(office, made["id"], grace=0)

    assert changed["nextDeadline"] == made["nextDeadline"] == changed["firesAt"]


@pytest.mark.asyncio(loop_scope="function")
async def test_a_changed_schedule_or_zone_counts_from_the_same_anchor(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign(at="2026-01-05T12:00:00Z") as lifesign:
        ref = (await lifesign.heartbeat(mode="scheduled", schedule="30 12 * * *", grace=3600))["id"]
        await lifesign.advance(40 * 60)

        changed = await edit(lifesign, ref, schedule="10 12 * * *")
        # 12:10 plus an hour of grace is still to come, so the slot that was missed counts.
        assert changed["nextDeadline"] == "2026-01-05T12:10:00.000Z"
        changed = await edit(lifesign, ref, timezone="Asia/Tokyo")
        assert changed["nextDeadline"] == "2026-01-06T03:10:00.000Z"
        changed = await edit(lifesign, ref, mode="recurring", interval=7200)
        assert changed["nextDeadline"] == "2026-01-05T14:00:00.000Z"


async def test_an_edit_of_other_fields_leaves_the_wait(office: Lifesign) -> None:
    made = await office.heartbeat()
    await office.advance(100)

    changed = await edit(office, made["id"], name="New", interval=3600)

    assert changed["nextDeadline"] == made["nextDeadline"]


async def test_a_resolved_heartbeat_that_waits_again_is_edited_like_an_active_one(office: Lifesign) -> None:
    ref = (await office.heartbeat(interval=60, grace=0))["id"]
    await office.advance(60)
    await office.ask("POST", f"/v1/heartbeats/{ref}/ack")
    expected = after(office, 600)
    await office.advance(10)

    changed = await edit(office, ref, interval=600)

    assert (changed["status"], changed["nextDeadline"]) == ("resolved", expected)


@pytest.mark.parametrize("fields", [{"interval": 600}, {"grace": 5}, {"mode": "recurring"}])
async def test_a_finished_oneshot_begins_anew_when_its_timing_changes(office: Lifesign, fields: Json) -> None:
    ref = (await office.heartbeat(mode="oneshot", interval=60))["id"]
    await office.check_in(ref)
    await office.advance(1000)

    changed = await edit(office, ref, **fields)

    assert changed["status"] == "active"
    assert changed["nextDeadline"] == after(office, fields.get("interval", 60))


async def test_a_finished_oneshot_stays_so_when_only_its_name_changes(office: Lifesign) -> None:
    ref = (await office.heartbeat(mode="oneshot", interval=60))["id"]
    await office.check_in(ref)

    changed = await edit(office, ref, name="New")

    assert changed["status"] == "resolved"
    assert "nextDeadline" not in changed


async def test_an_edit_while_firing_is_used_at_the_next_arming(office: Lifesign) -> None:
    ref = (await office.heartbeat(interval=60, grace=0))["id"]
    await office.advance(60)

    changed = await edit(office, ref, interval=600)

    assert changed["status"] == "firing"
    assert "nextDeadline" not in changed
    assert (await office.check_in(ref))["nextDeadline"] == after(office, 600)


async def test_an_edit_while_paused_is_used_at_the_next_arming(office: Lifesign) -> None:
    ref = (await office.heartbeat(interval=60))["id"]
    await office.ask("POST", f"/v1/heartbeats/{ref}/pause")

    changed = await edit(office, ref, interval=600)

    assert "nextDeadline" not in changed
    assert (await office.ask("POST", f"/v1/heartbeats/{ref}/resume"))["nextDeadline"] == after(office, 600)


async def test_an_edit_while_unarmed_is_used_at_the_first_check_in(office: Lifesign) -> None:
    ref = (await office.heartbeat(interval=60, armed=False))["id"]

    changed = await edit(office, ref, interval=600)

    assert changed["armed"] is False
    assert "nextDeadline" not in changed
    assert (await office.check_in(ref))["nextDeadline"] == after(office, 600)


# The policy of a firing heartbeat -----------------------------------------------------------------------------------
async def three_steps(office: Lifesign, ledger: LedgerPeer, name: str) -> tuple[str, list[str]]:
    """A policy with waits 0, 300, 600, each step with a receiver of its own, and its channels."""
    channels = [(await office.webhook(f"{ledger.url}/hook/{name}-{n}"))["id"] for n in (1, 2, 3)]
    steps = [{"channels": [each], "wait": wait} for each, wait in zip(channels, (0, 300, 600), strict=True)]
    return (await office.policy(*steps, name=name))["id"], channels


async def steps_of(office: Lifesign, ref: str) -> list[tuple[int, list[str]]]:
    """Number and channels of the steps that ran, oldest first."""
    ran = [each["metadata"] for each in await office.events(ref) if each["type"] == "step_notified"]
    return [(each["step"], each["channels"]) for each in reversed(ran)]


async def test_a_new_policy_while_firing_goes_on_with_the_next_step_number(
    office: Lifesign, ledger: LedgerPeer
) -> None:
    first, a = await three_steps(office, ledger, "first")
    second, b = await three_steps(office, ledger, "second")
    ref = (await office.heartbeat(policy=first))["id"]
    await office.check_in(ref, healthy=False)
    await office.advance(100)

    await edit(office, ref, policy=second)
    await office.advance(2000)

    assert await steps_of(office, ref) == [(1, [a[0]]), (2, [b[1]]), (3, [b[2]])]
    assert (await office.get(ref))["policy"] == second


async def test_a_policy_taken_away_while_firing_ends_the_escalation(office: Lifesign, ledger: LedgerPeer) -> None:
    policy, channels = await three_steps(office, ledger, "gone")
    ref = (await office.heartbeat(policy=policy))["id"]
    await office.check_in(ref, healthy=False)
    await office.advance(100)

    await edit(office, ref, policy=None)
    await office.advance(2000)

    assert await steps_of(office, ref) == [(1, [channels[0]])]
    incident = (await office.incidents(ref))[0]
    assert (incident["status"], incident["escalation"], incident["unattended"]) == ("open", "done", "no_policy")
    assert (await office.get(ref))["status"] == "firing"


async def test_a_policy_given_while_firing_begins_with_step_one(office: Lifesign, ledger: LedgerPeer) -> None:
    policy, channels = await three_steps(office, ledger, "given")
    ref = (await office.heartbeat())["id"]
    await office.check_in(ref, healthy=False)
    await office.advance(100)

    await edit(office, ref, policy=policy)
    await office.advance(2000)

    assert await steps_of(office, ref) == [(1, [channels[0]]), (2, [channels[1]]), (3, [channels[2]])]


# DELETE -------------------------------------------------------------------------------------------------------------
async def test_a_deleted_heartbeat_is_gone_with_its_history(office: Lifesign) -> None:
    ref = (await office.heartbeat())["id"]
    await office.ask("DELETE", f"/v1/heartbeats/{ref}", expect=204)

    for method, path in [
        ("GET", ""),
        ("GET", "/events"),
        ("POST", "/checkin"),
        ("POST", "/ack"),
        ("POST", "/pause"),
        ("DELETE", ""),
    ]:
        await office.ask(method, f"/v1/heartbeats/{ref}{path}", expect=404)
    await office.advance(10_000)
    assert await office.ask("GET", f"/v1/incidents?heartbeat={ref}") == {"incidents": []}


async def test_deleting_a_firing_heartbeat_closes_its_incident_and_tells_the_machines(
    office: Lifesign, ledger: LedgerPeer
) -> None:
    path = f"/hook/delete-{office.node.db.is_sqlite}"
    hook = (await office.webhook(ledger.url + path))["id"]
    pager = (
        await office.ask(
            "POST",
            "/v1/channels",
            {"name": "pd", "type": "pagerduty", "config": {"routingKey": "A" * 32}},
            expect=201,
        )
    )["id"]
    slack = (
        await office.ask(
            "POST",
            "/v1/channels",
            {"name": "s", "type": "slack", "config": {"webhookUrl": f"{ledger.url}/slack/delete"}},
            expect=201,
        )
    )["id"]
    ledger.clear()
    policy = (
        await office.policy({"channels": [hook, pager, slack]}, {"channels": [hook], "wait": 300}, repeatLastStep=True)
    )["id"]
    ref = (await office.heartbeat(policy=policy))["id"]
    await office.check_in(ref, healthy=False)
    await office.advance(10)

    await office.ask("DELETE", f"/v1/heartbeats/{ref}", expect=204)
    await office.advance(3000)

    assert [each.json["type"] for each in ledger.requests(path)] == ["incident.opened", "incident.closed"]
    assert [each.json["event_action"] for each in ledger.requests("/v2/enqueue")] == ["trigger", "resolve"]
    assert len(ledger.requests("/slack/delete")) == 1
    incident = (await office.ask("GET", f"/v1/incidents?heartbeat={ref}"))["incidents"][0]
    assert (incident["status"], incident["resolution"]) == ("resolved", "delete")
    for method, tail in [("GET", ""), ("POST", "/checkin"), ("GET", "/events")]:
        await office.ask(method, f"/v1/heartbeats/{ref}{tail}", expect=404)
