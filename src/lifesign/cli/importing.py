"""`lifesign import`: taking over what another server watches."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lifesign.cli import options
from lifesign.cli.errors import CommandFailed, Refused, Unreachable, WrongUsage
from lifesign.cli.output import safe
from lifesign.cli.remote import Answer, Api, Call, Send, over_network, required_key, segment
from lifesign.cli.values import Json

if TYPE_CHECKING:
    from lifesign.importing.healthchecks import Present, Translated

app = typer.Typer(help="Take over what another server watches.", no_args_is_help=True)

_AT_ONCE = 4
_PAUSES_S = (1.0, 2.0, 4.0, 8.0)
_LONGEST_PAUSE_S = 60.0
_UNAUTHORIZED, _NOT_FOUND, _TOO_MANY, _SERVER_ERRORS = 401, 404, 429, 500
_CONFLICT = 409


@app.callback()
def root() -> None:
    """Take over what another server watches."""


@app.command("healthchecks")
def healthchecks(
    *,
    url: Annotated[str, typer.Option("--url", metavar="URL", help="Address of the Healthchecks server.")],
    api_key: Annotated[
        str | None,
        typer.Option(
            "--api-key", envvar="HEALTHCHECKS_API_KEY", help="Its API key, one that may write; better in the variable."
        ),
    ] = None,
    policy: Annotated[
        str | None, typer.Option("--policy", metavar="NAME", help="Policy of ours that every heartbeat gets.")
    ] = None,
    history: Annotated[bool, typer.Option("--history", help="Also when each check went down and up.")] = False,
    resume: Annotated[
        Path | None,
        typer.Option("--resume", metavar="STATE", help="File that remembers what is done; made when it is missing."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be made, and make nothing.")] = False,
    server: Annotated[
        str, typer.Option("--server", envvar="LIFESIGN_URL", help="Address of our server.")
    ] = options.DEFAULT_URL,
    key: options.Key = None,
) -> None:
    """Make a heartbeat for each check of a Healthchecks server; existing ping URLs with a UUID go on working."""
    from lifesign.importing import healthchecks as checks

    source = _Source(over_network(url, None), api_key or _missing_key())
    ours = Api(over_network(server, required_key(key)))
    state = _State.of(resume, url)
    try:
        found = [checks.translated(each) for each in checks.checks_in(source.get("checks/"))]
        names = checks.channels_in(source.get("channels/"))
    except checks.ReadOnlyKey:
        raise WrongUsage(
            "the API key may only read, so the UUIDs of the checks are hidden; use one that may write"
        ) from None
    except checks.NotACheck as error:
        raise CommandFailed(f"{url} does not answer as Healthchecks does: {error}") from None
    mapping = _Mapping.of(ours, names, policy)
    outcome = _Outcome()
    _require_write(ours)
    with _bar(len(found)) as advance:
        _Import(source, ours, mapping, state, outcome, with_history=history, dry_run=dry_run).run(found, advance)
    outcome.missing = mapping.missing(found)
    _report(outcome, dry_run=dry_run)
    if outcome.conflicts or outcome.refused:
        raise Refused(
            f"{len(outcome.conflicts) + len(outcome.refused)} of {len(found)} checks were not taken over",
            status=_CONFLICT,
        )


def _missing_key() -> str:
    raise WrongUsage("no API key of the Healthchecks server: set HEALTHCHECKS_API_KEY, or give --api-key")


def _require_write(ours: Api) -> None:
    """Only who may write is shown by what UUID heartbeats are pinged, which tells what is here already."""
    from lifesign.auth.rules import allows

    if not allows(frozenset(ours.get("/v1/whoami")["scopes"]), "heartbeats:write"):
        raise Refused("the key lacks heartbeats:write; nothing was changed", status=_UNAUTHORIZED)


# There ---------------------------------------------------------------------------------------------------------------
class _Source:
    """The management API of a Healthchecks server: the newest version it knows, patiently."""

    def __init__(self, send: Send, api_key: str) -> None:
        self._send = send
        self._headers = {"X-Api-Key": api_key}
        self._version = 3

    def get(self, path: str) -> Json:
        answer = self._patient(f"/api/v{self._version}/{path}")
        if answer.status == _NOT_FOUND and self._version > 1 and path == "checks/":
            self._version = 1
            return self.get(path)
        if answer.status == _UNAUTHORIZED:
            raise Refused("the Healthchecks server does not take the API key", status=answer.status)
        if answer.status >= 400:  # noqa: PLR2004 - the classes of errors
            raise CommandFailed(f"the Healthchecks server answers {path} with status {answer.status}")
        try:
            return json.loads(answer.content)
        except ValueError:
            raise CommandFailed("the answer is not JSON; does the address belong to a Healthchecks server?") from None

    def _patient(self, path: str) -> Answer:
        call = Call("GET", path, headers=self._headers)
        for pause_s in _PAUSES_S:
            try:
                answer = self._send(call)
            except Unreachable:
                time.sleep(pause_s)
                continue
            if answer.status != _TOO_MANY and answer.status < _SERVER_ERRORS:
                return answer
            time.sleep(max(pause_s, _retry_after_s(answer)))
        return self._send(call)


def _retry_after_s(answer: Answer) -> float:
    text = answer.headers.get("retry-after", "")
    return min(float(text), _LONGEST_PAUSE_S) if text.isascii() and text.isdigit() else 0.0


# Here ----------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class _Mapping:
    """What theirs is here. names: of their channels, by id; channels: ids of ours, by name."""

    names: dict[str, str]
    channels: dict[str, str]
    policy: str | None

    @classmethod
    def of(cls, ours: Api, names: dict[str, str], policy: str | None) -> "_Mapping":
        listed = ours.rows("/v1/channels", "channels", None)["channels"] if names else []
        channels = {row["name"]: row["id"] for row in listed}
        for name in {row["name"] for row in listed if sum(each["name"] == row["name"] for each in listed) > 1}:
            del channels[name]
        return cls(names, channels, None if policy is None else _policy(ours, policy))

    def of_check(self, check: "Translated") -> list[str]:
        """The channels here of a check there."""
        named = [self.names.get(each, each) for each in check.channels]
        return list(dict.fromkeys(self.channels[name] for name in named if name in self.channels))

    def missing(self, checks: "list[Translated]") -> list[str]:
        """Channels that checks name and that are not here."""
        named = {self.names.get(each, each) for check in checks for each in check.channels}
        return sorted(named - set(self.channels))


def _policy(ours: Api, name: str) -> str:
    found = [row["id"] for row in ours.rows("/v1/policies", "policies", None)["policies"] if row["name"] == name]
    if len(found) != 1:
        raise WrongUsage(f"--policy: there are {len(found)} policies named {name!r}")
    return str(found[0])


@dataclass(slots=True)
class _State:
    """The checks that are done, by UUID. path: where a line is kept for each, after that of the source; or nowhere."""

    path: Path | None
    source: str
    done: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, path: Path | None, source: str) -> "_State":
        if path is None or not path.exists():
            return cls(path, source)
        try:
            first, *lines = path.read_text().splitlines()
            kept = str(json.loads(first)["source"])
        except (OSError, ValueError, KeyError, TypeError):
            raise WrongUsage(f"--resume: {path} is not the state of an import; choose another file") from None
        if kept != source:
            raise WrongUsage(f"--resume: {path} belongs to an import from {kept}")
        # A line that a killed command left unfinished is no UUID, and its check is looked up again.
        return cls(path, source, set(lines))

    def add(self, uuid: str) -> None:
        """Remember a check."""
        if self.path is not None:
            try:
                with self.path.open("a") as file:
                    # The line break comes first, since the line before may be unfinished.
                    file.write(f"\n{uuid}" if file.tell() else f"{json.dumps({'source': self.source})}\n{uuid}")
            except OSError as error:
                raise CommandFailed(f"cannot write {self.path}: {error.strerror}") from None
        self.done.add(uuid)


@dataclass(slots=True)
class _Outcome:
    """What became of the checks."""

    made: list[str] = field(default_factory=list)
    known: int = 0
    events: int = 0
    conflicts: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Import:
    """One import, with all it needs."""

    source: _Source
    ours: Api
    mapping: _Mapping
    state: _State
    outcome: _Outcome
    with_history: bool
    dry_run: bool

    def run(self, found: "list[Translated]", advance: Callable[[], None]) -> None:
        """Take over every check that is not here yet."""
        from lifesign.importing.healthchecks import Present

        present = Present(self.ours.rows("/v1/heartbeats", "heartbeats", None)["heartbeats"])
        wants_past = self.with_history and not self.dry_run
        past = {check.uuid for check in found} - self.state.done if wants_past else set()
        with _flips(self.source, [check.uuid for check in found if check.uuid in past]) as flips_of:
            for check in found:
                heartbeat_id = self._taken_over(check, present)
                if heartbeat_id is not None and not self.dry_run:
                    if check.uuid in past:
                        self.outcome.events += _imported(self.ours, heartbeat_id, flips_of(check.uuid))
                    if check.uuid not in self.state.done:
                        self.state.add(check.uuid)
                advance()

    def _taken_over(self, check: "Translated", present: "Present") -> str | None:
        """The id of the heartbeat that a check is now; None when it is none."""
        from lifesign.importing.healthchecks import ORIGIN, Known

        standing = present.of(check)
        if isinstance(standing, str):
            self.outcome.conflicts.append(f"{check.name}: {standing}")
            return None
        if standing is not None:
            self.outcome.known += 1
            return standing.id
        made = _made(self.ours, check, self.mapping, self.outcome, dry_run=self.dry_run)
        if made is not None:
            present.add(Known(made, check.body.get("slug"), check.uuid, ORIGIN))
        return made


def _made(ours: Api, check: "Translated", mapping: _Mapping, outcome: _Outcome, *, dry_run: bool) -> str | None:
    """The id of a new heartbeat; None when the server refuses it."""
    body = dict(check.body)
    if channels := mapping.of_check(check):
        body["channels"] = channels
    if mapping.policy is not None:
        body["policy"] = mapping.policy
    made = {"id": ""}
    if not dry_run:
        try:
            made = ours.post("/v1/heartbeats", body)
        except Refused as error:
            outcome.refused.append(f"{check.name}: {error}")
            return None
    outcome.made.append(check.name)
    outcome.remarks += [f"{check.name}: {remark}" for remark in check.remarks]
    return str(made["id"])


def _imported(ours: Api, heartbeat_id: str, flips: list[dict[str, str]]) -> int:
    from lifesign.importing.healthchecks import MAX_EVENTS

    path = f"/v1/heartbeats/{segment(heartbeat_id)}/events/import"
    parts = [flips[start : start + MAX_EVENTS] for start in range(0, len(flips), MAX_EVENTS)]
    return sum(int(ours.post(path, {"events": part})["imported"]) for part in parts)


@contextmanager
def _flips(source: _Source, uuids: list[str]) -> Iterator[Callable[[str], list[dict[str, str]]]]:
    """The flips of checks, a few of them fetched ahead at once."""
    from lifesign.importing.healthchecks import NotACheck, flips_in

    pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="flips")
    try:
        asked = {uuid: pool.submit(source.get, f"checks/{uuid}/flips/") for uuid in uuids}

        def flips_of(uuid: str) -> list[dict[str, str]]:
            try:
                return flips_in(asked[uuid].result())
            except NotACheck as error:
                raise CommandFailed(f"the Healthchecks server has no flips of {uuid}: {error}") from None

        yield flips_of
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


# Telling -------------------------------------------------------------------------------------------------------------
def _report(outcome: _Outcome, *, dry_run: bool) -> None:
    if dry_run:
        for name in outcome.made:
            print(f"+ heartbeat {safe(name)}")
    counts = [f"{len(outcome.made)} {'to create' if dry_run else 'created'}", f"{outcome.known} already there"]
    if outcome.events:
        counts.append(f"{outcome.events} events of history")
    print(", ".join(counts))
    for heading, lines in (
        ("not taken over:", outcome.conflicts),
        ("refused:", outcome.refused),
        ("taken over with a difference:", outcome.remarks),
        ("channels that have no counterpart of the same name here:", outcome.missing),
    ):
        if lines:
            print(heading)
            for line in lines:
                print(f"  {safe(line)}")


@contextmanager
def _bar(total: int) -> Iterator[Callable[[], None]]:
    """A progress bar, on a terminal."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("importing", total=total)
        yield lambda: bar.advance(task)
