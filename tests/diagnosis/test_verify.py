"""Whether what was found is over, over HTTP; and what the ledger remembers. Spec "Diagnosis", sections 6 and 7."""

import threading
from typing import Any

import pytest

from lifesign.clock import parse_timestamp
from lifesign.diagnosis.verdicts import Judgement, Later, Past, judged
from tests.diagnosis.runs import Agent, agent
from tests.harness import Json, Lifesign, MakeLifesign

VERIFY = "/v1/runs/verify"


async def verified(of: Agent, **body: object) -> Json:
    return await of.told("POST", VERIFY, body)


async def ledger(of: Agent, query: str = "") -> list[Json]:
    listed: list[Json] = (await of.told("GET", f"/v1/issues{query}"))["issues"]
    return listed


async def found(
    of: Agent, lifesign: Lifesign, *, failing: int = 30, good: int = 70, tool: str = "search", **fields: Any
) -> Json:
    """A packet of one issue, and a minute that has passed since."""
    await of.send(*[of.tool(tool, failing=number < failing, **fields) for number in range(failing + good)])
    packet = await of.diagnose()
    assert len(packet["issues"]) == 1
    await lifesign.advance(60)
    return packet


async def test_enough_silence_is_a_fix(lifesign: Lifesign) -> None:
    async with agent(lifesign) as ours:
        packet = await found(ours, lifesign)
        await ours.send(*[ours.tool() for _ in range(100)])
        answer = await verified(ours, packet_id=packet["packet_id"])
        [entry] = await ledger(ours)

    [issue] = packet["issues"]
    assert answer == {
        "packet_id": packet["packet_id"],
        "window": {"since": "2026-01-05T12:00:00.001Z", "until": "2026-01-05T12:01:00.001Z", "basis": "received_at"},
        "baseline": {name: packet["baseline"][name] for name in ("since", "until")},
        "results": [
            {
                "fingerprint": issue["fingerprint"],
                "title": "tool_call_failed on search",
                "verdict": "fixed",
                "trend": None,
                "count": 0,
                "exposure": 100,
                "baseline_count": 30,
                "baseline_exposure": 100,
                "needed_exposure": 0,
                "evidence_ids": [],
            }
        ],
        "new_issues": [],
        "summary": {"fixed": 1, "regressed": 0, "ongoing": 0, "unverified": 0, "new": 0},
    }
    assert (entry["state"], entry["fixed_at"]) == ("fixed", "2026-01-05T12:01:00.001Z")


@pytest.mark.parametrize(("good", "needed"), [(2, 7), (0, 9)])
async def test_a_little_silence_proves_nothing(lifesign: Lifesign, good: int, needed: int) -> None:
    async with agent(lifesign) as ours:
        packet = await found(ours, lifesign)
        if good:
            await ours.send(*[ours.tool() for _ in range(good)])
        [result] = (await verified(ours, packet_id=packet["packet_id"]))["results"]
        [entry] = await ledger(ours)

    assert (result["verdict"], result["needed_exposure"]) == ("unverified", needed)
    assert (entry["state"], entry["fixed_at"]) == ("unverified", None)


async def test_what_fails_still_is_ongoing_with_a_trend(lifesign: Lifesign) -> None:
    async with agent(lifesign) as ours:
        packet = await found(ours, lifesign)
        failing = [ours.tool(failing=True) for _ in range(3)]
        await ours.send(*failing, *[ours.tool() for _ in range(97)])
        [result] = (await verified(ours, packet_id=packet["packet_id"]))["results"]

    assert (result["verdict"], result["trend"], result["count"], result["exposure"]) == ("ongoing", "improving", 3, 100)
    assert result["evidence_ids"] == [f"rec_{each['traceId']}{each['spanId']}" for each in failing]


async def test_what_comes_back_after_a_fix_has_regressed(lifesign: Lifesign) -> None:
    async with agent(lifesign) as ours:
        packet = await found(ours, lifesign)
        await ours.send(*[ours.tool() for _ in range(100)])
        await verified(ours, packet_id=packet["packet_id"])
        await lifesign.advance(60)
        await ours.send(ours.tool(failing=True), ours.tool(failing=True))
        again = await ours.diagnose()
        [result] = (await verified(ours, packet_id=packet["packet_id"]))["results"]
        [entry] = await ledger(ours)

    assert [each["state"] for each in again["issues"]] == ["regressed"]
    assert (result["verdict"], result["trend"]) == ("regressed", None)
    assert (entry["state"], entry["regressed_at"]) == ("regressed", "2026-01-05T12:02:00.000Z")
    assert entry["fixed_at"] == "2026-01-05T12:01:00.001Z"


async def test_an_older_version_that_fails_still_does_not_undo_a_fix(lifesign: Lifesign) -> None:
    async with agent(lifesign) as ours:
        packet = await found(ours, lifesign, service__version="1.9.0")
        await ours.send(*[ours.tool(service__version="1.10.0") for _ in range(100)])
        await verified(ours, packet_id=packet["packet_id"])
        await lifesign.advance(60)
        await ours.send(*[ours.tool(failing=True, service__version="1.9.0") for _ in range(2)])
        older = await ours.diagnose(since_minutes=1)
        [fixed] = await ledger(ours)
        await lifesign.advance(60)
        await ours.send(*[ours.tool(failing=True, service__version="1.10.1") for _ in range(2)])
        newer = await ours.diagnose(since_minutes=1)
        [regressed] = await ledger(ours)

    assert (fixed["state"], fixed["fixed_version"]) == ("fixed", "1.10.0")
    assert [each["state"] for each in older["issues"]] == ["ongoing"]
    assert [each["state"] for each in newer["issues"]] == ["regressed"]
    assert regressed["state"] == "regressed"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_what_came_before_a_fix_does_not_come_back_by_being_looked_at_again(lifesign: Lifesign) -> None:
    async with agent(lifesign) as ours:
        packet = await found(ours, lifesign)
        await ours.send(ours.tool(failing=True))
        await lifesign.advance(600)
        await ours.send(*[ours.tool() for _ in range(100)])
        fixed = await verified(ours, packet_id=packet["packet_id"], since_minutes=5)
        longer = await verified(ours, packet_id=packet["packet_id"], since_minutes=60)
        at_its_end = lifesign.now()
        await lifesign.advance(0.001)
        await ours.send(ours.tool(failing=True))
        back = await verified(ours, packet_id=packet["packet_id"], since_minutes=60)

    [[first], [second], [third]] = (each["results"] for each in (fixed, longer, back))
    assert (first["verdict"], second["verdict"], second["count"]) == ("fixed", "ongoing", 1)
    # A window ends before its last millisecond: what arrives in that comes after the fix.
    assert parse_timestamp(fixed["window"]["until"]) == at_its_end + 1
    assert (third["verdict"], third["count"]) == ("regressed", 2)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_what_an_older_version_does_still_is_no_regression_of_a_fix(lifesign: Lifesign) -> None:
    async with agent(lifesign) as ours:
        packet = await found(ours, lifesign, service__version="1.9.0")
        await ours.send(*[ours.tool(service__version="1.10.0") for _ in range(100)])
        await verified(ours, packet_id=packet["packet_id"])
        await lifesign.advance(60)
        await ours.send(ours.tool(failing=True, service__version="1.9.0"))
        older = (await verified(ours, packet_id=packet["packet_id"]))["results"]
        await ours.send(ours.tool(failing=True, service__version="1.10.0"))
        newer = (await verified(ours, packet_id=packet["packet_id"]))["results"]

    assert [(each["verdict"], each["trend"]) for each in older + newer] == [
        ("ongoing", "improving"),
        ("regressed", None),
    ]


async def test_issues_that_nobody_knew_are_told_apart(lifesign: Lifesign) -> None:
    async with agent(lifesign) as ours:
        packet = await found(ours, lifesign)
        await ours.send(*[ours.tool("fetch", failing=True) for _ in range(2)])
        answer = await verified(ours, packet_id=packet["packet_id"])
        first = [(each["title"], each["verdict"]) for each in answer["new_issues"]]
        await ours.diagnose()
        known = (await verified(ours, packet_id=packet["packet_id"]))["new_issues"]

    assert first == [("tool_call_failed on fetch", "new")]
    assert answer["summary"]["new"] == 1
    assert known == []


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_of_many_new_issues_the_worst_are_listed_and_all_are_counted(
    lifesign: Lifesign, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: set[bool] = set()

    def judged_in_a_thread(past: Past, later: Later, *, window_records: int) -> Judgement:
        threads.add(threading.current_thread() is threading.main_thread())
        return judged(past, later, window_records=window_records)

    monkeypatch.setattr("lifesign.diagnosis.verification.judged", judged_in_a_thread)
    async with agent(lifesign) as ours:
        packet = await found(ours, lifesign)
        names = [f"t{first}{second}" for first in "abcdefghijk" for second in "abcdefghijk"]
        await ours.send(*[ours.tool(name, failing=True) for name in names])
        answer = await verified(ours, packet_id=packet["packet_id"])

    assert (len(answer["new_issues"]), answer["summary"]["new"]) == (100, 121)
    # However many there are, nobody else waits for it.
    assert threads == {False}


async def test_issues_are_verified_by_fingerprint(lifesign: Lifesign) -> None:
    async with agent(lifesign) as ours:
        packet = await found(ours, lifesign)
        fingerprint = packet["issues"][0]["fingerprint"]
        await ours.send(*[ours.tool() for _ in range(100)])
        answer = await verified(ours, fingerprints=["tool_call_failed:0", fingerprint, fingerprint])

    assert answer["packet_id"] == packet["packet_id"]
    unknown, known = answer["results"]
    assert (unknown["fingerprint"], unknown["verdict"], unknown["reason"]) == (
        "tool_call_failed:0",
        "unverified",
        "unknown_fingerprint",
    )
    assert (known["fingerprint"], known["verdict"], known["exposure"]) == (fingerprint, "fixed", 100)
    assert answer["summary"] == {"fixed": 1, "regressed": 0, "ongoing": 0, "unverified": 1, "new": 0}


async def test_an_issue_outlives_the_packet_that_told_it(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign(packet_retention_days=1) as lifesign, agent(lifesign) as ours:
        packet = await found(ours, lifesign)
        await lifesign.advance(25 * 3600)
        await lifesign.advance(60)
        answer = await verified(ours, fingerprints=[packet["issues"][0]["fingerprint"]])

    [result] = answer["results"]
    assert (result["title"], result["verdict"], result["reason"]) == (
        "tool_call_failed on search",
        "unverified",
        "packet_gone",
    )


async def test_latency_is_judged_by_whether_it_would_still_be_found(lifesign: Lifesign) -> None:
    async with agent(lifesign) as ours:
        await ours.send(*[ours.tool(seconds=0.1) for _ in range(40)])
        await lifesign.advance(1.5 * 3600)
        await ours.send(*[ours.tool(seconds=1) for _ in range(40)])
        packet = await ours.diagnose()
        await lifesign.advance(60)
        await ours.send(*[ours.tool(seconds=1) for _ in range(40)])
        slow = await verified(ours, packet_id=packet["packet_id"])
        until = slow["window"]["until"]
        await lifesign.advance(3600)
        await ours.send(*[ours.tool(seconds=0.1, failing=number < 20) for number in range(40)])
        failing = await verified(ours, packet_id=packet["packet_id"], since_minutes=30)
        await ours.send(*[ours.tool(seconds=0.1) for _ in range(20)])
        quick = await verified(ours, packet_id=packet["packet_id"], since_minutes=30)

    assert [each["signal_type"] for each in packet["issues"]] == ["latency_regression"]
    assert [each["verdict"] for each in slow["results"]] == ["ongoing"]
    # How long a failure took says nothing.
    assert [(each["verdict"], each["exposure"], each["needed_exposure"]) for each in failing["results"]] == [
        ("unverified", 40, 10)
    ]
    assert [each["verdict"] for each in quick["results"]] == ["fixed"]
    assert until < quick["window"]["since"]


async def slowed(of: Agent, lifesign: Lifesign, tool: str = "search") -> Json:
    """A packet of a tool that got slower, and a minute that has passed since."""
    await of.send(*[of.tool(tool, seconds=0.1) for _ in range(40)])
    await lifesign.advance(1.5 * 3600)
    await of.send(*[of.tool(tool, seconds=1) for _ in range(40)])
    packet = await of.diagnose()
    await lifesign.advance(60)
    return packet


async def test_silence_for_want_of_anything_to_compare_with_is_no_fix(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign(telemetry_retention_days=1) as lifesign, agent(lifesign) as ours:
        packet = await slowed(ours, lifesign)
        await lifesign.advance(24 * 3600)
        await ours.send(*[ours.tool(seconds=1) for _ in range(40)])
        [result] = (await verified(ours, packet_id=packet["packet_id"]))["results"]
        [entry] = await ledger(ours)

    assert packet["issues"][0]["signal_type"] == "latency_regression"
    assert (result["verdict"], result["needed_exposure"], result["reason"]) == ("unverified", 0, "baseline_gone")
    assert (entry["state"], entry["fixed_at"]) == ("unverified", None)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_what_another_packet_compared_with_is_no_measure(lifesign: Lifesign) -> None:
    async with agent(lifesign) as ours:
        slow = (await slowed(ours, lifesign))["issues"][0]["fingerprint"]
        await lifesign.advance(3600)
        failed = (await found(ours, lifesign, tool="fetch"))["issues"][0]["fingerprint"]
        await ours.send(*[ours.tool(seconds=1) for _ in range(40)])
        together = await verified(ours, fingerprints=[slow, failed])
        alone = await verified(ours, fingerprints=[slow])

    assert [(each["verdict"], each.get("reason")) for each in together["results"]] == [
        ("unverified", "other_packet"),
        ("unverified", None),
    ]
    assert [(each["verdict"], each.get("reason")) for each in alone["results"]] == [("ongoing", None)]


# What is asked ------------------------------------------------------------------------------------------------------
async def test_a_window_lies_behind_that_of_the_packet(lifesign: Lifesign) -> None:
    async with agent(lifesign) as ours:
        packet = await found(ours, lifesign)
        until = packet["window"]["until"]
        refused = await ours.refused("POST", VERIFY, {"packet_id": packet["packet_id"], "until": until})
        moved = await verified(ours, packet_id=packet["packet_id"], since_minutes=43_200)

    assert refused[:2] == (400, "window_overlaps_packet")
    assert moved["window"]["since"] == until


@pytest.mark.parametrize(
    ("body", "status", "code", "words"),
    [
        ({}, 400, "invalid_parameter", "packet_id or fingerprints must be given, and not both"),
        (None, 400, "invalid_json", "The body is not valid JSON"),
        ({"packet_id": "pkt_0", "fingerprints": ["x"]}, 400, "invalid_parameter", "packet_id or fingerprints"),
        ({"packet_id": 7}, 400, "invalid_parameter", "packet_id must be a text"),
        ({"packet_id": "pkt_0"}, 404, "packet_not_found", "Packet not found"),
        ({"packet_id": "pkt_\x00"}, 404, "packet_not_found", "Packet not found"),
        ({"packet_id": "pkt_0", "environment": "prod"}, 400, "invalid_parameter", "environment must not be given"),
        ({"fingerprints": ["x"], "environment": ""}, 400, "invalid_parameter", "environment must not be empty"),
        ({"fingerprints": []}, 400, "invalid_parameter", "fingerprints must be a list of 1 to 100 texts"),
        ({"fingerprints": ["x"] * 101}, 400, "invalid_parameter", "fingerprints must be a list of 1 to 100 texts"),
        ({"fingerprints": [7]}, 400, "invalid_parameter", "fingerprints must be a list of 1 to 100 texts"),
        ({"fingerprints": "x"}, 400, "invalid_parameter", "fingerprints must be a list of 1 to 100 texts"),
        ({"fingerprints": ["x"], "since_minutes": 0}, 400, "invalid_parameter", "since_minutes must be an integer"),
    ],
)
async def test_what_cannot_be_verified_is_named(
    lifesign: Lifesign, body: object, status: int, code: str, words: str
) -> None:
    async with agent(lifesign) as ours:
        answer = await ours.refused("POST", VERIFY, body)

    assert answer[:2] == (status, code)
    assert answer[2].startswith(words)


async def test_a_packet_of_somebody_else_is_none(lifesign: Lifesign) -> None:
    async with agent(lifesign) as ours, agent(lifesign) as other:
        packet = await found(ours, lifesign)
        by_packet = await other.refused("POST", VERIFY, {"packet_id": packet["packet_id"]})
        by_issue = await verified(other, fingerprints=[packet["issues"][0]["fingerprint"]])

    assert by_packet[:2] == (404, "packet_not_found")
    assert [each["reason"] for each in by_issue["results"]] == ["unknown_fingerprint"]


# The ledger ---------------------------------------------------------------------------------------------------------
async def test_the_ledger_remembers_each_issue_of_each_filter(lifesign: Lifesign) -> None:
    async with agent(lifesign) as ours:
        await ours.send(ours.tool("a", failing=True, deployment__environment="prod", service__version="1.2.0"))
        await ours.diagnose()
        await lifesign.advance(60)
        await ours.send(ours.tool("b", failing=True))
        packet = await ours.diagnose()
        await ours.diagnose(environment="prod")
        entries = await ledger(ours)

    assert [(each["title"], each["environment"]) for each in entries] == [
        ("tool_call_failed on b", None),
        ("tool_call_failed on a", None),
        ("tool_call_failed on a", "prod"),
    ]
    assert entries[1] == {
        "fingerprint": packet["issues"][1]["fingerprint"],
        "environment": None,
        "ruleset": "2026.11-1",
        "signal_type": "tool_call_failed",
        "title": "tool_call_failed on a",
        "state": "new",
        "first_seen": "2026-01-05T12:00:00.000Z",
        "last_seen": "2026-01-05T12:00:00.000Z",
        "last_packet_id": packet["packet_id"],
        "fixed_at": None,
        "fixed_version": None,
        "regressed_at": None,
        "count": 1,
        "exposure": 1,
        "versions": ["1.2.0"],
    }


async def test_the_ledger_is_read_by_state_and_page_by_page(lifesign: Lifesign) -> None:
    async with agent(lifesign) as ours, agent(lifesign) as other:
        await ours.send(*[ours.tool(f"t{letter}", failing=True) for letter in "abcde"])
        packet = await ours.diagnose()
        seen: list[str] = []
        cursor: str | None = ""
        while cursor is not None:
            page = await ours.told("GET", f"/v1/issues?limit=2&state=new{cursor and f'&cursor={cursor}'}")
            seen += [each["fingerprint"] for each in page["issues"]]
            cursor = page["next_cursor"]
        ongoing, foreign = await ledger(ours, "?state=ongoing"), await ledger(other)
        bad = [await ours.refused("GET", f"/v1/issues?{each}") for each in ("state=old", "limit=201", "cursor=x")]

    assert seen == sorted(each["fingerprint"] for each in packet["issues"])
    assert len(seen) == 5
    assert (ongoing, foreign) == ([], [])
    assert [each[1] for each in bad] == ["invalid_parameter", "invalid_parameter", "invalid_cursor"]
    assert bad[0][2] == "state must be one of new, ongoing, regressed, fixed, unverified"


async def test_the_ledger_is_read_to_its_end_whatever_environments_are_called(lifesign: Lifesign) -> None:
    # In JSON each of these is six characters.
    names = [letter + "\x01" * 254 + letter for letter in "abc"]
    async with agent(lifesign) as ours:
        await ours.send(*[ours.tool(failing=True, deployment__environment=name) for name in names])
        for name in names:
            await ours.diagnose(environment=name)
        seen: list[str] = []
        cursor: str | None = ""
        while cursor is not None:
            page = await ours.told("GET", f"/v1/issues?limit=1{cursor and f'&cursor={cursor}'}")
            seen += [each["environment"] for each in page["issues"]]
            cursor = page["next_cursor"]

    assert seen == names


async def test_a_packet_of_an_older_window_adds_to_the_past_only(lifesign: Lifesign) -> None:
    async with agent(lifesign) as ours:
        await ours.send(ours.tool("a", failing=True))
        await lifesign.advance(2 * 3600)
        await ours.send(*[ours.tool("a", failing=True) for _ in range(4)])
        newest = await ours.diagnose()
        older = await ours.diagnose(until="2026-01-05T12:30:00Z")
        again = await ours.diagnose(until=newest["window"]["until"])
        [entry] = await ledger(ours)

    assert [each["state"] for each in newest["issues"] + older["issues"]] == ["new", "new"]
    # What is known by now is older than the window.
    assert [each["state"] for each in again["issues"]] == ["ongoing"]
    assert (entry["first_seen"], entry["last_seen"], entry["count"]) == (
        "2026-01-05T12:00:00.000Z",
        "2026-01-05T14:00:00.000Z",
        4,
    )
