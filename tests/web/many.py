"""Ten thousand things that beat, as rows of the database: made in a second, where requests would take minutes."""

from typing import Any

from sqlalchemy import Connection, Table, select

from lifesign.clock import EpochMs
from lifesign.db.schema import bot_schedules, heartbeats

HEARTBEATS = 9_000
SCHEDULES = 1_000


def ten_thousand(conn: Connection, heartbeat_id: str, schedule_id: str, now: EpochMs) -> None:
    """More rows like these two."""
    beat, schedule = _row_of(conn, heartbeats, heartbeat_id), _row_of(conn, bot_schedules, schedule_id)
    due_at = [now + 86_400_000 + number * 1000 for number in range(HEARTBEATS)]
    alive = [{"status": "alive", "is_armed": 1, "next_deadline": at, "check_at": at, "fires_at": at} for at in due_at]
    paused = {"status": "paused", "is_armed": 0, "next_deadline": None, "check_at": None, "fires_at": None}
    beats = [
        beat
        | {
            "id": f"hb_{number:032x}",
            "slug": f"row-{number}",
            "ping_id": f"ping {number}",
            "badge_id": f"badge {number}",
            "name": f"Job {number:05}",
            "search": f"job {number:05} row-{number}",
            "grace_ms": 0,
            "last_checkin_at": now - number * 1000,
        }
        | (alive[number] if number % 4 else paused)
        for number in range(1, HEARTBEATS)
    ]
    schedules = [
        schedule
        | {
            "id": f"sch_{number:032x}",
            "prompt": f"Sum up page {number}",
            "prompt_hash": f"{number}",
            "is_enabled": 0,
            "next_slot": None,
            "next_run_at": None,
        }
        for number in range(1, SCHEDULES)
    ]
    conn.execute(heartbeats.insert(), beats)
    conn.execute(bot_schedules.insert(), schedules)


def _row_of(conn: Connection, table: Table, key: str) -> dict[str, Any]:  # Any: columns of several types
    return dict(conn.execute(select(table).where(table.c.id == key)).mappings().one())
