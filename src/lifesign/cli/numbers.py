"""Numbers that people type as options."""

import math

import typer


def finite(value: float | None) -> float | None:
    """A number that is one, as the `callback` of an option: to the parser, `nan` lies within every range."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a number")
    return value
