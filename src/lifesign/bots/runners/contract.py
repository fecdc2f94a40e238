"""What runners are given and what they give back, whoever does the run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from lifesign.bots.budget import Usage, credits_of
from lifesign.bots.outcomes import Outcome
from lifesign.bots.reports import report_of
from lifesign.bots.starting import Started
from lifesign.clock import rfc3339

MAX_ANSWER_BYTES = 1_048_576
MOST_TOKENS = 2**40
_MOST_REQUESTS = 2**31
INVALID = Outcome("error", "invalid_output", error_message="The runner's answer has not the form of a result")


# Any, in these: JSON.
class Progress(Protocol):
    """What a runner reports to while it works. All of it raises LeaseLost once the run has ended otherwise."""

    async def spend(self, usage: Usage, model: str | None = None, nano_usd: int | None = None) -> int:
        """Charge one response; the units that are left of the reservation. nano_usd: its price by the common table."""
        ...

    async def spend_total(self, told: "Totals") -> None:
        """Charge what has come since the last time, of an outside runner that counts for itself."""
        ...

    async def say(self, role: str, content: str, *, calls: int = 0, **more: Any) -> None:
        """Add to the transcript. calls: of tools, to be counted."""
        ...


class Runner(Protocol):
    """One way to do a run."""

    async def run(self, started: Started, progress: Progress) -> Outcome | None:
        """Do it; None: somebody else will end it. When cancelled, nothing of it is left behind within 5 s."""
        ...


class Totals(msgspec.Struct, frozen=True):
    """Tokens and requests of a whole run so far."""

    input_tokens: int = 0
    output_tokens: int = 0
    requests: int = 0


@dataclass(frozen=True, slots=True)
class Result:
    """What an outside runner says of a run that ended."""

    outcome: Outcome
    totals: Totals | None


def job_of(started: Started) -> dict[str, Any]:
    """What outside runners are told."""
    run = started.run
    return {
        "run_id": run.id,
        "slot": None if run.slot is None else rfc3339(run.slot),
        "model": started.bot.model,
        "prompt": run.prompt,
        "instruction": started.bot.instruction,
        "remaining_credits": None if started.schedule.budget is None else credits_of(run.reserved),
        "deadline": None if run.deadline_at is None else rfc3339(run.deadline_at),
    }


def result_of(told: Any) -> Result | None:
    """The result in an answer; None when it has not the form of one."""
    if not isinstance(told, Mapping) or told.get("status") not in {"success", "error"}:
        return None
    response, message = told.get("response"), told.get("error_message")
    if not all(each is None or isinstance(each, str) for each in (response, message)):
        return None
    if told.get("usage") is not None and totals_of(told["usage"]) is None:
        return None
    totals = None if told.get("usage") is None else totals_of(told["usage"])
    if told["status"] == "error":
        words = message or response or "The runner says that it failed"
        return Result(Outcome("error", "runner_error", response, words), totals)
    report = report_of(told.get("report"), response)
    if report is None:
        return None
    return Result(Outcome("success", None, response or "", None, report), totals)


def totals_of(told: Any) -> Totals | None:
    """Counts in an answer; None when they are none."""
    if not isinstance(told, Mapping):
        return None
    try:
        found = msgspec.convert({name: told.get(name) or 0 for name in Totals.__struct_fields__}, Totals)
    except msgspec.ValidationError:
        return None
    is_possible = all(0 <= each < MOST_TOKENS for each in (found.input_tokens, found.output_tokens))
    return found if is_possible and 0 <= found.requests < _MOST_REQUESTS else None


def trace_of(run_id: str) -> tuple[str, str]:
    """The trace that a run is, and its root span: the digits of its id, and the last of them."""
    trace = run_id.removeprefix("run_")
    return trace, trace[16:]


def traceparent(run_id: str) -> str:
    """The header that tells others of it."""
    trace, root = trace_of(run_id)
    return f"00-{trace}-{root}-01"
