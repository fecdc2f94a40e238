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


def test_counted_requests_survive_being_laid_out_anew(tmp_path: Path) -> None:
    engine = sqlite_engine(tmp_path / SQLITE_FILE)
    settings = migrate.config()
    with engine.begin() as conn:
        settings.attributes["connection"] = conn
        command.upgrade(settings, "0017")
        conn.execute(text("INSERT INTO usage_minutes VALUES (60000, 3, 2, 1, 40, 3, 5, NULL)"))
        conn.execute(text("INSERT INTO usage_latency VALUES (0, 7, 3), (0, 8, 1)"))

    assert migrate.upgrade(engine) == "0017"

    with engine.begin() as conn:
        assert conn.execute(text("SELECT * FROM usage_minutes")).all() == [(60000, 3, 2, 1, 40, 3, 5, None)]
        assert conn.execute(text("SELECT * FROM usage_latency")).all() == [(0, 7, 3), (0, 8, 1)]
    engine.dispose()
