"""The packet of a diagnosis, but for its id and its times. Spec "Diagnosis", sections 2 and 5."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from lifesign.clock import EpochMs, rfc3339
from lifesign.diagnosis.details import Details, Wanted, wanted_of
from lifesign.diagnosis.facts import Facts, WindowFacts
from lifesign.diagnosis.findings import Finding, View
from lifesign.diagnosis.folding import Kept, folded, without_blocked
from lifesign.diagnosis.issues import Issue, Known, Scene, fingerprint_of, issues_of
from lifesign.diagnosis.preparation import failures_of
from lifesign.diagnosis.rules import RULESET, findings_of

READY_MIN_COUNT: Final = 2
MOST_ISSUES: Final = 100
_READY: Final = "External writes (issues, pull requests, deployments) need human approval."
_OBSERVE: Final = "Not enough evidence to act; external writes would need human approval."

MESSAGES: Final[Mapping[str, str]] = {
    "baseline_incomplete": "The baseline reaches behind what is kept, or behind the project's creation.",
    "clock_skew": "Records that ended before they started.",
    "future_spans": "Records that start more than 5 minutes after their arrival.",
    "no_session_id": "Records without a session id: each trace is a session of its own.",
    "orphan_parents": "Records whose parent is not stored; rules that need it use what is there.",
    "pending_records": "Records that are stored and could not be read yet.",
    "session_cut": "Sessions of more than 50,000 records, of which the rules of order read the earliest.",
    "truncated_records": "Records of which something was cut when they arrived.",
    "unknown_convention": "Calls of models and agents without tokens and model.",
    "window_truncated": "Records of the window that were not read; the newest were.",
}

# Any: JSON.
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Examined:
    """What the rules found, before the details of it are fetched.

    found: all groups, those that did not fire too. kept: those that are told, each with what went into it.
    earlier: counts of the baseline's groups by fingerprint. failed: the rules that raised, by number.
    """

    facts: Facts
    now: View
    before: View
    found: tuple[Finding, ...]
    kept: tuple[Kept, ...]
    earlier: Mapping[str, int]
    failed: Mapping[int, Exception]

    @property
    def wanted(self) -> Wanted:
        """What to fetch."""
        return wanted_of(each.finding for each in self.kept)


def examined(facts: Facts) -> Examined:
    """Let the rules look at both windows. Reads each window's traces once."""
    now, before = _view(facts.current), _view(facts.baseline)
    found, found_before = findings_of(now, before), findings_of(before, None)
    failed = {**found_before.failed, **found.failed}
    findings = [each for each in without_blocked(found.findings) if each.rule.number not in failed]
    earlier = {
        fingerprint_of(each.rule.signal_type, each.parts): each.count
        for each in without_blocked(found_before.findings)
        if each.rule.number not in failed
    }
    kept = folded([each for each in findings if each.fires])
    return Examined(facts, now, before, tuple(findings), tuple(kept), earlier, dict(sorted(failed.items())))


def _view(facts: WindowFacts) -> View:
    return View(facts, failures_of(facts.rows, facts.recoveries))


def issues_in(
    seen: Examined,
    details: Details,
    *,
    ledger: Mapping[str, Known],
    window_start: EpochMs,
    kept: Sequence[Kept] | None = None,
) -> list[Issue]:
    """The issues of what was found, the worst first. kept: of these findings, instead of those that are told."""
    scene = Scene(seen.now, seen.before, details, ledger, window_start, seen.earlier)
    return issues_of(seen.kept if kept is None else kept, scene)


def packet_of(seen: Examined, issues: Sequence[Issue], *, ready_min_count: int = READY_MIN_COUNT) -> Json:
    """What depends on facts alone: equal facts, equal bytes. The rest of a packet is put around it."""
    is_ready = any(issue.count >= ready_min_count for issue in issues)
    return {
        "status": "ready_for_issue_diagnosis" if is_ready else "observe_more",
        "telemetry_read": seen.facts.current.records,
        "failures": len(seen.now.failures.leaves),
        "approval_required": True,
        "approval_reason": _READY if is_ready else _OBSERVE,
        "ruleset": RULESET,
        "sessions": seen.facts.current.sessions,
        "issues": [issue_json(issue) for issue in issues[:MOST_ISSUES]],
        "omitted_issues": max(0, len(issues) - MOST_ISSUES),
        "notices": _notices(seen),
    }


def issue_json(issue: Issue) -> Json:
    """An issue on the wire."""
    found = issue.discriminator
    return {
        "title": issue.title,
        "severity": issue.severity,
        "signal_type": issue.signal_type,
        "count": issue.count,
        "evidence_ids": list(issue.evidence_ids),
        "traces": list(issue.traces),
        "next_action": issue.next_action,
        "fingerprint": issue.fingerprint,
        "state": issue.state,
        "operation": issue.operation,
        "error_type": issue.error_type,
        "agent": issue.agent,
        "sessions_hit": issue.sessions_hit,
        "baseline_count": issue.baseline_count,
        "first_seen": rfc3339(issue.first_seen),
        "last_seen": rfc3339(issue.last_seen),
        "patterns": list(issue.patterns),
        "messages": [{"text": text, "count": number} for text, number in issue.messages],
        "discriminator": None
        if found is None
        else {"field": found.field, "value": found.value, "share": found.share, "rest_share": found.rest_share},
        "versions": list(issue.versions),
        "exposure": {"current": issue.exposure, "baseline": issue.baseline_exposure},
    }


def _notices(seen: Examined) -> list[Json]:
    counts = {**seen.facts.notices, "session_cut": seen.facts.current.sessions_cut}
    notices = [{"code": code, "count": counts[code], "message": MESSAGES[code]} for code in counts if counts[code]]
    if seen.failed:
        names = ", ".join(f"R{number}" for number in seen.failed)
        notices.append({"code": "rule_failed", "count": len(seen.failed), "message": f"Left out: {names}."})
    return sorted(notices, key=lambda each: str(each["code"]))
