"""Runs done by a program of the operator: a job on its standard input, JSON lines on its standard output.

The same file names programs that are servers of tools for the builtin runner.

Which programs there are stands in the operator's file `bots.toml`. None is started by a shell; each gets a process
group and a directory of its own, and nothing that it begins outlives the run, or the server.
"""

import asyncio
import contextlib
import os
import re
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import structlog

from lifesign.bots.agent.keeping import Kept, kept
from lifesign.bots.outcomes import Outcome
from lifesign.bots.runners.contract import (
    INVALID,
    MAX_ANSWER_BYTES,
    Progress,
    Result,
    job_of,
    result_of,
    totals_of,
    traceparent,
)
from lifesign.bots.starting import Started
from lifesign.bots.tools import LABELS

log = structlog.get_logger("lifesign.bots")

FILE = "bots.toml"
_TABLES = ("commands", "mcp")
_KEYS = {"argv", "env", "cwd", "projects"}
_SERVER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SKIPPED_EXIT = 75
_STDERR_BYTES = 65_536
_TERM_S = 2.0
_USUAL_ENV = ("PATH", "LANG")
EVERYBODY = "*"


class InvalidCommands(ValueError):
    """The operator's file cannot be used; the message says where and why."""


@dataclass(frozen=True, slots=True)
class Command:
    """A program that runs may be done by."""

    argv: tuple[str, ...]
    env: tuple[str, ...] = _USUAL_ENV
    cwd: str | None = None
    projects: tuple[str, ...] = ("default",)
    labels: tuple[str, ...] | None = None
    """Of the tools of a server; None for the usual ones."""

    def is_for(self, project_id: str, default_project: str) -> bool:
        """Whether a project may use it. default_project: the id of the one that the file calls `default`."""
        allowed = {default_project if each == "default" else each for each in self.projects}
        return EVERYBODY in allowed or project_id in allowed


class Programs(NamedTuple):
    """What the operator's file names."""

    commands: dict[str, Command]
    servers: dict[str, Command]


def commands_in(directory: Path) -> dict[str, Command]:
    """The programs that runs may be done by. Raises InvalidCommands."""
    return programs_in(directory).commands


def programs_in(directory: Path) -> Programs:
    """The programs of the operator's file; none where there is no file. Raises InvalidCommands."""
    path = directory / FILE
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Programs({}, {})
    except (OSError, UnicodeError) as error:
        raise InvalidCommands(f"{path}: cannot be read: {error}") from error
    try:
        told = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidCommands(f"{path}: {error}") from error
    for name in told:
        if name not in _TABLES:
            raise _refused(path, text, name, f"unknown key; there are {' and '.join(_TABLES)}")
    found: dict[str, dict[str, Command]] = {}
    for kind in _TABLES:
        tables = told.get(kind, {})
        if not isinstance(tables, dict):
            raise _refused(path, text, kind, f"must be tables, [{kind}.name]")
        found[kind] = {name: _command(path, text, (kind, name), each) for name, each in tables.items()}
    return Programs(found["commands"], found["mcp"])


def _command(path: Path, text: str, name: tuple[str, str], told: Any) -> Command:  # Any: what stands in the file
    kind, own = name
    title = f"{kind}.{own}"
    where = rf"{kind}\.[\"']?{re.escape(own)}"
    if not isinstance(told, dict):
        raise _refused(path, text, where, f"{title}: must be a table")
    if kind == "mcp" and _SERVER_NAME.fullmatch(own) is None:
        raise _refused(path, text, where, f"{title}: the name must be 1 to 64 letters, digits, '.', '_' and '-'")
    after = _line_of(text, where)
    keys = _KEYS | ({"labels"} if kind == "mcp" else set())
    for key in told:
        if key not in keys:
            known = ", ".join(sorted(keys))
            raise _refused(path, text, key, f"{title}: unknown key {key!r}; there are {known}", after)
    for key in ("argv", "env", "projects", "labels"):
        value = told.get(key, [])
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise _refused(path, text, key, f"{title}: {key} must be a list of texts", after)
    argv = told.get("argv", [])
    if not argv or not Path(argv[0]).is_absolute():
        raise _refused(path, text, "argv", f"{title}: argv must begin with a program and its absolute path", after)
    cwd = told.get("cwd")
    if cwd is not None and not isinstance(cwd, str):
        raise _refused(path, text, "cwd", f"{title}: cwd must be a text", after)
    unknown = next((each for each in told.get("labels", []) if each not in LABELS), None)
    if unknown is not None:
        raise _refused(
            path, text, "labels", f"{title}: unknown label {unknown!r}; there are {', '.join(LABELS)}", after
        )
    return Command(
        tuple(argv),
        tuple(told.get("env", _USUAL_ENV)),
        cwd,
        tuple(told.get("projects", ("default",))),
        tuple(told["labels"]) if "labels" in told else None,
    )


def _line_of(text: str, pattern: str, after: int = 0) -> int:
    """The number of the first line, after another, that begins with a pattern; that other when none does."""
    for number, line in enumerate(text.splitlines(), start=1):
        if number > after and re.match(rf"\s*\[*\s*[\"']?{pattern}", line):
            return number
    return after


def _refused(path: Path, text: str, pattern: str, why: str, after: int = 0) -> InvalidCommands:
    return InvalidCommands(f"{path}, line {_line_of(text, pattern, after) or 1}: {why}")


class CommandRunner:
    """Does runs of bots whose runner is `command`."""

    def __init__(self, commands: Mapping[str, Command], default_project: str) -> None:
        """default_project: the id of the project that the file calls `default`."""
        self._commands = commands
        self._default_project = default_project

    def command_for(self, name: str, project_id: str) -> Command | None:
        """The program of this name, if the project may use it."""
        found = self._commands.get(name)
        return found if found is not None and found.is_for(project_id, self._default_project) else None

    async def run(self, started: Started, progress: Progress) -> Outcome | None:
        """See `Runner`."""
        name = started.bot.options.runner["command"]
        command = self.command_for(name, started.run.project_id)
        if command is None:
            return Outcome("error", "runner_error", error_message=f"There is no command {name!r} for this project")
        with tempfile.TemporaryDirectory(prefix="lifesign-run-", ignore_cleanup_errors=True) as directory:
            env = _environment(command, started)
            try:
                program = await kept(
                    command.argv, cwd=command.cwd or directory, env=env, stderr=asyncio.subprocess.PIPE
                )
            except OSError as error:
                return _not_started(name, error.strerror or str(error))
            outcome = await _attended(program, started, progress)
            return outcome if program.failure is None else _not_started(name, program.failure)


def _not_started(name: str, why: str) -> Outcome:
    return Outcome("error", "runner_error", error_message=f"The command {name!r} cannot be started: {why}")


def passed_on(command: Command) -> dict[str, str]:
    """The variables of the server that a program gets."""
    return {name: os.environ[name] for name in command.env if name in os.environ}


def _environment(command: Command, started: Started) -> dict[str, str]:
    return passed_on(command) | {"TRACEPARENT": traceparent(started.run.id)}


async def _attended(program: Kept, started: Started, progress: Progress) -> Outcome:
    process = program.process
    lines = _Lines(progress)
    errors = bytearray()
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_feed(process, started))
            group.create_task(_last_bytes(process, errors))
            group.create_task(lines.read(program))
        code = await process.wait()
    finally:
        await asyncio.shield(_end(program))
        if errors:
            with contextlib.suppress(Exception):
                await asyncio.shield(progress.say("system", errors.decode("utf-8", "replace"), name="stderr"))
    return await _judged(code, lines, progress)


async def _judged(code: int, lines: "_Lines", progress: Progress) -> Outcome:
    if lines.is_too_long:
        return INVALID
    if lines.result is not None and lines.result.totals is not None:
        await progress.spend_total(lines.result.totals)
    if code == _SKIPPED_EXIT:
        return Outcome("skipped", "runner_skip")
    if code != 0:
        words = f"The command ended with exit code {code}" if code > 0 else f"The command was ended by signal {-code}"
        return Outcome("error", "runner_error", error_message=words)
    return INVALID if lines.result is None else lines.result.outcome


async def _feed(process: asyncio.subprocess.Process, started: Started) -> None:
    pipe = process.stdin
    if pipe is None:
        return
    # A program need not read what it is told.
    with contextlib.suppress(OSError):
        pipe.write(msgspec.json.encode(job_of(started)))
        await pipe.drain()
    with contextlib.suppress(OSError):
        pipe.close()


async def _last_bytes(process: asyncio.subprocess.Process, kept: bytearray) -> None:
    while process.stderr is not None and (chunk := await process.stderr.read(_STDERR_BYTES)):
        kept += chunk
        del kept[:-_STDERR_BYTES]


async def _end(program: Kept) -> None:
    """Leave nothing of a program: asked first, killed 2 s later; what outlives it is killed at once."""
    if program.process.returncode is None:
        program.ask_to_end()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_TERM_S):
                await program.process.wait()
    await program.ended()


class _Lines:
    """What a program says."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.result: Result | None = None
        self.is_too_long = False

    async def read(self, program: Kept) -> None:
        """Take line by line, until the end or until it is too much."""
        rest, size = b"", 0
        process = program.process
        while process.stdout is not None and (chunk := await process.stdout.read(65_536)):
            size += len(chunk)
            if size > MAX_ANSWER_BYTES:
                self.is_too_long = True
                program.kill()
                return
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                await self._take(line)
        await self._take(rest)

    async def _take(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace").strip()
        if not text:
            return
        try:
            told = msgspec.json.decode(text)
        except msgspec.DecodeError:
            told = None
        kind = told.get("type") if isinstance(told, dict) else None
        if kind == "usage" and (totals := totals_of(told)) is not None:
            await self._progress.spend_total(totals)
        elif kind == "result" and self.result is None:
            self.result = result_of(told)
        elif kind == "log" and isinstance(told.get("text"), str):
            await self._progress.say("system", told["text"], name="log")
        else:
            await self._progress.say("system", text, name="log")
