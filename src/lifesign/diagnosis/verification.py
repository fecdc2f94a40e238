"""Whether what a packet told is over: the same rules over a later window. Spec "Diagnosis", section 7."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

import orjson
from sqlalchemy import Connection

from lifesign.clock import EpochMs, parse_timestamp, rfc3339
from lifesign.db import Database
from lifesign.diagnosis import service, store
from lifesign.diagnosis.details import Details, Fetch, wanted_of
from lifesign.diagnosis.facts import Windows
from lifesign.diagnosis.findings import Finding, Rule
from lifesign.diagnosis.folding import Kept
from lifesign.diagnosis.issues import Issue, fingerprint_of
from lifesign.diagnosis.ledger import Entry, judged_again
from lifesign.diagnosis.packet import MOST_ISSUES, Examined, Json, issue_json, issues_in
from lifesign.diagnosis.refusals import WindowOverlapsPacket
from lifesign.diagnosis.rules import RULESET, all_rules
from lifesign.diagnosis.service import MINUTE_MS, Diagnoses, StillAsked
from lifesign.diagnosis.store import StoredPacket
from lifesign.diagnosis.verdicts import (
    COMPARING,
    Doubt,
    Judgement,
    Later,
    Past,
    exposure_of,
    judged,
    new_issues,
    operations_of,
)
from lifesign.diagnosis.versions import is_at_least
from lifesign.projects import service as projects

_SUMMARY: Final = ("fixed", "regressed", "ongoing", "unverified")
_UNKNOWN: Final = Judgement("unverified")
_RATE: Final = "error_rate_regression"


@dataclass(frozen=True, slots=True)
class Question:
    """What somebody wants verified: all issues of a packet, or some by fingerprint. until: None for now."""

    since_minutes: int
    packet_id: str | None = None
    fingerprints: tuple[str, ...] = ()
    until: EpochMs | None = None
    environment: str | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """The issues to judge, by fingerprint, in order; None: nobody has told of it, or the packet that did is gone.

    packet: the newest that told one of them. entries: what the ledger knows. of_others: those that the packet did not
    tell, but an older one, whose baseline is not that of the packet.
    """

    packet: StoredPacket | None
    environment: str | None
    issues: Mapping[str, Json | None]
    entries: Mapping[str, Entry]
    of_others: frozenset[str] = frozenset()


class Judged(NamedTuple):
    """One issue. versions: of the records that it is measured against."""

    past: Past
    later: Later
    judgement: Judgement
    issue: Issue | None
    versions: tuple[str, ...]


async def verify(
    diagnoses: Diagnoses, db: Database, project_id: str, question: Question, still_asked: StillAsked
) -> Json:
    """The answer to a question, without `ok`; what it proves is in the ledger by then.

    Raises PacketNotFound, WindowOverlapsPacket, and what `Diagnoses.diagnose` does.
    """
    async with diagnoses.turn(project_id, still_asked):
        project = await db.read(projects.project, project_id)
        asked = await db.read(_asked, project_id, question)
        window = _window(diagnoses.end_of(question.until), question.since_minutes, asked.packet)
        windows = diagnoses.windows_of(window, _baseline(asked.packet, window), asked.environment)
        pasts = _pasts(asked)
        fetched: list[Finding] = []

        def wanted(seen: Examined, fetch: Fetch) -> Details:
            found = {fingerprint_of(each.rule.signal_type, each.parts): each for each in seen.found}
            fetched.extend(found[key] for key in pasts if key in found)
            whole = wanted_of([*(each.finding for each in seen.kept), *fetched])
            hashes = {each.op_hash for past in pasts.values() for each in operations_of(past, seen.now)}
            return fetch(replace(whole, op_hashes=whole.op_hashes | hashes | {None}))

        seen, details = await diagnoses.examine(project, windows, wanted)
        known = await db.read(
            store.known_fingerprints,
            project_id,
            asked.environment or "",
            [fingerprint_of(each.finding.rule.signal_type, each.finding.parts) for each in seen.kept],
        )
        ledger = {key: each.known for key, each in asked.entries.items()}

        def judge() -> tuple[dict[str, Judged], list[Issue]]:
            kept = [Kept(each) for each in fetched]
            told = issues_in(seen, details, ledger=ledger, window_start=window[0], kept=kept)
            issues = {each.fingerprint: each for each in told}
            all_issues = issues_in(seen, details, ledger=ledger, window_start=window[0])
            return (
                {key: _judged(past, asked, seen, details, issues.get(key)) for key, past in pasts.items()},
                new_issues(all_issues, frozenset({*known, *asked.issues})),
            )

        results, fresh = await asyncio.to_thread(judge)
        await db.write(_keep, project_id, asked, results, window)
    return _answer(asked, window, results, fresh, windows)


def _asked(conn: Connection, project_id: str, question: Question) -> Asked:
    if question.packet_id is not None:
        packet = service.find_packet(conn, project_id, question.packet_id)
        issues = _told(packet)
        entries = store.entries(conn, project_id, packet.environment, issues)
        return Asked(packet, packet.environment or None, issues, entries)
    environment = question.environment or ""
    entries = store.entries(conn, project_id, environment, dict.fromkeys(question.fingerprints))
    packets = store.packets_by_ids(conn, project_id, list({each.last_packet_id for each in entries.values()}))
    told = {packet_id: _told(packet) for packet_id, packet in packets.items()}
    last = {key: told.get(each.last_packet_id, {}).get(key) for key, each in entries.items()}
    newest = max(packets.values(), key=lambda each: (each.until, each.id), default=None)
    of_others = (key for key, each in entries.items() if newest is None or each.last_packet_id != newest.id)
    issues = {key: last.get(key) for key in question.fingerprints}
    return Asked(newest, question.environment, issues, entries, frozenset(of_others))


def _told(packet: StoredPacket) -> dict[str, Json | None]:
    """The issues of a packet. Those of other rules than today's cannot be judged by these."""
    told = service.packet_json(packet)
    is_of_these_rules = told["ruleset"] == RULESET
    return {each["fingerprint"]: each if is_of_these_rules else None for each in told["issues"]}


def _window(until: EpochMs, minutes: int, packet: StoredPacket | None) -> tuple[EpochMs, EpochMs]:
    """The new window, which begins where the packet's ends at the earliest. Raises WindowOverlapsPacket."""
    since = EpochMs(until - minutes * MINUTE_MS)
    if packet is not None:
        since = max(since, packet.until)
    if since >= until:
        raise WindowOverlapsPacket
    return since, until


def _baseline(packet: StoredPacket | None, window: tuple[EpochMs, EpochMs]) -> tuple[EpochMs, EpochMs]:
    """What the packet compared with, so that a rule that compares says whether it would still fire."""
    if packet is None:
        return EpochMs(2 * window[0] - window[1]), window[0]
    baseline = service.packet_json(packet)["baseline"]
    return parse_timestamp(baseline["since"]), parse_timestamp(baseline["until"])


def _pasts(asked: Asked) -> dict[str, Past]:
    return {
        key: Past(
            key,
            issue["title"],
            issue["signal_type"],
            issue["operation"],
            issue["count"],
            issue["exposure"]["current"],
        )
        for key, issue in asked.issues.items()
        if issue is not None
    }


def _judged(past: Past, asked: Asked, seen: Examined, details: Details, issue: Issue | None) -> Judged:
    rule = _rule(past.signal_type)
    operations = operations_of(past, seen.now)
    later = Later(
        _count(past, seen, issue),
        exposure_of(past, seen.now, of_operations=rule.of_operations),
        still_fires=issue is not None,
        succeeded=sum(each.succeeded for each in operations),
        came_back=_came_back(past, seen, issue, asked.entries.get(past.fingerprint)),
        doubt=_doubt(past, asked, seen),
    )
    judgement = judged(past, later, window_records=seen.facts.current.records)
    keys: Sequence[int | None] = [None]
    if rule.of_operations:
        keys = [each.op_hash for each in operations]
    versions = {version for key in keys for version in details.values.get(key, {}).get("version", {})}
    return Judged(past, later, judgement, issue, tuple(sorted(versions)))


def _count(past: Past, seen: Examined, issue: Issue | None) -> int:
    if past.signal_type == _RATE:
        # Fewer failures than before do not make it fire, and are failures still.
        hashes = {each.op_hash for each in operations_of(past, seen.now)}
        return sum(leaf.record.op_hash in hashes for leaf in seen.now.failures.leaves)
    return 0 if issue is None else issue.count


def _came_back(past: Past, seen: Examined, issue: Issue | None, entry: Entry | None) -> bool:
    """Whether it occurred after the fix that the ledger knows, as a diagnosis would say."""
    if entry is None or entry.fixed_at is None:
        return False
    if issue is not None or past.signal_type != _RATE:
        return issue is not None and issue.state == "regressed"
    hashes = {each.op_hash for each in operations_of(past, seen.now)}
    return any(
        leaf.record.received_at >= entry.fixed_at and is_at_least(leaf.record.version, entry.fixed_version)
        for leaf in seen.now.failures.leaves
        if leaf.record.op_hash in hashes
    )


def _doubt(past: Past, asked: Asked, seen: Examined) -> Doubt | None:
    """Why the silence of a rule that compares means nothing."""
    if past.signal_type not in COMPARING or asked.packet is None:
        return None
    if past.fingerprint in asked.of_others:
        return "other_packet"
    told = orjson.loads(asked.packet.head)["baseline"]["records"]
    return "baseline_gone" if seen.facts.baseline.records < told else None


def _rule(signal_type: str) -> Rule:
    return next(each for each in all_rules() if each.signal_type == signal_type)


def _keep(
    conn: Connection, project_id: str, asked: Asked, results: Mapping[str, Judged], window: tuple[EpochMs, EpochMs]
) -> None:
    service.lock_project(conn, project_id)
    entries = store.entries(conn, project_id, asked.environment or "", results)
    changed = []
    for key, before in entries.items():
        _, _, judgement, issue, versions = results[key]
        after = judged_again(before, judgement.verdict, issue, window_end=window[1], versions=versions)
        if after != before:
            changed.append(after)
    store.save_entries(conn, project_id, changed)


# On the wire --------------------------------------------------------------------------------------------------------
def _answer(
    asked: Asked,
    window: tuple[EpochMs, EpochMs],
    results: Mapping[str, Judged],
    fresh: Sequence[Issue],
    windows: Windows,
) -> Json:
    counts = Counter(results[key].judgement.verdict if key in results else _UNKNOWN.verdict for key in asked.issues)
    return {
        "packet_id": None if asked.packet is None else asked.packet.id,
        "window": {"since": rfc3339(window[0]), "until": rfc3339(window[1]), "basis": "received_at"},
        "baseline": {"since": rfc3339(windows.baseline[0]), "until": rfc3339(windows.baseline[1])},
        "results": [
            _result(results[key]) if key in results else _no_result(key, asked.entries.get(key)) for key in asked.issues
        ],
        "new_issues": [{"verdict": "new", **issue_json(each)} for each in fresh[:MOST_ISSUES]],
        "summary": {**{verdict: counts[verdict] for verdict in _SUMMARY}, "new": len(fresh)},
    }


def _result(result: Judged) -> Json:
    past, later, judgement, issue, _ = result
    return {
        "fingerprint": past.fingerprint,
        "title": past.title,
        "verdict": judgement.verdict,
        "trend": judgement.trend,
        "count": later.count,
        "exposure": later.exposure,
        "baseline_count": past.count,
        "baseline_exposure": past.exposure,
        "needed_exposure": judgement.needed_exposure,
        "evidence_ids": [] if issue is None else list(issue.evidence_ids),
        **({} if judgement.doubt is None else {"reason": judgement.doubt}),
    }


def _no_result(fingerprint: str, entry: Entry | None) -> Json:
    """Of an issue that nobody told of, or whose packet is kept no longer or was made by other rules."""
    # Any: JSON.
    empty: dict[str, Any] = {
        "fingerprint": fingerprint,
        "title": None if entry is None else entry.title,
        "verdict": _UNKNOWN.verdict,
        "trend": None,
        "count": 0,
        "exposure": 0,
        "baseline_count": 0 if entry is None else entry.count,
        "baseline_exposure": 0 if entry is None else entry.exposure,
        "needed_exposure": 0,
        "evidence_ids": [],
    }
    return empty | {"reason": _why_unverified(entry)}


def _why_unverified(entry: Entry | None) -> Doubt:
    if entry is None:
        return "unknown_fingerprint"
    return "packet_gone" if entry.ruleset == RULESET else "other_ruleset"
