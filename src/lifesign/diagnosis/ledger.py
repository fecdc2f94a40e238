"""What is known of an issue over all packets, and what each new packet or verdict changes of it.

Everything only ever grows, so that packets may come in any order. Spec "Diagnosis", section 6.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from lifesign.clock import SET_BACK_MS, EpochMs
from lifesign.diagnosis.issues import Issue, Known
from lifesign.diagnosis.rules import RULESET
from lifesign.diagnosis.verdicts import Verdict, fix_of

LedgerState = Literal["new", "ongoing", "regressed", "fixed", "unverified"]
STATES: Final[tuple[LedgerState, ...]] = ("new", "ongoing", "regressed", "fixed", "unverified")


@dataclass(frozen=True, slots=True)
class Entry:
    """One issue of one filter. environment: the filter, empty for none. count, exposure, versions: of `last_packet_id`.

    fixed_at: the end of the window that proved it. regressed_at: an arrival after it, of a version as new.
    """

    environment: str
    fingerprint: str
    ruleset: str
    signal_type: str
    title: str
    first_seen: EpochMs
    last_seen: EpochMs
    last_packet_id: str
    state: LedgerState
    count: int
    exposure: int
    versions: tuple[str, ...] = ()
    fixed_at: EpochMs | None = None
    fixed_version: str | None = None
    regressed_at: EpochMs | None = None

    @property
    def known(self) -> Known:
        """What the next diagnosis is told of it."""
        return Known(self.first_seen, self.fixed_at, self.fixed_version)


def entered(before: Entry | None, issue: Issue, *, environment: str, packet_id: str, now: EpochMs) -> Entry:
    """The entry once a packet has told of the issue. A packet of an older window adds to the past only.

    What a clock that was ahead has written does not hold against what is told now: it might for years.
    """
    new = Entry(
        environment=environment,
        fingerprint=issue.fingerprint,
        ruleset=RULESET,
        signal_type=issue.signal_type,
        title=issue.title,
        first_seen=issue.first_seen,
        last_seen=issue.last_seen,
        last_packet_id=packet_id,
        state=issue.state,
        count=issue.count,
        exposure=issue.exposure,
        versions=issue.versions,
    )
    if before is None:
        return new
    first_seen = min(before.first_seen, issue.first_seen)
    if issue.last_seen < before.last_seen <= now + SET_BACK_MS:
        return replace(before, first_seen=first_seen)
    if before.fixed_at is not None and before.fixed_at > now + SET_BACK_MS:
        before = replace(before, fixed_at=None, fixed_version=None, regressed_at=None)
    past = replace(
        new,
        first_seen=first_seen,
        fixed_at=before.fixed_at,
        fixed_version=before.fixed_version,
        regressed_at=before.regressed_at,
    )
    if issue.state == "regressed":
        return replace(past, regressed_at=_regressed_at(before, issue))
    # What an older version still does, or what came before the fix, does not undo it.
    return replace(past, state=before.state) if before.fixed_at is not None else past


def _regressed_at(before: Entry, issue: Issue) -> EpochMs:
    # The window that proved the fix ends before this very millisecond.
    is_known = before.regressed_at is not None and before.regressed_at >= (before.fixed_at or 0)
    return before.regressed_at if is_known and before.regressed_at is not None else issue.last_seen


def judged_again(
    before: Entry, verdict: Verdict, issue: Issue | None, *, window_end: EpochMs, versions: Sequence[str]
) -> Entry:
    """The entry after a verdict. issue: as the new window tells it, if it does. versions: seen in the new window.

    A later fix is never taken back by an earlier window.
    """
    if verdict == "fixed":
        fix = fix_of(window_end, versions, before.fixed_at)
        return before if fix is None else replace(before, state="fixed", fixed_at=fix[0], fixed_version=fix[1])
    if verdict == "regressed":
        if issue is None or issue.state != "regressed":
            return before
        return replace(before, state="regressed", regressed_at=_regressed_at(before, issue))
    if before.fixed_at is not None or before.last_seen >= window_end:
        return before
    return replace(before, state=verdict)
