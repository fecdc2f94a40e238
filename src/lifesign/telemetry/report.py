"""The report of a project, in Markdown. Pure. Whatever came from outside stays text: it is never markup."""

import re
import unicodedata
from typing import Final

from lifesign.clock import EpochMs, rfc3339
from lifesign.telemetry.store import Stats

LONGEST: Final = 200
_MARKUP = re.compile(r"[\\|*_\[\]#`]")
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


def report(project_name: str, project_id: str, stats: Stats, window: tuple[EpochMs, EpochMs], now: EpochMs) -> str:
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
        "No diagnosis has been run yet.",
    ]
    if failures:
        lines += ["", "## Failures", "", "| signal | records |", "|---|---|", *failures]
    if outcomes:
        lines += ["", "## Sessions", "", "| outcome | sessions |", "|---|---|", *outcomes]
    return "\n".join([*lines, "", "External writes need human approval.", ""])
