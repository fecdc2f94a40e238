"""Two handles on one PostgreSQL: what one commits wakes the other, long before its next idle poll."""

import asyncio

import psycopg
import pytest
from sqlalchemy import Connection

from lifesign.db import Database, open_database
from lifesign.db.wakeups import Loop, wake_after_commit
from lifesign.settings import Settings

pytestmark = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)

_LISTENERS = (
    "FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%' AND pid <> pg_backend_pid()"
)


def ask(conn: Connection, loop: Loop) -> None:
    wake_after_commit(conn, loop)


async def woken(db: Database, loop: Loop) -> None:
    """Return when `loop` is woken; it is asleep again afterwards."""
    async with asyncio.timeout(10):
        await db.wakeups.event(loop).wait()
    db.wakeups.event(loop).clear()


async def listening(db: Database) -> None:
    """Begin to listen, and forget the look around with which that begins."""
    db.listen()
    for loop in ("sweep", "escalate", "deliver"):
        await woken(db, loop)


async def test_a_commit_on_one_node_wakes_the_loop_it_is_for_on_the_other(settings: Settings) -> None:
    one, other = open_database(settings), open_database(settings)
    await listening(other)

    await one.write(ask, "escalate")
    await woken(other, "escalate")

    assert not other.wakeups.event("sweep").is_set()
    await one.close()
    await other.close()


async def test_a_node_does_not_hear_itself(settings: Settings) -> None:
    one, other = open_database(settings), open_database(settings)
    await listening(one)

    await one.write(ask, "sweep")
    await woken(one, "sweep")  # by the commit itself
    await other.write(ask, "deliver")
    await woken(one, "deliver")  # whatever the listener heard of the first commit, it heard before this

    assert not one.wakeups.event("sweep").is_set()
    await one.close()
    await other.close()


async def test_a_listener_whose_connection_breaks_comes_back_and_looks_around(settings: Settings) -> None:
    one, other = open_database(settings), open_database(settings)
    await listening(other)
    assert settings.database_url is not None

    with psycopg.connect(settings.database_url.get_secret_value(), autocommit=True) as admin:
        ended = admin.execute(f"SELECT count(pg_terminate_backend(pid)) {_LISTENERS}").fetchone()
    for loop in ("sweep", "escalate", "deliver"):
        await woken(other, loop)
    await one.write(ask, "sweep")
    await woken(other, "sweep")

    assert ended == (1,)
    await one.close()
    await other.close()
