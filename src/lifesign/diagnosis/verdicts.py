"""Whether the issues of a packet are over, as a later window shows. Spec "Diagnosis", section 7."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from lifesign.clock import EpochMs
from lifesign.diagnosis.facts import OperationFacts
from lifesign.diagnosis.findings import View
from lifesign.diagnosis.issues import Issue, fingerprint_of
from lifesign.diagnosis.statistics import wilson
from lifesign.diagnosis.versions import highest

Verdict = Literal["fixed", "unverified", "regressed", "ongoing"]
Trend = Literal["improving", "worse", "same"]
Doubt = Literal["unknown_fingerprint", "packet_gone", "other_ruleset", "other_packet", "baseline_gone"]
"""Why nothing can be said of an issue."""

CHANCE_OF_SILENCE: Final = 0.05
"""How likely an issue that is still there may stay silent by luck and be called fixed."""
LEAST_FOR_LATENCY: Final = 30
_LATENCY: Final = "latency_regression"
_OF_ONE_KEY: Final = frozenset({"error_rate_regression", _LATENCY})
COMPARING: Final = frozenset({_LATENCY, "token_runaway", "cost_spike"})
"""Their silence means something only while there is what they compare with."""


@dataclass(frozen=True, slots=True)
class Past:
    """An issue as its packet told it."""

    fingerprint: str
    title: str
    signal_type: str
    operation: str
    count: int
    exposure: int


@dataclass(frozen=True, slots=True)
class Later:
    """The same group in the new window. still_fires: by the rule that told it, against the packet's baseline.

    succeeded: records among the exposure that did not fail. came_back: it occurred after the ledger's fix, in a
    version that should have it. doubt: why the rule cannot be asked again.
    """

    count: int
    exposure: int
    still_fires: bool = False
    succeeded: int = 0
    came_back: bool = False
    doubt: Doubt | None = None


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict. needed_exposure: how many more records it takes to call silence a fix; 0 unless unverified."""

    verdict: Verdict
    trend: Trend | None = None
    needed_exposure: int = 0
    doubt: Doubt | None = None


def judged(past: Past, later: Later, *, window_records: int) -> Judgement:
    """What a later window says of an issue. window_records: all that arrived in it; none proves nothing."""
    needed = needed_exposure(past)
    is_silent = not later.still_fires if past.signal_type == _LATENCY else later.count == 0
    if not is_silent:
        return Judgement("regressed") if later.came_back else Judgement("ongoing", trend(past, later))
    if later.doubt is not None:
        return Judgement("unverified", doubt=later.doubt)
    # Of latency only what does not fail tells anything.
    heard = later.succeeded if past.signal_type == _LATENCY else later.exposure
    if window_records == 0 or heard < needed:
        return Judgement("unverified", needed_exposure=max(1, needed - heard))
    return Judgement("fixed")


def needed_exposure(past: Past) -> int:
    """How many records without the issue are needed, so that it would have shown itself with 95 %."""
    if past.signal_type == _LATENCY:
        return LEAST_FOR_LATENCY
    if past.count >= past.exposure:
        return 1
    if past.count <= 0:
        return past.exposure
    return max(1, math.ceil(math.log(CHANCE_OF_SILENCE) / math.log1p(-past.count / past.exposure)))


def trend(past: Past, later: Later) -> Trend:
    """Whether it has become rarer or more frequent, beyond chance."""
    then, now = (wilson(min(each.count, each.exposure), each.exposure) for each in (past, later))
    if now.high < then.low:
        return "improving"
    return "worse" if now.low > then.high else "same"


def operations_of(past: Past, now: View) -> list[OperationFacts]:
    """The operation keys of the new window that the issue is measured against, when its rule knows any."""
    return [each for each in now.called.get(past.operation, ()) if _fits(past, each)]


def exposure_of(past: Past, now: View, *, of_operations: bool) -> int:
    """Records of the issue's operation in the new window; of the project when its rule knows none."""
    return sum(each.records for each in operations_of(past, now)) if of_operations else now.facts.records


def _fits(past: Past, operation: OperationFacts) -> bool:
    if past.signal_type in _OF_ONE_KEY:
        return fingerprint_of(past.signal_type, (operation.operation, operation.kind)) == past.fingerprint
    if past.signal_type == "tool_call_failed":
        return operation.kind == "tool"
    return past.signal_type != "error" or operation.kind != "tool"


def new_issues(issues: Iterable[Issue], known: frozenset[str]) -> list[Issue]:
    """Those of the new window that neither the packet nor the ledger knows, in their order."""
    return [issue for issue in issues if issue.fingerprint not in known]


def fix_of(window_end: EpochMs, versions: Sequence[str], earlier: EpochMs | None) -> tuple[EpochMs, str | None] | None:
    """When and with which version an issue was fixed, for the ledger; None when a later fix is known already."""
    if earlier is not None and earlier >= window_end:
        return None
    return window_end, highest(list(versions))
