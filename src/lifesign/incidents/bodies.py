"""What people send about policies."""

from typing import Annotated, Any

from pydantic import Field

from lifesign.http.fields import Body, Bool, Integer, LongText, Name, Origin, Ref, example_id, optional
from lifesign.incidents.rules import Step

MAX_STEPS = 20
MAX_STEP_CHANNELS = 20
MAX_WAIT_S = 604_800
MAX_STEP_MESSAGE = 2000


class PolicyStep(Body):
    """One step: wait, then tell every channel."""

    channels: Annotated[list[Ref], Field(min_length=1, max_length=MAX_STEP_CHANNELS)] = Field(
        examples=[["ch_0199e6a1b2c37d4e8f00112233445566"]], json_schema_extra={"uniqueItems": True}
    )
    wait: Annotated[int, Integer(0, MAX_WAIT_S)] = optional(
        "Seconds before this step, counted from the step before (the first: from firing).", [300]
    )
    message: Annotated[str, LongText(MAX_STEP_MESSAGE)] = optional("Template, e.g. `{{name}} is {{late}} s late`.")


class NewPolicy(Body):
    """What a policy is made of."""

    name: Name = Field(examples=["Critical"])
    steps: Annotated[list[PolicyStep], Field(min_length=1, max_length=MAX_STEPS)]
    repeatLastStep: Bool = False
    origin: Origin = optional("Who makes it; kept and shown. `lifesign apply` says `apply`.")


# Bodies to paste, by what they show.
NEW_POLICIES: dict[str, dict[str, Any]] = {
    "tell one channel at once": {"name": "Standard", "steps": [{"channels": [example_id("ch")]}]},
    "escalate, then repeat": {
        "name": "Critical",
        "steps": [
            {"channels": [example_id("ch")]},
            {"wait": 300, "channels": [example_id("ch")], "message": "{{name}} is {{late}} s late, please look"},
        ],
        "repeatLastStep": True,
    },
}


class PolicyChanges(Body):
    """Any of the three; `steps` are replaced whole."""

    name: Name = optional()
    steps: Annotated[list[PolicyStep], Field(min_length=1, max_length=MAX_STEPS)] = optional()
    repeatLastStep: Bool = optional()


def steps_of(steps: list[PolicyStep]) -> tuple[Step, ...]:
    """The domain's steps."""
    return tuple(Step(tuple(step.channels), step.wait, step.message) for step in steps)
