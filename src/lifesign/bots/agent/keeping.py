"""Programs that are begun under a keeper (`keeper.py`), as whoever begins them sees them."""

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lifesign.bots.agent.keeper import ASK

_KEEPER: Final = Path(__file__).with_name("keeper.py")
_KILLS_S: Final = 1.5


@dataclass(slots=True)
class Kept:
    """A program. Its streams and its end are those of the process; nothing of it outlives the socket."""

    process: asyncio.subprocess.Process
    _control: socket.socket
    failure: str | None = None
    """Why it could not be started; known at its end."""

    def ask_to_end(self) -> None:
        """SIGTERM, to its process group."""
        with contextlib.suppress(OSError):
            self._control.send(ASK)

    def kill(self) -> None:
        """SIGKILL, to all that it has begun. It cannot be asked anything afterwards."""
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_WR)

    async def ended(self) -> int:
        """Leave nothing of it; its exit code, negative for a signal."""
        self.kill()
        try:
            async with asyncio.timeout(_KILLS_S):
                code = await self.process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            code = await self.process.wait()
        with self._control, contextlib.suppress(OSError):
            said = self._control.recv(16)
            self.failure = os.strerror(int(said)) if said else None
        return code


async def kept(
    argv: Sequence[str], *, cwd: str | None, env: Mapping[str, str], stderr: int, limit: int = 2**16
) -> Kept:
    """Begin a program with streams to it. stderr, limit: as for a subprocess of asyncio. Raises OSError."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)  # noqa: FBT003 - not ours
    try:
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                "-S",
                str(_KEEPER),
                str(theirs.fileno()),
                "=".join(env),
                *argv,
                cwd=cwd,
                env=env,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=stderr,
                limit=limit,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
    except BaseException:
        ours.close()
        raise
    return Kept(process, ours)
