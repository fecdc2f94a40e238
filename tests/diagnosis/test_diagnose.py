"""Diagnoses over HTTP, as whoever runs an agent asks for them. Spec "Diagnosis", sections 1, 2, 6 and 12."""

import asyncio
import json
import random
import re
from typing import Any

import pytest

from lifesign.clock import EpochMs, parse_timestamp
from tests.diagnosis.runs import START_NS, Agent, agent
from tests.harness import Json, Lifesign, MakeLifesign

HOUR_S = 3600
DIAGNOSE = "/v1/runs/diagnose"
DETERMINED = ("issues", "notices", "failures", "telemetry_read", "status")


def determined(packet: Json) -> str:
    """What equal facts make equal, as text."""
    return json.dumps({name: packet[name] for name in DETERMINED})


# What is answered ---------------------------------------------------------------------------------------------------
async def test_nothing_is_nothing_to_act_on(lifesign: Lifesign) -> None:
    async with agent(lifesign) as ours:
        packet = await ours.diagnose()

    assert {name: packet[name] for name in packet if name not in {"packet_id", "took_ms", "project_id"}} == {
        "tenant_id": "sandbox",
        "source": "telemetry",
        "status": "observe_more",
        "since_minutes": 60,
        "telemetry_read": 0,
        "failures": 0,
        "approval_required": True,
        "approval_reason": "Not enough evidence to act; external writes would need human approval.",
        "ruleset": "2026.11-1",
        "sessions": 0,
        "issues": [],
        "omitted_issues": 0,
        "notices": [
            {
                "code": "baseline_incomplete",
                "count": 1,
                "message": "The baseline reaches behind what is kept, or behind the project's creation.",
            }
        ],
        "created_at": "2026-01-05T12:00:00.000Z",
        "environment": None,
        "window": {"since": "2026-01-05T11:00:00.001Z", "until": "2026-01-05T12:00:00.001Z", "basis": "received_at"},
        "baseline": {
            "since": "2026-01-05T10:00:00.001Z",
            "until": "2026-01-05T11:00:00.001Z",
            "records": 0,
            "complete": False,
        },
        "truncated": False,
        "effective_since": None,
    }
    assert packet["project_id"] == ours.ours.project_id
    assert re.fullmatch(r"pkt_[0-9a-f]{32}", packet["packet_id"])


async def test_three_failures_of_one_kind_are_one_issue(lifesign: Lifesign) -> None:
    async with agent(lifesign) as ours:
        failing = [ours.tool(failing=True, http__route="/checkout") for _ in range(3)]
        await ours.send(*failing)
        packet = await ours.diagnose()

    [issue] = packet["issues"]
    assert (packet["status"], packet["approval_required"]) == ("ready_for_issue_diagnosis", True)
    assert packet["approval_reason"] == ("External writes (issues, pull requests, deployments) need human approval.")
    assert (issue["title"], issue["count"], issue["severity"]) == ("tool_call_failed on /checkout", 3, "medium")
    assert issue["evidence_ids"] == [f"rec_{each['traceId']}{each['spanId']}" for each in failing]
    assert issue["traces"] == [each["traceId"] for each in failing]
    assert issue["state"] == "new"
    assert issue["error_type"] == "Timeout"


async def test_one_failure_is_to_be_observed(lifesign: Lifesign) -> None:
    async with agent(lifesign) as ours:
        await ours.send(ours.tool(failing=True))
        packet = await ours.diagnose()

    assert (packet["status"], packet["failures"]) == ("observe_more", 1)
    [issue] = packet["issues"]
    assert issue["count"] == 1
    assert issue["next_action"].startswith("Keep observing: one occurrence only. Look at rec_")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_how_many_are_enough_to_act_on_is_a_setting(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign(ready_min_count=4) as lifesign, agent(lifesign) as ours:
        await ours.send(*[ours.tool(failing=True) for _ in range(3)])
        three = await ours.diagnose()
        await ours.send(ours.tool(failing=True))
        four = await ours.diagnose()

    assert (three["status"], four["status"]) == ("observe_more", "ready_for_issue_diagnosis")


async def test_success_is_no_issue_unless_it_is_slow(lifesign: Lifesign) -> None:
    async with agent(lifesign) as ours:
        await ours.send(*[ours.tool() for _ in range(5)])
        quick = await ours.diagnose()
        await ours.send(*[ours.tool(seconds=3600) for _ in range(3)])
        slow = await ours.diagnose()

    assert (quick["failures"], quick["issues"]) == (0, [])
    assert slow["failures"] == 0
    assert [each["signal_type"] for each in slow["issues"]] == ["slow_operation"]


async def test_the_failure_of_a_child_is_told_once(lifesign: Lifesign) -> None:
    async with agent(lifesign) as ours:
        root = ours.span("invoke_agent clerk", failing=True, gen_ai__operation__name="invoke_agent")
        middle = ours.span("plan", parent=root, failing=True)
        leaf = ours.tool(parent=middle, failing=True)
        await ours.send(root, middle, leaf)
        packet = await ours.diagnose()

    assert packet["failures"] == 1
    assert [each["evidence_ids"] for each in packet["issues"]] == [[f"rec_{leaf['traceId']}{leaf['spanId']}"]]


async def test_a_failure_that_was_made_good_does_not_explain_that_of_the_root(lifesign: Lifesign) -> None:
    async with agent(lifesign) as ours:
        root = ours.span("invoke_agent clerk", failing=True, gen_ai__operation__name="invoke_agent")
        await ours.send(root, ours.tool(parent=root, failing=True), ours.tool(parent=root))
        packet = await ours.diagnose()

    assert packet["failures"] == 2


@pytest.mark.parametrize(
    ("arguments", "result", "expected"),
    [("same", "same", [("tool_loop on search", 6)]), (None, "same", []), ("same", "other", [])],
)
async def test_a_tool_that_is_called_with_equal_arguments_again_and_again_is_a_loop(
    lifesign: Lifesign, arguments: str | None, result: str, expected: list[tuple[str, int]]
) -> None:
    async with agent(lifesign) as ours:
        calls = [
            ours.tool(
                trace=7,
                gen_ai__tool__call__result=result if result == "same" else f"{result} {number}",
                **({} if arguments is None else {"gen_ai__tool__call__arguments": json.dumps({"q": arguments})}),
            )
            for number in range(6)
        ]
        await ours.send(*calls)
        packet = await ours.diagnose()

    assert [(each["title"], each["count"]) for each in packet["issues"]] == expected


async def test_repeated_failures_below_one_parent_are_a_pattern_of_their_issue(lifesign: Lifesign) -> None:
    async with agent(lifesign) as ours:
        root = ours.span("invoke_agent clerk", gen_ai__operation__name="invoke_agent")
        await ours.send(root, *[ours.tool(parent=root, failing=True) for _ in range(3)])
        packet = await ours.diagnose()

    [issue] = packet["issues"]
    assert (issue["title"], issue["patterns"]) == ("tool_call_failed on search", ["retry_storm"])


@pytest.mark.parametrize(("sessions", "ended", "severity"), [(12, 4, "critical"), (12, 2, "high"), (2, 1, "medium")])
async def test_severity_is_how_many_sessions_end_by_it(
    lifesign: Lifesign, sessions: int, ended: int, severity: str
) -> None:
    async with agent(lifesign) as ours:
        spans: list[Json] = []
        for number in range(sessions):
            is_ended = number < ended
            name = f"s{number}"
            root = ours.span(
                "invoke_agent clerk", failing=is_ended, session=name, gen_ai__operation__name="invoke_agent"
            )
            spans += [root, ours.tool(parent=root, failing=is_ended or number < 2, session=name)]
        await ours.send(*spans)
        packet = await ours.diagnose()

    assert packet["sessions"] == sessions
    assert [each["severity"] for each in packet["issues"]] == [severity]


async def test_messages_that_differ_by_chance_are_one_and_so_are_types_of_one_name(lifesign: Lifesign) -> None:
    async with agent(lifesign) as ours:
        await ours.send(
            ours.tool(failing=True, error="a.b.Timeout", message="order 17 of 2026-01-05T10:00:00Z failed after 12 ms"),
            ours.tool(failing=True, error="Timeout", message="order 4711 of 2026-01-06T11:22:33Z failed after 3 ms"),
            ours.tool(failing=True, error="ValueError", message="no"),
        )
        packet = await ours.diagnose()

    assert [(each["error_type"], each["count"]) for each in packet["issues"]] == [("Timeout", 2), ("ValueError", 1)]
    assert packet["issues"][0]["messages"] == [{"text": "order <n> of <date> failed after <dur>", "count": 2}]


async def test_fifty_failures_have_twenty_records_and_ten_traces_of_evidence(lifesign: Lifesign) -> None:
    async with agent(lifesign) as ours, agent(lifesign) as other:
        failing = [ours.tool(failing=True) for _ in range(50)]
        await ours.send(*failing)
        [issue] = (await ours.diagnose())["issues"]
        ids = ",".join(issue["evidence_ids"])
        mine = (await ours.told("GET", f"/v1/telemetry?ids={ids}"))["records"]
        theirs = (await other.told("GET", f"/v1/telemetry?ids={ids}"))["records"]

    sent = [f"rec_{each['traceId']}{each['spanId']}" for each in failing]
    assert (issue["count"], len(issue["traces"])) == (50, 10)
    assert (issue["evidence_ids"][0], issue["evidence_ids"][-1]) == (sent[0], sent[-1])
    assert issue["evidence_ids"] == [each for each in sent if each in issue["evidence_ids"]]
    assert [each["record_id"] for each in mine] == issue["evidence_ids"]
    assert (len(mine), theirs) == (20, [])


async def test_what_is_odd_about_the_data_is_a_notice_and_no_issue(lifesign: Lifesign) -> None:
    async with agent(lifesign) as ours:
        orphan = ours.tool()
        orphan["parentSpanId"] = "f" * 16
        skewed = ours.tool()
        skewed["endTimeUnixNano"] = str(int(skewed["startTimeUnixNano"]) - 1)
        await ours.send(orphan, skewed, ours.tool(session="s"))
        packet = await ours.diagnose()

    assert (packet["status"], packet["issues"]) == ("observe_more", [])
    assert {each["code"]: each["count"] for each in packet["notices"]} == {
        "baseline_incomplete": 1,
        "clock_skew": 1,
        "no_session_id": 2,
        "orphan_parents": 1,
    }


# What is asked ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("content", [b"", b"  ", b"{}", b'{"since_minutes":60}', b'{"since_minutes":null}'])
async def test_the_last_hour_is_what_is_diagnosed_when_nothing_is_said(lifesign: Lifesign, content: bytes) -> None:
    async with agent(lifesign) as ours:
        answer = await ours.ours.http.post(
            DIAGNOSE, content=content, headers={"Authorization": f"Bearer {ours.ours.agent_key}"}
        )

    window = answer.json()["packet"]["window"]
    assert parse_timestamp(window["until"]) - parse_timestamp(window["since"]) == HOUR_S * 1000


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        ({"since_minutes": 0}, "invalid_parameter", "since_minutes must be an integer from 1 to 43200"),
        ({"since_minutes": 43_201}, "invalid_parameter", "since_minutes must be an integer from 1 to 43200"),
        ({"since_minutes": "x"}, "invalid_parameter", "since_minutes must be an integer from 1 to 43200"),
        ({"since_minutes": 1.5}, "invalid_parameter", "since_minutes must be an integer from 1 to 43200"),
        ({"since_minutes": True}, "invalid_parameter", "since_minutes must be an integer from 1 to 43200"),
        ({"until": 7}, "invalid_parameter", "until must be an RFC 3339 time"),
        ({"until": "2026-01-05"}, "invalid_parameter", "until must be an RFC 3339 time"),
        ({"until": "2026-01-05T12:00:01Z"}, "invalid_parameter", "until must not be in the future"),
        ({"until": "0001-01-01T01:59:59.999Z"}, "invalid_parameter", "until must leave room for two windows since"),
        ({"until": "0001-03-01T23:59:59Z", "since_minutes": 43_200}, "invalid_parameter", "until must leave room"),
        ({"until": "2016-12-31T23:59:60Z"}, "invalid_parameter", "until is not a date that exists"),
        ({"environment": 7}, "invalid_parameter", "environment must be a text"),
        ({"environment": ""}, "invalid_parameter", "environment must not be empty"),
        ({"environment": "x" * 257}, "invalid_parameter", "environment must be at most 256 characters long"),
        ([], "invalid_json", "The body must be a JSON object"),
    ],
)
async def test_what_cannot_be_asked_is_named(lifesign: Lifesign, body: object, code: str, words: str) -> None:
    async with agent(lifesign) as ours:
        status, error, message = await ours.refused("POST", DIAGNOSE, body)

    assert (status, error) == (400, code)
    assert message.startswith(words)


@pytest.mark.parametrize(
    ("body", "window"),
    [
        ({"until": "0001-01-01t02:00:00z"}, ("0001-01-01T01:00:00.000Z", "0001-01-01T02:00:00.000Z")),
        ({"until": "2026-01-05T12:00:00.001Z"}, ("2026-01-05T11:00:00.001Z", "2026-01-05T12:00:00.001Z")),
        ({"until": "2026-01-06T11:59:00+23:59"}, ("2026-01-05T11:00:00.000Z", "2026-01-05T12:00:00.000Z")),
    ],
    ids=["the first there is", "the last there is", "of another zone"],
)
async def test_a_window_ends_when_it_is_told(
    lifesign: Lifesign, body: dict[str, object], window: tuple[str, str]
) -> None:
    async with agent(lifesign) as ours:
        told = (await ours.diagnose(**body))["window"]

    assert (told["since"], told["until"]) == window


async def test_half_a_body_is_no_json(lifesign: Lifesign) -> None:
    async with agent(lifesign) as ours:
        answer = await ours.ours.http.post(
            DIAGNOSE, content=b"[", headers={"Authorization": f"Bearer {ours.ours.agent_key}"}
        )

    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_json")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", DIAGNOSE),
        ("POST", "/v1/runs/verify"),
        ("GET", "/v1/runs"),
        ("GET", "/v1/runs/pkt_0"),
        ("GET", "/v1/issues"),
    ],
)
async def test_a_producer_key_diagnoses_nothing(lifesign: Lifesign, method: str, path: str) -> None:
    async with agent(lifesign) as ours:
        answer = await ours.ask(method, path, {} if method == "POST" else None, key=ours.ours.producer_key)

    assert (answer.status_code, answer.json()["error"]) == (401, "wrong_key_kind")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_to_diagnose_and_to_read_are_allowed_apart(lifesign: Lifesign) -> None:
    calls = [
        ("POST", DIAGNOSE, 200),
        ("POST", "/v1/runs/verify", 400),
        ("GET", "/v1/runs", 200),
        ("GET", "/v1/runs/pkt_0", 404),
        ("GET", "/v1/issues", 200),
    ]
    told: dict[str, list[int]] = {}
    for scope in ("runs:write", "reports:read"):
        key = (await lifesign.ask("POST", "/v1/keys", {"name": scope, "scopes": [scope]}, expect=201))["token"]
        async with lifesign.client(key) as client:
            answers = [
                await client.request(method, path, json={} if method == "POST" else None) for method, path, _ in calls
            ]
        told[scope] = [each.status_code for each in answers]

    allowed = [status for *_, status in calls]
    assert told == {"runs:write": [*allowed[:2], 401, 401, 401], "reports:read": [401, 401, *allowed[2:]]}


async def test_arrival_counts_and_not_what_a_span_says_of_its_time(lifesign: Lifesign) -> None:
    last_year_ns = START_NS - 365 * 86_400 * 1_000_000_000
    async with agent(lifesign) as ours:
        await ours.send(ours.tool("early", failing=True, start_ns=START_NS + 2 * HOUR_S * 1_000_000_000))
        await lifesign.advance(2 * HOUR_S)
        await ours.send(ours.tool("late", failing=True, start_ns=last_year_ns))
        titles = await ours.titles()

    assert titles == ["tool_call_failed on late"]


async def test_only_one_environment_is_diagnosed_when_it_is_named(lifesign: Lifesign) -> None:
    async with agent(lifesign) as ours:
        await ours.send(
            ours.tool("search", failing=True, deployment__environment="prod"),
            ours.tool("fetch", failing=True, deployment__environment="staging"),
        )
        prod = await ours.diagnose(environment="prod")
        nowhere = await ours.diagnose(environment="nowhere")

    assert [each["title"] for each in prod["issues"]] == ["tool_call_failed on search"]
    assert (prod["telemetry_read"], prod["environment"], nowhere["telemetry_read"]) == (1, "prod", 0)


# The same again -----------------------------------------------------------------------------------------------------
async def test_a_window_that_is_diagnosed_again_says_the_same(lifesign: Lifesign) -> None:
    async with agent(lifesign) as ours:
        await ours.send(*[ours.tool(failing=True) for _ in range(3)], ours.tool("fetch", failing=True))
        first = await ours.diagnose()
        await lifesign.advance(1)
        second = await ours.diagnose(until=first["window"]["until"])

    assert determined(first) == determined(second)
    assert first["packet_id"] != second["packet_id"]


async def test_the_order_of_arrival_changes_nothing(lifesign: Lifesign) -> None:
    chance = random.Random(7)
    async with agent(lifesign) as ours, agent(lifesign) as other:
        spans = [ours.tool(chance.choice(["a", "b"]), failing=chance.random() < 0.4, trace=n // 4) for n in range(60)]
        await ours.send(*spans)
        shuffled = chance.sample(spans, len(spans))
        for start in range(0, len(shuffled), 7):
            await other.send(*shuffled[start : start + 7])
        first, second = await ours.diagnose(), await other.diagnose()

    assert len(first["issues"]) >= 2
    assert determined(first) == determined(second)


async def test_a_baseline_is_complete_when_all_of_it_is_there_still(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign(telemetry_retention_days=1) as lifesign, agent(lifesign) as ours:
        await lifesign.advance(3 * HOUR_S)
        whole = await ours.diagnose()
        await lifesign.advance(24 * HOUR_S)
        # What arrived then is gone by now, whichever window is asked for.
        gone = await ours.diagnose(until=whole["window"]["until"])

    assert (whole["baseline"]["complete"], whole["notices"]) == (True, [])
    assert (gone["baseline"]["complete"], [each["code"] for each in gone["notices"]]) == (
        False,
        ["baseline_incomplete"],
    )


async def test_what_was_there_in_the_window_before_is_ongoing(lifesign: Lifesign) -> None:
    async with agent(lifesign) as ours:
        await ours.send(ours.tool("old", failing=True))
        await lifesign.advance(1.5 * HOUR_S)
        await ours.send(ours.tool("old", failing=True), ours.tool("fresh", failing=True))
        packet = await ours.diagnose()

    assert {each["operation"]: (each["state"], each["baseline_count"]) for each in packet["issues"]} == {
        "old": ("ongoing", 1),
        "fresh": ("new", 0),
    }


@pytest.mark.parametrize(("failing", "expected"), [(30, ["error_rate_regression"]), (4, [])])
async def test_more_failures_than_before_are_a_regression_beyond_chance(
    lifesign: Lifesign, failing: int, expected: list[str]
) -> None:
    async with agent(lifesign) as ours:
        await ours.send(*[ours.tool(failing=number < 2) for number in range(100)])
        await lifesign.advance(1.5 * HOUR_S)
        await ours.send(*[ours.tool(failing=number < failing) for number in range(100)])
        packet = await ours.diagnose()

    [issue] = packet["issues"]
    assert issue["patterns"] == expected


# Packets ------------------------------------------------------------------------------------------------------------
async def test_a_packet_is_read_as_it_was_first_answered(lifesign: Lifesign) -> None:
    async with agent(lifesign) as ours, agent(lifesign) as other:
        await ours.send(*[ours.tool(failing=True, message='"größe" <b>&') for _ in range(3)])
        first = await ours.ask("POST", DIAGNOSE)
        packet_id = first.json()["packet"]["packet_id"]
        again = await ours.ask("GET", f"/v1/runs/{packet_id}")
        foreign = await other.refused("GET", f"/v1/runs/{packet_id}")
        unknown = await other.refused("GET", "/v1/runs/pkt_0")

    assert again.content == first.content
    assert foreign == unknown == (404, "packet_not_found", "Packet not found")


async def test_packets_are_listed_without_their_issues_page_by_page(lifesign: Lifesign) -> None:
    async with agent(lifesign) as ours, agent(lifesign) as other:
        await ours.send(*[ours.tool(failing=True) for _ in range(3)])
        made = []
        for _ in range(5):
            made.append((await ours.diagnose())["packet_id"])
            await lifesign.advance(1)
        pages: list[list[str]] = []
        cursor: str | None = ""
        while cursor is not None:
            page = await ours.told("GET", f"/v1/runs?limit=2{cursor and f'&cursor={cursor}'}")
            pages.append([each["packet_id"] for each in page["runs"]])
            cursor = page["next_cursor"]
            assert all("issues" not in each and each["issue_count"] == 1 for each in page["runs"])
        foreign = (await other.told("GET", "/v1/runs"))["runs"]
        bad = [await ours.refused("GET", f"/v1/runs?{each}") for each in ("limit=0", "limit=201", "cursor=x")]

    newest = made[::-1]
    assert pages == [newest[:2], newest[2:4], newest[4:]]
    assert foreign == []
    assert [each[1] for each in bad] == ["invalid_parameter", "invalid_parameter", "invalid_cursor"]


async def test_packets_are_kept_for_a_while(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign(packet_retention_days=1) as lifesign, agent(lifesign) as ours:
        old = (await ours.diagnose())["packet_id"]
        await lifesign.advance(23 * HOUR_S)
        young = (await ours.diagnose())["packet_id"]
        await lifesign.advance(2 * HOUR_S)
        listed = [each["packet_id"] for each in (await ours.told("GET", "/v1/runs"))["runs"]]

    assert old != young
    assert listed == [young]


async def test_more_records_than_are_read_are_told(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign(diagnose_max_records=10) as lifesign, agent(lifesign) as ours:
        await ours.send(*[ours.tool("old", failing=True) for _ in range(5)])
        await lifesign.advance(60)
        await ours.send(*[ours.tool("new", failing=True) for _ in range(10)])
        packet = await ours.diagnose()

    assert (packet["telemetry_read"], packet["truncated"]) == (10, True)
    assert packet["effective_since"] == "2026-01-05T12:01:00.000Z"
    assert [each["title"] for each in packet["issues"]] == ["tool_call_failed on new"]
    assert {"code": "window_truncated", "count": 5} in [
        {"code": each["code"], "count": each["count"]} for each in packet["notices"]
    ]


async def test_the_overviews_tell_of_the_latest_packet(lifesign: Lifesign) -> None:
    async with agent(lifesign) as ours:
        never = (await ours.ask("GET", "/v1/reports/latest.md")).text
        await ours.send(*[ours.tool("a|b", failing=True) for _ in range(3)], ours.tool("fetch", failing=True))
        await ours.diagnose(environment="nowhere")
        await lifesign.advance(1)
        packet = await ours.diagnose()
        dashboard = await ours.told("GET", "/v1/dashboard")
        report = (await ours.ask("GET", "/v1/reports/latest.md")).text

    assert "No diagnosis has been run yet." in never
    assert f"{dashboard['links']['diagnose']}" in never
    assert dashboard["top_issues"] == packet["issues"]
    assert dashboard["latest_packet"] == {
        "packet_id": packet["packet_id"],
        "status": "ready_for_issue_diagnosis",
        "created_at": packet["created_at"],
        "since_minutes": 60,
        "telemetry_read": 4,
        "failures": 4,
        "issues": 2,
    }
    assert f"- Packet: {packet['packet_id'].replace('_', chr(92) + '_')}\n" in report
    assert "- Records: 4\n- Failures: 4\n- Sessions: 4\n" in report
    assert "- Status: ready\\_for\\_issue\\_diagnosis\n" in report
    assert [report.count(f"| {each['severity']} | ") for each in packet["issues"]] == [1, 1]
    assert "| medium | tool\\_call\\_failed on a\\|b | 3 | new | Reproduce a\\|b" in report
    assert all(f"- `{each}`" in report for issue in packet["issues"] for each in issue["evidence_ids"])
    assert report.endswith("\nExternal writes need human approval.\n")


async def test_a_packet_of_a_clock_that_was_ahead_is_not_the_latest_for_years(lifesign: Lifesign) -> None:
    async with agent(lifesign) as ours:
        years = 1000 * 24 * HOUR_S * 1000
        lifesign.clock.set(EpochMs(lifesign.now() + years))
        await ours.send(ours.tool(failing=True))
        ahead = await ours.diagnose()
        lifesign.clock.set(EpochMs(lifesign.now() - years))
        await ours.send(*[ours.tool(failing=True) for _ in range(3)])
        packet = await ours.diagnose()
        dashboard = await ours.told("GET", "/v1/dashboard")
        report = (await ours.ask("GET", "/v1/reports/latest.md")).text
        [entry] = (await ours.told("GET", "/v1/issues"))["issues"]
        await lifesign.advance(60)
        verified = await ours.told("POST", "/v1/runs/verify", {"fingerprints": [entry["fingerprint"]]})

    assert ahead["issues"][0]["fingerprint"] == packet["issues"][0]["fingerprint"]
    assert dashboard["latest_packet"]["packet_id"] == packet["packet_id"]
    assert dashboard["top_issues"] == packet["issues"]
    assert "- Failures: 3\n" in report
    assert (entry["last_packet_id"], entry["count"], entry["last_seen"]) == (
        packet["packet_id"],
        3,
        "2026-01-05T12:00:00.000Z",
    )
    assert verified["packet_id"] == packet["packet_id"]


# Several at once ----------------------------------------------------------------------------------------------------
async def test_diagnoses_of_one_project_wait_for_each_other(lifesign: Lifesign) -> None:
    async with agent(lifesign) as ours:
        await ours.send(*[ours.tool(failing=True) for _ in range(3)])
        packets = await asyncio.gather(*[ours.diagnose() for _ in range(8)])
        listed = (await ours.told("GET", "/v1/runs"))["runs"]

    assert len({each["packet_id"] for each in packets}) == len(listed) == 8
    assert len({determined(each) for each in packets}) == 1


async def is_there() -> None:
    """Somebody who waits for an answer to the end."""


@pytest.mark.parametrize("path", [DIAGNOSE, "/v1/runs/verify"])
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_whoever_leaves_while_they_wait_keeps_nobody_waiting(lifesign: Lifesign, path: str) -> None:
    read, left = asyncio.Event(), asyncio.Event()
    async with agent(lifesign) as ours:
        packet = await found_once(ours)
        await lifesign.advance(60)
        body = {} if path == DIAGNOSE else {"packet_id": packet["packet_id"]}
        coming: list[Json] = [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}]

        async def receive() -> Json:
            if coming:
                read.set()
                return coming.pop()
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(_message: object) -> None:
            pass

        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(b"authorization", f"Bearer {ours.ours.agent_key}".encode())],
            "scheme": "http",
            "http_version": "1.1",
            "client": None,
            "server": None,
        }
        async with lifesign.node.api.state.diagnoses.turn(ours.ours.project_id, is_there):
            waiting = asyncio.ensure_future(lifesign.node.app(scope, receive, send))
            await read.wait()
            left.set()
        await waiting
        listed = (await ours.told("GET", "/v1/runs"))["runs"]
        [entry] = (await ours.told("GET", "/v1/issues"))["issues"]
        after = await ours.diagnose()

    assert [each["packet_id"] for each in listed] == [packet["packet_id"]]
    # A verification would say that silence proves nothing yet.
    assert entry["state"] == "new"
    assert after["failures"] == 1


async def found_once(of: Agent) -> Json:
    """A packet of one failure."""
    await of.send(of.tool(failing=True))
    return await of.diagnose()


async def test_whoever_waits_too_long_is_told_to_come_again(lifesign: Lifesign, monkeypatch: Any) -> None:
    monkeypatch.setattr("lifesign.diagnosis.service.WAIT_S", 0.01)
    async with agent(lifesign) as ours:
        async with lifesign.node.api.state.diagnoses.turn(ours.ours.project_id, is_there):
            answer = await ours.ask("POST", DIAGNOSE)
        after = await ours.ask("POST", DIAGNOSE)

    assert (answer.status_code, answer.json()["error"], answer.headers["retry-after"]) == (503, "busy", "5")
    assert after.status_code == 200


async def test_a_diagnosis_that_takes_too_long_is_given_up(lifesign: Lifesign, monkeypatch: Any) -> None:
    async with agent(lifesign) as ours:
        await ours.send(*[ours.tool(failing=True) for _ in range(3)])
        with monkeypatch.context() as patched:
            patched.setattr("lifesign.diagnosis.service.LIMIT_S", 0)
            answer = await ours.ask("POST", DIAGNOSE)
        listed = (await ours.told("GET", "/v1/runs"))["runs"]
        after = await ours.diagnose()

    assert (answer.status_code, answer.json()["error"]) == (503, "diagnosis_timeout")
    assert (listed, after["failures"]) == ([], 3)


# Hostile data -------------------------------------------------------------------------------------------------------
HOSTILE = [
    "",
    "<script>alert(1)</script>",
    "| a | b |\n# head",
    "\x1b[2J\x1b[1;31mred",
    "\u202etxt.exe",
    "{0.__class__}{evidence}%s",
    "'; DROP TABLE packets; --",
    "a0" * 16_384,
    "../../etc/passwd",
]


@pytest.mark.parametrize("text", HOSTILE)
async def test_text_of_spans_stays_text(lifesign: Lifesign, text: str) -> None:
    async with agent(lifesign) as ours:
        await ours.send(
            *[
                ours.tool(
                    text, failing=True, error=text, message=text, gen_ai__agent__name=text, deployment__environment=text
                )
                for _ in range(6)
            ]
        )
        packet = await ours.diagnose()
        report = (await ours.ask("GET", "/v1/reports/latest.md")).text
        ledger = (await ours.told("GET", "/v1/issues"))["issues"]

    assert packet["failures"] == 6
    told = json.dumps(packet["issues"], ensure_ascii=False)
    assert not {each for each in told if ord(each) < 32 or each == "\u202e"}
    assert "<script" not in report
    assert "\x1b" not in report
    assert len(ledger) == len(packet["issues"]) == 1
