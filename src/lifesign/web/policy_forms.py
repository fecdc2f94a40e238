"""The steps of a policy as a form has them, and back. Pure.

Fields of a step: `wait-N`, `message-N`, and `channel-N-ID` for each channel that is ticked. What counts is the order in
which the steps stand in the form, not their numbers, so that moving one is moving its part of the page.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lifesign.faults import InvalidInput
from lifesign.incidents.bodies import MAX_STEPS
from lifesign.incidents.rules import Policy
from lifesign.web.forms import duration_of, seconds_of

_WAIT = re.compile(r"wait-(\d{1,4})")
_CHANNEL = re.compile(r"channel-(\d{1,4})-(.+)", re.DOTALL)
_STEP = re.compile(r"steps\[(\d+)\]\.?(wait|message|channels)?")


@dataclass(frozen=True, slots=True)
class TypedStep:
    """One step as it was typed. channels: ids."""

    wait: str = ""
    message: str = ""
    channels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TypedPolicy:
    """A policy as it was typed."""

    name: str = ""
    steps: tuple[TypedStep, ...] = (TypedStep(),)
    repeats: bool = False


def typed_of(fields: Mapping[str, str]) -> TypedPolicy:
    """What stands in a form; steps in the order of its fields."""
    numbers = [found[1] for name in fields if (found := _WAIT.fullmatch(name))]
    ticked: dict[str, list[str]] = {number: [] for number in numbers}
    for name in fields:
        found = _CHANNEL.fullmatch(name)
        if found and found[1] in ticked:
            ticked[found[1]].append(found[2])
    steps = tuple(
        TypedStep(fields[f"wait-{n}"].strip(), fields.get(f"message-{n}", "").strip(), tuple(ticked[n]))
        for n in numbers
    )
    return TypedPolicy(fields.get("name", "").strip(), steps, bool(fields.get("repeats")))


def shown(policy: Policy) -> TypedPolicy:
    """What the form of a policy begins with."""
    steps = tuple(
        TypedStep("" if step.wait_s is None else duration_of(step.wait_ms), step.message or "", step.channels)
        for step in policy.plan.steps
    )
    return TypedPolicy(policy.name, steps, policy.plan.repeat_last_step)


def after(typed: TypedPolicy, deed: str) -> TypedPolicy:
    """The form after a button of it: `add`, `up-N`, `down-N`, `remove-N`, where N counts from 0; others do nothing."""
    name, _, number = deed.partition("-")
    steps = list(typed.steps)
    if name == "add":
        return _with(typed, [*steps, TypedStep(wait="5m" if steps else "")][:MAX_STEPS])
    at = int(number) if number.isascii() and number.isdigit() and len(number) < len(str(MAX_STEPS)) + 2 else len(steps)
    if at >= len(steps):
        return typed
    if name == "remove":
        return _with(typed, [*steps[:at], *steps[at + 1 :]])
    other = {"up": at - 1, "down": at + 1}.get(name, at)
    if not 0 <= other < len(steps):
        return typed
    steps[at], steps[other] = steps[other], steps[at]
    return _with(typed, steps)


def _with(typed: TypedPolicy, steps: list[TypedStep]) -> TypedPolicy:
    return TypedPolicy(typed.name, tuple(steps), typed.repeats)


def values_of(typed: TypedPolicy) -> dict[str, Any]:
    """The body of the API. Any: JSON."""
    return {"name": typed.name, "steps": [_step(each) for each in typed.steps], "repeatLastStep": typed.repeats}


def _step(typed: TypedStep) -> dict[str, Any]:
    values: dict[str, Any] = {"channels": list(typed.channels)}
    if typed.wait:
        values["wait"] = seconds_of(typed.wait)
    if typed.message:
        values["message"] = typed.message
    return values


def faults_of(error: InvalidInput) -> dict[str, str]:
    """What is wrong, by `name`, `wait-N`, `message-N`, `channels-N` in the order of the steps; the rest nameless."""
    found: dict[str, str] = {}
    for fault in error.faults:
        step = _STEP.match(fault.field)
        if fault.field == "name":
            found.setdefault("name", fault.message)
        elif step and step[2] == "channels":
            found.setdefault(f"channels-{step[1]}", _about_channels(fault.message))
        elif step and step[2] == "wait":
            is_none = "integer" in fault.message
            found.setdefault(
                f"wait-{step[1]}", "must be a duration, such as 90s, 15m or 1h" if is_none else fault.message
            )
        elif step and step[2]:
            found.setdefault(f"{step[2]}-{step[1]}", fault.message)
        elif fault.field == "steps":
            found.setdefault("", f"A policy has 1 to {MAX_STEPS} steps")
        else:
            found.setdefault("", f"{fault.field} {fault.message}")
    return found


def _about_channels(message: str) -> str:
    return "must be at least one of them" if "at least 1" in message else f"has one that does not count: {message}"
