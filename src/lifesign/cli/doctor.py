"""`lifesign doctor`: is everything as it should be, and if not, what to do."""

import contextlib
import json
import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lifesign.cli import options
from lifesign.cli.environment import read_settings, storage_failure
from lifesign.cli.errors import CommandFailed, WrongUsage
from lifesign.cli.output import now, print_json, print_rows, short_span
from lifesign.cli.remote import Answer, Call, over_network

if TYPE_CHECKING:
    # Loaded by the commands that need it, as in `environment`.
    from lifesign.settings import Settings
    from lifesign.telemetry.stores.clickhouse.client import Address

_FIXED_SQLITE = (3, 51, 3)
_LOW_SPACE, _NO_SPACE = 1 << 30, 50 << 20
_CLOCK_WARN_S, _CLOCK_FAIL_S = 5, 60
_TIMEOUT_S = 5.0
_OK = 200
_FEWEST_ZONES = 300
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. todo: what to do about it, when it is not ok."""

    result: Literal["ok", "warn", "fail"]
    found: str
    todo: str = ""


def doctor(
    *,
    data_dir: options.DataDir = None,
    url: Annotated[
        str | None,
        typer.Option("--url", envvar="LIFESIGN_URL", help=f"Address of the server; {options.DEFAULT_URL} by default."),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Check this machine, the data directory and the server; exit with 1 when something fails."""
    rows = [
        {"result": finding.result, "check": name, "found": finding.found, "what to do": finding.todo}
        for name, finding in _findings(data_dir, url)
    ]
    if as_json:
        print_json({"checks": rows})
    else:
        print_rows(rows, [(name, itemgetter(name)) for name in ("result", "check", "found", "what to do")], empty="")
    failed = [row["check"] for row in rows if row["result"] == "fail"]
    if failed:
        raise CommandFailed(f"{len(failed)} of {len(rows)} checks failed: {', '.join(failed)}")


def spelling(variables: Iterable[str]) -> Finding:
    """Whether a variable is set that no setting reads, and that is nearly the name of one."""
    from lifesign.settings import misspelt

    wrong = misspelt(variables)
    if not wrong:
        return Finding("ok", "readable")
    return Finding("warn", f"read by nobody: {', '.join(wrong)}", f"did you mean {', '.join(wrong.values())}?")


def _findings(data_dir: str | None, url: str | None) -> Iterator[tuple[str, Finding]]:
    yield "python", Finding("ok", ".".join(map(str, sys.version_info[:3])))
    yield "time zones", time_zones()
    try:
        settings = read_settings(data_dir=data_dir)
    except WrongUsage as error:
        yield "settings", Finding("fail", " ".join(str(error).split()), "correct or unset these variables")
        return
    yield "settings", spelling(os.environ)
    if settings.database_url is None:
        yield "sqlite", sqlite_version()
        yield "data directory", directory(settings.data_dir)
        yield "free space", free_space(settings.data_dir)
    with _lock(settings) as holder:
        if settings.database_url is None:
            yield "lock", _lock_finding(settings.data_dir, holder)
        yield "database", schema(settings)
        yield "records", records(settings)
    yield "secret key", secret_key(settings)
    yield "signup secret", signup_secret(settings)
    yield "e-mail", _smtp(settings)
    yield from _server(url)


def time_zones() -> Finding:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

    try:
        ZoneInfo("America/New_York")
    except ZoneInfoNotFoundError:
        return Finding(
            "fail", "no time zone data", "install the package tzdata, of the system or from the package index"
        )
    count = len(available_timezones())
    return Finding(
        "ok" if count >= _FEWEST_ZONES else "warn",
        f"{count} zones",
        "" if count >= _FEWEST_ZONES else "install the package tzdata",
    )


def sqlite_version() -> Finding:
    import sqlite3

    if sqlite3.sqlite_version_info >= _FIXED_SQLITE:
        return Finding("ok", sqlite3.sqlite_version)
    return Finding(
        "warn",
        f"{sqlite3.sqlite_version}, older than 3.51.3",
        "nothing, as long as only the server writes the file: do not open it with other programs while it runs",
    )


def directory(path: Path) -> Finding:
    if not path.exists():
        return Finding("warn", f"{path} does not exist", "the first start makes it; is --data-dir right?")
    if not path.is_dir():
        return Finding("fail", f"{path} is not a directory", "give another one with --data-dir or LIFESIGN_DATA_DIR")
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        return Finding(
            "fail", f"{path} is not writable", "run this as the user of the server, or give the directory to that user"
        )
    if stat.S_IMODE(path.stat().st_mode) & _OTHERS:
        return Finding("warn", f"{path} can be entered by others", f"chmod 700 {path}")
    return Finding("ok", f"{path} is writable")


def free_space(path: Path) -> Finding:
    there = next(each for each in (path.absolute(), *path.absolute().parents) if each.exists())
    free = shutil.disk_usage(there).free
    found = f"{free / (1 << 30):.1f} GiB"
    if free < _NO_SPACE:
        return Finding("fail", found, "make room: without it no check-in can be stored")
    return Finding("warn", found, "make room before it runs out") if free < _LOW_SPACE else Finding("ok", found)


@contextlib.contextmanager
def _lock(settings: "Settings") -> Iterator[str | None]:
    """Hold the data directory where it is free, so that looking into the file is safe; else who holds it."""
    from lifesign.db.open import LOCK_FILE, DataDirectoryInUse, data_directory_lock

    with contextlib.ExitStack() as stack:
        holder = None
        # A look makes nothing: neither a directory nor a lock file where there was none.
        if settings.database_url is None and os.access(settings.data_dir / LOCK_FILE, os.R_OK | os.W_OK):
            try:
                stack.enter_context(data_directory_lock(settings.data_dir))
            except DataDirectoryInUse as error:
                holder = error.pid
        yield holder


def _lock_finding(path: Path, holder: str | None) -> Finding:
    if holder is None:
        return Finding("ok", "free: no server runs on it")
    if (path / "admin.sock").exists():
        return Finding("ok", f"held by process {holder}, a server")
    return Finding(
        "warn",
        f"held by process {holder}, which has no admin.sock",
        "if it is no server that is just starting, look at that process",
    )


def schema(settings: "Settings") -> Finding:
    from lifesign.db.migrate import newest
    from lifesign.db.open import SQLITE_FILE

    path = settings.data_dir / SQLITE_FILE
    try:
        if settings.database_url is None and not path.exists():
            return Finding("warn", f"{path} does not exist", "the first start makes it")
        url = settings.database_url
        current = _sqlite_revision(path) if url is None else _postgres_revision(url.get_secret_value())
    except Exception as error:  # noqa: BLE001 - whatever keeps the database from opening is what this check is to tell
        return Finding(
            "fail", f"cannot be opened: {storage_failure(error)}", "restore a backup, or correct LIFESIGN_DATABASE_URL"
        )
    return _compared(current, newest(), "lifesign migrate, or the next start, brings it up")


def records(settings: "Settings") -> Finding:
    """The store of telemetry: a file, a database, or ClickHouse."""
    from lifesign.db.migrate import newest
    from lifesign.telemetry.stores.clickhouse.client import Address
    from lifesign.telemetry.stores.open import CHAIN, SCHEMA, place_of

    place = place_of(settings)
    if isinstance(place, Address):
        return _clickhouse(place)
    if isinstance(place, Path) and not place.exists():
        return Finding("warn", f"{place} does not exist", "the next start makes it")
    try:
        current = _sqlite_revision(place) if isinstance(place, Path) else _postgres_revision(place, SCHEMA)
    except Exception as error:  # noqa: BLE001 - as for the database
        todo = f"restore a backup of {place.name}" if isinstance(place, Path) else "correct LIFESIGN_TELEMETRY_URL"
        return Finding("fail", f"cannot be opened: {storage_failure(error)}", todo)
    return _compared(current, newest(CHAIN), "lifesign migrate, or the next start, brings it up")


def _clickhouse(address: "Address") -> Finding:
    """Whether a server answers. Its tables have no revisions, and chdb belongs to the process that opened it."""
    if address.path is not None:
        return directory(Path(address.path))
    url = f"{'https' if address.is_secure else 'http'}://{address.host}:{address.port}"
    try:
        answer = over_network(url, None, timeout_s=_TIMEOUT_S)(Call("GET", "/ping"))
    except CommandFailed as error:
        return Finding(
            "fail", str(error), "start ClickHouse, or correct LIFESIGN_TELEMETRY_URL; records wait meanwhile"
        )
    if answer.status != _OK:
        return Finding(
            "fail", f"{url} answered with status {answer.status}", "is it ClickHouse? see LIFESIGN_TELEMETRY_URL"
        )
    return Finding("ok", f"ClickHouse answers on {url}")


def _compared(current: str | None, newest: str, todo: str) -> Finding:
    if current == newest:
        return Finding("ok", f"opens; schema {current} is current")
    if current is None or current < newest:
        return Finding("warn", f"schema {current or 'none'} is older than {newest}", todo)
    return Finding(
        "fail",
        f"schema {current} is newer than {newest}",
        "start the version of Lifesign that wrote it, or a later one",
    )


def _sqlite_revision(path: Path) -> str | None:
    """Read only, through a connection that can neither write nor checkpoint: a server may be at work."""
    import sqlite3
    from urllib.parse import quote

    connection = sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True, timeout=_TIMEOUT_S)
    try:
        if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone() is None:
            return None
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        return None if row is None else str(row[0])
    finally:
        connection.close()


def _postgres_revision(address: str, schema: str | None = None) -> str | None:
    from lifesign.db.migrate import current
    from lifesign.db.open import postgres_engine_at

    engine = postgres_engine_at(address, size=1, schema=schema, read_only=True)
    try:
        with engine.connect() as conn:
            return current(conn)
    finally:
        engine.dispose()


def secret_key(settings: "Settings") -> Finding:
    if settings.secret_key is not None:
        return Finding("ok", "set by LIFESIGN_SECRET_KEY")
    return _secret_file(settings.data_dir / "secret.key", "keep a backup of it, apart from the database")


def signup_secret(settings: "Settings") -> Finding:
    """What the recovery codes of projects are made with."""
    if settings.signup_upgrade_secret is not None:
        is_off = settings.signup_upgrade_secret.get_secret_value().strip().lower() == "off"
        return Finding("ok", "switched off" if is_off else "set by LIFESIGN_SIGNUP_UPGRADE_SECRET")
    return _secret_file(
        settings.data_dir / "signup_upgrade_secret", "keep a backup: without it recovery codes are void"
    )


def _secret_file(path: Path, keep: str) -> Finding:
    if not path.exists():
        return Finding("warn", f"{path} does not exist", f"the first start makes it; {keep}")
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & _OTHERS:
        return Finding("fail", f"{path} has mode {mode:04o}", f"chmod 600 {path}")
    if not (path.is_file() and os.access(path, os.R_OK)):
        return Finding("fail", f"{path} cannot be read", "run this as the user of the server, or restore a backup")
    return Finding("ok", f"{path} has mode {mode:04o}")


def _smtp(settings: "Settings") -> Finding:
    if settings.smtp_host is None:
        return Finding("warn", "no SMTP server", "set LIFESIGN_SMTP_HOST and its like, or e-mail channels cannot send")
    return Finding("ok", f"{settings.smtp_host}:{settings.smtp_port}, TLS: {settings.smtp_tls}")


def _server(url: str | None) -> Iterator[tuple[str, Finding]]:
    send = over_network(url or options.DEFAULT_URL, None, timeout_s=_TIMEOUT_S)
    try:
        health = send(Call("GET", "/health"))
        ready = send(Call("GET", "/ready"))
    except CommandFailed as error:
        # Only a server that somebody named is missed.
        yield (
            "server",
            Finding("warn" if url is None else "fail", str(error), "lifesign serve starts one; --url names another"),
        )
        return
    yield "server", _health(health)
    yield "ready", _readiness(ready)
    yield "clock", clock_difference(health, now)


def _health(answer: Answer) -> Finding:
    body = _json(answer)
    if answer.status != _OK or body.get("status") != "ok":
        return Finding(
            "fail", f"/health answered with status {answer.status}", "is it a Lifesign server? --url names another"
        )
    return Finding("ok", f"Lifesign {body.get('version', 'of unknown version')}")


def _readiness(answer: Answer) -> Finding:
    body = _json(answer)
    if answer.status == _OK and body.get("ready"):
        return Finding("ok", "database and engine work")
    return Finding("fail", f"not ready: database {body.get('database', 'unknown')}", "look at the log of the server")


def clock_difference(answer: Answer, now_ms: Callable[[], int]) -> Finding:
    from email.utils import parsedate_to_datetime

    try:
        distance_s = abs(parsedate_to_datetime(answer.headers.get("date", "")).timestamp() - now_ms() / 1000)
    except (TypeError, ValueError):
        return Finding("warn", "the server tells no time", "is there a proxy that removes the header Date?")
    if distance_s < _CLOCK_WARN_S:
        return Finding("ok", "agrees with the server's")
    result: Literal["warn", "fail"] = "warn" if distance_s < _CLOCK_FAIL_S else "fail"
    return Finding(
        result,
        f"differs from the server's by {short_span(round(distance_s))}",
        "let NTP set the clocks of both machines",
    )


def _json(answer: Answer) -> dict[str, object]:
    try:
        body = json.loads(answer.content)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
