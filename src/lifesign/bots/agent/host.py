"""The host: a process with one thread and a warm runtime, which forks a process for each run.

It is told over a Unix socket: `fork <run> <directory>` with the run's own socket attached, `kill <run>`. It tells
`ready`, and `ended <run> <status>` of each that it forked. When the server goes away, so do all of them.
"""

import asyncio
import gc
import os
import resource
import selectors
import signal
import socket
import sys
from typing import NoReturn

from lifesign.bots.agent.keeper import adopts_orphans, dies_with_parent, end_orphans, kill_group

MEMORY_BYTES = 1024**3
READY = b"ready\n"
_FILES = 256
_BUFFER = 65_536


def main(kind: str, control_fd: int) -> None:
    """Serve until the server goes away. kind: of the providers whose runtime is to be warm."""
    os.environ.clear()
    control = socket.socket(fileno=control_fd)
    # Ours alone: signals of a terminal go to whole groups, and the server decides when runs end.
    os.setpgid(0, 0)
    wake, woken = socket.socketpair()
    for each in (wake, woken):
        os.set_blocking(each.fileno(), False)
    signal.set_wakeup_fd(wake.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    from lifesign.bots.agent import models, process  # noqa: PLC0415 - slow, and nothing may go wrong before

    asyncio.run(models.warm_up(kind))
    del process
    gc.collect()
    # What is there now is shared with every process that is forked: counting in it would copy it.
    gc.freeze()
    # Up to here a fault is for whoever starts the server; from here on it may hold what a model was told.
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a descriptor is all that is wanted
        os.dup2(nowhere.fileno(), sys.stderr.fileno())
    adopts_orphans()
    control.sendall(READY)
    _Host(control, woken).serve()


class _Host:
    """Forks, kills, and tells who ended."""

    def __init__(self, control: socket.socket, woken: socket.socket) -> None:
        self._control = control
        self._woken = woken
        self._runs: dict[str, int] = {}
        self._rest = b""
        self._sockets: list[int] = []

    def serve(self) -> None:
        """Until the server goes away."""
        selector = selectors.DefaultSelector()
        selector.register(self._control, selectors.EVENT_READ)
        selector.register(self._woken, selectors.EVENT_READ)
        try:
            while True:
                for key, _ in selector.select():
                    if key.fileobj is self._woken:
                        self._woken.recv(_BUFFER)
                        self._reap()
                    elif not self._listen():
                        return
        except (BrokenPipeError, ConnectionResetError):
            return
        finally:
            for pid in self._runs.values():
                kill_group(pid)
            # Nobody knows them any more, nor what they have begun.
            end_orphans()

    def _listen(self) -> bool:
        """Do what the server says; False when it is gone."""
        content, descriptors, _, _ = socket.recv_fds(self._control, _BUFFER, 16)
        self._sockets += descriptors
        if not content:
            return False
        *lines, self._rest = (self._rest + content).split(b"\n")
        for line in lines:
            word, run, *more = line.decode().split(" ", 2)
            if word == "fork":
                self._fork(run, self._sockets.pop(0), more[0])
            elif word == "kill" and run in self._runs:
                kill_group(self._runs[run])
        return True

    def _fork(self, run: str, channel: int, directory: str) -> None:
        pid = os.fork()
        if pid == 0:
            _become(channel, directory, [self._control.fileno(), self._woken.fileno(), *self._sockets])
        os.close(channel)
        self._runs[run] = pid

    def _reap(self) -> None:
        """Tell who ended, and leave nothing of their groups."""
        for run, pid in list(self._runs.items()):
            # Its number is not given to another before it is waited for, so the group is surely its own.
            ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None:
                continue
            kill_group(pid)
            _, status = os.waitpid(pid, 0)
            del self._runs[run]
            # What it left in groups of their own became children of this one.
            end_orphans(frozenset(self._runs.values()))
            self._control.sendall(f"ended {run} {os.waitstatus_to_exitcode(status)}\n".encode())


def _become(channel: int, directory: str, inherited: list[int]) -> NoReturn:
    """Be the process of a run."""
    status = 1
    try:
        dies_with_parent()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for each in inherited:
            os.close(each)
        os.setsid()
        os.chdir(directory)
        os.environ["HOME"] = os.environ["TMPDIR"] = directory
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_NOFILE, (_FILES, _FILES))
        from lifesign.bots.agent import process  # noqa: PLC0415 - imported by the host already

        status = process.main(socket.socket(fileno=channel))
    finally:
        os._exit(status)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
