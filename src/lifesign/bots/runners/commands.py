"""Runs done by a program of the operator: a job on its standard input, JSON lines on its standard output.

Which programs there are stands in the operator's file `bots.toml`. None is started by a shell; each gets a process
group and a directory of its own, and nothing of the group outlives the run.
"""

import asyncio
import contextlib
import os
import re
import signal
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import structlog

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
from lifesign.bots.running import Outcome, Started

log = structlog.get_logger("lifesign.bots")

FILE = "bots.toml"
_KEYS = {"argv", "env", "cwd", "projects"}
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


def commands_in(directory: Path) -> dict[str, Command]:
    """The programs of the operator's file; none where there is no file. Raises InvalidCommands."""
    path = directory / FILE
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeError) as error:
        raise InvalidCommands(f"{path}: cannot be read: {error}") from error
    try:
        told = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidCommands(f"{path}: {error}") from error
    for name in told:
        if name != "commands":
            raise _refused(path, text, name, "unknown key; there is commands")
    commands = told.get("commands", {})
    if not isinstance(commands, dict):
        raise _refused(path, text, "commands", "must be tables, [commands.name]")
    return {name: _command(path, text, name, each) for name, each in commands.items()}


def _command(path: Path, text: str, name: str, told: Any) -> Command:  # Any: what stands in the file
    where = rf"commands\.[\"']?{re.escape(name)}"
    if not isinstance(told, dict):
        raise _refused(path, text, where, f"commands.{name}: must be a table")
    after = _line_of(text, where)
    for key in told:
        if key not in _KEYS:
            known = ", ".join(sorted(_KEYS))
            raise _refused(path, text, key, f"commands.{name}: unknown key {key!r}; there are {known}", after)
    for key in ("argv", "env", "projects"):
        value = told.get(key, [])
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise _refused(path, text, key, f"commands.{name}: {key} must be a list of texts", after)
    argv = told.get("argv", [])
    if not argv or not Path(argv[0]).is_absolute():
        raise _refused(
            path, text, "argv", f"commands.{name}: argv must begin with a program and its absolute path", after
        )
    cwd = told.get("cwd")
    if cwd is not None and not isinstance(cwd, str):
        raise _refused(path, text, "cwd", f"commands.{name}: cwd must be a text", after)
    return Command(tuple(argv), tuple(told.get("env", _USUAL_ENV)), cwd, tuple(told.get("projects", ("default",))))


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
        if found is None:
            return None
        allowed = {self._default_project if each == "default" else each for each in found.projects}
        return found if EVERYBODY in allowed or project_id in allowed else None

    async def run(self, started: Started, progress: Progress) -> Outcome | None:
        """See `Runner`."""
        name = started.bot.options.runner["command"]
        command = self.command_for(name, started.run.project_id)
        if command is None:
            return Outcome("error", "runner_error", error_message=f"There is no command {name!r} for this project")
        with tempfile.TemporaryDirectory(prefix="lifesign-run-", ignore_cleanup_errors=True) as directory:
            try:
                process = await asyncio.create_subprocess_exec(
                    *command.argv,
                    cwd=command.cwd or directory,
                    env=_environment(command, started),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.PIPE,
                    start_new_session=True,
                )
            except OSError as error:
                words = f"The command {name!r} cannot be started: {error.strerror or error}"
                return Outcome("error", "runner_error", error_message=words)
            return await _attended(process, started, progress)


def _environment(command: Command, started: Started) -> dict[str, str]:
    passed = {name: os.environ[name] for name in command.env if name in os.environ}
    return passed | {"TRACEPARENT": traceparent(started.run.id)}


async def _attended(process: asyncio.subprocess.Process, started: Started, progress: Progress) -> Outcome:
    lines = _Lines(progress)
    errors = bytearray()
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_feed(process, started))
            group.create_task(_last_bytes(process, errors))
            group.create_task(lines.read(process))
        code = await process.wait()
    finally:
        await asyncio.shield(_end_group(process))
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


async def _end_group(process: asyncio.subprocess.Process) -> None:
    """Leave nothing of the process group: asked first, killed 2 s later; what outlives its leader is killed at once."""
    if process.returncode is None:
        _signal(process.pid, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_TERM_S):
                await process.wait()
    _signal(process.pid, signal.SIGKILL)
    await process.wait()


def _signal(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


class _Lines:
    """What a program says."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.result: Result | None = None
        self.is_too_long = False

    async def read(self, process: asyncio.subprocess.Process) -> None:
        """Take line by line, until the end or until it is too much."""
        rest, size = b"", 0
        while process.stdout is not None and (chunk := await process.stdout.read(65_536)):
            size += len(chunk)
            if size > MAX_ANSWER_BYTES:
                self.is_too_long = True
                _signal(process.pid, signal.SIGKILL)
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
