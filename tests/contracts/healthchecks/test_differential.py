"""The script, answered by Lifesign on each database and, where one is at hand, by a Healthchecks server."""

import re
from pathlib import Path

import pytest

from tests.contracts.healthchecks.differences import DIFFERENCES
from tests.contracts.healthchecks.script import SCRIPT, Step
from tests.contracts.healthchecks.servers import VARIABLE, Asked, answers_here, answers_there, is_told
from tests.harness import MakeLifesign

STEPS = [step for scene in SCRIPT for step in scene.steps if isinstance(step, Step)]


def test_every_difference_that_is_allowed_is_shown_by_the_script_and_no_other_is() -> None:
    assert {step.differs for step in STEPS} - {0} == DIFFERENCES.keys()
    assert [step.path for step in STEPS if bool(step.differs) != (step.ours is not None)] == []


def test_the_reference_tells_every_difference() -> None:
    text = (Path(__file__).parents[3] / "docs" / "reference" / "pings.md").read_text().partition("## What differs")[2]
    told = re.findall(r"^(\d+)\. (.+(?:\n +.+)*)", text, flags=re.MULTILINE)

    assert {int(number): " ".join(words.split()) for number, words in told} == DIFFERENCES


async def test_lifesign_answers_as_healthchecks_does_but_for_the_differences_that_are_listed(
    start_lifesign: MakeLifesign,
) -> None:
    asked = await answers_here(start_lifesign)

    assert len(asked) == len(STEPS)
    assert [said for each in asked if (said := _fault_here(each))] == []


def _fault_here(asked: Asked) -> str | None:
    """What of an answer of Lifesign's is not as it should be: as there, or as the difference says and not as there."""
    step = asked.step
    if step.ours is None:
        why = step.expect.why_not(asked.answer)
        return why and f"{asked.told()}: {why}"
    why = step.ours.why_not(asked.answer)
    if why is not None:
        return f"{asked.told()} (difference {step.differs}): {why}"
    if step.expect.why_not(asked.answer) is None:
        return f"{asked.told()}: is no difference ({step.differs})"
    return None


async def test_healthchecks_answers_as_the_script_says_and_so_as_lifesign_does(start_lifesign: MakeLifesign) -> None:
    if not is_told():
        pytest.skip(f"{VARIABLE}URL names no Healthchecks server")
    there = await answers_there()
    here = {id(each.step): each.answer for each in await answers_here(start_lifesign)}

    assert [f"{each.told()}: {why}" for each in there if (why := each.step.expect.why_not(each.answer))] == []
    # Not only is either as expected, which may be less than all: they are the same.
    assert [
        f"{each.told()}: {each.answer.body!r} there, {here[id(each.step)].body!r} here"
        for each in there
        if not each.step.differs and isinstance(each.answer.body, dict) and each.answer.body != here[id(each.step)].body
    ] == []
