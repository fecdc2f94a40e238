"""The host: a process with one thread and a warm runtime, which forks a process for each run.

It is told over a Unix socket: `fork <run> <directory>` with the run's own socket attached, `kill <run>`. It tells
`ready`, and `ended <run> <status>` of each that it forked. When the server goes away, so do all of them.
"""

import asyncio
import ctypes
import gc
import os
import resource
import selectors
import signal
import socket
import sys
from pathlib import Path
from typing import NoReturn

MEMORY_BYTES = 1024**3
READY = b"ready\n"
_FILES = 256
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
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
    _control_process(_PR_SET_CHILD_SUBREAPER, 1)
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
                _kill(pid)

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
                _kill(self._runs[run])
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
            _kill(pid)
            _, status = os.waitpid(pid, 0)
            del self._runs[run]
            self._end_orphans()
            self._control.sendall(f"ended {run} {os.waitstatus_to_exitcode(status)}\n".encode())

    def _end_orphans(self) -> None:
        """End what a run left behind in groups of their own: such processes became children of this one."""
        known = set(self._runs.values())
        try:
            children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        except OSError:
            return
        for pid in map(int, children):
            if pid not in known:
                _kill(pid)
                os.waitpid(pid, 0)


def _kill(pid: int) -> None:
    # Before the process has made its group there is only itself.
    for end in (os.killpg, os.kill):
        try:
            end(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue
        return


def dies_with_parent() -> None:
    """The kernel ends this process when its parent ends, however that happens."""
    _control_process(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _control_process(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


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
