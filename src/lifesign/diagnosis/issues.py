"""Issues: findings with their evidence, how bad they are, and whether they are new. Spec "Diagnosis", sections 5, 6."""

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from lifesign.clock import EpochMs, rfc3339
from lifesign.diagnosis.details import FIELDS, MOST_EVIDENCE, MOST_TRACES, Details, Selected, Values, summed
from lifesign.diagnosis.findings import Field, Finding, Level, View
from lifesign.diagnosis.folding import FAILURES, Kept
from lifesign.diagnosis.preparation import UNKNOWN, Placed, clean, key_of, masked_message, order_of
from lifesign.diagnosis.rules import RULESET
from lifesign.diagnosis.texts import percent
from lifesign.diagnosis.versions import is_at_least

State = Literal["new", "ongoing", "regressed"]

LEVELS: Final[tuple[Level, ...]] = ("critical", "high", "medium", "low")
MOST_MESSAGES: Final = 3
LEAST_TO_COMPARE: Final = 5
MANY_SESSIONS: Final = 5
MANY_REGRESSED: Final = 5
CRITICAL_SESSIONS: Final = 10
CRITICAL_PERCENT: Final = 25
HIGH_PERCENT: Final = 10
MEDIUM_SESSIONS: Final = 2
MEDIUM_COUNT: Final = 3
_LONGEST_TITLE: Final = 120
_FINGERPRINT_DIGITS: Final = 16
_COMPARING: Final = frozenset({8, 9, 11})
_GUARDRAIL: Final = 14
_ONCE: Final = "Keep observing: one occurrence only. Look at {evidence} if it matters."


@dataclass(frozen=True, slots=True)
class Known:
    """What the ledger says of a fingerprint."""

    first_seen: EpochMs
    fixed_at: EpochMs | None = None
    fixed_version: str | None = None


@dataclass(frozen=True, slots=True)
class Discriminator:
    """What the records of an issue have in common, and others of the operation have not. Shares are 0 to 1."""

    field: Field
    value: str
    share: float
    rest_share: float

    @property
    def text(self) -> str:
        rest = percent(self.rest_share)
        return f" {percent(self.share)} % have {self.field}={self.value} (elsewhere {rest} %)."


@dataclass(frozen=True, slots=True)
class Issue:
    """One finding of a packet; fields as on the wire."""

    title: str
    severity: Level
    signal_type: str
    count: int
    evidence_ids: tuple[str, ...]
    traces: tuple[str, ...]
    next_action: str
    fingerprint: str
    state: State
    operation: str
    error_type: str | None
    agent: str
    sessions_hit: int
    baseline_count: int
    first_seen: EpochMs
    last_seen: EpochMs
    patterns: tuple[str, ...]
    messages: tuple[tuple[str, int], ...]
    discriminator: Discriminator | None
    versions: tuple[str, ...]
    exposure: int
    baseline_exposure: int


def fingerprint_of(signal_type: str, parts: Iterable[str]) -> str:
    """The name of a group in every window and on every server."""
    text = "\x1f".join((RULESET, signal_type, *parts))
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
    return f"{signal_type}:{digest[:_FINGERPRINT_DIGITS]}"


@dataclass(frozen=True, slots=True)
class Scene:
    """What issues are judged in. window_start: of the current one. earlier: counts of the baseline's groups."""

    now: View
    before: View
    details: Details
    ledger: Mapping[str, Known]
    window_start: EpochMs
    earlier: Mapping[str, int]


def issues_of(kept: Iterable[Kept], scene: Scene) -> list[Issue]:
    """The issues, the worst first. A finding whose records are gone by now is none."""
    issues = (issue for each in kept if (issue := _issue(each, scene)) is not None)
    return sorted(
        issues, key=lambda each: (LEVELS.index(each.severity), -each.count, -each.last_seen, each.fingerprint)
    )


def _issue(kept: Kept, scene: Scene) -> Issue | None:
    finding = kept.finding
    rule = finding.rule
    records = _selected(finding, scene.details)
    if records is None:
        return None
    fingerprint = fingerprint_of(rule.signal_type, finding.parts)
    evidence = _evidence(finding, records, fingerprint)
    evidence_ids = tuple(placed.record.record_id for placed in evidence)
    exposure, baseline_exposure = (_exposure(finding, view) for view in (scene.now, scene.before))
    state = _state(finding, records, scene, fingerprint)
    discriminator = _discriminator(finding, records, scene)
    earlier = scene.earlier.get(fingerprint, 0) if finding.baseline_count is None else finding.baseline_count
    return Issue(
        title=clean(rule.title(finding.subject))[:_LONGEST_TITLE],
        severity=_severity(kept, records, state, scene),
        signal_type=rule.signal_type,
        count=finding.count,
        evidence_ids=evidence_ids,
        traces=_traces(evidence, records),
        next_action=_next_action(finding, evidence_ids, records.first_seen, discriminator),
        fingerprint=fingerprint,
        state=state,
        operation=clean(finding.subject),
        error_type=finding.error_type,
        agent=_agent(records.values),
        sessions_hit=records.sessions,
        baseline_count=earlier,
        first_seen=records.first_seen,
        last_seen=records.last_seen,
        patterns=kept.patterns,
        messages=_messages(finding, scene.details),
        discriminator=discriminator,
        versions=tuple(clean(each) for each in records.versions),
        exposure=exposure,
        baseline_exposure=baseline_exposure,
    )


def _selected(finding: Finding, details: Details) -> Selected | None:
    if finding.selector is not None:
        return details.selected.get(finding.selector)
    return summed(list(finding.records)) if finding.records else None


# Evidence ------------------------------------------------------------------------------------------------------------
def _evidence(finding: Finding, records: Selected, fingerprint: str) -> list[Placed]:
    chosen: Sequence[Placed] = records.top if finding.selector is not None else finding.records
    if len(chosen) > MOST_EVIDENCE:
        first, *rest, last = chosen
        chosen = [first, last, *heapq.nsmallest(MOST_EVIDENCE - 2, rest, key=lambda each: _lot(each, fingerprint))]
    return sorted(chosen, key=order_of)


def _lot(placed: Placed, fingerprint: str) -> bytes:
    return hashlib.sha256(f"{fingerprint}{placed.record.record_id}".encode()).digest()


def _traces(evidence: Iterable[Placed], records: Selected) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*(placed.record.trace_id for placed in evidence), *records.traces)))[:MOST_TRACES]


def _messages(finding: Finding, details: Details) -> tuple[tuple[str, int], ...]:
    keys = (key_of(placed) for placed in finding.records)
    texts = Counter(text for key in keys if (text := masked_message(details.messages.get(key, ""))))
    return tuple(sorted(texts.items(), key=lambda each: (-each[1], each[0]))[:MOST_MESSAGES])


def _agent(values: Values) -> str:
    agents = values.get("agent", {})
    return clean(min(agents, key=lambda each: (-agents[each], each), default=UNKNOWN))


def _exposure(finding: Finding, view: View) -> int:
    if not finding.op_hashes:
        return view.facts.records
    return sum(view.operations[each].records for each in finding.op_hashes if each in view.operations)


def _discriminator(finding: Finding, records: Selected, scene: Scene) -> Discriminator | None:
    """The value whose share among the issue's records is most above its share among the rest."""
    many = records.count
    rest = _exposure(finding, scene.now) - many
    if many < LEAST_TO_COMPARE or rest < LEAST_TO_COMPARE:
        return None
    all_values = [scene.details.values.get(each, {}) for each in sorted(finding.op_hashes)] or [
        scene.details.values.get(None, {})
    ]
    best: tuple[int, int, str] | None = None
    for place, name in enumerate(FIELDS):
        if name in finding.rule.own:
            continue
        for value, number in records.values.get(name, {}).items():
            elsewhere = max(0, sum(each.get(name, {}).get(value, 0) for each in all_values) - number)
            # Whole numbers, so that ties are ties.
            candidate = (-(number * rest - elsewhere * many), place, value)
            best = candidate if best is None else min(best, candidate)
    if best is None or -best[0] * 10 < 3 * many * rest:
        return None
    name, value = FIELDS[best[1]], best[2]
    number = records.values[name][value]
    elsewhere = max(0, sum(each.get(name, {}).get(value, 0) for each in all_values) - number)
    return Discriminator(name, clean(value), round(number / many, 4), round(elsewhere / rest, 4))


def _next_action(
    finding: Finding, evidence_ids: Sequence[str], first_seen: EpochMs, discriminator: Discriminator | None
) -> str:
    template = finding.rule.next_action if finding.count > 1 else _ONCE
    first, _, second = finding.subject.partition(" <-> ")
    values = {
        **finding.values,
        "subject": finding.subject,
        "first": first,
        "second": second,
        "error_type": finding.error_type or "",
        "evidence": evidence_ids[0],
        "first_seen": rfc3339(first_seen),
        "discriminator": "" if discriminator is None else discriminator.text,
    }
    return clean(template.format(**values))


# How bad, and whether it is new --------------------------------------------------------------------------------------
def _severity(kept: Kept, records: Selected, state: State, scene: Scene) -> Level:
    finding = kept.finding
    level = _own_level(finding, records, state, scene)
    level = max(level, finding.rule.most, key=LEVELS.index)
    if kept.is_raised and level in {"medium", "low"}:
        level = LEVELS[LEVELS.index(level) - 1]
    if kept.rate_rose_in_sessions() >= MANY_SESSIONS:
        level = min(level, "high", key=LEVELS.index)
    return level


def _own_level(finding: Finding, records: Selected, state: State, scene: Scene) -> Level:
    ended = _percent_of_sessions_ended(finding, scene.now)
    if ended >= CRITICAL_PERCENT:
        return "critical"
    if (
        ended >= HIGH_PERCENT
        or (finding.rule.number in _COMPARING and records.sessions >= MANY_SESSIONS)
        or (state == "regressed" and finding.count >= MANY_REGRESSED)
    ):
        return "high"
    return "medium" if records.sessions >= MEDIUM_SESSIONS or finding.count >= MEDIUM_COUNT else "low"


def _percent_of_sessions_ended(finding: Finding, now: View) -> float:
    """In how many of the window's sessions these failures ended a root; 0 where that is not asked."""
    if finding.rule.number not in FAILURES | {_GUARDRAIL} or now.facts.sessions < CRITICAL_SESSIONS:
        return 0.0
    ending = now.failures.ended_the_root
    return 100 * len({each.session_id for each in finding.records if key_of(each) in ending}) / now.facts.sessions


def _state(finding: Finding, records: Selected, scene: Scene, fingerprint: str) -> State:
    known = scene.ledger.get(fingerprint)
    if known is not None and known.fixed_at is not None and _came_back(finding, records, known):
        return "regressed"
    if scene.earlier.get(fingerprint, 0) > 0 or (known is not None and known.first_seen < scene.window_start):
        return "ongoing"
    return "new"


def _came_back(finding: Finding, records: Selected, known: Known) -> bool:
    # The window that proved the fix ends before this very millisecond.
    fixed_at = known.fixed_at or 0
    if finding.selector is None:
        return any(
            placed.record.received_at >= fixed_at and is_at_least(placed.record.version, known.fixed_version)
            for placed in finding.records
        )
    # All of them: `versions` are the first few by alphabet, where the newest may be missing.
    versions: Iterable[str | None] = records.values.get("version") or (None,)
    return records.last_seen >= fixed_at and any(is_at_least(each, known.fixed_version) for each in versions)
