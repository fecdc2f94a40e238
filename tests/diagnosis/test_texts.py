"""What people read of an issue: how often, since when, who and what, before they open a record."""

import re
from typing import Any

import pytest
from markdown_it import MarkdownIt

from lifesign.diagnosis.preparation import key_of
from lifesign.diagnosis.report import of_packet
from lifesign.diagnosis.texts import counts, part, particulars
from tests.diagnosis.spans import diagnosed, span, spans

HOSTILE = "<b>|`[x](y)\u202e\x1b[2J"


def issue_of(packet: dict[str, Any], title: str) -> dict[str, Any]:  # Any: JSON
    [found] = [each for each in packet["issues"] if each["title"] == title]
    return found  # type: ignore[no-any-return] # as above


@pytest.mark.parametrize(
    ("count", "whole", "told"),
    [
        (30, 100, "30 of 100 (30 %)"),
        (0, 1200, "0 of 1,200 (0 %)"),
        (1, 1200, "1 of 1,200 (under 1 %)"),
        (29, 200, "29 of 200 (15 %)"),
        (3, 0, "3"),
    ],
)
def test_a_part_has_its_share(count: int, whole: int, told: str) -> None:
    assert part(count, whole) == told


def test_an_issue_is_told_with_what_sets_it_apart() -> None:
    now = [span(n, failing=n <= 6, agent="clerk", version="2.1" if n <= 6 else "2.0") for n in range(1, 21)]
    before = [span(1000 + n, agent="clerk", version="2.0") for n in range(10)]

    told = dict(particulars(issue_of(diagnosed(now, before), "tool_call_failed on search")))

    assert told.pop("seen").startswith("2026-")
    assert told == {
        "count": "6 of 20 (30 %); the window before: 0 of 10 (0 %)",
        "sessions": "6",
        "error": "Timeout",
        "agent": "clerk",
        "versions": "2.1",
        "stands out": "version=2.1: 100 % of these, 0 % of the others",
    }


def test_what_failures_say_and_how_they_go_on_is_told_last() -> None:
    failing = [span(n, trace=1, parent=9, args_hash=7, failing=True, agent=None) for n in (1, 2, 3)]
    [found] = diagnosed(failing, messages={key_of(failing[0]): "gone"})["issues"]

    told = list(particulars(found))

    assert told[-2:] == [("they say", "gone (1)"), ("also", "retry storm, tool loop")]
    assert "versions" not in dict(told)


def test_what_is_counted_in_sessions_is_no_part_of_records() -> None:
    [found] = diagnosed(
        [span(1, kind="llm", operation="chat", total_tokens=60_000)],
        [span(100 + n, kind="llm", operation="chat", total_tokens=900) for n in range(20)],
    )["issues"]

    assert counts(found) == "1; the window before: 0"


def report_of(packet: dict[str, Any], name: str = "Shop") -> str:  # Any: JSON
    """The report of a packet whose head is as plain as can be."""
    head = {
        "project_id": "shop",
        "packet_id": "pkt_1",
        "window": {"since": "then", "until": "now"},
        "created_at": "now",
        "environment": None,
    }
    return of_packet(name, head | packet, base="http://here")


def test_a_report_says_how_to_read_the_evidence_and_no_text_of_senders_is_markup() -> None:
    packet = diagnosed(spans(1, 3, failing=True, operation=HOSTILE, agent=HOSTILE, version=HOSTILE))

    report = report_of(packet | {"environment": HOSTILE}, HOSTILE)

    assert "- Count: 3 of 3 (100 %); the window before: 0\n" in report
    first = packet["issues"][0]["evidence_ids"][0]
    assert f"curl -sS 'http://here/v1/telemetry?ids={first}' -H" in report
    assert "<b>" not in report
    assert "\x1b" not in report
    assert "\u202e" not in report
    assert not [
        line for line in report.splitlines() if line.startswith("|") and line.count(" | ") != 4 and "---" not in line
    ]


MARKUP = [
    "<img src=x onerror=alert(1)><script>alert(1)</script>",
    "[click](http://evil.example) ![x](http://evil.example/x.png) <http://evil.example>",
    "**bold** __bold__ *soft* _soft_ ~~gone~~ `code` ``code``",
    "| a | b |\n|---|---|\n| c | d |",
    "# head\n\n- list\n\n> quote\n\n```\nfence\n```\n\n---\n\n    code",
    "\\*x\\* \\\\| &lt;b&gt; &#60;b&#62;",
    "[ref]: http://evil.example 'x'",
    "\u202etxt.exe\u2066 \x1b[2J\x00\u2028x",
]


@pytest.mark.parametrize("text", MARKUP, ids=range(len(MARKUP)))
def test_a_reader_of_markdown_finds_the_same_elements_whatever_senders_wrote(text: str) -> None:
    read = MarkdownIt("commonmark").enable(["table", "strikethrough"])

    def elements(said: str) -> list[str]:
        failing = spans(1, 6, failing=True, operation=said, agent=said, version=said, error_type=said)
        packet = diagnosed([*failing, *spans(10, 6, operation=said)], messages={key_of(each): said for each in failing})
        [issue] = packet["issues"]
        assert (issue["discriminator"]["field"], len(issue["messages"])) == ("version", 1)
        shown = read.render(report_of(packet, said))
        return re.findall(r"</?[a-z][^>]*>", shown)

    assert elements(text) == elements("plain")
