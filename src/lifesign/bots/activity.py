"""What open pages are told of bots: that something became of a run. Committed with the change itself.

A line of history that names a bot where others name a heartbeat. Nobody reads it but pages that are open, and as there
is no such heartbeat, the next pruning takes it.
"""

from collections.abc import Iterable

from sqlalchemy import Connection

from lifesign.bots.records import Run
from lifesign.clock import EpochMs
from lifesign.events import service as events
from lifesign.events.rules import Event


def changed(conn: Connection, runs: Iterable[Run], now: EpochMs) -> None:
    """Runs were made, started, parked, asked to end, or ended: once for each bot, however many."""
    bots = dict.fromkeys((each.project_id, each.bot_id) for each in runs)
    events.record(conn, [Event(project_id, bot_id, "bot_run") for project_id, bot_id in bots], now)


def edited(conn: Connection, project_id: str, bot_id: str, now: EpochMs) -> None:
    """Somebody changed a bot, or a schedule of it."""
    events.record(conn, [Event(project_id, bot_id, "bot_run")], now)


def progressed(conn: Connection, run: Run, now: EpochMs) -> None:
    """A run has said or spent something."""
    events.record(conn, [Event(run.project_id, run.bot_id, "bot_progress")], now)
