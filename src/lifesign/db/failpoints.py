"""Named points at which a test makes the process die, fail or hesitate. Inert unless armed.

`LIFESIGN_FAILPOINTS="claim.after_commit=kill:2,sweep.before_commit=raise"`: the second pass of the first point sends
SIGKILL to this process, the first pass of the other raises `InjectedFault`. Each triggers once.
"""

import os
import re
import signal
import threading
import time
from dataclasses import dataclass, field

_ENTRY = re.compile(r"(?P<name>[a-z_]+\.[a-z_]+)=(?P<action>kill|raise|crash|sleep(?P<ms>\d+))(:(?P<nth>[1-9]\d*))?")


class InjectedFault(Exception):
    """An armed failpoint raised."""


class SimulatedCrash(BaseException):
    """In-process stand-in for SIGKILL: nothing catches it, and the node object is thrown away."""


@dataclass(slots=True)
class _Armed:
    action: str
    nth: int
    sleep_ms: int
    passes: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


class Failpoints:
    """The armed failpoints of one node."""

    def __init__(self, spec: str = "") -> None:
        """Arm what `spec` names; raises ValueError naming the entry that does not parse."""
        self._armed: dict[str, _Armed] = {}
        self.arm(spec)

    def arm(self, spec: str) -> None:
        """Arm what `spec` names besides. Raises ValueError."""
        for entry in filter(None, (part.strip() for part in spec.split(","))):
            match = _ENTRY.fullmatch(entry)
            if match is None:
                msg = f"failpoint {entry!r} is not name=kill|raise|sleep<ms>[:nth]"
                raise ValueError(msg)
            self._armed[match["name"]] = _Armed(match["action"], int(match["nth"] or 1), int(match["ms"] or 0))

    def hit(self, name: str) -> None:
        """Pass the point `name`."""
        armed = self._armed.get(name)
        if armed is None:
            return
        with armed.lock:
            armed.passes += 1
            if armed.passes != armed.nth:
                return
        if armed.action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif armed.action == "raise":
            raise InjectedFault(name)
        elif armed.action == "crash":
            raise SimulatedCrash(name)
        else:
            time.sleep(armed.sleep_ms / 1000)
