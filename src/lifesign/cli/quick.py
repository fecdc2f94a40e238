"""The short way to `checkin`, `run` and `agent`: they run often or always, and the full parser is slow and large.

Knows the plain form of these commands. Whatever else it meets, help and mistakes included, it leaves to the full
parser, which says it better. The options stand in `jobs` as well; a test compares them.
"""

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from lifesign.cli.remote import DEFAULT_URL
from lifesign.cli.report import check_in_once, run_and_tell

SWITCHES: Mapping[str, Sequence[str]] = {
    "checkin": ("--unhealthy", "--json"),
    "run": ("--no-output", "--no-run"),
    "agent": ("--once", "--print-unit", "--print-curl"),
}
VALUES: Mapping[str, Sequence[str]] = {
    "checkin": ("--metadata", "--idempotency-key", "--url", "--key"),
    "run": ("--heartbeat", "--lease", "--url", "--key"),
    "agent": ("--url", "--system-id", "--secret-file", "--interval", "--jitter", "--inventory", "--ca-file"),
}


@dataclass(frozen=True, slots=True)
class Words:
    """A command line taken apart: what stands alone, the switches that are set, and the options with a value."""

    alone: list[str]
    switches: set[str]
    values: dict[str, str]


def command_of(arguments: Sequence[str]) -> Callable[[], int] | None:
    """The command that `arguments` plainly mean; None when the full parser has to look at them."""
    name = arguments[0] if arguments else ""
    words = parted(name, arguments[1:]) if name in VALUES else None
    if words is None:
        return None
    if name == "agent":
        return None if words.alone else lambda: run_agent(words.values, words.switches)
    url = words.values.get("--url") or os.environ.get("LIFESIGN_URL") or DEFAULT_URL
    key = words.values.get("--key") or os.environ.get("LIFESIGN_KEY") or os.environ.get("LIFESIGN_API_KEY")
    if name == "run":
        return lambda: run_and_tell(
            words.alone,
            heartbeat=words.values.get("--heartbeat"),
            no_output="--no-output" in words.switches,
            no_run="--no-run" in words.switches,
            lease=words.values.get("--lease"),
            url=url,
            key=key,
        )
    if len(words.alone) != 1:
        return None
    return lambda: check_in_once(
        words.alone[0],
        unhealthy="--unhealthy" in words.switches,
        metadata=words.values.get("--metadata"),
        idempotency_key=words.values.get("--idempotency-key"),
        as_json="--json" in words.switches,
        url=url,
        key=key,
    )


def run_agent(values: Mapping[str, str], switches: Collection[str]) -> int:
    """Hand over to the agent, which needs nothing of the rest."""
    from lifesign.client import agent

    return agent.main(values, frozenset(switches))


def parted(name: str, arguments: Sequence[str]) -> Words | None:
    """Take the arguments of the command `name` apart; None for what is not plain."""
    words = Words([], set(), {})
    left = list(arguments)
    while left:
        word = left.pop(0)
        option, has_value, value = word.partition("=")
        if word == "--":
            words.alone.extend(left)
            return words
        if not word.startswith("-") or word == "-":
            words.alone.append(word)
        elif word in SWITCHES[name]:
            words.switches.add(word)
        elif option in VALUES[name] and (has_value or left):
            words.values[option] = value if has_value else left.pop(0)
        else:
            return None
    return words
