"""How often the diagnosis is right: each run alone, and all of them together.

Precision and recall are of `passed: false`; the base rate beside a precision is what firing on every run would have.
"""

import json
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.diagnosis.runs import Json, Label, Run, step_of
from benchmarks.diagnosis.synthetic import healthy_runs
from lifesign.diagnosis.rules import all_rules

MANY_FAILURES: Final = 3
ALARMS: Final = frozenset({"critical", "high", "medium"})
RERUNS: Final = 3
_STEPS_LOOKED_AT: Final = (1, 3)
_TIMES: Final = frozenset({"first_seen", "last_seen"})
_DETERMINED: Final = ("issues", "notices", "failures", "telemetry_read", "status")

Diagnose = Callable[[Sequence[Json], Sequence[Json]], Json]
"""The packet of requests that arrived in the window, and of others that arrived in the one before."""


@dataclass(frozen=True, slots=True)
class Diagnosed:
    """A run that somebody labelled, and what was said of it."""

    label: Label
    packet: Json

    @property
    def passed(self) -> bool:
        return self.label.passed is True

    @property
    def signals(self) -> set[str]:
        """Rules that fired, those that went into another issue too."""
        issues = self.packet["issues"]
        return {each["signal_type"] for each in issues} | {name for each in issues for name in each["patterns"]}

    @property
    def is_alarm(self) -> bool:
        return any(each["severity"] in ALARMS for each in self.packet["issues"])

    def failures_of(self, signal: str) -> int:
        return max((each["count"] for each in self.packet["issues"] if each["signal_type"] == signal), default=0)


def score(runs: Iterable[Run], diagnose: Diagnose, *, on_a_clock: bool = False, seed: int = 7) -> Json:
    """The scores. Runs without a label are counted and left out; where none is healthy, our own are added.

    on_a_clock: each diagnosis sees other times of arrival; what they decide is then no part of being identical, and
    runs that need a window before are left out.
    """
    given = list(runs)
    if not any(run.label.passed and run.label.of is None for run in given):
        given += healthy_runs()
    before = {run.label.of: run.request for run in given if run.label.of is not None}
    now = [run for run in given if run.label.of is None]
    left_out = [run.label.run for run in now if on_a_clock and run.label.run in before]
    now = [run for run in now if run.label.run not in left_out]
    before = {} if on_a_clock else before
    told = [Diagnosed(run.label, diagnose([run.request], _before(before, run))) for run in now if _is_asked(run)]
    done = [each for each in told if each.label.passed is not None]
    together = [run.request for run in now]
    base_rate = _share(sum(not each.passed for each in done), len(done))
    healthy = [each for each in done if each.passed]
    return {
        "runs": len(done),
        "unlabelled": len(now) - len(done),
        "left_out": left_out,
        "healthy": len(healthy),
        "base_rate": base_rate,
        "signals": {rule.signal_type: _of_signal(rule.signal_type, done, base_rate) for rule in all_rules()},
        "tool_call_failed_3": _precision(
            [each for each in done if each.failures_of("tool_call_failed") >= MANY_FAILURES], base_rate
        ),
        "tool_loop_or_pattern": _precision([each for each in done if "tool_loop" in each.signals], base_rate),
        **{f"step_hit_{most}": _step_hits(done, most) for most in _STEPS_LOOKED_AT},
        "false_alarms_per_100_healthy": _share(100 * sum(each.is_alarm for each in healthy), len(healthy)),
        "planted": _planted(told),
        "near_misses": _near_misses(told),
        "together": _in_short(diagnose(together, list(before.values()))),
        "reruns_identical": _is_repeatable(together, list(before.values()), diagnose, on_a_clock=on_a_clock, seed=seed),
    }


def _is_asked(run: Run) -> bool:
    return run.label.passed is not None or bool(run.label.silent)


def _planted(told: Sequence[Diagnosed]) -> Json:
    """Whether each rule found what was planted for it, alone and among others."""
    planted = [(each, fault) for each in told for fault in each.label.faults]
    missed = [f"{each.label.run}: {fault}" for each, fault in planted if fault not in each.signals]
    return {"faults": len(planted), "rules": sorted({fault for _, fault in planted}), "missed": missed}


def _near_misses(told: Sequence[Diagnosed]) -> Json:
    """Whether each rule stays silent just below its threshold."""
    near = [(each, rule) for each in told for rule in each.label.silent]
    fired = [f"{each.label.run}: {rule}" for each, rule in near if rule in each.signals]
    return {"runs": len(near), "rules": sorted({rule for _, rule in near}), "fired": fired}


def _before(before: Mapping[str, Json], run: Run) -> list[Json]:
    return [before[run.label.run]] if run.label.run in before else []


def _of_signal(name: str, done: Sequence[Diagnosed], base_rate: float | None) -> Json:
    fired = [each for each in done if name in each.signals]
    failed = sum(not each.passed for each in done)
    return {
        "fires": len(fired),
        **_precision(fired, base_rate),
        "recall": _share(sum(not each.passed for each in fired), failed),
    }


def _precision(fired: Sequence[Diagnosed], base_rate: float | None) -> Json:
    return {"precision": _share(sum(not each.passed for each in fired), len(fired)), "base_rate": base_rate}


def _step_hits(done: Sequence[Diagnosed], most: int) -> Json:
    """How often a step that went wrong is among the first records of evidence of the worst issue."""
    labelled = [each for each in done if each.label.steps]
    hits = 0
    for each in labelled:
        top = each.packet["issues"][:1]
        steps = {step_of(record_id) for issue in top for record_id in issue["evidence_ids"][:most]}
        hits += bool(steps & set(each.label.steps))
    return {"hits": hits, "of": len(labelled), "share": _share(hits, len(labelled))}


def _is_repeatable(
    now: Sequence[Json], before: Sequence[Json], diagnose: Diagnose, *, on_a_clock: bool, seed: int
) -> bool:
    """Whether the same spans in other orders of arrival say the same, to the byte."""
    chance = random.Random(seed)
    told = set()
    for _ in range(RERUNS):
        packet = diagnose(chance.sample(now, len(now)), chance.sample(before, len(before)))
        issues = packet["issues"]
        if on_a_clock:
            timeless = ({name: each[name] for name in each.keys() - _TIMES} for each in issues)
            issues = sorted(timeless, key=lambda each: each["fingerprint"])
        kept = {name: packet[name] for name in _DETERMINED} | {"issues": issues}
        told.add(json.dumps(kept, sort_keys=on_a_clock))
    return len(told) == 1


def _in_short(packet: Json) -> Json:
    return {
        "telemetry_read": packet["telemetry_read"],
        "failures": packet["failures"],
        "issues": [
            {name: each[name] for name in ("title", "severity", "count", "patterns")} for each in packet["issues"][:10]
        ],
    }


def _share(part: float, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None
