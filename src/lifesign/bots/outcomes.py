"""How runs end, as whoever does them says: well, badly, not at all, or with a question."""

from dataclasses import dataclass, replace

from lifesign.bots import reports
from lifesign.bots.reports import Report
from lifesign.bots.rules import RunStatus


@dataclass(frozen=True, slots=True)
class Parked:
    """A call of a tool that waits for approval. arguments: JSON. state: what the runner goes on with."""

    tool: str
    arguments: str
    state: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended."""

    status: RunStatus
    reason: str | None = None
    response: str | None = None
    error_message: str | None = None
    report: Report | None = None
    pauses_as: str | None = None
    """The schedule shall run no more, for this reason."""
    parked: Parked | None = None
    """With the status `waiting_approval`: what somebody shall decide about."""


def redacted(outcome: Outcome) -> Outcome:
    """An outcome without what looks like credentials; people are told of it, and it is stored."""
    report = outcome.report
    if report is not None:
        report = replace(
            report,
            title=reports.redacted(report.title),
            body=reports.redacted(report.body),
            key=reports.redacted(report.key),
        )
    return replace(
        outcome,
        response=None if outcome.response is None else reports.redacted(outcome.response),
        error_message=None if outcome.error_message is None else reports.redacted(outcome.error_message),
        report=report,
    )
