"""Hints, sent after a commit, that a loop of the engine has something to do.

Nothing depends on them: a lost hint costs at most one idle poll. A write function calls `wake_after_commit`; the
writer forwards what was asked for once the transaction is durable.
"""

import asyncio
from typing import Literal, get_args

from sqlalchemy import Connection

Loop = Literal["sweep", "escalate", "deliver", "bots_claim", "bots_run"]
LOOPS: frozenset[Loop] = frozenset(get_args(Loop))

_KEY = "lifesign.wake"


def wake_after_commit(conn: Connection, loop: Loop) -> None:
    """Ask for `loop` to tick soon after the running transaction has committed."""
    conn.info.setdefault(_KEY, set()).add(loop)


def take(conn: Connection) -> set[Loop]:
    """Return the loops asked for since the last call."""
    asked: set[Loop] = conn.info.pop(_KEY, set())
    return asked


class Wakeups:
    """One event per loop, set from the event loop's thread."""

    def __init__(self) -> None:
        self._events: dict[Loop, asyncio.Event] = {
            "sweep": asyncio.Event(),
            "escalate": asyncio.Event(),
            "deliver": asyncio.Event(),
            "bots_claim": asyncio.Event(),
            "bots_run": asyncio.Event(),
        }
        self.any = asyncio.Event()

    def event(self, loop: Loop) -> asyncio.Event:
        """Return the event that wakes `loop`; whoever waits clears it."""
        return self._events[loop]

    def wake(self, loops: set[Loop]) -> None:
        """Set the events of `loops`."""
        for loop in loops:
            self._events[loop].set()
        if loops:
            self.any.set()
