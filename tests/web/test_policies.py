"""Policies on pages: the ladder and its buttons, what it would do now, and what the engine then does."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifesign.clock import EpochMs, parse_timestamp
from lifesign.incidents.rules import Plan, Step, foreseen
from lifesign.web import policy_forms
from lifesign.web.policy_forms import TypedPolicy, TypedStep
from tests.harness import Lifesign
from tests.peers.process import LedgerPeer
from tests.shared import ledger
from tests.web.browser import said, signed_up

__all__ = ["ledger"]

_STEPS = st.lists(st.tuples(st.integers(0, 3600), st.booleans()), min_size=1, max_size=5)


def ladder(*steps: tuple[str, str], name: str = "Critical") -> dict[str, str]:
    """The fields of a form: of each step its wait and the channel that is ticked."""
    fields = {"name": name}
    for number, (wait, channel) in enumerate(steps):
        fields |= {f"wait-{number}": wait, f"message-{number}": ""}
        if channel:
            fields[f"channel-{number}-{channel}"] = "on"
    return fields


async def test_a_policy_is_made_by_its_form(lifesign: Lifesign, closed_port: int) -> None:
    hook = await lifesign.webhook(f"http://127.0.0.1:{closed_port}/x")
    owner = await signed_up(lifesign)
    assert "Make the first one" in said(await owner.get("/policies"))
    await owner.get("/policies/new")

    fields = ladder(("", hook["id"]), ("5m", hook["id"])) | {"message-1": "{{name}}, please", "repeats": "on"}
    place = await owner.post("/policies/new", fields)

    [made] = (await lifesign.ask("GET", "/v1/policies"))["policies"]
    assert place == f"/policies/{made['id']}"
    assert (made["name"], made["repeatLastStep"]) == ("Critical", True)
    assert made["steps"] == [
        {"channels": [hook["id"]]},
        {"channels": [hook["id"]], "wait": 300, "message": "{{name}}, please"},
    ]
    assert "Critical at once hook after 5m hook again and again 0" in said(await owner.get("/policies"))


async def test_what_it_would_do_now_is_what_the_engine_then_does(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    hook = await lifesign.webhook(f"{ledger.url}/hook/foreseen")
    policy = await lifesign.policy(*({"channels": [hook["id"]], "wait": wait} for wait in (0, 300, 600)))
    made = await lifesign.heartbeat("Silent", policy=policy["id"])
    owner = await signed_up(lifesign)
    page = await owner.get(f"/policies/{policy['id']}")
    section = page[page.index('id="foreseen"') : page.index('id="users"')]
    told = [parse_timestamp(each) for each in re.findall(r'<time datetime="([^"]+)"', section)]

    await lifesign.check_in(made["id"], healthy=False)
    await lifesign.advance(1000)

    [incident] = await lifesign.incidents(made["id"])
    events = [each for each in await lifesign.events(made["id"]) if each["type"] == "step_notified"]
    took_place = sorted(parse_timestamp(each["createdAt"]) for each in events)
    opened = parse_timestamp(incident["openedAt"])
    assert [at - told[0] for at in told] == [0, 300_000, 900_000]
    assert [at - opened for at in took_place] == [at - told[0] for at in told]


async def test_buttons_of_the_ladder_work_without_a_script(lifesign: Lifesign, closed_port: int) -> None:
    hook = await lifesign.webhook(f"http://127.0.0.1:{closed_port}/x")
    owner = await signed_up(lifesign)
    await owner.get("/policies/new")
    fields = ladder(("", hook["id"]), ("7m", ""), ("9m", hook["id"]))

    moved = await owner.post("/policies/new", fields | {"do": "up-2"}, expect=200)
    added = await owner.post("/policies/new", fields | {"do": "add"}, expect=200)

    assert re.findall(r'name="wait-\d" value="([^"]*)"', moved) == ["", "9m", "7m"]
    assert re.findall(r'name="wait-\d" value="([^"]*)"', added) == ["", "7m", "9m", "5m"]
    assert (await lifesign.ask("GET", "/v1/policies"))["policies"] == []


async def test_a_changed_order_is_kept(lifesign: Lifesign, closed_port: int) -> None:
    hook = await lifesign.webhook(f"http://127.0.0.1:{closed_port}/x")
    policy = await lifesign.policy({"channels": [hook["id"]]}, {"channels": [hook["id"]], "wait": 60})
    owner = await signed_up(lifesign)
    await owner.get(f"/policies/{policy['id']}")
    # As the page sends it after the second step was dragged to the top.
    dragged = {"name": "Turned", "wait-1": "1m", f"channel-1-{hook['id']}": "on", "wait-0": ""}
    dragged[f"channel-0-{hook['id']}"] = "on"

    await owner.post(f"/policies/{policy['id']}", dragged)

    after = await lifesign.ask("GET", f"/v1/policies/{policy['id']}")
    assert (after["name"], [each.get("wait") for each in after["steps"]]) == ("Turned", [60, None])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"name": ""}, "Name "),
        ({"wait-0": "soon"}, "Wait must be a duration, such as 90s, 15m or 1h."),
        ({"wait-0": "8d"}, "Wait must be between 0 and 604800"),
        ({"message-0": "x" * 2001}, "Message must be at most 2000 characters"),
    ],
)
async def test_a_refused_ladder_keeps_what_was_typed(lifesign: Lifesign, changes: dict[str, str], told: str) -> None:
    owner = await signed_up(lifesign)
    await owner.get("/policies/new")

    page = await owner.post("/policies/new", ladder(("1m", "ch_0")) | changes, expect=400)

    assert told in said(page)
    assert "ch_0" in page


async def test_nobody_and_strangers_cannot_be_told(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    await owner.get("/policies/new")

    nobody = said(await owner.post("/policies/new", ladder(("", "")), expect=400))
    stranger = said(await owner.post("/policies/new", ladder(("", "ch_0")), expect=400))
    no_step = said(await owner.post("/policies/new", {"name": "Empty"}, expect=400))

    assert "Channels must be at least one of them." in nobody
    assert "Channels has one that does not count: unknown channel." in stranger
    assert "A policy has 1 to 20 steps." in no_step


async def test_deleting_takes_it_away_from_those_who_use_it(lifesign: Lifesign, closed_port: int) -> None:
    hook = await lifesign.webhook(f"http://127.0.0.1:{closed_port}/x")
    policy = await lifesign.policy({"channels": [hook["id"]]})
    made = await lifesign.heartbeat("User of it", policy=policy["id"])
    owner = await signed_up(lifesign)
    path = f"/policies/{policy['id']}"
    assert "Used by User of it" in said(await owner.get(path))

    await owner.post(f"{path}/delete", {"name": "standard"}, expect=400)
    assert await owner.post(f"{path}/delete", {"name": "Standard"}) == "/policies"

    assert "policy" not in await lifesign.get(made["id"])
    await owner.get(path, expect=404)


# Pure ---------------------------------------------------------------------------------------------------------------
@given(_STEPS, st.booleans())
def test_steps_are_foreseen_in_order_each_after_its_wait(steps: list[tuple[int, bool]], repeats: bool) -> None:
    plan = Plan(tuple(Step(("ch",), wait) for wait, _ in steps), repeats)

    found = foreseen(plan, EpochMs(1000), min_repeat_ms=60_000, most=len(steps) + 2)

    at, expected = 1000, []
    for number, (wait, _) in enumerate(steps, 1):
        at += wait * 1000
        expected.append((at, number, 0))
    for loop in (1, 2) if repeats else ():
        at += max(steps[-1][0] * 1000, 60_000)
        expected.append((at, len(steps), loop))
    assert [tuple(each) for each in found] == expected


@given(st.lists(st.text("abc", max_size=3), min_size=1, max_size=6), st.text(max_size=8))
def test_no_button_loses_what_was_typed(waits: list[str], deed: str) -> None:
    typed = TypedPolicy("P", tuple(TypedStep(wait) for wait in waits))

    for each in (deed, "up-1", "down-0", "up-0", "down-99", "up--1", "down-²"):
        after = policy_forms.after(typed, each)
        assert sorted(step.wait for step in after.steps) == sorted(waits)


def test_one_step_can_be_taken_away() -> None:
    typed = TypedPolicy("P", (TypedStep("a"), TypedStep("b"), TypedStep("c")))

    assert [step.wait for step in policy_forms.after(typed, "remove-1").steps] == ["a", "c"]
