"""Dependencies: while what a heartbeat depends on fires, nobody is told of it."""

import pytest

from tests.engine.steps import fire, hook, told
from tests.harness import Json, Lifesign
from tests.peers.process import LedgerPeer


async def family(lifesign: Lifesign, ledger: LedgerPeer, **child: object) -> tuple[Json, Json]:
    channel = await lifesign.webhook(hook(ledger))
    policy = await lifesign.policy({"channels": [channel["id"]]}, {"wait": 60, "channels": [channel["id"]]})
    parent = await lifesign.heartbeat("Router")
    fields = {"policy": policy["id"], "grace": 10, "dependsOn": ["router"]} | child
    return parent, await lifesign.heartbeat("Shop", **fields)


async def test_a_child_of_a_firing_parent_tells_nobody(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    parent, child = await family(lifesign, ledger)
    assert child["dependsOn"] == [parent["id"]]
    await fire(lifesign, "router")

    await fire(lifesign, "shop")
    await lifesign.advance(300)

    assert (await lifesign.get("shop"))["status"] == "firing"
    (incident,) = await lifesign.incidents(child["id"])
    assert (incident["suppressedBy"], incident["holds"]) == (parent["id"], ["dependency"])
    firing = next(each for each in await lifesign.events("shop") if each["type"] == "firing")
    assert firing["metadata"]["suppressedBy"] == parent["id"]
    assert told(ledger) == []


async def test_when_the_parent_is_back_the_child_is_told_after_its_grace(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    _, child = await family(lifesign, ledger)
    await fire(lifesign, "router")
    await fire(lifesign, "shop")
    await lifesign.advance(100)

    await lifesign.check_in("router")
    await lifesign.advance(9)
    assert told(ledger) == []
    await lifesign.advance(2)

    assert told(ledger) == [(110, "incident.opened")]
    (incident,) = await lifesign.incidents(child["id"])
    assert "suppressedBy" not in incident


async def test_a_child_that_is_back_as_well_tells_nobody(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    await family(lifesign, ledger)
    await fire(lifesign, "router")
    await fire(lifesign, "shop")
    await lifesign.check_in("router")
    await lifesign.check_in("shop")

    await lifesign.advance(300)

    assert told(ledger) == []
    assert (await lifesign.event_types("shop"))[0] == "resolved"


async def test_a_parent_that_fires_later_holds_the_steps_to_come(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    await family(lifesign, ledger)
    await fire(lifesign, "shop")
    assert told(ledger) == [(0, "incident.opened")]
    await lifesign.advance(30)
    await fire(lifesign, "router")

    await lifesign.advance(100)
    assert len(told(ledger)) == 1
    await lifesign.check_in("router")
    await lifesign.advance(11)

    assert told(ledger)[1:] == [(140, "incident.escalated")]


async def test_a_grandparent_counts_and_so_does_one_of_two_parents(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    await lifesign.heartbeat("Power")
    await lifesign.heartbeat("Disk")
    await family(lifesign, ledger, dependsOn=["router", "disk"])
    await lifesign.ask("PATCH", "/v1/heartbeats/router", {"dependsOn": ["power"]})
    await fire(lifesign, "power")
    await fire(lifesign, "disk")
    await fire(lifesign, "shop")

    await lifesign.check_in("disk")
    await lifesign.advance(60)
    assert told(ledger) == []
    await lifesign.check_in("power")
    await lifesign.advance(11)

    assert [kind for _, kind in told(ledger)] == ["incident.opened"]


async def test_those_that_fall_silent_together_are_told_as_parent_and_child(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    parent, child = await family(lifesign, ledger, interval=3600, grace=60)

    await lifesign.advance(3660)

    (incident,) = await lifesign.incidents(child["id"])
    assert incident["suppressedBy"] == parent["id"]
    assert told(ledger) == []


async def test_a_deleted_parent_lets_go(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    await family(lifesign, ledger)
    await fire(lifesign, "router")
    await fire(lifesign, "shop")

    await lifesign.ask("DELETE", "/v1/heartbeats/router", expect=204)
    await lifesign.advance(11)

    shown = await lifesign.get("shop")
    assert "dependsOn" not in shown
    assert "dependency_removed" in await lifesign.event_types("shop")
    assert told(ledger) == [(10, "incident.opened")]


async def test_a_paused_or_acked_parent_lets_go(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    await family(lifesign, ledger)
    await fire(lifesign, "router")
    await fire(lifesign, "shop")

    await lifesign.ask("POST", "/v1/heartbeats/router/ack")
    await lifesign.advance(11)

    assert told(ledger) == [(10, "incident.opened")]


async def test_what_is_unknown_the_heartbeat_itself_or_a_circle_is_refused(lifesign: Lifesign) -> None:
    for name in ("A", "B", "C"):
        await lifesign.heartbeat(name)
    await lifesign.ask("PATCH", "/v1/heartbeats/a", {"dependsOn": ["b"]})
    await lifesign.ask("PATCH", "/v1/heartbeats/b", {"dependsOn": ["c"]})

    for ref, wanted in (("c", ["a"]), ("a", ["nope"]), ("a", ["a"]), ("a", ["b", "hb_" + "0" * 32])):
        refused = await lifesign.ask("PATCH", f"/v1/heartbeats/{ref}", {"dependsOn": wanted}, expect=400)
        assert refused["error"]["details"][0]["field"] == f"dependsOn[{len(wanted) - 1}]"
    body = {"name": "D", "mode": "recurring", "interval": 60, "dependsOn": [f"x{n}" for n in range(21)]}
    refused = await lifesign.ask("POST", "/v1/heartbeats", body, expect=400)
    assert refused["error"]["details"][0]["field"] == "dependsOn"


async def test_slugs_and_ids_are_stored_as_ids_and_null_clears_them(lifesign: Lifesign) -> None:
    first, second = await lifesign.heartbeat("A"), await lifesign.heartbeat("B")
    made = await lifesign.heartbeat("C", dependsOn=["a", second["id"], first["id"]])
    assert made["dependsOn"] == [first["id"], second["id"]]

    unchanged = await lifesign.ask("PATCH", "/v1/heartbeats/c", {"dependsOn": ["a", "b"]})
    assert "updatedAt" not in unchanged
    cleared = await lifesign.ask("PATCH", "/v1/heartbeats/c", {"dependsOn": None})

    assert "dependsOn" not in cleared


async def test_one_that_depends_on_it_no_more_is_told(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    await family(lifesign, ledger)
    await fire(lifesign, "router")
    await fire(lifesign, "shop")

    await lifesign.ask("PATCH", "/v1/heartbeats/shop", {"dependsOn": None})
    await lifesign.advance(9)
    assert told(ledger) == []
    await lifesign.advance(2)

    assert (await lifesign.get("router"))["status"] == "firing"
    assert told(ledger) == [(10, "incident.opened")]


@pytest.mark.parametrize("cut", ["edit", "delete"])
async def test_where_the_way_to_what_fires_is_cut_further_up_the_child_is_told(
    lifesign: Lifesign, ledger: LedgerPeer, cut: str
) -> None:
    _, child = await family(lifesign, ledger)
    power = await lifesign.heartbeat("Power")
    await lifesign.ask("PATCH", "/v1/heartbeats/router", {"dependsOn": ["power"]})
    await fire(lifesign, "power")
    await fire(lifesign, "shop")
    (incident,) = await lifesign.incidents(child["id"])
    assert incident["suppressedBy"] == power["id"]

    if cut == "edit":
        await lifesign.ask("PATCH", "/v1/heartbeats/router", {"dependsOn": None})
    else:
        await lifesign.ask("DELETE", "/v1/heartbeats/router", expect=204)
    await lifesign.advance(11)

    assert told(ledger) == [(10, "incident.opened")]


async def test_when_one_of_two_parents_is_back_the_other_keeps_it_quiet(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    channel = await lifesign.webhook(hook(ledger))
    router, disk = await lifesign.heartbeat("Router"), await lifesign.heartbeat("Disk")
    child = await lifesign.heartbeat("Shop", channels=[channel["id"]], dependsOn=["router", "disk"])
    await fire(lifesign, "router")
    await fire(lifesign, "disk")
    await fire(lifesign, "shop")
    (incident,) = await lifesign.incidents(child["id"])
    first = incident["suppressedBy"]

    await lifesign.check_in("router" if first == router["id"] else "disk")
    await lifesign.advance(3000)

    (incident,) = await lifesign.incidents(child["id"])
    assert incident["suppressedBy"] == ({router["id"], disk["id"]} - {first}).pop()
    assert told(ledger) == []
    assert "repaired" not in await lifesign.event_types("shop")
