"""Migrations: what their files are called is what they are."""

import subprocess
import sys
from pathlib import Path

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import text

from lifesign.db import migrate
from lifesign.db.migrate import MAIN, Chain
from lifesign.db.open import SQLITE_FILE, sqlite_engine
from lifesign.telemetry.stores.open import CHAIN


@pytest.mark.parametrize("chain", [MAIN, CHAIN], ids=["main", "spans"])
def test_the_newest_file_is_the_head_of_one_line_and_each_is_named_by_its_revision(chain: Chain) -> None:
    scripts = ScriptDirectory.from_config(migrate.config(chain))
    known = [script.revision for script in scripts.walk_revisions()]

    assert scripts.get_heads() == [migrate.newest(chain)]
    assert sorted(known) == sorted(
        path.name.partition("_")[0] for path in (chain.directory / "versions").glob("[0-9]*.py")
    )


def test_tables_that_are_as_they_should_be_are_found_so_without_alembic(tmp_path: Path) -> None:
    path = tmp_path / SQLITE_FILE
    engine = sqlite_engine(path)
    assert migrate.upgrade(engine) is None
    engine.dispose()
    looking = (
        "import pathlib, sys; from lifesign.db import migrate; from lifesign.db.open import sqlite_engine;"
        f"print(migrate.upgrade(sqlite_engine(pathlib.Path({str(path)!r}))), 'alembic' in sys.modules)"
    )

    told = subprocess.run([sys.executable, "-c", looking], capture_output=True, text=True, check=True)

    assert told.stdout.split() == [migrate.newest(), "False"]


def test_heartbeats_of_suspended_systems_and_disabled_schedules_are_known_to_be_paused_by_them(tmp_path: Path) -> None:
    engine = sqlite_engine(tmp_path / SQLITE_FILE)
    settings = migrate.config()
    with engine.begin() as conn:
        settings.attributes["connection"] = conn
        command.upgrade(settings, "0019")
        for name, status in [("by-hand", "paused"), ("system", "paused"), ("resumed", "active"), ("bot", "paused")]:
            conn.execute(
                text(
                    "INSERT INTO heartbeats (id, project_id, name, mode, timezone, grace_ms, is_sticky_pause, search, "
                    "status, is_armed, anchor_at, checkin_count, created_at) "
                    "VALUES (:name, 'p', :name, 'recurring', 'UTC', 0, 1, :name, :status, 1, 0, 0, 0)"
                ),
                {"name": name, "status": status},
            )
        for name, suspended_at in [("by-hand", None), ("system", 5), ("resumed", 5)]:
            conn.execute(
                text(
                    "INSERT INTO systems (id, project_id, key, name, type, fqdn, notes, heartbeat_id, secret_hint, "
                    "credential_version, suspended_at, created_at, updated_at, search) "
                    "VALUES (:name, 'p', :name, :name, '', '', '', :name, 'abcd', 1, :at, 0, 0, :name)"
                ),
                {"name": name, "at": suspended_at},
            )
        conn.execute(
            text(
                "INSERT INTO bot_schedules (id, project_id, bot_id, member_id, prompt, prompt_hash, is_enabled, "
                "timezone, days, max_errors, options, version, execution_count, error_count, heartbeat_id, "
                "created_at, updated_at) "
                "VALUES ('s', 'p', 'b', '', 'x', 'x', 0, 'UTC', '', 5, '{}', 1, 0, 0, 'bot', 0, 0)"
            )
        )

    migrate.upgrade(engine)

    with engine.begin() as conn:
        flags = conn.execute(text("SELECT id FROM heartbeats WHERE is_suspended = 1 ORDER BY id")).scalars().all()
    engine.dispose()
    assert flags == ["bot", "system"]


def test_counted_requests_survive_being_laid_out_anew_and_are_added_up_by_hours_and_days(tmp_path: Path) -> None:
    hour, day = 3_600_000, 86_400_000
    engine = sqlite_engine(tmp_path / SQLITE_FILE)
    settings = migrate.config()
    with engine.begin() as conn:
        settings.attributes["connection"] = conn
        command.upgrade(settings, "0017")
        conn.execute(text("INSERT INTO usage_minutes VALUES (60000, 3, 2, 1, 40, 3, 5, NULL)"))
        conn.execute(text(f"INSERT INTO usage_minutes VALUES ({hour - 60_000}, 1, 0, 0, 9, 1, 9, 9)"))
        conn.execute(text(f"INSERT INTO usage_minutes VALUES ({hour}, 1, 0, 1, 7, 1, NULL, 7)"))
        conn.execute(text("INSERT INTO usage_latency VALUES (0, 7, 3), (0, 8, 1)"))
        conn.execute(text(f"INSERT INTO usage_latency VALUES ({day - hour}, 8, 2), ({day}, 8, 5)"))

    assert migrate.upgrade(engine) == "0017"

    with engine.begin() as conn:
        assert conn.execute(text("SELECT * FROM usage_minutes WHERE minute = 60000")).all() == [
            (60000, 3, 2, 1, 40, 3, 5, None)
        ]
        assert conn.execute(text("SELECT * FROM usage_latency WHERE hour = 0")).all() == [(0, 7, 3), (0, 8, 1)]
        assert conn.execute(text("SELECT * FROM usage_hours")).all() == [
            (0, 4, 2, 1, 49, 4, 5, 9),
            (hour, 1, 0, 1, 7, 1, None, 7),
        ]
        assert conn.execute(text("SELECT * FROM usage_latency_days")).all() == [(0, 7, 3), (0, 8, 3), (day, 8, 5)]
    engine.dispose()
