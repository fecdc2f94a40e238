import json
import os
import pwd
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from tests import postgres

ROOT = Path(__file__).parents[1]
AS_ROOT = os.geteuid() == 0


@pytest.fixture(scope="module", params=[postgres.installed_programs, postgres.bundled_programs])
def cluster(request: pytest.FixtureRequest) -> Iterator[postgres.Cluster]:
    find: Callable[[], Path | None] = request.param
    programs = find()
    if programs is None:
        pytest.skip(f"no PostgreSQL here: {find.__name__} finds none")
    started = postgres.start(programs=programs)
    yield started
    started.stop()


def test_a_database_keeps_what_was_written_to_it_across_a_restart(cluster: postgres.Cluster) -> None:
    cluster.create_database("kept")
    with psycopg.connect(cluster.url("kept")) as connection:
        connection.execute("CREATE TABLE greeting AS SELECT 'hello' AS word")

    cluster.restart()

    with psycopg.connect(cluster.url("kept")) as connection:
        assert connection.execute("SELECT word FROM greeting").fetchall() == [("hello",)]


def test_a_restart_breaks_open_connections(cluster: postgres.Cluster) -> None:
    with psycopg.connect(cluster.url("postgres"), autocommit=True) as connection:
        cluster.restart()

        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")


def test_a_dropped_database_is_gone_although_somebody_was_connected(cluster: postgres.Cluster) -> None:
    cluster.create_database("dropped")
    with psycopg.connect(cluster.url("dropped"), autocommit=True):
        cluster.drop_database("dropped")

    with pytest.raises(psycopg.OperationalError, match='database "dropped" does not exist'):
        psycopg.connect(cluster.url("dropped"))


def test_two_clusters_run_side_by_side_and_share_nothing(cluster: postgres.Cluster) -> None:
    other = postgres.start()
    try:
        other.create_database("theirs")

        with pytest.raises(psycopg.OperationalError, match='database "theirs" does not exist'):
            psycopg.connect(cluster.url("theirs"))
    finally:
        other.stop()


def test_only_a_durable_cluster_waits_for_the_disk(cluster: postgres.Cluster) -> None:
    durable = postgres.start(durable=True)
    try:
        assert _setting(durable, "fsync") == "on"
        assert _setting(durable, "full_page_writes") == "on"
        assert _setting(durable, "synchronous_commit") == "on"
        assert _setting(cluster, "fsync") == "off"
    finally:
        durable.stop()


def test_a_stopped_cluster_leaves_neither_a_listener_nor_a_file() -> None:
    cluster = postgres.start()
    directory = Path(_setting(cluster, "data_directory")).parent
    address = urlsplit(cluster.url("postgres"))
    assert directory.is_dir()

    cluster.stop()
    cluster.stop()

    assert not directory.exists()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address.hostname or "", address.port or 0), timeout=5)


def test_a_cluster_that_was_let_go_outlives_its_process_until_another_stops_it() -> None:
    starting = "from tests import postgres; print(postgres.start().let_go())"
    told = subprocess.run([sys.executable, "-c", starting], cwd=ROOT, check=True, capture_output=True, text=True)
    assert told.stderr == ""

    shared = postgres.Shared.of(told.stdout)
    directory = Path(_setting(shared, "data_directory")).parent
    address = urlsplit(shared.url("postgres"))
    shared.stop()

    assert not directory.exists()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address.hostname or "", address.port or 0), timeout=5)


def test_a_server_that_has_ended_by_itself_leaves_nothing_either(tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait(10)
    directory = tmp_path / "cluster"
    directory.mkdir()

    postgres.Shared.of(json.dumps([1, ended.pid, str(directory)])).stop()

    assert not directory.exists()


def test_a_new_database_is_gone_after_its_block(cluster: postgres.Cluster) -> None:
    with cluster.new_database() as url:
        psycopg.connect(url).close()

    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(url)


@pytest.mark.skipif(not AS_ROOT, reason="only root can run a server as somebody else")
@pytest.mark.parametrize("find", [postgres.installed_programs, postgres.bundled_programs])
def test_root_runs_the_server_as_an_account_without_rights(find: Callable[[], Path | None]) -> None:
    programs = find()
    if programs is None:
        pytest.skip(f"no PostgreSQL here: {find.__name__} finds none")
    cluster = postgres.start(programs=programs, account="nobody")
    try:
        server = int((Path(_setting(cluster, "data_directory")) / "postmaster.pid").read_text().splitlines()[0])

        assert Path(f"/proc/{server}").stat().st_uid == pwd.getpwnam("nobody").pw_uid
    finally:
        cluster.stop()


@pytest.mark.skipif(not AS_ROOT, reason="only root has to let another account at the programs")
def test_programs_under_a_closed_directory_are_copied_to_where_the_account_can_run_them(tmp_path: Path) -> None:
    programs = postgres.bundled_programs()
    if programs is None:
        pytest.skip("no PostgreSQL here: bundled_programs finds none")
    site = programs.parents[2]
    (tmp_path / "site").symlink_to(site)
    tmp_path.chmod(0o700)

    cluster = postgres.start(programs=tmp_path / "site" / programs.relative_to(site))
    try:
        assert _setting(cluster, "fsync") == "off"
    finally:
        cluster.stop()


def test_a_server_that_cannot_start_is_told_with_its_own_words(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("initdb", "postgres"):
        (programs / name).write_text("#!/bin/sh\necho 'the moon is in the wrong phase'\nexit 1\n")
        (programs / name).chmod(0o755)

    with pytest.raises(postgres.NoPostgres, match="the moon is in the wrong phase"):
        postgres.start(programs=programs)


# Databases that are used again ---------------------------------------------------------------------------------------
@pytest.fixture
def reused(cluster: postgres.Cluster) -> Iterator[postgres.Reused]:
    with cluster.new_database() as url:
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE alembic_version AS SELECT '7' AS version_num")
            connection.execute("CREATE TABLE mothers (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text)")
            connection.execute("CREATE TABLE children (mother int REFERENCES mothers)")
        databases = postgres.Reused(cluster, urlsplit(url).path[1:])
        yield databases
        databases.close()


def _born(url: str) -> int:
    """The id of a new mother, who has a child."""
    with psycopg.connect(url) as connection:
        [(found,)] = connection.execute("INSERT INTO mothers (name) VALUES ('Ann') RETURNING id").fetchall()
        connection.execute("INSERT INTO children VALUES (%s)", [found])
    return int(found)


def test_a_database_comes_back_empty_and_counts_from_one(reused: postgres.Reused) -> None:
    with reused.database() as first:
        assert (_born(first), _born(first)) == (1, 2)

    with reused.database() as second:
        assert second == first
        assert _born(second) == 1
        with psycopg.connect(second) as connection:
            assert connection.execute("SELECT mother FROM children").fetchall() == [(1,)]
            assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("7",)]


def test_rows_of_the_template_are_there_again(reused: postgres.Reused) -> None:
    for change in ("UPDATE alembic_version SET version_num = '8'", "DELETE FROM alembic_version"):
        with reused.database() as first, psycopg.connect(first) as connection:
            connection.execute(change)

        with reused.database() as second, psycopg.connect(second) as connection:
            assert second == first
            assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("7",)]


def test_nobody_else_has_a_database_that_is_in_use(reused: postgres.Reused) -> None:
    with reused.database() as one, reused.database() as other:
        assert one != other


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE mothers ADD COLUMN age int",
        "CREATE TABLE fathers ()",
        "DROP TABLE children",
        "CREATE INDEX further ON mothers (name)",
        "ALTER TABLE mothers ADD CONSTRAINT named CHECK (name <> '')",
        "INSERT INTO mothers (name) VALUES ('x'); ANALYZE mothers",
    ],
)
def test_a_database_that_was_rebuilt_is_not_used_again(reused: postgres.Reused, change: str) -> None:
    with reused.database() as first, psycopg.connect(first, autocommit=True) as connection:
        connection.execute(change)

    with reused.database() as second:
        assert second != first
        assert _born(second) == 1
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(first)


def test_a_database_that_somebody_is_still_at_is_not_used_again(reused: postgres.Reused) -> None:
    with ExitStack() as left:
        with reused.database() as first:
            left.enter_context(psycopg.connect(first))

        with reused.database() as second:
            assert second != first


def _setting(cluster: postgres.Databases, name: str) -> str:
    with psycopg.connect(cluster.url("postgres")) as connection:
        row = connection.execute("SELECT current_setting(%s)", [name]).fetchone()
    assert row is not None
    return str(row[0])
