"""Hosts of the builtin runner, as the server sees them: processes that fork another for each run, and end it.

There is one for each kind of provider, started when it is first needed: what one kind needs of memory the other need
not carry. A host that dies takes its runs along, and the next run starts another.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec
import structlog

from lifesign.bots.agent.host import READY
from lifesign.bots.agent.messages import MAX_FRAME_BYTES, Cancel, FromProcess, framed, next_from_process

log = structlog.get_logger("lifesign.bots")

_START_S = 60.0
_COOPERATES_S = 2.0
_REAP_S = 1.5
_PASSED_ON = ("PATH", "LANG", "PYTHONPATH")


class HostFailed(Exception):
    """No process could be made for a run; the message is for the log of the run."""


@dataclass(slots=True)
class RunProcess:
    """The process of one run."""

    run_id: str
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    ended: asyncio.Future[int | None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    """Its exit code, negative for a signal; None when its host is gone."""

    async def hear(self) -> FromProcess:
        """What it says next. Raises ConnectionLost."""
        return await next_from_process(self.reader)

    async def tell(self, message: msgspec.Struct) -> None:
        """Say something; whether it is still there is noticed when it is heard."""
        with contextlib.suppress(OSError):
            self.writer.write(framed(message))
            await self.writer.drain()


class Hosts:
    """The hosts of this server."""

    def __init__(self) -> None:
        self._hosts: dict[str, _Host] = {}
        self._starting: dict[str, asyncio.Lock] = {}

    @asynccontextmanager
    async def process(self, kind: str, run_id: str, directory: str) -> AsyncIterator[RunProcess]:
        """A new process for a run; at the end nothing is left of it. Raises HostFailed."""
        host = await self._host(kind)
        process = await host.fork(run_id, directory)
        try:
            yield process
        finally:
            await asyncio.shield(host.end(process))

    async def _host(self, kind: str) -> "_Host":
        async with self._starting.setdefault(kind, asyncio.Lock()):
            host = self._hosts.get(kind)
            if host is None or not host.is_alive:
                host = self._hosts[kind] = await _Host.started(kind)
            return host

    @property
    def pids(self) -> dict[str, int]:
        """The processes that are hosts, by kind."""
        return {kind: host.pid for kind, host in self._hosts.items() if host.is_alive}

    async def aclose(self) -> None:
        """End them all, with whatever they still do."""
        for host in self._hosts.values():
            await host.close()
        self._hosts.clear()


class _Host:
    """One host."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        control: socket.socket,
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self._control = control
        self._runs: dict[str, RunProcess] = {}
        self._listening = asyncio.create_task(self._listen(), name="bots.host")

    @classmethod
    async def started(cls, kind: str) -> "_Host":
        """A host that is ready to fork. Raises HostFailed."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-m",
                "lifesign.bots.agent.host",
                kind,
                str(theirs.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                # Nothing of the server's environment may be read there, not even as it was at the start.
                env={name: os.environ[name] for name in _PASSED_ON if name in os.environ} | {"MALLOC_ARENA_MAX": "2"},
            )
        control = ours.dup()
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        try:
            async with asyncio.timeout(_START_S):
                is_ready = await reader.readline() == READY
        except TimeoutError:
            is_ready = False
        if not is_ready:
            writer.close()
            control.close()
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            raise HostFailed(f"The runtime of language models did not start (exit code {await process.wait()})")
        log.info("bot_host.started", kind=kind, pid=process.pid)
        return cls(process, reader, writer, control)

    @property
    def is_alive(self) -> bool:
        """Whether it may be asked."""
        return not self._listening.done()

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    async def fork(self, run_id: str, directory: str) -> RunProcess:
        """A process for a run. Raises HostFailed."""
        ours, theirs = socket.socketpair()
        with theirs:
            self._say(f"fork {run_id} {directory}\n", [theirs.fileno()])
        reader, writer = await asyncio.open_unix_connection(sock=ours, limit=MAX_FRAME_BYTES)
        process = self._runs[run_id] = RunProcess(run_id, reader, writer)
        if not self.is_alive:
            self._end(run_id, None)
        return process

    async def end(self, process: RunProcess) -> None:
        """See to it that nothing is left: it is asked to end, and ended by force when it does not."""
        await process.tell(Cancel())
        if not await _has_ended(process, _COOPERATES_S):
            with contextlib.suppress(HostFailed):
                self._say(f"kill {process.run_id}\n", [])
            if not await _has_ended(process, _REAP_S):
                # A host that does not do that is of no use; what it forked ends with it.
                log.error("bot_host.stuck", pid=self.pid)
                self._kill()
        process.writer.close()

    def _say(self, line: str, descriptors: list[int]) -> None:
        try:
            if descriptors:
                socket.send_fds(self._control, [line.encode()], descriptors)
            else:
                self._control.send(line.encode())
        except OSError as error:
            self._kill()
            raise HostFailed("The process that makes processes for runs is gone") from error

    async def _listen(self) -> None:
        """Take who ended, until the host is gone."""
        try:
            while line := await self._reader.readline():
                word, run_id, status = line.decode().split()
                if word == "ended":
                    self._end(run_id, int(status))
        except OSError:
            pass
        finally:
            for run_id in list(self._runs):
                self._end(run_id, None)
            self._writer.close()
            self._control.close()
            self._kill()
        code = await self._process.wait()
        log.info("bot_host.ended", pid=self.pid, code=code)

    def _end(self, run_id: str, status: int | None) -> None:
        process = self._runs.pop(run_id, None)
        if process is not None and not process.ended.done():
            process.ended.set_result(status)

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGKILL)

    async def close(self) -> None:
        """End it: it ends what it forked once the connection is gone."""
        self._writer.close()
        self._control.close()
        try:
            async with asyncio.timeout(_COOPERATES_S):
                await self._process.wait()
        except TimeoutError:
            self._kill()
            await self._process.wait()
        await asyncio.gather(self._listening, return_exceptions=True)


async def _has_ended(process: RunProcess, within_s: float) -> bool:
    done, _ = await asyncio.wait({process.ended}, timeout=within_s)
    return bool(done)
