"""The report of a project, in Markdown. Pure. Whatever came from outside stays text: it is never markup."""

import re
import unicodedata
from typing import Any, Final

from lifesign.clock import EpochMs, rfc3339
from lifesign.diagnosis.texts import particulars
from lifesign.telemetry.store import Stats

# Any: JSON of packets.
Json = dict[str, Any]

LONGEST: Final = 200
_MARKUP = re.compile(r"[\\|*_\[\]#`~]")
_ENTITIES: Final = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
# Marks that turn the direction of what follows.
_BIDI: Final = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def escaped(text: str) -> str:
    """A text on one line that no reader of Markdown or HTML takes for anything but itself; of at most 200 characters.

    Escapes come after the cut, so that none is cut in two.
    """
    line = " ".join("".join(" " if _is_unprintable(each) else each for each in text).split())[:LONGEST]
    marked = _MARKUP.sub(lambda found: f"\\{found[0]}", line)
    return "".join(_ENTITIES.get(each, each) for each in marked)


def _is_unprintable(character: str) -> bool:
    return character in _BIDI or unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"}


_DEMAND: Final = "External writes need human approval."


def of_packet(project_name: str, packet: Json, *, base: str) -> str:
    """The report of a packet. base: the address of the server that has the records."""
    window = packet["window"]
    lines = [
        f"# {escaped(project_name)}",
        "",
        f"- Project: {escaped(packet['project_id'])}",
        f"- Packet: {escaped(packet['packet_id'])}",
        f"- Window: {window['since']} to {window['until']}, by arrival",
        f"- Made at: {packet['created_at']}",
        f"- Records: {packet['telemetry_read']}",
        f"- Failures: {packet['failures']}",
        f"- Sessions: {packet['sessions']}",
        f"- Status: {escaped(packet['status'])}",
    ]
    if packet["environment"] is not None:
        lines.append(f"- Environment: {escaped(packet['environment'])}")
    lines += ["", "## Issues", ""]
    lines += _issues(packet["issues"]) if packet["issues"] else ["None."]
    if packet["omitted_issues"]:
        lines += ["", f"And {packet['omitted_issues']} more."]
    for number, issue in enumerate(packet["issues"], 1):
        lines += ["", f"### {number}. {escaped(issue['title'])}", "", *particulars_of(issue), "", "Evidence:", ""]
        lines += [f"- `{each}`" for each in issue["evidence_ids"]]
    if packet["issues"]:
        lines += ["", "## To read the evidence", "", "Up to 100 ids at once, with commas between:", "", "```sh"]
        lines.append(_reading(base, packet["issues"][0]["evidence_ids"][0]))
        lines.append("```")
    if packet["notices"]:
        lines += ["", "## Notices", ""]
        for notice in packet["notices"]:
            lines.append(f"- {escaped(notice['code'])} ({notice['count']}): {escaped(notice['message'])}")
    return "\n".join([*lines, "", _DEMAND, ""])


def particulars_of(issue: Json) -> list[str]:
    """What there is to know of an issue, as a list."""
    return [f"- {name.capitalize()}: {escaped(text)}" for name, text in particulars(issue)]


def _reading(base: str, record_id: str) -> str:
    return f"curl -sS '{base}/v1/telemetry?ids={record_id}' -H \"Authorization: Bearer $LIFESIGN_AGENT_KEY\""


def _issues(issues: list[Json]) -> list[str]:
    rows = [
        f"| {issue['severity']} | {escaped(issue['title'])} | {issue['count']} | {issue['state']} |"
        f" {escaped(issue['next_action'])} |"
        for issue in issues
    ]
    return ["| severity | title | count | state | next action |", "|---|---|---|---|---|", *rows]


def without_packet(
    project_name: str, project_id: str, stats: Stats, window: tuple[EpochMs, EpochMs], now: EpochMs, *, base: str
) -> str:
    """What there is to tell of a project that was never diagnosed."""
    since, until = window
    failures = [f"| {signal} | {count} |" for signal, count in stats.failures_by_signal.items()]
    outcomes = [f"| {outcome} | {count} |" for outcome, count in stats.sessions_by_outcome.items()]
    lines = [
        f"# {escaped(project_name)}",
        "",
        f"- Project: {escaped(project_id)}",
        f"- Window: {rfc3339(since)} to {rfc3339(until)}, by arrival",
        f"- Made at: {rfc3339(now)}",
        f"- Records: {stats.records}",
        f"- Failures: {stats.failures}",
        f"- Sessions: {stats.sessions}",
        f"- Traces: {stats.traces}",
        "",
        "No diagnosis has been run yet. To run one:",
        "",
        "```sh",
        f"curl -sS -X POST '{base}/v1/runs/diagnose' -H \"Authorization: Bearer $LIFESIGN_AGENT_KEY\"",
        "```",
    ]
    if failures:
        lines += ["", "## Failures", "", "| signal | records |", "|---|---|", *failures]
    if outcomes:
        lines += ["", "## Sessions", "", "| outcome | sessions |", "|---|---|", *outcomes]
    return "\n".join([*lines, "", _DEMAND, ""])
