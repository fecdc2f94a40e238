"""What was sent is read back: records, sessions, the dashboard, the report. Spec "Telemetry", sections 6 and 11."""

import base64
import html
import json
import re
from collections.abc import Sequence
from typing import Any, cast
from urllib.parse import quote

import httpx2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lifesign.diagnosis.report import LONGEST, escaped
from tests.harness import Json, Lifesign
from tests.telemetry.requests import TRACE, USUAL
from tests.telemetry.senders import Sender, sender, spans

MINUTE_S = 60
OTHER_TRACE = "0af7651916cd43dd8448eb211c80319c"


def attributes(**values: str | int) -> list[Json]:
    """Attributes of a span; `__` stands for a dot."""
    return [
        {
            "key": name.replace("__", "."),
            "value": {"stringValue": value} if isinstance(value, str) else {"intValue": str(value)},
        }
        for name, value in values.items()
    ]


async def asked(of: Sender, path: str, key: str | None = None) -> httpx2.Response:
    return await of.http.get(path, headers={"Authorization": f"Bearer {key or of.agent_key}"})


async def read(of: Sender, path: str) -> Json:
    answer = await asked(of, path)
    assert answer.status_code == 200, answer.text
    body = cast("Json", answer.json())
    assert body["ok"] is True
    return body


async def refused(of: Sender, path: str) -> tuple[int, str, str]:
    answer = await asked(of, path)
    body = answer.json()
    assert body["ok"] is False
    return answer.status_code, body["error"], body["message"]


async def numbers(of: Sender, path: str) -> list[int]:
    """The numbers of the spans on a page."""
    return [int(each["span_id"], 16) for each in (await read(of, path))["records"]]


# Records ------------------------------------------------------------------------------------------------------------
async def test_a_record_is_read_with_every_field(lifesign: Lifesign) -> None:
    async with sender(lifesign) as ours:
        await ours.told(
            USUAL | {"endTimeUnixNano": "1500000", "attributes": attributes(gen_ai__request__model="gpt-5")}
        )

        body = await read(ours, "/v1/telemetry")

    [record] = body["records"]
    assert body["project_id"] == ours.project_id
    assert body["window"] == {
        "since": "2026-01-05T11:00:00.000Z",
        "until": "2026-01-05T12:00:00.001Z",
        "basis": "received_at",
    }
    assert (body["count"], body["next_cursor"]) == (1, None)
    assert body["ingest"] == {"pending_records": 0, "last_received_at": "2026-01-05T12:00:00.000Z"}
    assert record["record_id"] == f"rec_{TRACE}eee19b7ec3c1b174"
    assert (record["session_id"], record["model"], record["parent_span_id"]) == (TRACE, "gpt-5", None)
    assert (record["start_ns"], record["duration_ms"]) == ("1000", 1.499)


async def test_the_end_before_the_start_is_told_and_not_counted(lifesign: Lifesign) -> None:
    async with sender(lifesign) as ours:
        await ours.told(USUAL | {"startTimeUnixNano": 1767614400000000001, "endTimeUnixNano": "1767614400000000000"})
        [record] = (await read(ours, "/v1/telemetry"))["records"]

    assert (record["duration_ms"], record["clock_skew"]) == (0, True)
    assert (record["start_ns"], record["end_ns"]) == ("1767614400000000001", "1767614400000000000")


async def test_the_newest_arrival_comes_first_and_pages_miss_nothing(lifesign: Lifesign) -> None:
    async with sender(lifesign) as ours:
        for number in range(1, 6):
            await ours.told(*spans(1, first=number))
            await lifesign.advance(1)
        assert await numbers(ours, "/v1/telemetry") == [5, 4, 3, 2, 1]

        first = await read(ours, "/v1/telemetry?limit=2")
        await ours.told(*spans(1, first=6))
        second = await read(ours, f"/v1/telemetry?limit=2&cursor={first['next_cursor']}")
        third = await read(ours, f"/v1/telemetry?limit=2&cursor={second['next_cursor']}")

    pages = [[int(each["span_id"], 16) for each in page["records"]] for page in (first, second, third)]
    assert pages == [[5, 4], [3, 2], [1]]
    assert third["next_cursor"] is None


async def test_the_window_is_of_arrivals(lifesign: Lifesign) -> None:
    async with sender(lifesign) as ours:
        await ours.told(*spans(1))
        await lifesign.advance(10 * MINUTE_S)
        await ours.told(*spans(1, first=2))

        assert await numbers(ours, "/v1/telemetry?since_minutes=9") == [2]
        assert await numbers(ours, "/v1/telemetry?since_minutes=10") == [2, 1]


async def test_records_are_chosen_by_what_they_say(lifesign: Lifesign) -> None:
    async with sender(lifesign) as ours:
        await ours.told(
            USUAL | {"spanId": f"{1:016x}", "attributes": attributes(environment="prod", session__id="s/1 ü")},
            USUAL | {"spanId": f"{2:016x}", "traceId": OTHER_TRACE, "status": {"code": 2}},
        )

        assert await numbers(ours, "/v1/telemetry?environment=prod") == [1]
        assert await numbers(ours, "/v1/telemetry?environment=nowhere") == []
        assert await numbers(ours, "/v1/telemetry?environment=%00") == []
        assert await numbers(ours, "/v1/telemetry?session_id=s/1%20%C3%BC") == [1]
        assert await numbers(ours, f"/v1/telemetry?trace_id={OTHER_TRACE.upper()}") == [2]
        assert await numbers(ours, "/v1/telemetry?trace_id=nonsense") == []
        assert await numbers(ours, "/v1/telemetry?signal_type=error") == [2]
        assert await refused(ours, "/v1/telemetry?signal_type=bad") == (
            400,
            "invalid_parameter",
            "signal_type must be one of tool_call_failed, error, user_signal, slow_operation, info",
        )


async def test_records_are_found_by_id_however_old(lifesign: Lifesign) -> None:
    async with sender(lifesign) as ours, sender(lifesign) as theirs:
        await ours.told(*spans(3))
        await lifesign.advance(120 * MINUTE_S)
        ids = ",".join(f"rec_{TRACE}{number:016x}" for number in (3, 1, 9))

        assert await numbers(ours, f"/v1/telemetry?ids={ids}&limit=1") == [3, 1]
        assert await numbers(theirs, f"/v1/telemetry?ids={ids}") == []
        rule = "ids must be 1 to 100 record ids, separated by commas"
        for wrong in ("", ",", ",".join(["rec_1"] * 101)):
            assert await refused(ours, f"/v1/telemetry?ids={wrong}") == (400, "invalid_parameter", rule)


_LIMITS = [("/v1/telemetry", 1000), ("/v1/sessions", 500), (f"/v1/sessions/{TRACE}", 5000)]


@pytest.mark.parametrize(("path", "most"), _LIMITS)
async def test_numbers_out_of_range_are_refused_by_name(lifesign: Lifesign, path: str, most: int) -> None:
    async with sender(lifesign) as ours:
        await ours.told(*spans(2))
        for wrong in ("0", str(most + 1), "x", "1.5", "", "-1", "+1", "9" * 50, "%C2%B2"):
            told = f"limit must be an integer from 1 to {most}"
            assert await refused(ours, f"{path}?limit={wrong}") == (400, "invalid_parameter", told)
            told = "since_minutes must be an integer from 1 to 43200"
            if wrong != str(most + 1):
                assert await refused(ours, f"{path}?since_minutes={wrong}") == (400, "invalid_parameter", told)
        assert (await read(ours, f"{path}?limit={most}&since_minutes=43200"))["next_cursor"] is None


async def test_a_cursor_is_good_for_its_list_and_its_project_only(lifesign: Lifesign) -> None:
    async with sender(lifesign) as ours, sender(lifesign) as theirs:
        for of in (ours, theirs):
            await of.told(*spans(3))
            await of.told(*(each | {"traceId": OTHER_TRACE} for each in spans(3)))
        paths = ["/v1/telemetry", "/v1/sessions", f"/v1/sessions/{TRACE}"]
        cursors = {path: (await read(ours, f"{path}?limit=1"))["next_cursor"] for path in paths}

        for path in paths:
            for other, cursor in cursors.items():
                answer = await asked(ours, f"{path}?cursor={cursor}")
                assert answer.status_code == (200 if other == path else 400), (path, other)
            for wrong in (cursors[path][:-3], "", "x", "%00", "%C3%BC", "W10", "A" * 5000):
                assert (await refused(ours, f"{path}?cursor={wrong}"))[:2] == (400, "invalid_cursor")
            assert (await refused(theirs, f"{path}?cursor={cursors[path]}"))[:2] == (400, "invalid_cursor")
            for place in ([True, "x"], [1.5, "x"], [2**63, "x"], [0], [0, None], [0, "x", "x"], [0, "\x00"]):
                wrong = altered(cursors[path], place)
                assert (await refused(ours, f"{path}?cursor={wrong}"))[:2] == (400, "invalid_cursor"), place


def altered(cursor: str, place: Sequence[object]) -> str:
    """The cursor of the same list and project with another place."""
    told = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    return base64.urlsafe_b64encode(json.dumps([*told[:2], *place]).encode()).decode()


async def test_a_cursor_of_a_session_is_good_for_that_session_only(lifesign: Lifesign) -> None:
    names = ["s 1/\u00fc", "s 2", "\u00fc" * 255]
    async with sender(lifesign) as ours:
        for first, name in enumerate(names):
            await ours.told(*spans(3, first=10 * first + 1, attributes=attributes(session__id=name)))
        paths = [f"/v1/sessions/{quote(name)}" for name in names]
        cursors = [(await read(ours, f"{path}?limit=1"))["next_cursor"] for path in paths]

        told = [[(await asked(ours, f"{path}?cursor={cursor}")).status_code for cursor in cursors] for path in paths]
        assert (await refused(ours, f"{paths[0]}?cursor={cursors[1]}"))[:2] == (400, "invalid_cursor")
        assert await numbers(ours, f"{paths[2]}?cursor={cursors[2]}") == [22, 23]

    assert told == [[200, 400, 400], [400, 200, 400], [400, 400, 200]]


# Sessions -----------------------------------------------------------------------------------------------------------
async def test_the_last_active_session_comes_first(lifesign: Lifesign) -> None:
    async with sender(lifesign) as ours:
        for number in range(60):
            span = USUAL | {"traceId": f"{number + 1:032x}", "attributes": attributes(session__id=f"s-{number:02}")}
            await ours.told(span)
            await lifesign.advance(1)

        listed = await read(ours, "/v1/sessions")
        one = await read(ours, "/v1/sessions?limit=1")
        rest = await read(ours, f"/v1/sessions?cursor={listed['next_cursor']}")
        everything = await read(ours, "/v1/sessions?limit=500")

    names = [each["session_id"] for each in listed["sessions"]]
    assert names == [f"s-{number:02}" for number in range(59, 9, -1)]
    assert [each["session_id"] for each in one["sessions"]] == ["s-59"]
    assert [each["session_id"] for each in rest["sessions"]] == [f"s-{number:02}" for number in range(9, -1, -1)]
    assert (everything["count"], everything["next_cursor"]) == (60, None)


async def test_a_limit_cuts_sessions_and_not_their_records(lifesign: Lifesign) -> None:
    async with sender(lifesign) as ours:
        await ours.told(*spans(700))

        [session] = (await read(ours, "/v1/sessions?limit=1"))["sessions"]

    assert (session["session_id"], session["turns"], session["traces"]) == (TRACE, 700, 1)


async def test_a_root_that_comes_late_takes_its_children_along(lifesign: Lifesign) -> None:
    async with sender(lifesign) as ours:
        await ours.told(*spans(2, first=2, parentSpanId=f"{1:016x}"))
        assert [each["session_id"] for each in (await read(ours, "/v1/sessions"))["sessions"]] == [TRACE]

        await ours.told(*spans(1, attributes=attributes(session__id="s-1")))

        [session] = (await read(ours, "/v1/sessions"))["sessions"]
        assert (session["session_id"], session["turns"]) == ("s-1", 3)
        assert {each["session_id"] for each in (await read(ours, "/v1/telemetry"))["records"]} == {"s-1"}


async def test_sessions_of_an_environment(lifesign: Lifesign) -> None:
    async with sender(lifesign) as ours:
        await ours.told(USUAL | {"attributes": attributes(environment="prod", session__id="a")})
        await ours.told(USUAL | {"traceId": OTHER_TRACE, "attributes": attributes(environment="dev", session__id="b")})

        for environment, expected in (("prod", ["a"]), ("dev", ["b"]), ("pro", []), ("", [])):
            listed = await read(ours, f"/v1/sessions?environment={environment}")
            assert [each["session_id"] for each in listed["sessions"]] == expected


async def test_a_session_is_found_by_its_id_another_id_and_its_traces(lifesign: Lifesign) -> None:
    async with sender(lifesign) as ours:
        told = attributes(gen_ai__conversation__id="talk/1 ü", session__id="other", input_tokens=7)
        await ours.told(*spans(1, attributes=told), *spans(2, first=2, parentSpanId=f"{1:016x}"))
        await ours.told(*spans(1, first=9, traceId=OTHER_TRACE, attributes=told))

        found = {
            ref: await read(ours, f"/v1/sessions/{ref}")
            for ref in ("talk/1%20%C3%BC", "talk%2F1%20%C3%BC", "other", TRACE, TRACE.upper())
        }

    shapes = {ref: (body["scope"], body["session"]["turns"], len(body["records"])) for ref, body in found.items()}
    assert shapes == {
        "talk/1%20%C3%BC": ("session", 4, 4),
        "talk%2F1%20%C3%BC": ("session", 4, 4),
        "other": ("session", 4, 4),
        TRACE: ("trace", 3, 3),
        TRACE.upper(): ("trace", 3, 3),
    }
    assert {body["session"]["session_id"] for body in found.values()} == {"talk/1 ü"}


@pytest.mark.parametrize("sent", ["s" * 500, " talk ", "a\nb\n", "x\x00y", "a%2Fb", "/", "😀?#+%"])
async def test_a_session_is_found_by_its_id_as_it_was_sent_and_as_it_is_stored(lifesign: Lifesign, sent: str) -> None:
    async with sender(lifesign) as ours:
        await ours.told(USUAL | {"attributes": attributes(session__id=sent)})
        stored = (await read(ours, "/v1/telemetry"))["records"][0]["session_id"]

        for ref in (quote(sent, safe=""), quote(stored, safe=""), quote(stored)):
            assert (await read(ours, f"/v1/sessions/{ref}"))["session"]["session_id"] == stored
            assert (await read(ours, f"/v1/telemetry?session_id={ref}"))["count"] == 1


async def test_a_trace_that_nobody_named_is_a_session(lifesign: Lifesign) -> None:
    async with sender(lifesign) as ours:
        await ours.told(*spans(1))

        for ref in (TRACE, TRACE.upper()):
            body = await read(ours, f"/v1/sessions/{ref}")
            assert (body["scope"], body["session"]["session_id"]) == ("session", TRACE)


async def test_records_of_a_session_go_by_start_page_by_page(lifesign: Lifesign) -> None:
    async with sender(lifesign) as ours:
        starts = [5, 3, 3, 1, 4]
        await ours.told(*(spans(1, first=number, startTimeUnixNano=str(at))[0] for number, at in enumerate(starts, 1)))
        seen: list[int] = []
        cursor = ""
        while True:
            page = await read(ours, f"/v1/sessions/{TRACE}?limit=2{cursor}")
            assert page["session"]["turns"] == 5
            seen += [int(each["span_id"], 16) for each in page["records"]]
            if page["next_cursor"] is None:
                break
            cursor = f"&cursor={page['next_cursor']}"

    assert seen == [4, 2, 3, 5, 1]


async def test_what_is_not_there_is_told_like_what_is_anothers(lifesign: Lifesign) -> None:
    async with sender(lifesign) as ours, sender(lifesign) as theirs:
        await theirs.told(USUAL | {"attributes": attributes(session__id="theirs")})
        await ours.told(USUAL | {"traceId": OTHER_TRACE, "attributes": attributes(session__id="old")})
        await lifesign.advance(5 * MINUTE_S + 1)

        told = [
            await asked(ours, f"/v1/sessions/{ref}?since_minutes=5")
            for ref in ("theirs", TRACE, "nothing", "old", OTHER_TRACE, "%EF%BF%BD", "%00", "a%00b", "a%0Ab", "%0A")
        ]
        fresh = await asked(ours, "/v1/sessions/old?since_minutes=6")

    assert {(each.status_code, each.content) for each in told} == {
        (404, b'{"ok":false,"error":"session_not_found","message":"Session not found in window"}')
    }
    assert fresh.status_code == 200


async def test_tokens_of_one_convention_include_what_was_cached(lifesign: Lifesign) -> None:
    async with sender(lifesign) as ours:
        usage = attributes(input_tokens=2, cache_read_tokens=84562, cache_creation_tokens=7096, output_tokens=5)
        await ours.told(USUAL | {"name": "claude_code.llm_request", "attributes": usage})
        [session] = (await read(ours, "/v1/sessions"))["sessions"]

    assert session["tokens"]["input"] == 91660


# Overviews ----------------------------------------------------------------------------------------------------------
async def test_a_fresh_project_has_a_dashboard_and_a_report(lifesign: Lifesign) -> None:
    async with sender(lifesign) as ours:
        body = await read(ours, "/v1/dashboard")
        report = await asked(ours, "/v1/reports/latest.md")

    nothing = {"input": None, "output": None, "cache_read": None, "cache_write": None, "reasoning": None, "total": None}
    assert body["project"]["project_id"] == ours.project_id
    assert (body["project"]["plan"], body["project"]["expires_at"], body["project"]["graduated"]) == (None, None, True)
    assert body["quota"] == {
        "limit": 1_000_000,
        "used": 0,
        "remaining": 1_000_000,
        "resets_at": "2026-02-01T00:00:00.000Z",
    }
    assert body["totals"] == {
        "records": 0,
        "failures": 0,
        "sessions": 0,
        "traces": 0,
        "tokens": nothing,
        "cost_usd": None,
    }
    assert (body["top_issues"], body["latest_packet"], body["recent_sessions"]) == ([], None, [])
    assert body["store"]["oldest_received_at"] is None
    assert body["links"]["ingest"] == "http://lifesign.test/v1/traces"
    assert (report.status_code, report.headers["content-type"]) == (200, "text/markdown; charset=utf-8")
    assert "No diagnosis has been run yet." in report.text
    assert report.text.endswith("External writes need human approval.\n")


async def test_the_dashboard_counts_what_arrived(lifesign: Lifesign) -> None:
    async with sender(lifesign) as ours:
        await ours.told(*spans(2), *spans(1, first=3, status={"code": 2}))
        await ours.told(*spans(1, traceId=OTHER_TRACE))

        body = await read(ours, "/v1/dashboard")

    totals = {name: body["totals"][name] for name in ("records", "failures", "sessions", "traces")}
    assert totals == {"records": 4, "failures": 1, "sessions": 2, "traces": 2}
    assert body["failures_by_signal"] == {"error": 1}
    assert body["sessions_by_outcome"] == {"failed": 1, "ok": 1}
    assert (body["quota"]["used"], body["quota"]["remaining"]) == (4, 999_996)
    assert [each["session_id"] for each in body["recent_sessions"]] == [OTHER_TRACE, TRACE]


async def test_what_people_call_a_project_stays_text_in_its_report(lifesign: Lifesign) -> None:
    async with sender(lifesign) as ours:
        pass
    body = {"project_name": "a | `b` <script>alert(1)</script> _c_ [d](e) # &amp;"}
    made = (await ours.lifesign.ask("POST", "/v1/provision", body, expect=201))["agent_key"]
    async with lifesign.client(made) as client:
        text = (await client.get("/v1/reports/latest.md")).text

    title = text.splitlines()[0]
    assert title == ("# a \\| \\`b\\` &lt;script&gt;alert(1)&lt;/script&gt; \\_c\\_ \\[d\\](e) \\# &amp;amp;")


@given(st.text())
def test_no_text_gets_out_of_its_line(text: str) -> None:
    shown = escaped(text)

    assert "\n" not in shown
    assert "\r" not in shown
    assert not {"<", ">", "\u202e", "\x1b", "\u2028"} & set(shown)
    assert all(shown[place - 1] == "\\" for place, each in enumerate(shown) if each in "|*_[]#`")
    assert len(shown) <= 5 * LONGEST


@example("\\\\|")
@given(st.text(alphabet=st.sampled_from("\\|*_[]#`<>& ab")))
def test_what_a_reader_of_markdown_makes_of_a_text_is_the_text(text: str) -> None:
    read = html.unescape(re.sub(r"\\([\\|*_\[\]#`])", r"\1", escaped(text)))

    assert read == " ".join(text.split())[:LONGEST]


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1/telemetry", "telemetry:read"),
        ("/v1/sessions", "telemetry:read"),
        (f"/v1/sessions/{TRACE}", "telemetry:read"),
        ("/v1/dashboard", "dashboard:read"),
        ("/v1/reports/latest.md", "reports:read"),
    ],
)
async def test_reads_need_an_agent_key(lifesign: Lifesign, path: str, allowed: str) -> None:
    async with sender(lifesign) as ours:
        await ours.told(*spans(1))
        answers: list[Any] = [
            await ours.http.get(path),
            await asked(ours, path, ours.producer_key),
            await asked(ours, path),
        ]
        head = await ours.http.head(path, headers={"Authorization": f"Bearer {ours.agent_key}"})
        wrong = await ours.http.post(path, headers={"Authorization": f"Bearer {ours.agent_key}"})

    assert [each.status_code for each in answers] == [401, 401, 200]
    assert [each.json()["error"] for each in answers[:2]] == ["missing_key", "wrong_key_kind"]
    assert (head.status_code, head.content) == (200, b"")
    assert (wrong.status_code, wrong.json()["error"], wrong.headers["allow"]) == (
        405,
        "method_not_allowed",
        "GET, HEAD",
    )
