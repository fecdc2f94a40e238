"""Figures as the texts of issues have them, and what is said of an issue wherever people read it."""

from collections.abc import Iterator, Mapping
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Final

_COUNTED_IN_SESSIONS: Final = frozenset({"token_runaway"})


def percent(share: float) -> str:
    """Whole percents, half up."""
    # By way of its shortest decimal form: 0.145 is a little less than that in binary, and would go down.
    return str((Decimal(repr(share)) * 100).quantize(Decimal(1), rounding=ROUND_HALF_UP))


# Any: JSON of a packet.
def particulars(issue: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What there is to know of an issue before its records are opened, by name. Senders wrote some of it."""
    yield "count", counts(issue)
    yield "sessions", f"{issue['sessions_hit']:,}"
    yield "seen", f"{issue['first_seen']} to {issue['last_seen']}"
    for name, value in (("error", issue["error_type"]), ("agent", issue["agent"])):
        if value:
            yield name, value
    if issue["versions"]:
        yield "versions", ", ".join(issue["versions"])
    if (odd := issue["discriminator"]) is not None:
        shares = f"{percent(odd['share'])} % of these, {percent(odd['rest_share'])} % of the others"
        yield "stands out", f"{odd['field']}={odd['value']}: {shares}"
    for message in issue["messages"]:
        yield "they say", f"{message['text']} ({message['count']:,})"
    if issue["patterns"]:
        yield "also", ", ".join(issue["patterns"]).replace("_", " ")


# Any: as above.
def counts(issue: Mapping[str, Any]) -> str:
    """How often it happened, and how often in the window before: `30 of 100 (30 %); the window before: 2 of 100`."""
    exposure = issue["exposure"]
    # What a rule counts in sessions is no part of any number of records.
    is_of_records = issue["signal_type"] not in _COUNTED_IN_SESSIONS
    now, before = (
        part(count, whole) if is_of_records else f"{count:,}"
        for count, whole in (
            (issue["count"], exposure["current"]),
            (issue["baseline_count"], exposure["baseline"]),
        )
    )
    return f"{now}; the window before: {before}"


def part(count: int, whole: int) -> str:
    """So many of so many, with the share: `30 of 100 (30 %)`."""
    if not whole:
        return f"{count:,}"
    share = percent(count / whole)
    told = "under 1" if count and share == "0" else share
    return f"{count:,} of {whole:,} ({told} %)"
