"""What people send about the settings of a project."""

from typing import Literal

from pydantic import Field

from lifesign.http.fields import Body, Ref, example_id, optional


class DiagnosisAlert(Body):
    """Whom a diagnosis pages, and from which severity on."""

    policy: Ref = Field(description="Id of the policy that escalates it.", examples=[example_id("pol")])
    severity: Literal["critical", "high", "medium", "low"] = Field(
        description="An issue this bad, or worse, makes the heartbeat `diagnosis` fail.", examples=["high"]
    )


class SettingsChanges(Body):
    """What to change of the project's settings."""

    fallbackChannel: Ref | None = optional(
        "Told of every incident that nobody attends to; null clears it.", [example_id("ch")]
    )
    diagnosisAlert: DiagnosisAlert | None = optional(
        "Lets a bad diagnosis page somebody, through a heartbeat of its own; null switches it off."
    )
