"""Policies: what is accepted, how they are edited and deleted, and how an incident walks through them.

Spec "Heartbeats", sections 8 to 11.
"""

import itertools
from typing import Any

import pytest

from tests.harness import Json, Lifesign
from tests.peers.process import LedgerPeer, Record
from tests.shared import after, refused

pytestmark = pytest.mark.asyncio(loop_scope="module")

_receivers = itertools.count(1)


class Receiver:
    """A webhook channel and what arrived there."""

    def __init__(self, office: Lifesign, ledger: LedgerPeer) -> None:
        self._office, self._ledger = office, ledger
        self.name = f"receiver-{next(_receivers)}"
        self.path = f"/hook/{self.name}"
        self.id = ""

    async def made(self) -> "Receiver":
        self.id = (await self._office.webhook(self._ledger.url + self.path, name=self.name))["id"]
        return self

    def requests(self) -> list[Record]:
        return self._ledger.requests(self.path)

    def types(self) -> list[str]:
        return [each.json["type"] for each in self.requests()]


async def receivers(office: Lifesign, ledger: LedgerPeer, count: int) -> list[Receiver]:
    return [await Receiver(office, ledger).made() for _ in range(count)]


def steps(*channels_and_waits: tuple[Receiver, int]) -> list[Json]:
    return [{"channels": [each.id], "wait": wait} for each, wait in channels_and_waits]


async def fire(office: Lifesign, policy: str | None, **fields: Any) -> str:  # Any: JSON
    """A heartbeat that fires at this moment, and for the next hour by nothing else."""
    if policy is not None:
        fields["policy"] = policy
    ref: str = (await office.heartbeat(**fields))["id"]
    await office.check_in(ref, healthy=False)
    await office.advance()
    return ref


async def ran(office: Lifesign, ref: str) -> list[tuple[int, int]]:
    """Step and repeat of everything that ran, oldest first."""
    found = [each["metadata"] for each in await office.events(ref) if each["type"] == "step_notified"]
    return [(each["step"], each["repeat"]) for each in reversed(found)]


# The object ---------------------------------------------------------------------------------------------------------
async def test_a_policy_is_kept_as_it_was_sent(office: Lifesign, ledger: LedgerPeer) -> None:
    a, b = await receivers(office, ledger, 2)
    sent = [{"channels": [a.id]}, {"channels": [b.id, a.id], "wait": 0, "message": "{{name}}\n!"}]

    made = await office.ask("POST", "/v1/policies", {"name": " Critical ", "steps": sent}, expect=201)

    assert made == {
        "id": made["id"],
        "name": "Critical",
        "steps": sent,
        "repeatLastStep": False,
        "createdAt": after(office, 0),
    }
    assert await office.ask("GET", f"/v1/policies/{made['id']}") == made
    assert await office.ask("GET", "/v1/policies") == {"policies": [made]}


@pytest.mark.parametrize(
    ("step", "field"),
    [
        ({}, "steps[1].channels"),
        ({"channels": []}, "steps[1].channels"),
        ({"channels": "CH"}, "steps[1].channels"),
        ({"channels": ["CH", "CH"]}, "steps[1].channels[1]"),
        ({"channels": ["ch_x"]}, "steps[1].channels[0]"),
        ({"channels": ["CH", "ch_x"]}, "steps[1].channels[1]"),
        ({"channels": [5]}, "steps[1].channels[0]"),
        ({"channels": ["CH"] * 21}, "steps[1].channels"),
        ({"channels": ["CH"], "wait": -1}, "steps[1].wait"),
        ({"channels": ["CH"], "wait": 604_801}, "steps[1].wait"),
        ({"channels": ["CH"], "wait": None}, "steps[1].wait"),
        ({"channels": ["CH"], "wait": "5"}, "steps[1].wait"),
        ({"channels": ["CH"], "message": "x" * 2001}, "steps[1].message"),
        ({"channels": ["CH"], "message": None}, "steps[1].message"),
        ("CH", "steps[1]"),
    ],
)
@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_a_bad_step_is_refused(office: Lifesign, ledger: LedgerPeer, method: str, step: Any, field: str) -> None:
    (good,) = await receivers(office, ledger, 1)
    made = await office.policy({"channels": [good.id]})
    if isinstance(step, dict) and isinstance(step.get("channels"), list):
        step = step | {"channels": [good.id if each == "CH" else each for each in step["channels"]]}
    path = "/v1/policies" if method == "POST" else f"/v1/policies/{made['id']}"

    details = await refused(office, method, path, {"name": "p", "steps": [{"channels": [good.id]}, step]})

    assert [each["field"] for each in details] == [field]
    assert await office.ask("GET", "/v1/policies") == {"policies": [made]}


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"name": "p"}, "is required"),
        ({"name": "p", "steps": []}, "must have at least 1 item"),
        ({"name": "p", "steps": {}}, "must be a list"),
        ({"name": "p", "steps": None}, "must be a list"),
    ],
)
async def test_a_policy_needs_steps(office: Lifesign, body: Json, told: str) -> None:
    details = await refused(office, "POST", "/v1/policies", body)

    assert [(each["field"], each["message"]) for each in details] == [("steps", told)]


async def test_a_policy_has_room_for_twenty_steps_of_twenty_channels(office: Lifesign, ledger: LedgerPeer) -> None:
    channels = [each.id for each in await receivers(office, ledger, 20)]
    step = {"channels": channels, "wait": 604_800, "message": "x" * 2000}

    made = await office.policy(*[step] * 20)

    assert len(made["steps"]) == 20
    details = await refused(office, "POST", "/v1/policies", {"name": "p", "steps": [step] * 21})
    assert details == [{"field": "steps", "message": "must have at most 20 items, not 21"}]


async def test_every_unknown_channel_is_named(office: Lifesign) -> None:
    details = await refused(
        office, "POST", "/v1/policies", {"name": "p", "steps": [{"channels": ["ch_a", "ch_b"]}, {"channels": ["ch_a"]}]}
    )

    assert [(each["field"], each["value"]) for each in details] == [
        ("steps[0].channels[0]", "ch_a"),
        ("steps[0].channels[1]", "ch_b"),
        ("steps[1].channels[0]", "ch_a"),
    ]


async def test_an_empty_edit_leaves_a_policy_and_a_channel_unchanged(office: Lifesign, ledger: LedgerPeer) -> None:
    (receiver,) = await receivers(office, ledger, 1)
    policy = await office.policy({"channels": [receiver.id]})
    channel = await office.ask("GET", f"/v1/channels/{receiver.id}")
    await office.advance(5)

    assert await office.ask("PATCH", f"/v1/policies/{policy['id']}", {}) == policy
    assert await office.ask("PATCH", f"/v1/channels/{receiver.id}", {}) == channel
    assert "updatedAt" not in policy
    assert "updatedAt" not in channel


async def test_an_edit_changes_what_it_names_and_is_dated(office: Lifesign, ledger: LedgerPeer) -> None:
    a, b = await receivers(office, ledger, 2)
    made = await office.policy(*steps((a, 0), (b, 60)))
    await office.advance(5)

    named = await office.ask("PATCH", f"/v1/policies/{made['id']}", {"name": "New"})
    assert named == made | {"name": "New", "updatedAt": after(office, 0)}
    repeating = await office.ask("PATCH", f"/v1/policies/{made['id']}", {"repeatLastStep": True})
    assert repeating == named | {"repeatLastStep": True}
    replaced = await office.ask("PATCH", f"/v1/policies/{made['id']}", {"steps": steps((b, 9))})
    assert replaced == repeating | {"steps": steps((b, 9))}


# In use -------------------------------------------------------------------------------------------------------------
async def test_a_policy_in_use_is_deleted_by_force_only(office: Lifesign, ledger: LedgerPeer) -> None:
    (receiver,) = await receivers(office, ledger, 1)
    policy = (await office.policy({"channels": [receiver.id]}))["id"]
    users = [await office.heartbeat(f"User {n}", policy=policy) for n in (1, 2)]
    await office.heartbeat("No user")

    error = (await office.ask("DELETE", f"/v1/policies/{policy}", expect=409))["error"]
    assert error == {
        "code": "CONFLICT",
        "message": "Policy is in use",
        "statusCode": 409,
        "details": {
            "users": [{"type": "heartbeat", "id": each["id"], "name": each["name"]} for each in users],
            "total": 2,
        },
    }
    await office.ask("DELETE", f"/v1/policies/{policy}?force=false", expect=409)
    await office.ask("DELETE", f"/v1/policies/{policy}?force=true", expect=204)

    await office.ask("GET", f"/v1/policies/{policy}", expect=404)
    for each in users:
        assert "policy" not in await office.get(each["id"])
        event = (await office.events(each["id"]))[0]
        assert (event["type"], event["metadata"]["policy"]) == ("policy_detached", policy)


async def test_at_most_a_hundred_users_are_listed(office: Lifesign, ledger: LedgerPeer) -> None:
    (receiver,) = await receivers(office, ledger, 1)
    policy = (await office.policy({"channels": [receiver.id]}))["id"]
    for n in range(101):
        await office.heartbeat(f"User {n}", policy=policy)

    details = (await office.ask("DELETE", f"/v1/policies/{policy}", expect=409))["error"]["details"]

    assert (len(details["users"]), details["total"]) == (100, 101)


async def test_an_unused_policy_is_deleted_at_once(office: Lifesign, ledger: LedgerPeer) -> None:
    (receiver,) = await receivers(office, ledger, 1)
    policy = (await office.policy({"channels": [receiver.id]}))["id"]

    await office.ask("DELETE", f"/v1/policies/{policy}", expect=204)
    await office.ask("DELETE", f"/v1/policies/{policy}", expect=404)


async def test_force_ends_a_running_escalation_and_leaves_the_incident_open(
    office: Lifesign, ledger: LedgerPeer
) -> None:
    a, b = await receivers(office, ledger, 2)
    policy = (await office.policy(*steps((a, 0), (b, 300)), repeatLastStep=True))["id"]
    ref = await fire(office, policy)

    await office.ask("DELETE", f"/v1/policies/{policy}?force=true", expect=204)
    await office.advance(2000)

    assert (len(a.requests()), len(b.requests())) == (1, 0)
    incident = (await office.incidents(ref))[0]
    assert (incident["status"], incident["escalation"]) == ("open", "done")
    assert "policy" not in incident


async def test_a_channel_in_use_lists_its_users_and_leaves_them_by_force(office: Lifesign, ledger: LedgerPeer) -> None:
    a, b = await receivers(office, ledger, 2)
    policy = await office.policy({"channels": [a.id]}, {"channels": [a.id, b.id]}, name="Both")
    own = await office.heartbeat("Own", channels=[a.id, b.id])
    by_policy = await office.heartbeat("By policy", policy=policy["id"])
    other = await office.heartbeat("Other")

    error = (await office.ask("DELETE", f"/v1/channels/{a.id}", expect=409))["error"]
    assert error["message"] == "Channel is in use"
    assert error["details"]["total"] == 2
    assert sorted((each["type"], each["id"], each["name"]) for each in error["details"]["users"]) == [
        ("heartbeat", own["id"], "Own"),
        ("policy", policy["id"], "Both"),
    ]
    await office.ask("DELETE", f"/v1/channels/{a.id}?force=true", expect=204)

    await office.ask("GET", f"/v1/channels/{a.id}", expect=404)
    assert (await office.get(own["id"]))["channels"] == [b.id]
    shown = await office.ask("GET", f"/v1/policies/{policy['id']}")
    assert shown["steps"] == [{"channels": []}, {"channels": [b.id]}]
    for each in (own, by_policy):
        event = (await office.events(each["id"]))[0]
        assert (event["type"], event["metadata"]["channel"]) == ("channel_detached", a.id)
    assert await office.event_types(other["id"]) == ["created"]


async def test_a_step_left_without_channels_runs_and_tells_nobody(office: Lifesign, ledger: LedgerPeer) -> None:
    a, b = await receivers(office, ledger, 2)
    policy = (await office.policy(*steps((a, 0), (b, 60))))["id"]
    await office.ask("DELETE", f"/v1/channels/{a.id}?force=true", expect=204)

    ref = await fire(office, policy)
    await office.advance(60)

    assert await ran(office, ref) == [(1, 0), (2, 0)]
    assert b.types() == ["incident.opened"]
    reasons = [each["metadata"]["reason"] for each in await office.events(ref) if each["type"] == "unattended"]
    assert reasons == ["no_channel"]


# Steps and time -----------------------------------------------------------------------------------------------------
async def test_steps_run_when_their_waits_are_over(office: Lifesign, ledger: LedgerPeer) -> None:
    a, b, c = await receivers(office, ledger, 3)
    policy = (await office.policy({"channels": [a.id]}, *steps((b, 300), (c, 600))))["id"]
    ref = await fire(office, policy)
    told = [(len(a.requests()), len(b.requests()), len(c.requests()))]

    for seconds in (299, 1, 599, 1, 5000):
        await office.advance(seconds)
        told.append((len(a.requests()), len(b.requests()), len(c.requests())))

    assert told == [(1, 0, 0), (1, 0, 0), (1, 1, 0), (1, 1, 0), (1, 1, 1), (1, 1, 1)]
    finished = [each["metadata"] for each in await office.events(ref) if each["type"] == "escalation_finished"]
    assert [each["steps"] for each in finished] == [3]
    assert (await office.get(ref))["status"] == "firing"


async def test_the_last_step_repeats_by_its_own_wait(office: Lifesign, ledger: LedgerPeer) -> None:
    a, b, c = await receivers(office, ledger, 3)
    policy = (await office.policy(*steps((a, 0), (b, 300), (c, 600)), repeatLastStep=True))["id"]
    ref = await fire(office, policy)

    await office.advance(2099)
    assert await ran(office, ref) == [(1, 0), (2, 0), (3, 0), (3, 1)]
    await office.advance(1)

    assert await ran(office, ref) == [(1, 0), (2, 0), (3, 0), (3, 1), (3, 2)]
    assert [each.json["data"]["escalation"]["repeat"] for each in c.requests()] == [0, 1, 2]
    assert "escalation_finished" not in await office.event_types(ref)


async def test_a_step_repeats_at_most_once_a_minute(office: Lifesign, ledger: LedgerPeer) -> None:
    (a,) = await receivers(office, ledger, 1)
    policy = (await office.policy(*steps((a, 5)), repeatLastStep=True))["id"]
    ref = await fire(office, policy)

    await office.advance(5 + 119)

    assert await ran(office, ref) == [(1, 0), (1, 1)]


async def test_a_message_counts_from_firing_not_from_the_deadline(office: Lifesign, ledger: LedgerPeer) -> None:
    (a,) = await receivers(office, ledger, 1)
    policy = (await office.policy(*steps((a, 30))))["id"]
    ref = (await office.heartbeat(policy=policy, interval=100, grace=50))["id"]
    await office.advance(179)
    assert await ran(office, ref) == []

    await office.advance(1)

    assert await ran(office, ref) == [(1, 0)]


async def test_a_heartbeats_own_channels_are_told_at_once_beside_the_policy(
    office: Lifesign, ledger: LedgerPeer
) -> None:
    own, other = await receivers(office, ledger, 2)
    policy = (await office.policy(*steps((other, 60))))["id"]

    ref = await fire(office, policy, channels=[own.id])
    assert (own.types(), other.types()) == (["incident.opened"], [])
    assert await ran(office, ref) == [(0, 0)]
    await office.advance(60)
    await office.check_in(ref)
    await office.advance()

    assert await ran(office, ref) == [(0, 0), (1, 0)]
    assert own.types() == other.types() == ["incident.opened", "incident.resolved"]


async def test_without_policy_and_channels_somebody_is_told_that_nobody_is(office: Lifesign) -> None:
    ref = await fire(office, None)

    event = (await office.events(ref))[0]
    assert (event["type"], event["metadata"]["reason"]) == ("unattended", "no_policy")
    incident = (await office.incidents(ref))[0]
    assert (incident["status"], incident["unattended"], incident["escalationStep"]) == ("open", "no_policy", 0)


async def test_recovery_ends_the_escalation(office: Lifesign, ledger: LedgerPeer) -> None:
    a, b = await receivers(office, ledger, 2)
    policy = (await office.policy(*steps((a, 0), (b, 300)), repeatLastStep=True))["id"]
    ref = await fire(office, policy, interval=100_000)
    await office.advance(10)

    answer = await office.check_in(ref)
    await office.advance(5000)

    assert answer["status"] == "active"
    assert a.types() == ["incident.opened", "incident.resolved"]
    assert b.types() == []
    history = await office.events(ref)
    (resolved,) = [each for each in history if each["type"] == "resolved"]
    assert resolved["metadata"]["duration"] == 10
    assert await ran(office, ref) == [(1, 0)]


async def test_an_ack_before_the_second_step_ends_the_escalation(office: Lifesign, ledger: LedgerPeer) -> None:
    a, b = await receivers(office, ledger, 2)
    policy = (await office.policy(*steps((a, 0), (b, 300))))["id"]
    ref = await fire(office, policy, interval=100_000)
    await office.advance(10)

    answer = await office.ask("POST", f"/v1/heartbeats/{ref}/ack", {"message": "On it"})
    await office.advance(5000)

    assert answer == {
        "status": "resolved",
        "resolvedAt": after(office, -5000),
        "escalationStep": 1,
        "message": "On it",
    }
    assert b.types() == []
    assert a.types() == ["incident.opened", "incident.acknowledged"]
    event = next(each for each in await office.events(ref) if each["type"] == "acked")
    incident = (await office.incidents(ref))[0]
    assert event["metadata"] == {
        "key": event["metadata"]["key"],
        "incident": incident["id"],
        "escalationStep": 1,
        "actor": "key:admin",
        "message": "On it",
    }
    assert (incident["resolution"], incident["message"]) == ("ack", "On it")


@pytest.mark.parametrize(("waited", "expected"), [(0, 0), (59, 0), (60, 1), (120, 2), (180, 2), (900, 2)])
async def test_an_ack_counts_the_steps_that_ran_but_no_repeats(
    office: Lifesign, ledger: LedgerPeer, waited: int, expected: int
) -> None:
    a, b = await receivers(office, ledger, 2)
    policy = (await office.policy(*steps((a, 60), (b, 60)), repeatLastStep=True))["id"]
    ref = await fire(office, policy)
    await office.advance(waited)

    assert (await office.ask("POST", f"/v1/heartbeats/{ref}/ack"))["escalationStep"] == expected


@pytest.mark.parametrize(
    ("message", "status"), [("m" * 1000, 200), ("", 200), ("m" * 1001, 400), (None, 400), (5, 400), ("a\x00", 400)]
)
async def test_an_ack_message_has_at_most_a_thousand_characters(office: Lifesign, message: object, status: int) -> None:
    ref = await fire(office, None)

    await office.ask("POST", f"/v1/heartbeats/{ref}/ack", {"message": message}, expect=status)

    assert (await office.get(ref))["status"] == ("resolved" if status == 200 else "firing")


@pytest.mark.parametrize("end", ["ack", "pause", "checkin"])
async def test_a_page_that_waits_to_be_tried_again_is_canceled_with_its_incident(
    office: Lifesign, ledger: LedgerPeer, end: str
) -> None:
    (sick,) = await receivers(office, ledger, 1)
    ledger.script(sick.name, {"status": 500})
    ref = await fire(office, None, channels=[sick.id], interval=100_000)
    assert len(sick.requests()) == 1

    await office.ask("POST", f"/v1/heartbeats/{ref}/{end}")
    await office.advance(3600)

    # It never got through, so nobody needs to hear of the end either.
    assert len(sick.requests()) == 1
    (page,) = (await office.incidents(ref))[0]["notifications"]
    assert (page["kind"], page["status"]) == ("page", "canceled")


async def test_a_pause_ends_the_escalation_and_a_resume_waits_anew(office: Lifesign, ledger: LedgerPeer) -> None:
    a, b = await receivers(office, ledger, 2)
    policy = (await office.policy(*steps((a, 0), (b, 300))))["id"]
    ref = await fire(office, policy, interval=3600)
    await office.advance(10)

    paused = await office.ask("POST", f"/v1/heartbeats/{ref}/pause")
    assert paused == {"id": ref, "status": "paused", "pausedAt": after(office, 0)}
    await office.advance(5000)
    resumed = await office.ask("POST", f"/v1/heartbeats/{ref}/resume")

    assert resumed["nextDeadline"] == after(office, 3600)
    assert b.types() == []
    assert a.types() == ["incident.opened", "incident.closed"]
    incident = (await office.incidents(ref))[0]
    assert incident["resolution"] == "pause"
    event = next(each for each in await office.events(ref) if each["type"] == "paused")
    assert event["metadata"]["incident"] == incident["id"]


# Edits of a policy while it escalates -------------------------------------------------------------------------------
async def test_a_step_that_has_not_run_follows_the_edited_policy(office: Lifesign, ledger: LedgerPeer) -> None:
    a, b, c = await receivers(office, ledger, 3)
    policy = (await office.policy(*steps((a, 0), (b, 300))))["id"]
    ref = await fire(office, policy)
    await office.advance(100)

    await office.ask("PATCH", f"/v1/policies/{policy}", {"steps": steps((a, 0), (c, 300))})
    await office.advance(200)

    assert (len(a.requests()), b.requests(), len(c.requests())) == (1, [], 1)
    assert await ran(office, ref) == [(1, 0), (2, 0)]


async def test_the_pending_step_counts_from_the_one_before_by_its_new_wait(
    office: Lifesign, ledger: LedgerPeer
) -> None:
    a, b = await receivers(office, ledger, 2)
    policy = (await office.policy(*steps((a, 0), (b, 300))))["id"]
    ref = await fire(office, policy)
    await office.advance(100)
    await office.ask("PATCH", f"/v1/policies/{policy}", {"steps": steps((a, 0), (b, 150))})
    await office.advance(49)
    assert await ran(office, ref) == [(1, 0)]

    await office.advance(1)

    assert await ran(office, ref) == [(1, 0), (2, 0)]


async def test_a_wait_that_is_over_already_runs_at_once(office: Lifesign, ledger: LedgerPeer) -> None:
    a, b = await receivers(office, ledger, 2)
    policy = (await office.policy(*steps((a, 0), (b, 300))))["id"]
    ref = await fire(office, policy)
    await office.advance(100)

    await office.ask("PATCH", f"/v1/policies/{policy}", {"steps": steps((a, 0), (b, 50))})
    await office.advance()

    assert await ran(office, ref) == [(1, 0), (2, 0)]


async def test_when_no_step_remains_the_last_counts_as_reached(office: Lifesign, ledger: LedgerPeer) -> None:
    a, b = await receivers(office, ledger, 2)
    policy = (await office.policy(*steps((a, 0), (b, 300))))["id"]
    ref = await fire(office, policy)

    await office.ask("PATCH", f"/v1/policies/{policy}", {"steps": steps((a, 0))})
    await office.advance(1000)

    assert await ran(office, ref) == [(1, 0)]
    assert (await office.event_types(ref)).count("escalation_finished") == 1
    assert (await office.incidents(ref))[0]["escalation"] == "done"


async def test_a_finished_escalation_goes_on_when_a_step_is_added(office: Lifesign, ledger: LedgerPeer) -> None:
    a, b = await receivers(office, ledger, 2)
    policy = (await office.policy(*steps((a, 0))))["id"]
    ref = await fire(office, policy)
    await office.advance(100)
    assert (await office.incidents(ref))[0]["escalation"] == "done"

    await office.ask("PATCH", f"/v1/policies/{policy}", {"steps": steps((a, 0), (b, 300))})
    await office.advance(200)

    assert await ran(office, ref) == [(1, 0), (2, 0)]


# Channels that fail -------------------------------------------------------------------------------------------------
async def test_a_test_of_a_sick_target_says_so_without_failing(office: Lifesign, ledger: LedgerPeer) -> None:
    (sick,) = await receivers(office, ledger, 1)
    ledger.script(sick.name, {"status": 500})

    answer = await office.ask("POST", f"/v1/channels/{sick.id}/test")

    assert answer["ok"] is False
    assert answer["message"].startswith("500: ")
    assert (await office.ask("POST", f"/v1/channels/{sick.id}/test")) == {"ok": True}


async def test_a_sick_channel_holds_back_nobody(office: Lifesign, ledger: LedgerPeer) -> None:
    sick, good, later = await receivers(office, ledger, 3)
    ledger.script(sick.name, {"status": 500, "times": 100})
    policy = (await office.policy({"channels": [sick.id, good.id]}, *steps((later, 60))))["id"]

    ref = await fire(office, policy)
    await office.advance(60)

    assert (good.types(), later.types()) == (["incident.opened"], ["incident.opened"])
    failed = [each["metadata"] for each in await office.events(ref) if each["type"] == "notify_failed"]
    assert [(each["channel"], each["final"], each["step"]) for each in failed] == [(sick.id, False, 1)]
    assert failed[0]["error"].startswith("500: ")


async def test_the_eleventh_test_within_a_minute_is_too_many(office: Lifesign, ledger: LedgerPeer) -> None:
    (channel,) = await receivers(office, ledger, 1)
    for _ in range(10):
        await office.ask("POST", f"/v1/channels/{channel.id}/test")

    answer = await office.http.post(f"/v1/channels/{channel.id}/test")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "60")
    assert answer.json()["error"]["code"] == "RATE_LIMITED"
    await office.advance(60)

    assert await office.ask("POST", f"/v1/channels/{channel.id}/test") == {"ok": True}


async def test_a_masked_url_sent_back_keeps_delivery_working(office: Lifesign, ledger: LedgerPeer) -> None:
    name = f"masked-{next(_receivers)}"
    url = f"{ledger.url}/slack/{name}"
    body = {"name": "Slack", "type": "slack", "config": {"webhookUrl": url}}
    made = await office.ask("POST", "/v1/channels", body, expect=201)
    masked = made["config"]["webhookUrl"]
    assert masked == f"{ledger.url}/****{url[-4:]}"

    changed = await office.ask("PATCH", f"/v1/channels/{made['id']}", {"name": "New", "config": {"webhookUrl": masked}})

    assert (changed["name"], changed["config"]) == ("New", {"webhookUrl": masked})
    assert await office.ask("POST", f"/v1/channels/{made['id']}/test") == {"ok": True}
    assert len(ledger.requests(f"/slack/{name}")) == 1
    for other in (f"{ledger.url}/****beef", "****"):
        details = await refused(office, "PATCH", f"/v1/channels/{made['id']}", {"config": {"webhookUrl": other}})
        assert details[0]["field"] == "config.webhookUrl"


async def test_a_generated_secret_is_shown_once(office: Lifesign, ledger: LedgerPeer) -> None:
    made = await office.webhook(ledger.url + "/hook/none")
    secret = made["config"]["secret"]
    assert secret.startswith("whsec_")

    shown = await office.ask("GET", f"/v1/channels/{made['id']}")

    assert shown["config"]["secret"] == f"****{secret[-4:]}"
    assert secret not in (await office.http.get("/v1/channels")).text


async def test_a_changed_type_needs_its_own_settings(office: Lifesign, ledger: LedgerPeer) -> None:
    (channel,) = await receivers(office, ledger, 1)
    path = f"/v1/channels/{channel.id}"

    assert (await refused(office, "PATCH", path, {"type": "email"}))[0]["field"] == "config"
    assert (await refused(office, "PATCH", path, {"type": "email", "config": {"url": "x"}}))[0]["field"] == "config.url"
    changed = await office.ask("PATCH", path, {"type": "email", "config": {"to": "ops@example.org"}})

    assert (changed["type"], changed["config"]) == ("email", {"to": "ops@example.org"})


# Words --------------------------------------------------------------------------------------------------------------
async def test_a_message_is_filled_in_once(office: Lifesign, ledger: LedgerPeer) -> None:
    (a,) = await receivers(office, ledger, 1)
    message = "{{name}} {{nope}} {{metadata.host}} {{ metadata.text }} {{late}} {{step}}/{{steps}}"
    policy = (await office.policy({"channels": [a.id], "message": message}))["id"]
    ref = (await office.heartbeat("Nightly {{slug}}", policy=policy, interval=100, grace=5, slug="filled"))["id"]
    await office.check_in(ref, metadata={"host": "a", "text": "{{id}}"})

    await office.advance(105)

    assert [each.json["data"]["message"] for each in a.requests()] == ["Nightly {{slug}} {{nope}} a {{id}} 5 1/1"]


async def test_default_words_tell_deadline_and_lateness(office: Lifesign, ledger: LedgerPeer) -> None:
    (a,) = await receivers(office, ledger, 1)
    made = await office.heartbeat("Export", interval=100, grace=5, channels=[a.id])
    await office.advance(105)
    await office.advance(7)

    await office.check_in(made["id"])
    await office.advance()

    assert [each.json["data"]["message"] for each in a.requests()] == [
        f"Export missed its check-in: expected {made['nextDeadline']}, 5 s late",
        "Export is back after 7 s",
    ]


async def test_default_words_tell_that_it_said_so_itself(office: Lifesign, ledger: LedgerPeer) -> None:
    (a,) = await receivers(office, ledger, 1)

    await fire(office, None, channels=[a.id], name="Export")

    assert [each.json["data"]["message"] for each in a.requests()] == ["Export reported that it is unhealthy"]


# History ------------------------------------------------------------------------------------------------------------
async def test_a_full_outage_reads_as_the_spec_says(office: Lifesign, ledger: LedgerPeer) -> None:
    (a,) = await receivers(office, ledger, 1)
    policy = (await office.policy({"channels": [a.id]}, repeatLastStep=True))["id"]
    ref = (await office.heartbeat(policy=policy, interval=100, grace=5))["id"]
    await office.check_in(ref)
    await office.advance(110)
    await office.check_in(ref)
    await office.advance()

    assert await office.event_types(ref) == [
        "notify_sent",
        "resolved",
        "checkin",
        "notify_sent",
        "step_notified",
        "firing",
        "checkin",
        "created",
    ]
    sent = [each["metadata"] for each in await office.events(ref) if each["type"] == "notify_sent"]
    incident = (await office.incidents(ref))[0]["id"]
    assert sent == [
        {"incident": incident, "kind": "resolve", "channel": a.id, "step": 1, "attempts": 1},
        {"incident": incident, "kind": "page", "channel": a.id, "step": 1, "attempts": 1},
    ]


async def test_events_can_be_asked_for_by_type(office: Lifesign) -> None:
    ref = await fire(office, None)
    await office.check_in(ref)

    listed = await office.ask("GET", f"/v1/heartbeats/{ref}/events?type=checkin")

    assert [each["type"] for each in listed["events"]] == ["checkin"]
    for wrong in ("", "nothing", "Checkin"):
        assert (await refused(office, "GET", f"/v1/heartbeats/{ref}/events?type={wrong}"))[0]["field"] == "type"


async def test_an_event_has_an_id_a_time_and_an_object(office: Lifesign) -> None:
    ref = (await office.heartbeat())["id"]

    (event,) = await office.events(ref)

    assert set(event) == {"id", "type", "metadata", "createdAt"}
    assert event["id"].startswith("evt_")
    assert event["createdAt"] == after(office, 0)
    assert isinstance(event["metadata"], dict)


async def test_an_incident_tells_its_whole_story(office: Lifesign, ledger: LedgerPeer) -> None:
    (a,) = await receivers(office, ledger, 1)
    policy = (await office.policy({"channels": [a.id]}))["id"]
    ref = await fire(office, policy)
    opened = after(office, 0)
    listed = (await office.ask("GET", f"/v1/incidents?heartbeat={ref}"))["incidents"]
    assert listed == [
        {
            "id": listed[0]["id"],
            "heartbeat": ref,
            "status": "open",
            "reason": "unhealthy",
            "openedAt": opened,
            "escalationStep": 1,
            "policy": policy,
            "escalation": "done",
        }
    ]
    await office.advance(30)
    await office.check_in(ref)
    await office.advance()

    shown = await office.ask("GET", f"/v1/incidents/{listed[0]['id']}")

    assert shown["resolvedAt"] == after(office, 0)
    assert shown["resolution"] == "checkin"
    assert [(each["kind"], each["status"], each["channel"]) for each in shown["notifications"]] == [
        ("page", "sent", a.id),
        ("resolve", "sent", a.id),
    ]
    assert [each["outcome"] for each in shown["notifications"][0]["attempts"]] == ["sent"]
