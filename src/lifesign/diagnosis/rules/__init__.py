"""The rules: one module each, with its numbers and its texts. A module with a `RULE` is a rule by being here."""

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Final

from lifesign.diagnosis.findings import Finding, Hit, Rule, View, counted, grouped

RULESET: Final = "2026.11-1"
"""The version of all rules, thresholds, masks and texts. Any change of one makes a new version."""


@dataclass(frozen=True, slots=True)
class Found:
    """What the rules found, and the numbers of those that raised: nothing that is stored may stop a diagnosis."""

    findings: tuple[Finding, ...]
    failed: dict[int, Exception]


@cache
def all_rules() -> tuple[Rule, ...]:
    """The rules, by number."""
    modules = (importlib.import_module(f"{__name__}.{each.name}") for each in pkgutil.iter_modules(__path__))
    return tuple(sorted((module.RULE for module in modules), key=lambda rule: rule.number))


def findings_of(view: View, before: View | None, rules: Sequence[Rule] | None = None) -> Found:
    """What the rules find in a window. before: the baseline, None when the window is itself the baseline."""
    rules = all_rules() if rules is None else rules
    failed: dict[int, Exception] = {}
    hits = _hits(view, rules, failed)
    findings: list[Finding] = []
    for rule in rules:
        if rule.number in failed:
            continue
        try:
            findings += _findings(rule, hits[rule.number], view, before)
        except Exception as error:  # noqa: BLE001 - a rule that raises is left out and told of
            failed[rule.number] = error
    return Found(tuple(findings), failed)


def _hits(view: View, rules: Sequence[Rule], failed: dict[int, Exception]) -> dict[int, list[Hit]]:
    """The hits of each rule, by its number."""
    hits: dict[int, list[Hit]] = {rule.number: [] for rule in rules}
    for rule in rules:
        if rule.hits is not None:
            _collect(hits[rule.number], partial(rule.hits, view), rule, failed)
    for steps in view.facts.traces:
        for rule in rules:
            if rule.hits_in is not None and rule.number not in failed:
                _collect(hits[rule.number], partial(rule.hits_in, steps, view), rule, failed)
    return hits


def _collect(hits: list[Hit], found: Callable[[], Iterable[Hit]], rule: Rule, failed: dict[int, Exception]) -> None:
    try:
        hits.extend(found())
    except Exception as error:  # noqa: BLE001 - as above
        failed[rule.number] = error


def _findings(rule: Rule, hits: Iterable[Hit], view: View, before: View | None) -> Iterable[Finding]:
    groups = grouped(hits)
    return counted(rule, groups) if rule.findings is None else rule.findings(rule, groups, view, before)
