"""Refused input, told field by field. Free of HTTP: the envelopes decide what it looks like on the wire."""

import dataclasses
from dataclasses import dataclass
from typing import Any

MAX_FAULTS = 20


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with one field (`steps[0].channels[1]`, `interval`, `body`)."""

    field: str
    message: str
    # Any: the refused value as the caller sent it, echoed back; absent for secrets.
    value: Any = dataclasses.field(default=None)
    has_value: bool = False


class InvalidInput(Exception):
    """The caller sent something that cannot be accepted; nothing was stored."""

    def __init__(self, *faults: Fault) -> None:
        super().__init__(faults[0].message if faults else "invalid input")
        self.faults = faults[:MAX_FAULTS]


def invalid(field_name: str, message: str) -> InvalidInput:
    """Return the exception for one faulty field, without its value."""
    return InvalidInput(Fault(field_name, message))
